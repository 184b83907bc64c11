"""A dispute freezes what one job has freshly earned, and nothing else."""

import pytest
from world import ARBITRATION, World, actor, reverts

from settlement.contracts import JobState, Outcome, terms_ref
from settlement.models import JobTerms
from settlement.reverts import Revert

WINDOW = 3_600
RECORD = 100_000


@pytest.fixture
def terms(windowed: World) -> JobTerms:
    """A job that has freshly earned 3 USDC."""
    terms = windowed.terms()
    windowed.open(terms)
    windowed.settle(windowed.claim(terms, 30))
    return terms


def test_dispute_takes_the_fresh_amount_out_of_the_nodes_earnings(
    windowed: World, terms: JobTerms
) -> None:
    assert windowed.dispute(terms) == 1
    until = windowed.now + ARBITRATION
    assert windowed.events(windowed.vault) == [
        (
            "Disputed",
            {
                "dispute_id": 1,
                "job_id": windowed.job_id(terms),
                "disputer": terms.payer,
                "version": 0,
                "amount": 30 * RECORD,
                "answer_until": until,
            },
        )
    ]
    earnings, job = windowed.earnings(), windowed.job(terms)
    assert (earnings.total, earnings.disputes) == (0, 1)
    assert (job.fresh, job.earlier, job.paid) == (0, 0, 30 * RECORD)
    assert tuple(windowed.vault.disputes(1)) == (terms.payer, 1, 0, 30 * RECORD, until)
    assert windowed.vault.dispute_count() == 1
    assert windowed.vault.owed() == terms.budget
    windowed.pass_time(5 * WINDOW)
    assert windowed.distribute() == 0


def test_other_jobs_of_the_node_are_unaffected(windowed: World, terms: JobTerms) -> None:
    other = windowed.terms(1)
    windowed.open(other)
    windowed.settle(windowed.claim(other, 20))
    windowed.dispute(terms)
    assert windowed.earnings().fresh == 20 * RECORD
    assert windowed.job(other).fresh == 20 * RECORD
    windowed.pass_time(2 * WINDOW)
    assert windowed.distribute() == 20 * RECORD
    assert windowed.balance("hospital") == 14 * RECORD


def test_other_nodes_are_unaffected(windowed: World, terms: JobTerms) -> None:
    second = windowed.register_node(hospital="hospital 2")
    windowed.register_enclave(enclave_key=actor("enclave 2").address, node_id=second)
    other = windowed.terms(1, node_id=second)
    windowed.open(other)
    windowed.settle(windowed.claim(other, 20, signer=actor("enclave 2")))
    windowed.dispute(terms)
    assert (windowed.earnings(1).total, windowed.earnings(second).total) == (0, 20 * RECORD)
    assert windowed.earnings(second).disputes == 0


def test_only_what_has_not_matured_is_frozen(windowed: World, terms: JobTerms) -> None:
    windowed.pass_time(WINDOW)
    windowed.settle(windowed.claim(terms, 50))
    windowed.pass_time(WINDOW)
    windowed.settle(windowed.claim(terms, 57))
    windowed.dispute(terms)
    assert windowed.events(windowed.vault)[0][1]["amount"] == 27 * RECORD
    earnings = windowed.earnings()
    assert (earnings.matured, earnings.fresh, earnings.earlier) == (30 * RECORD, 0, 0)
    assert windowed.distribute() == 30 * RECORD


def test_earlier_period_alone_can_be_disputed(windowed: World, terms: JobTerms) -> None:
    windowed.pass_time(2 * WINDOW - 1)
    windowed.dispute(terms)
    assert windowed.events(windowed.vault)[0][1]["amount"] == 30 * RECORD
    assert windowed.earnings().total == 0


def test_matured_earnings_cannot_be_disputed(windowed: World, terms: JobTerms) -> None:
    windowed.pass_time(2 * WINDOW)
    with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
        windowed.dispute(terms)
    assert windowed.distribute() == 30 * RECORD


@pytest.mark.parametrize("name", ["payer", "guardian"])
def test_payer_and_guardian_may(windowed: World, terms: JobTerms, name: str) -> None:
    windowed.dispute(terms, by=name)
    assert windowed.events(windowed.vault)[0][1]["disputer"] == actor(name).address
    windowed.resolve(1, 30 * RECORD)
    assert windowed.balance("payer") == 30 * RECORD
    assert windowed.balance("guardian") == 0


def test_sponsor_and_payer_may_both_dispute_a_sponsored_job(windowed: World) -> None:
    windowed.fund(actor("sponsor"))
    terms = windowed.terms(1)
    windowed.sponsor(terms)
    for records, by in ((10, "sponsor"), (25, "payer")):
        windowed.settle(windowed.claim(terms, records))
        windowed.dispute(terms, by=by)
    assert windowed.vault.disputes(1)[0] == windowed.vault.disputes(2)[0]
    assert windowed.vault.disputes(2)[0] == actor("sponsor").address
    assert windowed.vault.disputes(2)[3] == 15 * RECORD


