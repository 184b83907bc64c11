"""What is peculiar to Polygon's endpoints: long headers, and a least tip."""

import pytest
from anvil import GENESIS, key
from faulty_rpc import faulty_rpc
from web3 import HTTPProvider, Web3
from web3.exceptions import ExtraDataLengthError

from scripts.chain import quiet_chain, rpc
from settlement.connection import connect
from settlement.networks import AMOY, GWEI, NETWORKS, POLYGON
from settlement.signer import LocalSigner

pytestmark = pytest.mark.xdist_group("anvil")

SEAL = "0x" + "5a" * 97
"""As long as the shortest `extraData` of a chain with proof of authority: vanity and seal."""


def test_header_of_proof_of_authority_is_read() -> None:
    with quiet_chain(GENESIS) as w3, faulty_rpc(w3.provider.endpoint_uri) as proxy:  # type: ignore[attr-defined]
        proxy.faults.lies["eth_getBlockByNumber"] = lambda _, block: {**block, "extraData": SEAL}
        with pytest.raises(ExtraDataLengthError):
            Web3(HTTPProvider(proxy.url)).eth.get_block("latest")
        assert connect(proxy.url).eth.get_block("latest")["timestamp"] >= GENESIS


@pytest.mark.parametrize(
    ("chain_id", "least"), [(POLYGON.chain_id, 25 * GWEI), (AMOY.chain_id, 25 * GWEI), (31337, 0)]
)
def test_local_signer_gives_no_less_than_the_chains_least_tip(chain_id: int, least: int) -> None:
    with quiet_chain(GENESIS, "--chain-id", str(chain_id)) as w3:
        sender = LocalSigner(key("payer"))
        rpc(w3, "anvil_setBalance", sender.address, hex(10**21))
        estimate = w3.eth.max_priority_fee
        assert estimate < 25 * GWEI  # else this test would show nothing
        sent = sender.send(w3, {"to": key("hospital").address, "data": b"", "gas": 21_000})
        transaction = w3.eth.get_transaction(sent)
        assert transaction["maxPriorityFeePerGas"] >= max(least, estimate)


def test_networks_are_known_by_their_chain_id() -> None:
    assert {137: POLYGON, 80002: AMOY} == NETWORKS
