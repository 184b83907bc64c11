"""A real chain on which a block is final two blocks later, rolled back after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from anvil import GENESIS, Chain, set_up
from integration.operate.scene import Oracle, Process

from scripts.chain import quiet_chain


@pytest.fixture(scope="module")
def deployed() -> Iterator[Chain]:
    """A chain with contracts, one registered node and a funded payer."""
    with quiet_chain(GENESIS, "--slots-in-an-epoch", "1") as w3:
        yield set_up(w3)


@pytest.fixture
def oracle(chain: Chain, tmp_path: Path) -> Iterator[Oracle]:
    """A relaying oracle with the node's enclave registered."""
    chain.register_enclave()
    oracle = Oracle(chain, tmp_path / "oracle.db")
    oracle.rounds(3)
    yield oracle
    oracle.close()


@pytest.fixture
def process(chain: Chain, tmp_path: Path) -> Iterator[Process]:
    """The same as a process that is not started yet; it is ended in any case."""
    chain.register_enclave()
    process = Process(chain, tmp_path)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait()
