"""Compares what should be the same: loader counters, receipts, events, the vault, and USDC.

The events are replayed into the ledger that they make (`settlement.ledger`). All else is held
against it, as of one block, and each difference is named with both sides' values.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError
from web3 import Web3

from settlement.client import Settlement
from settlement.contracts import Earnings, JobStatus
from settlement.deployment import Deployment
from settlement.eip712 import job_id
from settlement.errors import InvalidInput, RaphaError
from settlement.events import Event
from settlement.history import asking, read_events, read_transfers
from settlement.ledger import Ledger, LedgerContradiction
from settlement.types import Bytes32, Frozen, UInt64, to_hex
from settlement.verify import ReceiptBundle, check_bundle


class NotYetDeployed(RaphaError, LookupError):
    """The block to compare at is older than the contracts."""

    final = False

    def __init__(self, block: int, deployed: int) -> None:
        self.block, self.deployed = block, deployed
        super().__init__(
            f"block {block} is before block {deployed}, in which the contracts were made; "
            "wait until that is final"
        )


class Difference(Frozen):
    """Two sources that do not say the same about one thing."""

    subject: str
    field: str
    left: str
    left_value: str
    right: str
    right_value: str

    def __str__(self) -> str:
        return (
            f"{self.subject}: {self.field} is {self.left_value} by {self.left} "
            f"and {self.right_value} by {self.right}"
        )


class Reconciliation(Frozen):
    """What comparing at `block` found. `compared` counts the values by the two that were compared.

    `surplus` is the USDC in the vault that nobody is owed (donations), in base units.
    """

    block: int
    compared: dict[str, int]
    differences: tuple[Difference, ...]
    surplus: int

    @property
    def is_equal(self) -> bool:
        """Whether there is no difference."""
        return not self.differences


class LoaderCount(Frozen):
    """What a node's data loader has counted for one job."""

    job_id: Bytes32
    records: UInt64
    epochs: UInt64 = Field(default=0)


class Comparison:
    """Collects differences."""

    def __init__(self) -> None:
        self.compared: dict[str, int] = {}
        self.differences: list[Difference] = []

    def equal(self, subject: str, field: str, **values: Any) -> None:
        """Hold two values against each other; the keywords name where they come from."""
        (left, left_value), (right, right_value) = values.items()
        pair = f"{left}/{right}"
        self.compared[pair] = self.compared.get(pair, 0) + 1
        if left_value != right_value:
            self.differences.append(
                Difference(
                    subject=subject,
                    field=field,
                    left=left,
                    left_value=_text(left_value),
                    right=right,
                    right_value=_text(right_value),
                )
            )


class History:
    """The events up to the block `block`, with the ledgers that they make."""

    def __init__(self, deployment: Deployment, events: Sequence[tuple[Event, int]], block: int):
        self.deployment = deployment
        self.events = events
        self.block = block

    def ledger(self, comparison: Comparison, last: int | None = None) -> Ledger:
        """The ledger after block `last`, or after all; a contradiction is a difference."""
        ledger = Ledger(self.deployment)
        for event, time in self.events:
            if last is not None and event.block > last:
                break
            try:
                ledger.apply(event, time)
            except LedgerContradiction as error:
                subject = f"{event.contract} {event.name} in block {event.block}"
                comparison.equal(
                    subject, "what the event says", events=str(event.name), ledger=error.what
                )
        return ledger


def final_block(w3: Web3) -> int:
    """The newest final block's number. Raises HistoryUnavailable."""
    with asking():
        return int(w3.eth.get_block("finalized")["number"])


def read_history(w3: Web3, deployment: Deployment, block: int) -> History:
    """All events up to `block`, from the right chain.

    Raises:
        WrongChain: when the endpoint or the contracts are not the deployment's.
        NotYetDeployed: when the block is too old.
        HistoryUnavailable: when the endpoint gives no answer.
    """
    with asking():
        Settlement(w3, deployment).check()
    if block < deployment.block:
        raise NotYetDeployed(block, deployment.block)
    return History(deployment, read_events(w3, deployment, block), block)


