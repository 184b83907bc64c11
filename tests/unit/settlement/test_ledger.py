"""The ledger that is rebuilt from events: what it answers, and which events it refuses."""

from copy import deepcopy
from typing import Any

import pytest
from eth_utils import keccak, to_checksum_address

from settlement.contracts import Earnings, JobState, Outcome
from settlement.deployment import Deployment
from settlement.eip712 import job_id
from settlement.errors import RaphaError
from settlement.events import Event
from settlement.ledger import Ledger, LedgerContradiction, NodeStatus
from settlement.models import JobTerms, Work
from settlement.types import ZERO_ADDRESS

HOUR = 60 * 60
GRACE = 24 * HOUR
WINDOW = 2 * HOUR
# the beginning of a period
NOW = 1_800_000_000 // WINDOW * WINDOW
OUTPUT = keccak(text="output")


def address(name: str) -> str:
    return to_checksum_address(keccak(text=name)[12:])


PAYER, SPONSOR, THIEF = address("payer"), address("sponsor"), address("thief")
HOSPITAL, OWNER, ONBOARDER = address("hospital"), address("owner"), address("onboarder")
PROTOCOL, BUYER, ARBITER = address("protocol"), address("buyer"), address("arbiter")


def deployment(window: int = WINDOW) -> Deployment:
    names = ("vault", "node_registry", "enclave_registry", "timelock", "usdc")
    return Deployment(
        chain_id=137,
        block=0,
        grace_period=GRACE,
        challenge_window=window,
        **{name: address(name) for name in names},
    )


def terms(**changes: Any) -> JobTerms:
    fields: dict[str, Any] = {
        "payer": PAYER,
        "node_id": 1,
        "price_per_record": 100,
        "price_per_epoch": 1_000,
        "budget": 10_000,
        "deadline": NOW + 3 * GRACE,
        "work": Work(**dict.fromkeys(Work.model_fields, bytes(32))),
        "salt": bytes(32),
    }
    return JobTerms(**{**fields, **changes})


TERMS = terms()
JOB = job_id(TERMS, deployment().vault_domain)


class Chain:
    """Makes events in their order and has a ledger follow them."""

    def __init__(self, window: int = WINDOW) -> None:
        self.ledger = Ledger(deployment(window))
        self.block = 0
        self.now = NOW
        self.register_node()

    def log(self, name: str, *, contract: str = "vault", **args: Any) -> Event:
        self.block += 1
        event = Event(name, contract, args, self.block, bytes(32), bytes(32), 0)
        self.ledger.apply(event, self.now)
        return event

    def refuses(self, what: str, name: str, *, contract: str = "vault", **args: Any) -> None:
        """The event is refused for this, and changes nothing."""
        before = deepcopy(vars(self.ledger))
        with pytest.raises(LedgerContradiction) as caught:
            self.log(name, contract=contract, **args)
        assert caught.value.what == what
        assert vars(self.ledger) == before

    def register_node(self, node_id: int = 1) -> None:
        nodes = "node_registry"
        self.log("Transfer", contract=nodes, sender=ZERO_ADDRESS, receiver=OWNER, token_id=node_id)
        self.log(
            "NodeRegistered",
            contract=nodes,
            node_id=node_id,
            node_owner=OWNER,
            hospital=HOSPITAL,
            onboarder=ONBOARDER,
            hardware_hash=keccak(b"hardware"),
        )

    def sell(self, to: str, *, owner: str = OWNER) -> None:
        self.log("Transfer", contract="node_registry", sender=owner, receiver=to, token_id=1)

    def open(self, made: JobTerms = TERMS) -> bytes:
        opened = job_id(made, deployment().vault_domain)
        self.log("JobOpened", **opening(made, opened))
        return opened

    def settle(self, records: int, amount: int, epochs: int = 0) -> None:
        self.log("Settled", **settling(records, amount, epochs))

    def distribute(self, amounts: tuple[int, int, int, int], version: int = 0) -> None:
        self.log("Distributed", **distributing(amounts, version))

    def dispute(self, amount: int, version: int = 0) -> None:
        self.log("Disputed", **disputing(amount, version, self.now))


