"""A developer registers by an identity proof, is reviewed, and gets a key for its own wallet."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner
from unit.attestation.identity.reclaim_proofs import (
    ATTESTOR,
    IMPOSTOR,
    PARAMETERS,
    SECOND_ATTESTOR,
    Claim,
    template,
)

from oracle.clients.hub import cli
from oracle.clients.hub.config import HubSettings
from oracle.clients.hub.database import open_database
from oracle.clients.hub.identity import Identities
from oracle.clients.hub.keys import HUB, KeysFile, hash_api_key, load_hash_key, record_of
from oracle.clients.hub.store import Store
from settlement.deployment import Deployment
from settlement.errors import InvalidInput
from settlement.hub.account import (
    CompanyProfile,
    Registration,
    RegistrationRequest,
    RegistrationState,
    Role,
    Step,
)
from settlement.hub.client import HubClient, HubRefused
from settlement.hub.messages import JobRequest
from settlement.types import to_hex

START = 1_800_000_000
MAX_AGE = 600
PROFILE = CompanyProfile(
    website="https://acme.example",
    country="DE",
    contact="research@acme.example",
    architecture="a classifier on tabular data",
    modality="tabular",
    compute_budget=500_000_000,
    purpose="To find breast cancer earlier.",
)
HASH_KEY = bytes(range(32))
WALLET = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
OTHER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
MakeRequest = Callable[..., JobRequest]
World = Any


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "identity.json"
    settings = {
        "attestors": [ATTESTOR.address, SECOND_ATTESTOR.address],
        "templates": [template().model_dump(mode="json")],
        "max_age": MAX_AGE,
    }
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture
def hub(world: World, settings_file: Path, deployment: Deployment) -> World:
    """The world, with a hub that takes registrations."""
    access = world.hub.access
    access._identities = Identities(settings_file, deployment, bytes(32))
    access.policy = replace(access.policy, registering="proof")
    return world


def proof(hub: World, *, wallet: str = WALLET, **changes: Any) -> str:
    purpose = hub.hub.access.registration_terms().purpose
    return Claim(**{"wallet": wallet.lower(), "message": purpose, "time": START, **changes}).text()


def request(hub: World, *, name: str = "newcomer", wallet: str = WALLET, **changes: Any) -> Any:
    return RegistrationRequest(
        name=name,
        company="Acme GmbH",
        wallet=wallet,
        profile=PROFILE,
        proof=proof(hub, wallet=wallet, **changes),
    )


def another_account(number: str = "4712") -> dict[str, Any]:
    """What the proof of somebody else's account says."""
    values = {"account": number, "company": "Other"}
    return {"extracted": values, "parameters": {**PARAMETERS, "paramValues": values}}


def approve(hub: World, registration: Registration, key: str) -> Registration:
    record = record_of(key, HASH_KEY, Role.DEVELOPER, registration.name, label="first")
    return hub.store.approve(registration.registration_id, record, HUB, hub.now[0])


def reject(hub: World, registration: Registration) -> Registration:
    return hub.store.review(registration.registration_id, Step.REJECTED, "no", HUB, START)


def test_what_a_proof_has_to_be_is_told(hub: World) -> None:
    terms = hub.stranger().registration_terms()
    assert (terms.provider, terms.templates, terms.max_age) == (
        "reclaim",
        ("example-account",),
        MAX_AGE,
    )
    assert terms.purpose == (
        "rapha.identity.v1 on chain 31337 for vault 0x0000000000000000000000000000000000000001"
    )


def test_registration_waits_for_review_and_keeps_nothing_personal(hub: World) -> None:
    registered = hub.stranger().register(request(hub))
    assert registered.state is RegistrationState.PENDING
    assert (registered.name, registered.wallet) == ("newcomer", WALLET)
    assert (registered.site, registered.template) == ("accounts.example", "example-account")
    assert (registered.proven_at, registered.decided_at) == (START, None)
    assert hub.stranger().registration(registered.registration_id) == registered
    with hub.store._engine.begin() as tx:
        row = tx.execute(text("SELECT * FROM registrations")).one()
    assert "4711" not in str(row)


def test_approved_developer_may_bring_jobs_that_its_wallet_pays(
    hub: World, make_request: MakeRequest
) -> None:
    registered = hub.stranger().register(request(hub))
    key = "a-key-of-quite-enough-length-for-anyone"
    newcomer = HubClient("http://hub", key, hub.party("acme")._http._transport)
    with pytest.raises(HubRefused) as caught:
        newcomer.catalogue()
    assert caught.value.code == "Unauthorized"
    approved = approve(hub, registered, key)
    assert (approved.state, approved.decided_at) == (RegistrationState.APPROVED, START)
    with pytest.raises(HubRefused) as caught:
        newcomer.create_job(make_request(payer=OTHER))
    assert (caught.value.code, caught.value.data) == (
        "PayerNotBound",
        {"payer": OTHER, "wallet": WALLET},
    )
    assert newcomer.create_job(make_request(payer=WALLET)).terms.payer == WALLET


