"""Signing in with a wallet, and what a browser's session may do, and from where."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from unit.hub.conftest import OPERATOR, SITE, START, make_hub

from oracle.clients.hub.sessions import Site
from settlement.errors import InvalidInput
from settlement.hub.market import Shares

World = Any
WALLET = Account.from_key(bytes([42]) * 32)
STRANGER = Account.from_key(bytes([43]) * 32)
CONTRACT = "0x00000000000000000000000000000000000000C0"


def challenge(world: World, address: str = WALLET.address) -> str:
    answer = world.http.post("/v1/session/challenge", json={"address": address})
    assert answer.status_code == 201
    return answer.json()["message"]


def sign(message: str, account: Any = WALLET) -> str:
    return "0x" + account.sign_message(encode_defunct(text=message)).signature.hex()


def sign_in(world: World, message: str, signature: str, **headers: str) -> Any:
    body = {"message": message, "signature": signature}
    return world.http.post("/v1/session", json=body, headers=headers)


def signed_in(world: World, account: Any = WALLET) -> dict[str, str]:
    """Signs in (the client keeps the cookie); the headers of what it changes."""
    message = challenge(world, account.address)
    answer = sign_in(world, message, sign(message, account))
    assert answer.status_code == 201, answer.text
    return {"x-csrf-token": answer.json()["csrf_token"]}


def refusal(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 401
    return answer.json()["code"], answer.json()["reason"]


def test_wallet_signs_in_once_with_the_message_that_it_was_given(world: World) -> None:
    message = challenge(world)
    assert message.startswith(
        f"localhost:8100 wants you to sign in with your Ethereum account:\n{WALLET.address}\n"
    )
    assert "Chain ID: 31337" in message
    answer = sign_in(world, message, sign(message))
    assert (answer.json()["role"], answer.json()["wallet"]) == ("applicant", WALLET.address)
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    for part in ("rapha_session=", "HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert part in cookie
    assert "Domain" not in cookie
    again = world.http.get("/v1/session").json()
    assert again["csrf_token"] == answer.json()["csrf_token"]
    assert refusal(sign_in(world, message, sign(message))) == ("SignInRefused", "nonce")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("localhost:8100 wants", "evil.example wants", "domain"),
        ("localhost:8100 wants", "https://localhost:8100 wants", "scheme"),
        ("URI: http://localhost:8100", "URI: http://evil.example", "uri"),
        ("Chain ID: 31337", "Chain ID: 137", "chain_id"),
        ("Version: 1", "Version: 2", "message"),
        ("Nonce: ", "Nonce: 0", "nonce"),
        ("wants you to sign in", "wants all of it", "message"),
        ("Expiration Time: 2027", "Expiration Time: 2025", "expired"),
        (WALLET.address, STRANGER.address, "signature"),
    ],
)
def test_another_message_signs_nobody_in(world: World, old: str, new: str, reason: str) -> None:
    message = challenge(world)
    assert old in message
    changed = message.replace(old, new)
    answer = sign_in(world, changed, sign(changed))
    assert refusal(answer) == ("SignInRefused", reason)
    assert "set-cookie" not in answer.headers
    # and what was tried has not used the real one up
    assert sign_in(world, message, sign(message)).status_code == 201


def test_message_counts_from_the_time_that_it_names(world: World) -> None:
    later = challenge(world) + "\nNot Before: 2028-01-01T00:00:00Z"
    assert refusal(sign_in(world, later, sign(later))) == ("SignInRefused", "not_before")
    earlier = challenge(world) + "\nNot Before: 2026-01-01T00:00:00Z"
    assert sign_in(world, earlier, sign(earlier)).status_code == 201


def test_challenge_ends_after_ten_minutes(world: World) -> None:
    message = challenge(world)
    world.now[0] += 600
    assert refusal(sign_in(world, message, sign(message))) == ("SignInRefused", "expired")


def test_a_later_end_in_the_message_does_not_lengthen_its_nonce(world: World) -> None:
    message = challenge(world)
    world.now[0] += 601
    longer = message.replace("Expiration Time: 2027", "Expiration Time: 2028")
    assert longer != message
    assert refusal(sign_in(world, longer, sign(longer))) == ("SignInRefused", "nonce")


def test_session_ends_by_itself_and_by_signing_out(world: World) -> None:
    headers = signed_in(world)
    world.now[0] += 43_199
    assert world.http.get("/v1/session").status_code == 200
    world.now[0] += 1
    assert world.http.get("/v1/session").json()["code"] == "Unauthorized"
    headers = signed_in(world)
    cookie = world.http.cookies["rapha_session"]
    assert world.http.delete("/v1/session", headers=headers).status_code == 204
    world.http.cookies.set("rapha_session", cookie)  # a thief's copy is worth nothing either
    assert world.http.get("/v1/session").status_code == 401


def test_database_holds_no_session_token(world: World) -> None:
    signed_in(world)
    content = b"".join(path.read_bytes() for path in world.folder.glob("hub.sqlite*"))
    assert WALLET.address.encode() in content
    assert world.http.cookies["rapha_session"].encode() not in content


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-csrf-token": "0" * 64},
        {"x-csrf-token": "right", "origin": "http://evil.example"},
        {"x-csrf-token": "right", "origin": "null"},
    ],
)
def test_session_changes_nothing_without_its_token_or_from_elsewhere(
    world: World, headers: dict[str, str]
) -> None:
    token = signed_in(world, OPERATOR)["x-csrf-token"]
    given = {name: token if value == "right" else value for name, value in headers.items()}
    body = {"label": "mine", "scopes": ["operate"]}
    answer = world.http.post("/v1/keys", json=body, headers=given)
    assert (answer.status_code, answer.json()["code"]) == (403, "CsrfRefused")
    assert world.http.get("/v1/keys").json() == []
    right = {"x-csrf-token": token, "origin": SITE}
    assert world.http.post("/v1/keys", json=body, headers=right).status_code == 201


def test_csrf_token_is_of_one_session(world: World) -> None:
    first = signed_in(world, OPERATOR)
    signed_in(world, OPERATOR)
    body = {"label": "mine", "scopes": ["operate"]}
    assert world.http.post("/v1/keys", json=body, headers=first).json()["code"] == "CsrfRefused"


def test_nobody_is_signed_in_from_another_page(world: World) -> None:
    message = challenge(world)
    answer = sign_in(world, message, sign(message), origin="http://evil.example")
    assert (answer.status_code, answer.json()["code"]) == (403, "CsrfRefused")


@dataclass
class Wallets:
    """A chain on which contracts take certain signatures, and which can be away."""

    taken: set[tuple[str, bytes]] = field(default_factory=set)
    asked: list[bytes] = field(default_factory=list)
    paid: dict[int, dict[str, str]] = field(default_factory=dict)

    def is_valid_signature(self, wallet: str, digest: bytes, signature: bytes) -> bool:
        self.asked.append(digest)
        return (wallet, signature) in self.taken

    def shares(self, node_id: int) -> Shares:
        return Shares(hospital=7_000, node_owner=2_000, onboarder=500, protocol=500)

    def payees(self, node_id: int) -> dict[str, str]:
        return self.paid.get(node_id, {})

    def gas_price(self) -> int:
        return 30 * 10**9

    def now(self) -> int:
        return START


def test_smart_wallet_signs_in_where_its_contract_says_so(world: World) -> None:
    message, signature = challenge(world, CONTRACT), "0x" + "ab" * 70
    assert refusal(sign_in(world, message, signature)) == ("SignInRefused", "signature")
    wallets = Wallets()
    world.hub.access.sessions._chain = wallets
    assert refusal(sign_in(world, message, signature)) == ("SignInRefused", "signature")
    wallets.taken.add((CONTRACT, bytes.fromhex("ab" * 70)))
    assert sign_in(world, message, signature).json()["wallet"] == CONTRACT
    assert {len(digest) for digest in wallets.asked} == {32}


def test_site_is_https_or_on_this_machine() -> None:
    assert Site.at("https://hub.example/console").cookie == "__Host-rapha_session"
    assert Site.at("http://127.0.0.1:8100").domain == "127.0.0.1:8100"
    with pytest.raises(InvalidInput, match="must be https"):
        Site.at("http://hub.example")


# From a wallet to a key, through the review


PROFILE = {
    "country": "DE",
    "contact": "research@acme.example",
    "architecture": "a classifier",
    "modality": "tabular",
    "compute_budget": 500_000_000,
    "purpose": "To find it earlier.",
}


@pytest.fixture
def open_world(world: World) -> World:
    access = world.hub.access
    access.policy = replace(access.policy, registering="wallet")
    return world


def register(world: World, headers: dict[str, str], **changes: Any) -> Any:
    body = {"name": "newcomer", "company": "Acme", "wallet": WALLET.address, "profile": PROFILE}
    return world.http.post("/v1/registrations", json={**body, **changes}, headers=headers)


def test_from_a_wallet_to_a_key_by_way_of_the_review(open_world: World) -> None:
    world = open_world
    headers = signed_in(world)
    registered = register(world, headers).json()
    assert (registered["state"], registered["profile"]["country"]) == ("PENDING", "DE")
    assert world.http.get("/v1/session").json()["registration_id"] == registered["registration_id"]
    body = {"label": "ci", "scopes": ["read"]}
    assert world.http.post("/v1/keys", json=body, headers=headers).json()["code"] == "ScopeMissing"
    path = f"/v1/registrations/{registered['registration_id']}"

    def decide(action: str, reason: str) -> Any:
        decision = {"action": action, "reason": reason}
        url = path.replace("/v1/", "/v1/operator/") + "/decision"
        return world.http.post(url, json=decision, headers=world.headers("boss"))

    queue = world.http.get(
        "/v1/operator/registrations?state=PENDING", headers=world.headers("boss")
    )
    assert [it["name"] for it in queue.json()["registrations"]] == ["newcomer"]
    told = {"text": "About breast cancer."}
    early = world.http.post(f"{path}/answer", json=told, headers=headers)
    assert (early.status_code, early.json()["code"]) == (409, "NotUnderReview")
    assert decide("ask", "What is it for?").json()["state"] == "ASKED"
    assert world.http.post(f"{path}/answer", json=told, headers=headers).json()["state"] == (
        "PENDING"
    )
    assert decide("approve", "A known company.").json()["state"] == "APPROVED"
    review = world.http.get(path).json()["review"]
    assert [(step["step"], step["text"]) for step in review] == [
        ("asked", "What is it for?"),
        ("answered", "About breast cancer."),
        ("approved", "A known company."),
    ]
    session = world.http.get("/v1/session").json()
    assert (session["role"], session["name"]) == ("developer", "newcomer")
    issued = world.http.post("/v1/keys", json=body, headers=headers).json()
    bearer = {"authorization": f"Bearer {issued['api_key']}"}
    world.http.cookies.clear()
    assert world.http.get("/v1/catalogue", headers=bearer).status_code == 200
    assert world.http.get("/v1/keys", headers=bearer).json()["needed"] == "manage"
    assert decide("reject", "It was not true.").json()["state"] == "REJECTED"
    assert world.http.get("/v1/catalogue", headers=bearer).json()["code"] == "Unauthorized"


def test_registering_needs_a_session_of_that_very_wallet(open_world: World) -> None:
    answer = register(open_world, {})
    assert (answer.status_code, answer.json()["code"]) == (422, "ProofNeeded")
    headers = signed_in(open_world, STRANGER)
    answer = register(open_world, headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "ProofNeeded")
    assert open_world.store.registrations() == ()


def test_a_name_stays_with_the_wallet_that_had_it(open_world: World) -> None:
    world = open_world
    first = register(world, signed_in(world)).json()
    url = f"/v1/operator/registrations/{first['registration_id']}/decision"
    for action in ("approve", "reject"):
        decision = {"action": action, "reason": "so"}
        world.http.post(url, json=decision, headers=world.headers("boss"))
    headers = signed_in(world, STRANGER)
    answer = register(world, headers, wallet=STRANGER.address)
    assert (answer.status_code, answer.json()["code"]) == (409, "NameTaken")
    assert register(world, signed_in(world)).status_code == 201  # its own wallet may come back


# API keys


def test_keys_are_shown_once_rotated_and_revoked(world: World) -> None:
    acme = world.headers("acme")
    body = {"label": "ci", "scopes": ["read", "submit"], "lifetime": 3600}
    made = world.http.post("/v1/keys", json=body, headers=acme)
    assert made.headers["cache-control"] == "no-store"
    first = made.json()
    assert first["api_key"].startswith("rapha_hub_")
    assert first["api_key"] not in world.http.get("/v1/keys", headers=acme).text
    assert b"".join(path.read_bytes() for path in world.folder.glob("hub.sqlite*")).find(
        first["api_key"].encode()
    ) == (-1)

    def works(api_key: str) -> bool:
        headers = {"authorization": f"Bearer {api_key}"}
        return world.http.get("/v1/jobs", headers=headers).status_code == 200

    url = f"/v1/keys/{first['key']['key_id']}"
    second = world.http.post(f"{url}/rotation", json={"overlap": 60}, headers=acme).json()
    assert (second["key"]["label"], second["key"]["scopes"]) == ("ci", ["read", "submit"])
    assert second["key"]["expires_at"] == START + 3600
    assert works(first["api_key"])
    assert works(second["api_key"])
    world.now[0] += 60
    assert not works(first["api_key"])
    assert works(second["api_key"])
    again = world.http.post(f"{url}/rotation", json={}, headers=acme)
    assert (again.status_code, again.json()["code"]) == (404, "KeyUnknown")
    revoked = world.http.delete(f"/v1/keys/{second['key']['key_id']}", headers=acme).json()
    assert revoked["revoked_at"] == world.now[0]
    assert not works(second["api_key"])


def test_a_key_gives_no_more_than_it_has(world: World) -> None:
    acme = world.headers("acme")
    body = {"label": "keys", "scopes": ["manage"]}
    api_key = world.http.post("/v1/keys", json=body, headers=acme).json()["api_key"]
    narrow = {"authorization": f"Bearer {api_key}"}
    for scopes in (["read"], ["operate"]):
        answer = world.http.post(
            "/v1/keys", json={"label": "more", "scopes": scopes}, headers=narrow
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "ScopeMissing")
    wide = {"label": "wide", "scopes": ["read", "submit"]}
    key_id = world.http.post("/v1/keys", json=wide, headers=acme).json()["key"]["key_id"]
    answer = world.http.post(f"/v1/keys/{key_id}/rotation", json={}, headers=narrow)
    assert (answer.status_code, answer.json()["code"]) == (403, "ScopeMissing")


def test_key_ends_at_its_time(world: World) -> None:
    body = {"label": "short", "scopes": ["read"], "lifetime": 60}
    made = world.http.post("/v1/keys", json=body, headers=world.headers("acme")).json()
    headers = {"authorization": f"Bearer {made['api_key']}"}
    world.now[0] += 59
    assert world.http.get("/v1/jobs", headers=headers).status_code == 200
    world.now[0] += 1
    assert world.http.get("/v1/jobs", headers=headers).json()["code"] == "Unauthorized"


# Rates


def test_each_party_has_its_own_rate_and_a_wrong_key_counts_by_address(
    world: World, make_request: Callable[..., Any]
) -> None:
    hub = make_hub(
        world.store, world.oracle, world.deployment, world.folder, lambda: world.now[0],
        access=replace(world.hub.access.policy, per_party="3/day", per_address="2/day"),
    )  # fmt: skip
    world.http.app.state.hub = hub
    acme, rival = world.headers("acme"), world.headers("rival")
    assert [world.http.get("/v1/jobs", headers=acme).status_code for _ in range(4)] == [
        200, 200, 200, 429,
    ]  # fmt: skip
    assert world.http.get("/v1/jobs", headers=rival).status_code == 200
    wrong = {"authorization": "Bearer guess"}
    assert [world.http.get("/v1/jobs", headers=wrong).status_code for _ in range(3)] == [
        401, 401, 429,
    ]  # fmt: skip
    answer = world.http.get("/v1/policies")
    assert (answer.status_code, answer.json()["final"]) == (429, False)
    assert int(answer.headers["retry-after"]) >= 1
    assert world.http.get("/healthz").status_code == 200
