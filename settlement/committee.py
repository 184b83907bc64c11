"""A committee of oracle operators as its contract holds it, and what its members' signatures make.

A member is called by a string: its address in an ECDSA committee, `BlsKey.id` in a BLS one.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from eth_utils import to_checksum_address
from pydantic import Field, ValidationError, model_validator
from web3 import Web3

from settlement import bls
from settlement.bls import BlsKey, BlsMember, BlsSigner
from settlement.contracts import artifact
from settlement.eip712 import recover_signer, sign_digest
from settlement.errors import InvalidInput, InvalidSignature, RaphaError
from settlement.signer import refuse_known_key
from settlement.types import Address, Frozen

MAX_ECDSA_MEMBERS = 64
"""The contract's own bound."""
MAX_ECDSA_THRESHOLD = 32
"""The contract's own bound, and with it the interface's 2,080 bytes of signatures."""
MAX_BLS_MEMBERS = 80
"""The contract's own bound: its creation has to fit into one transaction's gas."""

_SIGNATURE_BYTES = 65


class TooFewSignatures(RaphaError, ValueError):
    """Fewer members signed than must."""

    final = False

    def __init__(self, found: int, threshold: int) -> None:
        self.found, self.threshold = found, threshold
        super().__init__(f"{found} members signed, {threshold} must")


class EcdsaCommittee(Frozen):
    """Members by address, sorted; each signature is 65 bytes r, s, v."""

    scheme: Literal["ecdsa"] = "ecdsa"
    members: tuple[Address, ...] = Field(min_length=1, max_length=MAX_ECDSA_MEMBERS)
    threshold: int = Field(gt=0)

    @model_validator(mode="after")
    def _is_one(self) -> "EcdsaCommittee":
        _check(self.members, self.threshold, lambda member: int(member, 16))
        if self.threshold > MAX_ECDSA_THRESHOLD:
            raise ValueError(f"at most {MAX_ECDSA_THRESHOLD} of an ECDSA committee must sign")
        return self

    @property
    def ids(self) -> tuple[str, ...]:
        """How its members are called, in its order."""
        return self.members


class BlsCommittee(Frozen):
    """Members by key, sorted by its x; each signature is 64 bytes, a point of G1."""

    scheme: Literal["bls"] = "bls"
    members: tuple[BlsKey, ...] = Field(min_length=1, max_length=MAX_BLS_MEMBERS)
    threshold: int = Field(gt=0)

    @model_validator(mode="after")
    def _is_one(self) -> "BlsCommittee":
        _check(self.members, self.threshold, _x)
        return self

    @property
    def ids(self) -> tuple[str, ...]:
        """How its members are called, in its order."""
        return tuple(member.id for member in self.members)


Committee = EcdsaCommittee | BlsCommittee


class MemberKey:
    """A member's secret, which signs for a committee of either scheme.

    Raises:
        InvalidInput: for a secret that is not 32 bytes from 1 to below the order of secp256k1.
    """

    def __init__(self, secret: bytes) -> None:
        self.bls = BlsSigner(secret)
        self.address = self.bls.address
        self._secret = bytes(secret)

    def __repr__(self) -> str:
        return f"MemberKey({self.address})"

    def id_in(self, committee: Committee) -> str:
        """How this member is called in a committee of that scheme, whether it is in it or not."""
        return self.bls.public.id if isinstance(committee, BlsCommittee) else self.address

    def sign(self, committee: Committee, digest: bytes, chain_id: int) -> bytes:
        """A signature over a 32-byte EIP-712 digest for contracts on a chain.

        Raises:
            KnownKeyRefused: when everybody knows the secret, and money is real on that chain.
        """
        if isinstance(committee, BlsCommittee):
            return self.bls.sign(digest, chain_id)
        refuse_known_key(self.address, chain_id)
        return sign_digest(digest, self._secret)


def join_signatures(committee: Committee, signatures: Mapping[str, bytes]) -> bytes:
    """The `signatures` of `ICommittee.is_signed`, from those of single members.

    Of an ECDSA committee as many as must sign, sorted by signer, since each more costs gas; of a
    BLS one all, since each less does. That every signature is valid is `check_signature`'s to say.

    Raises:
        TooFewSignatures: when fewer members signed than must.
        InvalidSignature: when one is malformed, or by somebody who is not a member.
    """
    strangers = sorted(signatures.keys() - set(committee.ids))
    if strangers:
        raise InvalidSignature(f"not members of the committee: {', '.join(strangers)}")
    if len(signatures) < committee.threshold:
        raise TooFewSignatures(len(signatures), committee.threshold)
    if isinstance(committee, BlsCommittee):
        return bls.aggregate(committee.members, signatures)
    chosen = [member for member in committee.members if member in signatures]
    if any(len(signature) != _SIGNATURE_BYTES for signature in signatures.values()):
        raise InvalidSignature(f"a member's signature is {_SIGNATURE_BYTES} bytes r, s, v")
    return b"".join(signatures[member] for member in chosen[: committee.threshold])


