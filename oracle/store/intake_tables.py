"""Tables of the intake: API keys, the log of changes that followers read, and leases."""

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from oracle.store.tables import Table


class ApiKeyRow(Table):
    """An API key: the SHA-256 of its secret, and what it may do. `scopes` is sorted, by spaces.

    Times are Unix seconds. A revoked key stays, so that it can be seen who had one when.
    """

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    scopes: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class ChangeRow(Table):
    """One change of status, written by triggers in the transaction that makes it.

    (`era`, `id`) is the order. `era` is the id of the transaction in PostgreSQL, where an `id` is
    drawn before its transaction commits; 0 in SQLite, where transactions write one at a time.
    `kind` is receipt, escrow, attestation or job; `key` its digest or id.
    """

    __tablename__ = "changes"
    __table_args__ = (Index(None, "era", "id"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    era: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[bytes] = mapped_column(LargeBinary(32))
    job_id: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    signer: Mapped[str | None] = mapped_column(String(42))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))


class LeaseRow(Table):
    """Who leads: `epoch` rises with each holder, and what an earlier one still writes is refused.

    `holder` is the host and process id, for people; `since` is Unix seconds.
    """

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str] = mapped_column(String(128))
    since: Mapped[int] = mapped_column(BigInteger)