def opening(made: JobTerms, opened: bytes) -> dict[str, Any]:
    values = {name: getattr(made, name) for name in JobTerms.model_fields}
    return {**values, "work": made.work.model_dump(), "job_id": opened}


def settling(records: int, amount: int, epochs: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "job_id": JOB,
        "node_id": 1,
        "receipt_digest": keccak(b"receipt"),
        "records": records,
        "epochs": epochs,
        "amount": amount,
        **changes,
    }


def distributing(
    amounts: tuple[int, int, int, int], version: int = 0, **changes: Any
) -> dict[str, Any]:
    roles = ("hospital", "node_owner", "onboarder", "protocol")
    people = dict(zip(roles, (HOSPITAL, OWNER, ONBOARDER, PROTOCOL), strict=True))
    split = {f"{role}_amount": amount for role, amount in zip(roles, amounts, strict=True)}
    return {"node_id": 1, "version": version, **people, **split, **changes}


def disputing(amount: int, version: int, now: int) -> dict[str, Any]:
    return {
        "dispute_id": 1,
        "job_id": JOB,
        "disputer": PAYER,
        "version": version,
        "amount": amount,
        "answer_until": now + HOUR,
    }


def closing(paid: int, refunded: int, **changes: Any) -> dict[str, Any]:
    return {
        "job_id": JOB,
        "funder": PAYER,
        "paid": paid,
        "refunded": refunded,
        "output_digest": OUTPUT,
        **changes,
    }


def test_opened_job_holds_its_budget() -> None:
    chain = Chain()
    assert chain.open() == JOB
    job = chain.ledger.jobs[JOB]
    assert (job.state, job.funder, job.escrow) == (JobState.ASSIGNED, PAYER, 10_000)
    assert job.payable_until == TERMS.deadline + GRACE
    assert chain.ledger.owed == chain.ledger.escrowed == 10_000


def test_job_without_a_node_is_open_until_it_is_assigned() -> None:
    chain = Chain()
    opened = chain.open(terms(node_id=0))
    assert chain.ledger.job_status(opened).state == JobState.OPEN
    chain.log("JobAssigned", job_id=opened, node_id=1)
    status = chain.ledger.job_status(opened)
    assert (status.state, status.node_id) == (JobState.ASSIGNED, 1)
    chain.refuses("the job is ASSIGNED", "JobAssigned", job_id=opened, node_id=1)


