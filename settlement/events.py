"""The contracts' events, decoded: what the ledger can be rebuilt from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from settlement.codec import event_codecs
from settlement.deployment import Deployment
from settlement.models import JobTerms, Work


@dataclass(frozen=True)
class Event:
    """A decoded log of one of our contracts. `args` are keyed by the contract's own names."""

    name: str
    contract: str
    args: Mapping[str, Any]
    block: int
    block_hash: bytes
    transaction: bytes
    log_index: int


def decode_events(deployment: Deployment, logs: Sequence[Mapping[str, Any]]) -> list[Event]:
    """Our events among `logs` (as `eth_getLogs` answers), in order; foreign ones are left out."""
    names = {
        deployment.vault: "vault",
        deployment.node_registry: "node_registry",
        deployment.enclave_registry: "enclave_registry",
    }
    events = []
    for log in logs:
        known = event_codecs().get(bytes(log["topics"][0])) if log["topics"] else None
        contract = names.get(log["address"])
        if known is None or contract is None:
            continue
        events.append(
            Event(
                name=known.name,
                contract=contract,
                args=known.decode(log["topics"], log["data"]),
                block=log["blockNumber"],
                block_hash=bytes(log["blockHash"]),
                transaction=bytes(log["transactionHash"]),
                log_index=log["logIndex"],
            )
        )
    return events


def terms_from_event(args: Mapping[str, Any]) -> JobTerms:
    """The whole terms from a `JobOpened` event's arguments."""
    terms = {name: args[name] for name in JobTerms.model_fields}
    return JobTerms(**{**terms, "work": Work(**dict(args["work"]))})
