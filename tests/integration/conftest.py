"""A real chain with a deployment, shared by the tests of a file and rolled back after each."""

from collections.abc import Iterator

import pytest
from anvil import GENESIS, Chain, set_up
from explorer_site import Etherscan

from scripts.chain import quiet_chain, rpc

WINDOW = 3_600


@pytest.fixture(scope="module")
def deployed() -> Iterator[Chain]:
    """A chain with contracts, one registered node and a funded payer."""
    with quiet_chain(GENESIS) as w3:
        yield set_up(w3)


@pytest.fixture
def chain(deployed: Chain) -> Iterator[Chain]:
    """The same chain, rolled back afterwards."""
    snapshot = rpc(deployed.w3, "evm_snapshot")
    yield deployed
    rpc(deployed.w3, "evm_revert", snapshot)


@pytest.fixture
def waiting(chain: Chain) -> Chain:
    """Contracts of their own on that chain, whose fresh earnings wait an hour at least."""
    return set_up(chain.w3, challenge_window=WINDOW)


@pytest.fixture
def etherscan() -> Iterator[Etherscan]:
    site = Etherscan()
    yield site
    site.server.shutdown()
    site.server.server_close()
