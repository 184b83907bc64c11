"""`rapha verify` offline: a bundle, and the files that were delivered."""

import hashlib
import json
from pathlib import Path

import pytest
from eth_account import Account
from eth_utils import keccak
from typer.testing import CliRunner

from oracle.commands.rapha import app
from scripts.vectors import account, terms
from settlement.deployment import Deployment
from settlement.digests import canonical_json, output_digest
from settlement.eip712 import job_id, receipt_digest, sign_digest
from settlement.models import Receipt, SignedReceipt
from settlement.verify import Output, ReceiptBundle

WEIGHTS = b"safetensors"
METRICS = {"holdout_accuracy": 0.9823008849557522, "loss": [1e-07, 1.0]}
EVIDENCE = '{"isolation":"NONE-DEVELOPMENT-ONLY"}'
DEPLOYMENT = Deployment(
    chain_id=31337,
    block=1,
    grace_period=3600,
    **{
        name: Account.from_key(keccak(text=name)).address
        for name in ("vault", "node_registry", "enclave_registry", "timelock", "usdc")
    },
)


def bundle_of() -> ReceiptBundle:
    """The bundle of a job that one receipt completed."""
    metrics = canonical_json(METRICS)
    receipt = Receipt(
        job_id=job_id(terms(), DEPLOYMENT.vault_domain),
        records=10,
        epochs=1,
        records_root=bytes(32),
        output_digest=output_digest(WEIGHTS, metrics, EVIDENCE.encode()),
        complete=True,
    )
    digest = receipt_digest(receipt, DEPLOYMENT.vault_domain)
    signature = sign_digest(digest, account("enclave").key)
    return ReceiptBundle(
        deployment=DEPLOYMENT,
        terms=terms(),
        enclave_key=account("enclave").address,
        receipts=(SignedReceipt(receipt=receipt, signature=signature),),
        transactions=(),
        output=Output(
            weights=hashlib.sha256(WEIGHTS).digest(),
            metrics=hashlib.sha256(metrics).digest(),
            evidence=EVIDENCE,
        ),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a job leaves: the bundle, the weights, and metrics as people keep them."""
    (tmp_path / "receipts.json").write_text(bundle_of().model_dump_json())
    (tmp_path / "weights").write_bytes(WEIGHTS)
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS, indent=2))
    return tmp_path


def verdicts(folder: Path) -> tuple[int, set[str]]:
    """Exit code, and the claims that do not hold."""
    command = ["verify", str(folder / "receipts.json"), "--json"]
    command += ["--weights", str(folder / "weights"), "--metrics", str(folder / "metrics.json")]
    result = CliRunner().invoke(app, command)
    checks = json.loads(result.stdout)["checks"]
    return result.exit_code, {check["claim"] for check in checks if not check["holds"]}


def test_delivery_is_what_the_enclave_signed(folder: Path) -> None:
    assert verdicts(folder) == (1, {"the job trained without a network"})


@pytest.mark.parametrize("file", ["weights", "metrics.json"])
def test_other_files_are_not(folder: Path, file: str) -> None:
    (folder / file).write_text('{"other": 1}')
    assert "the delivery is the enclave's output" in verdicts(folder)[1]


def test_metrics_that_are_no_json_are_named(folder: Path) -> None:
    (folder / "metrics.json").write_text("{")
    command = ["verify", str(folder / "receipts.json"), "--weights", str(folder / "weights")]
    result = CliRunner().invoke(app, [*command, "--metrics", str(folder / "metrics.json")])
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (2, "InvalidInput")
    alone = CliRunner().invoke(app, command)
    assert "give both --weights and --metrics" in json.loads(alone.stderr)["detail"]
