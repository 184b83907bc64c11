"""The console in a real browser: from a stranger's wallet to decrypted weights, and all failures.

One network, one node, one oracle committee; each visitor has a browser profile and a wallet.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from network import Bench
from playwright.sync_api import Page, Route, expect
from safetensors.numpy import load

from oracle.clients.edge.bundle import example
from scripts.chain import ROOT, rpc
from scripts.visitors import Visitor as Session
from settlement.amounts import format_usdc
from settlement.bundle import pack_bundle
from settlement.deploy import create_for_tests
from settlement.signer import LocalSigner

pytestmark = [pytest.mark.xdist_group("console"), pytest.mark.timeout(600)]

AXE = (ROOT / "node_modules/axe-core/axe.min.js").read_text()
TRAINING = 240_000
"""Milliseconds that a job may take."""
EPOCHS = 6
COST = 569 * 50_000 + EPOCHS * 200_000

Visits = Callable[..., Any]
Picture = Callable[[Page, str], None]


def check_accessible(page: Page) -> None:
    """axe finds nothing serious, and the page is no wider than its window."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    grave = {
        violation["id"]: [node["html"] for node in violation["nodes"]]
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    }
    assert grave == {}
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model as a zip on the developer's disk."""
    path = tmp_path_factory.mktemp("bundle") / "model.zip"
    path.write_bytes(pack_bundle(dict(example("breast_cancer_jax").files)))
    return path


def admit(bench: Bench, account: Any, name: str, *, contract: str | None = None) -> Session:
    """Register and approve a wallet by the API; its session."""
    url = bench.net.url("hub")
    session = Session(url, account, wallet=contract)
    registration = session.register(f"{name}-{session.wallet[2:8]}", f"{name.title()} GmbH")
    with Session(url, bench.net.actors.deployer) as operator:
        operator.decide(registration, "approve", "known to us")
    return session


def quoted(session: Session, bench: Bench, bundle: Path, **changes: Any) -> str:
    """A job that waits for its payer's signature; its id."""
    policy = session.call("GET", "/v1/policies")["policies"][0]["policy"]
    request = {
        "bundle": base64.b64encode(bundle.read_bytes()).decode(),
        "modality": bench.entry.profile.modality,
        "min_records": 100,
        "policy": policy,
        "epochs": EPOCHS,
        "budget": COST,
        "result_key": "0x" + "09".ljust(64, "0"),
        "payer": session.wallet,
        "deadline": bench.net.payer().now() + 86_400,
        **changes,
    }
    return str(session.call("POST", "/v1/jobs", request)["job_id"])


@pytest.fixture(scope="module")
def payer(bench: Bench) -> Iterator[Session]:
    """The funded developer, approved, with a little for gas."""
    account = bench.net.actors.payer
    rpc(bench.net.w3, "anvil_setBalance", account.address, hex(10**18))
    with admit(bench, account, "payer") as session:
        yield session


@pytest.fixture(scope="module")
def developer(visit: Visits, bench: Bench, payer: Session) -> Any:
    """The funded developer in front of a browser."""
    visitor = visit(bench.net.actors.payer)
    visitor.sign_in()
    return visitor