@pytest.mark.parametrize(
    "name", ["thief", "hospital", "node owner", "arbiter", "registrar", "sponsor", "operator 0"]
)
def test_nobody_else_may(windowed: World, terms: JobTerms, name: str) -> None:
    with reverts(Revert.VAULT_CALLER_CANNOT_DISPUTE):
        windowed.dispute(terms, by=name)
    with reverts(Revert.VAULT_CALLER_CANNOT_DISPUTE):
        windowed.vault.dispute(terms_ref(terms), 0, sender=windowed.deployment.timelock)
    assert windowed.earnings().fresh == 30 * RECORD


def test_empty_post_of_guardian_lets_nobody_more_dispute(windowed: World, terms: JobTerms) -> None:
    windowed.govern(windowed.vault, "set_guardian", "0x" + "00" * 20)
    with reverts(Revert.VAULT_CALLER_CANNOT_DISPUTE):
        windowed.dispute(terms, by="guardian")


def test_second_dispute_of_the_same_earnings_finds_nothing(
    windowed: World, terms: JobTerms
) -> None:
    windowed.dispute(terms)
    for name in ("payer", "guardian"):
        with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
            windowed.dispute(terms, by=name)
    assert windowed.vault.dispute_count() == 1


def test_later_receipts_are_fresh_again_and_the_disputed_ones_replay_pays_nothing(
    windowed: World, terms: JobTerms
) -> None:
    disputed = windowed.claim(terms, 30)
    windowed.dispute(terms)
    assert windowed.settle_one(disputed) == Outcome.NOTHING_NEW
    assert windowed.settle_one(windowed.claim(terms, 45)) == Outcome.PAID
    assert windowed.earnings().fresh == 15 * RECORD == windowed.job(terms).fresh
    windowed.resolve(1, 30 * RECORD)
    for claim in (disputed, windowed.claim(terms, 45)):
        assert windowed.settle_one(claim) == Outcome.NOTHING_NEW
    assert windowed.job(terms).paid == 45 * RECORD
    assert windowed.dispute(terms) == 2
    assert windowed.vault.disputes(2)[3] == 15 * RECORD


def test_closed_jobs_fresh_earnings_can_be_disputed(windowed: World, terms: JobTerms) -> None:
    windowed.settle(windowed.claim(terms, 40, complete=True))
    assert windowed.job(terms).state == JobState.CLOSED
    windowed.dispute(terms)
    assert windowed.vault.disputes(1)[3] == 40 * RECORD
    assert windowed.state_of(terms) == (JobState.CLOSED, terms.budget, 40 * RECORD)
    windowed.resolve(1, 25 * RECORD)
    assert windowed.balance("payer") == terms.budget - 40 * RECORD + 25 * RECORD
    assert windowed.earnings().matured == 15 * RECORD
    assert windowed.settle_one(windowed.claim(terms, 90)) == Outcome.NOTHING_NEW


def test_cancelled_jobs_fresh_earnings_can_be_disputed(windowed: World, terms: JobTerms) -> None:
    windowed.cancel(terms)
    windowed.dispute(terms)
    assert windowed.job(terms).state == JobState.CANCELLING
    assert windowed.settle_one(windowed.claim(terms, 31)) == Outcome.PAID


@pytest.mark.parametrize("field", ["budget", "deadline", "price_per_record", "salt"])
def test_tampered_terms_have_nothing_to_dispute(
    windowed: World, terms: JobTerms, field: str
) -> None:
    value = b"\x01" * 32 if field == "salt" else getattr(terms, field) + 1
    with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
        windowed.dispute(terms.model_copy(update={field: value}))


def test_stranger_naming_itself_the_payer_finds_nothing(windowed: World, terms: JobTerms) -> None:
    own = terms.model_copy(update={"payer": actor("thief").address})
    with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
        windowed.dispute(own, by="thief")


@pytest.mark.parametrize("version", [1, 2**24, 2**256 - 1])
def test_version_that_never_was_has_nothing_to_dispute(
    windowed: World, terms: JobTerms, version: int
) -> None:
    with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
        windowed.dispute(terms, version)
    assert windowed.earnings().fresh == 30 * RECORD


def test_job_that_earned_nothing_has_nothing_to_dispute(windowed: World) -> None:
    terms = windowed.terms(1)
    windowed.open(terms)
    for item in (terms, windowed.terms(2), windowed.terms(3, node_id=0)):
        with reverts(Revert.VAULT_NOTHING_TO_DISPUTE):
            windowed.dispute(item)


def test_disputes_are_counted_across_jobs(windowed: World, terms: JobTerms) -> None:
    other = windowed.terms(1)
    windowed.open(other)
    windowed.settle(windowed.claim(other, 5))
    assert (windowed.dispute(terms), windowed.dispute(other)) == (1, 2)
    assert windowed.earnings().disputes == 2
    windowed.resolve(1, 0)
    assert windowed.earnings().disputes == 1


def test_two_hour_window_waits_as_long() -> None:
    with World.temporary(window=2 * WINDOW) as world:
        world.start_period()
        terms = world.terms()
        world.open(terms)
        world.settle(world.claim(terms, 30))
        world.pass_time(4 * WINDOW - 1)
        world.dispute(terms)
        world.resolve(1, 0)
        assert world.distribute() == 30 * RECORD
