"""Put a service together: the database, its one writer, and a learner that the caller chooses."""

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


def make_service(settings: Settings, learner: Callable[[Engine, Writer], LearnerLink]) -> Service:
    """Return a service on a database of the right schema, with the learner that is given."""
    engine = open_engine(settings.database)
    try:
        prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    held = claim(engine, patience=CLAIM_WAIT_S)
    links: list[LearnerLink] = []
    writer = Writer(
        engine,
        insert_rows=log_decisions,
        capacity=settings.write_queue,
        on_durable=lambda: links[0].wake(),
    )
    links.append(learner(engine, writer))
    return Service(settings=settings, engine=engine, writer=writer, learner=links[0], held=held)


def check_replicas(settings: Settings) -> None:
    """Refuse more replicas than the database can serve."""
    if settings.replicas > 1 and settings.database.startswith("sqlite"):
        raise ValueError(
            f"replicas: {settings.replicas} replicas cannot share SQLite, which has one writer "
            "process; use one replica, or PostgreSQL"
        )
