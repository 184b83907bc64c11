"""What the chain says, as typed facts, and what the oracle asks of a chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from oracle.errors import Delivery
from settlement.committee import Committee
from settlement.contracts import Claim, Outcome
from settlement.dcap import QuoteParts
from settlement.models import Authorization, EnclaveRegistration, JobTerms, PlatformVerdict


@dataclass(frozen=True)
class Block:
    """A block's number, hash and time (Unix seconds)."""

    number: int
    hash: bytes
    time: int


@dataclass(frozen=True)
class Header:
    """A block with its parent's hash; `logged` is whether our contracts may have logged in it.

    Where `logged` is False they have not: a bloom filter has false positives, and no false
    negatives.
    """

    block: Block
    parent: bytes
    logged: bool


@dataclass(frozen=True)
class Place:
    """Where in the chain an event stands."""

    block: int
    index: int
    transaction: bytes


@dataclass(frozen=True)
class JobOpened:
    """A job's budget is in escrow. Terms with node 0 wait for the committee to find a node."""

    place: Place
    job_id: bytes
    terms: JobTerms


@dataclass(frozen=True)
class JobAssigned:
    """The committee gave a job whose payer left the node open to a node."""

    place: Place
    job_id: bytes
    node_id: int


@dataclass(frozen=True)
class JobToppedUp:
    """A job's escrow grew by `amount` to `funded`; USDC base units."""

    place: Place
    job_id: bytes
    amount: int
    funded: int


@dataclass(frozen=True)
class JobCancelled:
    """A job with a node is to end: its receipts count until `payable_until` (Unix seconds)."""

    place: Place
    job_id: bytes
    payable_until: int


@dataclass(frozen=True)
class JobVoided:
    """A job that was never opened can never be."""

    place: Place
    job_id: bytes


@dataclass(frozen=True)
class Settled:
    """A receipt was paid: `amount` newly, in USDC base units."""

    place: Place
    job_id: bytes
    receipt_digest: bytes
    records: int
    epochs: int
    amount: int


@dataclass(frozen=True)
class JobClosed:
    """A job ended: by completion (with its output digest), by time or by cancelling (zero)."""

    place: Place
    job_id: bytes
    paid: int
    refunded: int
    output_digest: bytes


@dataclass(frozen=True)
class EnclaveRegistered:
    """An enclave key was registered or renewed."""

    place: Place
    enclave_key: str
    node_id: int
    measurement: bytes
    attestation_digest: bytes
    encryption_key_digest: bytes
    expiry: int


@dataclass(frozen=True)
class EnclaveRevoked:
    """An enclave key was revoked, for good."""

    place: Place
    enclave_key: str


@dataclass(frozen=True)
class EnclaveQuoted:
    """An enclave key is registered, by the event that follows, by a quote from this platform."""

    place: Place
    enclave_key: str
    platform: bytes


@dataclass(frozen=True)
class PlatformJudged:
    """The committee's verdict on a platform: whose it is, with which TDX module, until when."""

    place: Place
    platform: bytes
    node_id: int
    module_svn: int
    expiry: int


@dataclass(frozen=True)
class PlatformRevoked:
    """A platform was revoked, and every key that it has quoted, for good."""

    place: Place
    platform: bytes


@dataclass(frozen=True)
class MeasurementChanged:
    """A measurement was allowed or revoked."""

    place: Place
    measurement: bytes
    allowed: bool


JobEvent = JobOpened | JobAssigned | JobToppedUp | JobCancelled | JobVoided | Settled | JobClosed
EnclaveEvent = EnclaveQuoted | EnclaveRegistered | EnclaveRevoked
PlatformEvent = PlatformJudged | PlatformRevoked
Event = JobEvent | EnclaveEvent | PlatformEvent | MeasurementChanged


class CallKind(StrEnum):
    """What a transaction is for."""

    SETTLE = "settle"
    REGISTER = "register"
    PLATFORM = "platform"
    JUDGE = "judge"
    QUOTE = "quote"
    OPEN = "open"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Call:
    """Calldata for one contract."""

    kind: CallKind
    to: str
    data: bytes


