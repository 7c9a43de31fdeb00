"""Verify the log: recompute decisions from their rows, and learned state from the events.

Nothing here writes. A difference means that a row was altered, or that this machine computes other
values than the one that decided.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from banditroute.learn.fold import Fold
from banditroute.learn.learner import rebuild
from banditroute.store.decision_row import Logged, decode
from banditroute.store.log import Log
from policies import Policy
from policies.base import Float32

TOLERANCE = 1e-5
"""Largest difference of an estimate that is taken for rounding, relative where it is above 1."""


@dataclass(slots=True)
class Audit:
    """What an audit found.

    Attributes
    ----------
    decisions : int
        Decisions that were recomputed.
    other_pmf, other_draw : int
        Decisions whose row gives other probabilities, or another draw, than it holds.
    rescored : int
        Decisions that were scored again from a snapshot rebuilt from the log.
    largest_difference : float
        Of estimates and scores, see `TOLERANCE`.
    flipped : int
        Rescored decisions whose most probable model is another one.
    outcomes : int
        Outcomes folded from the first event on.
    fold_s : float
        Seconds that this took.
    digest_of_log, digest_of_checkpoint : str
        Digest of the state folded from the first event on, and from the newest checkpoint on.
    """

    decisions: int = 0
    other_pmf: int = 0
    other_draw: int = 0
    rescored: int = 0
    largest_difference: float = 0.0
    flipped: int = 0
    outcomes: int = 0
    fold_s: float = 0.0
    digest_of_log: str = ""
    digest_of_checkpoint: str = ""

    def sound(self) -> bool:
        """Return whether all rows and the newest checkpoint agree with what was recomputed."""
        exact = self.other_pmf == 0 and self.other_draw == 0
        close = self.largest_difference <= TOLERANCE
        return exact and close and self.digest_of_log == self.digest_of_checkpoint

    def lines(self) -> dict[str, str]:
        """Return the findings as {label: value}, for a person."""
        rate = self.outcomes / self.fold_s if self.fold_s else 0.0
        return {
            "decisions": f"{self.decisions:,}",
            "pmf differs from its row": f"{self.other_pmf:,}",
            "draw differs from its row": f"{self.other_draw:,}",
            "re-scored from a rebuilt snapshot": f"{self.rescored:,}",
            "largest difference of an estimate": f"{self.largest_difference:.2e}",
            "flipped argmaxes": f"{self.flipped:,}",
            "outcomes folded from the start": f"{self.outcomes:,} ({rate:,.0f}/s)",
            "digest of the whole log": self.digest_of_log,
            "digest by checkpoint and rest": self.digest_of_checkpoint,
            "sound": "yes" if self.sound() else "NO",
        }


def audit(log: Log, pool: str) -> Audit:
    """Recompute every decision of a pool, and its state from the first event on.

    Parameters
    ----------
    log : Log
        The log.
    pool : str
        The pool.

    Returns
    -------
    Audit
        The findings.

    Raises
    ------
    ValueError
        If the policy of the pool never started.
    """
    report = Audit()
    began_s = time.perf_counter()
    whole = rebuild(log, pool, checkpoints=False)
    report.fold_s = time.perf_counter() - began_s
    from_checkpoint = rebuild(log, pool)
    if whole is None or from_checkpoint is None:
        raise ValueError(f"pool: the policy of {pool!r} never started")
    report.outcomes = whole[1].learned
    report.digest_of_log = whole[1].digest()
    report.digest_of_checkpoint = from_checkpoint[1].digest()
    scorers = _Scorers(log, pool)
    for row in log.decisions(pool):
        logged = decode(row)
        report.decisions += 1
        pmf, drawn = logged.recompute()
        propensity = pmf[logged.arms.index(row["model"])]
        report.other_pmf += not np.array_equal(pmf, logged.pmf) or row["propensity"] != propensity
        report.other_draw += drawn != row["model"]
        policy = scorers.policy_at(row["version"])
        if policy is not None and row["policy"] == scorers.identity:
            _rescore(report, policy, logged, row)
    return report


def _rescore(report: Audit, policy: Policy, logged: Logged, row: dict[str, object]) -> None:
    """Score a decision again and add the differences to the report."""
    arm_index = [policy.arms.index(name) for name in logged.arms]
    weights = [[row["w_quality"], row["w_cost"], row["w_latency"]]]
    scores, mean, std = policy.assess(logged.features[None], np.array(weights, dtype=np.float64))
    pairs = [(mean[0, arm_index], logged.mean), (std[0, arm_index], logged.std)]
    pairs += [(scores[name][0, arm_index], value) for name, value in logged.scores.items()]
    report.rescored += 1
    largest = max(_difference(again, before) for again, before in pairs)
    report.largest_difference = max(report.largest_difference, largest)
    rescored = {name: value[:, arm_index] for name, value in scores.items()}
    pmf = logged.law(type(policy), rescored)
    report.flipped += int(pmf.argmax() != logged.pmf.argmax())


def _difference(a: Float32, b: Float32) -> float:
    """Return the largest difference, relative where it is above 1; inf if one is not a number."""
    differences = np.abs(a - b) / np.maximum(1.0, np.abs(b))
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))


class _Scorers:
    """Rebuilds the policy of one snapshot version after another, in one pass over the log."""

    def __init__(self, log: Log, pool: str) -> None:
        self._log, self._pool = log, pool
        self._fold: Fold | None = None
        self._policy: Policy | None = None
        self.identity = ""

    def policy_at(self, version: int) -> Policy | None:
        """Return the policy at log position `version`; fast if versions grow."""
        if self._fold is None or self._fold.version > version:
            built = rebuild(self._log, self._pool, until=version, checkpoints=False)
            self._fold = built[1] if built else None
            self._policy = None
        elif self._fold.version < version:
            for event in self._log.events(after=self._fold.version, until=version, pool=self._pool):
                if event.kind in ("policy_started", "rollback"):
                    built = rebuild(self._log, self._pool, until=version, checkpoints=False)
                    self._fold = built[1] if built else None
                    break
                self._fold.apply(event)
            self._policy = None
        if self._fold is not None and self._policy is None:
            self.identity = self._fold.policy_identity.id
            self._policy = self._fold.snapshot().policy
        return self._policy
