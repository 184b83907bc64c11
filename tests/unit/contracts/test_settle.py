"""Cumulative receipts: what is paid, what is refused, and that one stops no other."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import DAY, GRACE, MEASUREMENT, OUTPUT, RICH, World, actor, reverts

from settlement.contracts import MAX_BATCH, Claim, JobState, Outcome
from settlement.eip712 import receipt_digest, sign_digest, vault_domain
from settlement.models import MAX_BUDGET, JobTerms, SignedReceipt
from settlement.reverts import Revert

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
RECORD, EPOCH = 100_000, 1_000_000
PAID, NOTHING_NEW, UNKNOWN_JOB = Outcome.PAID, Outcome.NOTHING_NEW, Outcome.UNKNOWN_JOB
TOO_LATE, ENCLAVE_REFUSED = Outcome.TOO_LATE, Outcome.ENCLAVE_REFUSED
OUTPUT_MISSING = Outcome.OUTPUT_MISSING


@pytest.fixture
def terms(world: World) -> JobTerms:
    """An open job."""
    terms = world.terms()
    world.open(terms)
    return terms


def resign(claim: Claim, change: Callable[[bytes], bytes]) -> Claim:
    signature = change(claim.signed.signature)
    return Claim(claim.terms, SignedReceipt(receipt=claim.signed.receipt, signature=signature))


def assert_unpaid(world: World, terms: JobTerms) -> None:
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert world.earnings().total == 0
    assert world.vault.owed() == terms.budget


# what is paid


def test_records_and_epochs_are_paid_at_their_prices(world: World, terms: JobTerms) -> None:
    assert world.settle(world.claim(terms, 30, 2)) == [PAID]
    amount = 30 * RECORD + 2 * EPOCH
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, amount)
    assert world.earnings().total == amount
    assert world.vault.owed() == terms.budget == world.usdc.balanceOf(world.vault.address)


def test_later_receipt_pays_only_what_is_new(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 30, 1))
    claim = world.claim(terms, 50, 2)
    world.settle(claim)
    digest = receipt_digest(claim.signed.receipt, world.deployment.vault_domain)
    assert world.events(world.vault) == [
        (
            "Settled",
            {
                "job_id": world.job_id(terms),
                "node_id": 1,
                "receipt_digest": digest,
                "records": 50,
                "epochs": 2,
                "amount": 20 * RECORD + EPOCH,
            },
        )
    ]
    assert world.earnings().total == 50 * RECORD + 2 * EPOCH


def test_lost_receipt_is_covered_by_the_next(world: World, terms: JobTerms) -> None:
    world.claim(terms, 30, 1)
    world.settle(world.claim(terms, 60, 2))
    assert world.earnings().total == 60 * RECORD + 2 * EPOCH


def test_more_work_than_the_budget_is_paid_up_to_it(world: World, terms: JobTerms) -> None:
    assert world.settle(world.claim(terms, 1_001, 0)) == [PAID]
    assert world.earnings().total == terms.budget
    assert world.settle(world.claim(terms, 2_000, 9)) == [NOTHING_NEW]
    assert world.earnings().total == terms.budget


def test_greatest_counters_and_prices_do_not_overflow(world: World) -> None:
    top = 2**64 - 1
    world.fund(actor("payer"), MAX_BUDGET)
    terms = world.terms(budget=MAX_BUDGET, price_per_record=top, price_per_epoch=top)
    world.open(terms)
    assert world.settle(world.claim(terms, top, top, complete=True)) == [PAID]
    assert world.state_of(terms) == (JobState.CLOSED, MAX_BUDGET, MAX_BUDGET)
    assert world.earnings().total == MAX_BUDGET


def test_price_of_zero_pays_nothing_until_completion(world: World) -> None:
    terms = world.terms(price_per_record=0, price_per_epoch=0)
    world.open(terms)
    assert world.settle(world.claim(terms, 2**64 - 1, 2**64 - 1)) == [NOTHING_NEW]
    assert world.settle(world.claim(terms, 5, 5, complete=True)) == [PAID]
    assert world.balance("payer") == terms.budget


def test_anyone_may_bring_receipts(world: World, terms: JobTerms) -> None:
    world.vault.settle_many([world.claim(terms, 1).abi_value()], sender=actor("thief").address)
    assert world.earnings().total == RECORD
    world.vault.settle(world.claim(terms, 3).abi_value(), sender=actor("thief").address)
    assert world.earnings().total == 3 * RECORD
    assert world.balance("thief") == 0


def test_empty_batch_changes_nothing(world: World) -> None:
    assert world.settle() == []


# completion


def test_completion_pays_closes_and_credits_the_rest(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 100, 3, complete=True)
    assert world.settle(claim) == [PAID]
    paid = 100 * RECORD + 3 * EPOCH
    settled, closed = world.events(world.vault)
    assert (settled[0], settled[1]["amount"]) == ("Settled", paid)
    assert closed == (
        "JobClosed",
        {
            "job_id": world.job_id(terms),
            "funder": terms.payer,
            "paid": paid,
            "refunded": terms.budget - paid,
            "output_digest": OUTPUT,
        },
    )
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, paid)
    assert world.earnings().total == paid
    assert world.balance("payer") == terms.budget - paid
    assert world.vault.owed() == terms.budget


def test_completion_without_records_returns_everything(world: World, terms: JobTerms) -> None:
    assert world.settle(world.claim(terms, complete=True)) == [PAID]
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, 0)
    assert world.balance("payer") == terms.budget
    assert world.earnings().total == 0


def test_completion_without_output_is_refused(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 10, complete=True, output_digest=bytes(32))
    assert world.settle(claim) == [OUTPUT_MISSING]
    assert world.events(world.vault) == [
        ("ReceiptRefused", {"job_id": world.job_id(terms), "outcome": OUTPUT_MISSING})
    ]
    assert_unpaid(world, terms)


def test_second_completion_is_nothing_new(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 10, complete=True)
    world.settle(claim)
    assert world.settle(claim) == [NOTHING_NEW]
    assert world.settle(world.claim(terms, 500, complete=True)) == [NOTHING_NEW]
    assert world.events(world.vault) == []
    assert world.earnings().total == 10 * RECORD
    assert world.balance("payer") == terms.budget - 10 * RECORD


def test_completing_twice_in_one_batch_closes_once(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 10, complete=True)
    assert world.settle(claim, claim) == [PAID, NOTHING_NEW]
    assert world.earnings().total == 10 * RECORD
    assert world.balance("payer") == terms.budget - 10 * RECORD


def test_completion_with_fewer_counters_takes_nothing_back(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 40))
    assert world.settle(world.claim(terms, 10, complete=True)) == [PAID]
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, 40 * RECORD)
    assert world.earnings().total == 40 * RECORD
    assert world.balance("payer") == terms.budget - 40 * RECORD


def test_nothing_is_paid_after_completion(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 10, complete=True))
    assert world.settle(world.claim(terms, 900)) == [NOTHING_NEW]
    assert world.earnings().total == 10 * RECORD


def test_unfinished_receipt_with_an_output_does_not_close(world: World, terms: JobTerms) -> None:
    assert world.settle(world.claim(terms, 1, output_digest=OUTPUT)) == [PAID]
    assert world.job(terms).state == JobState.ASSIGNED


def test_completion_of_a_fully_paid_job_returns_nothing(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 1_000))
    assert world.settle(world.claim(terms, 1_000, complete=True)) == [PAID]
    assert world.state_of(terms) == (JobState.CLOSED, terms.budget, terms.budget)
    assert world.balance("payer") == 0


# replay and order


def test_replay_pays_nothing(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 30)
    assert [world.settle(claim) for _ in range(3)] == [[PAID], [NOTHING_NEW], [NOTHING_NEW]]
    assert world.events(world.vault) == []
    assert world.earnings().total == 30 * RECORD


def test_duplicates_in_one_batch_pay_once(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 30)
    assert world.settle(claim, claim, claim) == [PAID, NOTHING_NEW, NOTHING_NEW]
    assert world.earnings().total == 30 * RECORD


def test_receipts_in_reverse_order_pay_the_same(world: World, terms: JobTerms) -> None:
    claims = [world.claim(terms, n) for n in (50, 30, 40, 10)]
    assert world.settle(*claims) == [PAID, NOTHING_NEW, NOTHING_NEW, NOTHING_NEW]
    assert world.earnings().total == 50 * RECORD


def test_counters_that_go_backwards_are_ignored(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 30, 1))
    assert world.settle(world.claim(terms, 29, 1), world.claim(terms, 31, 1)) == [NOTHING_NEW, PAID]
    assert world.earnings().total == 31 * RECORD + EPOCH


def test_mixed_counters_are_worth_their_sum(world: World, terms: JobTerms) -> None:
    world.settle(world.claim(terms, 30, 0))
    assert world.settle(world.claim(terms, 0, 3)) == [NOTHING_NEW]
    assert world.settle(world.claim(terms, 0, 4)) == [PAID]
    assert world.earnings().total == 4 * EPOCH


# forged, foreign and malformed


def test_forged_signer_is_refused(world: World, terms: JobTerms) -> None:
    assert world.settle(world.claim(terms, 30, signer=actor("thief"))) == [ENCLAVE_REFUSED]
    assert world.events(world.vault) == [
        ("ReceiptRefused", {"job_id": world.job_id(terms), "outcome": ENCLAVE_REFUSED})
    ]
    assert_unpaid(world, terms)


@pytest.mark.parametrize("name", ["payer", "hospital", "node owner", "guardian", "operator 0"])
def test_no_party_can_sign_in_place_of_the_enclave(
    world: World, terms: JobTerms, name: str
) -> None:
    claim = world.claim(terms, 1_000, complete=True, signer=actor(name))
    assert world.settle(claim) == [ENCLAVE_REFUSED]
    assert_unpaid(world, terms)


def test_malleated_signature_has_no_place_in_two_words(world: World, terms: JobTerms) -> None:
    """EIP-2098 keeps the parity where the upper half of s would begin."""
    claim = world.claim(terms, 30)

    def malleate(low: bytes) -> bytes:
        high = ORDER - int.from_bytes(low[32:64], "big")
        return low[:32] + high.to_bytes(32, "big") + bytes([55 - low[64]])

    assert world.settle(resign(claim, malleate), claim) == [ENCLAVE_REFUSED, PAID]
    assert world.earnings().total == 30 * RECORD


def test_flipped_v_recovers_to_a_stranger(world: World, terms: JobTerms) -> None:
    claim = resign(world.claim(terms, 30), lambda s: s[:64] + bytes([55 - s[64]]))
    assert world.settle(claim) == [ENCLAVE_REFUSED]
    assert_unpaid(world, terms)


@pytest.mark.parametrize(
    "signature",
    [
        bytes(65),
        bytes(64) + b"\x1b",
        b"\xff" * 64 + b"\x1c",
        ORDER.to_bytes(32, "big") * 2 + b"\x1b",
    ],
    ids=["zero", "zero with v", "ones", "order"],
)
def test_unrecoverable_signature_is_refused_and_stops_no_other(
    world: World, terms: JobTerms, signature: bytes
) -> None:
    good = world.claim(terms, 30)
    bad = resign(world.claim(terms, 60), lambda _: signature)
    assert world.settle(good, bad) == [PAID, ENCLAVE_REFUSED]
    assert world.settle(bad) == [ENCLAVE_REFUSED]
    assert world.earnings().total == 30 * RECORD


def test_stale_answer_of_the_signature_check_is_not_reused(world: World, terms: JobTerms) -> None:
    """A failing recovery leaves nothing of the valid one before it."""
    good = world.claim(terms, 30)
    bad = resign(world.claim(terms, 60), lambda _: bytes(65))
    again = world.claim(terms, 70)
    assert world.settle(good, bad, again) == [PAID, ENCLAVE_REFUSED, PAID]
    assert world.earnings().total == 70 * RECORD


@pytest.mark.parametrize(
    "change", ["job_id", "records", "epochs", "records_root", "output_digest", "complete"]
)
def test_receipt_changed_after_signing_is_refused(
    world: World, terms: JobTerms, change: str
) -> None:
    claim = world.claim(terms, 30, 1, output_digest=OUTPUT)
    changes = {
        "job_id": world.job_id(world.terms(99)),
        "records": 31,
        "epochs": 2,
        "records_root": bytes(32),
        "output_digest": bytes(31) + b"\x01",
        "complete": True,
    }
    receipt = claim.signed.receipt.model_copy(update={change: changes[change]})
    forged = Claim(terms, SignedReceipt(receipt=receipt, signature=claim.signed.signature))
    if change == "job_id":
        # the id is not handed in, it follows from the terms: the change has no way to the vault
        assert world.settle(forged) == [PAID]
    else:
        assert world.settle(forged) == [ENCLAVE_REFUSED]
        assert_unpaid(world, terms)


def test_receipt_of_another_job_is_refused(world: World, terms: JobTerms) -> None:
    other = world.terms(1)
    world.open(other)
    signed = world.claim(other, 30).signed
    assert world.settle(Claim(terms, signed)) == [ENCLAVE_REFUSED]
    assert world.job(terms).paid == world.job(other).paid == world.earnings().total == 0


def test_receipt_for_another_vault_is_refused(world: World, terms: JobTerms) -> None:
    other = World.create()
    other.open(terms)
    claim = other.claim(terms, 30)
    assert world.settle(claim) == [ENCLAVE_REFUSED]
    assert other.settle(claim) == [PAID]
    assert_unpaid(world, terms)


def test_receipt_for_another_chain_is_refused(world: World, terms: JobTerms) -> None:
    receipt = world.receipt(terms, 30)
    digest = receipt_digest(receipt, vault_domain(137, world.deployment.vault))
    signature = sign_digest(digest, actor("enclave").key)
    claim = Claim(terms, SignedReceipt(receipt=receipt, signature=signature))
    assert world.settle(claim) == [ENCLAVE_REFUSED]
    assert_unpaid(world, terms)


@pytest.mark.parametrize(
    "field", ["node_id", "price_per_record", "price_per_epoch", "budget", "deadline"]
)
def test_tampered_terms_are_an_unknown_job(world: World, terms: JobTerms, field: str) -> None:
    other = terms.model_copy(update={field: getattr(terms, field) + 1})
    assert world.settle(world.claim(other, 30)) == [UNKNOWN_JOB]
    assert world.events(world.vault) == [
        ("ReceiptRefused", {"job_id": world.job_id(other), "outcome": UNKNOWN_JOB})
    ]
    assert_unpaid(world, terms)


def test_tampered_payer_is_an_unknown_job(world: World, terms: JobTerms) -> None:
    other = terms.model_copy(update={"payer": actor("thief").address})
    assert world.settle(world.claim(other, complete=True)) == [UNKNOWN_JOB]
    assert world.balance("thief") == 0
    assert_unpaid(world, terms)


def test_job_that_was_never_opened_is_unknown(world: World) -> None:
    assert world.settle(world.claim(world.terms(7), 30)) == [UNKNOWN_JOB]
    assert world.earnings().total == 0


# enclave keys


def test_enclave_of_another_node_is_refused(world: World, terms: JobTerms) -> None:
    node = world.register_node(hospital="hospital 2")
    other = actor("enclave 2")
    world.register_enclave(enclave_key=other.address, node_id=node)
    assert world.settle(world.claim(terms, 30, signer=other)) == [ENCLAVE_REFUSED]
    assert_unpaid(world, terms)


def test_key_known_in_the_batch_for_its_own_node_does_not_count_for_another(world: World) -> None:
    """The one validity that is remembered in a batch is of a key and a node together."""
    node = world.register_node(hospital="hospital 2")
    world.register_enclave(enclave_key=actor("enclave 2").address, node_id=node)
    mine, theirs = world.terms(1), world.terms(2, node_id=node)
    world.open(mine)
    world.open(theirs)
    outcomes = world.settle(world.claim(mine, 5), world.claim(theirs, 5))
    assert outcomes == [PAID, ENCLAVE_REFUSED]
    assert (world.earnings().total, world.earnings(node).total) == (5 * RECORD, 0)


def test_two_enclaves_of_one_node_both_count(world: World, terms: JobTerms) -> None:
    second = actor("enclave 2")
    world.register_enclave(enclave_key=second.address)
    claims = [world.claim(terms, 10), world.claim(terms, 20, signer=second), world.claim(terms, 30)]
    assert world.settle(*claims) == [PAID, PAID, PAID]
    assert world.earnings().total == 30 * RECORD


def test_expired_key_is_refused_from_its_expiry_on(world: World) -> None:
    expiry = world.now + 7 * DAY
    terms = world.terms(deadline=world.now + 30 * DAY)
    world.open(terms)
    world.travel_to(expiry - 1)
    assert world.settle(world.claim(terms, 10)) == [PAID]
    world.travel_to(expiry)
    assert world.settle(world.claim(terms, 20)) == [ENCLAVE_REFUSED]
    world.register_enclave()
    assert world.settle(world.claim(terms, 20)) == [PAID]
    assert world.earnings().total == 20 * RECORD


def test_revoked_key_is_refused_at_once(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 30)
    world.enclaves.revoke(actor("enclave").address, sender=actor("guardian").address)
    assert world.settle(claim) == [ENCLAVE_REFUSED]
    assert_unpaid(world, terms)


def test_revoked_measurement_refuses_between_two_batches(world: World, terms: JobTerms) -> None:
    assert world.settle(world.claim(terms, 10)) == [PAID]
    world.enclaves.revoke_measurement(MEASUREMENT, sender=actor("guardian").address)
    claims = [world.claim(terms, 20), world.claim(terms, 30, complete=True)]
    assert world.settle(*claims) == [ENCLAVE_REFUSED, ENCLAVE_REFUSED]
    assert world.job(terms).paid == 10 * RECORD
    world.govern(world.enclaves, "allow_measurement", MEASUREMENT)
    assert world.settle(*claims) == [PAID, PAID]


def test_key_of_a_revoked_measurement_stops_only_itself_in_a_batch(
    world: World, terms: JobTerms
) -> None:
    fresh, key = b"\x02" * 32, actor("enclave 2")
    world.govern(world.enclaves, "allow_measurement", fresh)
    world.register_enclave(enclave_key=key.address, measurement=fresh)
    world.enclaves.revoke_measurement(MEASUREMENT, sender=actor("guardian").address)
    outcomes = world.settle(
        world.claim(terms, 10, signer=key),
        world.claim(terms, 20),
        world.claim(terms, 30, signer=key),
    )
    assert outcomes == [PAID, ENCLAVE_REFUSED, PAID]
    assert world.earnings().total == 30 * RECORD


def test_suspended_nodes_finished_work_is_still_paid(world: World, terms: JobTerms) -> None:
    world.nodes.suspend(1, sender=actor("guardian").address)
    assert world.settle(world.claim(terms, 30, complete=True)) == [PAID]
    assert world.earnings().total == 30 * RECORD


# time


def test_receipt_is_paid_up_to_the_last_second_of_grace(world: World, terms: JobTerms) -> None:
    world.travel_to(terms.deadline + GRACE)
    assert world.settle(world.claim(terms, 30)) == [PAID]
    world.pass_time(1)
    assert world.settle(world.claim(terms, 40)) == [TOO_LATE]
    assert world.events(world.vault) == [
        ("ReceiptRefused", {"job_id": world.job_id(terms), "outcome": TOO_LATE})
    ]
    assert world.settle(world.claim(terms, 40, complete=True)) == [TOO_LATE]
    assert world.earnings().total == 30 * RECORD


def test_refunded_job_pays_nothing_more(world: World, terms: JobTerms) -> None:
    world.travel_to(terms.deadline + GRACE + 1)
    world.refund(terms)
    assert world.settle(world.claim(terms, 30, complete=True)) == [NOTHING_NEW]
    assert world.earnings().total == 0
    assert world.balance("payer") == terms.budget


# batches


def test_bad_receipts_stop_no_good_one(world: World) -> None:
    jobs = [world.terms(n) for n in range(4)]
    for job in jobs[:3]:
        world.open(job)
    outcomes = world.settle(
        world.claim(jobs[0], 10),
        world.claim(jobs[1], 10, signer=actor("thief")),
        world.claim(jobs[3], 10),
        world.claim(jobs[1], 20, complete=True, output_digest=bytes(32)),
        world.claim(jobs[0], 5),
        world.claim(jobs[2], 30, complete=True),
        world.claim(jobs[1], 10),
    )
    assert outcomes == [
        PAID, ENCLAVE_REFUSED, UNKNOWN_JOB, OUTPUT_MISSING, NOTHING_NEW, PAID, PAID,
    ]  # fmt: skip
    names = [name for name, _ in world.events(world.vault)]
    assert names == [
        "Settled", "ReceiptRefused", "ReceiptRefused", "ReceiptRefused", "Settled", "JobClosed",
        "Settled",
    ]  # fmt: skip
    assert [world.job(job).paid for job in jobs[:3]] == [10 * RECORD, 10 * RECORD, 30 * RECORD]
    assert world.earnings().total == 50 * RECORD


def test_interleaved_nodes_are_each_credited_their_own(world: World) -> None:
    second = world.register_node(hospital="hospital 2")
    third = world.register_node(hospital="hospital 3")
    jobs, keys = {}, {1: actor("enclave"), second: actor("enclave 2"), third: actor("enclave 3")}
    for node in (1, second, third):
        if node != 1:
            world.register_enclave(enclave_key=keys[node].address, node_id=node)
        jobs[node] = world.terms(node, node_id=node)
        world.open(jobs[node])
    order = [1, second, 1, 1, third, second, third, 1]
    counters = dict.fromkeys(jobs, 0)
    claims = []
    for step, node in enumerate(order):
        counters[node] += step + 1
        claims.append(world.claim(jobs[node], counters[node], signer=keys[node]))
        if step == 3:  # one bad receipt in the middle of a node's run
            claims.append(world.claim(jobs[node], 900, signer=actor("thief")))
    outcomes = world.settle(*claims)
    assert outcomes.count(PAID) == len(order)
    earned = {node: world.earnings(node).total for node in jobs}
    assert earned == {node: counters[node] * RECORD for node in jobs}


def test_refused_receipt_of_another_node_takes_no_credit_along(world: World) -> None:
    second = world.register_node(hospital="hospital 2")
    mine, theirs = world.terms(1), world.terms(2, node_id=second)
    world.open(mine)
    world.open(theirs)
    world.settle(world.claim(mine, 10), world.claim(theirs, 10), world.claim(mine, 20))
    assert (world.earnings().total, world.earnings(second).total) == (20 * RECORD, 0)


def test_full_batch_of_jobs_is_paid(world: World) -> None:
    jobs = [world.terms(n, budget=2 * RECORD) for n in range(MAX_BATCH)]
    for job in jobs:
        world.open(job)
    outcomes = world.settle(*(world.claim(job, 1, complete=True) for job in jobs))
    assert outcomes == [PAID] * MAX_BATCH
    assert world.earnings().total == MAX_BATCH * RECORD == world.balance("payer")


def test_batch_of_one_too_many_is_no_valid_call(world: World, terms: JobTerms) -> None:
    claim = world.claim(terms, 1)
    with reverts(None):
        world.settle(*[claim] * (MAX_BATCH + 1))
    assert_unpaid(world, terms)


# what USDC does to settling


def test_paused_usdc_does_not_stop_settling(world: World, terms: JobTerms) -> None:
    world.usdc.pause(sender=actor("deployer").address)
    assert world.settle(world.claim(terms, 30, complete=True)) == [PAID]
    assert world.vault.distribute(1, sender=actor("anyone").address) == 30 * RECORD


def test_blacklisted_payers_completion_still_pays_the_hospital(
    world: World, terms: JobTerms
) -> None:
    world.usdc.blacklist(terms.payer, sender=actor("deployer").address)
    assert world.settle(world.claim(terms, 30, complete=True)) == [PAID]
    world.vault.distribute(1, sender=actor("anyone").address)
    world.vault.withdraw(sender=actor("hospital").address)
    assert world.wallet("hospital") == 30 * RECORD * 70 // 100
    assert world.balance("payer") == terms.budget - 30 * RECORD


def test_donation_changes_no_ledger(world: World, terms: JobTerms) -> None:
    world.usdc.transfer(world.vault.address, 5_000, sender=actor("payer").address)
    assert world.vault.owed() == terms.budget
    after = world.terms(1)
    world.open(after)
    assert world.vault.owed() == terms.budget + after.budget
    world.settle(world.claim(terms, 10, complete=True), world.claim(after, complete=True))
    world.vault.distribute(1, sender=actor("anyone").address)
    for name in ("payer", "hospital", "node owner", "onboarder", "protocol"):
        world.vault.withdraw(sender=actor(name).address)
    assert world.vault.owed() == 0
    assert world.usdc.balanceOf(world.vault.address) == 5_000
    assert world.wallet("payer") == RICH - 5_000 - 10 * RECORD


def test_pause_refuses_the_whole_call(world: World, terms: JobTerms) -> None:
    world.vault.pause(sender=actor("guardian").address)
    with reverts(Revert.VAULT_PAUSED):
        world.settle(world.claim(terms, 1))
    assert_unpaid(world, terms)


# any history of receipts


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 10), st.booleans()), min_size=1, max_size=8
    ),
    st.lists(st.integers(0, 7), max_size=12),
)
def test_any_order_and_replay_pays_the_highest_receipt_once(
    counters: list[tuple[int, int, bool]], replays: list[int]
) -> None:
    with World.temporary() as world:
        terms = world.terms(budget=20_000_000)
        world.open(terms)
        claims = [world.claim(terms, r, e, complete=c) for r, e, c in counters]
        history = [*range(len(claims)), *(i % len(claims) for i in replays)]
        paid, closed = 0, False
        for index in history:
            records, epochs, complete = counters[index]
            earned = terms.earned(records, epochs)
            new = not closed and (complete or earned > paid)
            assert world.settle(claims[index]) == [PAID if new else NOTHING_NEW]
            if new:
                paid, closed = max(paid, earned), complete
        refunded = terms.budget - paid if closed else 0
        assert world.earnings().total == paid == world.job(terms).paid
        assert world.balance("payer") == refunded
        assert world.vault.owed() == terms.budget
