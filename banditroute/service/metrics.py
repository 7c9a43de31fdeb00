"""Metrics for Prometheus. Labels are names of pools, models and outcomes, never ids or text."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from banditroute.decide.columns import Decisions, Snapshot
from banditroute.store.writer import Writer

_DECIDE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_ANSWER_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """The counters of one process.

    Parameters
    ----------
    writer : Writer
        The writer whose queue is shown.
    snapshots : callable
        Returns the snapshot that each pool decides from, by pool.
    prices : callable
        Returns the price of money by (pool, budget), in quality units per US dollar.
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
            "Requests that a budget left without a model",
            ["pool", "budget"],
            registry=self.registry,
        )
        self._decide = Histogram(
            "banditroute_decide_seconds",
            "Time to score and choose for a call's requests of one pool, without features and log",
            ["pool"],
            buckets=_DECIDE_BUCKETS_S,
            registry=self.registry,
        )
        self._feedback = Counter(
            "banditroute_feedback",
            "Feedback by its status",
            ["status"],
            registry=self.registry,
        )
        self._requests = Histogram(
            "banditroute_http_seconds",
            "Time to answer a request, including the commit to the log",
            ["route", "status"],
            buckets=_ANSWER_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_Gauges(writer, snapshots, prices))

    def decided(self, pool: str, decisions: Decisions, took_s: float) -> None:
        """Count the decisions of one call, and the time they took.

        Parameters
        ----------
        pool : str
            The pool.
        decisions : Decisions
            What was decided.
        took_s : float
            Seconds for scoring and choosing.
        """
        self._decide.labels(pool).observe(took_s)
        if decisions.exploration_usd:
            self._exploration.labels(pool).inc(decisions.exploration_usd)
        names = decisions.scored.columns.models
        for k, count in Count(decisions.chosen.tolist()).items():
            if k < 0:
                self._refused.labels(pool).inc(count)
            else:
                self._decisions.labels(pool, names[k].name).inc(count)

    def over_budget(self, pool: str, budget: str) -> None:
        """Count a request that a budget left without a model."""
        self._over_budget.labels(pool, budget).inc()

    def fed_back(self, statuses: Sequence[str]) -> None:
        """Count feedback by its status."""
        for status, count in Count(statuses).items():
            self._feedback.labels(status).inc(count)

    def answered(self, route: str, status: int, took_s: float) -> None:
        """Count an HTTP answer and the seconds that it took."""
        self._requests.labels(route, status).observe(took_s)

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    """Values that are read when Prometheus scrapes, see `Metrics` for the parameters."""

    def __init__(
        self,
        writer: Writer,
        snapshots: Callable[[], dict[str, Snapshot]],
        prices: Callable[[], dict[tuple[str, str], float]],
    ) -> None:
        self._writer, self._snapshots, self._prices = writer, snapshots, prices

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges with their current values."""
        yield GaugeMetricFamily(
            "banditroute_writes_waiting",
            "Pieces of work that wait for a commit",
            value=self._writer.waiting,
        )
        version = GaugeMetricFamily(
            "banditroute_policy_version",
            "Log position of the snapshot that decisions are made from",
            labels=["pool"],
        )
        drift = GaugeMetricFamily(
            "banditroute_drift_ratio",
            "Evidence that a model's quality changed, 1 at an alarm; negative: it became worse",
            labels=["pool", "model"],
        )
        suspect = GaugeMetricFamily(
            "banditroute_suspect_model",
            "1 if a drift alarm found the model worse and it has not recovered since, else 0",
            labels=["pool", "model"],
        )
        for pool, snapshot in self._snapshots().items():
            version.add_metric([pool], snapshot.version)
            for k, model in enumerate(snapshot.policy.arms):
                drift.add_metric([pool, model], snapshot.drift["level"][k])
                suspect.add_metric([pool, model], snapshot.drift["suspect"][k])
        price = GaugeMetricFamily(
            "banditroute_price_of_money",
            "Price of money that a budget asks for now, in quality units per US dollar",
            labels=["pool", "budget"],
        )
        for (pool, budget), value in self._prices().items():
            price.add_metric([pool, budget], value)
        yield from (version, drift, suspect, price)
