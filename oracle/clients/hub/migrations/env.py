"""Alembic's entry: the hub hands in its connection, and its metadata is the target."""

from alembic import context

from oracle.clients.hub.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
