"""The console's pages: who sees which, what an error looks like, and what browsers may load."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from unit.hub.conftest import OPERATOR
from unit.hub.test_sessions import STRANGER, WALLET, Wallets, signed_in

from oracle.client import JobStatus
from oracle.clients.hub.console import words
from oracle.clients.hub.console.waterfall import MAX_STEPS, WIDTH, bars
from settlement.hub.account import RegistrationState, Step
from settlement.hub.market import Shares
from settlement.hub.messages import JobRequest, JobState
from settlement.types import to_hex

World = Any
MakeRequest = Callable[..., JobRequest]
PROFILE = {
    "website": None,
    "country": "DE",
    "contact": "ml@acme.example",
    "architecture": "A small network",
    "modality": "tabular",
    "compute_budget": 10**9,
    "purpose": "<b>Tell</b> benign from malignant.",
}


def developer(world: World, account: Any = WALLET, name: str = "acme-imaging") -> None:
    """Signs in as a developer that was just approved; the client keeps the cookie."""
    csrf = signed_in(world, account)
    request = {"name": name, "company": name, "wallet": account.address, "profile": PROFILE}
    object.__setattr__(world.hub.access.policy, "registering", "wallet")
    answer = world.http.post("/v1/registrations", json=request, headers=csrf)
    assert answer.status_code == 201, answer.text
    registration_id = bytes.fromhex(answer.json()["registration_id"][2:])
    world.store.review(registration_id, Step.APPROVED, "known", world.node_principal(0), 1)


def page(world: World, path: str, **headers: str) -> Any:
    return world.http.get(f"/console/{path}", headers=headers, follow_redirects=False)


def test_front_leads_to_the_console_and_strangers_to_signing_in(world: World) -> None:
    assert page(world, "").status_code == 200
    front = world.http.get("/", follow_redirects=False)
    assert (front.status_code, front.headers["location"]) == (303, "/console/")
    answer = page(world, "jobs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/?next=/console/jobs")
    part = page(world, "jobs/estimate", **{"hx-request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (204, "/console/")


def test_an_api_key_is_no_session_of_a_browser(world: World) -> None:
    assert page(world, "jobs", **world.headers("acme")).status_code == 303


@pytest.mark.parametrize("path", ["", "static/console.js", "static/console.css", "nothing"])
def test_pages_and_files_carry_the_policy_of_what_may_run(world: World, path: str) -> None:
    headers = page(world, path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in world.http.get("/v1/hub").headers


@pytest.mark.parametrize(
    ("path", "applicant", "approved", "operator"),
    [
        ("account", 200, 200, 200),
        ("catalogue", 403, 200, 200),
        ("jobs", 403, 200, 200),
        ("jobs/new", 403, 200, 403),
        ("jobs/estimate", 403, 200, 403),
        ("balance", 200, 200, 200),
        ("earnings", 200, 200, 200),
        ("operator", 403, 403, 200),
        ("operator/nodes", 403, 403, 200),
        ("nothing", 404, 404, 404),
        ("jobs/0x12", 403, 404, 403),
    ],
)
def test_each_page_is_for_its_roles(
    world: World, path: str, applicant: int, approved: int, operator: int
) -> None:
    signed_in(world, STRANGER)
    found = [page(world, path).status_code]
    developer(world)
    found.append(page(world, path).status_code)
    signed_in(world, OPERATOR)
    found.append(page(world, path).status_code)
    if path == "jobs/0x12":
        applicant = operator = 404  # no job's id: nobody's page
    assert found == [applicant, approved, operator]


def test_a_job_is_its_developers_alone(world: World, make_request: MakeRequest) -> None:
    developer(world)
    job_id = world.service.create_job(
        world.hub.access.by_session(world.http.cookies["rapha_session"]),
        make_request(payer=WALLET.address),
    ).job_id
    path = f"jobs/{to_hex(job_id)}"
    assert "Sign and escrow" in page(world, path).text
    assert page(world, f"{path}/live").status_code == 200
    developer(world, STRANGER, "rival-imaging")
    answer = page(world, path)
    assert answer.status_code == 404
    assert "Sign and escrow" not in answer.text
    part = page(world, f"{path}/live", **{"hx-request": "true"})
    assert (part.status_code, "no job" in part.text) == (404, True)
    assert part.headers["content-type"].startswith("text/plain")


def test_a_nodes_jobs_are_shown_to_its_payees_alone(
    world: World, make_request: MakeRequest
) -> None:
    created = world.funded(make_request())
    signed_in(world)
    world.service._chain = Wallets(paid={1: {"hospital": STRANGER.address}})
    assert words.short(created.job_id) not in page(world, "earnings").text
    signed_in(world, STRANGER)
    answer = page(world, "earnings")
    assert "paid to this wallet as hospital" in answer.text
    assert words.short(created.job_id) in answer.text


def test_what_people_write_is_text_and_never_markup(world: World) -> None:
    developer(world)
    signed_in(world, OPERATOR)
    assert "Nobody waits" in page(world, "operator").text
    answer = page(world, "operator?state=APPROVED")
    assert "&lt;b&gt;Tell&lt;/b&gt;" in answer.text
    assert "<b>Tell" not in answer.text


def test_an_oracle_that_is_down_is_a_page_in_words(world: World) -> None:
    developer(world)
    world.oracle.down = True
    answer = page(world, "catalogue")
    assert answer.status_code == 503
    assert "is unavailable" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
    signed_in(world, OPERATOR)
    assert "does not answer" in page(world, "operator").text


def test_the_catalogues_form_takes_what_people_type(world: World) -> None:
    developer(world)
    assert "1 dataset<" in page(world, "catalogue?column=mean radius, malignant").text
    assert "Nothing fits" in page(world, "catalogue?max_price=0.009999").text
    assert "is not an amount" in page(world, "catalogue?max_price=cheap").text
    assert "is not a number of records" in page(world, "catalogue?min_records=-1").text


def test_an_estimate_says_when_the_budget_is_too_small(world: World) -> None:
    developer(world)
    asked = "jobs/estimate?modality=tabular&epochs=2&policy=small-model"
    assert 'data-worst-case="5790000"' in page(world, asked).text
    assert "below that" not in page(world, f"{asked}&budget=5.79").text
    assert "below that" in page(world, f"{asked}&budget=5.789999").text
    assert "Choose a kind of data" in page(world, "jobs/estimate?epochs=2").text
    assert "No node can take this job" in page(world, f"{asked}&policy=deep-network").text


@dataclass
class Steps:
    """A job's settlement, as it goes on."""

    funded: int = 10_000
    amounts: list[int] = field(default_factory=list)
    closed: bool = False

    def status(self) -> JobStatus:
        paid = sum(self.amounts)
        zero = to_hex(bytes(32))
        terms = {
            "payer": WALLET.address,
            "node_id": 1,
            "price_per_record": 1,
            "price_per_epoch": 1,
            "budget": self.funded,
            "deadline": 1,
            "work": dict.fromkeys(
                ("model_digest", "dataset_digest", "policy_digest", "result_key_digest"), zero
            ),
            "salt": zero,
        }
        return JobStatus.model_validate(
            {
                "job_id": zero,
                "terms": terms,
                "state": "CLOSED" if self.closed else "OPEN",
                "node_id": 1,
                "payable_until": 1,
                "funded": self.funded,
                "paid": paid,
                "refunded": self.funded - paid if self.closed else 0,
                "records": 0,
                "epochs": 0,
                "output_digest": None,
                "receipts": [],
                "transactions": [
                    {"event": "settled", "transaction": zero, "block": 1, "amount": amount}
                    for amount in self.amounts
                ],
            }
        )


