"""A bandit log with all that a policy needs to decide its requests again and to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model
from banditroute.decide.columns import RequestBatch
from banditroute.learn.fold import Event
from policies.base import Float64
from sim.ope.bandit_log import BanditLog


@dataclass(frozen=True, slots=True)
class LoggedRequests:
    """The requests of n logged decisions, as a router takes them.

    Attributes
    ----------
    batch : RequestBatch
        n requests. Its `models` are those that any policy could have chosen.
    model_sets : sequence of (int[m], tuple of Model)
        Rows, and the models and prices that were on offer in them; each row is in one set.
    spend_rate_usd : float64[n]
        US dollars per request that exploration's budget was a share of; NaN where it is not known.
    priced : int
        How many decisions were made under a budget that priced money.
    """

    batch: RequestBatch
    model_sets: Sequence[tuple[NDArray[np.intp], tuple[Model, ...]]]
    spend_rate_usd: Float64
    priced: int = 0


@dataclass(frozen=True, slots=True)
class DecisionHistory:
    """A log, its requests and its events.

    Attributes
    ----------
    log : BanditLog
        n decisions and their outcomes.
    requests : LoggedRequests
        The requests of the same n decisions.
    ids : sequence of str
        Names of the n decisions, as `events` has them.
    policy_identity : PolicyIdentity
        Of the logging policy.
    events : sequence of Event
        All events of the pool that a policy learns from, in order.
    """

    log: BanditLog
    requests: LoggedRequests
    ids: Sequence[str]
    policy_identity: PolicyIdentity
    events: Sequence[Event]
