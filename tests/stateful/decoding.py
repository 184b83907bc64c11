"""Events decoded from words, for histories too long for the SDK's own decoding.

All arguments of the vault's and the node registry's events are words, but for the terms' work.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from eth_utils import to_checksum_address
from stateful.evm import event_topic

from settlement.contracts import artifact
from settlement.deployment import Deployment
from settlement.events import Event

_address = cache(lambda data: to_checksum_address(data[12:]))
_READERS: dict[str, Callable[[bytes], Any]] = {
    "address": _address,
    "bytes32": bytes,
    "bool": lambda data: data[31] == 1,
    "uint256": lambda data: int.from_bytes(data, "big"),
}


@cache
def _events(contract: str) -> dict[bytes, tuple[str, list[Any], list[Any]]]:
    """By topic: name, indexed arguments and the rest."""
    found = {}
    for entry in artifact(contract).abi:
        if entry["type"] == "event":
            inputs = entry["inputs"]
            found[event_topic(entry)] = (
                entry["name"],
                [i for i in inputs if i["indexed"]],
                [i for i in inputs if not i["indexed"]],
            )
    return found


def fast_events(
    deployment: Deployment, logs: Iterable[tuple[int, int, int, Any]]
) -> list[tuple[Event, int]]:
    """Events among (time, block, index, revm's log), each with its time."""
    contracts = {
        deployment.vault.lower(): ("vault", _events("RaphaClearingVault")),
        deployment.node_registry.lower(): ("node_registry", _events("RaphaNodeRegistry")),
    }
    events = []
    for time, block, index, log in logs:
        if (found := contracts.get(log.address.lower())) is None:
            continue
        contract, known = found
        topics = [bytes.fromhex(topic[2:]) for topic in log.topics]
        name, indexed, rest = known[topics[0]]
        args = {i["name"]: _READERS[i["type"]](t) for i, t in zip(indexed, topics[1:], strict=True)}
        data, position = bytes(log.data[1]), 0
        for entry in rest:
            members = entry.get("components")
            values = {}
            for member in members or [entry]:
                read = _READERS[member["type"]]
                values[member["name"]] = read(data[position : position + 32])
                position += 32
            args[entry["name"]] = values if members else values[entry["name"]]
        events.append((Event(name, contract, args, block, bytes(32), bytes(32), index), time))
    return events