def test_unknown_job_and_node_answer_as_the_contracts_do() -> None:
    ledger = Chain().ledger
    assert ledger.job_status(bytes(32)).state == JobState.UNKNOWN
    empty = Earnings(matured=0, fresh=0, earlier=0, version=0, period=NOW // WINDOW, disputes=0)
    assert ledger.earnings(7, NOW) == ledger.earnings(1, NOW, version=3) == empty


def test_fresh_earnings_mature_after_a_whole_period() -> None:
    chain = Chain()
    chain.open()
    chain.now = NOW + WINDOW - 1
    chain.settle(10, 1_000)
    for later, split in (
        (0, (0, 1_000, 0)),
        (1, (0, 0, 1_000)),
        (WINDOW, (0, 0, 1_000)),
        (WINDOW + 1, (1_000, 0, 0)),
        (9 * WINDOW, (1_000, 0, 0)),
    ):
        earnings = chain.ledger.earnings(1, chain.now + later)
        assert (earnings.matured, earnings.fresh, earnings.earlier) == split
        disputable = chain.ledger.disputable(JOB, chain.now + later)
        assert disputable == split[1] + split[2]


def test_without_a_window_earnings_are_mature_at_once() -> None:
    chain = Chain(window=0)
    chain.open()
    chain.settle(10, 1_000)
    assert chain.ledger.earnings(1, NOW).matured == 1_000
    assert chain.ledger.disputable(JOB, NOW) == 0
    chain.distribute((700, 200, 50, 50))
    assert chain.ledger.balances[HOSPITAL] == 700
    assert chain.ledger.protocol == PROTOCOL
    assert chain.ledger.owed == 10_000


def test_earlier_payees_keep_what_was_fresh_when_they_sold() -> None:
    chain = Chain()
    chain.open()
    chain.settle(10, 1_000)
    chain.log("PayeesChanged", node_id=1, version=1)
    chain.sell(BUYER)
    chain.settle(30, 2_000)
    assert chain.ledger.disputable(JOB, NOW, version=0) == 1_000
    assert chain.ledger.disputable(JOB, NOW) == 2_000
    chain.now += 2 * WINDOW
    chain.distribute((700, 200, 50, 50), version=0)
    what = "these are not the payees of that version"
    later = distributing((1_400, 400, 100, 100), 1)
    chain.refuses(what, "Distributed", **later)
    chain.log("Distributed", **{**later, "node_owner": BUYER})
    assert chain.ledger.balances[OWNER] == 200
    assert chain.ledger.balances[BUYER] == 400
    assert chain.ledger.earned == 0


def test_dispute_freezes_only_what_is_fresh_and_its_end_splits_it() -> None:
    chain = Chain()
    chain.open()
    chain.settle(10, 1_000)
    chain.now += 2 * WINDOW
    chain.settle(25, 1_500)
    chain.dispute(1_500)
    ledger = chain.ledger
    assert (ledger.disputed, ledger.earned, ledger.disputable(JOB, chain.now)) == (1_500, 1_000, 0)
    assert ledger.earnings(1, chain.now).disputes == 1
    ending = {"dispute_id": 1, "funder": PAYER, "returned": 600, "released": 900}
    chain.refuses("1500 is disputed", "DisputeEnded", **{**ending, "released": 901})
    chain.refuses(f"{PAYER} funds the job", "DisputeEnded", **{**ending, "funder": THIEF})
    chain.now += HOUR + 1
    chain.refuses("it is too late to return anything", "DisputeEnded", **ending)
    chain.now -= 1
    chain.log("DisputeEnded", **ending)
    assert ledger.balances[PAYER] == ledger.jobs[JOB].returned == 600
    assert ledger.earnings(1, chain.now).matured == 1_900
    assert ledger.owed == 10_000
    chain.refuses("there is no such dispute open", "DisputeEnded", **ending)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("the job has earned nothing", {"job_id": bytes(32)}),
        ("there were 0 disputes", {"dispute_id": 2}),
        ("1000 is fresh", {"amount": 999}),
        ("0 is fresh", {"version": 1}),
        ("the arbiter has no time to answer", {"answer_until": NOW}),
    ],
)
def test_impossible_dispute_is_refused(what: str, changes: dict[str, Any]) -> None:
    chain = Chain()
    chain.open()
    chain.settle(10, 1_000)
    chain.refuses(what, "Disputed", **{**disputing(1_000, 0, NOW), **changes})


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("1100 is earned and 1000 paid", settling(11, 101)),
        ("1100 is earned and 1000 paid", settling(11, 0)),
        ("10100 is earned and 1000 paid", settling(101, 9_001)),
        ("900 is earned and 1000 paid", settling(9, 1)),
        ("node 2 is not registered", settling(11, 100, node_id=2)),
        ("no job 0x" + "00" * 32 + " was opened", settling(11, 100, job_id=bytes(32))),
    ],
)
def test_wrong_payment_is_refused(what: str, values: dict[str, Any]) -> None:
    chain = Chain()
    chain.open()
    chain.settle(10, 1_000)
    chain.refuses(what, "Settled", **values)


def test_payment_never_exceeds_what_funds_the_job() -> None:
    chain = Chain()
    chain.open()
    chain.settle(1_000, 10_000)
    chain.refuses("100100 is earned and 10000 paid", "Settled", **settling(1_001, 1))
    chain.log("JobToppedUp", job_id=JOB, funder=PAYER, amount=5, funded=10_005)
    chain.settle(1_001, 5)
    assert chain.ledger.escrowed == 0
    assert chain.ledger.jobs[JOB].records == 1_001


def test_payment_in_the_last_second_counts_and_a_later_one_is_refused() -> None:
    chain = Chain()
    chain.open()
    chain.now = TERMS.deadline + GRACE
    chain.settle(10, 1_000)
    chain.now += 1
    chain.refuses("the job is no longer payable", "Settled", **settling(11, 100))


def test_another_nodes_payment_is_refused() -> None:
    chain = Chain()
    chain.register_node(2)
    chain.open()
    chain.refuses("the job is node 1's", "Settled", **settling(1, 100, node_id=2))


