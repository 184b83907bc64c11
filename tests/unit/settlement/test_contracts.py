"""What goes to the contracts and what they answer, as Python sees it."""

from eth_account import Account
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from settlement.contracts import Claim, Earnings, JobState, JobStatus, order, terms_ref
from settlement.eip712 import sign_digest, work_digest
from settlement.models import JobTerms, Receipt, SignedReceipt, Work

WINDOW = 3_600
PAYER = Account.from_key(keccak(text="payer")).address
WORK = Work(
    model_digest=b"\x01" * 32,
    dataset_digest=b"\x02" * 32,
    policy_digest=b"\x03" * 32,
    result_key_digest=b"\x04" * 32,
)
TERMS = JobTerms(
    payer=PAYER,
    node_id=1,
    price_per_record=2,
    price_per_epoch=3,
    budget=4,
    deadline=5,
    work=WORK,
    salt=b"\x05" * 32,
)


def status(**changes: int) -> JobStatus:
    fields = {"period": 10, "earlier": 3, "fresh": 5, "paid": 20, "funded": 50, **changes}
    return JobStatus(state=JobState.ASSIGNED, sponsored=False, node_id=1, version=0, **fields)


@given(st.binary(min_size=32, max_size=32), st.booleans())
def test_a_claim_s_signature_is_two_words_that_hold_the_whole(digest: bytes, done: bool) -> None:
    """EIP-2098: the top bit of the second word is v."""
    receipt = Receipt(
        job_id=bytes(32),
        records=7,
        epochs=8,
        records_root=b"\x06" * 32,
        output_digest=bytes(32),
        complete=done,
    )
    signature = sign_digest(digest, keccak(text="enclave"))
    claim = Claim(TERMS, SignedReceipt(receipt=receipt, signature=signature)).abi_value()
    terms, records, epochs, root, output, complete, r, vs = claim
    words = [int(PAYER, 16), 1, 2, 3, 4, 5, int(work_digest(WORK).hex(), 16), int("05" * 32, 16)]
    assert terms == words
    assert (records, epochs, root, output) == (7, 8, b"\x06" * 32, bytes(32))
    assert complete == int(done)
    assert type(complete) is int
    s, v = vs & (2**255 - 1), 27 + (vs >> 255)
    assert r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v]) == signature


def test_an_order_is_the_terms_without_their_payer() -> None:
    work = tuple(bytes([i]) * 32 for i in range(1, 5))
    assert order(TERMS) == (1, 2, 3, 4, 5, work, b"\x05" * 32)


def test_terms_are_referred_to_with_their_work_by_its_hash() -> None:
    assert terms_ref(TERMS) == (PAYER, 1, 2, 3, 4, 5, work_digest(WORK), b"\x05" * 32)


def test_what_can_be_disputed_shrinks_with_each_period() -> None:
    job = status()
    assert job.disputable(10 * WINDOW, WINDOW) == 8
    assert job.disputable(11 * WINDOW - 1, WINDOW) == 8
    assert job.disputable(11 * WINDOW, WINDOW) == 5
    assert job.disputable(12 * WINDOW - 1, WINDOW) == 5
    assert job.disputable(12 * WINDOW, WINDOW) == 0


def test_without_a_challenge_window_nothing_can_be_disputed() -> None:
    assert status().disputable(0, 0) == 0


def test_a_node_s_total_is_what_has_matured_and_what_has_not() -> None:
    earnings = Earnings(matured=100, fresh=20, earlier=3, version=0, period=7, disputes=1)
    assert earnings.total == 123
