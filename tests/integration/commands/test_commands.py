"""What `rapha` does to a real chain, and how it says no."""

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from anvil import DAY, GENESIS, MEASUREMENT, Chain, key
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from fastapi import FastAPI
from integration.commands.scene import Shell, failure, job_hex

from oracle.intake import Intake
from oracle.messages import EscrowRequest, EscrowStatus
from oracle.store.database import Store
from scripts.chain import ROOT, free_port
from settlement.contracts import JobState
from settlement.models import SignedReceipt
from settlement.types import to_hex
from settlement.verify import ReceiptBundle

pytestmark = pytest.mark.xdist_group("anvil")

BUDGET = 50_000_000


def wallet(document: dict[str, Any], name: str) -> str:
    """What a role's own wallet signs for a document."""
    message = encode_typed_data(full_message=document)
    return to_hex(bytes(Account.from_key(key(name).key).sign_message(message).signature))


def then(answer: dict[str, Any], signature: str) -> list[str]:
    """The command that a document's answer names, with the signature in its place."""
    words = shlex.split(answer["then"])
    assert words[0] == "rapha"
    return [signature if word == "0x…" else word for word in words[1:]]


def test_job_from_terms_to_refund(shell: Shell) -> None:
    chain = shell.chain
    hex_of = {name: to_hex(keccak(text=name)) for name in ("model", "dataset", "policy", "key")}
    terms = shell.folder / "made.json"
    result = shell.bare(
        *("job", "terms", "--deployment", shell.record, "--payer", key("payer").address),
        *("--budget", "50", "--price-per-record", "0.05", "--price-per-epoch", "0.10"),
        *("--deadline", GENESIS + DAY, "--node", 1, "--model", hex_of["model"]),
        *("--dataset", hex_of["dataset"], "--policy", hex_of["policy"]),
        *("--result-key", hex_of["key"], "--output", terms, "--json"),
    )
    made = json.loads(result.stdout)
    assert made["terms"]["price_per_record"] == 50_000
    submitted = shell.told("job", "submit", terms, by="payer")
    assert submitted["job_id"] == made["job_id"]
    shown = shell.told("job", "show", terms)
    assert (shown["state"], shown["funded"], shown["paid"]) == ("ASSIGNED", BUDGET, 0)
    cancelled = shell.told("job", "cancel", terms, by="payer")
    assert cancelled["state"] == "CANCELLING"
    early = failure(shell.run("job", "refund", terms, by="payer"), "VAULT_JOB_IS_STILL_PAYABLE", 1)
    assert early["next"] == "wait until deadline and grace are over, or cancel the job"
    chain.pass_time(chain.payer.now() + DAY + 1)
    assert shell.told("job", "refund", terms, by="stranger")["returned"] == BUDGET
    watched = shell.run("job", "watch", terms, "--json")
    assert watched.exit_code == 0
    assert json.loads(watched.stdout)["state"] == "CLOSED"
    assert "CLOSED: 0.00 USDC of 50.00 USDC paid" in watched.stderr
    assert shell.told("balance", key("payer").address)["balance"] == BUDGET
    assert shell.told("withdraw", by="payer")["amount"] == BUDGET


@pytest.mark.parametrize("way", ["--permit", "--allow"])
def test_payer_opens_a_job_itself(shell: Shell, way: str) -> None:
    opened = shell.told("escrow", "open", shell.terms(), way, by="payer")
    assert opened["job_id"] == job_hex(shell.chain, shell.chain.terms())
    assert shell.chain.payer.job(shell.chain.id(shell.chain.terms())).state is JobState.ASSIGNED


def test_open_without_allowance_says_what_to_do(shell: Shell) -> None:
    said = failure(
        shell.run("escrow", "open", shell.terms(), by="payer"), "USDC_ALLOWANCE_TOO_LOW", 1
    )
    assert "--allow" in said["next"]


def test_balance_pays_for_jobs(shell: Shell) -> None:
    shell.told("escrow", "deposit", "75.50", "--allow", by="payer")
    terms = shell.terms()
    shell.told("escrow", "open", terms, "--from-balance", by="payer")
    shell.told("escrow", "top-up", terms, "25.5", "--from-balance", by="payer")
    assert shell.told("job", "show", terms)["funded"] == 75_500_000
    assert shell.told("balance", key("payer").address)["balance"] == 0


