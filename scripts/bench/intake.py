"""How many receipts an oracle takes in durably over HTTP, and what that costs in memory.

The oracle is the real one in a process of its own, without its loops: those have other figures. Its
store knows the job and the enclave, so that every receipt is judged and accepted. Beside it stands
what bounds it: parsing, verifying and inserting the same receipts in a bare loop.
"""

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import typer
import uvicorn
from eth_utils import keccak
from sqlalchemy import func, make_url, select

from oracle.api import create_app
from oracle.client import OracleClient, OracleUnavailable
from oracle.clients.edge.devplatform import DevPlatform
from oracle.config import OracleSettings
from oracle.messages import MAX_RECEIPTS, JobState, Status
from oracle.service import build
from oracle.store.database import Store
from oracle.store.tables import EnclaveRow, JobRow, MeasurementRow, ReceiptRow
from scripts.bench.world import BUDGET, DAY, MEASUREMENT, account, address
from scripts.chain import ROOT, die_with_parent, free_port
from scripts.postgres import PostgresMissing, cluster
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receipt_digest, recover_signer, sign_digest
from settlement.models import JobTerms, Receipt, SignedReceipt, Work

CONNECTIONS = 32
"""Requests at a time; of batches a quarter of it."""

SINGLES = 4_000
BATCHED = 20_000
FIRST, LAST = 10_000, 100_000
"""Receipts after which the process's memory is looked at."""

RATE = "1000000000/minute"

DEPLOYMENT = Deployment(
    chain_id=31337,
    block=0,
    vault="0x1000000000000000000000000000000000000001",
    node_registry="0x1000000000000000000000000000000000000002",
    enclave_registry="0x1000000000000000000000000000000000000003",
    timelock="0x1000000000000000000000000000000000000004",
    usdc="0x1000000000000000000000000000000000000005",
    grace_period=DAY,
)
_DIGEST = keccak(text="rapha bench")


def terms() -> JobTerms:
    """A job that is open for a day."""
    return JobTerms(
        payer=address("payer"),
        node_id=1,
        price_per_record=1,
        price_per_epoch=1,
        budget=BUDGET,
        deadline=int(time.time()) + DAY,
        work=Work(
            model_digest=_DIGEST,
            dataset_digest=_DIGEST,
            policy_digest=_DIGEST,
            result_key_digest=_DIGEST,
        ),
        salt=bytes(32),
    )


def receipts(job: JobTerms, first: int, count: int) -> list[str]:
    """Signed receipts of one job as JSON, each with a record more."""
    domain, key = DEPLOYMENT.vault_domain, account("enclave").key
    made = []
    for records in range(first, first + count):
        receipt = Receipt(
            job_id=job_id(job, domain),
            records=records,
            epochs=1,
            records_root=_DIGEST,
            output_digest=bytes(32),
            complete=False,
        )
        signature = sign_digest(receipt_digest(receipt, domain), key)
        made.append(SignedReceipt(receipt=receipt, signature=signature).model_dump_json())
    return made


def seed(url: str, job: JobTerms) -> None:
    """The facts that make these receipts good."""
    store = Store(url)
    store.migrate()
    with store.write() as session:
        session.add(
            JobRow(
                job_id=job_id(job, DEPLOYMENT.vault_domain),
                node_id=1,
                terms=job.model_dump_json(),
                state=JobState.OPEN,
                funded=job.budget,
                paid=0,
                refunded=0,
                records=0,
                epochs=0,
                output_digest=None,
            )
        )
        session.add(MeasurementRow(measurement=MEASUREMENT, allowed=True))
        session.add(
            EnclaveRow(
                enclave_key=address("enclave"),
                node_id=1,
                measurement=MEASUREMENT,
                attestation_digest=_DIGEST,
                encryption_key_digest=_DIGEST,
                expiry=int(time.time()) + DAY,
                revoked=False,
                block=1,
            )
        )
    store.close()


def serve(folder: Path, url: str, port: int) -> None:
    """The oracle of `folder` on this database, without its loops, until it is killed."""
    settings = OracleSettings(
        port=port,
        rpc_url="http://127.0.0.1:1",
        deployment_file=folder / "deployment.json",
        database_url=url,
        committee_key_file=folder / "committee",
        relayer_key_file=folder / "relayer",
        relay=True,
        peer_token_file=folder / "token",
        collateral_file=folder / "collateral.json",
        rate_per_address=RATE,
    )
    app = create_app(build(settings))
    uvicorn.run(app, port=port, log_level="warning", access_log=False, http="h11")


