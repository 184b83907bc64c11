"""`settlement.client.Settlement` against a real chain."""

from collections.abc import Callable
from typing import Any

import pytest
from anvil import DAY, GENESIS, OUTPUT, Chain, key
from eth_account import Account
from eth_utils import keccak
from hexbytes import HexBytes
from web3.types import TxReceipt

from oracle.clients.edge.devplatform import DevPlatform
from scripts.chain import rpc
from settlement.client import Settlement
from settlement.contracts import (
    Earnings,
    JobState,
    Outcome,
    WrongChain,
    authorization_document,
    authorization_signer,
    terms_ref,
)
from settlement.deploy import DeploymentParameters, create_for_tests, deploy
from settlement.eip712 import assignment_digest, job_id, receipt_digest
from settlement.errors import InvalidInput
from settlement.events import decode_events, terms_from_event
from settlement.models import Assignment, Deposit, OpenJobs, Sponsorship, Withdrawal
from settlement.reverts import ContractReverted, Revert
from settlement.signer import KnownKeyRefused, LocalSigner

pytestmark = pytest.mark.xdist_group("anvil")

EARNED = 500_000
"""What ten records of `Chain.terms` earn."""


def told(chain: Chain, receipt: TxReceipt) -> list[tuple[str, dict[str, Any]]]:
    """A transaction's events of the deployment: name and arguments."""
    events = decode_events(chain.deployment, receipt["logs"])
    return [(event.name, dict(event.args)) for event in events]


def refused(call: Callable[[], object]) -> Revert | None:
    """The typed reason with which a call is refused."""
    with pytest.raises(ContractReverted) as caught:
        call()
    return caught.value.revert


def test_check_accepts_its_own_deployment(chain: Chain) -> None:
    chain.deployer.check()


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("chain_id", 137, "chain id"),
        ("vault", key("nobody").address, "code of vault"),
        ("usdc", None, "the vault's USDC"),
        ("enclave_registry", None, "the vault's enclaves"),
        ("grace_period", 7, "the vault's grace period"),
        ("challenge_window", 7, "the vault's challenge window"),
    ],
)
def test_check_names_what_is_wrong_with_a_deployment(
    chain: Chain, field: str, value: object, what: str
) -> None:
    wrong = chain.deployment.model_copy(
        update={field: chain.deployment.timelock if value is None else value}
    )
    with pytest.raises(WrongChain, match=what):
        Settlement(chain.w3, wrong).check()


