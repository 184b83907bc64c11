"""Alembic's entry: runs migrations on the connection that `oracle.store.database` hands in."""

from alembic import context

from oracle.store.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
