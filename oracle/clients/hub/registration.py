"""Registrations: who a developer says it is, what it proved, and what the hub's admin decided."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from oracle.clients.hub.identity import MAX_PROOF, RegistrationTerms
from oracle.clients.hub.keys import Name
from settlement.types import Address, Bytes32, Frozen, UInt64

Company = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""A company's name as people write it, in one line."""


class RegistrationState(StrEnum):
    """PENDING: to be reviewed. APPROVED: it has an API key. REJECTED: it may try again."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class RegistrationRequest(Frozen):
    """A developer's profile, its wallet, and the proof that somebody's account is behind both.

    `name` is what its jobs will go by at this hub.
    """

    name: Name
    company: Company
    wallet: Address
    provider: str = Field(default="reclaim", max_length=32)
    proof: str = Field(max_length=MAX_PROOF)


class Registration(Frozen):
    """A registration; whoever knows `registration_id` may see it. Times are Unix seconds.

    Of the proof it keeps where the account is, and nothing that is in it.
    """

    registration_id: Bytes32
    name: Name
    company: Company
    wallet: Address
    provider: str
    site: str
    template: str
    state: RegistrationState
    proven_at: UInt64
    requested_at: UInt64
    decided_at: UInt64 | None


class IssuedKey(Frozen):
    """An approved registration and its API key, which is shown this once."""

    registration: Registration
    api_key: str


__all__ = [
    "IssuedKey",
    "Registration",
    "RegistrationRequest",
    "RegistrationState",
    "RegistrationTerms",
]