def test_a_stranger_registers_is_asked_approved_and_has_a_key(
    visit: Visits, bench: Bench, picture: Picture
) -> None:
    account = Account.create()
    newcomer, operator = visit(account), visit(bench.net.actors.deployer)
    company = f"Acme Imaging {account.address[2:8]}"
    page = newcomer.go("jobs")
    expect(page.get_by_role("button", name="Sign in with Test Wallet")).to_be_visible()
    check_accessible(page)
    picture(page, "console-connect")

    newcomer.wallet.declines.add("personal_sign")
    page.get_by_role("button", name="Sign in with Test Wallet").click()
    expect(page.get_by_role("alert")).to_contain_text("You declined in your wallet")
    newcomer.wallet.declines.clear()
    page.get_by_role("button", name="Sign in with Test Wallet").click()

    expect(page.get_by_role("heading", name="This page is not open to you")).to_be_visible()
    page = newcomer.go("account")
    check_accessible(page)
    for label, text in {
        "Company": company,
        "Name at this hub": f"acme-{account.address[2:8]}",
        "Contact": "ml@acme.example",
        "Country": "DE",
        "Modality wanted": "tabular",
        "Model architecture": "Two-layer perceptron",
        "Compute budget, USDC": "1000.50",
        "What for": "Tell benign from malignant.",
    }.items():
        page.get_by_role("textbox", name=label).or_(page.get_by_role("combobox", name=label)).fill(
            text
        )
    page.get_by_role("button", name="Register").click()
    expect(page.locator("[data-standing]")).to_contain_text("being reviewed")

    review = operator.sign_in()
    entry = review.get_by_role("article").filter(has_text=company)
    expect(entry).to_contain_text("1,000.50 USDC")
    entry.get_by_label("Reason").fill("Which hospital network do you work with?")
    entry.get_by_role("button", name="Ask").click()
    expect(entry).to_contain_text("asked")
    check_accessible(review)
    picture(review, "console-review")

    page.reload()
    expect(page.locator("[data-standing]")).to_contain_text("The operator has a question")
    page.get_by_label("Your answer").fill("None yet.")
    page.get_by_role("button", name="Send the answer").click()
    expect(page.get_by_text("None yet.")).to_be_visible()
    review.reload()
    entry.get_by_label("Reason").fill("Welcome.")
    entry.get_by_role("button", name="Approve").click()
    expect(entry).to_have_count(0)
    review.get_by_label("State").select_option("approved")
    expect(entry).to_contain_text("approved")

    page.reload()
    expect(page.locator("[data-standing]")).to_contain_text("You are approved")
    page.get_by_role("textbox", name="Label").fill("training server")
    page.get_by_role("button", name="Make a key").click()
    secret = page.locator("[data-secret-text]")
    expect(secret).to_contain_text("rapha_hub_")
    key = secret.inner_text()
    check_accessible(page)
    page.reload()
    expect(page.get_by_text(key)).to_have_count(0)
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("revoked", exact=True)).to_be_visible()

    review.goto(f"{operator.url}/console/operator/nodes")
    expect(review.get_by_role("table")).to_contain_text("569 records")
    check_accessible(review)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Connect your wallet")).to_be_visible()
    assert newcomer.faults == operator.faults == []


def test_the_catalogue_is_searched(developer: Any, picture: Picture) -> None:
    page = developer.go("catalogue")
    expect(page.get_by_text("1 dataset", exact=True)).to_be_visible()
    check_accessible(page)
    picture(page, "console-catalogue")
    page.get_by_label("Records at least").fill("570")
    expect(page.get_by_text("Nothing fits")).to_be_visible()
    assert "min_records=570" in page.url
    page.get_by_label("Records at least").fill("many")
    expect(page.get_by_text("is not a number of records")).to_be_visible()
    page.get_by_label("Records at least").fill("")
    page.get_by_label("Price at most").fill("0.05")
    expect(page.get_by_text("1 dataset", exact=True)).to_be_visible()


