"""Reconciling on a real chain: equal where all agrees, and every difference by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from anvil import GENESIS, Chain, key
from sqlalchemy import delete, update
from web3 import HTTPProvider, Web3

from oracle.chain import RpcChain
from oracle.commands import rapha
from oracle.intake import Intake
from oracle.messages import Status
from oracle.reconcile import reconcile
from oracle.store.database import Store
from oracle.store.tables import CursorRow, JobRow, ReceiptRow
from oracle.watcher import Watcher
from scripts.chain import rpc
from settlement.contracts import Claim
from settlement.history import HistoryUnavailable
from settlement.models import JobTerms
from settlement.reconcile import LoaderCount, NotYetDeployed
from settlement.reconcile import reconcile as without_store
from settlement.types import to_hex
from settlement.verify import ReceiptBundle

CLOCK = GENESIS + 1000


class Scene:
    """One job settled in two steps, watched by an oracle that took the receipts in."""

    def __init__(self, chain: Chain, directory: Path) -> None:
        self.chain = chain
        self.url = str(chain.w3.provider.endpoint_uri)  # type: ignore[attr-defined]
        self.database = f"sqlite:///{directory / 'oracle.db'}"
        self.store = Store(self.database)
        self.store.migrate()
        self.watcher = Watcher(self.store, RpcChain(self.url, chain.deployment), chain.deployment)
        self.intake = Intake(self.store, chain.deployment, lambda: CLOCK)
        chain.register_enclave()
        self.terms: JobTerms = chain.open(chain.terms())
        self.claims: list[Claim] = []
        self.settle(10)
        self.settle(25)
        self.record = directory / "deployment.json"
        self.record.write_text(chain.deployment.model_dump_json())
        self.directory = directory
        self.watch()

    @property
    def job(self) -> str:
        return f"job {to_hex(self.chain.id(self.terms))}"

    def settle(self, records: int, **changes: Any) -> None:
        claim = self.chain.claim(self.terms, records, **changes)
        self.intake.submit_receipt(claim.signed)
        self.chain.deployer.settle([claim])
        self.claims.append(claim)

    def watch(self) -> None:
        for _ in range(3):
            rpc(self.chain.w3, "evm_mine")
        while self.watcher.tick():
            pass

    def bundle(self, count: int = 2) -> ReceiptBundle:
        return ReceiptBundle(
            deployment=self.chain.deployment,
            terms=self.terms,
            enclave_key=key("enclave").address,
            receipts=tuple(claim.signed for claim in self.claims[:count]),
            transactions=(),
        )

    def found(self, **given: Any) -> list[str]:
        report = reconcile(self.chain.w3, self.chain.deployment, **{"store": self.store, **given})
        return [str(difference) for difference in report.differences]


@pytest.fixture
def scene(chain: Chain, tmp_path: Path) -> Scene:
    return Scene(chain, tmp_path)


def test_all_that_agrees_is_equal_and_counted(scene: Scene) -> None:
    report = reconcile(
        scene.chain.w3,
        scene.chain.deployment,
        store=scene.store,
        bundles=[scene.bundle()],
        counts=[LoaderCount(job_id=scene.chain.id(scene.terms), records=25)],
    )
    assert report.differences == ()
    assert report.is_equal
    assert report.surplus == 0
    assert report.block == scene.chain.w3.eth.get_block("finalized")["number"]
    assert set(report.compared) == {
        "events/vault",
        "events/usdc",
        "transfers/usdc",
        "receipts/events",
        "loader/receipts",
        "store/events",
        "store/chain",
    }


def test_closed_distributed_withdrawn_and_donated_is_still_equal(scene: Scene) -> None:
    scene.settle(30, complete=True)
    scene.chain.deployer.distribute(1)
    scene.chain.actor("hospital").withdraw()
    usdc = scene.chain.payer.usdc.functions
    scene.chain.payer.transact(usdc.transfer(scene.chain.deployment.vault, 77))
    scene.watch()
    report = reconcile(scene.chain.w3, scene.chain.deployment, store=scene.store)
    assert (report.differences, report.surplus) == ((), 77)


def test_a_wrong_fact_in_the_store_is_named_with_both_values(scene: Scene) -> None:
    with scene.store.write() as session:
        session.execute(update(JobRow).values(paid=1, records=3, state="CLOSED"))
    assert scene.found() == [
        f"{scene.job}: state is CLOSED by store and OPEN by events",
        f"{scene.job}: paid is 1 by store and 1250000 by events",
        f"{scene.job}: records is 3 by store and 25 by events",
    ]


def test_a_job_that_the_store_lacks_is_named(scene: Scene) -> None:
    with scene.store.write() as session:
        session.execute(delete(JobRow))
    assert scene.found() == [f"{scene.job}: opened is False by store and True by events"]


def test_a_receipt_that_the_store_calls_paid_wrongly_is_named(scene: Scene) -> None:
    digests = [scene.intake.submit_receipt(claim.signed).digest for claim in scene.claims]
    signer = key("enclave").address
    with scene.store.write() as session:
        for digest, values in (
            (digests[0], {"amount": 7}),
            (digests[1], {"status": Status.ACCEPTED, "amount": 0}),
        ):
            session.execute(update(ReceiptRow).where(ReceiptRow.digest == digest).values(values))
    assert sorted(scene.found()) == sorted(
        [
            f"receipt {to_hex(digests[0])} by {signer}: paid is 7 by store and 500000 by events",
            f"receipt {to_hex(digests[1])} by {signer}: "
            "settled is False by store and True by events",
        ]
    )


def test_a_receipt_that_the_store_calls_settled_and_nobody_paid_is_named(scene: Scene) -> None:
    unpaid = scene.intake.submit_receipt(scene.chain.claim(scene.terms, 99).signed)
    assert unpaid.status is Status.ACCEPTED
    where = ReceiptRow.digest == unpaid.digest
    name = f"receipt {to_hex(unpaid.digest)} by {key('enclave').address}"
    with scene.store.write() as session:
        session.execute(update(ReceiptRow).where(where).values(status=Status.SETTLED, amount=5))
    assert scene.found() == [f"{name}: paid is 5 by store and nothing by events"]
    with scene.store.write() as session:
        session.execute(update(ReceiptRow).where(where).values(reason="Covered", amount=0))
    assert scene.found() == [
        f"{name}: covered by what was paid is True by store and False by events"
    ]


def test_a_store_of_another_history_is_named_by_its_block(scene: Scene) -> None:
    with scene.store.write() as session:
        row = session.get_one(CursorRow, 1)
        block, row.block_hash = row.block, bytes(32)
    real = to_hex(bytes(scene.chain.w3.eth.get_block(block)["hash"]))
    assert scene.found() == [
        f"the store: hash of block {block} is {to_hex(bytes(32))} by store and {real} by chain"
    ]


def test_work_that_was_counted_and_not_signed_or_not_paid_is_named(scene: Scene) -> None:
    job = scene.chain.id(scene.terms)
    count = LoaderCount(job_id=job, records=31)
    assert scene.found(counts=[count]) == [f"{scene.job}: records is 31 by loader and 25 by events"]
    assert scene.found(counts=[count], bundles=[scene.bundle()]) == [
        f"{scene.job}: records is 31 by loader and 25 by receipts"
    ]
    scene.claims.append(scene.chain.claim(scene.terms, 31))
    found = scene.found(counts=[count], bundles=[scene.bundle(3)])
    assert found == [
        f"{scene.job}: what was earned was paid (1.55 USDC earned, 1.25 paid) "
        "is False by receipts and True by events",
        f"{scene.job}: records is 31 by receipts and 25 by events",
    ]


def test_a_forged_bundle_is_named(scene: Scene) -> None:
    forged = scene.bundle().model_copy(update={"enclave_key": key("forger").address})
    assert scene.found(bundles=[forged]) == [
        f"{scene.job}: every receipt is signed by the enclave (2 are not) "
        "is False by receipts and True by events"
    ]


def test_a_vault_whose_state_is_not_that_of_its_events_is_named(scene: Scene) -> None:
    """No transaction can do this: the node's storage is overwritten."""
    vault, w3 = scene.chain.deployment.vault, scene.chain.w3
    owed = scene.chain.deployer.vault.functions.owed().call()
    slot = next(
        slot
        for slot in range(200)
        if int.from_bytes(w3.eth.get_storage_at(vault, slot), "big") == owed  # type: ignore[arg-type]
    )
    word = "0x" + (owed + 5).to_bytes(32, "big").hex()
    rpc(w3, "anvil_setStorageAt", vault, hex(slot), word)
    scene.watch()
    assert scene.found() == [
        f"the vault: owed is {owed} by events and {owed + 5} by vault",
    ]


