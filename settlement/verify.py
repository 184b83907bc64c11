"""What a receipt bundle proves, offline: each claim with pass or fail and why."""

import hashlib
import json
from itertools import pairwise

from settlement.amounts import format_usdc
from settlement.deployment import Deployment
from settlement.digests import check_nesting, output_commitment
from settlement.eip712 import job_id, receipt_digest, recover_signer
from settlement.errors import InvalidSignature, RaphaError
from settlement.models import JobTerms, SignedReceipt
from settlement.types import Address, Bytes32, Frozen, to_hex

ISOLATED = "the job trained without a network"


class Output(Frozen):
    """What a completing receipt's `output_digest` is made of.

    `weights` and `metrics` are their SHA-256; `evidence` is how the job was cut off from everything
    else while it trained, as the node's canonical JSON, character for character.
    """

    weights: Bytes32
    metrics: Bytes32
    evidence: str


class ReceiptBundle(Frozen):
    """All that shows what was done and paid for one job; receipts in the order they were signed.

    A bundle without `output` says nothing about how the job was isolated.
    """

    deployment: Deployment
    terms: JobTerms
    enclave_key: Address
    receipts: tuple[SignedReceipt, ...]
    transactions: tuple[Bytes32, ...]
    output: Output | None = None


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
    if bundle.output is not None:
        checks += _isolation(bundle.output, last.output_digest if last is not None else None)
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


def _isolation(output: Output, signed: bytes | None) -> list[Check]:
    """Whether the evidence is what the enclave signed, and whether it shows a cut-off job."""
    text = output.evidence.encode()
    digest = hashlib.sha256(text).digest()
    own = output_commitment(output.weights, output.metrics, digest) == signed
    fault = _isolation_fault(text)
    return [
        Check(
            claim="the evidence of isolation is under the enclave's signature",
            holds=own,
            why=to_hex(digest) if own else "it is not part of what the last receipt commits to",
        ),
        Check(
            claim=ISOLATED,
            holds=fault is None,
            why="in a sandbox of its own, inspected before it was told the job"
            if fault is None
            else fault,
        ),
    ]


def _isolation_fault(text: bytes) -> str | None:
    """What the evidence lacks, by the fields that say that nothing could leave."""
    try:
        check_nesting(text)
        evidence = json.loads(text)
        isolation = evidence["isolation"]
        if isolation != "bubblewrap":
            return f"its isolation is {str(isolation)[:40]}"
        namespaces, network = evidence["namespaces"], evidence["network"]
        shared = [
            name
            for name in ("net", "mnt", "pid", "user", "ipc", "uts")
            if namespaces[name]["job"] == namespaces[name]["node"]
        ]
        confined = (
            network == {"interfaces": ["lo"], "routes": []}
            and evidence["seccomp"]["mode"] == 2
            and evidence["capabilities"] == 0
            and evidence["no_new_privileges"] is True
        )
    except (ValueError, KeyError, TypeError):
        return "the evidence is not readable"
    if shared:
        return f"it shared the node's namespaces: {', '.join(shared)}"
    return None if confined else "the evidence shows a network, privileges, or no filter"


def _signed_by(signed: SignedReceipt, bundle: ReceiptBundle) -> bool:
    digest = receipt_digest(signed.receipt, bundle.deployment.vault_domain)
    try:
        return recover_signer(digest, signed.signature) == bundle.enclave_key
    except InvalidSignature:
        return False
