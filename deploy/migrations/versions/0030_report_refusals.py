"""Refusals of reported usage. The SQL stands beside this file."""

from pathlib import Path

from alembic import op

revision = "0030"
down_revision = max(path.name[:4] for path in Path(__file__).parent.glob("0*.py") if path.name[:4] < revision)


def upgrade() -> None:
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
