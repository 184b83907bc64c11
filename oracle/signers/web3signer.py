"""A relaying key behind a Web3Signer, which may keep it in a cloud KMS, a vault or an HSM.

Speaks JSON-RPC's `eth_signTransaction` as Web3Signer's `eth1` mode serves it
(https://docs.web3signer.consensys.io/reference/api/json-rpc): fields in, raw transaction out. The
signer sees what it signs and may apply rules of its own; its chain id is its own `--chain-id`.
Nothing that comes back is believed: it is parsed, compared with what was asked, and recovered.
"""

import httpx
from eth_utils import to_checksum_address

from oracle.errors import SignedOtherwise, SignerRefused, SignerUnavailable
from oracle.signers.transaction import UnsignedTransaction, checked
from settlement.types import to_hex

_JSON_RPC_VERSION = "2.0"


class Web3Signer:
    """`TransactionSigner` over HTTP for one of the service's accounts."""

    def __init__(self, url: str, address: str, *, timeout: float) -> None:
        """`url` is the service's address and stays out of messages; `timeout` is seconds."""
        self._url = url
        self._address = to_checksum_address(address)
        self._http = httpx.Client(timeout=timeout)

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        return str(self._address)

    def check(self) -> None:
        """Make sure that the service has the key.

        Raises:
            SignerUnavailable: no answer for now.
            SignerRefused: it has no such account.
        """
        accounts = self._ask("eth_accounts", [])
        if not isinstance(accounts, list):
            raise SignerUnavailable("its list of accounts is none")
        if self._address.lower() not in {str(account).lower() for account in accounts}:
            raise SignerRefused(f"it has no account {self._address}")

    def sign_transaction(self, transaction: UnsignedTransaction) -> bytes:
        """The raw signed transaction, exactly the one that was asked for.

        Raises:
            SignerUnavailable: no usable answer for now.
            SignerRefused: the service does not sign this.
            SignedOtherwise: it signed something else.
        """
        asked = {
            "from": self._address,
            "to": transaction.to,
            "gas": hex(transaction.gas),
            "maxPriorityFeePerGas": hex(transaction.tip),
            "maxFeePerGas": hex(transaction.max_fee),
            "nonce": hex(transaction.nonce),
            "value": hex(transaction.value),
            "data": to_hex(transaction.data),
        }
        answer = self._ask("eth_signTransaction", [asked])
        try:
            raw = bytes.fromhex(str(answer).removeprefix("0x"))
        except ValueError as error:
            raise SignedOtherwise("is no EIP-1559 transaction") from error
        return checked(transaction, raw, self.address)

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def _ask(self, method: str, parameters: list[object]) -> object:
        body = {"jsonrpc": _JSON_RPC_VERSION, "id": 1, "method": method, "params": parameters}
        try:
            response = self._http.post(self._url, json=body)
            answer = response.json()
        except httpx.HTTPError as error:
            raise SignerUnavailable(type(error).__name__) from None  # its text carries the URL
        except ValueError as error:
            raise SignerUnavailable(f"answers HTTP {response.status_code} without JSON") from error
        if not isinstance(answer, dict) or ("result" not in answer and "error" not in answer):
            raise SignerUnavailable(f"answers HTTP {response.status_code} without a result")
        if answer.get("error") is not None:
            error_of = answer["error"]
            words = error_of.get("message") if isinstance(error_of, dict) else error_of
            raise SignerRefused(str(words))
        return answer["result"]
