"""Alembic's entry: migrations run on the engine that `banditroute.store.engine` hands over.

The connection is a writer's: whoever comes second waits, and then finds nothing left to do.
"""

from alembic import context

from banditroute.store.engine import WRITER
from banditroute.store.tables import metadata

with context.config.attributes["engine"].connect().execution_options(**WRITER) as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
