"""EIP-712 digests of everything that is signed: the one Python definition.

The contracts compute the same digests in `contracts/modules/typed_data.vy`; a test compares the two
on random values. A struct hash is one keccak over 32-byte words: of a nested struct its hash, of
an array of structs the keccak of theirs.
Source: EIP-712.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from coincurve import PublicKey
from eth_account import Account
from eth_utils import keccak, to_checksum_address

from settlement.errors import InvalidSignature
from settlement.models import (
    Assignment,
    Deposit,
    EnclaveRegistration,
    JobTerms,
    OpenJobs,
    PlatformVerdict,
    Receipt,
    Sponsorship,
    Withdrawal,
    Work,
)
from settlement.types import Frozen, to_hex

DOMAIN_TYPE = [
    ("string", "name"),
    ("string", "version"),
    ("uint256", "chainId"),
    ("address", "verifyingContract"),
]

# Field types and names in signing order, per primary type; the models' fields have the same order.
TYPES: dict[str, list[tuple[str, str]]] = {
    "Work": [
        ("bytes32", "modelDigest"),
        ("bytes32", "datasetDigest"),
        ("bytes32", "policyDigest"),
        ("bytes32", "resultKeyDigest"),
    ],
    "JobTerms": [
        ("address", "payer"),
        ("uint64", "nodeId"),
        ("uint64", "pricePerRecord"),
        ("uint64", "pricePerEpoch"),
        ("uint64", "budget"),
        ("uint64", "deadline"),
        ("Work", "work"),
        ("bytes32", "salt"),
    ],
    "OpenJobs": [("JobTerms[]", "jobs")],
    "Sponsorship": [("JobTerms", "terms"), ("address", "sponsor")],
    "Assignment": [("bytes32", "jobId"), ("uint64", "nodeId"), ("uint64", "epoch")],
    "Deposit": [("address", "account"), ("uint256", "amount"), ("bytes32", "salt")],
    "Withdrawal": [
        ("address", "account"),
        ("address", "to"),
        ("uint256", "amount"),
        ("uint256", "nonce"),
        ("uint256", "deadline"),
    ],
    "Receipt": [
        ("bytes32", "jobId"),
        ("uint64", "records"),
        ("uint64", "epochs"),
        ("bytes32", "recordsRoot"),
        ("bytes32", "outputDigest"),
        ("bool", "complete"),
    ],
    "EnclaveRegistration": [
        ("address", "enclaveKey"),
        ("uint64", "nodeId"),
        ("bytes32", "measurement"),
        ("bytes32", "attestationDigest"),
        ("bytes32", "encryptionKeyDigest"),
        ("uint64", "expiry"),
        ("uint64", "epoch"),
    ],
    "PlatformVerdict": [
        ("bytes32", "platform"),
        ("uint64", "nodeId"),
        ("uint128", "moduleSvn"),
        ("uint64", "expiry"),
        ("uint64", "epoch"),
    ],
    "DeploymentRecord": [("bytes32", "digest")],
    "Permit": [
        ("address", "owner"),
        ("address", "spender"),
        ("uint256", "value"),
        ("uint256", "nonce"),
        ("uint256", "deadline"),
    ],
    "ReceiveWithAuthorization": [
        ("address", "from"),
        ("address", "to"),
        ("uint256", "value"),
        ("uint256", "validAfter"),
        ("uint256", "validBefore"),
        ("bytes32", "nonce"),
    ],
}


@dataclass(frozen=True)
class Domain:
    """An EIP-712 domain: one per contract."""

    name: str
    version: str
    chain_id: int
    verifying_contract: str

    @property
    def separator(self) -> bytes:
        """The 32-byte domain separator."""
        return _domain_separator(self)


@cache
def _domain_separator(domain: Domain) -> bytes:
    fields = ",".join(f"{kind} {name}" for kind, name in DOMAIN_TYPE)
    words = [
        keccak(text=f"EIP712Domain({fields})"),
        keccak(text=domain.name),
        keccak(text=domain.version),
        _word("uint256", domain.chain_id),
        _word("address", domain.verifying_contract),
    ]
    return keccak(b"".join(words))


def vault_domain(chain_id: int, vault: str) -> Domain:
    """The domain of terms and receipts."""
    return Domain("RaphaClearingVault", "1", chain_id, vault)


def enclave_registry_domain(chain_id: int, registry: str) -> Domain:
    """The domain of committee registrations."""
    return Domain("RaphaEnclaveRegistry", "1", chain_id, registry)


def deployment_domain(chain_id: int, vault: str) -> Domain:
    """The domain of a deployment's signed record."""
    return Domain("RaphaDeployment", "1", chain_id, vault)


