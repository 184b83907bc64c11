"""How a hub bears a thousand queued jobs and a hundred nodes that ask for them.

Hub and oracle are the real programs, each in a process of its own, on this machine's cores with the
hundred nodes, which ask, lease, tell progress and deliver over HTTP, and only do not train.
The oracle knows every job as open and every node as attested, and runs without its loops.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import typer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from oracle.clients.edge.bundle import example
from oracle.messages import JobState
from oracle.store.database import Store
from oracle.store.tables import EnclaveRow, JobRow, MeasurementRow
from scripts.bench.intake import DEPLOYMENT, RATE, oracle
from scripts.bench.world import DAY, MEASUREMENT, address
from scripts.chain import ROOT, die_with_parent, free_port
from scripts.postgres import PostgresMissing, cluster
from settlement.dataset import DatasetCommitment
from settlement.hub.client import HubClient, HubUnavailable
from settlement.hub.messages import (
    ArtifactName,
    DatasetProfile,
    JobCreated,
    JobRequest,
    OutputPolicy,
)
from settlement.types import to_hex

JOBS = 1_000
NODES = 100
AT_ONCE = 8
"""Jobs that are asked for at the same time."""

POLICY = OutputPolicy(
    min_records=1,
    max_output_bytes=2**20,
    max_tensors=8,
    allowed_dtypes=("F32",),
    allowed_metrics=("loss",),
)


def profile(node_id: int) -> DatasetProfile:
    """What each node offers: the same."""
    committed = DatasetCommitment(
        records_root=bytes([7]) * 32,
        record_count=1_000,
        modality="tabular",
        columns=("a:F32",),
        deduplicate=False,
    )
    return DatasetProfile(
        node_id=node_id,
        dataset_digest=committed.digest,
        records_root=committed.records_root,
        modality=committed.modality,
        schema_=committed.columns,
        record_count=committed.record_count,
        price_per_record=1_000,
        price_per_epoch=1_000,
        description="bench",
    )


def attest(url: str) -> None:
    """The oracle knows an enclave of every node."""
    store = Store(url)
    store.migrate()
    with store.write() as session:
        session.add(MeasurementRow(measurement=MEASUREMENT, allowed=True))
        for node_id in range(1, NODES + 1):
            session.add(
                EnclaveRow(
                    enclave_key=address(f"enclave {node_id}"),
                    node_id=node_id,
                    measurement=MEASUREMENT,
                    attestation_digest=node_id.to_bytes(32, "big"),
                    encryption_key_digest=node_id.to_bytes(32, "big"),
                    expiry=int(time.time()) + DAY,
                    revoked=False,
                    block=1,
                )
            )
    store.close()


def fund(url: str, created: list[JobCreated]) -> None:
    """Every job's budget is in the vault, as the oracle has it."""
    store = Store(url)
    with store.write() as session:
        for job in created:
            session.add(
                JobRow(
                    job_id=job.job_id,
                    node_id=job.terms.node_id,
                    terms=job.terms.model_dump_json(),
                    state=JobState.OPEN,
                    funded=job.terms.budget,
                    paid=0,
                    refunded=0,
                    records=0,
                    epochs=0,
                    output_digest=None,
                )
            )
    store.close()


def key_of(name: str) -> str:
    """A party's API key."""
    return f"bench-key-of-enough-length-for-{name:>12}".replace(" ", "-")


@contextmanager
def hub(folder: Path, url: str, oracle_port: int) -> Iterator[str]:
    """A hub process on this database; where it listens."""
    nodes = {str(node_id): key_of(str(node_id)) for node_id in range(1, NODES + 1)}
    keys = {"developers": {"acme": key_of("acme")}, "nodes": nodes}
    (folder / "keys.json").write_text(json.dumps(keys))
    (folder / "deployment.json").write_text(DEPLOYMENT.model_dump_json())
    port = free_port()
    settings = {
        "PORT": str(port),
        "ORACLE_URL": f"http://127.0.0.1:{oracle_port}",
        "ORACLE_TIMEOUT": "60",
        "DEPLOYMENT_FILE": str(folder / "deployment.json"),
        "DATABASE_URL": url,
        "ARTIFACTS_DIR": str(folder / "artifacts"),
        "KEYS_FILE": str(folder / "keys.json"),
        "HASH_KEY_FILE": str(folder / "hash.key"),
        "RATE_PER_PARTY": RATE,
        "RATE_PER_ADDRESS": RATE,
        "NODE_PATIENCE": str(DAY),
    }
    environment = {f"RAPHA_HUB_{name}": value for name, value in settings.items()}
    command = [str(Path(sys.executable).parent / "rapha-hub"), "serve"]
    with (folder / "hub.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log,
            preexec_fn=die_with_parent,
        )  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    try:
        with HubClient(base, None) as client:
            while process.poll() is None:
                try:
                    client.health()
                    break
                except HubUnavailable:
                    time.sleep(0.1)  # another process is waited for
        yield base
    finally:
        process.terminate()
        process.wait()


