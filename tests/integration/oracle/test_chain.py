"""The oracle's view of the real contracts on anvil."""

import pytest
from anvil import DAY, MEASUREMENT, OUTPUT, Chain, key
from eth_account.signers.local import LocalAccount
from eth_utils import keccak

from oracle.chain import RpcChain
from oracle.errors import ChainUnavailable, Delivery
from oracle.facts import (
    EnclaveRegistered,
    Event,
    JobAssigned,
    JobCancelled,
    JobClosed,
    JobOpened,
    JobToppedUp,
    JobVoided,
    MeasurementChanged,
    Settled,
    SittingCommittee,
)
from oracle.signers.local import LocalKey
from oracle.transactions import Bid, signed_row
from scripts.chain import rpc
from settlement.committee import EcdsaCommittee
from settlement.contracts import Claim, Outcome, WrongChain
from settlement.deployment import Deployment
from settlement.eip712 import assignment_digest, job_id, receipt_digest
from settlement.models import Assignment, Authorization
from settlement.reverts import ContractReverted, Revert

GWEI = 10**9


def view_of(chain: Chain, deployment: Deployment | None = None) -> RpcChain:
    """The chain as an oracle of its own deployment, unless told otherwise, sees it."""
    url = str(chain.w3.provider.endpoint_uri)  # type: ignore[attr-defined]
    return RpcChain(url, deployment or chain.deployment)


@pytest.fixture
def view(chain: Chain) -> RpcChain:
    return view_of(chain)


def test_the_right_deployment_passes(view: RpcChain) -> None:
    view.check()


@pytest.mark.parametrize(
    "field",
    ["chain_id", "vault", "usdc", "enclave_registry", "grace_period", "challenge_window"],
)
def test_a_deployment_that_is_not_this_chains_is_refused(chain: Chain, field: str) -> None:
    wrong = {
        "chain_id": 1,
        "vault": chain.deployment.usdc,
        "usdc": chain.deployment.node_registry,
        "enclave_registry": chain.deployment.node_registry,
        "grace_period": 7,
        "challenge_window": 7,
    }
    other = chain.deployment.model_copy(update={field: wrong[field]})
    with pytest.raises(WrongChain):
        view_of(chain, other).check()


def test_an_address_without_code_is_refused(chain: Chain) -> None:
    other = chain.deployment.model_copy(update={"vault": key("nobody").address})
    with pytest.raises(WrongChain, match="code of vault"):
        view_of(chain, other).check()


def test_an_endpoint_that_is_not_there_is_unavailable(chain: Chain) -> None:
    with pytest.raises(ChainUnavailable):
        RpcChain("http://127.0.0.1:1", chain.deployment).latest()


def test_governance_is_read_from_the_contracts(view: RpcChain) -> None:
    members = sorted((key(f"operator {i}").address for i in range(3)), key=str.lower)
    committee = EcdsaCommittee(members=tuple(members), threshold=2)
    assert view.committee() == SittingCommittee(epoch=1, committee=committee)
    assert view.is_measurement_allowed(MEASUREMENT)
    assert not view.is_measurement_allowed(keccak(text="other"))
    assert (view.is_node_active(1), view.is_node_active(2)) == (True, False)


