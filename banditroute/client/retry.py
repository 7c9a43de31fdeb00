"""When a client sends a request again, and what it does when the router stays unavailable.

Nothing here opens a connection or waits; `sync` and `aio` do both. All times are in seconds, and
clocks are monotonic.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

from banditroute.client.messages import IGNORED, Route, RouterError

log = logging.getLogger(__name__)

BACKOFF_S = 0.1
BACKOFF_LIMIT_S = 2.0
LONGEST_RETRY_AFTER_S = 60.0


class Attempts:
    """The attempts of one call: how many, how long, and how far apart.

    Parameters
    ----------
    policy : RetryPolicy
        How the client retries.
    routing : bool
        Whether the call asks for decisions. With a default model, which replaces them in time, its
        attempts and waits together have the time limit of one attempt.
    once : bool
        If True, there is only one attempt.
    """

    def __init__(self, policy: RetryPolicy, *, routing: bool, once: bool) -> None:
        self._policy, self._once = policy, once
        self._failures = 0
        self._limited = routing and policy.default_model is not None
        limit_s = policy.timeout_s if self._limited else policy.retry_for_s
        self._deadline_s = None if limit_s is None else time.monotonic() + limit_s

    def timeout_s(self) -> float:
        """Return the time that the next attempt may take."""
        if not self._limited or self._deadline_s is None:
            return self._policy.timeout_s
        return min(self._policy.timeout_s, max(self._deadline_s - time.monotonic(), 0.001))

    def pause_s(self, failure: RouterError) -> float | None:
        """Return the time to wait before the next attempt, None to give up.

        Parameters
        ----------
        failure : RouterError
            Why the last attempt failed.
        """
        if self._once or not failure.retryable:
            return None
        backoff_s = min(BACKOFF_S * 2.0 ** min(self._failures, 10), BACKOFF_LIMIT_S)
        wait_s = max(backoff_s * random.uniform(0.5, 1.0), failure.retry_after or 0.0)
        self._failures += 1
        counted = self._policy.retry_for_s is None
        too_often = counted and self._failures > self._policy.retries
        too_late = self._deadline_s is not None and time.monotonic() + wait_s > self._deadline_s
        return None if too_often or too_late or wait_s > LONGEST_RETRY_AFTER_S else wait_s


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a client retries, and which model it falls back to.

    Attributes
    ----------
    timeout_s : float
        Time limit of an attempt; with a default model also that of a whole routing call.
    retries : int
        Number of further attempts.
    retry_for_s : float or None
        Time to go on retrying, in place of `retries`.
    default_model : str or None
        Model to answer with while the router is unavailable; None raises the error.
    """

    timeout_s: float
    retries: int
    retry_for_s: float | None
    default_model: str | None

    def default_route(self, failure: RouterError) -> Route:
        """Return the route to the default model if the router is unavailable, or raise `failure`.

        Parameters
        ----------
        failure : RouterError
            Why there is no decision.
        """
        if self.default_model is None or not failure.away:
            raise failure
        log.warning("router unavailable, using %s: %s", self.default_model, failure)
        return Route(decision_id=None, model=self.default_model, degraded=True)

    def settle_failed(self, failure: RouterError, *, body_raised: bool) -> str:
        """Return `IGNORED` for lost feedback where an error would do more harm, or raise `failure`.

        Parameters
        ----------
        failure : RouterError
            Why the feedback at the end of a `decide` block was not stored.
        body_raised : bool
            Whether the block raised an exception, which must not be hidden.
        """
        if not body_raised and not (self.default_model is not None and failure.away):
            raise failure
        log.warning("feedback was not delivered: %s", failure)
        return IGNORED
