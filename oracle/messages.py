"""What travels between the oracle and those who use it; server and client share these models."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from oracle.attestation.tpm.enrolment import Activation, ActivationAnswer, EnrolmentRequest
from oracle.attestation.tpm.quote import TpmQuote
from oracle.statements import Statement
from settlement.committee import MAX_BLS_MEMBERS
from settlement.models import (
    Authorization,
    EnclaveRegistration,
    JobTerms,
    PlatformVerdict,
    Receipt,
    SignedReceipt,
)
from settlement.types import Address, Bytes32, Frozen, HexData, UInt64, UInt128, Usdc

MemberId = Annotated[str, Field(pattern=r"^0x([0-9a-fA-F]{40}|[0-9a-f]{128})$")]
"""What `settlement.committee` calls a member: a checksummed address, or a BLS key."""

MemberSignature = Annotated[HexData, Field(min_length=64, max_length=65)]

MAX_CHALLENGES = MAX_BLS_MEMBERS
"""The most operators whose challenges one nonce may carry."""

MAX_QUOTE = 16_384
"""Bytes of a quote with its certificates."""

MAX_EVENT_LOG = 256 * 1024
"""Bytes of an event log that comes with a TPM quote; logs of real machines are shorter."""


MAX_RECEIPTS = 500
"""The most receipts in one batch."""

HEARTBEAT = 15
"""Seconds of silence after which followers are sent a sign of life."""


class VouchFor(StrEnum):
    """What a deployment's committee vouches for.

    KEY: the enclave key, which is registered by the committee's word alone. PLATFORM: the machine;
    the key is registered by a quote that the chain checks itself.
    """

    KEY = "key"
    PLATFORM = "platform"


class Status(StrEnum):
    """How far a receipt, an escrow, an attestation or a quote has come.

    WAITING: something it rests on is not there yet (a receipt's job or the job's node, an
    attestation's quorum).
    ACCEPTED: durable and due for a transaction. SUBMITTED: in a persisted transaction.
    SETTLED: final on chain. REJECTED: see `reason`; it is judged anew when a fact about it changes.
    """

    WAITING = "WAITING"
    ACCEPTED = "ACCEPTED"
    SUBMITTED = "SUBMITTED"
    SETTLED = "SETTLED"
    REJECTED = "REJECTED"


class Problem(Frozen):
    """An error as RFC 9457 has it; `code` is its stable name, `final` says whether to give up.

    What the error keeps stands beside these, as members of its own (section 3.2).
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    final: bool

    @property
    def data(self) -> dict[str, Any]:
        """The members of the error's own."""
        return dict(self.__pydantic_extra__)


class Readiness(Frozen):
    """Whether the oracle does its work now; `checks` says per part "ok" or what is wrong.

    `warnings` names what works around a fault for now, such as a key that is low on gas money.
    """

    ready: bool
    checks: dict[str, str]
    warnings: dict[str, str] = Field(default_factory=dict)


class ChallengeRequest(Frozen):
    """Who wants to be attested: the node and the enclave's signing key."""

    node_id: UInt64 = Field(gt=0)
    enclave_key: Address


class TpmWanted(Frozen):
    """What an operator wants of a node's TPM: a quote over exactly these PCRs (``sha256:8,9``).

    Where it is `required`, no enclave counts without it; with `event_log` not without the log.
    """

    required: bool
    selection: str
    event_log: bool


class ChallengeSet(Frozen):
    """The operators' challenges, and the nonce that the quote has to carry.

    `nonce` is keccak-256 over the sorted challenges; `expires_at` is Unix seconds. `tpm` says what
    the relaying operator wants of the node's TPM, None where it judges none. Where operators
    `vouch_for` the platform, the key is registered by a second quote, for the chain's challenge.
    """

    challenges: tuple[Bytes32, ...] = Field(min_length=1, max_length=MAX_CHALLENGES)
    nonce: Bytes32
    expires_at: UInt64
    tpm: TpmWanted | None = None
    vouch_for: VouchFor = VouchFor.KEY


class PeerChallenge(Frozen):
    """One operator's own challenge, good until `expires_at` (Unix seconds)."""

    challenge: Bytes32
    expires_at: UInt64


class TpmEvidence(Frozen):
    """The TPM's part of a node's case: its quote over `quote_nonce`, and what was measured."""

    quote: TpmQuote
    event_log: HexData | None = Field(default=None, max_length=MAX_EVENT_LOG)


class Evidence(Frozen):
    """An enclave's case: its quote and all that the quote's `report_data` is to bind.

    `encryption_key` is the raw X25519 public key, `challenges` those of the `ChallengeSet`. `tpm`
    is over the same challenges; operators who judge no TPMs leave it alone.
    """

    node_id: UInt64 = Field(gt=0)
    enclave_key: Address
    encryption_key: Bytes32
    configuration: Bytes32
    challenges: tuple[Bytes32, ...] = Field(min_length=1, max_length=MAX_CHALLENGES)
    quote: HexData = Field(max_length=MAX_QUOTE)
    tpm: TpmEvidence | None = None


class TpmRenewal(Frozen):
    """Fresh evidence of the TPM alone, for an enclave key that is registered already."""

    node_id: UInt64 = Field(gt=0)
    enclave_key: Address
    challenges: tuple[Bytes32, ...] = Field(min_length=1, max_length=MAX_CHALLENGES)
    tpm: TpmEvidence


class ActivationSet(Frozen):
    """An activation by each operator that made one; `refusals` says by peer why others did not."""

    activations: tuple[Activation, ...] = Field(min_length=1, max_length=MAX_CHALLENGES)
    refusals: dict[str, str]


class ActivationAnswers(Frozen):
    """The answers to an `ActivationSet`; each operator takes its own."""

    answers: tuple[ActivationAnswer, ...] = Field(min_length=1, max_length=MAX_CHALLENGES)


class TpmStatus(Frozen):
    """What one operator holds of a node's TPM until `valid_until` (Unix seconds).

    That is the enrolled key after an enrolment, and the verdict after evidence. `refusals` says by
    peer why another operator did not come to the same; it needs the node to try again.
    """

    node_id: UInt64
    valid_until: UInt64
    refusals: dict[str, str] = Field(default_factory=dict)


class AttestationStatus(Frozen):
    """Where an attestation stands. `digest` is the quote's attestation digest.

    `expiry` (Unix seconds) is the registration's, or that of the verdict on `platform`, once the
    committee has signed. `reason` names the error that it waits for or was rejected with.
    """

    digest: Bytes32
    node_id: UInt64
    enclave_key: Address
    status: Status
    reason: str | None = None
    detail: str | None = None
    platform: Bytes32 | None = None
    expiry: UInt64 | None = None
    transaction: Bytes32 | None = None


class PlatformStatus(Frozen):
    """A platform as the newest block has it.

    `certified_until` (Unix seconds) is 0 for one that is not registered. The committee's verdict
    names node and TDX module and lasts until `expiry`; all three are 0 where there is none. The
    next quote must be made for `challenge`.
    """

    platform: Bytes32
    revoked: bool
    certified_until: UInt64
    node_id: UInt64
    module_svn: UInt128
    expiry: UInt64
    challenge: Bytes32


class QuoteRequest(Frozen):
    """A quote for the chain to check: it is to register `enclave_key` for the node.

    Its `report_data` binds the keys to the platform's challenge. `encryption_key` is the raw X25519
    public key.
    """

    node_id: UInt64 = Field(gt=0)
    enclave_key: Address
    encryption_key: Bytes32
    quote: HexData = Field(max_length=MAX_QUOTE)


class QuoteStatus(Frozen):
    """Where a quote stands. `digest` is its attestation digest; SETTLED: the key is registered."""

    digest: Bytes32
    node_id: UInt64
    enclave_key: Address
    platform: Bytes32
    status: Status
    reason: str | None = None
    detail: str | None = None
    transaction: Bytes32 | None = None


class SignatureRequest(Frozen):
    """A peer's wish: check this evidence and sign what follows from it until `expiry` in `epoch`.

    That is the key's registration, or the verdict on its platform, as `vouch_for` says.
    """

    evidence: Evidence
    expiry: UInt64
    epoch: UInt64
    vouch_for: VouchFor = VouchFor.KEY


class SignatureAnswer(Frozen):
    """One operator's signature over the statement that it derived itself from the evidence.

    `signer` is the operator's name in the present committee, as `settlement.committee` has it.
    """

    signer: MemberId
    signature: MemberSignature
    statement: Statement


class NodeStatus(Frozen):
    """A registered enclave key of a node.

    `encryption_key` is known for evidence that came through this oracle. `valid`: may sign receipts
    now, which is unexpired, unrevoked and with an allowed measurement. `expiry` is Unix seconds.

    `routable`: may be given work now, up to `routable_until`, since enclave and, where the operator
    requires it, TPM evidence both count; `reasons` says all that speaks against it
    (`oracle.attestation.tpm.routable.NotRoutable`). `tpm_valid_until` is the last TPM verdict's.
    """

    node_id: UInt64
    enclave_key: Address
    encryption_key: Bytes32 | None
    measurement: Bytes32
    expiry: UInt64
    revoked: bool
    valid: bool
    routable: bool = False
    routable_until: UInt64 | None = None
    reasons: tuple[str, ...] = ()
    tpm_valid_until: UInt64 | None = None


class EscrowRequest(Frozen):
    """Terms to escrow, and the payer's one signature for them."""

    terms: JobTerms
    authorization: Authorization


class EscrowStatus(Frozen):
    """Where an escrow stands; SETTLED means that the job is open on chain, and final."""

    job_id: Bytes32
    status: Status
    reason: str | None = None
    detail: str | None = None
    transaction: Bytes32 | None = None


class ReceiptStatus(Frozen):
    """Where a receipt stands. `digest` is the EIP-712 digest that the enclave signed.

    A receipt whose work a later cumulative one settled is SETTLED with reason "Covered".
    `amount` is what its own settlement paid, USDC base units.
    """

    digest: Bytes32
    job_id: Bytes32
    records: UInt64
    epochs: UInt64
    complete: bool
    status: Status
    reason: str | None = None
    transaction: Bytes32 | None = None
    block: int | None = None
    amount: Usdc = 0


class ReceiptBatch(Frozen):
    """Signed receipts to hand in together: each is taken or refused by itself."""

    receipts: tuple[
        Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/SignedReceipt"})], ...
    ] = Field(min_length=1, max_length=MAX_RECEIPTS)


class ReceiptAnswer(Frozen):
    """What became of one receipt of a batch: where it stands, or the problem with it."""

    receipt: ReceiptStatus | None = None
    problem: Problem | None = None


class ReceiptAnswers(Frozen):
    """The answers to a batch, in its order. What has a status is durable."""

    answers: tuple[ReceiptAnswer, ...]


class ChangeKind(StrEnum):
    """What a change is about."""

    RECEIPT = "receipt"
    ESCROW = "escrow"
    ATTESTATION = "attestation"
    QUOTE = "quote"
    JOB = "job"


class Change(Frozen):
    """One change of status, as followers are told.

    `position` is where to go on from. `key` is the digest or id of what changed, `status` its new
    `Status`; of a job it is the final event, or "forgotten" when the chain took that back. `signer`
    is the receipt's: one receipt may be handed in under several, of which one can be real.
    """

    position: str
    kind: ChangeKind
    key: Bytes32
    job_id: Bytes32 | None = None
    signer: Address | None = None
    status: str
    reason: str | None = None


class JobState(StrEnum):
    """A job on chain.

    UNASSIGNED: funded, and waiting for the committee to find a node. OPEN: its node works on it.
    CANCELLING: to end; finished work is still paid. CLOSED: nothing is paid any more.
    """

    UNASSIGNED = "UNASSIGNED"
    OPEN = "OPEN"
    CANCELLING = "CANCELLING"
    CLOSED = "CLOSED"


class JobTransaction(Frozen):
    """One final event of a job. `amount`: base units escrowed, paid or refunded by it."""

    event: Literal["opened", "assigned", "topped_up", "cancelled", "settled", "closed"]
    transaction: Bytes32
    block: int
    amount: Usdc


class JobStatus(Frozen):
    """A job as the finalized chain has it; amounts are USDC base units.

    `node_id` is the node that it is assigned to, None as long as there is none. Receipts count up
    to and in the second `payable_until` (Unix). `records` and `epochs` are the highest settled
    counters.
    """

    job_id: Bytes32
    terms: JobTerms
    state: JobState
    node_id: UInt64 | None
    payable_until: UInt64
    funded: Usdc
    paid: Usdc
    refunded: Usdc
    records: UInt64
    epochs: UInt64
    output_digest: Bytes32 | None
    receipts: tuple[ReceiptStatus, ...]
    transactions: tuple[JobTransaction, ...]


__all__ = [
    "HEARTBEAT",
    "MAX_CHALLENGES",
    "MAX_EVENT_LOG",
    "MAX_RECEIPTS",
    "Activation",
    "ActivationAnswer",
    "ActivationAnswers",
    "ActivationSet",
    "AttestationStatus",
    "Authorization",
    "ChallengeRequest",
    "ChallengeSet",
    "Change",
    "ChangeKind",
    "EnclaveRegistration",
    "EnrolmentRequest",
    "EscrowRequest",
    "EscrowStatus",
    "Evidence",
    "JobState",
    "JobStatus",
    "JobTerms",
    "JobTransaction",
    "NodeStatus",
    "PeerChallenge",
    "PlatformStatus",
    "PlatformVerdict",
    "Problem",
    "QuoteRequest",
    "QuoteStatus",
    "Readiness",
    "Receipt",
    "ReceiptAnswer",
    "ReceiptAnswers",
    "ReceiptBatch",
    "ReceiptStatus",
    "SignatureAnswer",
    "SignatureRequest",
    "SignedReceipt",
    "Status",
    "TpmEvidence",
    "TpmQuote",
    "TpmRenewal",
    "TpmStatus",
    "TpmWanted",
    "VouchFor",
]
