"""What goes past web3's own coding says the same as it does."""

import importlib
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_abi.exceptions import DecodingError
from eth_utils import keccak, to_checksum_address
from eth_utils.abi import collapse_if_tuple
from hexbytes import HexBytes
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.oracle.bench import DEPLOYMENT
from web3 import Web3

from settlement.client import Settlement
from settlement.codec import (
    EMITTING,
    EventCodec,
    event_codecs,
    settle_data,
    settle_outcomes,
)
from settlement.contracts import MAX_BATCH, Claim, Outcome, artifact
from settlement.eip712 import sign_digest
from settlement.errors import InvalidInput
from settlement.models import JobTerms, Receipt, SignedReceipt, Work

SETTLEMENT = Settlement(Web3(), DEPLOYMENT)
SIGNATURE = sign_digest(keccak(text="receipt"), keccak(text="enclave"))
EVENTS = [entry for name in EMITTING for entry in artifact(name).abi if entry["type"] == "event"]

words = st.binary(min_size=32, max_size=32)
numbers = st.integers(min_value=1, max_value=2**22 - 1)  # what all fields take
claims = st.builds(
    Claim,
    st.builds(
        JobTerms,
        payer=st.binary(min_size=20, max_size=20).filter(any).map(to_checksum_address),
        node_id=numbers,
        price_per_record=numbers,
        price_per_epoch=numbers,
        budget=numbers,
        deadline=numbers,
        work=st.builds(Work, *(), **dict.fromkeys(Work.model_fields, words)),
        salt=words,
    ),
    st.builds(
        SignedReceipt,
        receipt=st.builds(
            Receipt,
            job_id=words,
            records=numbers,
            epochs=numbers,
            records_root=words,
            output_digest=words,
            complete=st.booleans(),
        ),
        signature=st.just(SIGNATURE),
    ),
)


@settings(max_examples=20)
@given(st.lists(claims, min_size=1, max_size=3))
def test_settling_is_encoded_as_web3_encodes_it(batch: list[Claim]) -> None:
    expected = SETTLEMENT.settle_call(batch)._encode_transaction_data()
    assert settle_data(batch) == HexBytes(expected)


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
def test_no_batch_that_the_vault_won_t_take_is_encoded(count: int) -> None:
    terms = JobTerms.model_construct()
    with pytest.raises(InvalidInput, match=f"1 to {MAX_BATCH} receipts, not {count}"):
        settle_data([Claim(terms, SignedReceipt.model_construct())] * count)


@pytest.mark.parametrize("count", [1, 2, MAX_BATCH])
def test_outcomes_are_read_as_the_vault_answers_them(count: int) -> None:
    codes = [n % len(Outcome) for n in range(count)]
    answer = encode(["uint256"], codes) if count == 1 else encode(["uint256[]"], [codes])
    assert settle_outcomes(answer, count) == codes
    with pytest.raises(DecodingError):
        settle_outcomes(answer[:-1], count)
    with pytest.raises(ValueError, match="not a valid Outcome"):
        settle_outcomes(answer[:-1] + b"\xff", count)


def test_numbers_that_were_cut_short_are_refused_beside_ape() -> None:
    importlib.import_module("ape.utils.abi")
    with pytest.raises(DecodingError):
        settle_outcomes(encode(["uint256"], [1])[:-1], 1)


@pytest.mark.parametrize("entry", EVENTS, ids=lambda entry: entry["name"])
def test_each_event_is_decoded_as_web3_decodes_it(entry: dict[str, Any]) -> None:
    inputs, codec, random = entry["inputs"], EventCodec(entry), Random(entry["name"])
    assert event_codecs()[codec.topic].name == entry["name"]
    event = Web3().eth.contract(abi=[entry]).events[entry["name"]]()
    kinds = [str(collapse_if_tuple(part)) for part in inputs]
    values = [_value(part, random) for part in inputs]
    topics = [codec.topic] + [
        encode([kind], [value])
        for part, kind, value in zip(inputs, kinds, values, strict=True)
        if part["indexed"]
    ]
    plain = [n for n, part in enumerate(inputs) if not part["indexed"]]
    body = encode([kinds[n] for n in plain], [values[n] for n in plain])
    log = {
        "address": DEPLOYMENT.vault,
        "topics": [HexBytes(topic) for topic in topics],
        "data": HexBytes(body),
        "blockNumber": 1,
        "blockHash": HexBytes(bytes(32)),
        "transactionHash": HexBytes(bytes(32)),
        "transactionIndex": 0,
        "logIndex": 0,
    }
    assert codec.decode(topics, body) == _plain(event.process_log(log)["args"])
    for wrong in (topics[:-1], [*topics, bytes(32)]):
        with pytest.raises(ValueError, match="topics"):
            codec.decode(wrong, body)
    if body:
        with pytest.raises(DecodingError):
            codec.decode(topics, body[:-1])


def _value(part: Mapping[str, Any], random: Random) -> Any:
    kind = part["type"]
    if kind == "tuple":
        return tuple(_value(component, random) for component in part["components"])
    if kind == "bool":
        return random.random() < 0.5
    if kind == "address":
        return to_checksum_address(random.randbytes(20))
    if kind.startswith("uint"):
        return random.getrandbits(int(kind.removeprefix("uint")))
    return random.randbytes(int(kind.removeprefix("bytes")))


def _plain(value: Any) -> Any:
    return {n: _plain(v) for n, v in value.items()} if isinstance(value, Mapping) else value
