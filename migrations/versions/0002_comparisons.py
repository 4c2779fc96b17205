"""Comparisons and their cells; fingerprints of the specs of jobs, and torch versions of workers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Both leave out the fields that do not change results: device and intervals of reports, and the target unless it ends
# the run. Neither function calls the other, because pg_restore fills generated columns with an empty search path.
FINGERPRINT = """
CREATE FUNCTION kotrain_fingerprint(spec jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT md5((spec - '{device,log_every_steps,diagnostics_every_steps}'::text[]
                     - CASE WHEN spec -> 'stop_at_target' = 'true' THEN '' ELSE 'target' END)::text)
$$
"""
SETTING = """
CREATE FUNCTION kotrain_setting(spec jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT md5((spec - '{device,log_every_steps,diagnostics_every_steps,seed,evaluate_test}'::text[]
                     - CASE WHEN spec -> 'stop_at_target' = 'true' THEN '' ELSE 'target' END)::text)
$$
"""


def upgrade() -> None:
    op.execute(FINGERPRINT)
    op.execute(SETTING)
    op.add_column("workers", sa.Column("torch", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("is_direct", sa.Boolean(), server_default="true", nullable=False))
    op.add_column("jobs", sa.Column("data_stamp", sa.Text(), nullable=True))
    for name in ("fingerprint", "setting"):
        computed = sa.Computed(f"kotrain_{name}(spec)", persisted=True)
        op.add_column("jobs", sa.Column(name, sa.Text(), computed, nullable=False))
    op.create_index("jobs_fingerprint", "jobs", ["fingerprint"], unique=False)
    op.create_table(
        "comparisons",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("plan", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('running', 'succeeded', 'failed', 'cancelled')", name="comparisons_status"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "comparisons_running", "comparisons", ["id"], unique=False, postgresql_where=sa.text("status = 'running'")
    )
    op.create_table(
        "comparison_cells",
        sa.Column("comparison_id", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("optimizer", sa.Integer(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("is_reused", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["comparison_id"], ["comparisons.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("comparison_id", "phase", "task", "optimizer", "trial", "rung", "seed"),
    )
    op.create_index("comparison_cells_job", "comparison_cells", ["job_id"], unique=False)
    op.drop_constraint("idempotency_keys_job_id_fkey", "idempotency_keys", type_="foreignkey")
    op.alter_column("idempotency_keys", "job_id", new_column_name="resource_id")


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE resource_id NOT IN (SELECT id FROM jobs)")
    op.alter_column("idempotency_keys", "resource_id", new_column_name="job_id")
    op.create_foreign_key(
        "idempotency_keys_job_id_fkey", "idempotency_keys", "jobs", ["job_id"], ["id"], ondelete="CASCADE"
    )
    op.drop_table("comparison_cells")
    op.drop_table("comparisons")
    op.drop_index("jobs_fingerprint", table_name="jobs")
    for column in ("setting", "fingerprint", "data_stamp", "is_direct"):
        op.drop_column("jobs", column)
    op.drop_column("workers", "torch")
    op.execute("DROP FUNCTION kotrain_setting(jsonb)")
    op.execute("DROP FUNCTION kotrain_fingerprint(jsonb)")
