"""A local network of real processes, attested and ready for a job."""

from collections.abc import Iterator

import pytest
from network import Bench

from scripts.localnet import Localnet


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One network for the tests of a file: each leaves it running as it found it."""
    with Localnet(tmp_path_factory.mktemp("net")) as net:
        net.start_chain()
        net.deploy()
        net.fund_payer(10**12)
        net.start_blocks()
        net.start_oracles()
        net.start_hub()
        net.start_node()
        net.wait_for_services()
        yield Bench(net, net.wait_for_node())