def compare_vault(w3: Web3, history: History, comparison: Comparison) -> int:
    """Hold the events against the vault's own words and against USDC; returns the surplus.

    The endpoint needs the state of the history's block, which a pruned one has for about a hundred
    blocks.

    Raises:
        HistoryUnavailable: when the endpoint gives no answer.
    """
    settlement = Settlement(w3, history.deployment)
    ledger, block = history.ledger(comparison), history.block
    transfers = read_transfers(w3, history.deployment, block)
    vault = settlement.vault.functions
    with asking():
        now = int(w3.eth.get_block(block)["timestamp"])

        def ask(call: Any) -> Any:
            return call.call(block_identifier=block)

        for job in ledger.jobs:
            status = dict(zip(JobStatus.model_fields, ask(vault.job(job)), strict=True))
            said = JobStatus(**{**status, "sponsored": bool(status["sponsored"])})
            expected = ledger.job_status(job)
            for name in JobStatus.model_fields:
                comparison.equal(
                    f"job {to_hex(job)}",
                    name,
                    events=getattr(expected, name),
                    vault=getattr(said, name),
                )
        for number, node in ledger.nodes.items():
            for version in (None, *range(node.version)):
                call = (
                    vault.earnings_of(number)
                    if version is None
                    else vault.past_earnings_of(number, version)
                )
                kept = dict(zip(Earnings.model_fields, ask(call), strict=True))
                counted = ledger.earnings(number, now, version)
                which = "" if version is None else f" by payees {version}"
                # the vault's word is as of the last change, so only the sum is the same by itself
                comparison.equal(
                    f"node {number}",
                    f"earned and not split{which}",
                    events=counted.total,
                    vault=Earnings(**kept).total,
                )
        for account, balance in ledger.balances.items():
            said_balance = int(ask(vault.balances(account)))
            comparison.equal(f"account {account}", "balance", events=balance, vault=said_balance)
        comparison.equal("the vault", "owed", events=ledger.owed, vault=int(ask(vault.owed())))
        held = int(ask(settlement.usdc.functions.balanceOf(history.deployment.vault)))
    received = sum(transfer.amount for transfer in transfers if transfer.incoming)
    sent = sum(transfer.amount for transfer in transfers if not transfer.incoming)
    withdrawn = sum(
        event.args["amount"]
        for event, _ in history.events
        if event.contract == "vault" and event.name == "Withdrawn"
    )
    withdrawn += ledger.recovered.get(history.deployment.usdc, 0)
    comparison.equal("the vault", "USDC that left it", events=withdrawn, usdc=sent)
    comparison.equal("the vault", "USDC held", transfers=received - sent, usdc=held)
    if held < ledger.owed:
        comparison.equal("the vault", "USDC to pay what is owed", events=ledger.owed, usdc=held)
    return max(held - ledger.owed, 0)


def compare_receipts(
    bundles: Sequence[ReceiptBundle], history: History, comparison: Comparison
) -> None:
    """Hold receipt bundles against what the events say was paid for."""
    ledger = history.ledger(Comparison())
    for bundle in bundles:
        job = job_id(bundle.terms, bundle.deployment.vault_domain)
        subject = f"job {to_hex(job)}"
        comparison.equal(
            subject, "vault", receipts=bundle.deployment.vault, events=history.deployment.vault
        )
        found = ledger.jobs.get(job)
        comparison.equal(subject, "opened", receipts=True, events=found is not None)
        if found is None:
            continue
        for check in check_bundle(bundle, paid=found.paid, funded=found.funded):
            if check.claim != "the last receipt completes the job":  # it may still go on
                comparison.equal(
                    subject, f"{check.claim} ({check.why})", receipts=check.holds, events=True
                )
        receipts = [signed.receipt for signed in bundle.receipts]
        for name, settled in (("records", found.records), ("epochs", found.epochs)):
            signed = max((getattr(receipt, name) for receipt in receipts), default=0)
            comparison.equal(subject, name, receipts=signed, events=settled)


def compare_loader(
    counts: Sequence[LoaderCount],
    bundles: Sequence[ReceiptBundle],
    history: History,
    comparison: Comparison,
) -> None:
    """Hold loader counters against the receipts of their job, or else against the events."""
    ledger = history.ledger(Comparison())
    signed = {
        job_id(bundle.terms, bundle.deployment.vault_domain): bundle.receipts for bundle in bundles
    }
    for count in counts:
        subject = f"job {to_hex(count.job_id)}"
        for name in ("records", "epochs"):
            counted = getattr(count, name)
            if count.job_id in signed:
                claims = (getattr(it.receipt, name) for it in signed[count.job_id])
                comparison.equal(subject, name, loader=counted, receipts=max(claims, default=0))
            else:
                job = ledger.jobs.get(count.job_id)
                paid_for = getattr(job, name) if job else 0
                comparison.equal(subject, name, loader=counted, events=paid_for)


def reconcile(
    w3: Web3,
    deployment: Deployment,
    *,
    bundles: Sequence[ReceiptBundle] = (),
    counts: Sequence[LoaderCount] = (),
    block: int | None = None,
    further: Callable[[History, Comparison], None] | None = None,
) -> Reconciliation:
    """Compare all that is given as of a block, the newest final one unless told otherwise.

    `further` compares what else there is, such as an oracle's database, with the same history.

    Raises:
        RaphaError: when the chain cannot be asked.
    """
    history = read_history(w3, deployment, final_block(w3) if block is None else block)
    comparison = Comparison()
    surplus = compare_vault(w3, history, comparison)
    compare_receipts(bundles, history, comparison)
    compare_loader(counts, bundles, history, comparison)
    if further is not None:
        further(history, comparison)
    return Reconciliation(
        block=history.block,
        compared=comparison.compared,
        differences=tuple(comparison.differences),
        surplus=surplus,
    )


def load_bundles(files: Sequence[Path]) -> list[ReceiptBundle]:
    """Receipt bundles from files. Raises InvalidInput."""
    return [_load(file, TypeAdapter(ReceiptBundle), "a receipt bundle") for file in files]


def load_counts(files: Sequence[Path]) -> list[LoaderCount]:
    """Loader counters from files, each a JSON array of them. Raises InvalidInput."""
    adapter = TypeAdapter(tuple[LoaderCount, ...])
    return [count for file in files for count in _load(file, adapter, "loader counters")]


def _load(file: Path, adapter: TypeAdapter[Any], what: str) -> Any:
    try:
        return adapter.validate_json(file.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or 'cannot be read'}") from error
    except ValidationError as error:
        where = ", ".join(".".join(map(str, part["loc"])) or "whole" for part in error.errors())
        raise InvalidInput(f"{file} is not {what}: invalid {where}") from error


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return to_hex(value)
    return getattr(value, "name", None) or str(value)
