"""API keys are never kept, repeated or guessed by time."""

import json
import stat
from pathlib import Path

import pytest

from oracle.clients.hub.database import open_database
from oracle.clients.hub.errors import KeysFileMalformed, Unauthorized
from oracle.clients.hub.keys import KeyRing, KeysFile, Principal, Role, load_hash_key, load_keys
from oracle.clients.hub.store import Store

ACME, NODE = "a" * 40, "n" * 40
DOCUMENT = {"developers": {"acme": ACME}, "nodes": {"7": NODE}}
HASH_KEY = bytes(32)


def test_each_key_tells_its_party() -> None:
    records = KeysFile.model_validate(DOCUMENT).records(HASH_KEY)
    ring = KeyRing({record.digest: record for record in records}.get, HASH_KEY, lambda: 0)
    assert ring.identify(ACME) == Principal(Role.DEVELOPER, "acme")
    assert ring.identify(NODE) == Principal(Role.NODE, "7")
    with pytest.raises(Unauthorized):
        ring.identify("b" * 40)


def test_database_holds_hashes_only_and_forgets_removed_keys(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/hub.sqlite")
    store = Store(engine)
    records = KeysFile.model_validate(DOCUMENT).records(HASH_KEY)
    store.replace_api_keys(records)
    assert set(store.api_keys()) == set(records)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert ACME.encode() not in content
    assert NODE.encode() not in content
    store.replace_api_keys(records[:1])
    assert store.api_keys() == records[:1]
    store.close()


def test_another_hash_key_makes_other_hashes() -> None:
    keys = KeysFile.model_validate(DOCUMENT)
    assert keys.records(HASH_KEY)[0].digest != keys.records(b"\x01" * 32)[0].digest


def test_keys_are_loaded_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(DOCUMENT))
    assert load_keys(path) == KeysFile.model_validate(DOCUMENT)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"developers": {"acme": "short-secret"}, "nodes": {}}, "at least 32"),
        ({"developers": {"acme": ACME}, "nodes": {"7": ACME}}, "two parties share one key"),
        ({"developers": {}, "nodes": {"seven": NODE}}, "match pattern"),
        ({"nodes": {}}, "Field required"),
    ],
)
def test_malformed_keys_file_is_named_and_not_quoted(
    tmp_path: Path, document: object, fault: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(document))
    with pytest.raises(KeysFileMalformed, match=fault) as caught:
        load_keys(path)
    for secret in ("short-secret", ACME, NODE):
        assert secret not in str(caught.value)
    assert caught.value.__suppress_context__


def test_missing_keys_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysFileMalformed, match="cannot be read"):
        load_keys(tmp_path / "none.json")


def test_hash_key_is_made_once_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "hash.key"
    key = load_hash_key(path)
    assert len(key) == 32
    assert load_hash_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_damaged_hash_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hash.key"
    path.write_bytes(b"short")
    with pytest.raises(KeysFileMalformed, match="does not hold 32 bytes"):
        load_hash_key(path)
