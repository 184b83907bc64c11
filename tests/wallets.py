"""A wallet in a browser under test: announced by EIP-6963, asked by EIP-1193, signing in Python."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from playwright.sync_api import BrowserContext
from web3 import Web3
from web3.types import RPCEndpoint

REJECTED = 4001
UNKNOWN_CHAIN = 4902

_ANNOUNCE = """
(() => {
  const ask = async ({ method, params }) => {
    const question = JSON.stringify({ method, params: params ?? [] });
    const answer = JSON.parse(await window.askTestWallet(question));
    if (answer.error === undefined) return answer.result;
    throw Object.assign(new Error(answer.error.message), answer.error);
  };
  const square = '<rect width="8" height="8" rx="2" fill="#c60"/>';
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">${square}</svg>`;
  const icon = "data:image/svg+xml," + encodeURIComponent(svg);
  const info = { uuid: crypto.randomUUID(), name: "Test Wallet", icon, rdns: "org.example.wallet" };
  const detail = Object.freeze({ info, provider: { request: ask, on() {}, removeListener() {} } });
  const announce = () => dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  addEventListener("eip6963:requestProvider", announce);
  announce();
})();
"""


class WalletRefused(Exception):
    """An EIP-1193 error that the page is to get."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass
class BrowserWallet:
    """One account, on one chain; `declines` says to which methods its owner says no.

    With `contract` it is a smart wallet at that address, for which `account` signs (ERC-1271).
    """

    account: LocalAccount
    w3: Web3
    chain_id: int
    contract: str | None = None
    declines: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    before_signing: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return self.contract or self.account.address

    def announce(self, context: BrowserContext) -> None:
        """Have every page of the browser find it."""
        context.expose_function("askTestWallet", self._answer)
        context.add_init_script(_ANNOUNCE)

    def _answer(self, text: str) -> str:
        question = json.loads(text)
        try:
            result = self._do(question["method"], question["params"])
        except WalletRefused as error:
            return json.dumps({"error": {"code": error.code, "message": str(error)}})
        return json.dumps({"result": result})

    def _do(self, method: str, params: list[Any]) -> Any:
        self.asked.append(method)
        if method in self.declines:
            raise WalletRefused(REJECTED, "User rejected the request.")
        own = {
            "eth_requestAccounts": lambda: [self.address],
            "eth_accounts": lambda: [self.address],
            "eth_chainId": lambda: hex(self.chain_id),
            "personal_sign": lambda: self._sign_text(*params),
            "eth_signTypedData_v4": lambda: self._sign_typed(*params),
            "eth_sendTransaction": lambda: self._send(*params),
            "wallet_switchEthereumChain": lambda: self._switch(*params),
        }
        if method in own:
            return own[method]()
        # as it comes: web3's own calls make other types of what is in it
        answer = self.w3.provider.make_request(RPCEndpoint(method), params)
        if "error" in answer:
            raise WalletRefused(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def _sign_text(self, text: str, address: str) -> str:
        assert address == self.address
        message = encode_defunct(hexstr=text)
        return "0x" + self.account.sign_message(message).signature.hex()

    def _sign_typed(self, address: str, text: str) -> str:
        assert address == self.address
        document = json.loads(text)
        if document["domain"]["chainId"] != self.chain_id:
            raise WalletRefused(-32603, "the document is for another chain")
        self.before_signing()
        signed = Account.sign_typed_data(self.account.key, full_message=document)
        return "0x" + signed.signature.hex()

    def _switch(self, wanted: dict[str, str]) -> None:
        if int(wanted["chainId"], 16) != self.w3.eth.chain_id:
            raise WalletRefused(UNKNOWN_CHAIN, "Unrecognized chain ID.")
        self.chain_id = int(wanted["chainId"], 16)

    def _send(self, transaction: dict[str, str]) -> str:
        fields: dict[str, Any] = {
            "to": Web3.to_checksum_address(transaction["to"]),
            "from": self.account.address,
            "data": transaction["data"],
            "nonce": self.w3.eth.get_transaction_count(self.account.address),
            "chainId": self.chain_id,
            "gasPrice": self.w3.eth.gas_price * 2,
        }
        fields["gas"] = self.w3.eth.estimate_gas(fields) * 2
        del fields["from"]
        signed = self.account.sign_transaction(fields)
        return "0x" + self.w3.eth.send_raw_transaction(signed.raw_transaction).hex()