def test_a_new_key_ends_the_earlier_and_rejecting_ends_both(hub: World) -> None:
    registered = hub.stranger().register(request(hub))
    keys = [f"key-number-{number}-of-quite-enough-length-indeed" for number in (1, 2)]
    clients = [HubClient("http://hub", key, hub.party("acme")._http._transport) for key in keys]
    approve(hub, registered, keys[0])
    clients[0].catalogue()
    approve(hub, registered, keys[1])
    clients[1].catalogue()
    for client in clients[:1]:
        with pytest.raises(HubRefused, match="a valid API key"):
            client.catalogue()
    reject(hub, registered)
    with pytest.raises(HubRefused, match="a valid API key"):
        clients[1].catalogue()


def test_keys_of_registrations_outlive_a_restart_with_another_keys_file(hub: World) -> None:
    registered = hub.stranger().register(request(hub))
    approve(hub, registered, "a-key-of-quite-enough-length-for-anyone")
    hub.store.replace_api_keys(KeysFile(developers={}, nodes={}).records(HASH_KEY))
    assert [(key.role, key.subject) for key in hub.store.api_keys()] == [
        (Role.DEVELOPER, "newcomer")
    ]


def test_the_same_registration_again_gets_the_same_answer(hub: World) -> None:
    first = hub.stranger().register(request(hub))
    hub.now[0] += 60
    assert hub.stranger().register(request(hub, time=START + 60)) == first
    assert hub.store.registrations() == (first,)


def test_one_account_is_bound_to_one_wallet_and_one_name(hub: World) -> None:
    hub.stranger().register(request(hub))
    with pytest.raises(HubRefused) as caught:
        hub.stranger().register(request(hub, wallet=OTHER))
    assert (caught.value.code, caught.value.status) == ("IdentityTaken", 409)
    with pytest.raises(HubRefused) as caught:
        hub.stranger().register(request(hub, name="second"))
    assert (caught.value.code, caught.value.status) == ("AlreadyRegistered", 409)
    assert caught.value.data == {"name": "newcomer"}


@pytest.mark.parametrize(
    ("name", "wallet", "code"),
    [
        ("newcomer", OTHER, "NameTaken"),
        ("acme", OTHER, "NameTaken"),  # in the keys file
        ("second", WALLET, "WalletTaken"),
    ],
)
def test_name_and_wallet_of_others_are_taken(hub: World, name: str, wallet: str, code: str) -> None:
    hub.stranger().register(request(hub))
    with pytest.raises(HubRefused) as caught:
        hub.stranger().register(request(hub, name=name, wallet=wallet, **another_account()))
    assert (caught.value.code, caught.value.status) == (code, 409)
    assert len(hub.store.registrations()) == 1