def test_from_a_bundle_to_decrypted_weights(
    developer: Any, visit: Visits, bench: Bench, bundle: Path, tmp_path: Path, picture: Picture
) -> None:
    wallet, page = developer.wallet, developer.go("jobs/new")
    check_accessible(page)
    page.get_by_label("Zip").set_input_files(bundle)
    expect(page.locator("#bundle-state")).to_contain_text("Ready: jax")
    page.reload()  # in the middle: the upload is not sent again
    page.get_by_label("Zip").set_input_files(bundle)
    expect(page.locator("#bundle-state")).to_contain_text("Ready: jax")
    page.get_by_label("Epochs").fill(str(EPOCHS))
    expect(page.locator("#estimate")).to_contain_text("29.65 USDC at most")
    expect(page.get_by_label("Budget, USDC")).to_have_value("29.65")
    page.get_by_label("Budget, USDC").fill("1.00")
    expect(page.locator("#estimate")).to_contain_text("The budget is below that")
    page.get_by_role("button", name="Get the terms").click()
    expect(page.get_by_role("alert").filter(has_text="Raise the budget")).to_be_visible()
    page.get_by_label("Budget, USDC").fill("35.00")
    expect(page.locator("#estimate")).not_to_contain_text("The budget is below that")
    picture(page, "console-new-job")
    page.get_by_role("button", name="Get the terms").click()
    page.wait_for_url(re.compile(r"/console/jobs/0x[0-9a-f]{64}$"))
    job_id = bytes.fromhex(page.url.rsplit("0x")[1])

    expect(page.locator("[data-key-state]")).to_contain_text("is in this browser")
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save the key").click()
    key_file = tmp_path / "key.json"
    saving.value.save_as(key_file)
    check_accessible(page)

    sign = page.get_by_role("button", name="Sign and escrow 35.00 USDC")
    said = page.locator("[data-say='escrow']")
    wallet.chain_id = 1
    sign.click()
    expect(said).to_contain_text("Your wallet is on Ethereum")
    wallet.declines.add("eth_signTypedData_v4")
    said.get_by_role("button", name="Switch to chain 31337").click()
    expect(said).to_contain_text("You declined in your wallet")
    assert wallet.chain_id == bench.net.w3.eth.chain_id
    wallet.declines.clear()
    page.reload()  # in the middle: the terms wait at the hub, the key in the browser
    before = wallet.asked.count("eth_signTypedData_v4")
    sign.click()
    expect(page.locator("#live")).to_have_attribute("data-state", re.compile("FUNDED|RUNNING"))
    assert wallet.asked.count("eth_signTypedData_v4") == before + 1
    assert "eth_sendTransaction" not in wallet.asked
    page.reload()  # in the middle: the job goes on without the page

    live = page.locator("#live")
    expect(live).to_have_attribute("data-state", "DELIVERED", timeout=TRAINING)
    expect(live).to_have_attribute("data-settled", "yes", timeout=TRAINING)
    expect(live).to_contain_text("29.65")  # earned
    expect(live).to_contain_text("5.35")  # back
    expect(live).to_contain_text("Hospital")
    settled = bench.net.payer().job(job_id)
    assert settled.paid == COST

    page.get_by_role("button", name="Verify and open the weights").click()
    download = page.get_by_role("button", name="Download the weights")
    expect(download).to_be_visible()
    expect(page.locator(".checks .yes")).to_have_count(page.locator(".checks li").count())
    with page.expect_download() as saving:
        download.click()
    weights = load(Path(saving.value.path()).read_bytes())
    assert weights["hidden.weight"].shape == (30, 32)
    check_accessible(page)
    picture(page, "console-job")

    # Another browser of the same wallet has no key, until the file brings it.
    other = visit(bench.net.actors.payer)
    other.sign_in()
    page = other.go(f"jobs/0x{job_id.hex()}")
    expect(page.locator("[data-key-state]")).to_contain_text("does not have this job's key")
    page.get_by_role("button", name="Verify and open the weights").click()
    expect(page.locator("[data-say='delivery']")).to_contain_text("does not have the key")
    wrong = tmp_path / "wrong.json"
    stolen = json.loads(key_file.read_text()) | {"private_key": "0x" + "11" * 32}
    wrong.write_text(json.dumps(stolen))
    page.locator("#key-file").set_input_files(wrong)
    expect(page.locator("[data-say='key']")).to_contain_text("This key is of another job")
    page.locator("#key-file").set_input_files(key_file)
    expect(page.locator("[data-key-state]")).to_contain_text("is in this browser")
    page.get_by_role("button", name="Verify and open the weights").click()
    expect(page.get_by_role("button", name="Download the weights")).to_be_visible()
    assert developer.faults == other.faults == []


