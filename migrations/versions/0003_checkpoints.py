"""Checkpoints, memory limits, and the oldest code that may use this schema. Only adds, so code of 0002 still works."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Jobs stored by older code, before or after this migration, belong to engine version 2.
    op.add_column("jobs", sa.Column("engine_version", sa.Integer(), server_default="2", nullable=False))
    op.add_column("jobs", sa.Column("memory_limit_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "step"),
    )
    compatibility = op.create_table(
        "compatibility",
        sa.Column("is_single", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("oldest_code", sa.Integer(), nullable=False),
        sa.CheckConstraint("is_single", name="compatibility_single"),
        sa.PrimaryKeyConstraint("is_single"),
    )
    op.bulk_insert(compatibility, [{"oldest_code": 2}])


def downgrade() -> None:
    op.drop_table("compatibility")
    op.drop_table("checkpoints")
    op.drop_column("jobs", "memory_limit_bytes")
    op.drop_column("jobs", "engine_version")
