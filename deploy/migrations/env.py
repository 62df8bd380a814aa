"""Alembic's way into the revisions. Connection, transaction and lock come from gateway.adapters.postgres.schema.

They go forward only: no revision has a `downgrade`. Each expands the schema, so older programs work on the newer
one; and a ledger is append-only, so what a revision brought is not taken away. To go back behind one, restore a backup
into another database.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