def check_signature(committee: Committee, digest: bytes, member: str, signature: bytes) -> None:
    """Let one member's signature over a 32-byte digest pass.

    Raises:
        InvalidSignature: when it is malformed, not by `member`, or `member` is none.
    """
    if member not in committee.ids:
        raise InvalidSignature(f"{member} is not a member of the committee")
    if isinstance(committee, BlsCommittee):
        key = committee.members[committee.ids.index(member)]
        bls.check_signature(digest, signature, key)
        return
    signer = recover_signer(digest, signature)
    if signer != member:
        raise InvalidSignature(f"the signature is not by {member} over this digest")


def signers_of(committee: Committee, digest: bytes, signatures: bytes) -> tuple[str, ...]:
    """Who signed a digest: what `ICommittee.is_signed` asks, offline.

    Raises:
        TooFewSignatures: when fewer members signed than must.
        InvalidSignature: when the bytes are not as the committee's contract takes them.
    """
    if isinstance(committee, BlsCommittee):
        signers = bls.signers_of(committee.members, digest, signatures)
    else:
        if len(signatures) % _SIGNATURE_BYTES:
            raise InvalidSignature(f"signatures are {_SIGNATURE_BYTES} bytes each")
        signers = tuple(
            recover_signer(digest, signatures[at : at + _SIGNATURE_BYTES])
            for at in range(0, len(signatures), _SIGNATURE_BYTES)
        )
        if not set(signers) <= set(committee.members):
            raise InvalidSignature("somebody who is not a member of the committee signed")
        if any(int(one, 16) >= int(next_, 16) for one, next_ in pairwise(signers)):
            raise InvalidSignature("the signatures are not sorted by signer, each once")
    if len(signers) < committee.threshold:
        raise TooFewSignatures(len(signers), committee.threshold)
    return signers


def creation(members: Sequence[str | BlsMember], threshold: int) -> tuple[str, tuple[Any, ...]]:
    """The contract for these members, addresses or proven BLS keys, and what creates it.

    The members are sorted here. That the proofs hold the contract checks when it is created.

    Raises:
        InvalidInput: when the members are not all of one kind, come twice or are too many, or the
            threshold is not from 1 to how many they are.
    """
    keys = [member for member in members if isinstance(member, BlsMember)]
    addresses = [member for member in members if isinstance(member, str)]
    if keys and addresses:
        raise InvalidInput("the members of a committee are all addresses or all BLS keys")
    try:
        if keys:
            keys.sort(key=_x)
            BlsCommittee(members=tuple(key.public for key in keys), threshold=threshold)
            return "BlsCommittee", ([_member(key) for key in keys], threshold)
        addresses.sort(key=lambda address: int(address, 16))
        committee = EcdsaCommittee(members=tuple(addresses), threshold=threshold)
        return "EcdsaCommittee", (list(committee.members), threshold)
    except ValueError as error:
        raise InvalidInput(f"these members and threshold are no committee: {error}") from error


def read_committee(w3: Web3, address: str) -> Committee:
    """The committee of a contract at an address. A contract's never changes.

    Raises:
        InvalidInput: when the contract there is no committee of a known scheme.
        Web3Exception: when the endpoint fails, or nothing at the address answers.
    """
    place = to_checksum_address(address)
    scheme = w3.eth.contract(place, abi=artifact("EcdsaCommittee").abi).functions.scheme().call()
    if scheme not in ("ecdsa", "bls"):
        raise InvalidInput(f"{address} is a committee of the unknown scheme {scheme!r}")
    name = "EcdsaCommittee" if scheme == "ecdsa" else "BlsCommittee"
    functions = w3.eth.contract(place, abi=artifact(name).abi).functions
    members, threshold = functions.members().call(), functions.threshold().call()
    try:
        if scheme == "ecdsa":
            return EcdsaCommittee(members=tuple(members), threshold=threshold)
        keys = tuple(BlsKey(key=_bytes(key), twin=_bytes(twin)) for key, twin in members)
        return BlsCommittee(members=keys, threshold=threshold)
    except ValidationError as error:
        raise InvalidInput(f"the contract at {address} is no committee: {error}") from error


def _check(members: Sequence[Any], threshold: int, order: Callable[[Any], int]) -> None:
    if any(order(one) >= order(next_) for one, next_ in pairwise(members)):
        raise ValueError("members are sorted, and each is there once")
    if threshold > len(members):
        raise ValueError(f"the threshold is {threshold}, of {len(members)} members")


def _x(key: BlsKey) -> int:
    return int.from_bytes(key.key[:32], "big")


def _member(member: BlsMember) -> tuple[tuple[int, ...], ...]:
    return _words(member.key), _words(member.twin), _words(member.proof)


def _words(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32))


def _bytes(words: Sequence[int]) -> bytes:
    return b"".join(word.to_bytes(32, "big") for word in words)
