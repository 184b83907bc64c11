"""The committee gives a job to a node, where the payer left the choice to it."""

import pytest
from eth_account.signers.local import LocalAccount
from world import COMMITTEE, GRACE, World, actor, reverts

from settlement.contracts import JobState, Outcome, terms_ref
from settlement.models import JobTerms
from settlement.reverts import Revert

FIRST, SECOND, THIRD = COMMITTEE


@pytest.fixture
def terms(world: World) -> JobTerms:
    """A job that waits for a node."""
    terms = world.terms(node_id=0)
    world.open(terms)
    return terms


def assert_waiting(world: World, terms: JobTerms) -> None:
    assert world.state_of(terms) == (JobState.OPEN, terms.budget, 0)
    assert world.job(terms).node_id == 0


def test_committee_gives_the_job_to_a_node(world: World, terms: JobTerms) -> None:
    second = world.register_node(hospital="hospital 2")
    world.assign(terms, second)
    assert world.events(world.vault) == [
        ("JobAssigned", {"job_id": world.job_id(terms), "node_id": second})
    ]
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
    assert world.job(terms).node_id == second
    assert world.vault.owed() == terms.budget


def test_assigned_job_pays_its_node_under_the_payers_terms(world: World, terms: JobTerms) -> None:
    """The terms keep node zero: who worked is in the ledger, and the job id does not change."""
    world.assign(terms)
    assert world.settle_one(world.claim(terms, 10)) == Outcome.PAID
    assert world.earnings().total == 1_000_000
    assert world.settle_one(world.claim(terms, 10, complete=True)) == Outcome.PAID
    assert world.balance("payer") == terms.budget - 1_000_000


def test_only_the_assigned_nodes_enclave_counts(world: World, terms: JobTerms) -> None:
    second = world.register_node(hospital="hospital 2")
    world.register_enclave(enclave_key=actor("enclave 2").address, node_id=second)
    world.assign(terms, second)
    assert world.settle_one(world.claim(terms, 10)) == Outcome.ENCLAVE_REFUSED
    claim = world.claim(terms, 10, signer=actor("enclave 2"))
    assert world.settle_one(claim) == Outcome.PAID
    assert (world.earnings(1).total, world.earnings(second).total) == (0, 1_000_000)


def test_receipt_before_the_assignment_pays_nothing_and_counts_after_it(
    world: World, terms: JobTerms
) -> None:
    claim = world.claim(terms, 10)
    assert world.settle_one(claim) == Outcome.NOT_ASSIGNED
    assert world.events(world.vault) == [
        ("ReceiptRefused", {"job_id": world.job_id(terms), "outcome": Outcome.NOT_ASSIGNED})
    ]
    assert_waiting(world, terms)
    world.assign(terms)
    assert world.settle_one(claim) == Outcome.PAID


def test_completion_of_an_unassigned_job_is_refused(world: World, terms: JobTerms) -> None:
    assert world.settle_one(world.claim(terms, complete=True)) == Outcome.NOT_ASSIGNED
    assert_waiting(world, terms)


@pytest.mark.parametrize("name", ["payer", "thief", "guardian", "hospital"])
def test_anyone_brings_what_the_committee_signed(world: World, terms: JobTerms, name: str) -> None:
    signatures = world.assignment(terms)
    world.vault.assign(terms_ref(terms), 1, signatures, sender=actor(name).address)
    assert world.job(terms).node_id == 1


@pytest.mark.parametrize(
    ("signers", "reason"),
    [
        ([], Revert.COMMITTEE_TOO_FEW_SIGNATURES),
        ([FIRST], Revert.COMMITTEE_TOO_FEW_SIGNATURES),
        ([SECOND, FIRST], Revert.COMMITTEE_SIGNATURES_NOT_SORTED),
        ([FIRST, FIRST], Revert.COMMITTEE_SIGNATURES_NOT_SORTED),
        ([FIRST, actor("thief")], Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER),
        ([actor("payer"), SECOND], Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER),
        ([FIRST, SECOND, actor("enclave")], Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER),
    ],
    ids=["none", "one", "unsorted", "twice", "stranger", "payer", "one too many"],
)
def test_anything_but_a_quorum_of_members_is_refused(
    world: World, terms: JobTerms, signers: list[LocalAccount], reason: Revert
) -> None:
    with reverts(reason):
        world.assign(terms, 1, world.assignment(terms, signers=signers))
    assert_waiting(world, terms)


