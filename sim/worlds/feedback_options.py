"""Command-line options of feedback, as events of a scenario: late, lost, judged with noise."""

from __future__ import annotations

import numpy as np
from pydantic import ValidationError

from sim.errors import InputError
from sim.worlds.feedback_events import Delay, Judge, Loss
from sim.worlds.scenario import Scenario

_MAX_DELAYS = 1_000
"""Delays of a log that are kept; of a longer log, this many quantiles."""


def with_feedback(
    scenario: Scenario,
    *,
    delay: str | None = None,
    missing: float | None = None,
    judge_noise: float | None = None,
) -> Scenario:
    """Return a scenario with the events of some options after its own.

    Parameters
    ----------
    scenario : Scenario
        What happens beside that.
    delay : str, optional
        See `parse_delay`.
    missing : float, optional
        Share of the feedback that never comes, 0 to 1.
    judge_noise : float, optional
        Standard deviation of the judge's error.

    Returns
    -------
    Scenario
        The same one where no option is there.

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
    """Return the event of a delay.

    Parameters
    ----------
    text : str
        ``SECONDS``, ``exponential:MEAN`` (in seconds) or ``log:URL``, which draws from the delays
        in the database of a daemon.

    Returns
    -------
    Delay
        For all models and requests.

    Raises
    ------
    InputError
        Naming the option.
    """
    kind, _, rest = text.partition(":")
    if kind == "log" and rest:
        return Delay(seconds=logged_delays_s(rest))
    try:
        if kind == "exponential":
            return Delay(mean=float(rest))
        return Delay(seconds=float(text))
    except (ValidationError, ValueError) as error:
        expected = "seconds, exponential:SECONDS or log:URL"
        raise InputError(f"--delay: {text!r}: {expected} expected") from error


def logged_delays_s(url: str) -> list[float]:
    """Return the delays of feedback in a daemon's database.

    Parameters
    ----------
    url : str
        Any that SQLAlchemy accepts.

    Returns
    -------
    list of float
        Seconds between a decision and each feedback on it, at most 1,000 of them.

    Raises
    ------
    InputError
        Naming the option, where there is no such database or no feedback in it.
    """
    from sqlalchemy import select

    from banditroute.store.tables import decisions, feedback
    from sim.data.database import open_log, without_passwords

    where = "--delay: log"
    delay_us = feedback.c.received_at - decisions.c.created_at
    query = select(delay_us).join(decisions, decisions.c.id == feedback.c.decision_id)
    with open_log(url, where) as log, log.engine.connect() as connection:
        delays_us = connection.execute(query).scalars().all()
    if not delays_us:
        raise InputError(f"{where}: {without_passwords(url)}: no feedback in this log")
    delays_s = np.maximum(np.array(delays_us, dtype=np.float64) / 1e6, 0.0)
    if len(delays_s) > _MAX_DELAYS:
        delays_s = np.quantile(delays_s, (np.arange(_MAX_DELAYS) + 0.5) / _MAX_DELAYS)
    return [float(delay_s) for delay_s in delays_s]
