"""Alembic's entry: runs the migrations on the connection that `cloud.db.migrate` opened, in its transaction."""

from alembic import context

from cloud.db.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    compare_type=True,
)
context.run_migrations()
