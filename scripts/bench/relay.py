"""How soon an oracle has receipts settled: 200 of distinct jobs in each block of two seconds.

The oracle is the real one, in a process of its own with all its loops; the chain is an anvil with a
block every two seconds. Receipts come in evenly over each block. What is measured is the block in
which the vault's event says that a receipt was paid, from when it was accepted over HTTP.
"""

import json
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import typer
import uvicorn
from web3 import Web3

from oracle.api import create_app
from oracle.chain import RpcChain
from oracle.clients.edge.devplatform import DevPlatform
from oracle.config import OracleSettings
from oracle.facts import Place, Settled
from oracle.messages import Status
from oracle.service import build
from scripts.bench.intake import RATE, served
from scripts.bench.world import GENESIS, World, account
from scripts.chain import TookTooLong, quiet_chain, rpc
from settlement.contracts import Claim
from settlement.deployment import Deployment
from settlement.eip712 import receipt_digest

BLOCK = 2
"""Seconds between blocks."""

ROUND = 0.25
"""How much of that the oracle lets pass between two of its rounds."""

RECEIPTS = 200
"""Receipts in each block."""

PARTS = 10
"""Requests in which they come, evenly over the block."""

BLOCKS = 20
NODES = 4
KEYS = ("relayer 1", "relayer 2")
PATIENCE = 300.0
"""Seconds in which the oracle must have seen the jobs, and then have everything settled."""


@dataclass
class Heights:
    """When each block came, on this machine's monotonic clock."""

    came: dict[int, float] = field(default_factory=dict)

    @property
    def latest(self) -> int:
        """The newest block."""
        return max(self.came)


@contextmanager
def heights(w3: Web3) -> Iterator[Heights]:
    """Look for new blocks as long as the context is open."""
    found, over = Heights({w3.eth.block_number: time.monotonic()}), threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for number in range(found.latest + 1, w3.eth.block_number + 1):
                found.came[number] = time.monotonic()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def serve(folder: Path, url: str, port: int, block: int = BLOCK) -> None:
    """The oracle of `folder` on the chain at `url`, until it is killed."""
    settings = OracleSettings(
        port=port,
        rpc_url=url,
        deployment_file=folder / "deployment.json",
        database_url=f"sqlite:///{folder}/oracle.db",
        committee_key_file=folder / "committee",
        relayer_key_files=tuple(folder / name for name in KEYS),
        relay=True,
        peer_token_file=folder / "token",
        collateral_file=folder / "collateral.json",
        rate_per_address=RATE,
        poll_interval=block * ROUND,
        batch_age=0,
    )
    service = build(settings)
    service.prepare()
    service.start()
    uvicorn.run(create_app(service), port=port, log_level="warning", access_log=False, http="h11")


@contextmanager
def oracle(
    deployment: Deployment, url: str, folder: Path, block: int
) -> Iterator[tuple[int, psutil.Process]]:
    """An oracle process; its port."""
    collateral = DevPlatform.create(int(time.time()), chain_id=deployment.chain_id)
    files = {
        "deployment.json": deployment.model_dump_json(),
        "committee": account("operator 0").key.hex(),
        "token": "x" * 64,
        "collateral.json": collateral.collateral_json(),
        **{name: account(name).key.hex() for name in KEYS},
    }
    options = ("--block", str(block))
    with served("scripts.bench.relay", folder, files, url, *options) as (port, process):
        yield port, psutil.Process(process.pid)


def measure_relay(
    report: Callable[[str], None],
    *,
    blocks: int = BLOCKS,
    block: int = BLOCK,
    log: Path | None = None,
) -> dict[str, Any]:
    """Blocks and seconds from a receipt's being accepted until it is paid, as percentiles.

    With them the processor seconds that oracle and chain take for each block: these do not depend
    on what else the machine does. `block` is the seconds between two, longer on a busy machine.

    Raises:
        RuntimeError: when a receipt is not accepted.
        TookTooLong: when not all are paid in time.
    """
    genesis_options = ("--slots-in-an-epoch", "1")
    with quiet_chain(GENESIS, *genesis_options) as w3, tempfile.TemporaryDirectory() as name:
        world = World(w3, window=0, nodes=NODES)
        for key in KEYS:
            rpc(w3, "anvil_setBalance", str(account(key).address), hex(10**24))
        jobs = world.open_many(1 + n % NODES for n in range(RECEIPTS * blocks))
        claims = [world.claim(terms, 10) for terms in jobs]
        report(f"relay: {len(jobs)} jobs on {NODES} nodes")
        rpc(w3, "evm_setAutomine", False)
        rpc(w3, "anvil_setBlockTimestampInterval", BLOCK)
        rpc(w3, "evm_setIntervalMining", block)
        url = str(w3.provider.endpoint_uri)  # type: ignore[attr-defined]
        folder = Path(name)
        try:
            with (
                oracle(world.deployment, url, folder, block) as (port, process),
                heights(w3) as seen,
            ):
                _wait_for_facts(port, claims[-1], world.deployment)
                report("relay: the oracle has seen them")
                (anvil,) = (it for it in psutil.Process().children() if it.name() == "anvil")
                return _post_and_follow(
                    world, port, claims, seen, url, block, {"oracle": process, "chain": anvil}
                )
        finally:
            if log is not None:
                log.write_bytes((folder / "log").read_bytes())