def test_completing_returns_the_rest_to_the_funder() -> None:
    chain = Chain()
    chain.open()
    chain.log("JobSponsored", job_id=JOB, sponsor=SPONSOR)
    chain.settle(10, 1_000)
    right = closing(1_000, 9_000, funder=SPONSOR)
    chain.refuses("1000 is paid and 9000 left", "JobClosed", **{**right, "refunded": 9_001})
    chain.refuses("1000 is paid and 9000 left", "JobClosed", **{**right, "paid": 999})
    chain.refuses(f"{SPONSOR} funds the job", "JobClosed", **{**right, "funder": PAYER})
    chain.log("JobClosed", **right)
    job = chain.ledger.jobs[JOB]
    assert (job.state, job.paid, job.refunded) == (JobState.CLOSED, 1_000, 9_000)
    assert job.output_digest == OUTPUT
    assert chain.ledger.balances[SPONSOR] == 9_000
    assert chain.ledger.owed == 10_000
    chain.refuses("the job is CLOSED", "JobClosed", **right)
    chain.refuses("the job is CLOSED", "Settled", **settling(11, 100))


def test_job_ends_without_an_output_only_once_it_is_not_payable() -> None:
    chain = Chain()
    chain.open()
    by_time = closing(0, 10_000, output_digest=bytes(32))
    what = "it ends by its output, or once it isn't payable"
    chain.now = TERMS.deadline + GRACE
    chain.refuses(what, "JobClosed", **by_time)
    chain.now += 1
    chain.refuses(what, "JobClosed", **closing(0, 10_000))
    chain.log("JobClosed", **by_time)
    assert chain.ledger.balances[PAYER] == 10_000


def test_cancelled_job_is_payable_a_grace_period_more() -> None:
    chain = Chain()
    chain.open()
    wish = {"job_id": JOB, "canceller": PAYER, "payable_until": NOW + GRACE}
    longer = {**wish, "payable_until": NOW + GRACE + 1}
    chain.refuses(f"it stays payable until {NOW + GRACE}", "JobCancelled", **longer)
    stranger = {**wish, "canceller": THIEF}
    chain.refuses("neither payer nor funder cancelled", "JobCancelled", **stranger)
    chain.log("JobCancelled", **wish)
    chain.settle(10, 1_000)
    chain.now += GRACE + 1
    chain.refuses("the job is no longer payable", "Settled", **settling(11, 100))
    chain.log("JobClosed", **closing(1_000, 9_000, output_digest=bytes(32)))
    assert chain.ledger.job_status(JOB).state == JobState.CLOSED


def test_voided_job_can_not_be_opened() -> None:
    chain = Chain()
    chain.log("JobVoided", job_id=JOB, payer=PAYER)
    assert chain.ledger.job_status(JOB).state == JobState.CLOSED
    chain.refuses("the job exists", "JobOpened", **opening(TERMS, JOB))
    assert chain.ledger.owed == 0


@pytest.mark.parametrize(
    ("what", "made", "opened"),
    [
        ("the job id is not the digest of the terms", TERMS, bytes(32)),
        ("the deadline has passed", terms(deadline=NOW), None),
        ("node 2 is not registered", terms(node_id=2), None),
    ],
)
def test_impossible_opening_is_refused(what: str, made: JobTerms, opened: bytes | None) -> None:
    chain = Chain()
    found = opened or job_id(made, deployment().vault_domain)
    chain.refuses(what, "JobOpened", **opening(made, found))


def test_suspended_node_gets_no_job_and_a_retired_one_stays_so() -> None:
    chain = Chain()
    chain.log("NodeSuspended", contract="node_registry", node_id=1)
    chain.refuses("node 1 is SUSPENDED", "JobOpened", **opening(TERMS, JOB))
    chain.log("NodeResumed", contract="node_registry", node_id=1)
    chain.open()
    chain.log("NodeRetired", contract="node_registry", node_id=1)
    assert chain.ledger.nodes[1].status == NodeStatus.RETIRED
    chain.refuses("the node is retired", "NodeResumed", contract="node_registry", node_id=1)
    chain.settle(10, 1_000)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("the job is then funded with 10005", {"funded": 10_006}),
        ("the job is then funded with 10000", {"amount": 0, "funded": 10_000}),
        (f"the job is then funded with {2**46}", {"amount": 2**46 - 10_000, "funded": 2**46}),
        (f"{PAYER} funds the job", {"funder": THIEF}),
    ],
)
def test_impossible_top_up_is_refused(what: str, changes: dict[str, Any]) -> None:
    chain = Chain()
    chain.open()
    values = {"job_id": JOB, "funder": PAYER, "amount": 5, "funded": 10_005, **changes}
    chain.refuses(what, "JobToppedUp", **values)