def test_money_that_left_without_an_event_is_named(scene: Scene) -> None:
    """The test token's minter burns nothing: the vault is impersonated."""
    vault, w3 = scene.chain.deployment.vault, scene.chain.w3
    held = scene.chain.payer.usdc_balance(vault)
    rpc(w3, "anvil_impersonateAccount", vault)
    rpc(w3, "anvil_setBalance", vault, hex(10**18))
    functions = scene.chain.payer.usdc.functions
    functions.transfer(key("thief").address, 9).transact({"from": vault})
    scene.watch()
    assert scene.found() == [
        "the vault: USDC that left it is 0 by events and 9 by usdc",
        f"the vault: USDC to pay what is owed is {held} by events and {held - 9} by usdc",
    ]


def test_what_is_older_than_the_contracts_or_out_of_reach_cannot_be_told(scene: Scene) -> None:
    with pytest.raises(NotYetDeployed) as early:
        scene.found(block=0)
    assert (early.value.block, early.value.deployed) == (0, scene.chain.deployment.block)
    nowhere = Web3(HTTPProvider("http://127.0.0.1:1", exception_retry_configuration=None))
    with pytest.raises(HistoryUnavailable):
        without_store(nowhere, scene.chain.deployment)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["rapha", "reconcile", *arguments])
    with pytest.raises(SystemExit) as caught:
        rapha.main()
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out, output.err