def test_who_was_rejected_may_try_again_and_frees_name_wallet_and_account(hub: World) -> None:
    first = hub.stranger().register(request(hub))
    reject(hub, first)
    second = hub.stranger().register(request(hub, name="other", wallet=OTHER))
    assert second.registration_id != first.registration_id
    assert [it.state for it in hub.store.registrations()].count(RegistrationState.REJECTED) == 1
    with pytest.raises(HubRefused, match="no registration"):
        hub.stranger().registration(bytes(32))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signers": (IMPOSTOR,)}, "AttestorUnknown"),
        ({"time": START - MAX_AGE - 1}, "ProofExpired"),
        ({"time": START + 61}, "ProofFromFuture"),
        ({"message": "another use"}, "PurposeMismatch"),
        ({"parameters": {**PARAMETERS, "url": "https://evil.example/me"}}, "TemplateUnknown"),
    ],
)
def test_proof_that_does_not_count_is_refused_by_name_and_nothing_is_kept(
    hub: World, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(HubRefused) as caught:
        hub.stranger().register(request(hub, **changes))
    assert (caught.value.code, caught.value.status) == (code, 422)
    assert hub.store.registrations() == ()


def test_proof_for_another_wallet_or_of_another_kind_is_refused_by_name(hub: World) -> None:
    good = request(hub)
    for changes, code in [
        ({"wallet": OTHER}, "WalletMismatch"),
        ({"provider": "notary"}, "ProviderUnknown"),
        ({"proof": "{}"}, "ProofMalformed"),
    ]:
        with pytest.raises(HubRefused) as caught:
            hub.stranger().register(good.model_copy(update=changes))
        assert (caught.value.code, caught.value.status) == (code, 422)


def test_refusal_is_a_problem_document_without_the_proof(hub: World) -> None:
    body = request(hub, signers=(IMPOSTOR,)).model_dump(mode="json")
    answer = hub.http.post("/v1/registrations", json=body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["signer"] == IMPOSTOR.address
    assert "4711" not in answer.text


def test_hub_that_takes_no_registrations_says_so(world: World, hub: World) -> None:
    good = request(hub)
    world.hub.access.policy = replace(world.hub.access.policy, registering="closed")
    for ask in (world.stranger().registration_terms, lambda: world.stranger().register(good)):
        with pytest.raises(HubRefused) as caught:
            ask()
        assert (caught.value.code, caught.value.status) == ("RegistrationClosed", 409)


def test_database_holds_what_the_code_checks(hub: World) -> None:
    registered = hub.stranger().register(request(hub))
    columns = (
        "registration_id, name, company, wallet, provider, site, template, nullifier, "
        "proof_digest, state, proven_at, requested_at, review"
    )
    for same in ("name", "wallet", "nullifier"):
        values = columns
        for column in ("registration_id", "name", "wallet", "nullifier"):
            if column != same:
                values = values.replace(column, f"'{column} of another'", 1)
        insertion = f"INSERT INTO registrations ({columns}) SELECT {values} FROM registrations"
        with pytest.raises(Exception, match="UNIQUE"), hub.store._engine.begin() as tx:
            tx.execute(text(insertion))
    assert hub.store.registrations() == (registered,)


# The administrator's commands


@pytest.fixture
def environment(
    hub: World, deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    (tmp_path / "deployment.json").write_text(deployment.model_dump_json())
    (tmp_path / "keys.json").write_text('{"developers": {}, "nodes": {}}')
    for name in ("deployment_file", "keys_file", "hash_key_file", "nullifier_key_file"):
        file = {"deployment_file": "deployment.json", "keys_file": "keys.json"}.get(name, name)
        monkeypatch.setenv(f"RAPHA_HUB_{name.upper()}", str(tmp_path / file))
    monkeypatch.setenv("RAPHA_HUB_DATABASE_URL", f"sqlite:///{tmp_path}/hub.sqlite")
    monkeypatch.setenv("RAPHA_HUB_ORACLE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RAPHA_HUB_ARTIFACTS_DIR", str(tmp_path / "artifacts"))
    return tmp_path


def test_admin_lists_approves_and_rejects(hub: World, environment: Path) -> None:
    registered = hub.stranger().register(request(hub))
    identifier = to_hex(registered.registration_id)
    listed = json.loads(run("list", "--json"))
    assert [(it["registration_id"], it["state"]) for it in listed] == [(identifier, "PENDING")]
    issued = json.loads(run("approve", identifier, "--json"))
    assert issued["registration"]["state"] == "APPROVED"
    hash_key = load_hash_key(environment / "hash_key_file")
    store = Store(open_database(f"sqlite:///{environment}/hub.sqlite"))
    digest = hash_api_key(issued["api_key"], hash_key)
    assert store.api_key(digest).counts(START)
    assert "REJECTED" in run("reject", identifier, "--reason", "no such company")
    assert not store.api_key(digest).counts(START)
    assert [(it.action, it.via) for it in store.audit("newcomer", before=None, limit=9)] == [
        ("review.rejected", "command"),
        ("key.issue", "command"),
        ("review.approved", "command"),
        ("register", "proof"),
    ]
    store.close()
    assert identifier in run("list")
    missing = CliRunner().invoke(cli.app, ["registrations", "approve", "0x" + "00" * 32])
    assert missing.exit_code == 1
    assert json.loads(missing.stderr)["code"] == "RegistrationUnknown"
    wrong = CliRunner().invoke(cli.app, ["registrations", "approve", "0x00"])
    assert wrong.exit_code == 2


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["registrations", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_hub_opens_registrations_where_it_is_told_to(
    environment: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.build(HubSettings()).state.hub.access._identities is None
    assert not (environment / "nullifier_key_file").exists()
    monkeypatch.setenv("RAPHA_HUB_REGISTRATION", "proof")
    terms = cli.build(HubSettings()).state.hub.access.registration_terms()
    assert (terms.proof_required, terms.templates) == (True, ("kaggle-user",))
    assert (environment / "nullifier_key_file").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("RAPHA_HUB_IDENTITY_FILE", str(settings_file))
    monkeypatch.setenv("RAPHA_HUB_REGISTRATION", "wallet")
    terms = cli.build(HubSettings()).state.hub.access.registration_terms()
    assert not terms.proof_required
    assert terms.templates == ("example-account",)
    settings_file.write_text('{"threshold": 2}')
    with pytest.raises(InvalidInput, match="1 attestors cannot give 2"):
        cli.build(HubSettings())
    settings_file.unlink()
    with pytest.raises(InvalidInput, match="No such file"):
        cli.build(HubSettings())
