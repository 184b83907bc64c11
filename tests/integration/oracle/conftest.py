"""A chain whose blocks are final after two more, for tests that follow the oracle to the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from anvil import GENESIS, Chain, set_up
from integration.oracle.scene import Scene

from scripts.chain import quiet_chain, rpc


@pytest.fixture(scope="module")
def final_chain() -> Iterator[Chain]:
    """A chain with contracts, a node and its enclave; a block is final after two more."""
    with quiet_chain(GENESIS, "--slots-in-an-epoch", "1") as w3:
        chain = set_up(w3)
        chain.register_enclave()
        for name in ("guardian", "rival"):
            chain.actor(name)
        yield chain


@pytest.fixture
def quick(final_chain: Chain) -> Iterator[Chain]:
    """The same chain, rolled back afterwards."""
    snapshot = rpc(final_chain.w3, "evm_snapshot")
    yield final_chain
    rpc(final_chain.w3, "evm_setAutomine", True)
    rpc(final_chain.w3, "anvil_dropAllTransactions")
    rpc(final_chain.w3, "evm_revert", snapshot)


@pytest.fixture
def scene(quick: Chain, tmp_path: Path) -> Iterator[Scene]:
    """A relaying oracle with one key."""
    scene = Scene.create(quick, tmp_path)
    yield scene
    scene.close()
