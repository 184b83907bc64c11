"""The ledger of differential privacy: what each buyer has taken of each dataset.

Spending adds up (basic composition: ε and δ are summed), which holds for any mechanism. A training
is charged for all that it may take before it begins; each attempt is charged anew, since one that
goes on from a checkpoint releases what those before it took.
"""

import json
from pathlib import Path
from typing import NamedTuple, Protocol

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.durable import write_atomically
from settlement.digests import canonical_json
from settlement.errors import RaphaError


class Spend(NamedTuple):
    """ε in millionths, δ in 1e-15."""

    epsilon: int
    delta: int


NOTHING = Spend(0, 0)


class Accountant(Protocol):
    """What in the node itself vouches for a job's spending. Never the job's own word.

    Its figures cover the weights, and nothing else leaves: where a budget is demanded, the rules
    let no metric out.
    """

    def spend(self, bundle: Bundle, *, rate: float, steps: int) -> Spend | None:
        """What so many batches take, each record in each with probability `rate`.

        None where it cannot vouch for the bundle.
        """


class LedgerInvalid(RaphaError):
    """A ledger that cannot be read; no job of its dataset and buyer passes until it is restored."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"the privacy ledger {path} cannot be read: {detail}; restore its backup")
        self.path = str(path)


class PrivacyLedger:
    """Durable; one process at a time. A charge is on disk when its method returns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def total(self, dataset: bytes, buyer: str) -> Spend:
        """Everything charged so far.

        Raises:
            LedgerInvalid: when the file is damaged.
        """
        charges = self._read(self._path(dataset, buyer))
        return Spend(sum(c.epsilon for _, c in charges), sum(c.delta for _, c in charges))

    def charge(self, dataset: bytes, buyer: str, job_id: bytes, spend: Spend) -> int:
        """Charge an attempt, and return its number for `settle`."""
        path = self._path(dataset, buyer)
        charges = self._read(path)
        self._write(path, [*charges, (job_id.hex(), spend)])
        return len(charges)

    def settle(self, dataset: bytes, buyer: str, attempt: int, spend: Spend) -> None:
        """Replace what an attempt was charged by what it took."""
        path = self._path(dataset, buyer)
        charges = self._read(path)
        charges[attempt] = (charges[attempt][0], spend)
        self._write(path, charges)

    def _path(self, dataset: bytes, buyer: str) -> Path:
        return self._directory / f"{dataset.hex()}-{buyer.lower()}.json"

    def _write(self, path: Path, charges: list[tuple[str, Spend]]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, canonical_json([[job, *spend] for job, spend in charges]))

    def _read(self, path: Path) -> list[tuple[str, Spend]]:
        if not path.exists():
            return []
        try:
            charges = []
            for job, epsilon, delta in json.loads(path.read_bytes()):
                numbers = (epsilon, delta)
                if not isinstance(job, str) or any(type(n) is not int or n < 0 for n in numbers):
                    raise ValueError("a charge is not a job and two natural numbers")
                charges.append((job, Spend(epsilon, delta)))
            return charges
        except (ValueError, TypeError) as error:
            raise LedgerInvalid(path, str(error)) from error
