"""What the command line says of feedback, as events: late, lost, judged with noise."""

from __future__ import annotations

import numpy as np
from pydantic import ValidationError

from banditroute.core.mistakes import explain
from sim.errors import InputError
from sim.worlds.events import Delay, Judge, Loss
from sim.worlds.scenario import Scenario

_MOST = 1_000
"""Delays of a log that are kept; of more, so many quantiles."""


def with_feedback(
    scenario: Scenario,
    *,
    delay: str | None = None,
    missing: float | None = None,
    judge_noise: float | None = None,
) -> Scenario:
    """Return a scenario in which feedback is, beside all else, as the options say.

    Parameters
    ----------
    delay : see `parse_delay`.
    missing : share of the feedback that never comes.
    judge_noise : standard deviation of the judge's error.

    Raises
    ------
    InputError
        Naming the option.
    """
    if delay is not None:
        scenario = scenario.then(parse_delay(delay), "--delay")
    if missing is not None:
        if not 0.0 <= missing <= 1.0:
            raise InputError(f"--missing: a share from 0 to 1, not {missing:g}")
        scenario = scenario.then(Loss(share=missing), "--missing")
    if judge_noise is not None:
        if not 0.0 < judge_noise <= 1.0:
            raise InputError(f"--judge-noise: above 0 and at most 1, not {judge_noise:g}")
        scenario = scenario.then(Judge(noise=judge_noise), "--judge-noise")
    return scenario


def parse_delay(text: str) -> Delay:
    """Return the delay that a person means.

    Parameters
    ----------
    text : ``SECONDS``, ``exponential:MEAN`` or ``log:URL``, which draws from the delays in the
        database of a daemon.

    Raises
    ------
    InputError
        Naming the option.
    """
    kind, _, rest = text.partition(":")
    if kind == "log" and rest:
        return Delay(seconds=logged(rest))
    try:
        if kind == "exponential":
            return Delay(mean=float(rest))
        return Delay(seconds=float(text))
    except ValueError as error:
        reason = f" ({explain(error)})" if isinstance(error, ValidationError) else ""
        expected = "seconds, exponential:SECONDS or log:URL"
        raise InputError(f"--delay: {text!r}: {expected} expected{reason}") from error


def logged(url: str) -> list[float]:
    """Return the seconds between decisions and the feedback on them in a daemon's database.

    Raises
    ------
    InputError
        Naming the option, where there is no such database or no feedback in it.
    """
    from sqlalchemy import select

    from banditroute.store.tables import decisions, feedback
    from sim.data.database import opened, without_passwords

    where = "--delay: log"
    said = without_passwords(url)
    waited = feedback.c.received_at - decisions.c.created_at
    query = select(waited).join(decisions, decisions.c.id == feedback.c.decision_id)
    with opened(url, where) as log, log.engine.connect() as connection:
        microseconds = connection.execute(query).scalars().all()
    if not microseconds:
        raise InputError(f"{where}: {said}: no feedback in this log")
    seconds = np.maximum(np.array(microseconds, dtype=np.float64) / 1e6, 0.0)
    if len(seconds) > _MOST:
        seconds = np.quantile(seconds, (np.arange(_MOST) + 0.5) / _MOST)
    return [float(value) for value in seconds]
