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

from settlement.deployment import REAL_CHAINS
from settlement.errors import RaphaError
from settlement.networks import min_tip

KNOWN_ACCOUNTS = frozenset(
    {
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
        "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
        "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
        "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
        "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
        "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
    }
)
"""The accounts of the mnemonic that every local chain starts with: their keys are public."""


class KnownKeyRefused(RaphaError, PermissionError):
    """A private key that everybody knows was to be used on a chain with real money."""

    def __init__(self, address: str, chain_id: int) -> None:
        self.address, self.chain_id = address, chain_id
        super().__init__(f"the key of {address} is public; chain {chain_id} needs one of your own")


def refuse_known_key(address: str, chain_id: int) -> None:
    """Let any address pass on a test chain, and none of `KNOWN_ACCOUNTS` where money is real.

    Raises:
        KnownKeyRefused: for the key of a public mnemonic on a chain of `REAL_CHAINS`.
    """
    if chain_id in REAL_CHAINS and address in KNOWN_ACCOUNTS:
        raise KnownKeyRefused(address, chain_id)


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
        """Fill in nonce and EIP-1559 fees, sign, send.

        Raises:
            KnownKeyRefused: see `refuse_known_key`.
        """
        refuse_known_key(self.address, w3.eth.chain_id)
        fees = w3.eth.fee_history(1, "latest", [50])
        tip = max(int(fees["reward"][0][0]), w3.eth.max_priority_fee, min_tip(w3.eth.chain_id))
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
        """A 65-byte signature over an EIP-712 document.

        Raises:
            KnownKeyRefused: see `refuse_known_key`.
        """
        refuse_known_key(self.address, document["domain"]["chainId"])
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
        """Let ape fill in, sign and send.

        Raises:
            KnownKeyRefused: see `refuse_known_key`.
        """
        refuse_known_key(self.address, w3.eth.chain_id)
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
        """A 65-byte signature over an EIP-712 document.

        Raises:
            KnownKeyRefused: see `refuse_known_key`.
        """
        refuse_known_key(self.address, document["domain"]["chainId"])
        signature = self._account.sign_message(encode_typed_data(full_message=document))
        # ape's plugins give r and s as bytes or integers, and v as 0/1 or 27/28
        r, s = (int(HexBytes(part).hex(), 16) for part in (signature.r, signature.s))
        v = signature.v if signature.v >= 27 else signature.v + 27
        return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])