def test_signatures_of_the_wrong_length_are_refused(world: World, terms: JobTerms) -> None:
    good = world.assignment(terms)
    for signatures in (good[:-1], good + b"\x00", good[1:]):
        with reverts(Revert.COMMITTEE_SIGNATURES_NOT_OF_65_BYTES):
            world.assign(terms, 1, signatures)
    assert_waiting(world, terms)


def test_signatures_for_another_node_are_refused(world: World, terms: JobTerms) -> None:
    second = world.register_node(hospital="hospital 2")
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.assign(terms, second, world.assignment(terms, 1))
    assert_waiting(world, terms)


def test_signatures_for_another_job_are_refused(world: World, terms: JobTerms) -> None:
    other = world.terms(1, node_id=0)
    world.open(other)
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.assign(terms, 1, world.assignment(other))
    assert_waiting(world, terms)


@pytest.mark.parametrize("epoch", [0, 2])
def test_signatures_of_another_epoch_are_refused(world: World, terms: JobTerms, epoch: int) -> None:
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.assign(terms, 1, world.assignment(terms, epoch=epoch))
    assert_waiting(world, terms)


def test_new_committee_voids_what_the_old_one_signed(world: World, terms: JobTerms) -> None:
    old = world.assignment(terms)
    world.govern(world.enclaves, "set_committee", world.enclaves.committee())
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.assign(terms, 1, old)
    world.assign(terms)
    assert world.job(terms).node_id == 1


def test_signatures_for_another_vault_are_refused(world: World, terms: JobTerms) -> None:
    other = world.create_vault()
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.assign(terms, 1, other.assignment(terms))
    assert_waiting(world, terms)


def test_job_is_assigned_once(world: World, terms: JobTerms) -> None:
    second = world.register_node(hospital="hospital 2")
    world.assign(terms)
    for node in (1, second):
        with reverts(Revert.VAULT_JOB_IS_NOT_UNASSIGNED):
            world.assign(terms, node)
    assert world.job(terms).node_id == 1


def test_job_whose_payer_chose_the_node_is_not_assigned(world: World) -> None:
    terms = world.terms()
    world.open(terms)
    second = world.register_node(hospital="hospital 2")
    with reverts(Revert.VAULT_JOB_IS_NOT_UNASSIGNED):
        world.assign(terms, second)


def test_job_that_is_over_or_never_was_is_not_assigned(world: World, terms: JobTerms) -> None:
    world.cancel(terms)
    for item in (terms, world.terms(1, node_id=0)):
        with reverts(Revert.VAULT_JOB_IS_NOT_UNASSIGNED):
            world.assign(item)


@pytest.mark.parametrize("stop", ["unknown", "suspended", "retired", "zero"])
def test_node_that_takes_no_jobs_is_refused(world: World, terms: JobTerms, stop: str) -> None:
    node, signatures = 1, world.assignment(terms)
    if stop == "unknown":
        node, signatures = 2, world.assignment(terms, 2)
    elif stop == "suspended":
        world.nodes.suspend(1, sender=actor("guardian").address)
    elif stop == "retired":
        world.nodes.retire(1, sender=actor("hospital").address)
    else:
        node = 0
    with reverts(Revert.VAULT_NODE_IS_NOT_ACTIVE):
        world.assign(terms, node, signatures)
    assert_waiting(world, terms)


def test_job_is_assigned_to_the_second_of_its_deadline(world: World, terms: JobTerms) -> None:
    other = world.terms(1, node_id=0)
    world.open(other)
    world.travel_to(terms.deadline)
    world.assign(terms)
    world.pass_time(1)
    with reverts(Revert.VAULT_DEADLINE_HAS_PASSED):
        world.assign(other)
    world.travel_to(other.deadline + GRACE + 1)
    assert world.refund(other) == other.budget
