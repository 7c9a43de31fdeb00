"""What Prometheus scrapes. Labels are pools, models and outcomes; never ids, never text."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from banditroute.decide.columns import Decisions, Snapshot
from banditroute.store.writer import Writer

_DECIDE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """The counters of one process.

    Parameters
    ----------
    writer : the writer whose queue is shown.
    snapshots : returns the snapshot that each pool decides from.
    prices : returns the price of money by pool and budget, in quality units per US dollar.
    """

    def __init__(
        self,
        *,
        writer: Writer,
        snapshots: Callable[[], dict[str, Snapshot]],
        prices: Callable[[], dict[tuple[str, str], float]] = dict,
    ) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "banditroute_decisions",
            "Decisions that chose a model",
            ["pool", "model"],
            registry=self.registry,
        )
        self._refused = Counter(
            "banditroute_refused",
            "Requests that no model was eligible for",
            ["pool"],
            registry=self.registry,
        )
        self._exploration = Counter(
            "banditroute_exploration_usd",
            "US dollars that exploration shares were expected to cost beyond the best choices",
            ["pool"],
            registry=self.registry,
        )
        self._over_budget = Counter(
            "banditroute_over_budget",
            "Requests that a budget has left without a model",
            ["pool", "budget"],
            registry=self.registry,
        )
        self._decide = Histogram(
            "banditroute_decide_seconds",
            "Time to score and draw a call's rows of one pool, features and log left out",
            ["pool"],
            buckets=_DECIDE_BUCKETS,
            registry=self.registry,
        )
        self._feedback = Counter(
            "banditroute_feedback",
            "Feedback by what became of it",
            ["status"],
            registry=self.registry,
        )
        self._requests = Histogram(
            "banditroute_http_seconds",
            "Time to answer, log included",
            ["route", "status"],
            buckets=_COMMIT_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(_Gauges(writer, snapshots, prices))

    def decided(self, pool: str, decisions: Decisions, seconds: float) -> None:
        """Count the decisions of one call and the time they took."""
        self._decide.labels(pool).observe(seconds)
        if decisions.exploration_usd:
            self._exploration.labels(pool).inc(decisions.exploration_usd)
        names = decisions.scored.columns.models
        for k, count in Count(decisions.chosen.tolist()).items():
            if k < 0:
                self._refused.labels(pool).inc(count)
            else:
                self._decisions.labels(pool, names[k].name).inc(count)

    def over_budget(self, pool: str, budget: str) -> None:
        """Count a request that a budget has left without a model."""
        self._over_budget.labels(pool, budget).inc()

    def fed_back(self, statuses: Sequence[str]) -> None:
        """Count what became of feedback."""
        for status, count in Count(statuses).items():
            self._feedback.labels(status).inc(count)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP answer."""
        self._requests.labels(route, status).observe(seconds)

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(
        self,
        writer: Writer,
        snapshots: Callable[[], dict[str, Snapshot]],
        prices: Callable[[], dict[tuple[str, str], float]],
    ) -> None:
        self._writer, self._snapshots, self._prices = writer, snapshots, prices

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges as they are now."""
        yield GaugeMetricFamily(
            "banditroute_writes_waiting",
            "Pieces of work that wait for a commit",
            value=self._writer.waiting,
        )
        version = GaugeMetricFamily(
            "banditroute_policy_version",
            "Log position of the snapshot that decides",
            labels=["pool"],
        )
        drift = GaugeMetricFamily(
            "banditroute_drift_ratio",
            "Evidence that a model's quality changed, over that of an alarm; negative: it is worse",
            labels=["pool", "model"],
        )
        suspect = GaugeMetricFamily(
            "banditroute_suspect_model",
            "Whether a drift alarm found the model worse, and none found it better since",
            labels=["pool", "model"],
        )
        for pool, snapshot in self._snapshots().items():
            version.add_metric([pool], snapshot.version)
            for k, model in enumerate(snapshot.policy.arms):
                drift.add_metric([pool, model], snapshot.drift["level"][k])
                suspect.add_metric([pool, model], snapshot.drift["suspect"][k])
        price = GaugeMetricFamily(
            "banditroute_price_of_money",
            "Quality units per US dollar that a budget asks for by now",
            labels=["pool", "budget"],
        )
        for of, value in self._prices().items():
            price.add_metric(list(of), value)
        yield from (version, drift, suspect, price)
