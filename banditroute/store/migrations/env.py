"""Alembic's entry: migrations run on the engine that `banditroute.store.engine.upgrade` sets.

The connection is a writer's, so that of two processes that upgrade at once the second one waits,
and then finds the schema up to date.
"""

from alembic import context

from banditroute.store.engine import WRITER
from banditroute.store.tables import metadata

with context.config.attributes["engine"].connect().execution_options(**WRITER) as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
