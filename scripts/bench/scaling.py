"""Whether cost grows with what happened before: the same transactions on ever fuller deployments.

Each level is a new chain with the same keys, salts and addresses, so the measured calls are the
same to the byte, and any difference in gas would come from what the contracts hold.
"""

from collections.abc import Sequence

from scripts.bench.gas import Progress
from scripts.bench.world import GENESIS, MAX_OPEN, WINDOW, World, roles
from scripts.chain import quiet_chain
from settlement.contracts import MAX_BATCH
from settlement.models import OpenJobs

EARLIER_JOBS = (1, 100, 10_000)
"""How many jobs were opened on the one node, each with a settled receipt."""
EARLIER_NODES = (1, 100, 1_000, 10_000)
"""How many nodes were registered, each with an enclave."""

# what is measured has salts and a node's names of its own, whatever came before
_LAST_SALTS = 1_000_000
_NEXT_NODE = 1_000_000

Scaling = dict[str, dict[str, dict[str, int]]]
"""What grows -> operation -> how far it grew -> gas of the transaction."""


def measure_scaling(
    progress: Progress = lambda _: None,
    *,
    jobs: Sequence[int] = EARLIER_JOBS,
    nodes: Sequence[int] = EARLIER_NODES,
) -> Scaling:
    """Gas of the same transactions after ever more jobs and receipts, and with ever more nodes."""
    found: Scaling = {"earlier jobs and receipts": {}, "nodes": {}}
    for what, levels in (("earlier jobs and receipts", jobs), ("nodes", nodes)):
        for level in levels:
            filled = {"jobs": level} if what != "nodes" else {"nodes": level}
            for operation, gas in _measure(**filled).items():
                found[what].setdefault(operation, {})[str(level)] = gas
            progress(f"{level:,} {what}")
    return found


def _measure(*, jobs: int = 1, nodes: int = 1) -> dict[str, int]:
    with quiet_chain(GENESIS) as w3:
        world = World(w3, window=WINDOW, nodes=nodes)
        world.settle_all(world.open_many([1] * jobs), 100)
        world.start_salts(_LAST_SALTS)
        payer, relayer = world.client("payer"), world.relayer
        terms = world.terms()
        receipts = {"open by allowance": payer.open_job(terms)}
        receipts["settle one, the job's first"] = world.settle(world.claim(terms, 100))
        receipts["settle one"] = world.settle(world.claim(terms, 200))
        orders = OpenJobs(jobs=tuple(world.terms() for _ in range(MAX_OPEN)))
        receipts["open 50 from a balance, by the payer"] = payer.open_jobs(orders)
        batches = {"settle 100 of one node": [1] * MAX_BATCH}
        if nodes >= MAX_BATCH:
            batches["settle 100 of 100 nodes"] = list(range(1, MAX_BATCH + 1))
        for name, node_ids in batches.items():
            settled = world.open_many(node_ids)
            world.settle_all(settled, 100)
            receipts[name] = world.settle(*(world.claim(job, 200) for job in settled))
        receipts["register a node"] = relayer.transact(world.register_node_call(_NEXT_NODE))
        world.pass_time(2 * WINDOW)
        receipts["distribute one node"] = relayer.distribute(1)
        receipts["withdraw"] = world.client(roles(1).hospital).withdraw()
        return {name: receipt["gasUsed"] for name, receipt in receipts.items()}