def test_open_job_by_allowance_escrows_the_budget(chain: Chain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    receipt = chain.payer.open_job(terms)
    job = chain.payer.job(job_id(terms, chain.deployment.vault_domain))
    assert (job.state, job.funded, job.paid, job.node_id) == (JobState.ASSIGNED, terms.budget, 0, 1)
    functions = chain.payer.vault.functions
    assert functions.funder_and_end(terms_ref(terms)).call() == [
        terms.payer,
        terms.deadline + DAY,
    ]
    assert chain.payer.usdc_balance(chain.deployment.vault) == terms.budget
    opened = decode_events(chain.deployment, receipt["logs"])[0]
    assert opened.name == "JobOpened"
    assert terms_from_event(opened.args) == terms


def test_open_job_with_authorization_needs_one_signature_and_no_gas_of_the_payer(
    chain: Chain,
) -> None:
    terms = chain.terms()
    authorization = chain.payer.authorize(terms)
    assert authorization_signer(chain.deployment, terms, authorization) == terms.payer
    gas_money = chain.w3.eth.get_balance(key("payer").address)
    chain.deployer.open_job_with_authorization(terms, authorization)
    assert chain.w3.eth.get_balance(key("payer").address) == gas_money
    job = chain.payer.job(job_id(terms, chain.deployment.vault_domain))
    assert (job.state, job.funded) == (JobState.ASSIGNED, terms.budget)


def test_authorization_for_other_terms_is_refused_before_anything_is_sent(chain: Chain) -> None:
    authorization = chain.payer.authorize(chain.terms())
    dearer = chain.terms(price_per_record=60_000)
    block = chain.w3.eth.block_number
    with pytest.raises(ContractReverted) as refused:
        chain.deployer.open_job_with_authorization(dearer, authorization)
    assert refused.value.revert is Revert.USDC_INVALID_SIGNATURE
    assert chain.w3.eth.block_number == block


def test_authorize_refuses_terms_of_another_payer(chain: Chain) -> None:
    with pytest.raises(InvalidInput, match="cannot sign for the payer"):
        chain.deployer.authorize(chain.terms())


def test_a_revert_is_typed_and_says_whether_to_try_again(chain: Chain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    chain.payer.open_job(terms)
    with pytest.raises(ContractReverted) as refused:
        chain.payer.refund(terms)
    assert refused.value.revert is Revert.VAULT_JOB_IS_STILL_PAYABLE
    assert not refused.value.final
    with pytest.raises(ContractReverted) as refused:
        chain.payer.open_job(terms)
    assert refused.value.code == "VAULT_JOB_EXISTS"
    assert refused.value.final


def test_a_dead_node_costs_the_payer_nothing_but_time(chain: Chain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    chain.payer.open_job(terms)
    rpc(chain.w3, "evm_setNextBlockTimestamp", terms.deadline + DAY + 1)
    rpc(chain.w3, "evm_mine")
    before = chain.payer.usdc_balance(terms.payer)
    chain.deployer.refund(terms)
    chain.deployer.withdraw_for(terms.payer)
    assert chain.payer.usdc_balance(terms.payer) == before + terms.budget


def test_open_job_with_permit_needs_no_allowance_given_before(chain: Chain) -> None:
    terms = chain.terms()
    chain.payer.open_job_with_permit(terms)
    job = chain.payer.job(chain.id(terms))
    assert (job.state, job.funded) == (JobState.ASSIGNED, terms.budget)
    allowance = chain.payer.usdc.functions.allowance(terms.payer, chain.deployment.vault)
    assert allowance.call() == 0


def test_only_the_payer_of_terms_can_open_or_void_them(chain: Chain) -> None:
    terms = chain.terms()
    for write in (
        chain.deployer.open_job,
        chain.deployer.open_job_with_permit,
        chain.deployer.void_job,
    ):
        with pytest.raises(InvalidInput, match="is not the payer"):
            write(terms)


def test_a_deposit_grows_the_balance_of_whom_it_names(chain: Chain) -> None:
    chain.payer.approve(30_000_000)
    receipt = chain.payer.deposit(10_000_000)
    payer, friend = key("payer").address, key("friend").address
    assert told(chain, receipt) == [
        ("Deposited", {"account": payer, "depositor": payer, "amount": 10_000_000})
    ]
    receipt = chain.payer.deposit(20_000_000, friend)
    assert told(chain, receipt) == [
        ("Deposited", {"account": friend, "depositor": payer, "amount": 20_000_000})
    ]
    assert chain.payer.balance(payer) == 10_000_000
    assert chain.payer.balance(friend) == 20_000_000


def test_a_deposit_by_authorization_costs_its_account_no_gas_and_counts_once(chain: Chain) -> None:
    deposit = Deposit(account=key("payer").address, amount=25_000_000, salt=keccak(text="salt"))
    authorization = chain.payer.authorize_deposit(deposit)
    gas_money = chain.w3.eth.get_balance(key("payer").address)
    receipt = chain.deployer.deposit_with_authorization(deposit, authorization)
    account = deposit.account
    assert told(chain, receipt) == [
        ("Deposited", {"account": account, "depositor": account, "amount": 25_000_000})
    ]
    assert chain.payer.balance(account) == 25_000_000
    assert chain.w3.eth.get_balance(account) == gas_money
    again = refused(lambda: chain.deployer.deposit_with_authorization(deposit, authorization))
    assert again is Revert.USDC_AUTHORIZATION_USED
    more = deposit.model_copy(update={"amount": 25_000_001})
    other = refused(lambda: chain.deployer.deposit_with_authorization(more, authorization))
    assert other is Revert.USDC_INVALID_SIGNATURE


def test_a_deposit_is_authorized_by_its_own_account_only(chain: Chain) -> None:
    deposit = Deposit(account=key("payer").address, amount=1, salt=bytes(32))
    with pytest.raises(InvalidInput, match="cannot sign for"):
        chain.deployer.authorize_deposit(deposit)


@pytest.fixture
def orders(chain: Chain) -> OpenJobs:
    """Three jobs for 10 USDC each, and a balance of 50 USDC to open them from."""
    chain.payer.approve(50_000_000)
    chain.payer.deposit(50_000_000)
    salts = [bytes(31) + bytes([i]) for i in range(3)]
    return OpenJobs(jobs=tuple(chain.terms(budget=10_000_000, salt=salt) for salt in salts))


def test_one_signature_opens_many_jobs_from_a_balance(chain: Chain, orders: OpenJobs) -> None:
    receipt = chain.deployer.open_jobs(orders, chain.payer.sign(orders))
    events = decode_events(chain.deployment, receipt["logs"])
    assert [terms_from_event(e.args) for e in events if e.name == "JobOpened"] == list(orders.jobs)
    assert dict(events[-1].args) == {"account": key("payer").address, "amount": 30_000_000}
    assert events[-1].name == "BalanceSpent"
    for terms in orders.jobs:
        job = chain.payer.job(chain.id(terms))
        assert (job.state, job.funded) == (JobState.ASSIGNED, 10_000_000)
    assert chain.payer.balance(key("payer").address) == 20_000_000


def test_a_payer_opens_its_own_jobs_without_a_signature(chain: Chain, orders: OpenJobs) -> None:
    chain.payer.open_jobs(orders)
    assert chain.payer.balance(key("payer").address) == 20_000_000
    with pytest.raises(InvalidInput, match="is not the payer"):
        chain.deployer.open_jobs(orders)


def test_a_signature_for_some_jobs_opens_no_others(chain: Chain, orders: OpenJobs) -> None:
    signature = chain.payer.sign(orders)
    fewer = OpenJobs(jobs=orders.jobs[:2])
    assert refused(lambda: chain.deployer.open_jobs(fewer, signature)) is (
        Revert.VAULT_INVALID_SIGNATURE
    )
    mixed = OpenJobs(jobs=(orders.jobs[0], chain.terms(payer=key("friend").address)))
    with pytest.raises(InvalidInput, match="one payer, not of 2"):
        chain.payer.open_jobs(mixed)


def test_a_balance_that_is_too_low_opens_none_of_them(chain: Chain) -> None:
    dear = OpenJobs(jobs=(chain.terms(budget=1), chain.terms()))
    assert refused(lambda: chain.payer.open_jobs(dear)) is Revert.VAULT_BALANCE_TOO_LOW
    assert chain.payer.job(chain.id(dear.jobs[0])).state is JobState.UNKNOWN


def test_a_sponsor_funds_by_the_payers_consent_and_gets_what_is_left(chain: Chain) -> None:
    sponsor = chain.actor("sponsor")
    chain.deployer.transact(sponsor.usdc.functions.mint(key("sponsor").address, 50_000_000))
    terms = chain.terms()
    consent = chain.payer.sign(Sponsorship(terms=terms, sponsor=key("sponsor").address))
    sponsor.approve(terms.budget)
    receipt = sponsor.sponsor_job(terms, consent)
    names = [name for name, _ in told(chain, receipt)]
    assert names == ["JobOpened", "JobSponsored"]
    job = chain.payer.job(chain.id(terms))
    assert (job.state, job.sponsored, job.funded) == (JobState.ASSIGNED, True, terms.budget)
    functions = chain.payer.vault.functions
    assert functions.funder_and_end(terms_ref(terms)).call()[0] == key("sponsor").address
    chain.pass_time(terms.deadline + DAY + 1)
    chain.deployer.refund(terms)
    assert chain.payer.balance(key("sponsor").address) == terms.budget
    assert chain.payer.balance(terms.payer) == 0


def test_a_consent_counts_for_its_sponsor_only(chain: Chain) -> None:
    terms = chain.terms()
    consent = chain.payer.sign(Sponsorship(terms=terms, sponsor=key("sponsor").address))
    thief = chain.actor("thief")
    assert refused(lambda: thief.sponsor_job(terms, consent)) is Revert.VAULT_INVALID_SIGNATURE


def test_a_job_is_topped_up_by_allowance_and_from_a_balance(chain: Chain) -> None:
    terms = chain.open(chain.terms())
    payer = key("payer").address
    chain.payer.approve(30_000_000)
    receipt = chain.payer.top_up(terms, 10_000_000)
    topped = {"job_id": chain.id(terms), "funder": payer, "amount": 10_000_000}
    assert told(chain, receipt) == [("JobToppedUp", {**topped, "funded": 60_000_000})]
    chain.payer.deposit(20_000_000)
    receipt = chain.payer.top_up(terms, 10_000_000, from_balance=True)
    assert told(chain, receipt) == [
        ("JobToppedUp", {**topped, "funded": 70_000_000}),
        ("BalanceSpent", {"account": payer, "amount": 10_000_000}),
    ]
    assert chain.payer.job(chain.id(terms)).funded == 70_000_000
    assert chain.payer.balance(payer) == 10_000_000
    other = refused(lambda: chain.deployer.top_up(terms, 1))
    assert other is Revert.VAULT_CALLER_IS_NOT_THE_FUNDER


def test_a_top_up_is_earned_by_a_receipt_that_had_hit_the_budget(chain: Chain) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    claim = chain.claim(terms, 1_200)
    assert chain.deployer.settle([claim])[1] == [Outcome.PAID]
    assert chain.payer.job(chain.id(terms)).paid == 50_000_000
    assert chain.deployer.simulate_settle([claim]) == [Outcome.NOTHING_NEW]
    chain.payer.approve(30_000_000)
    chain.payer.top_up(terms, 30_000_000)
    receipt, outcomes = chain.deployer.settle([claim])
    assert outcomes == [Outcome.PAID]
    name, settled = told(chain, receipt)[0]
    assert (name, settled["amount"]) == ("Settled", 10_000_000)
    assert chain.payer.job(chain.id(terms)).paid == 60_000_000


def test_voided_terms_are_never_opened(chain: Chain) -> None:
    terms = chain.terms()
    authorization = chain.payer.authorize(terms)
    receipt = chain.payer.void_job(terms)
    assert told(chain, receipt) == [
        ("JobVoided", {"job_id": chain.id(terms), "payer": terms.payer})
    ]
    assert chain.payer.job(chain.id(terms)).state is JobState.CLOSED
    late = refused(lambda: chain.deployer.open_job_with_authorization(terms, authorization))
    assert late is Revert.VAULT_JOB_EXISTS


def test_the_committee_gives_a_job_without_a_node_to_one(chain: Chain) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms(node_id=0))
    job = chain.id(terms)
    assert chain.payer.job(job).state is JobState.OPEN
    claim = chain.claim(terms, 10)
    assert chain.deployer.simulate_settle([claim]) == [Outcome.NOT_ASSIGNED]
    assignment = Assignment(job_id=job, node_id=1, epoch=1)
    digest = assignment_digest(assignment, chain.deployment.vault_domain)
    signatures = chain.committee_signatures(digest)
    few = refused(
        lambda: chain.deployer.transact(chain.deployer.assign_call(terms, 1, signatures[:65]))
    )
    assert few is Revert.COMMITTEE_TOO_FEW_SIGNATURES
    receipt = chain.deployer.transact(chain.deployer.assign_call(terms, 1, signatures))
    assert told(chain, receipt) == [("JobAssigned", {"job_id": job, "node_id": 1})]
    assigned = chain.payer.job(job)
    assert (assigned.state, assigned.node_id) == (JobState.ASSIGNED, 1)
    assert chain.deployer.settle([claim])[1] == [Outcome.PAID]


def test_cancelling_without_a_node_returns_the_budget_at_once(chain: Chain) -> None:
    terms = chain.open(chain.terms(node_id=0))
    receipt = chain.payer.cancel(terms)
    assert told(chain, receipt) == [
        (
            "JobClosed",
            {
                "job_id": chain.id(terms),
                "funder": terms.payer,
                "paid": 0,
                "refunded": terms.budget,
                "output_digest": bytes(32),
            },
        )
    ]
    assert chain.payer.balance(terms.payer) == terms.budget


def test_cancelling_with_a_node_still_pays_what_was_finished_for_a_grace_period(
    chain: Chain,
) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    receipt = chain.payer.cancel(terms)
    ((name, cancelled),) = told(chain, receipt)
    until = chain.payer.now() + DAY
    assert (name, cancelled["payable_until"]) == ("JobCancelled", until)
    assert chain.payer.job(chain.id(terms)).state is JobState.CANCELLING
    assert chain.deployer.settle([chain.claim(terms, 10)])[1] == [Outcome.PAID]
    chain.pass_time(until + 1)
    assert chain.deployer.simulate_settle([chain.claim(terms, 20)]) == [Outcome.TOO_LATE]
    chain.deployer.refund(terms)
    assert chain.payer.balance(terms.payer) == terms.budget - EARNED


def test_one_receipt_and_many_are_settled_and_refused_by_name(chain: Chain) -> None:
    chain.register_enclave()
    first, second = chain.open(chain.terms()), chain.open(chain.terms(salt=b"\1" * 32))
    receipt, outcomes = chain.deployer.settle([chain.claim(first, 10)])
    claim = chain.claim(first, 10)
    assert outcomes == [Outcome.PAID]
    assert told(chain, receipt) == [
        (
            "Settled",
            {
                "job_id": chain.id(first),
                "node_id": 1,
                "receipt_digest": receipt_digest(
                    claim.signed.receipt, chain.deployment.vault_domain
                ),
                "records": 10,
                "epochs": 0,
                "amount": EARNED,
            },
        )
    ]
    receipt, outcomes = chain.deployer.settle(
        [
            chain.claim(first, 10),
            chain.claim(second, 10, by="forger"),
            chain.claim(second, 10, complete=True),
        ]
    )
    assert outcomes == [Outcome.NOTHING_NEW, Outcome.ENCLAVE_REFUSED, Outcome.PAID]
    events = told(chain, receipt)
    assert [name for name, _ in events] == ["ReceiptRefused", "Settled", "JobClosed"]
    assert events[0][1]["outcome"] == Outcome.ENCLAVE_REFUSED
    assert events[2][1]["output_digest"] == OUTPUT
    assert chain.payer.job(chain.id(second)).state is JobState.CLOSED
    assert chain.payer.earnings(1).matured == 2 * EARNED


def test_a_batch_holds_1_to_100_receipts(chain: Chain) -> None:
    claim = chain.claim(chain.terms(), 1)
    for count in (0, 101):
        with pytest.raises(InvalidInput, match=f"1 to 100 receipts, not {count}"):
            chain.payer.settle_call([claim] * count)
    assert chain.payer.simulate_settle([claim] * 100) == [Outcome.UNKNOWN_JOB] * 100


@pytest.fixture
def split(chain: Chain) -> Chain:
    """A node's earnings of 0.50 USDC, split among its payees."""
    chain.register_enclave()
    chain.deployer.settle([chain.claim(chain.open(chain.terms()), 10)])
    chain.deployer.distribute(1)
    return chain


def test_a_part_of_a_balance_goes_to_any_address(split: Chain) -> None:
    hospital, bank = split.actor("hospital"), key("bank").address
    account = key("hospital").address
    assert hospital.balance(account) == 350_000
    receipt = hospital.withdraw_to(bank, 100_000)
    assert told(split, receipt) == [
        ("Withdrawn", {"account": account, "to": bank, "amount": 100_000})
    ]
    assert (hospital.balance(account), hospital.usdc_balance(bank)) == (250_000, 100_000)
    assert refused(lambda: hospital.withdraw_to(bank, 250_001)) is Revert.VAULT_BALANCE_TOO_LOW
    hospital.withdraw()
    assert (hospital.balance(account), hospital.usdc_balance(account)) == (0, 250_000)


def test_a_signed_withdrawal_is_brought_by_anybody_and_counts_once(split: Chain) -> None:
    signer = Settlement(split.w3, split.deployment, LocalSigner(key("hospital")))
    account, bank = key("hospital").address, key("bank").address
    nonces = signer.vault.functions.withdrawal_nonces(account)
    withdrawal = Withdrawal(
        account=account,
        to=bank,
        amount=100_000,
        nonce=nonces.call(),
        deadline=split.payer.now() + 60,
    )
    signature = signer.sign(withdrawal)
    receipt = split.deployer.withdraw_by_signature(withdrawal, signature)
    assert told(split, receipt) == [
        ("Withdrawn", {"account": account, "to": bank, "amount": 100_000})
    ]
    assert nonces.call() == 1
    again = refused(lambda: split.deployer.withdraw_by_signature(withdrawal, signature))
    assert again is Revert.VAULT_INVALID_SIGNATURE
    split.pass_time(withdrawal.deadline + 1)
    late = refused(lambda: split.deployer.withdraw_by_signature(withdrawal, signature))
    assert late is Revert.VAULT_SIGNATURE_HAS_EXPIRED


def test_one_push_pays_many_and_a_blacklisted_one_stops_only_itself(split: Chain) -> None:
    names = ("hospital", "owner", "onboarder", "protocol")
    accounts = [key(name).address for name in names]
    split.deployer.transact(split.deployer.usdc.functions.blacklist(key("owner").address))
    receipt = split.deployer.withdraw_for(*accounts)
    assert [(name, args["account"], args["amount"]) for name, args in told(split, receipt)] == [
        ("Withdrawn", accounts[0], 350_000),
        ("WithdrawalRefused", accounts[1], 100_000),
        ("Withdrawn", accounts[2], 25_000),
        ("Withdrawn", accounts[3], 25_000),
    ]
    assert [split.payer.balance(account) for account in accounts] == [0, 100_000, 0, 0]
    alone = refused(lambda: split.deployer.withdraw_for(accounts[1]))
    assert alone is Revert.USDC_BLACKLISTED


def test_many_nodes_earnings_are_split_in_one_call(chain: Chain) -> None:
    assert chain.register_node("second hardware") == 2
    chain.register_enclave()
    chain.register_enclave("second enclave", 2)
    first, second = chain.open(chain.terms()), chain.open(chain.terms(node_id=2))
    chain.deployer.settle([chain.claim(first, 10), chain.claim(second, 30, by="second enclave")])
    receipt = chain.deployer.distribute(1, 2)
    assert [
        (name, args["node_id"], args["hospital_amount"]) for name, args in told(chain, receipt)
    ] == [
        ("Distributed", 1, 350_000),
        ("Distributed", 2, 1_050_000),
    ]
    assert chain.payer.balance(key("hospital").address) == 1_400_000
    assert (chain.payer.earnings(1).total, chain.payer.earnings(2).total) == (0, 0)


def test_a_hospital_moves_its_treasury_and_keeps_what_it_earned_before(chain: Chain) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    chain.deployer.settle([chain.claim(terms, 10)])
    hospital, treasury = chain.actor("hospital"), chain.actor("new treasury")
    accept = treasury.nodes.functions.accept_treasury(1)
    assert refused(lambda: treasury.transact(accept)) is Revert.NODES_CALLER_IS_NOT_PROPOSED
    old, new = key("hospital").address, key("new treasury").address
    receipt = hospital.transact(hospital.nodes.functions.propose_treasury(1, new))
    assert told(chain, receipt) == [("TreasuryProposed", {"node_id": 1, "treasury": new})]
    receipt = treasury.transact(accept)
    names = [name for name, _ in told(chain, receipt)]
    assert names == ["Distributed", "TreasuryChanged"]
    assert told(chain, receipt)[1][1] == {
        "node_id": 1,
        "previous_treasury": old,
        "new_treasury": new,
    }
    chain.deployer.settle([chain.claim(terms, 30)])
    chain.deployer.distribute(1)
    assert (chain.payer.balance(old), chain.payer.balance(new)) == (350_000, 700_000)


def test_a_retired_node_takes_no_jobs_but_its_work_is_paid(chain: Chain) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    hospital = chain.actor("hospital")
    receipt = hospital.transact(hospital.nodes.functions.retire(1))
    assert told(chain, receipt) == [("NodeRetired", {"node_id": 1})]
    late = chain.terms(salt=b"\1" * 32)
    chain.payer.approve(late.budget)
    assert refused(lambda: chain.payer.open_job(late)) is Revert.VAULT_NODE_IS_NOT_ACTIVE
    assert chain.deployer.settle([chain.claim(terms, 10)])[1] == [Outcome.PAID]
    again = refused(lambda: hospital.transact(hospital.nodes.functions.retire(1)))
    assert again is Revert.NODES_NODE_IS_RETIRED


# challenge window


@pytest.fixture
def fresh(waiting: Chain) -> Chain:
    """Ten records' earnings that are not a window old."""
    waiting.register_enclave()
    waiting.deployer.settle([waiting.claim(waiting.open(waiting.terms()), 10)])
    return waiting


def test_fresh_earnings_wait_and_mature(fresh: Chain) -> None:
    window = fresh.deployment.challenge_window
    period = fresh.payer.now() // window
    assert fresh.payer.earnings(1) == Earnings(
        matured=0, fresh=EARNED, earlier=0, version=0, period=period, disputes=0
    )
    job = fresh.payer.job(fresh.id(fresh.terms()))
    assert (job.paid, job.fresh, job.earlier, job.period) == (EARNED, EARNED, 0, period)
    fresh.deployer.distribute(1)
    assert fresh.payer.balance(key("hospital").address) == 0
    fresh.pass_time((period + 1) * window)
    assert fresh.payer.earnings(1).earlier == EARNED
    assert job.disputable(fresh.payer.now(), window) == EARNED
    fresh.pass_time((period + 2) * window)
    assert fresh.payer.earnings(1).matured == EARNED
    assert job.disputable(fresh.payer.now(), window) == 0
    late = refused(lambda: fresh.payer.dispute(fresh.terms()))
    assert late is Revert.VAULT_NOTHING_TO_DISPUTE
    fresh.deployer.distribute(1)
    assert fresh.payer.balance(key("hospital").address) == 350_000


def test_a_dispute_freezes_fresh_earnings_and_the_arbiter_splits_them(fresh: Chain) -> None:
    terms, arbiter = fresh.terms(), fresh.actor("arbiter")
    receipt = fresh.payer.dispute(terms)
    assert told(fresh, receipt) == [
        (
            "Disputed",
            {
                "dispute_id": 1,
                "job_id": fresh.id(terms),
                "disputer": terms.payer,
                "version": 0,
                "amount": EARNED,
                "answer_until": fresh.payer.now() + 2 * DAY,
            },
        )
    ]
    frozen = fresh.payer.earnings(1)
    assert (frozen.total, frozen.disputes) == (0, 1)
    assert refused(lambda: fresh.payer.resolve(1, 0)) is Revert.VAULT_CALLER_IS_NOT_THE_ARBITER
    assert refused(lambda: fresh.payer.release(1)) is Revert.VAULT_ARBITER_MAY_STILL_ANSWER
    receipt = arbiter.resolve(1, 200_000)
    assert told(fresh, receipt) == [
        (
            "DisputeEnded",
            {"dispute_id": 1, "funder": terms.payer, "returned": 200_000, "released": 300_000},
        )
    ]
    assert fresh.payer.balance(terms.payer) == 200_000
    ended = fresh.payer.earnings(1)
    assert (ended.matured, ended.disputes) == (300_000, 0)
    assert refused(lambda: arbiter.resolve(1, 0)) is Revert.VAULT_NO_SUCH_DISPUTE


def test_without_an_answer_in_time_the_node_gets_what_is_disputed(fresh: Chain) -> None:
    arbiter = fresh.actor("arbiter")
    fresh.payer.dispute(fresh.terms())
    fresh.pass_time(fresh.payer.now() + 2 * DAY + 1)
    assert refused(lambda: arbiter.resolve(1, 0)) is Revert.VAULT_TOO_LATE_TO_ANSWER
    receipt = fresh.deployer.release(1)
    ((name, ended),) = told(fresh, receipt)
    assert (name, ended["returned"], ended["released"]) == ("DisputeEnded", 0, EARNED)
    fresh.deployer.distribute(1)
    assert fresh.payer.balance(key("hospital").address) == 350_000


def test_earlier_payees_keep_what_was_fresh_when_they_changed(fresh: Chain) -> None:
    hospital, treasury = fresh.actor("hospital"), fresh.actor("new treasury")
    new = key("new treasury").address
    hospital.transact(hospital.nodes.functions.propose_treasury(1, new))
    receipt = treasury.transact(treasury.nodes.functions.accept_treasury(1))
    assert told(fresh, receipt)[0] == ("PayeesChanged", {"node_id": 1, "version": 1})
    assert (fresh.payer.earnings(1).version, fresh.payer.earnings(1).total) == (1, 0)
    assert fresh.payer.earnings(1, version=0).fresh == EARNED
    fresh.deployer.settle([fresh.claim(fresh.terms(), 30)])
    fresh.pass_time(fresh.payer.now() + 2 * fresh.deployment.challenge_window)
    fresh.deployer.distribute_past(1, 0)
    fresh.deployer.distribute(1)
    assert fresh.payer.balance(key("hospital").address) == 350_000
    assert fresh.payer.balance(new) == 700_000


def test_what_an_earlier_payee_set_earned_can_be_disputed_by_its_version(fresh: Chain) -> None:
    hospital, treasury = fresh.actor("hospital"), fresh.actor("new treasury")
    new = key("new treasury").address
    hospital.transact(hospital.nodes.functions.propose_treasury(1, new))
    treasury.transact(treasury.nodes.functions.accept_treasury(1))
    fresh.deployer.settle([fresh.claim(fresh.terms(), 30)])
    first = told(fresh, fresh.payer.dispute(fresh.terms(), version=0))[0][1]
    assert (first["version"], first["amount"]) == (0, EARNED)
    second = told(fresh, fresh.payer.dispute(fresh.terms()))[0][1]
    assert (second["version"], second["amount"]) == (1, 2 * EARNED)


def test_writing_without_a_signer_says_so(chain: Chain) -> None:
    with pytest.raises(InvalidInput, match="needs a signer"):
        Settlement(chain.w3, chain.deployment).withdraw()


def test_test_contracts_and_short_delays_are_refused_on_a_real_chain(chain: Chain) -> None:
    rpc(chain.w3, "anvil_setChainId", 137)
    try:
        signer = LocalSigner(key("deployer"))
        with pytest.raises(InvalidInput, match="is for tests"):
            create_for_tests(chain.w3, signer, "TestUSDC", [])
        with pytest.raises(InvalidInput, match="delay on chain 137"):
            deploy(
                chain.w3,
                signer,
                chain.deployment.usdc,
                DeploymentParameters(
                    proposers=(signer.address,),
                    guardian=signer.address,
                    registrar=signer.address,
                    protocol=signer.address,
                    arbiter=signer.address,
                    committee=(signer.address,),
                    threshold=1,
                    grace_period=DAY,
                    timelock_delay=DAY,
                ),
            )
        simulated = DevPlatform.create(GENESIS, chain_id=31337).trust
        with pytest.raises(InvalidInput, match="quotes on chain 137 go up to Intel's root"):
            deploy(
                chain.w3,
                signer,
                chain.deployment.usdc,
                DeploymentParameters(
                    proposers=(signer.address,),
                    guardian=signer.address,
                    registrar=signer.address,
                    protocol=signer.address,
                    arbiter=signer.address,
                    committee=(signer.address,),
                    threshold=1,
                    grace_period=DAY,
                    timelock_delay=2 * DAY,
                    trust=simulated,
                ),
            )
    finally:
        rpc(chain.w3, "anvil_setChainId", 31337)


def test_foreign_logs_are_left_out(chain: Chain) -> None:
    receipt = chain.payer.approve(1)
    assert receipt["logs"]
    assert decode_events(chain.deployment, receipt["logs"]) == []


def test_now_is_the_chain_s_clock(chain: Chain) -> None:
    assert chain.payer.now() >= GENESIS
    assert chain.payer.now() == chain.w3.eth.get_block("latest")["timestamp"]


def test_a_key_that_everybody_knows_is_refused_where_money_is_real(chain: Chain) -> None:
    junk = "test test test test test test test test test test test junk"
    Account.enable_unaudited_hdwallet_features()
    known = LocalSigner(Account.from_mnemonic(junk))
    call = {"to": chain.deployment.vault, "data": HexBytes("0x"), "gas": 21_000}
    document = authorization_document(
        chain.deployment.model_copy(update={"chain_id": 137}),
        chain.terms(payer=known.address),
        valid_after=0,
        valid_before=1,
    )
    with pytest.raises(KnownKeyRefused):
        known.sign_typed_data(document)
    rpc(chain.w3, "anvil_setChainId", 137)
    try:
        with pytest.raises(KnownKeyRefused):
            known.send(chain.w3, call)
    finally:
        rpc(chain.w3, "anvil_setChainId", 31337)
