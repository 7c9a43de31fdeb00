"""Build a service from its parts: the database, its one writer, and the caller's learner."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine

from banditroute.learn.runner import LearnerLink
from banditroute.service.service import Service
from banditroute.settings import Settings
from banditroute.store.engine import claim, open_engine, prepare
from banditroute.store.log import log_decisions
from banditroute.store.writer import Writer

CLAIM_WAIT_S = 15.0
"""Seconds to wait for a SQLite file while a daemon that is shutting down still holds it."""


def make_service(settings: Settings, learner: Callable[[Engine, Writer], LearnerLink]) -> Service:
    """Return a service; create the tables of its database if they are missing.

    Parameters
    ----------
    settings : Settings
        The configuration.
    learner : callable
        Called with the database and its writer; returns the link to the learner.

    Returns
    -------
    Service
        The service, not started yet.

    Raises
    ------
    SchemaMismatch
        If the tables have another schema revision.
    ValueError
        If another daemon uses the SQLite file.
    """
    engine = open_engine(settings.database)
    try:
        prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    claimed_file = claim(engine, patience_s=CLAIM_WAIT_S)
    # The link needs the writer, and the writer wakes the link. The writer is built first; it finds
    # the link in this list.
    links: list[LearnerLink] = []
    writer = Writer(
        engine,
        insert_rows=log_decisions,
        capacity=settings.write_queue,
        on_durable=lambda: links[0].wake(),
    )
    links.append(learner(engine, writer))
    return Service(
        settings=settings,
        engine=engine,
        writer=writer,
        learner=links[0],
        claimed_file=claimed_file,
    )


def check_replicas(settings: Settings) -> None:
    """Refuse more replicas than the database can serve.

    Raises
    ------
    ValueError
        For more than one replica on SQLite.
    """
    if settings.replicas > 1 and settings.database.startswith("sqlite"):
        raise ValueError(
            f"replicas: {settings.replicas} replicas cannot share SQLite, which has one writer "
            "process; use one replica, or PostgreSQL"
        )
