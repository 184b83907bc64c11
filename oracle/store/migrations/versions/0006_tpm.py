"""Nodes' TPMs: open activations, enrolled keys, and the verdicts about their quotes"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from oracle.store.tables import Unsigned64

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "tpm_activations",
        sa.Column("challenge_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("ak_name", sa.LargeBinary(length=66), nullable=False),
        sa.Column("ek_certificate", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ek_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("endorsed_until", Unsigned64(), nullable=False),
        sa.Column("proof", sa.LargeBinary(length=32), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("challenge_id", name=op.f("pk_tpm_activations")),
        sa.UniqueConstraint("node_id", "ek_key", name=op.f("uq_tpm_activations_node_id_ek_key")),
    )
    op.create_index(op.f("ix_tpm_activations_expires_at"), "tpm_activations", ["expires_at"])
    op.create_table(
        "tpm_keys",
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("ak_name", sa.LargeBinary(length=66), nullable=False),
        sa.Column("ek_certificate", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ek_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("valid_until", Unsigned64(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_tpm_keys")),
        sa.UniqueConstraint("ek_key", name=op.f("uq_tpm_keys_ek_key")),
    )
    op.create_table(
        "tpm_verdicts",
        sa.Column("node_id", Unsigned64(), nullable=False),
        sa.Column("enclave_key", sa.String(length=42), nullable=False),
        sa.Column("ak_name", sa.LargeBinary(length=66), nullable=False),
        sa.Column("quote", sa.LargeBinary(length=32), nullable=False),
        sa.Column("policy", sa.LargeBinary(length=32), nullable=False),
        sa.Column("verified_at", sa.BigInteger(), nullable=False),
        sa.Column("valid_until", Unsigned64(), nullable=False),
        sa.Column("clock", Unsigned64(), nullable=False),
        sa.Column("resets", sa.BigInteger(), nullable=False),
        sa.Column("restarts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "enclave_key", name=op.f("pk_tpm_verdicts")),
    )


def downgrade() -> None:
    op.drop_table("tpm_verdicts")
    op.drop_table("tpm_keys")
    op.drop_index(op.f("ix_tpm_activations_expires_at"), table_name="tpm_activations")
    op.drop_table("tpm_activations")
