"""Alembic's way into the revisions. Connection, transaction and lock come from gateway.adapters.postgres.schema."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