def test_a_delivery_that_was_changed_is_not_trusted(
    developer: Any, bench: Bench, payer: Session
) -> None:
    jobs = payer.call("GET", "/v1/jobs?state=DELIVERED")["jobs"]
    assert jobs, "the test before leaves one"
    page = developer.go(f"jobs/{jobs[-1]['job_id']}")

    def raise_records(route: Route) -> None:
        receipts = route.fetch().json()
        receipts[-1]["receipt"]["records"] += 1
        route.fulfill(json=receipts)

    page.route("**/artifacts/receipts", raise_records)
    page.get_by_role("button", name="Verify and open the weights").click()
    expect(page.locator("[data-say='delivery']")).to_contain_text("Not everything holds")
    expect(page.locator(".checks .no-good").first).to_contain_text("signed by one enclave key")
    expect(page.get_by_role("button", name="Download the weights")).to_have_count(0)
    page.unroute("**/artifacts/receipts")


def test_the_hospital_withdraws_what_its_node_earned(
    visit: Visits, bench: Bench, developer: Any, picture: Picture
) -> None:
    net = bench.net
    hospital = visit(net.actors.hospital)
    hospital.sign_in()
    page = hospital.go("earnings")
    section = page.locator("[data-node]")
    expect(section).to_contain_text("paid to this wallet as hospital")
    earned = net.payer().vault.functions.earnings_of(net.node_id).call()[0]
    assert earned >= COST
    matured = section.locator("[data-figure='matured']")
    expect(matured).to_have_text(format_usdc(earned))
    check_accessible(page)
    picture(page, "console-hospital")
    section.get_by_role("button", name="Split the earnings").click()
    expect(section.locator("[data-say]")).to_contain_text("each payee can withdraw")
    share = earned - earned * 20 // 100 - 2 * (earned * 5 // 100)
    expect(page.locator("[data-figure='balance']")).to_have_text(format_usdc(share))
    page.get_by_role("button", name="Withdraw to this wallet").click()
    said = page.locator("[data-say='withdraw']")
    expect(said).to_contain_text(f"{format_usdc(share)} USDC are in your wallet")
    assert net.payer().usdc_balance(net.actors.hospital.address) == share
    assert hospital.faults == []


def test_a_balance_is_paid_in_pays_a_job_and_is_taken_out(
    developer: Any, bench: Bench, payer: Session, bundle: Path
) -> None:
    page = developer.go("balance")
    balance = page.locator("[data-figure='balance']")
    # what came back from the job before
    expect(balance).to_have_text("5.35")
    check_accessible(page)
    page.locator("#deposit").get_by_label("Amount").fill("30")
    page.get_by_role("button", name="Pay in").click()
    expect(page.locator("[data-say='deposit']")).to_contain_text("30.00 USDC are at the vault")
    expect(balance).to_have_text("35.35")

    job_id = quoted(payer, bench, bundle)
    page = developer.go(f"jobs/{job_id}")
    page.get_by_role("button", name="Pay from my balance").click()
    expect(page.locator("[data-say='escrow']")).to_contain_text("Escrowed from your balance")
    expect(page.locator("#live")).to_have_attribute("data-state", re.compile("FUNDED|RUNNING"))

    page.get_by_role("button", name="Dispute").click()
    expect(page.locator("[data-say='calls']")).to_contain_text("vault: nothing to dispute")
    page.get_by_role("button", name="Take the refund").click()
    expect(page.locator("[data-say='calls']")).to_contain_text("would refuse it")
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("[data-say='calls']")).to_contain_text("Cancelled.")
    expect(page.locator("#money-title")).to_contain_text("being cancelled")

    page = developer.go("balance")
    page.locator("#withdraw").get_by_label("Amount").fill("5.70")
    page.get_by_role("button", name="Take out").click()
    expect(page.locator("[data-say='withdraw']")).to_contain_text("5.70 USDC are in your wallet")
    assert developer.faults == []


