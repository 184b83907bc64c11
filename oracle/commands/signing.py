"""Signatures made elsewhere: typed data out, signatures in. And what a transaction answers."""

import json
from typing import Annotated, Any

import typer
from eth_account.messages import encode_typed_data
from eth_utils import keccak, to_checksum_address
from web3.types import TxReceipt

from oracle.commands.answers import Answer
from oracle.commands.options import HEX, TIME
from settlement.client import Settlement
from settlement.eip712 import recover_signer
from settlement.errors import InvalidSignature
from settlement.types import to_hex

TYPED_DATA = Annotated[
    bool,
    typer.Option(
        "--typed-data", help="Send nothing: print what another wallet is to sign (EIP-712)."
    ),
]
SIGNATURE = Annotated[bytes | None, typer.Option(**HEX, help="What that wallet signed, in hex.")]
HOUR = 3_600
"""Seconds that a signature counts by the chain's clock, unless told otherwise."""

VALID_BEFORE = Annotated[
    int | None,
    typer.Option(**TIME, help="Until when a signature counts; an hour otherwise."),
]


def document_answer(document: dict[str, Any], then: str) -> Answer:
    """A document to sign, and the command that brings the signature."""
    return Answer(
        {"document": document, "then": then},
        (("sign", json.dumps(document)), ("then", then)),
    )


def signed_by(
    settlement: Settlement, document: dict[str, Any], signature: bytes, account: str
) -> None:
    """Let a signature pass that is by `account`, or that only its wallet's contract can judge.

    Raises:
        InvalidSignature: when it is by somebody else; nothing has been sent then.
    """
    if settlement.w3.eth.get_code(to_checksum_address(account)):
        return
    message = encode_typed_data(full_message=document)
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    found = recover_signer(digest, signature)
    if found != account:
        raise InvalidSignature(
            f"the signature is by {found} or over something else, not by {account} over what "
            "--typed-data prints for these options: give the very same ones"
        )


def sent(receipt: TxReceipt, data: dict[str, Any], **rows: str) -> Answer:
    """A transaction that went through, with what it was about."""
    transaction = to_hex(bytes(receipt["transactionHash"]))
    told = {"transaction": transaction, "block": receipt["blockNumber"], **data}
    shown = [("transaction", transaction), ("block", str(receipt["blockNumber"]))]
    shown += [(label.replace("_", " "), text) for label, text in rows.items()]
    if "job_id" in data:
        shown.append(("job", str(data["job_id"])))
    return Answer({**told, "gas_used": receipt["gasUsed"]}, tuple(shown))
