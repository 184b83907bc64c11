"""Tokens that call back, lie, keep a part or stop half-way, each under a vault of its own."""

from dataclasses import dataclass
from typing import Any

import boa
import pytest
from world import ARBITRATION, DAY, RICH, World, actor, reverts

from settlement.contracts import JobState, artifact, order, terms_ref
from settlement.models import OpenJobs, Withdrawal
from settlement.reverts import Revert

RECORD = 100_000
PAYEES = ("hospital", "node owner", "onboarder", "protocol")
YES, NO, TWO = ((n).to_bytes(32, "big") for n in (1, 0, 2))
LATE = 2**63
SIGNATURE = b"\x01" * 65  # this token looks at none


@pytest.fixture
def hostile(world: World) -> World:
    return world.create_hostile_vault()


# calling back


@dataclass
class Busy:
    """A hostile vault with a call of every kind that does something, also when the token calls."""

    world: World
    calls: dict[str, tuple[Any, ...]]
    # those that move the token, by the caller that can make them
    moves: dict[str, str]


@pytest.fixture
def busy(world: World) -> Busy:
    hostile = world.create_hostile_vault(window=3_600)
    token, payer, anyone = hostile.usdc.address, actor("payer").address, actor("anyone").address
    hostile.usdc.mint(token, RICH)
    hostile.vault.deposit(token, RICH // 2, sender=payer)
    hostile.deposit("payer", RICH // 4)
    soon, far = hostile.now + DAY, hostile.now + 30 * DAY
    done, frozen, stale = (hostile.terms(n, deadline=soon) for n in range(3))
    running = hostile.terms(3, deadline=far)
    waiting = hostile.terms(4, deadline=far, node_id=0)
    for terms in (done, frozen, stale, running, waiting):
        hostile.open(terms)
    own = hostile.terms(5, deadline=far, payer=str(token))
    hostile.vault.open_job(order(own), sender=token)
    hostile.settle(hostile.claim(done, 100, complete=True), hostile.claim(frozen, 100))
    hostile.dispute(frozen)
    hostile.pass_time(ARBITRATION + 1)
    hostile.register_enclave()
    new = [hostile.terms(10 + n, deadline=far) for n in range(4)]
    withdrawal = Withdrawal(account=payer, to=payer, amount=5, nonce=0, deadline=LATE)
    sponsored = new[0].model_copy(update={"payer": actor("sponsored").address})
    consent = hostile.consent(sponsored, signer=actor("sponsored"))
    claim = hostile.claim(running, 10).abi_value()
    calls: dict[str, tuple[Any, ...]] = {
        "open_job": (order(new[0]),),
        "open_job_with_permit": (order(new[0]), LATE, 27, bytes(32), bytes(32)),
        "open_job_with_authorization": (payer, order(new[1]), 0, LATE, SIGNATURE),
        "open_jobs": (
            payer,
            [order(new[2])],
            hostile.sign_intent(OpenJobs(jobs=(new[2],)), actor("payer")),
        ),
        "sponsor_job": (sponsored.payer, order(sponsored), consent),
        "top_up": (terms_ref(own), 5, False),
        "void_job": (order(new[3]),),
        "assign": (terms_ref(waiting), 1, hostile.assignment(waiting)),
        "cancel": (terms_ref(own),),
        "refund": (terms_ref(stale),),
        "settle": (claim,),
        "settle_many": ([claim],),
        "distribute": (1,),
        "distribute_many": ([1],),
        "distribute_past": (1, 0),
        "release": (1,),
        "deposit": (payer, 5),
        "deposit_with_authorization": (payer, 5, 0, LATE, bytes(32), SIGNATURE),
        "withdraw": (),
        "withdraw_for": (payer,),
        "withdraw_for_many": ([payer],),
        "withdraw_to": (payer, 5),
        "withdraw_by_signature": (
            payer,
            payer,
            5,
            LATE,
            hostile.sign_intent(withdrawal, actor("payer")),
        ),
        "recover": (token, anyone),
    }
    moves = dict.fromkeys(
        ["open_job", "open_job_with_permit", "deposit", "withdraw", "withdraw_to"], payer
    )
    moves |= dict.fromkeys(
        ["open_job_with_authorization", "deposit_with_authorization", "withdraw_for"], anyone
    )
    moves |= dict.fromkeys(["withdraw_for_many", "withdraw_by_signature"], anyone)
    moves |= {"sponsor_job": actor("sponsor").address, "top_up": token}
    moves |= {"recover": hostile.deployment.timelock}
    return Busy(hostile, calls, moves)


# calls that a token has no right to at any time
OTHERS = {
    "checkpoint",
    "set_active",
    "dispute",
    "resolve",
    "set_arbiter",
    "pause",
    "unpause",
    "set_guardian",
    "transfer_ownership",
    "accept_ownership",
    "recover",
}


def test_every_function_is_tried_as_a_call_back_or_closed_to_the_token(busy: Busy) -> None:
    changing = {
        entry["name"]
        for entry in artifact("RaphaClearingVault").abi
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    assert changing == set(busy.calls) | OTHERS


def test_calls_that_are_tried_succeed_when_the_token_makes_them_outside_of_a_transfer(
    busy: Busy,
) -> None:
    """What makes the refusals in the middle of a transfer mean something."""
    vault, token = busy.world.vault, busy.world.usdc.address
    for name in set(busy.calls) - OTHERS - {"sponsor_job"}:
        with boa.env.anchor():
            getattr(vault, name)(*busy.calls[name], sender=token)


@pytest.mark.parametrize(
    "move",
    [
        "open_job",
        "open_job_with_permit",
        "open_job_with_authorization",
        "sponsor_job",
        "top_up",
        "deposit",
        "deposit_with_authorization",
        "withdraw",
        "withdraw_for",
        "withdraw_for_many",
        "withdraw_to",
        "withdraw_by_signature",
        "recover",
    ],
)
def test_token_that_calls_back_at_any_transfer_gets_nowhere(busy: Busy, move: str) -> None:
    vault, token = busy.world.vault, busy.world.usdc
    for name in set(busy.calls) - OTHERS:
        with boa.env.anchor():
            payload = getattr(vault, name).prepare_calldata(*busy.calls[name])
            token.attack(vault.address, payload)
            getattr(vault, move)(*busy.calls[move], sender=busy.moves[move])
            assert (name, token.attempts(), token.reentered()) == (name, 1, False)


def test_not_even_an_owner_changes_the_guardian_in_the_middle_of_a_transfer(hostile: World) -> None:
    vault, token, thief = hostile.vault, hostile.usdc, actor("thief").address
    hostile.govern(vault, "transfer_ownership", token.address)
    vault.accept_ownership(sender=token.address)
    token.attack(vault.address, vault.set_guardian.prepare_calldata(thief))
    vault.deposit(actor("friend").address, 5, sender=actor("payer").address)
    assert (token.attempts(), token.reentered()) == (1, False)
    assert vault.guardian() == actor("guardian").address
    vault.set_guardian(thief, sender=token.address)
    assert vault.guardian() == thief


def test_lists_of_transfers_are_the_same(busy: Busy) -> None:
    moved = set()
    for name, arguments in busy.calls.items():
        with boa.env.anchor():
            busy.world.usdc.attack(actor("nobody").address, b"")
            sender = busy.moves.get(name, busy.world.usdc.address)
            getattr(busy.world.vault, name)(*arguments, sender=sender)
            if busy.world.usdc.attempts():
                moved.add(name)
    assert moved == set(busy.moves)


def test_token_that_calls_back_cannot_withdraw_twice(hostile: World) -> None:
    terms, hospital = hostile.terms(), actor("hospital").address
    hostile.open(terms)
    hostile.settle(hostile.claim(terms, 100, complete=True))
    hostile.distribute()
    again = hostile.vault.withdraw_for.prepare_calldata(hospital)
    hostile.usdc.attack(hostile.vault.address, again)
    assert hostile.vault.withdraw_for(hospital, sender=actor("thief").address) == 7_000_000
    assert hostile.usdc.balanceOf(hospital) == 7_000_000
    assert hostile.vault.owed() == terms.budget - 7_000_000


# answers


@pytest.mark.parametrize("answer", [NO, TWO], ids=["no", "two"])
def test_token_that_does_not_say_yes_is_not_believed_when_money_comes_in(
    hostile: World, answer: bytes
) -> None:
    terms = hostile.terms()
    hostile.deposit("payer", 10)
    hostile.usdc.set_answer(answer)
    reason = Revert.VAULT_TRANSFER_FAILED if answer == NO else None
    for call in (
        lambda: hostile.open(terms),
        lambda: hostile.deposit("payer", 5),
        lambda: hostile.sponsor(terms),
        lambda: hostile.vault.withdraw(sender=actor("payer").address),
        lambda: hostile.vault.withdraw_to(terms.payer, 5, sender=terms.payer),
    ):
        with reverts(reason):
            call()
    assert hostile.job(terms).state == JobState.UNKNOWN
    assert hostile.balance("payer") == 10 == hostile.vault.owed()


@pytest.mark.parametrize("answer", [NO, TWO], ids=["no", "two"])
def test_token_that_does_not_say_yes_leaves_pushed_balances(hostile: World, answer: bytes) -> None:
    hostile.deposit("payer", 10)
    hostile.usdc.set_answer(answer)
    accounts = [actor("payer").address]
    assert hostile.vault.withdraw_for_many(accounts, sender=actor("anyone").address) == 0
    assert hostile.events(hostile.vault) == [
        ("WithdrawalRefused", {"account": accounts[0], "amount": 10})
    ]
    assert hostile.balance("payer") == 10 == hostile.vault.owed()


def test_token_that_answers_nothing_is_taken_at_its_transfers_word(hostile: World) -> None:
    """As of tokens that return no value: a failed transfer of theirs reverts."""
    hostile.usdc.set_answer(b"")
    hostile.deposit("payer", 30)
    hostile.vault.withdraw_to(actor("payer").address, 10, sender=actor("payer").address)
    accounts = [actor("payer").address]
    assert hostile.vault.withdraw_for_many(accounts, sender=actor("anyone").address) == 20
    assert hostile.balance("payer") == hostile.vault.owed() == 0
    assert hostile.wallet("payer") == RICH


# a part kept


def take_the_surplus(hostile: World) -> None:
    """Leave the vault with exactly what it owes."""
    hostile.govern(hostile.vault, "recover", hostile.usdc.address, actor("rescue").address)


def test_token_that_keeps_a_part_is_refused(hostile: World) -> None:
    terms, before = hostile.terms(), hostile.now + DAY
    hostile.deposit("payer", 10)
    take_the_surplus(hostile)
    hostile.open(hostile.terms(1))
    hostile.usdc.set_fee(1)
    payer, anyone = terms.payer, actor("anyone").address
    for call in (
        lambda: hostile.open(terms),
        lambda: hostile.vault.open_job_with_permit(
            order(terms), before, 27, bytes(32), bytes(32), sender=payer
        ),
        lambda: hostile.vault.open_job_with_authorization(
            payer, order(terms), 0, before, SIGNATURE, sender=anyone
        ),
        lambda: hostile.sponsor(terms),
        lambda: hostile.deposit("payer", 5),
        lambda: hostile.vault.deposit_with_authorization(
            payer, 5, 0, before, bytes(32), SIGNATURE, sender=anyone
        ),
        lambda: hostile.top_up(hostile.terms(1), 5),
    ):
        with reverts(Revert.VAULT_RECEIVED_TOO_LITTLE):
            call()
    assert (
        hostile.vault.owed() == 10 + terms.budget == hostile.usdc.balanceOf(hostile.vault.address)
    )
    hostile.usdc.set_fee(0)
    hostile.open(terms)


# stopping


def test_token_that_stops_in_the_middle_of_many_pushes_loses_nobodys_balance(
    hostile: World,
) -> None:
    terms = hostile.terms()
    hostile.open(terms)
    hostile.settle(hostile.claim(terms, 100, complete=True))
    hostile.distribute()
    hostile.usdc.stop_after(2)
    accounts = [actor(name).address for name in PAYEES]
    anyone = actor("anyone").address
    assert hostile.vault.withdraw_for_many(accounts, sender=anyone) == 9_000_000
    names = [name for name, _ in hostile.events(hostile.vault)]
    assert names == ["Withdrawn", "Withdrawn", "WithdrawalRefused", "WithdrawalRefused"]
    assert [hostile.wallet(name) for name in PAYEES] == [7_000_000, 2_000_000, 0, 0]
    assert [hostile.balance(name) for name in PAYEES] == [0, 0, 500_000, 500_000]
    assert hostile.vault.owed() == terms.budget - 9_000_000
    with reverts("TestHostileToken: stopped"):
        hostile.vault.withdraw_for(accounts[2], sender=anyone)
    hostile.usdc.stop_after(10)
    assert hostile.vault.withdraw_for_many(accounts, sender=anyone) == 1_000_000


def test_token_that_refuses_one_payee_stops_no_other(hostile: World) -> None:
    for name in PAYEES:
        hostile.vault.deposit(actor(name).address, 10, sender=actor("payer").address)
    hostile.usdc.refuse(actor("onboarder").address, True)
    accounts = [actor(name).address for name in PAYEES]
    assert hostile.vault.withdraw_for_many(accounts, sender=actor("anyone").address) == 30
    assert [hostile.balance(name) for name in PAYEES] == [0, 0, 10, 0]
    with reverts("TestHostileToken: account refused"):
        hostile.vault.withdraw(sender=actor("onboarder").address)
    hostile.usdc.refuse(actor("onboarder").address, False)
    assert hostile.vault.withdraw(sender=actor("onboarder").address) == 10


def test_stopped_token_stops_no_settling(hostile: World) -> None:
    terms = hostile.terms()
    hostile.open(terms)
    hostile.usdc.stop_after(0)
    hostile.settle(hostile.claim(terms, 100, complete=True))
    assert hostile.distribute() == 100 * RECORD
    assert hostile.balance("payer") == terms.budget - 100 * RECORD