def test_no_funds_and_an_expired_authorisation_are_said_in_words(
    developer: Any, visit: Visits, bench: Bench, payer: Session, bundle: Path
) -> None:
    poor = Account.create()
    with admit(bench, poor, "poor") as session:
        job_id = quoted(session, bench, bundle)
    visitor = visit(poor)
    visitor.sign_in()
    page = visitor.go(f"jobs/{job_id}")
    page.get_by_role("button", name="Sign and escrow").click()
    said = page.locator("[data-say='escrow']")
    expect(said).to_contain_text("Your wallet holds 0.00 USDC, and the budget is 29.65")
    assert "eth_signTypedData_v4" not in visitor.wallet.asked
    assert visitor.go(f"jobs/{quoted(payer, bench, bundle)}").get_by_text("no job 0x").is_visible()

    # A wallet that is left open until the authorisation has run out.
    page = developer.go(f"jobs/{quoted(payer, bench, bundle)}")

    def run_out(route: Route) -> None:
        offer = route.fetch().json()
        offer["valid_before"] = bench.net.payer().now() - 120  # the oracle's clock lags
        offer["typed_data"]["message"]["validBefore"] = offer["valid_before"]
        route.fulfill(json=offer)

    page.route(
        "**/escrow", lambda it: run_out(it) if it.request.method == "GET" else it.continue_()
    )
    page.get_by_role("button", name="Sign and escrow").click()
    said = page.locator("[data-say='escrow']")
    expect(said).to_contain_text("the authorisation had run out")
    page.unroute("**/escrow")
    said.get_by_role("button", name="Sign again").click()
    expect(page.locator("#live")).to_have_attribute(
        "data-stage", re.compile("ACCEPTED|SUBMITTED|SETTLED")
    )


def test_the_hub_cannot_have_something_else_signed(
    developer: Any, bench: Bench, payer: Session, bundle: Path
) -> None:
    page = developer.go(f"jobs/{quoted(payer, bench, bundle)}")

    def ask_for_more(route: Route) -> None:
        offer = route.fetch().json()
        offer["typed_data"]["message"]["value"] += 1
        route.fulfill(json=offer)

    page.route("**/escrow", ask_for_more)
    before = developer.wallet.asked.count("eth_signTypedData_v4")
    page.get_by_role("button", name="Sign and escrow").click()
    expect(page.locator("[data-say='escrow']")).to_contain_text("asks for another signature")
    assert developer.wallet.asked.count("eth_signTypedData_v4") == before
    page.unroute("**/escrow")


def test_a_smart_wallet_signs_in_and_escrows(visit: Visits, bench: Bench, bundle: Path) -> None:
    net, owner = bench.net, Account.create()
    signer = LocalSigner(net.actors.deployer)
    contract, _ = create_for_tests(net.w3, signer, "TestWallet", [owner.address])
    net.governance.transact(net.governance.usdc.functions.mint(contract, COST))
    with admit(bench, owner, "multisig", contract=contract) as session:
        job_id = quoted(session, bench, bundle)
    visitor = visit(owner, contract=contract)
    page = visitor.sign_in()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page = visitor.go(f"jobs/{job_id}")
    page.get_by_role("button", name="Sign and escrow").click()
    expect(page.locator("#live")).to_have_attribute("data-state", re.compile("FUNDED|RUNNING"))
    assert visitor.faults == []


def test_it_works_by_keyboard_on_a_phone_and_in_the_dark(developer: Any, picture: Picture) -> None:
    page = developer.go("catalogue")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")

    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    for path in ("catalogue", "jobs", "jobs/new", "balance", "account"):
        check_accessible(developer.go(path))
    developer.go("jobs").get_by_role("row").filter(has_text="Delivered").get_by_role(
        "link"
    ).first.click()
    expect(page.locator("#live")).to_have_attribute("data-state", "DELIVERED")
    check_accessible(page)
    picture(page, "console-phone-dark")
    page.set_viewport_size({"width": 1100, "height": 800})
    page.emulate_media(color_scheme="light")


def test_a_page_runs_nothing_that_is_not_the_hubs(developer: Any) -> None:
    page = developer.go("jobs")
    policy = page.request.get(page.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    run = """() => new Promise((told) => {
      addEventListener('securitypolicyviolation', (event) => told(event.violatedDirective));
      const script = document.createElement('script');
      script.textContent = 'window.ran = true';
      document.body.append(script);
    })"""
    assert page.evaluate(run).startswith("script-src")
    assert page.evaluate("window.ran") is None
    developer.faults.clear()