@dataclass(frozen=True)
class Oracle:
    """A running one: where, in which process, and on which database."""

    port: int
    process: psutil.Process
    url: str

    def resident(self) -> int:
        """Bytes of memory that its process has."""
        return int(self.process.memory_info().rss)

    def used(self) -> float:
        """Seconds of a processor that it has used: these do not depend on what else runs."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def accepted(self) -> int:
        """How many receipts its database has accepted."""
        store = Store(self.url)
        with store.read() as session:
            query = select(func.count()).where(ReceiptRow.status == Status.ACCEPTED)
            count = session.scalar(query)
        store.close()
        return int(count or 0)


@contextmanager
def oracle(folder: Path, url: str) -> Iterator[Oracle]:
    """An oracle process on a seeded database."""
    files = {
        "deployment.json": DEPLOYMENT.model_dump_json(),
        "committee": account("committee").key.hex(),
        "relayer": account("relayer").key.hex(),
        "token": "x" * 64,
        "collateral.json": DevPlatform.create(int(time.time()), chain_id=31337).collateral_json(),
    }
    with served("scripts.bench.intake", folder, files, url) as (port, process):
        yield Oracle(port, psutil.Process(process.pid), url)


@contextmanager
def served(
    module: str, folder: Path, files: Mapping[str, str], url: str, *options: str
) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    """A bench module's `serve` on these files: its port and process, once it answers."""
    for name, content in files.items():
        (folder / name).write_text(content)
    port = free_port()
    arguments = ["serve", str(folder), url, str(port), *options]
    command = [sys.executable, "-m", module, *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, preexec_fn=die_with_parent
        )
    try:
        with OracleClient(f"http://127.0.0.1:{port}") as client:
            wait_until_served(client, process)
        yield port, process
    finally:
        process.kill()
        process.wait()


def wait_until_served(client: OracleClient, process: "subprocess.Popen[bytes]") -> None:
    """Until an oracle process answers. Raises RuntimeError when it ends."""
    while process.poll() is None:
        try:
            client.health()
        except OracleUnavailable:
            time.sleep(0.1)  # another process is waited for
        else:
            return
    raise RuntimeError("the oracle did not start; its log says why")


