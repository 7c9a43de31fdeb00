"""When the clients try again, and what they do when the router stays away.

Nothing here opens a connection or waits; `sync` and `aio` do both.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

from banditroute.client.messages import Route, RouterError

log = logging.getLogger(__name__)

BACKOFF_S = 0.1
BACKOFF_LIMIT_S = 2.0
LONGEST_RETRY_AFTER_S = 60.0


class Attempts:
    """How often and how long one call is tried; clocks are monotonic."""

    def __init__(
        self, config: RetryPolicy, *, within: float | None = None, once: bool = False
    ) -> None:
        self._config, self._once = config, once
        self._count = 0
        limit = config.retry_for if within is None else within
        self._bounded = within is not None
        self._deadline = None if limit is None else time.monotonic() + limit

    def timeout(self) -> float:
        """Return the seconds that the next attempt may take."""
        if not self._bounded or self._deadline is None:
            return self._config.timeout
        return min(self._config.timeout, max(self._deadline - time.monotonic(), 0.001))

    def pause(self, failure: RouterError) -> float:
        """Return the seconds to wait before the next attempt, or raise `failure`."""
        if self._once or not failure.retryable:
            raise failure
        backoff = min(BACKOFF_S * 2.0 ** min(self._count, 10), BACKOFF_LIMIT_S)
        wait = max(backoff * random.uniform(0.5, 1.0), failure.retry_after or 0.0)
        self._count += 1
        patient = self._config.retry_for is not None
        too_often = not patient and self._count > self._config.retries
        too_late = self._deadline is not None and time.monotonic() + wait > self._deadline
        if too_often or too_late or wait > LONGEST_RETRY_AFTER_S:
            raise failure
        return wait


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    timeout: float
    retries: int
    retry_for: float | None
    default_model: str | None

    def attempts(self, *, routing: bool = False, once: bool = False) -> Attempts:
        bounded = routing and self.default_model is not None
        return Attempts(self, within=self.timeout if bounded else None, once=once)

    def instead(self, failure: RouterError) -> Route:
        """Return the route to take when the router is away, or raise `failure`."""
        if self.default_model is None or not failure.away:
            raise failure
        log.warning("router away, using %s: %s", self.default_model, failure)
        return Route(decision_id=None, model=self.default_model, degraded=True)

    def settle_failed(self, failure: RouterError, *, body_raised: bool) -> None:
        """Let a failure to post feedback pass where raising it would do more harm."""
        if not body_raised and not (self.default_model is not None and failure.away):
            raise failure
        log.warning("feedback was not delivered: %s", failure)
