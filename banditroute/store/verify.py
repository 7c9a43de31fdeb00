"""Holding the log to its word: decisions recomputed from their rows, state from the events.

Nothing here writes. A difference means that a row was altered, or that this machine computes
otherwise than the one that decided.
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


@dataclass(slots=True)
class Audit:
    """What was found."""

    decisions: int = 0
    other_pmf: int = 0
    other_draw: int = 0
    rescored: int = 0
    worst_estimate: float = 0.0
    flipped: int = 0
    outcomes: int = 0
    fold_seconds: float = 0.0
    digest_of_log: str = ""
    digest_of_checkpoint: str = ""

    def sound(self) -> bool:
        """Whether every row gives what it says, and the checkpoints what the log gives."""
        exact = self.other_pmf == 0 and self.other_draw == 0
        close = self.worst_estimate <= TOLERANCE
        return exact and close and self.digest_of_log == self.digest_of_checkpoint

    def lines(self) -> dict[str, str]:
        """Return the findings, one per line, for a person."""
        rate = self.outcomes / self.fold_seconds if self.fold_seconds else 0.0
        return {
            "decisions": f"{self.decisions:,}",
            "pmf differs from its row": f"{self.other_pmf:,}",
            "draw differs from its row": f"{self.other_draw:,}",
            "re-scored from a rebuilt snapshot": f"{self.rescored:,}",
            "largest difference of an estimate": f"{self.worst_estimate:.2e}",
            "flipped argmaxes": f"{self.flipped:,}",
            "outcomes folded from the start": f"{self.outcomes:,} ({rate:,.0f}/s)",
            "digest of the whole log": self.digest_of_log,
            "digest by checkpoint and rest": self.digest_of_checkpoint,
            "sound": "yes" if self.sound() else "NO",
        }


def audit(log: Log, pool: str) -> Audit:
    """Recompute every decision of `pool`, and its state from the first event on.

    Raises
    ------
    ValueError
        If the policy of the pool never started.
    """
    found = Audit()
    began = time.perf_counter()
    whole = rebuild(log, pool, checkpoints=False)
    found.fold_seconds = time.perf_counter() - began
    quick = rebuild(log, pool)
    if whole is None or quick is None:
        raise ValueError(f"pool: the policy of {pool!r} never started")
    found.outcomes = whole[1].learned
    found.digest_of_log = whole[1].digest()
    found.digest_of_checkpoint = quick[1].digest()
    walker = _Walker(log, pool)
    for row in log.decisions(pool):
        logged = decode(row)
        found.decisions += 1
        pmf, chosen = logged.recompute()
        said = logged.arms.index(row["model"])
        found.other_pmf += not np.array_equal(pmf, logged.pmf) or row["propensity"] != pmf[said]
        found.other_draw += chosen != row["model"]
        policy = walker.at(row["version"])
        if policy is not None and row["policy"] == walker.identity:
            _rescore(found, policy, logged, row)
    return found


def _rescore(found: Audit, policy: Policy, logged: Logged, row: dict[str, object]) -> None:
    at = [policy.arms.index(name) for name in logged.arms]
    weights = [[row["w_quality"], row["w_cost"], row["w_latency"]]]
    scores, mean, std = policy.assess(logged.features[None], np.array(weights, dtype=np.float64))
    pairs = [(mean[0, at], logged.mean), (std[0, at], logged.std)]
    pairs += [(scores[name][0, at], value) for name, value in logged.scores.items()]
    found.rescored += 1
    worst = max(_difference(again, before) for again, before in pairs)
    found.worst_estimate = max(found.worst_estimate, worst)
    again = {name: value[:, at] for name, value in scores.items()}
    pmf = logged.law(type(policy), again)
    found.flipped += int(pmf.argmax() != logged.pmf.argmax())


def _difference(a: Float32, b: Float32) -> float:
    apart = np.abs(a - b) / np.maximum(1.0, np.abs(b))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


class _Walker:
    """Rebuilds the scorer of each snapshot version, walking the log forward once."""

    def __init__(self, log: Log, pool: str) -> None:
        self._log, self._pool = log, pool
        self._fold: Fold | None = None
        self._policy: Policy | None = None
        self.identity = ""

    def at(self, version: int) -> Policy | None:
        """Return the scorer at log position `version`, at or after the last one asked for."""
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
