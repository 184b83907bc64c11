"""What the end-to-end tests share: a running network and the next job on it."""

from oracle.clients.edge.bundle import example
from scripts.developer import Job
from scripts.localnet import Localnet
from settlement.hub.messages import CatalogueEntry

FRAMEWORK = "jax"  # starts faster than PyTorch, which test_run has


class Bench:
    """The network, and the developer's next job on it."""

    def __init__(self, net: Localnet, entry: CatalogueEntry) -> None:
        self.net = net
        self.entry = entry

    def job(self, *, epochs: int = 60, budget: int = 60_000_000) -> Job:
        """A quoted job of the default bundle."""
        bundle = example(f"breast_cancer_{FRAMEWORK}")
        return Job(self.net, self.entry, bundle, budget=budget, epochs=epochs)

    def wait_until_paid(self, job: Job, records: int) -> None:
        """Wait until the vault has paid for so many records at least."""
        least = records * self.net.price_per_record
        self.net.wait(
            "the first payments",
            lambda: self.net.payer().job(job.id).paid >= least or None,
            90,
        )
