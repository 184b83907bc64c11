"""What the chain has logged about one deployment, read from any endpoint in pieces it grants."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import requests
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.exceptions import BadFunctionCallOutput, BadResponseFormat, BlockNotFound, Web3RPCError
from web3.types import BlockIdentifier, FilterParams

from settlement.deployment import Deployment
from settlement.errors import RaphaError
from settlement.events import Event, decode_events
from settlement.types import Frozen

MAX_RANGE = 10_000
"""Blocks per request for logs, where the endpoint allows it."""

_TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
_TROUBLE = (
    requests.RequestException,
    Web3RPCError,
    BadFunctionCallOutput,
    BadResponseFormat,
    BlockNotFound,
)


class HistoryUnavailable(RaphaError, ConnectionError):
    """The endpoint gave no usable answer about the past; ask again, or ask another one."""

    final = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the chain's endpoint is unavailable: {reason}")


class Transfer(Frozen):
    """USDC that moved into (`incoming`) or out of the vault, in base units."""

    block: int
    incoming: bool
    amount: int


@contextmanager
def asking() -> Iterator[None]:
    """Whatever an endpoint does wrong within is HistoryUnavailable; its URL is not told."""
    try:
        yield
    except _TROUBLE as error:
        spoken = isinstance(error, Web3RPCError) and error.rpc_response
        answer = error.rpc_response.get("error", {}) if spoken else {}  # type: ignore[union-attr]
        reason = f"{type(error).__name__} {answer.get('message', '')}".strip()
        raise HistoryUnavailable(reason) from error


def read_events(w3: Web3, deployment: Deployment, last: int) -> list[tuple[Event, int]]:
    """The events of vault and node registry up to block `last`, each with its block's time.

    Raises:
        HistoryUnavailable: when the endpoint does not give them.
    """
    wanted = {"address": [deployment.vault, deployment.node_registry]}
    logs = _logs(w3, wanted, deployment.block, last)
    events = decode_events(deployment, logs)
    times: dict[int, int] = {}
    with asking():
        for block in {event.block for event in events}:
            found = w3.eth.get_block(cast(BlockIdentifier, block))
            times[block] = int(found["timestamp"])
    events.sort(key=lambda event: (event.block, event.log_index))
    return [(event, times[event.block]) for event in events]


def newest_block(w3: Web3) -> int:
    """The newest block's number. Raises HistoryUnavailable."""
    with asking():
        return int(w3.eth.block_number)


def read_transfers(w3: Web3, deployment: Deployment, last: int) -> list[Transfer]:
    """All USDC that moved into or out of the vault up to block `last`.

    Raises:
        HistoryUnavailable: when the endpoint does not give it.
    """
    vault = "0x" + bytes(12).hex() + deployment.vault[2:].lower()
    transfers = []
    for incoming, topics in ((False, [_TRANSFER, vault]), (True, [_TRANSFER, None, vault])):
        wanted = {"address": to_checksum_address(deployment.usdc), "topics": topics}
        transfers += [
            Transfer(
                block=log["blockNumber"],
                incoming=incoming,
                amount=int.from_bytes(HexBytes(log["data"]), "big"),
            )
            for log in _logs(w3, wanted, deployment.block, last)
        ]
    return transfers


def _logs(
    w3: Web3, wanted: Mapping[str, Any], first: int, last: int
) -> Sequence[Mapping[str, Any]]:
    """Logs of a range, in as many requests as the endpoint needs."""

    def ask(begin: int, end: int) -> Sequence[Mapping[str, Any]]:
        query = {**wanted, "fromBlock": begin, "toBlock": end}
        logs = w3.eth.get_logs(cast(FilterParams, query))
        return cast(Sequence[Mapping[str, Any]], logs)

    return in_ranges(ask, first, last)


def in_ranges(
    ask: Callable[[int, int], Sequence[Mapping[str, Any]]], first: int, last: int
) -> list[Mapping[str, Any]]:
    """What `ask` answers for all blocks from `first` to `last`, in order.

    An endpoint that refuses is asked for half as many blocks, whatever its words.

    Raises:
        HistoryUnavailable: when it refuses a single block.
    """
    found: list[Mapping[str, Any]] = []
    size = MAX_RANGE
    while first <= last:
        end = min(last, first + size - 1)
        try:
            found += ask(first, end)
        except Web3RPCError:
            if end > first:
                size = (end - first + 1) // 2
                continue
            with asking():
                raise
        except _TROUBLE:
            with asking():
                raise
        first = end + 1
        size = min(MAX_RANGE, size * 2)
    return found
