"""docs/vectors.json is what this code makes, and wallets sign the same."""

import json

from eth_account.messages import encode_typed_data
from eth_utils import keccak

from scripts.vectors import VECTORS, text
from settlement.eip712 import DOMAIN_TYPE, TYPES, referenced

STALE = "docs/vectors.json is not what the code makes: run `python -m scripts.vectors`"


def test_vectors_are_fresh() -> None:
    assert VECTORS.read_text() == text(), STALE


def test_wallets_encode_every_message_to_the_same_digest() -> None:
    cases = json.loads(VECTORS.read_text())["typedData"]
    assert {case["primaryType"] for case in cases} == set(TYPES) - {"Work"}
    for case in cases:
        names = [case["primaryType"], *referenced(case["primaryType"])]
        structs = {
            "EIP712Domain": DOMAIN_TYPE,
            **{name: TYPES[name] for name in names},
        }
        document = {
            "types": {
                name: [{"type": kind, "name": field} for kind, field in fields]
                for name, fields in structs.items()
            },
            "primaryType": case["primaryType"],
            "domain": {**case["domain"], "chainId": int(case["domain"]["chainId"])},
            "message": case["message"],
        }
        message = encode_typed_data(full_message=document)
        digest = keccak(b"\x19" + message.version + message.header + message.body)
        assert "0x" + digest.hex() == case["digest"], case["what"]
