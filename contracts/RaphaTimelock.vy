# pragma version 0.4.3
# pragma evm-version cancun
"""
@title RaphaTimelock
@license AGPL-3.0-only
@notice The governance: whatever it changes was announced at least the minimum delay before. Its admin is
        itself, so a change of its own roles waits as well. All logic is snekmate's timelock controller.
"""
from snekmate.auth import access_control
from snekmate.governance import timelock_controller

initializes: access_control
initializes: timelock_controller[access_control := access_control]

exports: timelock_controller.__interface__


@deploy
def __init__(minimum_delay: uint256, proposers: DynArray[address, 255], executors: DynArray[address, 255]):
    """
    @param minimum_delay Seconds between announcing an operation and executing it.
    @param proposers Accounts that may announce and cancel.
    @param executors Accounts that may execute; the zero address admits anyone.
    """
    access_control.__init__()
    timelock_controller.__init__(minimum_delay, proposers, executors, empty(address))
