"""What goes wrong around an oracle, on the real contracts: nothing is lost, nothing paid twice."""

import json
import resource
import signal
import sqlite3
import threading
from pathlib import Path

import httpx
import pytest
from anvil import DAY, GENESIS, Chain, key
from faulty_rpc import Faults, faulty_rpc
from integration.operate.scene import (
    PRICE,
    WAIT,
    Oracle,
    Process,
    check_ledger,
    until,
)
from integration.oracle.scene import url_of
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from oracle.chain import RpcChain
from oracle.client import OracleClient, OracleUnavailable
from oracle.errors import ChainUnavailable, FinalityWentBack, ForkNotLonger
from oracle.gate import Gate
from oracle.messages import Status
from oracle.rebuild import rebuild
from oracle.store.database import Store
from oracle.store.tables import CursorRow, ReceiptRow
from scripts.chain import rpc
from settlement.contracts import JobState

pytestmark = pytest.mark.timeout(1800)  # processes share a machine with other work

FINALITY = 2


def settled(oracle: Oracle, records: int) -> None:
    """The receipt with these records is SETTLED, by a transaction of its own or by a later one."""
    status, _ = oracle.statuses()[records]
    assert status == Status.SETTLED


@pytest.mark.parametrize("depth", [1, 2, 5, 20])
def test_after_a_reorganisation_all_is_paid_once(chain: Chain, oracle: Oracle, depth: int) -> None:
    terms = chain.open(chain.terms())
    for _ in range(depth + FINALITY):
        rpc(chain.w3, "evm_mine")
    oracle.watch()
    height = chain.w3.eth.block_number
    for records in (10, 20):
        oracle.hand_in(chain.claim(terms, records))
        oracle.round()
    while chain.w3.eth.block_number < height + depth:
        rpc(chain.w3, "evm_mine")
    oracle.watch()
    job = chain.id(terms)
    assert chain.payer.job(job).paid == 20 * PRICE
    before = chain.w3.eth.block_number
    rpc(chain.w3, "anvil_reorg", depth, [])
    assert chain.w3.eth.block_number == before
    was_final = depth > FINALITY
    if was_final:  # with all that was paid
        assert chain.payer.job(job).paid == 0
        with pytest.raises(ForkNotLonger):
            oracle.watcher.tick()
    for _ in range(FINALITY + 1):
        rpc(chain.w3, "evm_mine")
    oracle.rounds(12)
    assert oracle.watcher.reorgs == int(was_final)
    settled(oracle, 10)
    settled(oracle, 20)
    check_ledger(chain, oracle.store, {job: 20 * PRICE})
    found = rebuild(
        oracle.store,
        RpcChain(url_of(chain), chain.deployment),
        chain.deployment,
        check_only=True,
    )
    assert found.differences == ()


def test_an_opening_that_a_deep_reorganisation_dropped_is_brought_again(
    chain: Chain, oracle: Oracle
) -> None:
    terms = chain.terms()
    height = chain.w3.eth.block_number
    oracle.intake.submit_escrow(oracle.escrow(terms))
    oracle.rounds()
    job = chain.id(terms)
    assert oracle.intake.escrow(job).status is Status.SETTLED
    oracle.hand_in(chain.claim(terms, 10))
    oracle.rounds()
    rpc(chain.w3, "anvil_reorg", chain.w3.eth.block_number - height, [])
    assert chain.payer.job(job).state is JobState.UNKNOWN
    for _ in range(FINALITY + 1):
        rpc(chain.w3, "evm_mine")
    oracle.rounds(16)
    assert oracle.watcher.reorgs == 1
    assert oracle.intake.escrow(job).status is Status.SETTLED
    settled(oracle, 10)
    check_ledger(chain, oracle.store, {job: 10 * PRICE})


def test_an_endpoint_that_grants_few_blocks_at_once_is_asked_for_few(
    chain: Chain, tmp_path: Path
) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    for _ in range(40):
        rpc(chain.w3, "evm_mine")
    with faulty_rpc(url_of(chain)) as proxy:

        def limited(request: dict) -> dict | None:  # type: ignore[type-arg]
            if request["method"] != "eth_getLogs":
                return None
            asked = request["params"][0]
            if int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) < 5:
                return None
            message = "query exceeds max block range 5"
            return {"error": {"code": -32005, "message": message}}

        proxy.faults.rewrite = limited
        oracle = Oracle(chain, tmp_path / "oracle.db", url=proxy.url)
        oracle.hand_in(chain.claim(terms, 10))
        oracle.rounds()
        check_ledger(chain, oracle.store, {chain.id(terms): 10 * PRICE})
        assert proxy.asked["eth_getLogs"]
    oracle.close()