def usdc_domain(chain_id: int, usdc: str) -> Domain:
    """The domain of native USDC (Circle FiatToken v2.2)."""
    return Domain("USD Coin", "2", chain_id, usdc)


def encode_type(primary: str) -> str:
    """EIP-712 `encodeType`: the struct's own signature, then those of the structs it refers to."""

    def signature(name: str) -> str:
        return f"{name}({','.join(f'{kind} {field}' for kind, field in TYPES[name])})"

    return signature(primary) + "".join(signature(name) for name in referenced(primary))


def referenced(primary: str) -> list[str]:
    """The structs that a struct refers to, directly or not, sorted (EIP-712)."""
    found: set[str] = set()
    for kind, _ in TYPES[primary]:
        name = kind.removesuffix("[]")
        if name in TYPES:
            found |= {name, *referenced(name)}
    return sorted(found)


@cache
def type_hash(primary: str) -> bytes:
    """keccak-256 of `encode_type`."""
    return keccak(text=encode_type(primary))


def hash_struct(primary: str, values: list[Any]) -> bytes:
    """EIP-712 `hashStruct`. `values` follow `TYPES`; nested structs are given as their hash.

    Raises:
        ValueError, OverflowError: when a value is not of its type.
    """
    words = [_word(kind, value) for (kind, _), value in zip(TYPES[primary], values, strict=True)]
    return keccak(type_hash(primary) + b"".join(words))


def _word(kind: str, value: Any) -> bytes:
    """One value as EIP-712's `encodeData` has it: 32 bytes, whatever its type.

    It is not left to an ABI encoder because it is asked for with every receipt that comes in.
    """
    if kind.startswith("uint"):
        width = int(kind.removeprefix("uint")) // 8
        return bytes(32 - width) + int.to_bytes(value, width, "big")
    if kind == "bool":
        return int.to_bytes(value is True, 32, "big")
    if kind == "address":
        word = bytes(12) + bytes.fromhex(value.removeprefix("0x"))
    else:  # bytes32, or the hash of a struct or of an array of structs
        word = bytes(value)
    if len(word) != 32:
        raise ValueError(f"{value!r} is no {kind}")
    return word


def typed_digest(domain: Domain, struct_hash: bytes) -> bytes:
    """What is signed: the EIP-712 digest of a struct's hash in a domain."""
    return keccak(b"\x19\x01" + domain.separator + struct_hash)


def struct_hash(model: Frozen) -> bytes:
    """`hashStruct` of a model whose name is its EIP-712 type."""

    def word(value: Any) -> Any:
        if isinstance(value, Frozen):
            return struct_hash(value)
        if isinstance(value, tuple):
            return keccak(b"".join(struct_hash(item) for item in value))
        return value

    return hash_struct(type(model).__name__, [word(value) for value in _values(model)])


def intent_digest(model: OpenJobs | Sponsorship | Withdrawal | Deposit, vault: Domain) -> bytes:
    """What a payer or payee signs in the vault's domain; of a deposit, the EIP-3009 nonce."""
    return typed_digest(vault, struct_hash(model))


