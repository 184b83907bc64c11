from typing import Any

import pytest
from eth_account import Account
from eth_utils import keccak

from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, sign_digest
from settlement.models import JobTerms, Receipt, SignedReceipt, Work
from settlement.verify import BundleRefused, ReceiptBundle, check_bundle, verify_bundle

ENCLAVE = Account.from_key(keccak(text="enclave"))
OUTPUT = keccak(text="output")
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
    payer=Account.from_key(keccak(text="payer")).address,
    node_id=1,
    price_per_record=10,
    price_per_epoch=100,
    budget=10_000,
    deadline=2_000_000_000,
    work=Work(
        model_digest=keccak(text="model"),
        dataset_digest=keccak(text="dataset"),
        policy_digest=keccak(text="policy"),
        result_key_digest=keccak(text="key"),
    ),
    salt=bytes(32),
)


def signed(records: int, epochs: int, *, key: bytes = ENCLAVE.key, **changes: Any) -> SignedReceipt:
    fields: dict[str, Any] = {
        "job_id": job_id(TERMS, DEPLOYMENT.vault_domain),
        "records": records,
        "epochs": epochs,
        "records_root": keccak(text=f"root {records}"),
        "output_digest": bytes(32),
        "complete": False,
    }
    receipt = Receipt(**{**fields, **changes})
    digest = receipt_digest(receipt, DEPLOYMENT.vault_domain)
    return SignedReceipt(receipt=receipt, signature=sign_digest(digest, key))


FIRST, LAST = signed(50, 1), signed(100, 4, complete=True, output_digest=OUTPUT)


def bundle(*receipts: SignedReceipt, **changes: Any) -> ReceiptBundle:
    fields: dict[str, Any] = {
        "deployment": DEPLOYMENT,
        "terms": TERMS,
        "enclave_key": ENCLAVE.address,
        "receipts": receipts,
        "transactions": (),
    }
    return ReceiptBundle(**{**fields, **changes})


def refused(claim: ReceiptBundle, **facts: Any) -> list[str]:
    with pytest.raises(BundleRefused) as error:
        verify_bundle(claim, **facts)
    return [check.claim for check in error.value.failed]


def test_an_honest_bundle_passes_every_check() -> None:
    checks = verify_bundle(bundle(FIRST, LAST), output=OUTPUT, paid=1_400)
    assert [check.holds for check in checks] == [True] * 6


def test_a_bundle_survives_its_json() -> None:
    honest = bundle(FIRST, LAST)
    assert ReceiptBundle.model_validate_json(honest.model_dump_json()) == honest


def test_a_receipt_of_another_job_is_named() -> None:
    foreign = signed(50, 1, job_id=keccak(text="another job"))
    assert refused(bundle(foreign, LAST)) == ["every receipt is for these terms"]


def test_changed_terms_no_longer_fit_their_receipts() -> None:
    dearer = TERMS.model_copy(update={"price_per_record": 11})
    assert refused(bundle(FIRST, LAST, terms=dearer)) == ["every receipt is for these terms"]


def test_a_forged_receipt_is_named() -> None:
    forged = signed(50, 1, key=keccak(text="thief"))
    assert refused(bundle(forged, LAST)) == ["every receipt is signed by the enclave"]


def test_a_signature_of_nobody_is_named() -> None:
    broken = FIRST.model_copy(update={"signature": bytes(65)})
    assert refused(bundle(broken, LAST)) == ["every receipt is signed by the enclave"]


def test_falling_counters_are_named() -> None:
    falling = signed(200, 1)
    assert refused(bundle(falling, LAST)) == ["the counters never fall"]


def test_a_bundle_without_completion_is_named() -> None:
    assert refused(bundle(FIRST)) == ["the last receipt completes the job"]
    assert refused(bundle()) == ["the last receipt completes the job"]


def test_another_output_than_signed_is_named() -> None:
    other = keccak(text="other weights")
    assert refused(bundle(FIRST, LAST), output=other) == ["the delivery is the enclave's output"]


def test_another_payment_than_earned_is_named_with_both_amounts() -> None:
    claim = bundle(FIRST, LAST)
    assert refused(claim, paid=1_399) == ["what was earned was paid"]
    why = check_bundle(claim, paid=1_399)[-1].why
    assert why == "0.0014 USDC earned, 0.001399 paid"


def test_what_is_earned_is_capped_at_the_budget() -> None:
    much = signed(5_000, 4, complete=True, output_digest=OUTPUT)
    verify_bundle(bundle(much), output=OUTPUT, paid=TERMS.budget)


def test_a_top_up_raises_what_can_be_earned() -> None:
    much = signed(5_000, 4, complete=True, output_digest=OUTPUT)
    claim = bundle(much)
    verify_bundle(claim, paid=30_000, funded=30_000)
    verify_bundle(claim, paid=50_400, funded=60_000)
    assert refused(claim, paid=30_000) == ["what was earned was paid"]
    assert refused(claim, paid=TERMS.budget, funded=30_000) == ["what was earned was paid"]