def _wait_for_facts(port: int, claim: Claim, deployment: Deployment) -> None:
    """Until the oracle's facts reach to the newest job."""
    job = claim.signed.receipt.job_id
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if httpx.get(f"http://127.0.0.1:{port}/v1/jobs/0x{job.hex()}").status_code == 200:
            return
        time.sleep(0.2)  # another process is waited for
    raise TookTooLong(f"job {job.hex()} of {deployment.vault} being seen", PATIENCE)


def _post_and_follow(
    world: World,
    port: int,
    claims: Sequence[Claim],
    seen: Heights,
    url: str,
    block: int,
    processes: Mapping[str, psutil.Process],
) -> dict[str, Any]:
    domain = world.deployment.vault_domain
    posted: dict[bytes, tuple[int, float]] = {}
    size, pause = RECEIPTS // PARTS, block / PARTS
    before = {name: _used(process) for name, process in processes.items()}
    begun, late = time.monotonic(), 0.0
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        for turn, at in enumerate(range(0, len(claims), size)):
            due = begun + turn * pause
            time.sleep(max(0.0, due - time.monotonic()))
            late = max(late, time.monotonic() - due)
            part = claims[at : at + size]
            body = ",".join(claim.signed.model_dump_json() for claim in part)
            answer = client.post(
                "/v1/receipts/batch",
                content=f'{{"receipts":[{body}]}}',
                headers={"content-type": "application/json"},
            )
            statuses = [(item["receipt"] or {}).get("status") for item in answer.json()["answers"]]
            if statuses != [Status.ACCEPTED] * len(part):
                raise RuntimeError(f"not all accepted: {answer.text[:400]}")
            now = (seen.latest, time.monotonic())
            posted |= {receipt_digest(claim.signed.receipt, domain): now for claim in part}
    view = RpcChain(url, world.deployment)
    asked = min(height for height, _ in posted.values()) - 1
    end = time.monotonic() + PATIENCE
    paid: dict[bytes, Place] = {}
    while len(paid) < len(posted):
        if time.monotonic() > end:
            raise TookTooLong(f"{len(posted) - len(paid)} of {len(posted)} settlements", PATIENCE)
        time.sleep(block)
        latest = view.latest()
        if latest > asked:
            settled = (e for e in view.events(asked + 1, latest) if isinstance(e, Settled))
            paid |= {event.receipt_digest: event.place for event in settled}
            asked = latest
    blocks = [paid[digest].block - height for digest, (height, _) in posted.items()]
    seconds = [seen.came[paid[digest].block] - at for digest, (_, at) in posted.items()]
    used = {name: _used(process) - before[name] for name, process in processes.items()}
    transactions = {place.transaction for place in paid.values()}
    return {
        "receipts": len(posted),
        "receipts in a block": RECEIPTS,
        "seconds between blocks": block,
        "relaying keys": len(KEYS),
        "transactions": len(transactions),
        "most seconds that posting was late": round(late, 2),
        "processor seconds for a block's receipts": {
            name: round(seconds * RECEIPTS / len(posted), 2) for name, seconds in used.items()
        },
        "blocks": _percentiles(blocks),
        "seconds": _percentiles(seconds),
    }


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    found = {f"p{p}": ordered[math.ceil(len(ordered) * p / 100) - 1] for p in (50, 90, 99)}
    return {name: round(value, 2) for name, value in (found | {"most": ordered[-1]}).items()}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command("measure")
def _measure(blocks: int = BLOCKS, block: int = BLOCK, log: Path | None = None) -> None:
    """Measure relaying alone; `--block` is the seconds between two, `--log` keeps what was said."""
    found = measure_relay(
        lambda what: typer.echo(what, err=True), blocks=blocks, block=block, log=log
    )
    typer.echo(json.dumps(found, indent=2))


@app.command("serve")
def _serve(folder: Path, url: str, port: int, block: int = BLOCK) -> None:
    """What `measure` starts."""
    serve(folder, url, port, block)


if __name__ == "__main__":
    app()
