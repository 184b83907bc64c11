# pragma version 0.4.3
# pragma evm-version cancun
"""
@title RaphaTimelock
@license AGPL-3.0-only
@notice The governance: whatever it changes was announced at least the minimum delay before, two days on a real
        chain. Its admin is itself, so a change of its own roles waits as well. All logic but the least delay is
        snekmate's timelock controller.
"""
from snekmate.auth import access_control
from snekmate.governance import timelock_controller

initializes: access_control
initializes: timelock_controller[access_control := access_control]

exports: (
    timelock_controller.DEFAULT_ADMIN_ROLE,
    timelock_controller.PROPOSER_ROLE,
    timelock_controller.EXECUTOR_ROLE,
    timelock_controller.CANCELLER_ROLE,
    timelock_controller.hasRole,
    timelock_controller.getRoleAdmin,
    timelock_controller.grantRole,
    timelock_controller.revokeRole,
    timelock_controller.renounceRole,
    timelock_controller.set_role_admin,
    timelock_controller.supportsInterface,
    timelock_controller.get_timestamp,
    timelock_controller.get_minimum_delay,
    timelock_controller.is_operation,
    timelock_controller.is_operation_pending,
    timelock_controller.is_operation_ready,
    timelock_controller.is_operation_done,
    timelock_controller.get_operation_state,
    timelock_controller.hash_operation,
    timelock_controller.hash_operation_batch,
    timelock_controller.schedule,
    timelock_controller.schedule_batch,
    timelock_controller.cancel,
    timelock_controller.execute,
    timelock_controller.execute_batch,
)

MIN_DELAY: constant(uint256) = 2 * 24 * 60 * 60
# Ethereum, Polygon PoS, Amoy
REAL_CHAINS: constant(uint256[3]) = [1, 137, 80002]


@deploy
def __init__(minimum_delay: uint256, proposers: DynArray[address, 255], executors: DynArray[address, 255]):
    """
    @param minimum_delay Seconds between announcing an operation and executing it.
    @param proposers Accounts that may announce and cancel.
    @param executors Accounts that may execute; the zero address admits anyone.
    """
    access_control.__init__()
    timelock_controller.__init__(minimum_delay, proposers, executors, empty(address))
    self._check_delay(minimum_delay)


@external
def update_delay(new_delay: uint256):
    """
    @notice Change the minimum delay. The timelock itself only, so after the present delay.
    @param new_delay Seconds.
    """
    assert msg.sender == self, "timelock_controller: caller must be timelock"
    self._check_delay(new_delay)
    log timelock_controller.MinimumDelayChange(
        old_duration=timelock_controller.get_minimum_delay, new_duration=new_delay
    )
    timelock_controller.get_minimum_delay = new_delay


@internal
@view
def _check_delay(delay: uint256):
    assert chain.id not in REAL_CHAINS or delay >= MIN_DELAY, "timelock: delay below two days"
