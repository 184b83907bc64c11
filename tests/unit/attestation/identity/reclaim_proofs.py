"""Reclaim proofs by an attestor of the tests' own, and the one request that they are about."""

import json
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from eth_utils import keccak

from oracle.attestation.identity.reclaim import Formula, ReclaimProvider, ReclaimTemplate

NOW = 1_800_000_000
PURPOSE = "rapha.identity.v1 on chain 137"
WALLET = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"


def actor(name: str) -> LocalAccount:
    account: LocalAccount = Account.from_key(keccak(text=name))
    return account


ATTESTOR = actor("attestor")
SECOND_ATTESTOR = actor("second attestor")
IMPOSTOR = actor("impostor")

PARAMETERS: dict[str, Any] = {
    "additionalClientOptions": {},
    "body": "",
    "geoLocation": "",
    "headers": {"accept": "application/json"},
    "method": "GET",
    "paramValues": {"account": "4711", "company": "Acme"},
    "responseMatches": [
        {"invert": False, "type": "contains", "value": '"id":"{{account}}"'},
        {"type": "contains", "value": '"company":"{{company}}"'},
    ],
    "responseRedactions": [
        {"jsonPath": "$.id", "regex": '"id":"(.*)"', "xPath": ""},
        {"jsonPath": "$.company", "regex": '"company":"(.*)"'},
    ],
    "url": "https://accounts.example/api/me",
}


def compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def request_hash(parameters: dict[str, Any], formula: Formula = "2025-01") -> bytes:
    """The attestor's own computation, from the words of its source."""
    request = {name: parameters[name] for name in ("url", "method")}
    request["responseMatches"] = [dict(match) for match in parameters["responseMatches"]]
    request["responseRedactions"] = [dict(part) for part in parameters["responseRedactions"]]
    if formula == "2024-03":
        request["geoLocation"] = parameters["geoLocation"]
    else:
        request["body"] = parameters["body"]
    if formula == "2026-04":
        for match in request["responseMatches"]:
            if not match.get("invert"):
                match.pop("invert", None)
        for part in request["responseRedactions"]:
            for name in ("xPath", "jsonPath", "regex"):
                part.setdefault(name, "")
    return keccak(text=compact(request))


@dataclass
class Claim:
    """What an attestor is asked to sign; each field is what an honest prover's would be."""

    parameters: dict[str, Any] = field(default_factory=lambda: dict(PARAMETERS))
    extracted: dict[str, str] = field(
        default_factory=lambda: {"account": "4711", "company": "Acme"}
    )
    wallet: str = WALLET.lower()
    message: str = PURPOSE
    time: int = NOW
    formula: Formula = "2025-01"
    signers: tuple[LocalAccount, ...] = (ATTESTOR,)
    owner: str = actor("prover").address.lower()

    def proof(self) -> dict[str, Any]:
        context = compact(
            {
                "contextAddress": self.wallet,
                "contextMessage": self.message,
                "extractedParameters": self.extracted,
                "providerHash": "0x" + request_hash(self.parameters, self.formula).hex(),
            }
        )
        return sign(compact(self.parameters), context, self.owner, self.time, self.signers)

    def text(self) -> str:
        return json.dumps(self.proof())


def sign(
    parameters: str, context: str, owner: str, time: int, signers: tuple[LocalAccount, ...]
) -> dict[str, Any]:
    """A proof over exactly these texts."""
    identifier = "0x" + keccak(text=f"http\n{parameters}\n{context}").hex()
    message = encode_defunct(text=f"{identifier}\n{owner}\n{time}\n1")
    signatures = ["0x" + signer.sign_message(message).signature.hex() for signer in signers]
    return {
        "identifier": identifier,
        "claimData": {
            "provider": "http",
            "parameters": parameters,
            "owner": owner,
            "timestampS": time,
            "context": context,
            "identifier": identifier,
            "epoch": 1,
        },
        "signatures": signatures,
        "witnesses": [{"id": s.address.lower(), "url": "wss://attestor.example"} for s in signers],
        "publicData": {},
    }


def template(formula: Formula = "2025-01", **changes: Any) -> ReclaimTemplate:
    fields = {
        "name": "example-account",
        "site": "accounts.example",
        "provider_hash": request_hash(PARAMETERS, formula),
        "formula": formula,
        "url": PARAMETERS["url"],
        "keys": frozenset({"account", "company"}),
        "subject": "account",
    }
    return ReclaimTemplate.model_validate({**fields, **changes})


def provider(*templates: ReclaimTemplate, threshold: int = 1) -> ReclaimProvider:
    return ReclaimProvider(
        attestors=[ATTESTOR.address, SECOND_ATTESTOR.address],
        templates=templates or [template()],
        threshold=threshold,
    )
