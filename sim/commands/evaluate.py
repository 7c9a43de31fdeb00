"""`sim evaluate`: what other policies would have done, from the log of one.

There are three ways. Frozen policies are judged by off-policy estimates; policies that go on
learning or hold a budget by rejection replay; a log without propensities by the direct method
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim import options
from sim.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from sim.ope.bandit_log import BanditLog
    from sim.ope.logged_requests import DecisionHistory
    from sim.play.candidate import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """The options of `sim evaluate`.

    Raises
    ------
    InputError
        For a value or a combination that is wrong whatever the log says; it names the option.
    """

    log: Annotated[
        str, typer.Option(help="URL of a daemon's database, a bandit log .parquet, or a spend log.")
    ]
    policy: Annotated[
        list[str] | None,
        typer.Option(help="FILE.yaml, NAME, NAME:key=value,.. or NAME@PRIOR_FILE; repeatable."),
    ] = None
    baseline: Annotated[
        str, typer.Option(help="What all are compared with: logged, or one of the policies.")
    ] = "logged"
    pool: Annotated[str, typer.Option(help="Pool of the daemon.")] = "default"
    since: Annotated[
        str | None, typer.Option(help="Only decisions from this time on (ISO 8601, UTC).")
    ] = None
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only decisions with this tag, KEY=VALUE; of a file, its column."),
    ] = None
    learn_fraction: Annotated[
        float,
        typer.Option(help="Share of the log that policies learn from before they are judged."),
    ] = 0.5
    learning: Annotated[
        bool, typer.Option("--learning", help="Policies go on learning: by rejection replay.")
    ] = False
    budget_rate: Annotated[
        float | None,
        typer.Option(help="USD per request that policies may spend: by rejection replay."),
    ] = None
    compare: Annotated[
        str | None,
        typer.Option(help="Print the mean of the decisions with this tag beside the estimates."),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap and of acceptance.")] = 0
    json_path: options.Json = None

    def __post_init__(self) -> None:
        """Check what is wrong whatever the log says."""
        if not 0.0 <= self.learn_fraction < 1.0:
            raise InputError(f"--learn-fraction: in [0, 1), not {self.learn_fraction:g}")
        if self.budget_rate is not None and not 0.0 < self.budget_rate < math.inf:
            raise InputError(f"--budget-rate: must be above 0, not {self.budget_rate:g}")
        _microseconds(self.since)
        for key, value in self.compared_tags.items():
            if self.tags.get(key, value) == value:
                raise InputError(f"--compare: --tag must select other decisions, by {key}=OTHER")
        if self.replay_option is None:
            return
        if not self.policies:
            raise InputError(f"{self.replay_option}: a --policy is expected, to be replayed")
        for option, is_set in (
            ("--compare", self.compare is not None),
            ("--baseline", self.baseline != "logged"),
            ("--policy logged:..", bool(self.logged_policies)),
        ):
            if is_set:
                reason = f"not together with {self.replay_option}: nothing is compared there"
                raise InputError(f"{option}: {reason}")

    @property
    def replay_option(self) -> str | None:
        """The option because of which policies are replayed, None where they are frozen."""
        if self.learning:
            return "--learning"
        return None if self.budget_rate is None else "--budget-rate"

    @property
    def policies(self) -> list[str]:
        """Policies to train on the log."""
        return [text for text in self.policy or () if not text.startswith("logged:")]

    @property
    def logged_policies(self) -> list[str]:
        """Policies of which there is only another log; they cannot be judged from this one."""
        return [text for text in self.policy or () if text.startswith("logged:")]

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the decisions to judge from."""
        return _tags("--tag", self.tag or ())

    @property
    def compared_tags(self) -> dict[str, str]:
        """Tags of the decisions whose mean stands beside the estimates."""
        return _tags("--compare", () if self.compare is None else (self.compare,))


@options.command_of(EvaluateOptions)
def command(asked: EvaluateOptions) -> None:
    """Judge policies that never ran, from logged decisions and their propensities."""
    from sim.commands.terminal import console

    options.check_writable("--json", asked.json_path)
    result = _plan(asked).run()
    result.show(console())
    if asked.json_path is not None:
        options.write_json(asked.json_path, result.report)
    if result.refused:
        raise typer.Exit(3)


