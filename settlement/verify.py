"""What a receipt bundle proves, offline: each claim with pass or fail and why."""

from itertools import pairwise

from settlement.amounts import format_usdc
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, recover_signer
from settlement.errors import InvalidSignature, RaphaError
from settlement.models import JobTerms, SignedReceipt
from settlement.types import Address, Bytes32, Frozen, to_hex


class ReceiptBundle(Frozen):
    """All that shows what was done and paid for one job; receipts in the order they were signed."""

    deployment: Deployment
    terms: JobTerms
    enclave_key: Address
    receipts: tuple[SignedReceipt, ...]
    transactions: tuple[Bytes32, ...]


class Check(Frozen):
    """One claim of a bundle, whether it holds, and why."""

    claim: str
    holds: bool
    why: str


class BundleRefused(RaphaError):
    """A bundle does not prove what it claims. `failed` are the checks that do not hold."""

    def __init__(self, failed: tuple[Check, ...]) -> None:
        self.failed = failed
        super().__init__("; ".join(f"{check.claim}: {check.why}" for check in failed))


def check_bundle(
    bundle: ReceiptBundle,
    *,
    output: bytes | None = None,
    paid: int | None = None,
    funded: int | None = None,
) -> tuple[Check, ...]:
    """Check every claim of a bundle.

    `output` is what `settlement.digests.output_digest` gives for the delivered weights and metrics,
    `paid` what the chain says was paid, in USDC base units; each is checked where it is given.
    `funded` is what the chain says was escrowed in all, which bounds what can be earned: the
    budget, and what was added to it later. Without it the budget is the bound.
    """
    domain = bundle.deployment.vault_domain
    job = job_id(bundle.terms, domain)
    receipts = [signed.receipt for signed in bundle.receipts]
    foreign = [receipt for receipt in receipts if receipt.job_id != job]
    forged = [signed for signed in bundle.receipts if not _signed_by(signed, bundle)]
    falling = [
        later
        for earlier, later in pairwise(receipts)
        if later.records < earlier.records or later.epochs < earlier.epochs
    ]
    last = receipts[-1] if receipts else None
    complete = last is not None and last.complete
    checks = [
        Check(
            claim="every receipt is for these terms",
            holds=not foreign,
            why=f"job {to_hex(job)}" if not foreign else f"{len(foreign)} are for another job",
        ),
        Check(
            claim="every receipt is signed by the enclave",
            holds=not forged,
            why=bundle.enclave_key if not forged else f"{len(forged)} are not",
        ),
        Check(
            claim="the counters never fall",
            holds=not falling,
            why=f"{len(receipts)} receipts" if not falling else f"{len(falling)} times",
        ),
        Check(
            claim="the last receipt completes the job",
            holds=complete,
            why="it does" if complete else "there is none, or it does not",
        ),
    ]
    if output is not None:
        holds = last is not None and last.output_digest == output
        why = to_hex(output) if holds else "what was delivered is not what the enclave signed"
        checks.append(Check(claim="the delivery is the enclave's output", holds=holds, why=why))
    if paid is not None:
        earned = max(
            (bundle.terms.earned(r.records, r.epochs, funded=funded) for r in receipts), default=0
        )
        why = f"{format_usdc(earned)} USDC earned, {format_usdc(paid)} paid"
        checks.append(Check(claim="what was earned was paid", holds=earned == paid, why=why))
    return tuple(checks)


def verify_bundle(
    bundle: ReceiptBundle,
    *,
    output: bytes | None = None,
    paid: int | None = None,
    funded: int | None = None,
) -> tuple[Check, ...]:
    """The same, for those who want every claim to hold.

    Raises:
        BundleRefused: naming each claim that does not.
    """
    checks = check_bundle(bundle, output=output, paid=paid, funded=funded)
    if failed := tuple(check for check in checks if not check.holds):
        raise BundleRefused(failed)
    return checks


def _signed_by(signed: SignedReceipt, bundle: ReceiptBundle) -> bool:
    digest = receipt_digest(signed.receipt, bundle.deployment.vault_domain)
    try:
        return recover_signer(digest, signed.signature) == bundle.enclave_key
    except InvalidSignature:
        return False
