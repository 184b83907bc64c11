"""The interface of identity proofs, and the rules that hold for all of them.

A provider checks its own proofs' cryptography and says what they prove. What binds a proof to a
wallet, to this use and to now, is checked here, so that no provider can forget it.

A zkTLS proof rests on its attestors. It shows that those who are pinned say: we saw this account's
answer to this request come from this site. It shows no more than that they are honest and their
keys their own, that the site spoke the truth, and that whoever held the account's session is its
owner. Nothing of it is checked against the site again.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import Field

from oracle.attestation.identity.errors import (
    IdentityTaken,
    ProofExpired,
    ProofFromFuture,
    ProviderUnknown,
    PurposeMismatch,
    WalletMismatch,
)
from settlement.errors import InvalidInput
from settlement.types import Address, Bytes32, Frozen, UInt64, parse_address

CLOCK_SKEW = 60
"""Seconds by which an attestor's clock may be ahead of this one."""

MIN_KEY = 32


@dataclass(frozen=True)
class ProvenClaim:
    """What a proof says once its provider has found it genuine.

    `site` is where the account is and `subject` the account's stable name there. `wallet` and
    `purpose` are what the prover had signed along, as they stand. `issued_at` is Unix seconds;
    `digest` names the signed content.
    """

    site: str
    template: str
    subject: str = field(repr=False)
    attributes: Mapping[str, str] = field(repr=False)
    wallet: str
    purpose: str
    issued_at: int
    digest: bytes


class IdentityProvider(Protocol):
    """One way of proving an identity."""

    @property
    def name(self) -> str:
        """The name by which a proof says whose it is."""

    def read(self, proof: str) -> ProvenClaim:
        """Check the proof's cryptography against what is pinned.

        Raises:
            IdentityRefused: with a name of its own for each reason.
        """


class Identity(Frozen):
    """An account that was proven to be its wallet's, and when (Unix seconds).

    `nullifier` is the same for the same account, whatever the wallet or the provider, and tells
    nothing about it to who lacks the key: keep it unique, so that one account stands for one
    wallet. `attributes` are personal data.
    """

    provider: str
    site: str
    template: str
    wallet: Address
    issued_at: UInt64
    nullifier: Bytes32
    digest: Bytes32
    attributes: dict[str, str] = Field(repr=False)


class IdentityVerifier:
    """Verifies proofs of several providers for one use."""

    def __init__(
        self,
        providers: Sequence[IdentityProvider],
        *,
        purpose: str,
        nullifier_key: bytes,
        max_age: int = 3600,
    ) -> None:
        """`purpose` is the message that provers have signed along, which names this deployment;
        `nullifier_key` (32 bytes or more) is secret, and must stay the same. `max_age` is seconds.

        Raises:
            InvalidInput: for a short key, an empty purpose, or two providers of one name.
        """
        if len(nullifier_key) < MIN_KEY:
            raise InvalidInput(f"the nullifier key has {len(nullifier_key)} bytes, not {MIN_KEY}")
        if not purpose:
            raise InvalidInput("identity proofs need a purpose")
        self._providers = {provider.name: provider for provider in providers}
        if len(self._providers) != len(providers):
            raise InvalidInput("two identity providers have the same name")
        self._purpose = purpose
        self._key = nullifier_key
        self._max_age = max_age

    def verify(self, provider: str, proof: str, *, wallet: str, now: int) -> Identity:
        """The identity that `proof` proves for `wallet` at `now` (Unix seconds).

        Raises:
            ProviderUnknown: when no such provider is configured.
            IdentityRefused: as the provider does.
            WalletMismatch, PurposeMismatch: when it was made for somebody or something else.
            ProofExpired, ProofFromFuture: when its time is not now.
            InvalidInput: when `wallet` is not an address.
        """
        chosen = self._providers.get(provider)
        if chosen is None:
            raise ProviderUnknown(provider)
        owner = _address(wallet)
        if owner is None:
            raise InvalidInput(f"{wallet!r} is not a wallet's address")
        claim = chosen.read(proof)
        check_claim(claim, wallet=owner, purpose=self._purpose, max_age=self._max_age, now=now)
        return Identity(
            provider=provider,
            site=claim.site,
            template=claim.template,
            wallet=owner,
            issued_at=claim.issued_at,
            nullifier=self._nullifier(claim),
            digest=claim.digest,
            attributes=dict(claim.attributes),
        )

    def _nullifier(self, claim: ProvenClaim) -> bytes:
        account = json.dumps(["rapha.identity.v1", claim.site, claim.subject])
        return hmac.digest(self._key, account.encode(), "sha256")


def check_claim(
    claim: ProvenClaim, *, wallet: str | None, purpose: str | None, max_age: int, now: int
) -> None:
    """Check a genuine claim's binding and its age (seconds) at `now` (Unix seconds).

    A wallet or a purpose of None is not checked.

    Raises:
        WalletMismatch, PurposeMismatch: when it was made for somebody or something else.
        ProofExpired, ProofFromFuture: when its time is not now.
        InvalidInput: when `wallet` is not an address.
    """
    if wallet is not None:
        owner = _address(wallet)
        if owner is None:
            raise InvalidInput(f"{wallet!r} is not a wallet's address")
        if _address(claim.wallet) != owner:
            raise WalletMismatch(owner)
    if purpose is not None and claim.purpose != purpose:
        raise PurposeMismatch(purpose)
    if claim.issued_at > now + CLOCK_SKEW:
        raise ProofFromFuture(claim.issued_at, now)
    if now - claim.issued_at > max_age:
        raise ProofExpired(now - claim.issued_at, max_age)


def refuse_taken(identity: Identity, holder: str | None) -> None:
    """Let an account be proven anew for the wallet that holds it already, and for no other.

    `holder` is the wallet that was stored with this nullifier, if any.

    Raises:
        IdentityTaken: when it is another one.
    """
    if holder is not None and _address(holder) != identity.wallet:
        raise IdentityTaken


def _address(text: str) -> str | None:
    try:
        return parse_address(text)
    except ValueError:
        return None  # what is no address is nobody's
