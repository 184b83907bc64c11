"""What a relayer's key is asked to sign, and whether that is what it signed."""

from dataclasses import dataclass, fields
from typing import Protocol

from eth_account import Account
from eth_account.typed_transactions import DynamicFeeTransaction, TypedTransaction
from eth_keys.exceptions import BadSignature, ValidationError
from eth_utils import to_checksum_address
from hexbytes import HexBytes
from rlp.exceptions import RLPException

from oracle.errors import SignedOtherwise

# What eth_account and what it stands on raise for bytes that are no signed transaction.
_GARBAGE = (
    RLPException,
    BadSignature,
    ValidationError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)


@dataclass(frozen=True)
class UnsignedTransaction:
    """An EIP-1559 transaction before it is signed; fees are wei per gas, `value` is wei."""

    chain_id: int
    nonce: int
    to: str
    data: bytes
    gas: int
    max_fee: int
    tip: int
    value: int = 0

    def fields(self) -> dict[str, object]:
        """The transaction as eth_account takes it."""
        return {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": self.nonce,
            "to": self.to,
            "value": self.value,
            "data": self.data,
            "gas": self.gas,
            "maxFeePerGas": self.max_fee,
            "maxPriorityFeePerGas": self.tip,
        }


class TransactionSigner(Protocol):
    """One relaying key, wherever it is kept.

    A cloud KMS or a hardware key comes in behind this: ask it to sign the digest
    (`keccak256` of the serialized unsigned transaction) with its secp256k1 key (AWS KMS:
    `ECC_SECG_P256K1`, `ECDSA_SHA_256` with message type DIGEST; Google: `EC_SIGN_SECP256K1_SHA256`
    in an HSM), take r and s out of the DER answer, replace an s above half the order by order − s
    (EIP-2), find the recovery bit by trying both, and hand the result to `checked`. Web3Signer
    does all of this for the common services already: see `oracle.signers.web3signer`.
    """

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""

    def sign_transaction(self, transaction: UnsignedTransaction) -> bytes:
        """The raw signed transaction.

        Raises:
            SignerUnavailable: no answer for now.
            SignerRefused: it does not sign this.
            SignedOtherwise: it signed something else.
        """


def checked(wanted: UnsignedTransaction, raw: bytes, address: str) -> bytes:
    """`raw`, if it is exactly the wanted transaction with the signature of `address`.

    Raises:
        SignedOtherwise: naming what is different.
    """
    try:
        parsed = TypedTransaction.from_bytes(HexBytes(raw))
        signer = Account.recover_transaction(HexBytes(raw))
        found = _parsed(parsed)
    except _GARBAGE as error:
        raise SignedOtherwise("is no EIP-1559 transaction") from error
    for field in fields(UnsignedTransaction):
        asked, got = getattr(wanted, field.name), getattr(found, field.name)
        if asked != got:
            raise SignedOtherwise(f"has another {field.name}")
    if signer != address:
        raise SignedOtherwise(f"is signed by {signer}")
    # beyond those fields there is only the access list: the digest tells that it is empty, too
    expected = TypedTransaction.from_dict(wanted.fields())
    if parsed.hash() != expected.hash():
        raise SignedOtherwise("has an access list")
    return raw


def _parsed(transaction: TypedTransaction) -> UnsignedTransaction:
    if transaction.transaction_type != DynamicFeeTransaction.transaction_type:
        raise ValueError("not of type 2")
    values = transaction.as_dict()
    return UnsignedTransaction(
        chain_id=int(values["chainId"]),
        nonce=int(values["nonce"]),
        to=to_checksum_address(values["to"]),
        data=bytes(values["data"]),
        gas=int(values["gas"]),
        max_fee=int(values["maxFeePerGas"]),
        tip=int(values["maxPriorityFeePerGas"]),
        value=int(values["value"]),
    )