@dataclass(frozen=True, slots=True)
class _Result:
    """What is printed and written at the end; `refused` where no policy could be judged."""

    show: Callable[[Console], None]
    report: dict[str, Any]
    refused: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """An evaluation before it is run, after all checks that can be made before."""

    asked: EvaluateOptions
    history: DecisionHistory
    candidates: list[Candidate]
    compared: BanditLog | None
    has_propensities: bool

    def run(self) -> _Result:
        if not self.has_propensities:
            return self._by_direct_method()
        if self.asked.replay_option is not None:
            return self._by_rejection_replay()
        return self._by_estimates()

    def _by_direct_method(self) -> _Result:
        from sim.ope.direct_method import estimates
        from sim.ope.tables import show_direct

        log = self.history.log
        means = estimates(self.history, self.candidates, fraction=self.asked.learn_fraction)
        return _Result(
            show=lambda console: show_direct(console, log, means),
            report={"log": log.name, "direct": means},
            refused=False,
        )

    def _by_rejection_replay(self) -> _Result:
        from sim.commands.terminal import progress
        from sim.ope.rejection_replay import replay
        from sim.ope.tables import replayed_json, show_replayed

        replayed = []
        with progress(len(self.candidates)) as advance:
            for candidate in self.candidates:
                result = replay(
                    self.history,
                    candidate,
                    first=round(self.asked.learn_fraction * len(self.history.log)),
                    learning=self.asked.learning,
                    budget_rate_usd=self.asked.budget_rate,
                    seed=self.asked.seed,
                )
                replayed.append(result)
                advance()
        return _Result(
            show=lambda console: show_replayed(console, replayed),
            report={"log": self.history.log.name, "replayed": replayed_json(replayed)},
            refused=all(result.refusal for result in replayed),
        )

    def _by_estimates(self) -> _Result:
        from sim.ope.evaluation import compare_with_log, evaluate, not_identified
        from sim.ope.tables import as_json, show

        asked = self.asked
        evaluation = evaluate(
            self.history,
            self.candidates,
            fraction=asked.learn_fraction,
            baseline=asked.baseline,
            seed=asked.seed,
        )
        evaluation.policies += [not_identified(text) for text in asked.logged_policies]
        if self.compared is not None:
            evaluation.comparison = compare_with_log(evaluation, self.compared, str(asked.compare))
        others = [policy for policy in evaluation.policies if policy.label != "logged"]
        return _Result(
            show=lambda console: show(console, evaluation),
            report=as_json(evaluation),
            refused=bool(others) and all(policy.refusal for policy in others),
        )


def _plan(asked: EvaluateOptions) -> _Plan:
    """Read the log and check what is asked for against it."""
    import numpy as np

    history = _read(asked, asked.tags)
    candidates = _candidates(asked.policies, history)
    if asked.baseline not in ("logged", *(candidate.label for candidate in candidates)):
        raise InputError(f"--baseline: {asked.baseline!r} is neither 'logged' nor a --policy")
    has_propensities = not np.isnan(history.log.propensity).any()
    if not has_propensities:
        option = "--compare" if asked.compare is not None else asked.replay_option
        if option is not None:
            raise InputError(f"{option}: {asked.log} has no propensities")
    compared = None if asked.compare is None else _read(asked, asked.compared_tags).log
    return _Plan(asked, history, candidates, compared, has_propensities)


def _tags(option: str, pairs: Sequence[str]) -> dict[str, str]:
    tags = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{option}: {pair!r} is not KEY=VALUE")
        tags[key] = value
    return tags


def _microseconds(text: str | None) -> int | None:
    """Return microseconds since the epoch of a time in ISO 8601, UTC unless it says otherwise."""
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"--since: {text!r} is not a date or time in ISO 8601") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return int(time.timestamp() * 1e6)


def _read(asked: EvaluateOptions, tags: dict[str, str]) -> DecisionHistory:
    """Return the decisions of the log that have these tags, of a database or of a file."""
    from sim.data.database import open_log
    from sim.ope import direct_method, read_database, read_parquet

    log = asked.log
    if "://" in log:
        with open_log(log) as store:
            since_us = _microseconds(asked.since)
            return read_database.read(store, asked.pool, since_us=since_us, tags=tags)
    if asked.since is not None:
        raise InputError("--since: the rows of a file have no time; --tag selects some")
    path = Path(log)
    if read_parquet.is_log(path) or not path.exists():
        return read_parquet.history_of(read_parquet.read(path, tags=tags))
    if tags:
        raise InputError(f"--tag: {log} has no tags to select by")
    return read_parquet.history_of(direct_method.read(path))


def _candidates(texts: Sequence[str], history: DecisionHistory) -> list[Candidate]:
    """Return the policies, after a check that each can be judged from the log."""
    from sim.play.candidate import check_labels, parse_candidate
    from sim.play.libraries import LIBRARIES

    candidates = [parse_candidate(text) for text in texts]
    check_labels(candidates)
    for candidate in candidates:
        where = f"--policy: {candidate.label!r}"
        if candidate.name in LIBRARIES:
            raise InputError(f"{where} has no law of its choices to be judged by")
        if candidate.options.reset_on_drift:
            raise InputError(f"{where}: reset_on_drift: no alarm is answered here")
        if candidate.label == "logged":
            raise InputError("--policy: 'logged' is the policy that decided; it is always judged")
        candidate.check(
            models=history.log.models,
            embedder=history.policy_identity.embedder,
            dim=history.policy_identity.dim,
        )
    return candidates
