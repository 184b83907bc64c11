"""Profiles state what their dataset commits to; a job can be asked for again at another node"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Keep profiles from before commitments, marked: only their nodes can state what is missing."""
    op.add_column("profiles", sa.Column("outdated", sa.Integer, nullable=False, server_default="0"))
    kept = sa.table("profiles", sa.column("node_id"), sa.column("document"), sa.column("outdated"))
    connection = op.get_bind()
    for node_id, document in connection.execute(sa.select(kept.c.node_id, kept.c.document)).all():
        if "records_root" not in json.loads(document):
            connection.execute(sa.update(kept).where(kept.c.node_id == node_id).values(outdated=1))
    op.add_column("jobs", sa.Column("wish", sa.Text))
    op.add_column("jobs", sa.Column("replaces", sa.String(66)))
    op.create_index("uq_jobs_replaces", "jobs", ["replaces"], unique=True)


def downgrade() -> None:
    """Back to what 0003 knew; which profiles are outdated is seen again on the way up."""
    op.drop_index("uq_jobs_replaces", "jobs")
    for column in ("replaces", "wish"):
        op.drop_column("jobs", column)
    op.drop_column("profiles", "outdated")