def test_an_endpoint_that_loses_logs_stops_the_facts_and_pays_nobody_wrongly(
    chain: Chain, tmp_path: Path
) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    for _ in range(FINALITY + 1):
        rpc(chain.w3, "evm_mine")
    with faulty_rpc(url_of(chain)) as proxy:
        seen: list[dict] = []  # type: ignore[type-arg]

        def forgetful(request: dict) -> dict | None:  # type: ignore[type-arg]
            if request["method"] != "eth_getLogs":
                return None
            seen.append(request)
            asked = request["params"][0]
            return None if asked["fromBlock"] == asked["toBlock"] else {"result": []}

        proxy.faults.rewrite = forgetful
        oracle = Oracle(chain, tmp_path / "oracle.db", url=proxy.url)
        with pytest.raises(Exception, match="asked twice for the logs"):
            oracle.watcher.tick()
        with oracle.store.read() as session:
            assert session.get(CursorRow, 1) is None
        assert oracle.watcher.incomplete == 1
        proxy.heal()
        oracle.hand_in(chain.claim(terms, 10))
        oracle.rounds()
        check_ledger(chain, oracle.store, {chain.id(terms): 10 * PRICE})
    oracle.close()


def test_an_endpoint_that_stands_still_at_an_old_block_is_named_and_nothing_moves(
    chain: Chain, oracle: Oracle, tmp_path: Path
) -> None:
    terms = chain.open(chain.terms())
    oracle.hand_in(chain.claim(terms, 10))
    oracle.rounds()
    with faulty_rpc(url_of(chain)) as proxy:
        oracle.relayer.keyring.close()  # the other one has the key now
        old = Oracle(chain, tmp_path / "oracle.db", url=proxy.url)

        def stuck(request: dict) -> dict | None:  # type: ignore[type-arg]
            if request["params"][:1] == ["finalized"]:
                request["params"][0] = hex(chain.deployment.block)
            return None

        proxy.faults.rewrite = stuck
        with pytest.raises(FinalityWentBack) as caught:
            old.watcher.tick()
        assert caught.value.finalized == chain.deployment.block
        proxy.heal()
        old.rounds(2)
    check_ledger(chain, oracle.store, {chain.id(terms): 10 * PRICE})
    old.close()


@pytest.mark.parametrize("ahead", [-7200, -600, 600, 7200, 30 * DAY])
def test_a_wrong_clock_changes_no_payment(chain: Chain, tmp_path: Path, ahead: int) -> None:
    chain.register_enclave()
    oracle = Oracle(chain, tmp_path / "oracle.db", ahead=ahead)
    terms = chain.open(chain.terms())
    oracle.rounds(4)
    oracle.hand_in(chain.claim(terms, 10))
    oracle.rounds()
    oracle.hand_in(chain.claim(terms, 20, complete=True))
    oracle.rounds()
    settled(oracle, 20)
    check_ledger(chain, oracle.store, {chain.id(terms): 20 * PRICE})
    oracle.close()