def test_the_command_ends_by_the_result(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = scene.directory / "bundle.json"
    bundle.write_text(scene.bundle().model_dump_json())
    loader = scene.directory / "loader.json"
    job = to_hex(scene.chain.id(scene.terms))
    loader.write_text(json.dumps([{"job_id": job, "records": 25, "epochs": 0}]))
    given = ("--rpc", scene.url, "--deployment", str(scene.record), "--database", scene.database)
    files = ("--receipts", str(bundle), "--loader", str(loader))
    code, out, _ = run(monkeypatch, capsys, *given, *files)
    assert (code, out.splitlines()[-1]) == (0, "all equal")
    loader.write_text(json.dumps([{"job_id": job, "records": 26, "epochs": 0}]))
    code, out, _ = run(monkeypatch, capsys, *given, *files, "--json")
    assert code == 1
    assert json.loads(out)["differences"] == [
        {
            "subject": scene.job,
            "field": "records",
            "left": "loader",
            "left_value": "26",
            "right": "receipts",
            "right_value": "25",
        }
    ]
    # the same without a database, as anybody can
    code, out, _ = run(monkeypatch, capsys, *given[:4], *files)
    assert (code, out.splitlines()[-1]) == (1, "1 difference")


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--rpc", "http://127.0.0.1:1/secret-key", "HistoryUnavailable"),
        ("--deployment", "missing.json", "InvalidInput"),
        ("--database", "nonsense", "InvalidInput"),
        ("--receipts", "missing.json", "InvalidInput"),
        ("--loader", "missing.json", "InvalidInput"),
    ],
)
def test_what_cannot_be_told_ends_with_two_and_says_why(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    code: str,
) -> None:
    given = {"--rpc": scene.url, "--deployment": str(scene.record), option: value}
    arguments = [part for pair in given.items() for part in pair]
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert (status, out) == (2, "")
    assert json.loads(err)["code"] == code
    assert "secret-key" not in err