def test_another_wallet_signs_a_job_and_a_stranger_brings_it(shell: Shell) -> None:
    terms = shell.terms()
    asked = shell.told("job", "submit", terms, "--typed-data")
    assert asked["document"]["message"]["nonce"] == job_hex(shell.chain, shell.chain.terms())
    forged = then(asked, wallet(asked["document"], "stranger"))
    failure(shell.run(*forged, by="relayer"), "InvalidSignature", 2)
    brought = then(asked, wallet(asked["document"], "payer"))
    shell.told(*brought, by="relayer")
    assert shell.told("job", "show", terms)["state"] == "ASSIGNED"
    failure(shell.run(*brought, by="relayer"), "VAULT_JOB_EXISTS", 1)


def test_another_wallet_signs_a_deposit_and_a_withdrawal(shell: Shell) -> None:
    payer, hospital = key("payer").address, key("hospital").address
    asked = shell.told("escrow", "deposit", "12.50", "--account", payer, "--typed-data")
    shell.told(*then(asked, wallet(asked["document"], "payer")), by="relayer")
    assert shell.told("balance", payer)["balance"] == 12_500_000
    asked = shell.told("withdraw", payer, "--amount", "2.000001", "--to", hospital, "--typed-data")
    brought = then(asked, wallet(asked["document"], "payer"))
    assert shell.told(*brought, by="relayer")["amount"] == 2_000_001
    assert shell.told("balance", hospital)["wallet"] == 2_000_001
    failure(shell.run(*brought, by="relayer"), "InvalidSignature", 2)  # its nonce is used


def test_stranger_pushes_a_whole_balance_and_takes_no_part(shell: Shell) -> None:
    payer = key("payer").address
    shell.told("escrow", "deposit", "3", "--allow", by="payer")
    part = ("withdraw", payer, "--amount", "1")
    failure(shell.run(*part, by="stranger"), "InvalidInput", 2)
    assert shell.told("withdraw", payer, by="stranger")["amount"] == 3_000_000
    failure(shell.run("withdraw", payer, by="stranger"), "VAULT_NOTHING_TO_WITHDRAW", 1)


