"""The outcomes of a pool's log that a prior can be fitted to."""

from __future__ import annotations

from collections.abc import Iterator

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.learn.learner import EventLog, effective_events
from policies import Outcome


def logged_outcomes(log: EventLog, pool: str) -> tuple[PolicyIdentity, Iterator[Outcome]]:
    """Return a pool's newest policy identity, and the outcomes with features of its embedder.

    Parameters
    ----------
    log : EventLog
        The store.
    pool : str
        Name of the pool.

    Returns
    -------
    policy_identity : PolicyIdentity
        What the policy of the pool is.
    outcomes : iterator of Outcome
        In log order; the log must stay open.

    Raises
    ------
    ValueError
        If the policy of the pool never started.
    """
    started = log.policy_identity(pool)
    if started is None:
        raise ValueError(f"pool: the policy of {pool!r} never started")
    policy_identity = started[1]
    return policy_identity, (
        event.outcome
        for event in effective_events(log, pool)
        if event.outcome is not None and event.embedder == policy_identity.embedder
    )
