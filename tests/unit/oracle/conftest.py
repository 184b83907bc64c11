"""One oracle on a real database and an in-memory ledger."""

from pathlib import Path

import pytest
from unit.oracle.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A relaying oracle, alone in its committee, with node 1 and its enclave registered."""
    return Bench.create(tmp_path)
