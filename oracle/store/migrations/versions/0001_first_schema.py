"""The first schema"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from oracle.store.tables import Unsigned64

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "attestations",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("enclave_key", sa.String(length=42), nullable=False),
        sa.Column("encryption_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("registration", sa.Text(), nullable=True),
        sa.Column("signatures", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("slot", sa.BigInteger(), nullable=True),
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_attestations")),
    )
    with op.batch_alter_table("attestations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_attestations_slot"), ["slot"], unique=False)
        batch_op.create_index(batch_op.f("ix_attestations_status"), ["status"], unique=False)

    op.create_table(
        "challenges",
        sa.Column("challenge", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("enclave_key", sa.String(length=42), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("challenge", name=op.f("pk_challenges")),
    )
    with op.batch_alter_table("challenges", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_challenges_expires_at"), ["expires_at"], unique=False)

    op.create_table(
        "cursor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("vault", sa.String(length=42), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("block_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_cursor_singleton")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cursor")),
    )
    op.create_table(
        "enclaves",
        sa.Column("enclave_key", sa.String(length=42), nullable=False),
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("measurement", sa.LargeBinary(length=32), nullable=False),
        sa.Column("attestation_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("encryption_key_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("expiry", Unsigned64(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("enclave_key", name=op.f("pk_enclaves")),
    )
    with op.batch_alter_table("enclaves", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_enclaves_measurement"), ["measurement"], unique=False)
        batch_op.create_index(batch_op.f("ix_enclaves_node_id"), ["node_id"], unique=False)

    op.create_table(
        "escrows",
        sa.Column("job_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("valid_after", Unsigned64(), nullable=False),
        sa.Column("valid_before", Unsigned64(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("slot", sa.BigInteger(), nullable=True),
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_escrows")),
    )
    with op.batch_alter_table("escrows", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_escrows_slot"), ["slot"], unique=False)
        batch_op.create_index(batch_op.f("ix_escrows_status"), ["status"], unique=False)

    op.create_table(
        "job_events",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=False),
        sa.Column("amount", Unsigned64(), nullable=False),
        sa.Column("receipt_digest", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("block", "position", name=op.f("pk_job_events")),
    )
    with op.batch_alter_table("job_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_events_job_id"), ["job_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_job_events_receipt_digest"), ["receipt_digest"], unique=False
        )

    op.create_table(
        "jobs",
        sa.Column("job_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("funded", Unsigned64(), nullable=False),
        sa.Column("paid", Unsigned64(), nullable=False),
        sa.Column("refunded", Unsigned64(), nullable=False),
        sa.Column("records", Unsigned64(), nullable=False),
        sa.Column("epochs", Unsigned64(), nullable=False),
        sa.Column("output_digest", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
    )
    op.create_table(
        "measurements",
        sa.Column("measurement", sa.LargeBinary(length=32), nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("measurement", name=op.f("pk_measurements")),
    )
    op.create_table(
        "receipts",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("signer", sa.String(length=42), nullable=False),
        sa.Column("job_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("records", Unsigned64(), nullable=False),
        sa.Column("epochs", Unsigned64(), nullable=False),
        sa.Column("records_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("output_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("signature", sa.LargeBinary(length=65), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("slot", sa.BigInteger(), nullable=True),
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=True),
        sa.Column("block", sa.BigInteger(), nullable=True),
        sa.Column("amount", Unsigned64(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "signer", name=op.f("pk_receipts")),
    )
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_receipts_job_id"), ["job_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_receipts_signer"), ["signer"], unique=False)
        batch_op.create_index(batch_op.f("ix_receipts_slot"), ["slot"], unique=False)
        batch_op.create_index(batch_op.f("ix_receipts_status"), ["status"], unique=False)

    op.create_table(
        "transactions",
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("recipient", sa.String(length=42), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("gas", sa.BigInteger(), nullable=False),
        sa.Column("max_fee", sa.BigInteger(), nullable=False),
        sa.Column("tip", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("sent", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_transactions")),
        sa.UniqueConstraint("nonce", "attempt", name=op.f("uq_transactions_nonce_attempt")),
    )
    with op.batch_alter_table("transactions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_transactions_state"), ["state"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("transactions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_transactions_state"))

    op.drop_table("transactions")
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_receipts_status"))
        batch_op.drop_index(batch_op.f("ix_receipts_slot"))
        batch_op.drop_index(batch_op.f("ix_receipts_signer"))
        batch_op.drop_index(batch_op.f("ix_receipts_job_id"))

    op.drop_table("receipts")
    op.drop_table("measurements")
    op.drop_table("jobs")
    with op.batch_alter_table("job_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_events_receipt_digest"))
        batch_op.drop_index(batch_op.f("ix_job_events_job_id"))

    op.drop_table("job_events")
    with op.batch_alter_table("escrows", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_escrows_status"))
        batch_op.drop_index(batch_op.f("ix_escrows_slot"))

    op.drop_table("escrows")
    with op.batch_alter_table("enclaves", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_enclaves_node_id"))
        batch_op.drop_index(batch_op.f("ix_enclaves_measurement"))

    op.drop_table("enclaves")
    op.drop_table("cursor")
    with op.batch_alter_table("challenges", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_challenges_expires_at"))

    op.drop_table("challenges")
    with op.batch_alter_table("attestations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_attestations_status"))
        batch_op.drop_index(batch_op.f("ix_attestations_slot"))

    op.drop_table("attestations")
