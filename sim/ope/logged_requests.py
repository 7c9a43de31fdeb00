"""A bandit log with all that a policy needs to decide its requests anew, and to learn from it."""

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
    """What the decisions of a log were asked, row by row, as a router takes it.

    Attributes
    ----------
    asks : n requests, the models open to each named.
    frames : the models and prices of each stretch of rows, as (rows, models).
    spend_rate_usd : float64[n], US dollars per request that exploration's budget was a share of;
        NaN where nobody knows.
    priced : how many were decided while a budget priced money.
    """

    asks: RequestBatch
    frames: Sequence[tuple[NDArray[np.intp], tuple[Model, ...]]]
    spend_rate_usd: Float64
    priced: int = 0


@dataclass(frozen=True, slots=True)
class DecisionHistory:
    """A log and what surrounds it.

    Attributes
    ----------
    log, requests : the same n rows.
    ids : n names of the decisions, as `events` know them.
    policy_identity : of the policy that decided.
    events : all that was learned, in order.
    """

    log: BanditLog
    requests: LoggedRequests
    ids: Sequence[str]
    policy_identity: PolicyIdentity
    events: Sequence[Event]