@contextmanager
def oracle(chain: Chain, folder: Path) -> Iterator[tuple[str, Store]]:
    """An oracle's intake of escrows, served over HTTP."""
    store = Store(f"sqlite:///{folder / 'oracle.db'}")
    store.migrate()
    intake = Intake(store, chain.deployment, chain.payer.now)
    api = FastAPI()

    @api.post("/v1/escrows", status_code=202)
    def submit(request: EscrowRequest) -> EscrowStatus:
        return intake.submit_escrow(request)

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(api, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{port}", store
    finally:
        server.should_exit = True
        thread.join(60)
        store.close()


def test_oracle_takes_a_job_from_a_payer_without_coin(shell: Shell) -> None:
    with oracle(shell.chain, shell.folder) as (url, _):
        taken = shell.told("job", "submit", shell.terms(), "--oracle", url, by="payer")
    assert taken["status"] == "ACCEPTED"
    assert taken["job_id"] == job_hex(shell.chain, shell.chain.terms())
    gone = shell.run("job", "submit", shell.terms(), "--oracle", url, by="payer")
    assert "--oracle" in failure(gone, "OracleUnavailable", 2)["next"]


def test_registrar_registers_a_node_and_it_shares_its_earnings(shell: Shell) -> None:
    chain = shell.chain
    people = {name: key(name).address for name in ("owner", "hospital", "onboarder")}
    options = [word for name, address in people.items() for word in (f"--{name}", address)]
    machine = ("--hardware", to_hex(keccak(text="another machine")))
    number = shell.told("node", "register", *options, *machine, by="deployer")["node"]
    assert number == 2
    assert shell.told("node", "show", number)["hospital"] == people["hospital"]
    failure(
        shell.run("node", "register", *options, *machine, by="deployer"),
        "NODES_HARDWARE_ALREADY_REGISTERED",
        1,
    )
    failure(shell.run("node", "show", 9), "NODES_NODE_IS_NOT_REGISTERED", 1)
    chain.register_enclave(node_id=number)
    terms = chain.open(chain.terms(node_id=number))
    chain.payer.settle([chain.claim(terms, 200)])
    assert shell.told("node", "earnings", number)["matured"] == 10_000_000
    shell.told("node", "distribute", number, by="stranger")
    assert shell.told("node", "earnings", number)["total"] == 0
    assert shell.told("balance", people["hospital"])["balance"] == 7_000_000


def test_payer_disputes_fresh_earnings(slow: Shell) -> None:
    chain = slow.chain
    chain.register_enclave()
    terms = chain.open(chain.terms())
    chain.payer.settle([chain.claim(terms, 100)])
    assert slow.told("job", "show", slow.terms())["disputable"] == 5_000_000
    assert slow.told("job", "dispute", slow.terms(), by="payer")["dispute"] == 1
    failure(slow.run("job", "dispute", slow.terms(), by="payer"), "VAULT_NOTHING_TO_DISPUTE", 1)


def test_accounts_of_job_and_node_are_told_and_drawn(slow: Shell) -> None:
    chain = slow.chain
    chain.register_enclave()
    terms = chain.open(chain.terms())
    for records in (100, 250):
        chain.payer.settle([chain.claim(terms, records)])
    picture = slow.folder / "settlement.svg"
    by_id = slow.told("job", "settlement", job_hex(chain, terms), "--picture", picture)
    assert by_id == slow.told("job", "settlement", slow.terms())
    assert (by_id["paid"], by_id["escrowed"], by_id["state"]) == (
        12_500_000,
        37_500_000,
        "ASSIGNED",
    )
    assert by_id["shares"] == {
        "hospital": 8_750_000,
        "node owner": 2_500_000,
        "onboarder": 625_000,
        "protocol": 625_000,
    }
    assert [payment["records"] for payment in by_id["payments"]] == [100, 250]
    assert "still in escrow" in picture.read_text()
    # a part of it is returned by the arbiter, the rest shared out, the budget's rest given back
    slow.told("job", "dispute", slow.terms(), by="payer")
    assert slow.told("job", "settlement", slow.terms())["disputed"] == 12_500_000
    arbiter = chain.actor("arbiter")
    arbiter.transact(arbiter.vault.functions.resolve(1, 2_500_000))
    chain.payer.settle([chain.claim(terms, 250, complete=True)])
    slow.told("node", "distribute", 1, by="stranger")
    done = slow.told("job", "settlement", slow.terms())
    assert (done["disputed"], done["returned"], done["refunded"]) == (0, 2_500_000, 37_500_000)
    assert sum(done["shares"].values()) == 10_000_000
    assert done["funded"] == sum(done["shares"].values()) + done["returned"] + done["refunded"]
    drawn = slow.folder / "earnings.svg"
    assert slow.told("node", "earnings", 1, "--picture", drawn)["total"] == 0
    for line in ("earned: 12.50", "shared out: 10.00", "returned by an arbiter: 2.50"):
        assert line in drawn.read_text()
    said = slow.run("job", "settlement", slow.terms()).stdout
    assert "5.00 USDC: 100 records, 0 epochs" in said
    unknown = slow.run("job", "settlement", "0x" + "11" * 32)
    failure(unknown, "NothingKnown", 2)
    failure(slow.run("node", "earnings", 1, "--picture", "a.gif"), "InvalidInput", 2)


@pytest.fixture
def settled(shell: Shell) -> ReceiptBundle:
    """The bundle of a job that was settled to its end."""
    chain = shell.chain
    chain.register_enclave()
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    receipts: list[SignedReceipt] = []
    hashes = [bytes(chain.payer.open_job(terms)["transactionHash"])]
    for claim in (chain.claim(terms, 100), chain.claim(terms, 300, complete=True)):
        receipt, _ = chain.payer.settle([claim])
        receipts.append(claim.signed)
        hashes.append(bytes(receipt["transactionHash"]))
    return ReceiptBundle(
        deployment=chain.deployment,
        terms=terms,
        enclave_key=key("enclave").address,
        receipts=tuple(receipts),
        transactions=tuple(hashes),
    )


def claims(shell: Shell, bundle: ReceiptBundle, *options: object) -> tuple[int, dict[str, bool]]:
    """Exit code and verdicts of `rapha verify`."""
    result = shell.bare("verify", shell.write("bundle.json", bundle), *options, "--json")
    checks = json.loads(result.stdout)["checks"]
    return result.exit_code, {check["claim"]: check["holds"] for check in checks}


def test_bundle_verifies_offline_and_on_chain(shell: Shell, settled: ReceiptBundle) -> None:
    status, offline = claims(shell, settled)
    assert (status, all(offline.values()), len(offline)) == (0, True, 4)
    status, online = claims(shell, settled, "--rpc", shell.rpc)
    assert (status, all(online.values())) == (0, True)
    assert online.keys() - offline.keys() == {
        "what was earned was paid",
        "the contracts are the deployment's",
        "the job is closed on chain",
        "every transaction is on chain",
        "the last receipt was settled in one of them",
        "the job was opened in one of them",
        "the enclave's key is registered for the job's node",
    }


def test_bundle_that_claims_what_the_chain_denies_fails_by_name(
    shell: Shell, settled: ReceiptBundle
) -> None:
    other = settled.deployment.model_copy(update={"grace_period": 5})
    for update, broken in (
        (
            {"transactions": settled.transactions[1:]},
            {"the job was opened in one of them"},
        ),
        (
            {"transactions": settled.transactions[:2]},
            {"the last receipt was settled in one of them"},
        ),
        (
            {"transactions": (*settled.transactions, bytes(32))},
            {"every transaction is on chain"},
        ),
        (
            {"receipts": settled.receipts[:1]},
            {
                "the last receipt completes the job",
                "what was earned was paid",
            },
        ),
        (
            {"enclave_key": key("stranger").address},
            {
                "every receipt is signed by the enclave",
                "the enclave's key is registered for the job's node",
            },
        ),
        ({"deployment": other}, {"the contracts are the deployment's"}),
    ):
        status, found = claims(shell, settled.model_copy(update=update), "--rpc", shell.rpc)
        assert status == 1
        assert {claim for claim, holds in found.items() if not holds} == broken


def test_revoked_enclave_is_named(shell: Shell, settled: ReceiptBundle) -> None:
    guardian = shell.chain.actor("guardian")
    guardian.transact(guardian.enclaves.functions.revoke(settled.enclave_key))
    status, found = claims(shell, settled, "--rpc", shell.rpc)
    assert (status, [claim for claim, holds in found.items() if not holds]) == (
        1,
        ["the enclave's key is registered for the job's node"],
    )


def test_job_that_is_not_closed_is_named(shell: Shell, settled: ReceiptBundle) -> None:
    terms = settled.terms.model_copy(update={"salt": keccak(text="never opened")})
    status, found = claims(shell, settled.model_copy(update={"terms": terms}), "--rpc", shell.rpc)
    assert status == 1
    assert not found["the job is closed on chain"]


def test_receipts_are_shown(shell: Shell, settled: ReceiptBundle) -> None:
    path = shell.write("bundle.json", settled)
    shown = json.loads(shell.bare("receipt", "show", path, "--json").stdout)["receipts"]
    assert [(one["records"], one["earned"]) for one in shown] == [
        (100, 5_000_000),
        (300, 15_000_000),
    ]
    assert {one["signer"] for one in shown} == {key("enclave").address}
    assert shell.bare("receipt", "verify", path).exit_code == 0


def test_registry_knows_the_measurement(shell: Shell, settled: ReceiptBundle) -> None:
    result = shell.bare("verify", shell.write("b.json", settled), "--rpc", shell.rpc)
    assert f"measurement {to_hex(MEASUREMENT)}" in result.stdout


def test_endpoint_and_deployment_that_do_not_fit_are_told_apart(shell: Shell) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    away = ("balance", key("payer").address, "--rpc", nobody, "--deployment", shell.record)
    said = failure(shell.bare(*away), "EndpointUnavailable", 2)
    assert nobody not in json.dumps(said)
    wrong = shell.chain.deployment.model_copy(update={"chain_id": 5})
    shell.record.write_text(wrong.model_dump_json())
    failure(shell.run("balance", key("payer").address), "WrongChain", 2)


def test_command_that_signs_asks_who(shell: Shell) -> None:
    said = failure(shell.run("job", "cancel", shell.terms()), "SignerMissing", 2)
    assert "--keystore" in said["detail"]


def test_wrong_password_opens_nothing(shell: Shell) -> None:
    options = shell.signed("payer")
    shell.password.write_text("open barley")
    failure(shell.run("job", "cancel", shell.terms(), *options), "SecretFileInvalid", 2)


def test_unfinished_job_is_watched_no_longer_than_asked(shell: Shell) -> None:
    shell.chain.open(shell.chain.terms())
    wait = ("job", "watch", shell.terms(), "--timeout", 0)
    failure(shell.run(*wait), "StillOpen", 2)


def test_unknown_job_is_a_no(shell: Shell) -> None:
    result = shell.run("job", "show", shell.terms(), "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (1, "UNKNOWN")


def test_account_of_apes_signs_and_sends(shell: Shell) -> None:
    # ape keeps its connection for the life of a process, so it gets one of its own
    payer = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    chain = shell.chain
    chain.deployer.transact(chain.deployer.usdc.functions.mint(payer, BUDGET))
    terms = shell.terms(payer=payer)
    command = [sys.executable, "-m", "oracle.commands.rapha", "job", "submit", str(terms), "--json"]
    done = subprocess.run(
        [*command, "--ape", "TEST::0", "--rpc", shell.rpc, "--deployment", str(shell.record)],
        cwd=ROOT,
        env={**os.environ, "HOME": str(shell.folder), "APE_DATA_FOLDER": str(shell.folder / "ape")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert shell.told("job", "show", terms)["funded"] == BUDGET
