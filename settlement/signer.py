"""Who signs and pays for a transaction: any web3 account, or an account of ape's.

Everything that writes to a chain takes a `Signer`, so the SDK needs neither a key nor ape.
"""

from typing import Any, Protocol, cast

from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils import to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.types import TxParams


class Signer(Protocol):
    """An account that sends transactions and signs typed data."""

    @property
    def address(self) -> str:
        """The EIP-55 address."""

    def send(self, w3: Web3, transaction: TxParams) -> bytes:
        """Sign and send a call ({to, data, gas}); returns the 32-byte transaction hash."""

    def sign_typed_data(self, document: dict[str, Any]) -> bytes:
        """A 65-byte r‖s‖v signature over an EIP-712 document (`settlement.eip712.typed_data`)."""


class LocalSigner:
    """A key in memory: any `eth_account` account, also one from a keystore file."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account

    @property
    def address(self) -> str:
        """The EIP-55 address."""
        return str(self._account.address)

    def send(self, w3: Web3, transaction: TxParams) -> bytes:
        """Fill in nonce and EIP-1559 fees, sign, send."""
        fees = w3.eth.fee_history(1, "latest", [50])
        tip = max(int(fees["reward"][0][0]), w3.eth.max_priority_fee)
        filled: TxParams = {
            **transaction,
            "from": to_checksum_address(self.address),
            "chainId": w3.eth.chain_id,
            "nonce": w3.eth.get_transaction_count(to_checksum_address(self.address), "pending"),
            "maxPriorityFeePerGas": w3.to_wei(tip, "wei"),
            "maxFeePerGas": w3.to_wei(2 * int(fees["baseFeePerGas"][-1]) + tip, "wei"),
            "value": transaction.get("value", w3.to_wei(0, "wei")),
        }
        signed = self._account.sign_transaction(cast(dict[str, Any], filled))
        return bytes(w3.eth.send_raw_transaction(signed.raw_transaction))

    def sign_typed_data(self, document: dict[str, Any]) -> bytes:
        """A 65-byte signature over an EIP-712 document."""
        return bytes(self._account.sign_message(encode_typed_data(full_message=document)).signature)


class ApeSigner:
    """An account of ape's (`ape.accounts.load(...)`, a test account, a hardware wallet).

    Takes the account as it is, so that the SDK does not import ape; ape must be connected to the
    same network as the `Web3` that is handed to `send`.
    """

    def __init__(self, account: Any) -> None:
        self._account = account

    @property
    def address(self) -> str:
        """The EIP-55 address."""
        return str(self._account.address)

    def send(self, w3: Web3, transaction: TxParams) -> bytes:
        """Let ape fill in, sign and send."""
        ecosystem = self._account.provider.network.ecosystem
        call = ecosystem.create_transaction(
            receiver=transaction.get("to"),
            data=HexBytes(transaction["data"]),
            gas_limit=transaction["gas"],
            chain_id=w3.eth.chain_id,
            sender=self.address,
        )
        return bytes(HexBytes(self._account.call(call).txn_hash))

    def sign_typed_data(self, document: dict[str, Any]) -> bytes:
        """A 65-byte signature over an EIP-712 document."""
        signature = self._account.sign_message(encode_typed_data(full_message=document))
        # ape's plugins give r and s as bytes or integers, and v as 0/1 or 27/28
        r, s = (int(HexBytes(part).hex(), 16) for part in (signature.r, signature.s))
        v = signature.v if signature.v >= 27 else signature.v + 27
        return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])
