"""The tables of nodes' TPMs. Nothing here can be rebuilt from the chain; nothing here is secret."""

from sqlalchemy import BigInteger, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from oracle.store.tables import Table, Unsigned64


class TpmActivationRow(Table):
    """An enrolment that waits for its node's answer; one per node and endorsement key.

    `proof` is the SHA-256 of the answer that counts. Times are Unix seconds.
    """

    __tablename__ = "tpm_activations"
    __table_args__ = (UniqueConstraint("node_id", "ek_key"),)

    challenge_id: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    node_id: Mapped[int] = mapped_column(Unsigned64)
    ak_name: Mapped[bytes] = mapped_column(LargeBinary(66))
    ek_certificate: Mapped[bytes] = mapped_column(LargeBinary(32))
    ek_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    endorsed_until: Mapped[int] = mapped_column(Unsigned64)
    proof: Mapped[bytes] = mapped_column(LargeBinary(32))
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class TpmKeyRow(Table):
    """The attestation key that is enrolled for a node, by digests of what endorses it.

    `ek_key` is unique: one TPM is one node's.
    """

    __tablename__ = "tpm_keys"
    __table_args__ = (UniqueConstraint("ek_key"),)

    node_id: Mapped[int] = mapped_column(Unsigned64, primary_key=True)
    ak_name: Mapped[bytes] = mapped_column(LargeBinary(66))
    ek_certificate: Mapped[bytes] = mapped_column(LargeBinary(32))
    ek_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    enrolled_at: Mapped[int] = mapped_column(BigInteger)
    valid_until: Mapped[int] = mapped_column(Unsigned64)


class TpmVerdictRow(Table):
    """The last verdict about a node's TPM, given for one enclave key of it.

    `clock` is milliseconds of the TPM's running time; `resets` and `restarts` are its counters.
    """

    __tablename__ = "tpm_verdicts"

    node_id: Mapped[int] = mapped_column(Unsigned64, primary_key=True)
    enclave_key: Mapped[str] = mapped_column(String(42), primary_key=True)
    ak_name: Mapped[bytes] = mapped_column(LargeBinary(66))
    quote: Mapped[bytes] = mapped_column(LargeBinary(32))
    policy: Mapped[bytes] = mapped_column(LargeBinary(32))
    verified_at: Mapped[int] = mapped_column(BigInteger)
    valid_until: Mapped[int] = mapped_column(Unsigned64)
    clock: Mapped[int] = mapped_column(Unsigned64)
    resets: Mapped[int] = mapped_column(BigInteger)
    restarts: Mapped[int] = mapped_column(BigInteger)
