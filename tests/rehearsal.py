"""Polygon's chain ids on anvil, with native USDC where Circle has it, and nobody's known keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anvil import COMMITTEE, DAY, GENESIS, MEASUREMENT, THRESHOLD, key
from eth_abi import encode
from hexbytes import HexBytes
from vyper import compile_code
from web3 import Web3

from scripts.chain import quiet_chain, rpc
from settlement.contracts import artifact
from settlement.deploy import DeploymentParameters
from settlement.networks import NETWORKS
from settlement.signer import LocalSigner

IMPLEMENTATION = "0x00000000000000000000000000000000000c1c1e"


def parameters(**changes: Any) -> DeploymentParameters:
    """Parameters that a real chain would take."""
    fields: dict[str, Any] = {
        "proposers": (key("deployer").address,),
        "guardian": key("guardian").address,
        "registrar": key("registrar").address,
        "protocol": key("protocol").address,
        "arbiter": key("arbiter").address,
        "committee": tuple(operator.address for operator in COMMITTEE),
        "threshold": THRESHOLD,
        "measurements": (MEASUREMENT,),
        "grace_period": DAY,
        "timelock_delay": 2 * DAY,
    }
    return DeploymentParameters(**{**fields, **changes})


def signer(w3: Web3, name: str = "deployer") -> LocalSigner:
    """A key of its own, with money for gas."""
    rpc(w3, "anvil_setBalance", key(name).address, hex(10**21))
    return LocalSigner(key(name))


def plant_usdc(w3: Web3) -> None:
    """Put a token that behaves as USDC where the chain's native USDC is."""
    usdc = NETWORKS[w3.eth.chain_id].usdc

    def runtime(contract: str, arguments: bytes = b"") -> str:
        code = w3.eth.call({"data": HexBytes(artifact(contract).bytecode + arguments)})
        return "0x" + bytes(code).hex()

    rpc(w3, "anvil_setCode", IMPLEMENTATION, runtime("TestUSDC"))
    place = encode(["address"], [IMPLEMENTATION])
    rpc(w3, "anvil_setCode", usdc, runtime("TestUSDCProxy", place))
    rpc(w3, "anvil_setStorageAt", usdc, "0x0", "0x" + place.hex())
    # as its constructor does: the proxy is its own admin
    rpc(w3, "anvil_setStorageAt", usdc, "0x1", "0x" + encode(["address"], [usdc]).hex())
    token = w3.eth.contract(address=Web3.to_checksum_address(usdc), abi=artifact("TestUSDC").abi)
    sender = signer(w3, "circle")
    data = HexBytes(token.encode_abi("initialize", [sender.address]))
    sent = sender.send(w3, {"to": token.address, "data": data, "gas": 200_000})
    assert w3.eth.wait_for_transaction_receipt(HexBytes(sent))["status"]


@contextmanager
def rehearsal(chain_id: int) -> Iterator[Web3]:
    """An anvil that takes itself for one of Polygon's chains."""
    with quiet_chain(GENESIS, "--chain-id", str(chain_id)) as w3:
        plant_usdc(w3)
        yield w3


SAFE = """
owners: DynArray[address, 3]
threshold: uint256

@deploy
def __init__(owners: DynArray[address, 3], threshold: uint256):
    self.owners = owners
    self.threshold = threshold

@external
@view
def getOwners() -> DynArray[address, 3]:
    return self.owners

@external
@view
def getThreshold() -> uint256:
    return self.threshold
"""


def safe(w3: Web3, threshold: int) -> str:
    """A contract that answers as a Safe of three owners does; its calls are impersonated."""
    built = compile_code(SAFE, output_formats=["bytecode", "abi"])
    factory = w3.eth.contract(abi=built["abi"], bytecode=built["bytecode"])
    owners = [key(f"signer {i}").address for i in range(3)]
    sent = signer(w3).send(
        w3,
        {
            "data": HexBytes(factory.constructor(owners, threshold).data_in_transaction),
            "gas": 10**6,
        },
    )
    address = w3.eth.wait_for_transaction_receipt(HexBytes(sent))["contractAddress"]
    assert address is not None
    rpc(w3, "anvil_setBalance", address, hex(10**21))
    rpc(w3, "anvil_impersonateAccount", address)
    return str(address)
