"""The evidence of a job's isolation, as a receipt bundle carries it."""

import hashlib
import json
from typing import Any

import pytest
from eth_account import Account
from eth_utils import keccak

from settlement.deployment import Deployment
from settlement.digests import output_digest
from settlement.eip712 import job_id, receipt_digest, sign_digest
from settlement.models import JobTerms, Receipt, SignedReceipt, Work
from settlement.verify import ISOLATED, Output, ReceiptBundle, check_bundle

SIGNED = "the evidence of isolation is under the enclave's signature"
ENCLAVE = Account.from_key(keccak(text="enclave"))
DEPLOYMENT = Deployment(
    chain_id=31337,
    block=1,
    grace_period=3600,
    **{
        name: Account.from_key(keccak(text=name)).address
        for name in ("vault", "node_registry", "enclave_registry", "timelock", "usdc")
    },
)
TERMS = JobTerms(
    payer=ENCLAVE.address,
    node_id=1,
    price_per_record=10,
    price_per_epoch=100,
    budget=10_000,
    deadline=2_000_000_000,
    work=Work(
        model_digest=bytes(32),
        dataset_digest=bytes(32),
        policy_digest=bytes(32),
        result_key_digest=bytes(32),
    ),
    salt=bytes(32),
)
WEIGHTS, METRICS = b"weights", b"{}"
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
SOUND: dict[str, Any] = {
    "isolation": "bubblewrap",
    "namespaces": {name: {"node": 1, "job": 2} for name in KINDS},
    "network": {"interfaces": ["lo"], "routes": []},
    "seccomp": {"mode": 2},
    "capabilities": 0,
    "no_new_privileges": True,
}


def verdicts(evidence: str, *, shown: str | None = None) -> dict[str, tuple[bool, str]]:
    """What is found of a bundle whose enclave signed `evidence`, and which shows it, or another."""
    receipt = Receipt(
        job_id=job_id(TERMS, DEPLOYMENT.vault_domain),
        records=1,
        epochs=1,
        records_root=bytes(32),
        output_digest=output_digest(WEIGHTS, METRICS, evidence.encode()),
        complete=True,
    )
    digest = receipt_digest(receipt, DEPLOYMENT.vault_domain)
    bundle = ReceiptBundle(
        deployment=DEPLOYMENT,
        terms=TERMS,
        enclave_key=ENCLAVE.address,
        receipts=(SignedReceipt(receipt=receipt, signature=sign_digest(digest, ENCLAVE.key)),),
        transactions=(),
        output=Output(
            weights=hashlib.sha256(WEIGHTS).digest(),
            metrics=hashlib.sha256(METRICS).digest(),
            evidence=evidence if shown is None else shown,
        ),
    )
    again = ReceiptBundle.model_validate_json(bundle.model_dump_json())
    return {check.claim: (check.holds, check.why) for check in check_bundle(again)}


def test_sound_evidence_under_the_signature_holds() -> None:
    found = verdicts(json.dumps(SOUND))
    digest = hashlib.sha256(json.dumps(SOUND).encode()).hexdigest()
    assert found[SIGNED] == (True, f"0x{digest}")
    assert found[ISOLATED][0] is True


def test_other_evidence_than_signed_is_named() -> None:
    changed = json.dumps({**SOUND, "kernel": "another"})
    assert verdicts(json.dumps(SOUND), shown=changed)[SIGNED] == (
        False,
        "it is not part of what the last receipt commits to",
    )


def test_a_development_machine_is_never_taken_for_a_sandbox() -> None:
    evidence = json.dumps({**SOUND, "isolation": "NONE-DEVELOPMENT-ONLY"})
    assert verdicts(evidence)[ISOLATED] == (False, "its isolation is NONE-DEVELOPMENT-ONLY")


@pytest.mark.parametrize("name", ["net", "mnt", "pid", "user", "ipc", "uts"])
def test_a_shared_namespace_is_named(name: str) -> None:
    shared = {**SOUND["namespaces"], name: {"node": 1, "job": 1}}
    evidence = json.dumps({**SOUND, "namespaces": shared})
    assert verdicts(evidence)[ISOLATED] == (False, f"it shared the node's namespaces: {name}")


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"interfaces": ["eth0", "lo"], "routes": []}},
        {"network": {"interfaces": ["lo"], "routes": ["eth0"]}},
        {"seccomp": {"mode": 0}},
        {"capabilities": 1},
        {"no_new_privileges": False},
    ],
)
def test_a_network_a_privilege_or_no_filter_is_named(change: dict[str, Any]) -> None:
    assert verdicts(json.dumps({**SOUND, **change}))[ISOLATED] == (
        False,
        "the evidence shows a network, privileges, or no filter",
    )


@pytest.mark.parametrize(
    "evidence", ["", "[]", "null", "{}", "[" * 100_000, '{"isolation": "bubblewrap"}']
)
def test_unreadable_evidence_shows_nothing(evidence: str) -> None:
    assert verdicts(evidence)[ISOLATED] == (False, "the evidence is not readable")


def test_a_bundle_that_says_nothing_is_not_judged() -> None:
    bundle = ReceiptBundle(
        deployment=DEPLOYMENT,
        terms=TERMS,
        enclave_key=ENCLAVE.address,
        receipts=(),
        transactions=(),
    )
    assert not {SIGNED, ISOLATED} & {check.claim for check in check_bundle(bundle)}
