"""The few things that the hub asks a chain itself. Of money it believes the oracle."""

from typing import Any, Protocol

from eth_utils import to_checksum_address
from requests import RequestException
from web3 import HTTPProvider, Web3
from web3.exceptions import (
    BadFunctionCallOutput,
    ContractLogicError,
    Web3Exception,
)

from oracle.clients.hub.errors import ChainUnavailable, NodeUnknown
from settlement.client import Settlement
from settlement.deployment import Deployment
from settlement.hub.market import Shares

_ERC1271 = [
    {
        "type": "function",
        "name": "isValidSignature",
        "stateMutability": "view",
        "inputs": [{"name": "hash", "type": "bytes32"}, {"name": "signature", "type": "bytes"}],
        "outputs": [{"name": "magic", "type": "bytes4"}],
    }
]
_MAGIC = bytes.fromhex("1626ba7e")


class ChainView(Protocol):
    """What the hub wants to know of the chain."""

    def is_valid_signature(self, wallet: str, digest: bytes, signature: bytes) -> bool: ...
    def shares(self, node_id: int) -> Shares: ...
    def payees(self, node_id: int) -> dict[str, str]: ...
    def gas_price(self) -> int: ...
    def now(self) -> int: ...


class RpcChain:
    """A chain behind an RPC endpoint. Every method raises `ChainUnavailable` without an answer."""

    def __init__(self, url: str, deployment: Deployment, *, timeout: float = 5.0) -> None:
        self._w3 = Web3(HTTPProvider(url, request_kwargs={"timeout": timeout}))
        self._settlement = Settlement(self._w3, deployment)

    def is_valid_signature(self, wallet: str, digest: bytes, signature: bytes) -> bool:
        """Whether a smart wallet takes this signature over a 32-byte digest (ERC-1271)."""
        address = to_checksum_address(wallet)
        contract = self._w3.eth.contract(address=address, abi=_ERC1271)
        try:
            answer = contract.functions.isValidSignature(digest, signature).call()
        except (ContractLogicError, BadFunctionCallOutput):
            return False  # it reverts, or is no such contract
        except (Web3Exception, RequestException, OSError) as error:
            raise ChainUnavailable(type(error).__name__) from error
        return bytes(answer) == _MAGIC

    def shares(self, node_id: int) -> Shares:
        """How what a node earns is split now. Raises NodeUnknown when it is not registered."""
        node_owner, onboarder, protocol = (int(share) for share in self._payees(node_id)[4:7])
        return Shares(
            hospital=10_000 - node_owner - onboarder - protocol,
            node_owner=node_owner,
            onboarder=onboarder,
            protocol=protocol,
        )

    def payees(self, node_id: int) -> dict[str, str]:
        """Who is paid what a node earns now, by its part. Raises NodeUnknown when it is not
        registered."""
        parts = ("hospital", "node owner", "onboarder", "protocol")
        return dict(zip(parts, self._payees(node_id)[:4], strict=True))

    def _payees(self, node_id: int) -> Any:
        try:
            return self._settlement.nodes.functions.payees(node_id).call()
        except (ContractLogicError, BadFunctionCallOutput) as error:
            raise NodeUnknown(node_id) from error
        except (Web3Exception, RequestException, OSError) as error:
            raise ChainUnavailable(type(error).__name__) from error

    def gas_price(self) -> int:
        """What gas costs now, wei."""
        try:
            return int(self._w3.eth.gas_price)
        except (Web3Exception, RequestException, OSError) as error:
            raise ChainUnavailable(type(error).__name__) from error

    def now(self) -> int:
        """The latest block's time, Unix seconds: the clock by which authorisations hold."""
        try:
            return self._settlement.now()
        except (Web3Exception, RequestException, OSError) as error:
            raise ChainUnavailable(type(error).__name__) from error