def test_while_another_process_holds_the_database_nothing_is_lost(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oracle.store.database.BUSY_TIMEOUT", 50)
    chain.register_enclave()
    oracle = Oracle(chain, tmp_path / "oracle.db")
    terms = chain.open(chain.terms())
    oracle.rounds(4)
    kept = oracle.hand_in(chain.claim(terms, 10)).digest
    other = sqlite3.connect(tmp_path / "oracle.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="database is locked"):
        oracle.hand_in(chain.claim(terms, 20))
    with pytest.raises(OperationalError, match="database is locked"):
        oracle.relayer.tick()
    rpc(chain.w3, "evm_mine")
    with pytest.raises(OperationalError, match="database is locked"):
        oracle.watcher.tick()
    assert oracle.intake.receipt(kept).status is Status.ACCEPTED
    other.execute("ROLLBACK")
    other.close()
    oracle.hand_in(chain.claim(terms, 20))
    oracle.rounds()
    settled(oracle, 20)
    check_ledger(chain, oracle.store, {chain.id(terms): 20 * PRICE})
    oracle.close()


def test_a_full_disk_refuses_by_name_and_all_goes_on_once_there_is_room(
    chain: Chain, process: Process
) -> None:
    terms = chain.open(chain.terms())
    process.start()
    first = process.hand_in(chain.claim(terms, 10).signed)
    process.wait_until_settled(first.digest)
    assert process.process is not None
    pid = process.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    with pytest.raises(OracleUnavailable, match="StoreUnavailable"):
        process.hand_in(chain.claim(terms, 20).signed)
    rpc(chain.w3, "evm_mine")
    until("the watcher's trouble", lambda: not process.is_ready())
    with OracleClient(process.url) as client:
        assert client.receipt(first.digest).amount == 10 * PRICE
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    until("getting ready again", process.is_ready)
    second = process.hand_in(chain.claim(terms, 20).signed)
    process.wait_until_settled(second.digest)
    assert process.end() == 0
    store = Store(process.settings["DATABASE_URL"])
    check_ledger(chain, store, {chain.id(terms): 20 * PRICE})
    store.close()


def test_a_lost_database_is_rebuilt_from_the_chain_and_pays_nothing_again(
    chain: Chain, process: Process
) -> None:
    terms = chain.open(chain.terms())
    process.start()
    paid = process.hand_in(chain.claim(terms, 10).signed)
    process.wait_until_settled(paid.digest)
    assert process.end() == 0
    for path in process.folder.glob("oracle.db*"):
        path.unlink()
    rebuilt = process.command("rebuild", "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    process.start()
    again = process.hand_in(chain.claim(terms, 10).signed)
    assert (again.status, again.amount) == (Status.SETTLED, 10 * PRICE)
    last = process.hand_in(chain.claim(terms, 20).signed)
    process.wait_until_settled(last.digest)
    assert process.command("rebuild", "--check").returncode == 0
    assert process.command("reconcile").returncode == 0
    assert process.end() == 0
    store = Store(process.settings["DATABASE_URL"])
    check_ledger(chain, store, {chain.id(terms): 20 * PRICE})
    store.close()


def test_told_to_end_under_load_it_keeps_every_promise(chain: Chain, process: Process) -> None:
    terms = chain.open(chain.terms())
    process.start()
    promised: list[int] = []
    enough = threading.Event()

    def load(offset: int) -> None:
        with httpx.Client(base_url=process.url, timeout=30) as http:
            for records in range(1 + offset, 400, 4):
                body = chain.claim(terms, records).signed.model_dump_json()
                try:
                    answer = http.post(
                        "/v1/receipts",
                        content=body,
                        headers={"content-type": "application/json"},
                    )
                except httpx.TransportError:
                    return
                if answer.status_code != 202:
                    return
                promised.append(records)
                if len(promised) > 40:
                    enough.set()

    threads = [threading.Thread(target=load, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(WAIT)
    assert process.end(signal.SIGTERM) == 0
    for thread in threads:
        thread.join(WAIT)
    assert len(promised) > 40
    process.start()
    most = max(promised)
    store = Store(process.settings["DATABASE_URL"])
    with store.read() as session:
        stored = {row.records: row.digest for row in session.scalars(select(ReceiptRow))}
    assert set(promised) <= stored.keys()
    for digest in stored.values():
        process.wait_until_settled(digest)
    assert process.end() == 0
    check_ledger(chain, store, {chain.id(terms): max(most, *stored) * PRICE})
    store.close()


@pytest.mark.parametrize("keys", [("relayer",), ("relayer", "second", "third")], ids=len)
def test_while_usdc_is_paused_receipts_are_paid_and_escrows_wait_by_name(
    chain: Chain, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    chain.register_enclave()
    oracle = Oracle(chain, tmp_path / "oracle.db", keys=keys)
    terms = chain.open(chain.terms())
    oracle.rounds(7)
    chain.deployer.transact(chain.deployer.usdc.functions.pause())
    other = chain.terms(salt=b"\1" * 32)
    oracle.intake.submit_escrow(oracle.escrow(other))
    oracle.hand_in(chain.claim(terms, 10))
    oracle.rounds()
    waiting = oracle.intake.escrow(chain.id(other))
    assert (waiting.status, waiting.reason) == (Status.ACCEPTED, "USDC_PAUSED")
    settled(oracle, 10)
    assert chain.payer.job(chain.id(other)).state is JobState.UNKNOWN
    chain.deployer.transact(chain.deployer.usdc.functions.unpause())
    oracle.rounds()
    assert oracle.intake.escrow(chain.id(other)).status is Status.SETTLED
    check_ledger(chain, oracle.store, {chain.id(terms): 10 * PRICE, chain.id(other): 0})
    oracle.close()


def test_while_the_vault_is_paused_receipts_are_kept_and_paid_afterwards(
    chain: Chain, oracle: Oracle
) -> None:
    terms = chain.open(chain.terms())
    oracle.rounds(4)
    guardian = chain.actor("guardian")
    guardian.transact(guardian.vault.functions.pause())
    oracle.hand_in(chain.claim(terms, 10))
    oracle.rounds(4)
    assert oracle.statuses()[10] == (Status.ACCEPTED, None)
    assert chain.payer.job(chain.id(terms)).paid == 0
    chain.pass_time(GENESIS + DAY // 2 + 3600)
    oracle.rounds()
    settled(oracle, 10)
    check_ledger(chain, oracle.store, {chain.id(terms): 10 * PRICE})


def test_the_endpoint_away_stops_all_and_starts_all_again(chain: Chain, tmp_path: Path) -> None:
    chain.register_enclave()
    terms = chain.open(chain.terms())
    with faulty_rpc(url_of(chain)) as proxy:
        oracle = Oracle(chain, tmp_path / "oracle.db", url=proxy.url)
        oracle.rounds(4)
        proxy.faults = Faults(error={"code": -32000, "message": "try later"})
        assert oracle.hand_in(chain.claim(terms, 10)).status is Status.ACCEPTED
        for tick in (oracle.watcher.tick, oracle.relayer.tick):
            with pytest.raises(ChainUnavailable, match="try later"):
                tick()
        proxy.heal()
        oracle.rounds()
        check_ledger(chain, oracle.store, {chain.id(terms): 10 * PRICE})
    oracle.close()


def test_commands_of_an_operator_on_a_running_oracle(chain: Chain, process: Process) -> None:
    terms = chain.open(chain.terms())
    process.start()
    first = process.hand_in(chain.claim(terms, 10).signed)
    assert process.command("status", "--url", process.url).returncode == 0
    assert process.command("pause", "--reason", "moving house").returncode == 0
    with pytest.raises(OracleUnavailable, match="IntakePaused"):
        process.hand_in(chain.claim(terms, 20).signed)
    assert process.command("status", "--url", process.url).returncode == 1
    resumed = process.command("resume")
    assert (resumed.returncode, resumed.stdout) == (0, "things are taken in again\n")
    process.wait_until_seen(first.digest)
    forged = process.hand_in(chain.claim(terms, 5, by="forger").signed)
    assert forged.status is Status.REJECTED
    retried = process.command("retry", "0x" + forged.digest.hex())
    assert retried.stdout == "receipt REJECTED EnclaveUnknown\n"
    unknown = process.command("retry", "0x" + bytes(32).hex())
    assert (unknown.returncode, "ItemUnknown" in unknown.stderr) == (1, True)
    wrong = process.command("retry", "0x12")
    assert (wrong.returncode, "InvalidInput" in wrong.stderr) == (1, True)
    ended = process.command("drain", "--timeout", "0", "--json")
    assert ended.returncode == 1
    process.wait_until_settled(first.digest)
    drained = process.command("drain", "--json")
    assert drained.returncode == 0
    assert '"drained": true' in drained.stdout
    store = Store(process.settings["DATABASE_URL"])
    assert Gate(store).pause() is not None
    for command in (("rebuild", "--check"), ("reconcile",), ("rebuild",)):
        done = process.command(*command, "--json")
        assert (done.returncode, json.loads(done.stdout)["differences"]) == (0, []), command
    away = process.command("rebuild", "--check", RPC_URL="http://127.0.0.1:1")
    assert (away.returncode, "ChainUnavailable" in away.stderr) == (2, True)
    away = process.command("reconcile", RPC_URL="http://127.0.0.1:1")
    assert (away.returncode, "HistoryUnavailable" in away.stderr) == (2, True)
    assert process.end() == 0
    check_ledger(chain, store, {chain.id(terms): 10 * PRICE})
    store.close()
    assert key("relayer").key.hex() not in drained.stdout + drained.stderr