@dataclass(frozen=True)
class Fees:
    """The next block's base fee and the tip that is customary now, wei per gas."""

    base_fee: int
    tip: int


@dataclass(frozen=True)
class Mined:
    """A transaction's receipt: its block, and whether it succeeded."""

    block: int
    success: bool


@dataclass(frozen=True)
class SittingCommittee:
    """The present committee and its epoch."""

    epoch: int
    committee: Committee


@dataclass(frozen=True)
class Platform:
    """A platform as the newest block has it: its certificate, the verdict on it, its challenge.

    Times are Unix seconds; what is not there is zero. The next quote must be for `challenge`.
    """

    revoked: bool
    certified_until: int
    node_id: int
    module_svn: int
    expiry: int
    challenge: bytes


class Chain(Protocol):
    """A chain with the settlement's contracts.

    Reads raise `ChainUnavailable` when the endpoint gives no answer; a call that would revert
    raises `ContractReverted` with the contract's reason.
    """

    def check(self) -> None:
        """Make sure of chain id, code and wiring. Raises `settlement.contracts.WrongChain`."""

    def finalized(self) -> Block:
        """The newest block that is final."""

    def latest(self) -> int:
        """The newest block's number."""

    def block(self, number: int) -> Block | None:
        """The block at a height, None above the tip."""

    def events(self, first: int, last: int) -> Sequence[Event]:
        """All events of vault and enclave registry in these blocks, in order. LogRangeRefused."""

    def headers(self, first: int, last: int) -> Sequence[Header]:
        """The headers of these blocks, in order; one request each."""

    def committee(self) -> SittingCommittee:
        """The present committee."""

    def is_measurement_allowed(self, measurement: bytes) -> bool:
        """Whether governance allows a measurement."""

    def is_node_active(self, node_id: int) -> bool:
        """Whether a node is registered and takes jobs."""

    def platform(self, platform: bytes) -> Platform:
        """What the newest block says about a platform (the digest of its PCK key)."""

    def settle_call(self, claims: Sequence[Claim]) -> Call:
        """Calldata that settles a batch."""

    def register_call(self, registration: EnclaveRegistration, signatures: bytes) -> Call:
        """Calldata that registers an enclave; `signatures` as the committee takes them."""

    def register_platform_call(self, parts: QuoteParts) -> Call:
        """Calldata that registers a quote's platform by the certificates that came with it."""

    def judge_call(self, verdict: PlatformVerdict, signatures: bytes) -> Call:
        """Calldata that brings a verdict; `signatures` as the committee takes them."""

    def register_quote_call(
        self, parts: QuoteParts, enclave_key: str, encryption_key_digest: bytes
    ) -> Call:
        """Calldata that registers an enclave key by a quote."""

    def open_call(self, terms: JobTerms, authorization: Authorization) -> Call:
        """Calldata that opens a job by the payer's authorization."""

    def simulate_settle(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        """Each item's outcome, were the batch settled now."""

    def estimate_gas(self, call: Call, sender: str) -> int:
        """Gas that a call would use now; doing it shows whether the call would revert."""

    def fees(self) -> Fees:
        """Fees as they are now."""

    def next_nonce(self, account: str, *, final: bool) -> int:
        """How many of the account's transactions are in the latest, or in the final, block."""

    def send(self, raw: bytes) -> Delivery:
        """Hand over a signed transaction. TransactionRefused when the endpoint won't have it."""

    def mined(self, transaction: bytes) -> Mined | None:
        """A transaction's receipt, None as long as it is not in a block."""

    def fee(self, transaction: bytes) -> int | None:
        """What a transaction has cost in wei, None as long as it is not in a block."""

    def is_known(self, transaction: bytes) -> bool:
        """Whether the endpoint has a transaction, in its pool or in a block."""

    def balance(self, account: str) -> int:
        """What an account has of the native coin, in wei."""