async def ask_for_jobs(base: str) -> list[JobCreated]:
    """Jobs of one developer, several at a time, of one uploaded bundle each."""
    request = JobRequest(
        bundle=example("breast_cancer_jax").to_zip(),
        modality="tabular",
        min_records=1,
        policy=POLICY,
        epochs=1,
        budget=10_000_000,
        result_key=X25519PrivateKey.generate().public_key().public_bytes_raw(),
        payer=address("payer"),
        deadline=int(time.time()) + DAY,
    )
    body = request.model_dump_json()
    headers = {"authorization": f"Bearer {key_of('acme')}", "content-type": "application/json"}
    created: list[JobCreated] = []
    left = iter(range(JOBS))

    async def ask(http: httpx.AsyncClient) -> None:
        for _ in left:
            answer = await http.post("/v1/jobs", content=body)
            answer.raise_for_status()
            created.append(JobCreated.model_validate_json(answer.content))

    async with (
        httpx.AsyncClient(base_url=base, headers=headers, timeout=120) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(AT_ONCE):
            tasks.create_task(ask(http))
    return created


async def work(base: str, count: int) -> list[float]:
    """All nodes ask and deliver until so many jobs are done: seconds for each lease."""
    waits: list[float] = []
    done = asyncio.Event()

    async def serve(node_id: int) -> None:
        headers = {"authorization": f"Bearer {key_of(str(node_id))}"}
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=120) as http:
            while not done.is_set():
                begun = time.perf_counter()
                leased = await http.post(f"/v1/nodes/{node_id}/lease", params={"wait": 1})
                leased.raise_for_status()
                if leased.status_code == 204:
                    continue
                waits.append(time.perf_counter() - begun)
                path = f"/v1/jobs/{leased.json()['job_id']}"
                told = {"records": 1_000, "epochs": 1, "epochs_total": 1}
                (await http.post(f"{path}/progress", json=told)).raise_for_status()
                for name in ArtifactName:
                    content = f"{name} of {path}".encode()
                    answer = await http.put(f"{path}/artifacts/{name}", content=content)
                    answer.raise_for_status()
                if len(waits) >= count:
                    done.set()

    async with asyncio.TaskGroup() as tasks:
        for node_id in range(1, NODES + 1):
            tasks.create_task(serve(node_id))
    return waits


def measure(url: str, oracle_url: str, report: Callable[[str], None]) -> dict[str, float]:
    """The figures on one kind of database."""
    attest(oracle_url)
    with (
        tempfile.TemporaryDirectory() as name,
        oracle(Path(name), oracle_url) as running,
        hub(Path(name), url, running.port) as base,
    ):
        for node_id in range(1, NODES + 1):
            with HubClient(base, key_of(str(node_id))) as node:
                node.put_profile(profile(node_id))
        begun = time.perf_counter()
        created = asyncio.run(ask_for_jobs(base))
        quoted = time.perf_counter() - begun
        report(f"  {JOBS / quoted:,.0f} jobs quoted a second")
        fund(oracle_url, created)
        begun = time.perf_counter()
        waits = asyncio.run(work(base, JOBS))
        worked = time.perf_counter() - begun
        with HubClient(base, key_of("acme")) as developer:
            for job in created[:: JOBS // 20]:
                state = developer.job(job.job_id).state
                if state != "DELIVERED":
                    raise RuntimeError(f"job {to_hex(job.job_id)} is {state}")
        share = Counter(job.terms.node_id for job in created)
        found = {
            "jobs quoted a second": JOBS / quoted,
            "jobs leased and delivered a second": JOBS / worked,
            "lease, median ms": statistics.median(waits) * 1_000,
            "lease, 99th percentile ms": statistics.quantiles(waits, n=100)[98] * 1_000,
            "fewest jobs of a node": min(share.values()),
            "most jobs of a node": max(share.values()),
        }
        report(f"  {found['jobs leased and delivered a second']:,.0f} jobs delivered a second")
        return {name: round(value, 1) for name, value in found.items()}


def measure_hub(report: Callable[[str], None]) -> dict[str, Any]:
    """A thousand jobs and a hundred nodes, on SQLite and on PostgreSQL."""
    found: dict[str, Any] = {"jobs": JOBS, "nodes": NODES}
    with tempfile.TemporaryDirectory() as folder:
        report("hub on SQLite")
        urls = [f"sqlite:///{folder}/{name}.db" for name in ("hub", "oracle")]
        found["sqlite"] = measure(urls[0], urls[1], report)
    try:
        with cluster() as server:
            report("hub on PostgreSQL")
            found["postgresql"] = measure(server.create(), server.create_migrated(), report)
    except PostgresMissing as missing:
        report(f"no figures on PostgreSQL: {missing}")
    return found


def main(as_json: bool = False) -> None:
    """Measure the hub alone."""
    found = measure_hub(lambda what: typer.echo(what, err=True))
    typer.echo(json.dumps(found, indent=None if as_json else 2))


if __name__ == "__main__":
    typer.run(main)
