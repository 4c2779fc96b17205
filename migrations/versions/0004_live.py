"""Data for event streams: the transaction of each event, events of comparisons. Only adds, so code of 0003 still works."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

XID = sa.text("pg_current_xact_id()::text::bigint")
# One notification per transaction, whatever the number of events: PostgreSQL drops duplicates.
NOTIFY = """
CREATE FUNCTION kotrain_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('kotrain_events', '');
    RETURN NULL;
END
$$
"""
# The table is qualified with its schema, because pg_restore uses an empty search path.
RECORD = """
CREATE FUNCTION kotrain_record_comparison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR OLD.status <> NEW.status THEN
        EXECUTE format('INSERT INTO %I.comparison_events (comparison_id, status, message) VALUES ($1, $2, $3)',
                       TG_TABLE_SCHEMA)
        USING NEW.id, NEW.status, NEW.message;
        PERFORM pg_notify('kotrain_events', '');
    END IF;
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    # Lock tables in the order used by transactions on comparisons, to avoid deadlocks.
    op.execute("LOCK TABLE comparisons IN EXCLUSIVE MODE")
    # Blocks writers of jobs, for 0.2 s with 100,000 jobs.
    op.create_index("jobs_status_finished", "jobs", ["status", "finished_at"])
    op.execute("LOCK TABLE job_events")
    op.add_column("job_events", sa.Column("step", sa.BigInteger(), nullable=True))
    # The default is set after the column is added, so that no row is rewritten; earlier events are not streamed.
    op.add_column("job_events", sa.Column("xid", sa.BigInteger(), nullable=True))
    op.alter_column("job_events", "xid", server_default=XID)
    op.create_index("job_events_xid", "job_events", ["xid"], postgresql_where=sa.text("xid IS NOT NULL"))
    op.create_table(
        "comparison_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("comparison_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default=XID, nullable=True),
        sa.ForeignKeyConstraint(["comparison_id"], ["comparisons.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("comparison_events_xid", "comparison_events", ["xid"], postgresql_where=sa.text("xid IS NOT NULL"))
    op.create_index("comparison_events_comparison", "comparison_events", ["comparison_id"])
    op.execute(NOTIFY)
    op.execute(RECORD)
    op.execute(
        "CREATE TRIGGER job_events_notify AFTER INSERT ON job_events FOR EACH STATEMENT EXECUTE FUNCTION kotrain_notify()"
    )
    op.execute(
        "CREATE TRIGGER comparisons_record AFTER INSERT OR UPDATE OF status ON comparisons"
        " FOR EACH ROW EXECUTE FUNCTION kotrain_record_comparison()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER comparisons_record ON comparisons")
    op.execute("DROP TRIGGER job_events_notify ON job_events")
    op.execute("DROP FUNCTION kotrain_record_comparison()")
    op.execute("DROP FUNCTION kotrain_notify()")
    op.drop_table("comparison_events")
    op.drop_index("job_events_xid", "job_events")
    op.drop_column("job_events", "xid")
    op.drop_column("job_events", "step")
    op.drop_index("jobs_status_finished", "jobs")
