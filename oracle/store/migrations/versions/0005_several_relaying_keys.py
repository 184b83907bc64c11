"""Several relaying keys, each with nonces of its own"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from eth_account import Account
from hexbytes import HexBytes

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "slots",
        sa.Column("slot", _IDENTITY, autoincrement=True, nullable=False),
        sa.Column("sender", sa.String(length=42), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("slot", name=op.f("pk_slots")),
        sa.UniqueConstraint("sender", "nonce", name=op.f("uq_slots_sender_nonce")),
    )
    op.create_table(
        "suspects",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("signer", sa.String(length=42), nullable=False),
        sa.Column("reverts", sa.Integer(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "signer", name=op.f("pk_suspects")),
    )
    with op.batch_alter_table("transactions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("slot", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("sender", sa.String(length=42), nullable=True))
    _give_slots()
    with op.batch_alter_table("transactions", schema=None) as batch_op:
        batch_op.alter_column("slot", existing_type=sa.BigInteger(), nullable=False)
        batch_op.alter_column("sender", existing_type=sa.String(length=42), nullable=False)
        batch_op.drop_constraint(batch_op.f("uq_transactions_nonce_attempt"), type_="unique")
        batch_op.create_unique_constraint(
            batch_op.f("uq_transactions_slot_attempt"), ["slot", "attempt"]
        )
        batch_op.create_index(batch_op.f("ix_transactions_sender"), ["sender"], unique=False)


def _give_slots() -> None:
    """Before, the nonce was the slot, of whatever key; who signed is in the transaction itself."""
    connection = op.get_bind()
    query = sa.text("SELECT hash, nonce, raw FROM transactions ORDER BY nonce, attempt")
    for row in connection.execute(query).all():
        sender = Account.recover_transaction(HexBytes(row.raw))
        known = {"slot": row.nonce, "sender": sender, "nonce": row.nonce}
        if connection.scalar(sa.text("SELECT 1 FROM slots WHERE slot = :slot"), known) is None:
            connection.execute(
                sa.text("INSERT INTO slots (slot, sender, nonce) VALUES (:slot, :sender, :nonce)"),
                known,
            )
        connection.execute(
            sa.text("UPDATE transactions SET slot = :slot, sender = :sender WHERE hash = :hash"),
            {**known, "hash": row.hash},
        )
    if connection.dialect.name == "postgresql":
        connection.execute(
            sa.text(
                "SELECT setval(pg_get_serial_sequence('slots', 'slot'),"
                " (SELECT coalesce(max(slot), 0) + 1 FROM slots), false)"
            )
        )


def downgrade() -> None:
    # only one key's nonces fit the earlier schema: with more the constraint refuses
    _take_slots()
    with op.batch_alter_table("transactions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_transactions_sender"))
        batch_op.drop_constraint(batch_op.f("uq_transactions_slot_attempt"), type_="unique")
        batch_op.drop_column("sender")
        batch_op.drop_column("slot")
        batch_op.create_unique_constraint(
            batch_op.f("uq_transactions_nonce_attempt"), ["nonce", "attempt"]
        )
    op.drop_table("suspects")
    op.drop_table("slots")


def _take_slots() -> None:
    connection = op.get_bind()
    for table in ("attestations", "escrows", "receipts"):
        connection.execute(
            sa.text(
                f"UPDATE {table} SET slot ="  # noqa: S608 - one of the three names above
                f" (SELECT nonce FROM slots WHERE slots.slot = {table}.slot)"
                " WHERE slot IS NOT NULL"
            )
        )
