"""What the chain says of a receipt bundle: its claims, held against any endpoint."""

from collections.abc import Sequence
from typing import Any

from web3.exceptions import TransactionNotFound

from settlement.amounts import format_usdc
from settlement.client import Settlement
from settlement.contracts import JobState, WrongChain
from settlement.eip712 import job_id, receipt_digest
from settlement.events import decode_events
from settlement.types import ZERO_BYTES32, to_hex
from settlement.verify import Check, ReceiptBundle, check_bundle


def check_on_chain(
    settlement: Settlement, bundle: ReceiptBundle, *, output: bytes | None = None
) -> tuple[Check, ...]:
    """Every claim that `check_bundle` checks, with what was paid, and what only the chain can say.

    `settlement` is of the bundle's own deployment. An endpoint's answers are as good as the
    endpoint: ask one of your own, or two. Exceptions of web3 and requests come through.
    """
    try:
        settlement.check()
    except WrongChain as error:
        return (
            *check_bundle(bundle, output=output),
            Check(claim="the contracts are the deployment's", holds=False, why=str(error)),
        )
    domain = bundle.deployment.vault_domain
    job = job_id(bundle.terms, domain)
    status = settlement.job(job)
    closed = status.state is JobState.CLOSED
    events, missing = _events(settlement, bundle.transactions)
    own = [event for event in events if event.args.get("job_id") == job]
    return (
        *check_bundle(bundle, output=output, paid=status.paid, funded=status.funded),
        Check(
            claim="the contracts are the deployment's",
            holds=True,
            why=f"chain {bundle.deployment.chain_id}, vault {bundle.deployment.vault}",
        ),
        Check(
            claim="the job is closed on chain",
            holds=closed,
            why=f"{status.state.name}, {format_usdc(status.paid)} of "
            f"{format_usdc(status.funded)} USDC paid",
        ),
        Check(
            claim="every transaction is on chain",
            holds=not missing,
            why=f"{len(bundle.transactions)} transactions"
            if not missing
            else f"not found, or reverted: {', '.join(missing)}",
        ),
        _settled(bundle, own),
        _opened(own),
        _registered(settlement, bundle),
    )


def _events(settlement: Settlement, transactions: Sequence[bytes]) -> tuple[list[Any], list[str]]:
    events: list[Any] = []
    missing: list[str] = []
    for transaction in dict.fromkeys(transactions):
        try:
            receipt = settlement.w3.eth.get_transaction_receipt(transaction)  # type: ignore[arg-type]
        except TransactionNotFound:
            missing.append(to_hex(transaction))
            continue
        if not receipt["status"]:
            missing.append(to_hex(transaction))
            continue
        events += decode_events(settlement.deployment, receipt["logs"])
    return events, missing


def _settled(bundle: ReceiptBundle, own: Sequence[Any]) -> Check:
    claim = "the last receipt was settled in one of them"
    if not bundle.receipts:
        return Check(claim=claim, holds=False, why="the bundle has no receipt")
    last = receipt_digest(bundle.receipts[-1].receipt, bundle.deployment.vault_domain)
    settled = [event for event in own if event.name == "Settled"]
    at = [event.transaction for event in settled if bytes(event.args["receipt_digest"]) == last]
    why = f"by {to_hex(at[0])}" if at else f"{len(settled)} settlements, none of this receipt"
    return Check(claim=claim, holds=bool(at), why=why)


def _opened(own: Sequence[Any]) -> Check:
    opened = [event for event in own if event.name == "JobOpened"]
    return Check(
        claim="the job was opened in one of them",
        holds=bool(opened),
        why=f"by {to_hex(opened[0].transaction)}" if opened else "no JobOpened among their events",
    )


def _registered(settlement: Settlement, bundle: ReceiptBundle) -> Check:
    """The key must have been the job's node's; that it has expired since proves nothing wrong."""
    node_id, expiry, measurement, revoked = settlement.enclaves.functions.enclave(
        bundle.enclave_key
    ).call()
    job = settlement.job(job_id(bundle.terms, bundle.deployment.vault_domain))
    fault = None
    if bytes(measurement) == ZERO_BYTES32:
        fault = "the registry does not know it"
    elif node_id != job.node_id:
        fault = f"it is registered for node {node_id}, and the job's is {job.node_id}"
    elif revoked:
        fault = "it is revoked"
    expired = " (expired since)" if expiry <= settlement.now() else ""
    return Check(
        claim="the enclave's key is registered for the job's node",
        holds=fault is None,
        why=fault or f"node {node_id}, measurement {to_hex(bytes(measurement))}{expired}",
    )
