# pragma version 0.4.3
# pragma nonreentrancy on
"""
@title The packed words of the ledger, and how fresh earnings mature
@license AGPL-3.0-only
@notice A job and a node's earnings are one storage word each. `tests/symbolic` proves on the compiled code that
        packing loses nothing and that no field can reach into another.
@dev Time is counted in periods, each as long as the challenge window. What was earned in a period has matured
     once a whole period has passed after it, so it waits one to two windows.
"""

# USDC base units that a job's fields hold: 70,368,744.177663 USDC
MAX_BUDGET: constant(uint256) = 2**46 - 1
MAX_NODE_ID: constant(uint256) = 2**22 - 1
MAX_VERSION: constant(uint256) = 2**24 - 1
# USDC base units that the vault may owe in all, and so what any field of a node's earnings holds
MAX_OWED: constant(uint256) = 2**56 - 1

# Where a job's fields begin: state (3 bits), sponsored (1), node (22), payee version (24), period (22), and 46 bits
# each for what is earlier, fresh, paid and funded. Version and period together are the step.
STATE: constant(uint256) = 253
SPONSORED: constant(uint256) = 252
NODE_ID: constant(uint256) = 230
VERSION: constant(uint256) = 206
STEP: constant(uint256) = 184
EARLIER: constant(uint256) = 138
FRESH: constant(uint256) = 92
PAID: constant(uint256) = 46
# Where the fields of a node's earnings begin: 56 bits each for what is matured, fresh and earlier, payee version
# (24), period (22), and in the low 42 bits how many disputes are open.
MATURED: constant(uint256) = 200
NODE_FRESH: constant(uint256) = 144
NODE_EARLIER: constant(uint256) = 88
NODE_VERSION: constant(uint256) = 64
NODE_STEP: constant(uint256) = 42

MASK_22: constant(uint256) = 2**22 - 1
MASK_24: constant(uint256) = 2**24 - 1
MASK_42: constant(uint256) = 2**42 - 1
MASK_46: constant(uint256) = 2**46 - 1
MASK_56: constant(uint256) = 2**56 - 1


# Amounts are USDC base units.
struct Job:
    # a member of `escrow`'s states
    state: uint256
    # 1 when somebody else than the payer funded it
    sponsored: uint256
    node_id: uint256
    # payee set of the node that `fresh` and `earlier` belong to
    version: uint256
    # period of `fresh`
    period: uint256
    # of `paid`, what was earned in the period before `period` and has not matured
    earlier: uint256
    # of `paid`, what was earned in `period`
    fresh: uint256
    paid: uint256
    funded: uint256


struct Earnings:
    # may be distributed
    matured: uint256
    # earned in `period`
    fresh: uint256
    # earned in the period before, and not matured
    earlier: uint256
    # the node's payee set, counted from 0
    version: uint256
    period: uint256
    # how many disputes about these earnings are open
    disputes: uint256


@internal
@pure
def _unpack_job(word: uint256) -> Job:
    return Job(
        state=word >> STATE,
        sponsored=(word >> SPONSORED) & 1,
        node_id=(word >> NODE_ID) & MASK_22,
        version=(word >> VERSION) & MASK_24,
        period=(word >> STEP) & MASK_22,
        earlier=(word >> EARLIER) & MASK_46,
        fresh=(word >> FRESH) & MASK_46,
        paid=(word >> PAID) & MASK_46,
        funded=word & MASK_46,
    )


@internal
@pure
def _pack_job(job: Job) -> uint256:
    return (
        job.state << STATE
        | job.sponsored << SPONSORED
        | job.node_id << NODE_ID
        | job.version << VERSION
        | job.period << STEP
        | job.earlier << EARLIER
        | job.fresh << FRESH
        | job.paid << PAID
        | job.funded
    )


@internal
@pure
def _unpack_earnings(word: uint256) -> Earnings:
    return Earnings(
        matured=word >> MATURED,
        fresh=(word >> NODE_FRESH) & MASK_56,
        earlier=(word >> NODE_EARLIER) & MASK_56,
        version=(word >> NODE_VERSION) & MASK_24,
        period=(word >> NODE_STEP) & MASK_22,
        disputes=word & MASK_42,
    )


@internal
@pure
def _pack_earnings(earnings: Earnings) -> uint256:
    return (
        earnings.matured << MATURED
        | earnings.fresh << NODE_FRESH
        | earnings.earlier << NODE_EARLIER
        | earnings.version << NODE_VERSION
        | earnings.period << NODE_STEP
        | earnings.disputes
    )


@internal
@pure
def _roll_job(job: Job, period: uint256) -> Job:
    """
    @dev The job at a later period: what has matured is forgotten here, since it can no longer be disputed.
    """
    rolled: Job = job
    if period != job.period:
        rolled.earlier = job.fresh if period == job.period + 1 else 0
        rolled.fresh = 0
        rolled.period = period
    return rolled


@internal
@pure
def _roll_earnings(earnings: Earnings, period: uint256) -> Earnings:
    """
    @dev The earnings at a later period: nothing is lost, some of it matures.
    """
    rolled: Earnings = earnings
    if period != earnings.period:
        rolled.matured += earnings.earlier
        if period == earnings.period + 1:
            rolled.earlier = earnings.fresh
        else:
            rolled.matured += earnings.fresh
            rolled.earlier = 0
        rolled.fresh = 0
        rolled.period = period
    return rolled


@internal
@pure
def _share(amount: uint256, bps: uint256) -> uint256:
    """
    @dev A share in basis points, rounded down. The hospital gets what is left, so a split sums exactly.
    """
    return amount * bps // 10_000