def test_waterfall_sums_to_the_escrow_and_its_split_to_what_was_paid() -> None:
    shares = Shares(hospital=7_000, node_owner=2_000, onboarder=500, protocol=500)
    rows = bars(Steps(amounts=[101, 0, 333], closed=True).status(), shares)
    assert [(row.label, row.amount) for row in rows] == [
        ("Escrowed", 10_000),
        ("Payment 1", 101),
        ("Payment 2", 333),
        ("Back to the payer", 9_566),
        ("Hospital", 306),
        ("Node's owner", 86),
        ("Onboarder", 21),
        ("Protocol", 21),
    ]
    paid = [row for row in rows if row.kind in ("paid", "back")]
    assert [row.start + row.length for row in paid[:-1]] == [row.start for row in paid[1:]]
    assert paid[-1].start + paid[-1].length == WIDTH


def test_waterfall_of_many_payments_has_the_early_ones_in_one_bar() -> None:
    rows = bars(Steps(amounts=[10] * (MAX_STEPS + 3)).status(), None)
    assert [row.label for row in rows[:3]] == ["Escrowed", "Payments 1 to 3", "Payment 4"]
    assert rows[1].amount == 30
    assert rows[-1].label == "Still in escrow"
    assert bars(Steps().status().model_copy(update={"funded": 0}), None) == ()


def test_every_state_has_its_words() -> None:
    assert set(words.STATES) == set(JobState)
    assert set(words.STANDINGS) == set(RegistrationState)
    assert [words.span(s) for s in (0, 1, 90, 7_200)] == [
        "a moment",
        "1 second",
        "2 minutes",
        "2 hours",
    ]
