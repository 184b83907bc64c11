"""What a console needs beside the jobs themselves: search, quotes, policies, escrow, details."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from unit.hub.conftest import START
from unit.hub.test_sessions import Wallets

from oracle.clients.edge.policy.digest import base_rules, policy_digest
from oracle.clients.hub.quotes import ESCROW_GAS, SETTLE_GAS
from settlement import digests
from settlement.contracts import artifact, authorization_document
from settlement.hub.client import HubRefused
from settlement.hub.market import PolicyLibrary
from settlement.hub.messages import ArtifactName, DatasetProfile, JobRequest, JobState, Progress
from settlement.signer import LocalSigner
from settlement.types import to_hex

World = Any
MakeRequest = Callable[..., JobRequest]
MakeProfile = Callable[..., DatasetProfile]


def get(world: World, path: str, name: str = "acme", **params: Any) -> Any:
    return world.http.get(path, headers=world.headers(name), params=params)


# Catalogue


@pytest.fixture
def market(world: World, make_profile: MakeProfile) -> World:
    """Nodes that differ."""
    profiles = [
        make_profile(2, modality="imaging", description="Chest X-rays", record_count=5_000),
        make_profile(3, price_per_record=20_000, schema=("age:U8", "stage:U8")),
        make_profile(4, record_count=100),
    ]
    for profile in profiles:
        world.store.put_profile(profile, world.node_principal(profile.node_id), START)
    world.oracle.attest(2)
    world.oracle.attest(3)
    return world


@pytest.mark.parametrize(
    ("query", "nodes"),
    [
        ({}, [1, 2, 3, 4]),
        ({"modality": "imaging"}, [2]),
        ({"text": "x-RAYS chest"}, [2]),
        ({"text": "nothing like it"}, []),
        ({"column": "stage"}, [3]),
        ({"column": ["stage", "mean radius"]}, []),
        ({"min_records": 569}, [1, 2, 3]),
        ({"max_price_per_record": 10_000}, [1, 2, 4]),
        ({"attested": "true"}, [1, 2, 3]),
    ],
)
def test_catalogue_is_searched(market: World, query: dict[str, Any], nodes: list[int]) -> None:
    entries = get(market, "/v1/catalogue", **query).json()["entries"]
    assert [entry["profile"]["node_id"] for entry in entries] == nodes


def test_catalogue_comes_in_pages(market: World) -> None:
    seen, after = [], "0"
    while after is not None:
        page = get(market, "/v1/catalogue", limit=3, after=after).json()
        seen.append([entry["profile"]["node_id"] for entry in page["entries"]])
        after = page["next"]
    assert seen == [[1, 2, 3], [4]]
    entry = get(market, "/v1/catalogue/2").json()
    assert (entry["updated_at"], entry["seen_at"], entry["valid"]) == (START, START, True)
    answer = get(market, "/v1/catalogue/9")
    assert (answer.status_code, answer.json()["code"]) == (404, "NodeUnknown")


# Quotes


def ask_quotes(world: World, **changes: Any) -> Any:
    body = {"modality": "tabular", "epochs": 2, **changes}
    return world.http.post("/v1/quotes", json=body, headers=world.headers("acme")).json()


def test_quote_is_records_and_epochs_by_their_prices_and_says_why_not(market: World) -> None:
    quotes = ask_quotes(market, budget=6_000_000, min_records=200)["quotes"]
    assert [(it["node_id"], it["for_records"], it["for_epochs"]) for it in quotes] == [
        (1, 5_690_000, 100_000),
        (4, 1_000_000, 100_000),
        (3, 11_380_000, 100_000),
        (2, 50_000_000, 100_000),
    ]
    assert quotes[0]["worst_case"] == 5_790_000
    assert [it["why_not"] for it in quotes] == [
        [],
        [
            "it has 100 records, not 200",
            "its attestation is not valid now (enclave_missing)",
        ],
        ["it can cost up to 11.48 USDC (11480000 base units)"],
        [
            "its modality is imaging, not tabular",
            "it can cost up to 50.1 USDC (50100000 base units)",
        ],
    ]


def test_quote_names_shares_and_gas_where_the_chain_can_be_asked(market: World) -> None:
    quotes = ask_quotes(market)
    assert (quotes["quotes"][0]["shares"], quotes["gas"]["price"]) == (None, None)
    market.service._chain = Wallets()
    quotes = ask_quotes(market)
    assert sum(quotes["quotes"][0]["shares"].values()) == 10_000
    total = ESCROW_GAS + 3 * SETTLE_GAS
    assert (quotes["gas"]["total"], quotes["gas"]["cost_wei"]) == (total, 30 * 10**9 * total)


def test_expected_time_is_what_such_jobs_took_there(
    world: World, make_request: MakeRequest
) -> None:
    assert ask_quotes(world)["quotes"][0]["expected_seconds"] is None
    created = world.running(make_request())
    node = world.party("1")
    world.now[0] += 200
    node.report_progress(created.job_id, Progress(records=569, epochs=2, epochs_total=2))
    for name in ArtifactName:
        node.put_artifact(created.job_id, name, b"done")
    assert ask_quotes(world)["quotes"][0]["expected_seconds"] == 200
    assert ask_quotes(world, epochs=4)["quotes"][0]["expected_seconds"] == 400


# Policies


def test_policies_come_with_their_meaning_and_the_rules_behind_their_digest(world: World) -> None:
    library = PolicyLibrary.model_validate_json(world.http.get("/v1/policies").content)
    rules = {name: text.encode() for name, text in library.rules.items()}
    assert rules == dict(base_rules())
    for it in library.policies:
        document = it.policy.model_dump(mode="json")
        assert it.digest == digests.policy_digest(rules, document) == policy_digest(it.policy)
        explained = world.http.post("/v1/policies/explanation", json=document).json()
        assert explained["digest"] == to_hex(it.digest)
        assert f"{it.policy.min_records:,} different records" in explained["sentences"][0]


# Jobs


def create(world: World, request: JobRequest, key: str | None) -> Any:
    headers = {**world.headers("acme"), **({"idempotency-key": key} if key else {})}
    return world.http.post("/v1/jobs", json=request.model_dump(mode="json"), headers=headers)


def test_same_idempotency_key_is_the_same_job(world: World, make_request: MakeRequest) -> None:
    first = create(world, make_request(), "order 1")
    world.oracle.nodes.clear()  # a retry does not depend on what has changed since
    again = create(world, make_request(), "order 1")
    assert (again.status_code, again.json()) == (201, first.json())
    other = create(world, make_request(epochs=1), "order 1")
    assert (other.status_code, other.json()["code"]) == (422, "IdempotencyConflict")
    world.oracle.attest(1)
    assert create(world, make_request(), "order 2").json()["job_id"] != first.json()["job_id"]
    rival = {**world.headers("rival"), "idempotency-key": "order 1"}
    body = make_request().model_dump(mode="json")
    answer = world.http.post("/v1/jobs", json=body, headers=rival)
    assert answer.json()["job_id"] != first.json()["job_id"]


def test_requests_with_one_key_at_once_are_one_job(world: World, make_request: MakeRequest) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: create(world, make_request(), "once"), range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert len(world.store.jobs_of(tenant="acme", limit=10)) == 1


def test_job_is_routed_to_the_wanted_node_or_to_none(
    market: World, make_request: MakeRequest
) -> None:
    request = make_request(node_id=3, budget=20_000_000)
    assert market.party("acme").create_job(request).terms.node_id == 3
    with pytest.raises(HubRefused) as caught:
        market.party("acme").create_job(make_request(node_id=4))
    assert caught.value.code == "NoNodeAvailable"
    assert "node 4 was asked for" in str(caught.value)


def test_job_goes_to_the_node_that_waited_longest(
    world: World, make_request: MakeRequest, make_profile: MakeProfile
) -> None:
    world.oracle.attest(2)
    world.party("2").put_profile(make_profile(2, price_per_record=11_000))
    order_of_nodes = []
    for _ in range(4):
        created = world.delivered(make_request())
        order_of_nodes.append(created.terms.node_id)
        world.now[0] += 1
    assert order_of_nodes == [1, 2, 1, 2]


def test_absent_and_busy_nodes_get_no_job(world: World, make_request: MakeRequest) -> None:
    world.now[0] += 301
    deadline = START + 7200
    with pytest.raises(HubRefused, match=f"it was last heard of at {START}"):
        world.party("acme").create_job(make_request(deadline=deadline))
    world.party("1").heartbeat(1)
    world.service._policy = replace(world.service._policy, queue=1)
    world.funded(make_request(deadline=deadline))
    world.party("1").lease(1)
    with pytest.raises(HubRefused, match="its queue is full"):
        world.party("acme").create_job(make_request(deadline=deadline))


def test_detail_says_how_it_was_routed_and_what_it_waits_for(
    world: World, make_request: MakeRequest
) -> None:
    created = world.party("acme").create_job(make_request())
    url = f"/v1/jobs/{to_hex(created.job_id)}/detail"
    detail = get(world, url).json()
    assert detail["route"] == created.route.model_dump(mode="json")
    assert detail["stalled"] == "the budget is not in escrow yet"
    assert (detail["framework"], detail["epochs"]) == ("pytorch", 2)
    world.oracle.escrow(created.job_id, created.terms)
    assert get(world, url).json()["stalled"] is None
    world.party("1").lease(1)
    assert get(world, url).json()["stalled"] is None
    world.now[0] += 120
    assert "node 1 was not heard of for 120 seconds" in get(world, url).json()["stalled"]
    world.party("1").heartbeat(1)
    assert get(world, url).json()["stalled"] is None
    for name in ArtifactName:
        world.party("1").put_artifact(created.job_id, name, b"done")
    detail = get(world, url).json()
    assert [it["size"] for it in detail["artifacts"]] == [4] * 4
    assert (detail["started_at"], detail["ended_at"]) == (START, START + 120)


def test_jobs_come_in_pages_the_newest_first(world: World, make_request: MakeRequest) -> None:
    made = []
    for _ in range(5):
        made.append(to_hex(world.party("acme").create_job(make_request()).job_id))
        world.now[0] += 1
    seen: list[str] = []
    before = None
    while True:
        page = get(world, "/v1/jobs", limit=2, **({"before": before} if before else {})).json()
        seen += [job["job_id"] for job in page["jobs"]]
        if (before := page["next"]) is None:
            break
    assert seen == made[::-1]
    assert get(world, "/v1/jobs", state="RUNNING").json()["jobs"] == []


# Escrow


def test_offer_is_what_the_payer_signs_and_the_oracle_gets(
    world: World, make_request: MakeRequest
) -> None:
    payer = Account.from_key(bytes([9]) * 32)
    created = world.party("acme").create_job(make_request(payer=payer.address))
    url = f"/v1/jobs/{to_hex(created.job_id)}/escrow"
    offer = get(world, url).json()
    assert (offer["stage"], offer["valid_before"]) == ("UNSIGNED", START + 3600)
    expected = authorization_document(
        world.deployment, created.terms, valid_after=0, valid_before=START + 3600
    )
    assert offer["typed_data"] == expected
    assert expected["message"]["nonce"] == to_hex(created.job_id)
    signature = LocalSigner(payer).sign_typed_data(offer["typed_data"])
    authorization = {
        "valid_after": 0,
        "valid_before": START + 3600,
        "signature": to_hex(signature),
    }
    body = {"authorization": authorization}
    answer = world.http.post(url, json=body, headers=world.headers("acme"))
    assert (answer.status_code, answer.json()["stage"]) == (202, "ACCEPTED")
    assert world.oracle.handed == [
        {"terms": created.terms.model_dump(mode="json"), "authorization": authorization}
    ]


def test_calls_are_the_vaults_own(world: World, make_request: MakeRequest) -> None:
    from web3 import Web3

    created = world.party("acme").create_job(make_request())
    calls = get(world, f"/v1/jobs/{to_hex(created.job_id)}/calls").json()["calls"]
    vault = Web3().eth.contract(abi=artifact("RaphaClearingVault").abi)
    for call, sender in zip(calls, (created.terms.payer, None), strict=True):
        function, arguments = vault.decode_function_input(call["data"])
        assert (function.fn_name, call["to"]) == (call["name"], world.deployment.vault)
        (reference,) = arguments.values()
        assert reference["budget"] == created.terms.budget
        assert call["sender"] == sender
    assert [call["name"] for call in calls] == ["cancel", "refund"]


# Delivery


def test_download_goes_on_where_it_broke_off_and_ends_with_the_retention(
    world: World, make_request: MakeRequest
) -> None:
    created = world.delivered(make_request())
    url = f"/v1/jobs/{to_hex(created.job_id)}/artifacts/weights"
    headers = world.headers("acme")
    whole = world.http.get(url, headers=headers)
    assert whole.content == b"the weights"
    rest = world.http.get(
        url, headers={**headers, "range": "bytes=4-", "if-range": whole.headers["etag"]}
    )
    assert (rest.status_code, rest.content) == (206, b"weights")
    assert rest.headers["content-range"] == "bytes 4-10/11"
    world.now[0] += 30 * 86_400
    answer = world.http.get(url, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (410, "ArtifactExpired")
    assert len(list((world.folder / "artifacts").iterdir())) == 4
    world.now[0] += 1
    world.service.sweep(10)
    assert list((world.folder / "artifacts").iterdir()) == []


def test_settlement_is_what_the_oracle_says_of_the_chain(
    world: World, make_request: MakeRequest
) -> None:
    created = world.party("acme").create_job(make_request())
    url = f"/v1/jobs/{to_hex(created.job_id)}/settlement"
    assert get(world, url).json()["code"] == "JobUnknown"
    world.oracle.escrow(created.job_id, created.terms)
    assert get(world, url).json()["funded"] == created.terms.budget


# What the operator sees, and what happens by itself


def test_operator_sees_every_node_and_what_it_does(world: World, make_request: MakeRequest) -> None:
    created = world.running(make_request())
    (node,) = get(world, "/v1/operator/nodes", "boss").json()["nodes"]
    assert (node["node_id"], node["running_job"]) == (1, to_hex(created.job_id))
    assert (node["unfinished_jobs"], node["seen_at"], node["entry"]["valid"]) == (1, START, True)


def test_sweep_finds_what_nobody_asked_about(world: World, make_request: MakeRequest) -> None:
    created = world.funded(make_request())
    assert world.service.sweep(15) == ()
    world.now[0] += 16
    assert world.service.sweep(15) == (1,)
    assert world.store.job(created.job_id).state is JobState.FUNDED
    assert world.service.followed(bytes(32)) is None
    assert world.service.followed(created.job_id) == 1


def test_slow_oracle_is_not_asked_again_by_each_who_waited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, elapsed = world.service, [0.0]
    ask_oracle = service._ask_standings

    def slowly() -> Any:
        elapsed[0] += 5
        return ask_oracle()

    monkeypatch.setattr(service, "_ask_standings", slowly)
    monkeypatch.setattr(service, "_elapsed", lambda: elapsed[0])
    monkeypatch.setattr(service, "_policy", replace(service._policy, freshness=1.0))
    for expected in (1, 1, 2):
        service._standings()
        assert world.oracle.asked.count("/v1/nodes") == expected
        elapsed[0] += 0.6


def test_long_poll_is_answered_when_the_job_is_funded(
    world: World, make_request: MakeRequest
) -> None:
    created = world.party("acme").create_job(make_request())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: world.party("1").lease(1, wait=20))
        while not world.hub.wakeups._waiting:
            pass
        world.oracle.escrow(created.job_id, created.terms)
        world.hub.wakeups.wake(world.service.followed(created.job_id))
        leased = waiting.result(timeout=60)
    assert leased is not None
    assert leased.job_id == created.job_id
