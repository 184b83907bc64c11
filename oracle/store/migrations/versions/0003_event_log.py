"""The event log that facts are derived from, checkpoints to go back to, the intake's pause, fees

Facts from before have no log to be derived from: they are dropped, and read from the chain again.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from oracle.store.tables import Unsigned64

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_FACTS = ("jobs", "job_events", "enclaves", "measurements", "cursor")


def upgrade() -> None:
    for table in _FACTS:
        op.execute(sa.delete(sa.table(table)))
    op.create_table(
        "chain_events",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=66), nullable=False),
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("block", "position", name=op.f("pk_chain_events")),
    )
    with op.batch_alter_table("chain_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_chain_events_subject"), ["subject"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("block_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("block_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("block", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "pause",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_pause_singleton")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pause")),
    )
    op.create_table(
        "fees",
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=False),
        sa.Column("wei", Unsigned64(), nullable=False),
        sa.PrimaryKeyConstraint("transaction", name=op.f("pk_fees")),
    )


def downgrade() -> None:
    op.drop_table("fees")
    op.drop_table("pause")
    op.drop_table("checkpoints")
    op.drop_table("chain_events")
