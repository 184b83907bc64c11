"""What people do at a hub with a wallet, done by a program: sign in, register, review."""

from typing import Any, Self

import httpx
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from settlement.hub.client import accepted

PROFILE: dict[str, Any] = {
    "website": None,
    "country": "DE",
    "contact": "ml@example.com",
    "architecture": "Two-layer perceptron",
    "modality": "tabular",
    "compute_budget": 1_000_000_000,
    "purpose": "Tell benign from malignant tumours by the shape of cell nuclei.",
}


class Visitor:
    """A wallet's session at a hub. Every method raises HubRefused or HubUnavailable."""

    def __init__(self, url: str, account: LocalAccount, *, wallet: str | None = None) -> None:
        """Sign in (EIP-4361). `wallet` is a smart wallet for which the account signs."""
        self._url = url
        self.wallet = wallet or account.address
        self._http = httpx.Client(base_url=url, timeout=30)
        challenge = self.call("POST", "/v1/session/challenge", {"address": self.wallet})
        signed = account.sign_message(encode_defunct(text=challenge["message"]))
        signature = "0x" + signed.signature.hex()
        message = {"message": challenge["message"], "signature": signature}
        session = self.call("POST", "/v1/session", message)
        self._http.headers["x-csrf-token"] = session["csrf_token"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that the hub answers."""
        return accepted(self._url, self._http.request(method, path, json=body)).json()

    def register(self, name: str, company: str) -> str:
        """Register as a developer; the registration's id."""
        request = {"name": name, "company": company, "wallet": self.wallet}
        registration = self.call("POST", "/v1/registrations", {**request, "profile": PROFILE})
        return str(registration["registration_id"])

    def decide(self, registration_id: str, action: str, reason: str) -> None:
        """What an operator does."""
        path = f"/v1/operator/registrations/{registration_id}/decision"
        self.call("POST", path, {"action": action, "reason": reason})

    def make_key(self, label: str) -> str:
        """An API key for bringing jobs."""
        key = self.call("POST", "/v1/keys", {"label": label, "scopes": ["read", "submit"]})
        return str(key["api_key"])