async def post(port: int, path: str, bodies: Sequence[str], connections: int) -> None:
    """Post all bodies over so many connections, one request at a time on each.

    Raises:
        RuntimeError: when an answer is not 202.
    """
    left = iter(bodies)

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        for body in left:
            head = (
                f"POST {path} HTTP/1.1\r\nhost: oracle\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            writer.write((head + body).encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 202 "):
                raise RuntimeError(answer.decode())
            headers = answer.lower().split(b"\r\n")
            length = next(h for h in headers if h.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(work())


def batches(items: Sequence[str], size: int = MAX_RECEIPTS) -> list[str]:
    """Bodies of batch requests."""
    parts = [items[at : at + size] for at in range(0, len(items), size)]
    return [f'{{"receipts":[{",".join(part)}]}}' for part in parts]


def _rate(count: int, action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return count / (time.perf_counter() - begun)


def bare(url: str, items: Sequence[str], size: int) -> float:
    """Receipts a second in a loop that parses, verifies and inserts, and commits each `size`."""
    domain = DEPLOYMENT.vault_domain
    backend = make_url(url)
    connection: Any
    if backend.get_backend_name() == "sqlite":
        connection = sqlite3.connect(str(backend.database))
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        mark = "?"
    else:
        connection = psycopg.connect(
            host=str(backend.query["host"]), user=backend.username, dbname=backend.database
        )
        mark = "%s"
    columns = (
        "digest, signer, job_id, records, epochs, records_root, output_digest, complete,"
        " signature, received_at, status, amount"
    )
    marks = ", ".join([mark] * 12)
    statement = f"INSERT INTO receipts ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"

    def row(item: str) -> tuple[Any, ...]:
        signed = SignedReceipt.model_validate_json(item)
        digest = receipt_digest(signed.receipt, domain)
        values = dict(signed.receipt)
        values |= {"records": f"{signed.receipt.records:020}", "epochs": f"{1:020}"}
        signer = recover_signer(digest, signed.signature)
        return (digest, signer, *values.values(), signed.signature, 1, "ACCEPTED", f"{0:020}")

    def loop() -> None:
        cursor = connection.cursor()
        for at in range(0, len(items), size):
            cursor.executemany(statement, [row(item) for item in items[at : at + size]])
            connection.commit()

    found = _rate(len(items), loop)
    connection.close()
    return found


def verified(items: Sequence[str]) -> float:
    """Receipts a second that are parsed and verified, and no more."""
    domain = DEPLOYMENT.vault_domain

    def loop() -> None:
        for item in items:
            signed = SignedReceipt.model_validate_json(item)
            recover_signer(receipt_digest(signed.receipt, domain), signed.signature)

    return _rate(len(items), loop)


def measure(
    fresh: Callable[[], str], report: Callable[[str], None], memory: bool
) -> dict[str, float]:
    """The figures on one kind of database; `fresh` makes an empty one.

    `by its processor time` is how many a second the oracle's process would take in with a core of
    its own, whoever else uses the machine.
    """
    job = terms()
    found: dict[str, float] = {}
    for name, size, count in (("bare, each committed", 1, 2_000), ("bare, batches", 500, 10_000)):
        url = fresh()
        seed(url, job)
        found[name] = bare(url, receipts(job, 1, count), size)
        report(f"  {name}: {found[name]:,.0f} a second")
    url = fresh()
    seed(url, job)
    with tempfile.TemporaryDirectory() as folder, oracle(Path(folder), url) as running:
        singles = receipts(job, 1, SINGLES)
        posted = post(running.port, "/v1/receipts", singles, CONNECTIONS)
        before = running.used()
        found["single"] = _rate(SINGLES, lambda: asyncio.run(posted))
        found["single, by its processor time"] = SINGLES / (running.used() - before)
        report(f"  single: {found['single']:,.0f} a second")
        total, at = SINGLES, SINGLES + 1
        while total < (LAST if memory else SINGLES + BATCHED):
            bodies = batches(receipts(job, at, BATCHED if total > SINGLES else BATCHED // 2))
            count = sum(body.count('"signature"') for body in bodies)
            posted = post(running.port, "/v1/receipts/batch", bodies, CONNECTIONS // 4)
            before = running.used()
            found["batch"] = _rate(count, lambda posted=posted: asyncio.run(posted))  # type: ignore[misc]
            found["batch, by its processor time"] = count / (running.used() - before)
            total, at = total + count, at + count
            if "MB at first" not in found:
                found |= {"receipts at first": total, "MB at first": running.resident() / 2**20}
            found |= {"receipts at last": total, "MB at last": running.resident() / 2**20}
            report(f"  batch: {found['batch']:,.0f} a second, {found['MB at last']:.0f} MB")
        if running.accepted() != total:
            raise RuntimeError(f"{running.accepted()} of {total} receipts were accepted")
    return found


def measure_intake(report: Callable[[str], None], *, memory: bool = True) -> dict[str, Any]:
    """Receipts a second over HTTP and bare, and memory, on SQLite and PostgreSQL."""
    found: dict[str, Any] = {"verified": verified(receipts(terms(), 1, 4_000))}
    report(f"intake: parsed and verified {found['verified']:,.0f} a second")
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(10))
        report("intake on SQLite")
        found["sqlite"] = measure(lambda: f"sqlite:///{folder}/{next(numbers)}.db", report, memory)
    try:
        with cluster() as server:
            report("intake on PostgreSQL")
            found["postgresql"] = measure(server.create_migrated, report, memory)
    except PostgresMissing as missing:
        report(f"no figures on PostgreSQL: {missing}")
    return found


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command("measure")
def _measure(as_json: bool = False, memory: bool = True) -> None:
    """Measure the intake alone."""
    found = measure_intake(lambda what: typer.echo(what, err=True), memory=memory)
    typer.echo(json.dumps(found, indent=None if as_json else 2))


@app.command("serve")
def _serve(folder: Path, url: str, port: int) -> None:
    """What `measure` starts."""
    serve(folder, url, port)


if __name__ == "__main__":
    app()
