"""Profiles, bundles, jobs, artifacts and API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "profiles",
        sa.Column("node_id", sa.String(20), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_profiles"),
    )
    op.create_table(
        "bundles",
        sa.Column("digest", sa.String(66), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_bundles"),
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(66), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("node_id", sa.String(20), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("bundle_digest", sa.String(66), nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("failure", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("checked_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_jobs"),
        sa.ForeignKeyConstraint(["bundle_digest"], ["bundles.digest"], "fk_jobs_bundle_digest"),
    )
    op.create_index("ix_jobs_node_id_state_checked_at", "jobs", ["node_id", "state", "checked_at"])
    op.create_index(
        "uq_jobs_running",
        "jobs",
        ["node_id"],
        unique=True,
        sqlite_where=sa.text("state = 'RUNNING'"),
        postgresql_where=sa.text("state = 'RUNNING'"),
    )
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.String(66), nullable=False),
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_artifacts"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], "fk_artifacts_job_id"),
    )
    op.create_table(
        "api_keys",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_api_keys"),
    )


def downgrade() -> None:
    """Drop every table."""
    for name in ("api_keys", "artifacts", "jobs", "bundles", "profiles"):
        op.drop_table(name)
