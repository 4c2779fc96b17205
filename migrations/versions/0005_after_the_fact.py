"""What owners change after the fact: names, notes, tags, the archive. Only adds, so code of 0004 still works."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ADDED = {
    "comparisons": (("tags", JSONB), ("note", sa.Text), ("archived_at", lambda: sa.DateTime(timezone=True))),
    "jobs": (("name", sa.Text), ("note", sa.Text), ("archived_at", lambda: sa.DateTime(timezone=True))),
}
"""Tables in the order in which transactions lock them. All columns may be null, so that no row is rewritten."""


def upgrade() -> None:
    for table, columns in ADDED.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind(), nullable=True))


def downgrade() -> None:
    for table, columns in ADDED.items():
        for name, _ in columns:
            op.drop_column(table, name)
