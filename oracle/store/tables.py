"""The tables. What the chain says (facts) can be rebuilt from it; what was handed in cannot."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

DIGITS = 20
"""Decimal digits of the largest uint64."""


class Unsigned64(TypeDecorator[int]):
    """A uint64, exactly, in any database.

    BIGINT is too small by a bit, and SQLite would keep NUMERIC as a float: there it is text, padded
    with zeros so that it sorts as the number does.
    """

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """NUMERIC(20), in SQLite VARCHAR(20)."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(DIGITS))
        return dialect.type_descriptor(Numeric(DIGITS, 0))

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """The number as the database takes it."""
        if value is None or dialect.name != "sqlite":
            return value
        return f"{value:0{DIGITS}d}"

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """The number as Python has it."""
        return None if value is None else int(value)


class Table(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ChallengeRow(Table):
    """A challenge that this operator made; `used_by` is the one attestation it served for."""

    __tablename__ = "challenges"

    challenge: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    node_id: Mapped[int] = mapped_column(Unsigned64)
    enclave_key: Mapped[str] = mapped_column(String(42))
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)
    used_by: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class AttestationRow(Table):
    """Evidence that was handed in here; `slot` is that of the transaction that carries it.

    `statement` (JSON) and `signatures` (hex) are what the committee signed, once the quorum is
    reached; `platform` is the one that the statement is a verdict on, if it is one.
    """

    __tablename__ = "attestations"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    node_id: Mapped[int] = mapped_column(Unsigned64)
    enclave_key: Mapped[str] = mapped_column(String(42))
    encryption_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    evidence: Mapped[str] = mapped_column(Text)
    statement: Mapped[str | None] = mapped_column(Text)
    signatures: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(Text)
    slot: Mapped[int | None] = mapped_column(BigInteger, index=True)
    transaction: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    platform: Mapped[bytes | None] = mapped_column(LargeBinary(32), index=True)


class QuoteRow(Table):
    """A quote that was handed in here for the chain to check; the contract would have taken it."""

    __tablename__ = "quotes"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    node_id: Mapped[int] = mapped_column(Unsigned64)
    enclave_key: Mapped[str] = mapped_column(String(42))
    encryption_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    platform: Mapped[bytes] = mapped_column(LargeBinary(32))
    quote: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(Text)
    slot: Mapped[int | None] = mapped_column(BigInteger, index=True)
    transaction: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class EscrowRow(Table):
    """An escrow that was handed in here. `terms` is JSON."""

    __tablename__ = "escrows"

    job_id: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    terms: Mapped[str] = mapped_column(Text)
    valid_after: Mapped[int] = mapped_column(Unsigned64)
    valid_before: Mapped[int] = mapped_column(Unsigned64)
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(Text)
    slot: Mapped[int | None] = mapped_column(BigInteger, index=True)
    transaction: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class ReceiptRow(Table):
    """A receipt, once per signer: a forger cannot take the place of the real one."""

    __tablename__ = "receipts"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    signer: Mapped[str] = mapped_column(String(42), primary_key=True, index=True)
    job_id: Mapped[bytes] = mapped_column(LargeBinary(32), index=True)
    records: Mapped[int] = mapped_column(Unsigned64)
    epochs: Mapped[int] = mapped_column(Unsigned64)
    records_root: Mapped[bytes] = mapped_column(LargeBinary(32))
    output_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    complete: Mapped[bool] = mapped_column(Boolean)
    signature: Mapped[bytes] = mapped_column(LargeBinary(65))
    received_at: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str | None] = mapped_column(String(64))
    slot: Mapped[int | None] = mapped_column(BigInteger, index=True)
    transaction: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    block: Mapped[int | None] = mapped_column(BigInteger)
    amount: Mapped[int] = mapped_column(Unsigned64)


class TransactionRow(Table):
    """One signed attempt at one nonce, persisted before it is sent. Fees are wei per gas.

    `since` is the height at which the attempt was made; `sent` whether the endpoint has taken it.
    `slot` is that of the sender's nonce, see `SlotRow`.
    """

    __tablename__ = "transactions"
    __table_args__ = (UniqueConstraint("slot", "attempt"),)

    hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    slot: Mapped[int] = mapped_column(BigInteger)
    sender: Mapped[str] = mapped_column(String(42), index=True)
    nonce: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16))
    recipient: Mapped[str] = mapped_column(String(42))
    data: Mapped[bytes] = mapped_column(LargeBinary)
    gas: Mapped[int] = mapped_column(BigInteger)
    max_fee: Mapped[int] = mapped_column(BigInteger)
    tip: Mapped[int] = mapped_column(BigInteger)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    since: Mapped[int] = mapped_column(BigInteger)
    sent: Mapped[bool] = mapped_column(Boolean)
    state: Mapped[str] = mapped_column(String(16), index=True)
    block: Mapped[int | None] = mapped_column(BigInteger)


