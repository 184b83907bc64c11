"""Keys in memory and in keystores, and that no signer can pass off something else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st
from unit.oracle.bench import DEPLOYMENT, actor

from oracle.errors import SecretFileInvalid, SignedOtherwise
from oracle.keyfiles import read_keystore
from oracle.signers.local import LocalKey
from oracle.signers.transaction import UnsignedTransaction, checked

WANTED = UnsignedTransaction(
    chain_id=137,
    nonce=7,
    to=DEPLOYMENT.vault,
    data=b"\1\2",
    gas=100_000,
    max_fee=60,
    tip=30,
    value=5,
)
KEY = LocalKey(actor("relayer"))


def test_a_local_keys_signature_is_what_was_asked_for() -> None:
    raw = KEY.sign_transaction(WANTED)
    assert checked(WANTED, raw, KEY.address) == raw
    assert Account.recover_transaction(raw) == actor("relayer").address


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain_id", 1),
        ("nonce", 8),
        ("to", DEPLOYMENT.usdc),
        ("data", b"\1\3"),
        ("gas", 100_001),
        ("max_fee", 61),
        ("tip", 31),
        ("value", 6),
    ],
)
def test_another_value_of_any_field_is_refused_by_name(field: str, value: Any) -> None:
    raw = KEY.sign_transaction(replace(WANTED, **{field: value}))
    with pytest.raises(SignedOtherwise) as caught:
        checked(WANTED, raw, KEY.address)
    assert caught.value.what == f"has another {field}"


def test_another_keys_signature_is_refused() -> None:
    raw = LocalKey(actor("thief")).sign_transaction(WANTED)
    with pytest.raises(SignedOtherwise) as caught:
        checked(WANTED, raw, KEY.address)
    assert caught.value.what == f"is signed by {actor('thief').address}"


def test_another_type_or_an_access_list_is_refused() -> None:
    listed = {**WANTED.fields(), "accessList": [{"address": DEPLOYMENT.usdc, "storageKeys": []}]}
    raw = Account.sign_transaction(listed, actor("relayer").key).raw_transaction
    with pytest.raises(SignedOtherwise, match="has an access list"):
        checked(WANTED, bytes(raw), KEY.address)
    fields = {
        name: value
        for name, value in WANTED.fields().items()
        if name not in ("type", "maxFeePerGas", "maxPriorityFeePerGas")
    }
    legacy = Account.sign_transaction({**fields, "gasPrice": 60}, actor("relayer").key)
    with pytest.raises(SignedOtherwise, match=r"is no EIP-1559 transaction"):
        checked(WANTED, bytes(legacy.raw_transaction), KEY.address)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(SignedOtherwise):
        checked(WANTED, data, KEY.address)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_refused(place: int, change: int) -> None:
    raw = bytearray(KEY.sign_transaction(WANTED))
    raw[place % len(raw)] ^= change
    with pytest.raises(SignedOtherwise):
        checked(WANTED, bytes(raw), KEY.address)


@pytest.fixture
def keystore(tmp_path: Path) -> tuple[Path, Path]:
    document = Account.encrypt(actor("relayer").key, "open sesame", kdf="pbkdf2", iterations=2)
    store, password = tmp_path / "keystore.json", tmp_path / "password"
    store.write_text(json.dumps(document))
    password.write_text("open sesame\n")
    return store, password


def test_a_keystore_is_opened_by_the_password_in_its_file(keystore: tuple[Path, Path]) -> None:
    assert read_keystore(*keystore).address == actor("relayer").address


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"version": 3, "crypto": {}}'])
def test_what_is_no_keystore_is_refused_without_showing_it(
    keystore: tuple[Path, Path], content: str
) -> None:
    store, password = keystore
    store.write_text(content)
    with pytest.raises(SecretFileInvalid) as caught:
        read_keystore(store, password)
    assert str(caught.value) == f"{store}: is no keystore that the password in {password} opens"
    assert caught.value.__cause__ is None


def test_a_wrong_password_is_refused_without_showing_it(keystore: tuple[Path, Path]) -> None:
    store, password = keystore
    password.write_text("open barley")
    with pytest.raises(SecretFileInvalid, match="is no keystore that the password") as caught:
        read_keystore(store, password)
    assert "barley" not in str(caught.value)
