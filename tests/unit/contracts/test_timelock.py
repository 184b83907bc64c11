"""On a real chain the timelock's delay is at least two days, whoever deploys it and ever after."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boa
import pytest
from eth_utils import keccak
from world import DAY, World, actor, deploy, reverts

from settlement.deployment import REAL_CHAINS
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

NONE = bytes(32)
ELSEWHERE = [10, 31_337, 80_001, 11_155_111]


@contextmanager
def on_chain(chain_id: int) -> Iterator[None]:
    """What `chain.id` answers inside."""
    before = boa.env.evm.patch.chain_id
    boa.env.evm.patch.chain_id = chain_id
    try:
        yield
    finally:
        boa.env.evm.patch.chain_id = before


def create(delay: int) -> Any:
    proposers = [actor("proposer").address]
    return deploy("RaphaTimelock", delay, proposers, proposers, sender=actor("deployer").address)


def update_delay(timelock: Any, delay: int) -> None:
    """Announce and execute a change of the delay."""
    call = timelock.update_delay.prepare_calldata(delay)
    proposer, wait = actor("proposer").address, timelock.get_minimum_delay()
    timelock.schedule(timelock.address, 0, call, NONE, NONE, wait, sender=proposer)
    boa.env.time_travel(seconds=wait)
    timelock.execute(timelock.address, 0, call, NONE, NONE, sender=proposer)


def test_real_chains_are_those_of_the_sdk() -> None:
    assert sorted(REAL_CHAINS) == [1, 137, 80_002]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
@pytest.mark.parametrize("delay", [0, 1, 2 * DAY - 1])
def test_shorter_delay_is_refused_at_creation(chain_id: int, delay: int) -> None:
    with on_chain(chain_id), reverts(Revert.TIMELOCK_DELAY_BELOW_TWO_DAYS):
        create(delay)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
@pytest.mark.parametrize("delay", [2 * DAY, 2 * DAY + 1, 30 * DAY])
def test_two_days_and_more_are_taken_at_creation(chain_id: int, delay: int) -> None:
    with on_chain(chain_id):
        assert create(delay).get_minimum_delay() == delay


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("chain_id", ELSEWHERE)
@pytest.mark.parametrize("delay", [0, 1, 2 * DAY])
def test_any_delay_is_taken_elsewhere(chain_id: int, delay: int) -> None:
    with on_chain(chain_id):
        timelock = create(delay)
        assert timelock.get_minimum_delay() == delay
        update_delay(timelock, 0)
        assert timelock.get_minimum_delay() == 0


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
def test_delay_is_never_lowered_under_two_days(chain_id: int) -> None:
    with on_chain(chain_id):
        timelock = create(3 * DAY)
        for delay in (0, 2 * DAY - 1):
            with reverts(Revert.TIMELOCK_DELAY_BELOW_TWO_DAYS):
                timelock.update_delay(delay, sender=timelock.address)
            with reverts(Revert.TIMELOCK_DELAY_BELOW_TWO_DAYS):
                update_delay(timelock, delay)
        assert timelock.get_minimum_delay() == 3 * DAY
        update_delay(timelock, 2 * DAY)
        assert timelock.get_minimum_delay() == 2 * DAY


def test_change_of_the_delay_is_logged(world: World) -> None:
    world.timelock.update_delay(5 * DAY, sender=world.timelock.address)
    ((_, topics, data),) = world.timelock._computation.get_log_entries()
    assert topics == (int.from_bytes(keccak(text="MinimumDelayChange(uint256,uint256)"), "big"),)
    assert data == (2 * DAY).to_bytes(32, "big") + (5 * DAY).to_bytes(32, "big")
    assert world.timelock.get_minimum_delay() == 5 * DAY


@pytest.mark.parametrize("name", ["proposer", "guardian", "deployer", "thief"])
def test_nobody_but_the_timelock_changes_the_delay(world: World, name: str) -> None:
    with reverts(Revert.TIMELOCK_CALLER_IS_NOT_THE_TIMELOCK):
        world.timelock.update_delay(5 * DAY, sender=actor(name).address)


def test_delay_in_force_is_the_one_that_a_change_of_it_waits_for(world: World) -> None:
    call = world.timelock.update_delay.prepare_calldata(5 * DAY)
    proposer = actor("proposer").address
    arguments = (world.timelock.address, 0, call, NONE, NONE)
    with reverts(Revert.TIMELOCK_DELAY_IS_TOO_SHORT):
        world.timelock.schedule(*arguments, 2 * DAY - 1, sender=proposer)
    world.timelock.schedule(*arguments, 2 * DAY, sender=proposer)
    world.pass_time(2 * DAY - 1)
    with reverts(Revert.TIMELOCK_OPERATION_IS_NOT_READY):
        world.timelock.execute(*arguments, sender=proposer)
    world.pass_time(1)
    world.timelock.execute(*arguments, sender=proposer)
    assert world.timelock.get_minimum_delay() == 5 * DAY


def test_timelock_administers_itself_and_the_deployer_nothing(world: World) -> None:
    admin = world.timelock.DEFAULT_ADMIN_ROLE()
    assert world.timelock.hasRole(admin, world.timelock.address)
    for name in ("deployer", "proposer", "guardian"):
        assert not world.timelock.hasRole(admin, actor(name).address)
        for role in ("PROPOSER_ROLE", "EXECUTOR_ROLE", "CANCELLER_ROLE"):
            held = world.timelock.hasRole(getattr(world.timelock, role)(), actor(name).address)
            assert held == (name == "proposer")


def test_batch_waits_and_runs_as_one(world: World) -> None:
    calls = [
        world.enclaves.allow_measurement.prepare_calldata(b"\x07" * 32),
        world.vault.set_arbiter.prepare_calldata(actor("arbiter 2").address),
    ]
    targets = [world.enclaves.address, world.vault.address]
    arguments = (targets, [0, 0], calls, NONE, NONE)
    proposer = actor("proposer").address
    world.timelock.schedule_batch(*arguments, 2 * DAY, sender=proposer)
    world.pass_time(2 * DAY - 1)
    with reverts(Revert.TIMELOCK_OPERATION_IS_NOT_READY):
        world.timelock.execute_batch(*arguments, sender=proposer)
    world.pass_time(1)
    world.timelock.execute_batch(*arguments, sender=proposer)
    assert world.enclaves.is_measurement_allowed(b"\x07" * 32)
    assert world.vault.arbiter() == actor("arbiter 2").address


@pytest.mark.parametrize("name", ["proposer", "guardian", "deployer", "thief"])
def test_nobody_takes_or_gives_a_role_without_the_delay(world: World, name: str) -> None:
    """Nor does the proposer, who holds roles but administers none."""
    timelock, sender = world.timelock, actor(name).address
    role, admin = timelock.PROPOSER_ROLE(), timelock.DEFAULT_ADMIN_ROLE()
    for call in (
        lambda: timelock.grantRole(role, sender, sender=sender),
        lambda: timelock.revokeRole(role, actor("proposer").address, sender=sender),
        lambda: timelock.set_role_admin(role, role, sender=sender),
    ):
        with reverts(Revert.ACCESS_ROLE_IS_MISSING):
            call()
    assert timelock.getRoleAdmin(role) == admin
    assert timelock.hasRole(role, actor("proposer").address)


def test_role_is_given_up_only_by_its_holder(world: World) -> None:
    timelock, proposer = world.timelock, actor("proposer").address
    role = timelock.PROPOSER_ROLE()
    with reverts(Revert.ACCESS_CALLER_CAN_ONLY_RENOUNCE_ITS_OWN_ROLES):
        timelock.renounceRole(role, proposer, sender=actor("thief").address)
    timelock.renounceRole(role, proposer, sender=proposer)
    assert not timelock.hasRole(role, proposer)


def test_operations_that_cannot_be_are_refused(world: World) -> None:
    timelock, proposer = world.timelock, actor("proposer").address
    call = world.vault.set_arbiter.prepare_calldata(ZERO_ADDRESS)
    arguments = (world.vault.address, 0, call, NONE, NONE)
    lists = ([world.vault.address], [0, 0], [call], NONE, NONE)
    with reverts(Revert.TIMELOCK_LISTS_DIFFER_IN_LENGTH):
        timelock.schedule_batch(*lists, 2 * DAY, sender=proposer)
    with reverts(Revert.TIMELOCK_OPERATION_CANNOT_BE_CANCELLED):
        timelock.cancel(timelock.hash_operation(*arguments), sender=proposer)
    timelock.schedule(*arguments, 2 * DAY, sender=proposer)
    with reverts(Revert.TIMELOCK_OPERATION_IS_SCHEDULED):
        timelock.schedule(*arguments, 2 * DAY, sender=proposer)
    world.pass_time(2 * DAY)
    # what the called contract says is passed on, and nothing is done
    with reverts(Revert.VAULT_ARBITER_IS_ZERO):
        timelock.execute(*arguments, sender=proposer)
    assert timelock.is_operation_ready(timelock.hash_operation(*arguments))


def test_call_that_fails_without_a_reason_is_said_to_fail(world: World) -> None:
    timelock, proposer = world.timelock, actor("proposer").address
    arguments = (world.vault.address, 0, b"\xff" * 4, NONE, NONE)
    timelock.schedule(*arguments, 2 * DAY, sender=proposer)
    world.pass_time(2 * DAY)
    with reverts(Revert.TIMELOCK_OPERATION_REVERTED):
        timelock.execute(*arguments, sender=proposer)


def test_operation_goes_from_unset_to_waiting_to_ready_to_done(world: World) -> None:
    call = world.vault.set_arbiter.prepare_calldata(actor("arbiter 2").address)
    arguments = (world.vault.address, 0, call, NONE, NONE)
    operation, proposer = world.timelock.hash_operation(*arguments), actor("proposer").address

    def state() -> tuple[bool, ...]:
        return tuple(
            getattr(world.timelock, name)(operation)
            for name in (
                "is_operation",
                "is_operation_pending",
                "is_operation_ready",
                "is_operation_done",
            )
        )

    assert state() == (False, False, False, False)
    world.timelock.schedule(*arguments, 2 * DAY, sender=proposer)
    assert state() == (True, True, False, False)
    assert world.timelock.get_timestamp(operation) == world.now + 2 * DAY
    world.pass_time(2 * DAY)
    assert state() == (True, True, True, False)
    world.timelock.execute(*arguments, sender=proposer)
    assert state() == (True, False, False, True)