def test_events_become_facts_in_order(chain: Chain, view: RpcChain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    chain.payer.open_job(terms)
    facts = view.events(chain.deployment.block, view.latest())
    assert [type(fact) for fact in facts] == [MeasurementChanged, JobOpened]
    opened = facts[1]
    assert isinstance(opened, JobOpened)
    assert opened.terms == terms
    assert opened.job_id == job_id(terms, chain.deployment.vault_domain)


def facts_since(view: RpcChain, block: int) -> list[Event]:
    """The facts of the blocks after this one."""
    return list(view.events(block + 1, view.latest()))


def test_a_jobs_whole_story_becomes_facts(chain: Chain, view: RpcChain) -> None:
    chain.register_enclave()
    begun = view.latest()
    terms = chain.open(chain.terms(node_id=0))
    job = chain.id(terms)
    assignment = Assignment(job_id=job, node_id=1, epoch=1)
    digest = assignment_digest(assignment, chain.deployment.vault_domain)
    signatures = chain.committee_signatures(digest)
    chain.deployer.transact(chain.deployer.assign_call(terms, 1, signatures))
    chain.payer.approve(7)
    chain.payer.top_up(terms, 7)
    chain.payer.cancel(terms)
    until = chain.payer.now() + DAY
    done = chain.claim(terms, 10, complete=True)
    chain.deployer.settle([done])
    facts = facts_since(view, begun)
    places = [fact.place for fact in facts]
    assert facts == [
        JobOpened(places[0], job, terms),
        JobAssigned(places[1], job, node_id=1),
        JobToppedUp(places[2], job, amount=7, funded=50_000_007),
        JobCancelled(places[3], job, payable_until=until),
        Settled(
            places[4],
            job,
            receipt_digest(done.signed.receipt, chain.deployment.vault_domain),
            records=10,
            epochs=0,
            amount=500_000,
        ),
        JobClosed(places[5], job, paid=500_000, refunded=49_500_007, output_digest=OUTPUT),
    ]


def test_a_voided_job_and_a_registration_become_facts(chain: Chain, view: RpcChain) -> None:
    begun = view.latest()
    chain.payer.void_job(chain.terms())
    chain.register_enclave()
    voided, registered = facts_since(view, begun)
    assert voided == JobVoided(voided.place, chain.id(chain.terms()))
    assert isinstance(registered, EnclaveRegistered)
    assert (registered.enclave_key, registered.node_id) == (key("enclave").address, 1)


def test_what_a_dispute_does_is_no_fact_about_receipts(waiting: Chain) -> None:
    waiting.register_enclave()
    terms = waiting.open(waiting.terms())
    waiting.deployer.settle([waiting.claim(terms, 10)])
    view = view_of(waiting)
    begun = view.latest()
    waiting.payer.dispute(terms)
    waiting.actor("arbiter").resolve(1, 200_000)
    waiting.payer.withdraw()
    assert facts_since(view, begun) == []


def test_simulating_names_each_items_outcome(chain: Chain, view: RpcChain) -> None:
    terms = chain.open(chain.terms())
    unassigned = chain.open(chain.terms(node_id=0))
    claims = [
        chain.claim(terms, 5, by="forger"),
        chain.claim(chain.terms(salt=b"\1" * 32), 5),
        chain.claim(terms, 0),
        chain.claim(unassigned, 5),
    ]
    outcomes = [
        Outcome.ENCLAVE_REFUSED,
        Outcome.UNKNOWN_JOB,
        Outcome.NOTHING_NEW,
        Outcome.NOT_ASSIGNED,
    ]
    assert view.simulate_settle(claims) == outcomes
    assert [view.simulate_settle([claim])[0] for claim in claims] == outcomes


def test_counters_beyond_64_bits_are_malformed_and_stop_nothing(
    chain: Chain, view: RpcChain
) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    good = chain.claim(terms, 5)
    receipt = good.signed.receipt.model_copy(update={"records": 2**64})
    huge = Claim(terms, good.signed.model_copy(update={"receipt": receipt}))
    assert view.simulate_settle([huge, good]) == [Outcome.MALFORMED, Outcome.PAID]
    assert view.simulate_settle([huge]) == [Outcome.MALFORMED]


def test_a_call_that_would_revert_is_named(chain: Chain, view: RpcChain) -> None:
    terms = chain.terms()
    late = Authorization(valid_after=0, valid_before=1, signature=bytes(65))
    with pytest.raises(ContractReverted) as caught:
        view.estimate_gas(view.open_call(terms, late), key("payer").address)
    assert caught.value.revert is Revert.USDC_AUTHORIZATION_EXPIRED


def test_sending_twice_and_sending_late_are_told_apart(chain: Chain, view: RpcChain) -> None:
    account: LocalAccount = key("relayer")
    rpc(chain.w3, "anvil_setBalance", account.address, hex(10**21))
    rpc(chain.w3, "evm_setAutomine", False)
    row = signed_row(
        view.open_call(chain.terms(), _authorization()),
        signer=LocalKey(account),
        chain_id=chain.deployment.chain_id,
        nonce=view.next_nonce(account.address, final=False),
        attempt=1,
        gas=500_000,
        bid=Bid(max_fee=100 * GWEI, tip=GWEI),
        since=view.latest(),
    )
    assert view.send(row.raw) is Delivery.SENT
    assert view.send(row.raw) is Delivery.KNOWN
    assert view.mined(row.hash) is None
    rpc(chain.w3, "evm_mine")
    rpc(chain.w3, "evm_setAutomine", True)
    mined = view.mined(row.hash)
    assert mined is not None
    assert (mined.block, mined.success) == (view.latest(), False)
    assert view.send(row.raw) is Delivery.NONCE_USED
    assert view.next_nonce(account.address, final=False) == row.nonce + 1


def _authorization() -> Authorization:
    return Authorization(valid_after=0, valid_before=1, signature=bytes(65))


def test_blocks_and_fees(view: RpcChain) -> None:
    final = view.finalized()
    assert view.block(final.number) == final
    assert view.block(view.latest() + 10) is None
    fees = view.fees()
    assert fees.base_fee > 0
    assert fees.tip >= 0
