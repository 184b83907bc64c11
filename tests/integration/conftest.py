"""A real chain with a deployment, shared by the tests of a file and rolled back after each."""

from collections.abc import Iterator

import pytest
from anvil import DAY, GENESIS, MEASUREMENT, Chain, key
from eth_utils import keccak

from scripts.chain import quiet_chain, rpc
from settlement.contracts import Settlement
from settlement.deploy import DeploymentParameters, deploy, deploy_test_usdc
from settlement.signer import LocalSigner


@pytest.fixture(scope="module")
def deployed() -> Iterator[Chain]:
    """A chain with contracts, one registered node and a funded payer."""
    with quiet_chain(GENESIS) as w3:
        for name in ("deployer", "payer"):
            rpc(w3, "anvil_setBalance", key(name).address, hex(10**21))
        signer = LocalSigner(key("deployer"))
        deployment = deploy(
            w3,
            signer,
            deploy_test_usdc(w3, signer),
            DeploymentParameters(
                proposers=(signer.address,),
                guardian=key("guardian").address,
                registrar=signer.address,
                protocol=key("protocol").address,
                committee=tuple(key(f"operator {i}").address for i in range(3)),
                threshold=2,
                measurements=(MEASUREMENT,),
                grace_period=DAY,
                timelock_delay=2 * DAY,
            ),
        )
        deployer = Settlement(w3, deployment, signer)
        payer = Settlement(w3, deployment, LocalSigner(key("payer")))
        deployer.transact(
            deployer.nodes.functions.register_node(
                key("owner").address,
                key("hospital").address,
                key("onboarder").address,
                keccak(text="hardware"),
            )
        )
        deployer.transact(deployer.usdc.functions.mint(key("payer").address, 10**9))
        yield Chain(w3, deployment, deployer, payer)


@pytest.fixture
def chain(deployed: Chain) -> Iterator[Chain]:
    """The same chain, rolled back afterwards."""
    snapshot = rpc(deployed.w3, "evm_snapshot")
    yield deployed
    rpc(deployed.w3, "evm_revert", snapshot)
