"""A relaying key in this process's memory, from a hex file or an encrypted keystore."""

from eth_account import Account
from eth_account.signers.local import LocalAccount

from oracle.signers.transaction import UnsignedTransaction


class LocalKey:
    """`TransactionSigner` over a private key. Deterministic (RFC 6979)."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        return str(self._account.address)

    def sign_transaction(self, transaction: UnsignedTransaction) -> bytes:
        """The raw signed transaction."""
        signed = Account.sign_transaction(transaction.fields(), self._account.key)
        return bytes(signed.raw_transaction)