def test_sponsor_comes_only_as_the_job_opens() -> None:
    chain = Chain()
    chain.open()
    what = "a job gets a sponsor only as it opens"
    chain.refuses(what, "JobSponsored", job_id=JOB, sponsor=PAYER)
    chain.log("JobSponsored", job_id=JOB, sponsor=SPONSOR)
    chain.refuses(what, "JobSponsored", job_id=JOB, sponsor=THIEF)


@pytest.mark.parametrize("name", ["BalanceSpent", "Withdrawn"])
def test_nobody_takes_more_than_its_balance(name: str) -> None:
    chain = Chain()
    chain.log("Deposited", account=PAYER, depositor=SPONSOR, amount=100)
    chain.log(name, account=PAYER, to=THIEF, amount=60)
    chain.refuses("the account has 40", name, account=PAYER, to=THIEF, amount=41)
    chain.refuses("the account has 0", name, account=THIEF, to=THIEF, amount=1)
    assert chain.ledger.owed == chain.ledger.balances[PAYER] == 40


def test_refused_push_leaves_the_balance() -> None:
    chain = Chain()
    chain.log("Deposited", account=PAYER, depositor=PAYER, amount=100)
    chain.log("WithdrawalRefused", account=PAYER, amount=100)
    assert chain.ledger.balances[PAYER] == 100
    chain.refuses("the account has 100", "WithdrawalRefused", account=PAYER, amount=99)


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("1000 has matured", distributing((701, 200, 50, 50))),
        ("1000 has matured", distributing((699, 201, 50, 50))),
        ("the present payee set is 0", distributing((700, 200, 50, 50), 1)),
        (
            "these are not the payees of that version",
            distributing((700, 200, 50, 50), hospital=THIEF),
        ),
    ],
)
def test_wrong_split_is_refused(what: str, values: dict[str, Any]) -> None:
    chain = Chain()
    chain.open()
    chain.settle(10, 1_000)
    chain.now += 2 * WINDOW
    chain.refuses(what, "Distributed", **values)


def test_nothing_is_split_before_it_has_matured() -> None:
    chain = Chain()
    chain.open()
    chain.settle(10, 1_000)
    chain.now += 2 * WINDOW - 1
    chain.refuses("0 has matured", "Distributed", **distributing((700, 200, 50, 50)))


def test_payees_do_not_change_while_something_has_matured_or_nothing_is_there() -> None:
    chain = Chain()
    what = "nothing keeps the payee set before"
    chain.refuses(what, "PayeesChanged", node_id=1, version=1)
    chain.open()
    chain.settle(10, 1_000)
    chain.refuses("the present payee set is 0", "PayeesChanged", node_id=1, version=2)
    chain.now += 2 * WINDOW
    chain.refuses(what, "PayeesChanged", node_id=1, version=1)


def test_shares_and_treasury_are_the_registrys() -> None:
    chain = Chain(window=0)
    nodes = "node_registry"
    change = {"node_id": 1, "previous_treasury": HOSPITAL, "new_treasury": BUYER}
    what = "the hospital proposed no such treasury"
    chain.refuses(what, "TreasuryChanged", contract=nodes, **change)
    chain.log("TreasuryProposed", contract=nodes, node_id=1, treasury=BUYER)
    chain.log("TreasuryChanged", contract=nodes, **change)
    shares = {"node_owner_bps": 3_333, "onboarder_bps": 0, "protocol_bps": 1}
    chain.log("SharesChanged", contract=nodes, node_id=1, **shares)
    chain.open()
    chain.settle(10, 1_000)
    chain.log("Distributed", **distributing((667, 333, 0, 0), hospital=BUYER))
    assert chain.ledger.payees(1).hospital == BUYER
    assert (chain.ledger.balances[BUYER], chain.ledger.balances[OWNER]) == (667, 333)