class JobRow(Table):
    """Fact: a job. `terms` is JSON; `records` and `epochs` are the highest settled ones.

    `node_id` is 0 as long as no node is assigned. `cancelled_until` is the last payable second
    (Unix) of a job that was cancelled; of others the deadline and the grace period give it.
    """

    __tablename__ = "jobs"

    job_id: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    node_id: Mapped[int] = mapped_column(Unsigned64)
    terms: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    funded: Mapped[int] = mapped_column(Unsigned64)
    paid: Mapped[int] = mapped_column(Unsigned64)
    refunded: Mapped[int] = mapped_column(Unsigned64)
    records: Mapped[int] = mapped_column(Unsigned64)
    epochs: Mapped[int] = mapped_column(Unsigned64)
    output_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    cancelled_until: Mapped[int | None] = mapped_column(Unsigned64)


class JobEventRow(Table):
    """Fact: something that happened to a job, with what it moved in USDC base units."""

    __tablename__ = "job_events"

    block: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    job_id: Mapped[bytes] = mapped_column(LargeBinary(32), index=True)
    event: Mapped[str] = mapped_column(String(16))
    transaction: Mapped[bytes] = mapped_column(LargeBinary(32))
    amount: Mapped[int] = mapped_column(Unsigned64)
    receipt_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32), index=True)


class EnclaveRow(Table):
    """Fact: an enclave key. A key that was revoked before it was ever registered has node 0.

    `platform` is the one whose quote registered it, None for a key by the committee's word alone.
    """

    __tablename__ = "enclaves"

    enclave_key: Mapped[str] = mapped_column(String(42), primary_key=True)
    node_id: Mapped[int] = mapped_column(Unsigned64, index=True)
    measurement: Mapped[bytes] = mapped_column(LargeBinary(32), index=True)
    attestation_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    encryption_key_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    expiry: Mapped[int] = mapped_column(Unsigned64)
    revoked: Mapped[bool] = mapped_column(Boolean)
    block: Mapped[int] = mapped_column(BigInteger)
    platform: Mapped[bytes | None] = mapped_column(LargeBinary(32), index=True)


class PlatformRow(Table):
    """Fact: a platform, and the committee's verdict on it; without one all of it is 0."""

    __tablename__ = "platforms"

    platform: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    node_id: Mapped[int] = mapped_column(Unsigned64)
    module_svn: Mapped[bytes] = mapped_column(LargeBinary(16))
    expiry: Mapped[int] = mapped_column(Unsigned64)
    revoked: Mapped[bool] = mapped_column(Boolean)


class MeasurementRow(Table):
    """Fact: a measurement and whether it is allowed."""

    __tablename__ = "measurements"

    measurement: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    allowed: Mapped[bool] = mapped_column(Boolean)


class CursorRow(Table):
    """How far the facts reach: one row, moved in the transaction that writes the facts."""

    __tablename__ = "cursor"
    __table_args__ = (CheckConstraint("id = 1", name="singleton"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    vault: Mapped[str] = mapped_column(String(42))
    block: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    block_time: Mapped[int] = mapped_column(BigInteger)


class ChainEventRow(Table):
    """An event as the finalized chain has it: all other facts are derived from these, in order.

    `kind` is the fact's class in `oracle.facts`, `subject` the job, enclave key, platform or
    measurement that it speaks of (hex), `fields` the rest of it as JSON.
    """

    __tablename__ = "chain_events"

    block: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(66), index=True)
    transaction: Mapped[bytes] = mapped_column(LargeBinary(32))
    fields: Mapped[str] = mapped_column(Text)


class CheckpointRow(Table):
    """A final block that the cursor stood at: where facts can go back to when the chain does."""

    __tablename__ = "checkpoints"

    block: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    block_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    block_time: Mapped[int] = mapped_column(BigInteger)


class PauseRow(Table):
    """That nothing is taken in: one row while it is so. `since` is Unix seconds."""

    __tablename__ = "pause"
    __table_args__ = (CheckConstraint("id = 1", name="singleton"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[int] = mapped_column(BigInteger)


class FeeRow(Table):
    """What a mined transaction of ours has cost, in wei."""

    __tablename__ = "fees"

    transaction: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    wei: Mapped[int] = mapped_column(Unsigned64)


class SlotRow(Table):
    """One nonce of one relaying key; what was handed in points here, whatever attempt has it."""

    __tablename__ = "slots"
    __table_args__ = (UniqueConstraint("sender", "nonce"),)

    slot: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    sender: Mapped[str] = mapped_column(String(42))
    nonce: Mapped[int] = mapped_column(BigInteger)


class SuspectRow(Table):
    """A receipt that was in `reverts` mined and reverted transactions, the last one in `block`."""

    __tablename__ = "suspects"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    signer: Mapped[str] = mapped_column(String(42), primary_key=True)
    reverts: Mapped[int] = mapped_column(Integer)
    block: Mapped[int] = mapped_column(BigInteger)
