"""API keys: shown once, kept as hashes, refused once revoked."""

import hashlib
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from oracle import cli
from oracle.errors import ApiKeyRefused, ApiKeyUnknown, ScopeMissing
from oracle.keys import FRESH, REMEMBERED, ApiKeys, Scope
from oracle.store.database import Store
from oracle.store.intake_tables import ApiKeyRow


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(migrated: str) -> Iterator[Store]:
    store = Store(migrated)
    yield store
    store.close()


@pytest.fixture
def keys(store: Store, clock: Clock) -> ApiKeys:
    return ApiKeys(store, lambda: 1_700, clock)


def test_a_token_is_its_keys(keys: ApiKeys) -> None:
    key, token = keys.add("hospital 7", [Scope.SUBMIT, Scope.READ])
    assert keys.identify(token) == key
    assert (key.name, key.created_at, key.revoked_at) == ("hospital 7", 1_700, None)
    key.check(Scope.READ)
    with pytest.raises(ScopeMissing, match="lacks the scope 'operate'"):
        key.check(Scope.OPERATE)


def test_what_is_stored_is_the_hash_of_32_bytes(store: Store, keys: ApiKeys) -> None:
    _, token = keys.add("x", [Scope.READ])
    secret = urlsafe_b64decode(token.split("_", 2)[2] + "=")
    assert len(secret) == 32
    with store.read() as session:
        row = session.scalars(select(ApiKeyRow)).one()
    assert row.digest == hashlib.sha256(secret).digest()


def test_tokens_that_are_nobodys_are_refused(keys: ApiKeys) -> None:
    _, token = keys.add("x", [Scope.READ])
    _, other = keys.add("y", [Scope.READ])
    swapped = token[:23] + other[23:]
    unknown = token.replace(token[6:22], "0" * 16)
    for wrong in ("", "x", token[:-1], token + "A", swapped, unknown):
        with pytest.raises(ApiKeyRefused):
            keys.identify(wrong)
        assert keys.remembered(wrong) is None


def test_a_revoked_key_ends_at_once_in_the_database_and_soon_in_memory(
    keys: ApiKeys, clock: Clock
) -> None:
    key, token = keys.add("x", [Scope.READ])
    assert keys.remembered(token) is None
    assert keys.identify(token) == keys.remembered(token) == key
    revoked = keys.revoke(key.key_id)
    assert revoked.revoked_at == 1_700
    assert keys.revoke(key.key_id) == revoked
    clock.now = FRESH - 0.01
    assert keys.remembered(token) == key
    clock.now = FRESH
    assert keys.remembered(token) is None
    with pytest.raises(ApiKeyRefused):
        keys.identify(token)
    assert [found.revoked_at for found in keys.all()] == [1_700]


def test_memory_is_bounded(keys: ApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracle.keys.REMEMBERED", 2)
    tokens = [keys.add(str(i), [Scope.READ])[1] for i in range(3)]
    for token in tokens:
        keys.identify(token)
    assert [keys.remembered(token) is None for token in tokens] == [True, False, False]
    assert REMEMBERED == 1_000


def test_there_is_nothing_to_revoke_under_an_unknown_id(keys: ApiKeys) -> None:
    with pytest.raises(ApiKeyUnknown, match="no API key 'ab'"):
        keys.revoke("ab")


def test_the_command_line_makes_lists_and_ends_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("DEPLOYMENT", "COMMITTEE_KEY", "PEER_TOKEN", "COLLATERAL"):
        monkeypatch.setenv(f"RAPHA_ORACLE_{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("RAPHA_ORACLE_RPC_URL", "http://127.0.0.1:1")
    url = f"sqlite:///{tmp_path / 'oracle.db'}"
    monkeypatch.setenv("RAPHA_ORACLE_DATABASE_URL", url)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["rapha-oracle", "keys", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), capsys.readouterr().out

    code, out = run("add", "hub", "--scope", "submit", "--scope", "read", "--json")
    made = json.loads(out)
    assert (code, made["name"], made["scopes"]) == (0, "hub", ["read", "submit"])
    store = Store(url)
    assert ApiKeys(store, lambda: 0).identify(made["token"]).key_id == made["id"]
    assert run("list")[1].split() == [made["id"], "valid", "read", "submit", "hub"]
    code, out = run("revoke", made["id"], "--json")
    assert json.loads(out)["revoked_at"] is not None
    assert "token" not in out
    listed = json.loads(run("list", "--json")[1])["keys"]
    assert listed == [json.loads(out)]
    assert run("revoke", "0" * 16)[0] == 1
    assert run("add", "", "--scope", "read")[0] == 2
    with pytest.raises(ApiKeyRefused):
        ApiKeys(store, lambda: 0).identify(made["token"])
    store.close()