def test_token_moves_only_from_its_owner() -> None:
    chain = Chain()
    move = {"contract": "node_registry", "token_id": 1, "receiver": BUYER}
    what = f"{OWNER} owns the node's token"
    chain.refuses(what, "Transfer", sender=THIEF, **move)
    chain.refuses("the node's token exists", "Transfer", sender=ZERO_ADDRESS, **move)


def test_node_is_registered_with_its_token() -> None:
    chain = Chain()
    chain.refuses(
        "the node's token was not made for its owner",
        "NodeRegistered",
        contract="node_registry",
        node_id=2,
        node_owner=OWNER,
        hospital=HOSPITAL,
        onboarder=ONBOARDER,
        hardware_hash=bytes(32),
    )


def test_pause_lasts_half_a_grace_and_the_next_waits_a_whole_one() -> None:
    chain = Chain()
    half = "a pause lasts half a grace period"
    chain.refuses(half, "Paused", guardian=ARBITER, until=NOW + GRACE)
    chain.refuses("it was not paused", "Unpaused", owner=ARBITER)
    chain.log("Paused", guardian=ARBITER, until=NOW + GRACE // 2)
    chain.now += HOUR
    chain.log("Unpaused", owner=ARBITER)
    assert chain.ledger.paused_until == chain.now
    chain.now += GRACE - 1
    what = f"the last pause is until {NOW + HOUR}"
    chain.refuses(what, "Paused", guardian=ARBITER, until=chain.now + GRACE // 2)
    chain.now += 1
    chain.log("Paused", guardian=ARBITER, until=chain.now + GRACE // 2)


def test_refused_receipts_and_recovered_tokens_move_nothing() -> None:
    chain = Chain()
    chain.log("ReceiptRefused", job_id=JOB, outcome=2)
    chain.log("Recovered", token=address("usdc"), to=ARBITER, amount=5)
    assert chain.ledger.refused == {JOB: [Outcome.UNKNOWN_JOB]}
    assert chain.ledger.recovered == {address("usdc"): 5}
    assert chain.ledger.owed == 0
    chain.refuses("outcome 1 is no refusal", "ReceiptRefused", job_id=JOB, outcome=1)


def test_who_governs_is_known() -> None:
    chain = Chain()
    chain.log("OwnershipTransferred", previous_owner=ZERO_ADDRESS, new_owner=BUYER)
    chain.log("GuardianChanged", previous_guardian=ZERO_ADDRESS, new_guardian=OWNER)
    chain.log("ArbiterChanged", previous_arbiter=ZERO_ADDRESS, new_arbiter=ARBITER)
    nodes = {"contract": "node_registry"}
    chain.log("RegistrarChanged", previous_registrar=ZERO_ADDRESS, new_registrar=PAYER, **nodes)
    chain.log("GuardianChanged", previous_guardian=OWNER, new_guardian=THIEF, **nodes)
    ledger = chain.ledger
    assert (ledger.owner, ledger.guardian, ledger.arbiter) == (BUYER, OWNER, ARBITER)
    assert ledger.registrar == PAYER


def test_events_are_taken_in_their_order_and_once() -> None:
    chain = Chain()
    event = chain.log("Deposited", account=PAYER, depositor=PAYER, amount=100)
    with pytest.raises(LedgerContradiction) as twice:
        chain.ledger.apply(event, NOW)
    assert twice.value.what == "it is not after the event before it"
    assert twice.value.event == event
    assert isinstance(twice.value, RaphaError)
    assert chain.ledger.owed == 100
    chain.now -= 1
    what = "its block is older than the event before it"
    chain.refuses(what, "Deposited", account=PAYER, depositor=PAYER, amount=100)


def test_enclave_registrys_events_change_nothing() -> None:
    chain = Chain()
    before = deepcopy(chain.ledger.nodes)
    chain.log("EnclaveRevoked", contract="enclave_registry", enclave_key=PAYER)
    assert chain.ledger.nodes == before
    assert chain.ledger.owed == 0