def assignment_digest(assignment: Assignment, vault: Domain) -> bytes:
    """What each committee member signs to assign a job."""
    return typed_digest(vault, struct_hash(assignment))


def _values(model: Frozen) -> list[Any]:
    return [getattr(model, name) for name in type(model).model_fields]


def work_digest(work: Work) -> bytes:
    """`hashStruct(work)`; the vault takes it in place of the four digests when it settles."""
    return struct_hash(work)


def job_id(terms: JobTerms, vault: Domain) -> bytes:
    """The job id: the EIP-712 digest of the terms in the vault's domain."""
    return typed_digest(vault, struct_hash(terms))


def receipt_digest(receipt: Receipt, vault: Domain) -> bytes:
    """What the enclave key signs."""
    return typed_digest(vault, struct_hash(receipt))


def registration_digest(registration: EnclaveRegistration, registry: Domain) -> bytes:
    """What each committee member signs."""
    return typed_digest(registry, struct_hash(registration))


def verdict_digest(verdict: PlatformVerdict, registry: Domain) -> bytes:
    """What each committee member signs about a platform."""
    return typed_digest(registry, struct_hash(verdict))


def receive_authorization_digest(
    usdc: Domain,
    *,
    payer: str,
    to: str,
    value: int,
    valid_after: int,
    valid_before: int,
    nonce: bytes,
) -> bytes:
    """EIP-3009 `ReceiveWithAuthorization`: what the payer signs to escrow `value` base units."""
    values = [payer, to, value, valid_after, valid_before, nonce]
    return typed_digest(usdc, hash_struct("ReceiveWithAuthorization", values))


def typed_data(domain: Domain, primary: str, message: dict[str, Any]) -> dict[str, Any]:
    """The `eth_signTypedData_v4` document that a wallet shows; `message` in EIP-712 names."""

    def fields(members: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"name": name, "type": kind} for kind, name in members]

    return {
        "types": {
            "EIP712Domain": fields(DOMAIN_TYPE),
            **{name: fields(TYPES[name]) for name in [primary, *referenced(primary)]},
        },
        "primaryType": primary,
        "domain": {
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.chain_id,
            "verifyingContract": domain.verifying_contract,
        },
        "message": message,
    }


def message_of(model: Frozen) -> dict[str, Any]:
    """A model as the `message` of its typed data: EIP-712 names, bytes as hex."""
    names = [name for _, name in TYPES[type(model).__name__]]
    message: dict[str, Any] = {}
    for name, value in zip(names, _values(model), strict=True):
        if isinstance(value, Frozen):
            message[name] = message_of(value)
        elif isinstance(value, tuple):
            message[name] = [message_of(item) for item in value]
        else:
            message[name] = to_hex(value) if isinstance(value, bytes) else value
    return message


def sign_digest(digest: bytes, private_key: bytes) -> bytes:
    """A 65-byte r‖s‖v signature (low s, v in 27/28) over a 32-byte EIP-712 digest."""
    return bytes(Account.unsafe_sign_hash(digest, private_key).signature)


def recover_signer(digest: bytes, signature: bytes) -> str:
    """The address that signed `digest`.

    Raises:
        InvalidSignature: when the bytes are not a recoverable low-s signature (EIP-2).
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise InvalidSignature("a signature is 65 bytes r, s, v with v 27 or 28")
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        raise InvalidSignature("the signature's s is in the upper half of the curve order")
    compact = signature[:64] + bytes([signature[64] - 27])
    try:
        key = PublicKey.from_signature_and_message(compact, digest, hasher=None)
    except ValueError as error:
        raise InvalidSignature("the signature does not recover to any key") from error
    return _checksummed(keccak(key.format(compressed=False)[1:])[12:])


@lru_cache(maxsize=4096)
def _checksummed(address: bytes) -> str:
    """An address in its EIP-55 form: a keccak more, where one enclave signs many receipts."""
    return str(to_checksum_address(address))


_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
