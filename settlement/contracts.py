"""The contracts as Python sees them: artifacts, encoding, and what they answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import Any

from settlement.deployment import Deployment
from settlement.eip712 import (
    intent_digest,
    job_id,
    receive_authorization_digest,
    recover_signer,
    typed_data,
    work_digest,
)
from settlement.errors import InvalidInput, RaphaError
from settlement.models import (
    Authorization,
    Deposit,
    JobTerms,
    SignedReceipt,
    Work,
)
from settlement.types import Frozen, to_hex

MAX_BATCH = 100
"""How many receipts one `settle_many` takes; the contract's own bound."""


class Outcome(IntEnum):
    """What settling answers for each receipt."""

    PAID = 0
    NOTHING_NEW = 1
    UNKNOWN_JOB = 2
    TOO_LATE = 3
    ENCLAVE_REFUSED = 4
    OUTPUT_MISSING = 5
    NOT_ASSIGNED = 6
    MALFORMED = 7


class JobState(IntEnum):
    """The state in a job's word. OPEN waits for the committee to find a node."""

    UNKNOWN = 0
    OPEN = 1
    ASSIGNED = 2
    CANCELLING = 3
    CLOSED = 4


class WrongChain(RaphaError, RuntimeError):
    """The chain, or a contract on it, is not what the deployment record says."""

    def __init__(self, what: str, *, expected: object, found: object) -> None:
        self.expected, self.found = expected, found
        super().__init__(
            f"{what}: expected {expected}, found {found}; check RPC URL and deployment record"
        )


class TransactionFailed(RaphaError, RuntimeError):
    """A transaction was mined and reverted."""

    def __init__(self, transaction: bytes) -> None:
        self.transaction = transaction
        super().__init__(f"transaction {to_hex(transaction)} was mined and reverted")


@dataclass(frozen=True)
class Artifact:
    """What the compiler made of one contract."""

    contract: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    testing_only: bool
    compiler: str


@cache
def artifact(contract: str) -> Artifact:
    """The shipped ABI and creation bytecode of a contract."""
    data = json.loads((files("settlement") / "artifacts" / f"{contract}.json").read_text())
    return Artifact(
        contract,
        data["abi"],
        bytes.fromhex(data["bytecode"][2:]),
        data["testing_only"],
        data["compiler"],
    )


@dataclass(frozen=True)
class Claim:
    """A signed receipt with the terms that it counts under: one item of `settle_many`."""

    terms: JobTerms
    signed: SignedReceipt

    def abi_value(self) -> tuple[Any, ...]:
        """The value of the contract's `Claim` struct; the signature in two words (EIP-2098)."""
        receipt, signature = self.signed.receipt, self.signed.signature
        s = int.from_bytes(signature[32:64], "big")
        return (
            [_word(value) for value in terms_ref(self.terms)],
            receipt.records,
            receipt.epochs,
            receipt.records_root,
            receipt.output_digest,
            int(receipt.complete),
            int.from_bytes(signature[:32], "big"),
            s | (signature[64] - 27 & 1) << 255,
        )


def check_batch(claims: Sequence[Claim]) -> None:
    """Make sure that so many claims go into one call. Raises InvalidInput."""
    if not 0 < len(claims) <= MAX_BATCH:
        raise InvalidInput(f"a batch holds 1 to {MAX_BATCH} receipts, not {len(claims)}")


def _word(value: int | str | bytes) -> int:
    if isinstance(value, int):
        return value
    return int(value, 16) if isinstance(value, str) else int.from_bytes(value, "big")


def terms_ref(terms: JobTerms) -> tuple[Any, ...]:
    """The contract's `TermsRef`: the terms with their work by its struct hash."""
    return tuple(
        work_digest(value) if isinstance(value, Work) else value
        for value in (getattr(terms, name) for name in JobTerms.model_fields)
    )


def order(terms: JobTerms) -> tuple[Any, ...]:
    """The contract's `Order`: the terms without their payer."""
    return abi_value(terms)[1:]


def abi_value(model: Frozen) -> tuple[Any, ...]:
    """A model as the value of the contract's struct of the same name."""
    values = (getattr(model, name) for name in type(model).model_fields)
    return tuple(_abi_field(value) for value in values)


def _abi_field(value: Any) -> Any:
    if isinstance(value, Frozen):
        return abi_value(value)
    # the contracts take a flag as a word
    return int(value) if isinstance(value, bool) else value


def authorization_document(
    deployment: Deployment, terms: JobTerms, *, valid_after: int, valid_before: int
) -> dict[str, Any]:
    """The typed data that the payer signs to escrow: EIP-3009 with the job id as its nonce."""
    nonce = job_id(terms, deployment.vault_domain)
    return _receive_document(
        deployment, terms.payer, terms.budget, nonce, valid_after, valid_before
    )


def deposit_document(
    deployment: Deployment, deposit: Deposit, *, valid_after: int, valid_before: int
) -> dict[str, Any]:
    """The typed data that an account signs to deposit: EIP-3009 with the deposit as its nonce."""
    nonce = intent_digest(deposit, deployment.vault_domain)
    return _receive_document(
        deployment, deposit.account, deposit.amount, nonce, valid_after, valid_before
    )


def _receive_document(
    deployment: Deployment,
    payer: str,
    value: int,
    nonce: bytes,
    valid_after: int,
    valid_before: int,
) -> dict[str, Any]:
    message = {
        "from": payer,
        "to": deployment.vault,
        "value": value,
        "validAfter": valid_after,
        "validBefore": valid_before,
        "nonce": to_hex(nonce),
    }
    return typed_data(deployment.usdc_domain, "ReceiveWithAuthorization", message)


def authorization_signer(
    deployment: Deployment, terms: JobTerms, authorization: Authorization
) -> str:
    """Who signed an authorisation by ECDSA; a smart wallet's only its contract can tell.

    Raises:
        InvalidSignature: when the bytes are no ECDSA signature.
    """
    digest = receive_authorization_digest(
        deployment.usdc_domain,
        payer=terms.payer,
        to=deployment.vault,
        value=terms.budget,
        valid_after=authorization.valid_after,
        valid_before=authorization.valid_before,
        nonce=job_id(terms, deployment.vault_domain),
    )
    return recover_signer(digest, authorization.signature)


class JobStatus(Frozen):
    """A job as the vault holds it. Amounts are USDC base units.

    Of `paid`, `fresh` was earned in `period` and `earlier` in the one before, by the node's payee
    set `version`; how much of that can still be disputed depends on the time.
    """

    state: JobState
    sponsored: bool
    node_id: int
    version: int
    period: int
    earlier: int
    fresh: int
    paid: int
    funded: int

    def disputable(self, now: int, challenge_window: int) -> int:
        """What a dispute at `now` (Unix seconds) would freeze, in USDC base units."""
        if not challenge_window:
            return 0
        passed = now // challenge_window - self.period
        return self.fresh + self.earlier if passed == 0 else self.fresh if passed == 1 else 0


class Earnings(Frozen):
    """What a node has earned and not split, in USDC base units; only `matured` can be split now."""

    matured: int
    fresh: int
    earlier: int
    version: int
    period: int
    disputes: int

    @property
    def total(self) -> int:
        """All that is not yet split, without what is disputed."""
        return self.matured + self.fresh + self.earlier
