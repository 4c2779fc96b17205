"""Versions of the code that users upload. Only adds, so code of 0005 still works."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "code_versions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False, unique=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("declaration", JSONB, nullable=False),
        sa.Column("checks", JSONB, nullable=True),
        sa.Column("checking_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
        sa.CheckConstraint("kind IN ('optimizer', 'model')", name="code_versions_kind"),
    )
    op.create_index("code_versions_name", "code_versions", ["user_id", "name", "id"])
    op.create_index("code_versions_unchecked", "code_versions", ["id"], postgresql_where=sa.text("checks IS NULL"))


def downgrade() -> None:
    op.drop_table("code_versions")
