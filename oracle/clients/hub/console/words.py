"""Numbers, times and names as a page writes them. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from eth_utils import to_checksum_address

from oracle.client import JobState as ChainState
from settlement.amounts import format_usdc
from settlement.hub.account import RegistrationState
from settlement.hub.market import EscrowStage
from settlement.hub.messages import JobState
from settlement.types import to_hex

STATES = {
    JobState.QUOTED: "Waiting for the payer's signature",
    JobState.FUNDED: "Funded, waiting for the node",
    JobState.RUNNING: "Training",
    JobState.DELIVERED: "Delivered",
    JobState.FAILED: "Ended without a result",
}
STAGES = {
    EscrowStage.UNSIGNED: "The budget is not signed for yet.",
    EscrowStage.WAITING: "Your signature is at the oracle.",
    EscrowStage.ACCEPTED: "Your signature is with the relayer, which pays the gas.",
    EscrowStage.SUBMITTED: "The transaction is on its way.",
    EscrowStage.SETTLED: "The budget is in the vault.",
    EscrowStage.REJECTED: "The vault did not take it.",
}
CHAIN_STATES = {
    ChainState.UNASSIGNED: "in escrow, no node yet",
    ChainState.OPEN: "in escrow",
    ChainState.CANCELLING: "being cancelled",
    ChainState.CLOSED: "closed",
}
STANDINGS = {
    RegistrationState.PENDING: "Your registration is being reviewed. You can close this page and "
    "come back with the same wallet.",
    RegistrationState.ASKED: "The operator has a question. Answer it below; the review goes on.",
    RegistrationState.APPROVED: "You are approved: you can make API keys and bring jobs.",
    RegistrationState.REJECTED: "Your registration was rejected. You may register again once what "
    "the operator says below is settled.",
}
EVENTS = {
    "opened": "budget escrowed",
    "assigned": "node assigned",
    "topped_up": "budget added",
    "cancelled": "cancelled",
    "settled": "work paid",
    "closed": "closed, the rest refunded",
}
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def short(value: bytes | str) -> str:
    """The ends of a hash or an address."""
    text = to_hex(value) if isinstance(value, bytes) else value
    return f"{text[:8]}…{text[-6:]}" if len(text) > 18 else text


def moment(seconds: int) -> str:
    """Unix seconds as a UTC date and time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def span(seconds: int) -> str:
    """A duration in its largest whole unit."""
    for size, name in _UNITS:
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "a moment"


def since(seconds: int | None, now: int) -> str:
    """How long ago something was."""
    return "never" if seconds is None else f"{span(max(0, now - seconds))} ago"


def size(count: int) -> str:
    """Bytes with a binary unit."""
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def reason(name: str) -> str:
    """A machine's name for a reason in words: ``enclave_expired`` is "enclave expired"."""
    return name.replace("_", " ").replace("-", " ")


def percent(basis_points: int) -> str:
    """Basis points as a percentage."""
    return f"{basis_points / 100:g}\u00a0%"


FILTERS: dict[str, Callable[..., Any]] = {
    "usdc": format_usdc,
    "hex": to_hex,
    "short": short,
    "moment": moment,
    "span": span,
    "since": since,
    "size": size,
    "reason": reason,
    "percent": percent,
    "address": to_checksum_address,
    "state": STATES.__getitem__,
    "stage": STAGES.__getitem__,
    "chain_state": CHAIN_STATES.__getitem__,
    "standing": STANDINGS.__getitem__,
    "event": EVENTS.__getitem__,
}
