"""`rapha receipt` and `rapha verify`: what an enclave signed, and what a bundle proves."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.commands.answers import PIPED, Answer, usdc
from oracle.commands.failures import UNTOLD, ending
from oracle.commands.options import AsJson, offline
from settlement.client import Settlement
from settlement.connection import connect
from settlement.digests import canonical_json, check_nesting, output_commitment
from settlement.eip712 import receipt_digest, recover_signer
from settlement.errors import InvalidInput, InvalidSignature
from settlement.reconcile import load_bundles
from settlement.types import to_hex
from settlement.verify import Check, ReceiptBundle, check_bundle
from settlement.verify_chain import check_on_chain

app = typer.Typer(help="Look at receipts, and check them.", no_args_is_help=True)

BundleFile = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A receipt bundle (JSON), as a job leaves it.")
]


@app.command()
@offline
def show(bundle_file: BundleFile) -> Answer:
    """List the receipts of a bundle: what was counted, what that earns, who signed."""
    bundle = _load(bundle_file)
    receipts = []
    rows = [("job", to_hex(bundle.receipts[0].receipt.job_id) if bundle.receipts else "none")]
    for number, signed in enumerate(bundle.receipts, 1):
        receipt = signed.receipt
        digest = receipt_digest(receipt, bundle.deployment.vault_domain)
        earned = bundle.terms.earned(receipt.records, receipt.epochs)
        signer = _signer(digest, signed.signature)
        receipts.append(
            {
                **receipt.model_dump(mode="json"),
                "digest": to_hex(digest),
                "earned": earned,
                "signer": signer,
            }
        )
        mark = ", complete" if receipt.complete else ""
        rows.append(
            (
                f"receipt {number}",
                f"{receipt.records} records, {receipt.epochs} epochs{mark}: {usdc(earned)}, "
                f"signed by {signer or 'nobody'}",
            )
        )
    return Answer({"receipts": receipts}, tuple(rows))


@app.command("verify")
@offline
def verify_receipts(bundle_file: BundleFile) -> Answer:
    """Check the receipts of a bundle offline: terms, signatures, counters, isolation."""
    return _judged(check_bundle(_load(bundle_file)))


def verify(
    bundle_file: BundleFile,
    rpc: Annotated[
        str | None,
        typer.Option("--rpc", envvar="RAPHA_RPC_URL", help="Ask the chain too, at this endpoint."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The delivered weights, decrypted (safetensors).")
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="The delivered metrics (JSON).")] = None,
    as_json: AsJson = False,
) -> None:
    """Check every claim of a receipt bundle, offline or with any endpoint.

    Exit code 0: all hold; 1: some do not, each is named; 2: could not be told.
    """
    with ending(UNTOLD):
        bundle = _load(bundle_file)
        output = _output(bundle, weights, metrics)
        if rpc is None:
            checks = check_bundle(bundle, output=output)
        else:
            settlement = Settlement(connect(rpc), bundle.deployment)
            checks = check_on_chain(settlement, bundle, output=output)
        answer = _judged(checks)
        if not as_json:
            _table(checks)
            answer = Answer(answer.data, (), holds=answer.holds)
        answer.tell(as_json=as_json)


def _output(bundle: ReceiptBundle, weights: Path | None, metrics: Path | None) -> bytes | None:
    """The output digest of delivered files, with the evidence that the bundle carries."""
    if weights is None and metrics is None:
        return None
    if weights is None or metrics is None:
        raise InvalidInput("a delivery is weights and metrics: give both --weights and --metrics")
    try:
        content, text = weights.read_bytes(), metrics.read_bytes()
        check_nesting(text)
        # signed was the canonical text, whatever people keep
        told = canonical_json(json.loads(text))
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{metrics} is not JSON: {error}") from error
    parts = [hashlib.sha256(part).digest() for part in (content, told)]
    if bundle.output is not None:
        parts.append(hashlib.sha256(bundle.output.evidence.encode()).digest())
    return output_commitment(*parts)


def _load(path: Path) -> ReceiptBundle:
    return load_bundles([path])[0]


def _signer(digest: bytes, signature: bytes) -> str | None:
    try:
        return recover_signer(digest, signature)
    except InvalidSignature:
        return None


def _judged(checks: tuple[Check, ...]) -> Answer:
    holds = all(check.holds for check in checks)
    rows = tuple((("holds" if c.holds else "FAILS"), f"{c.claim}: {c.why}") for c in checks)
    return Answer(
        {"holds": holds, "checks": [check.model_dump(mode="json") for check in checks]},
        rows,
        holds=holds,
    )


def _table(checks: tuple[Check, ...]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED
    table = Table(box=None)
    for title in ("", "claim", "why"):
        table.add_column(title, overflow="fold")
    for check in checks:
        word = Text("holds", "green") if check.holds else Text("FAILS", "bold red")
        table.add_row(word, check.claim, check.why)
    console.print(table)
