"""How many bytes a job and a receipt leave in the database, on the way and once settled."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from eth_utils import keccak
from sqlalchemy import select

from oracle.facts import JobOpened, Place, Settled
from oracle.intake import Intake
from oracle.messages import Status
from oracle.projection import extend
from oracle.store.database import Store
from oracle.store.tables import ReceiptRow
from oracle.verdicts import rejudge
from scripts.bench.intake import DEPLOYMENT, receipts, seed, terms
from settlement.eip712 import job_id, receipt_digest
from settlement.models import SignedReceipt

COUNT = 5_000
BLOCK = 200
"""Receipts settled in one block."""


def measure_storage(report: Callable[[str], None]) -> dict[str, float]:
    """Bytes of SQLite's file for each job that was opened and each receipt, indexes included."""
    job = terms()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/oracle.db"
        seed(url, job)
        store = Store(url)
        intake = Intake(store, DEPLOYMENT, lambda: 1)
        signed = [SignedReceipt.model_validate_json(it) for it in receipts(job, 1, COUNT)]
        verified = [intake.verify(it) for it in signed]
        empty = _size(store, folder)
        for at in range(0, COUNT, BLOCK):
            intake.keep(verified[at : at + BLOCK])
        taken = _size(store, folder)
        for at in range(0, COUNT, BLOCK):
            place = [
                Place(2 + at // BLOCK, n, keccak(text=f"transaction {at // 100}"))
                for n in range(BLOCK)
            ]
            events = [
                Settled(
                    place=place[n],
                    job_id=it.receipt.job_id,
                    receipt_digest=receipt_digest(it.receipt, DEPLOYMENT.vault_domain),
                    records=it.receipt.records,
                    epochs=it.receipt.epochs,
                    amount=2 if it is signed[0] else 1,
                )
                for n, it in enumerate(signed[at : at + BLOCK])
            ]
            with store.write() as session:
                extend(session, events)
                digests = [event.receipt_digest for event in events]
                rows = session.scalars(select(ReceiptRow).where(ReceiptRow.digest.in_(digests)))
                rejudge(session, rows.all(), grace=DEPLOYMENT.grace_period, now=1)
        settled = _size(store, folder)
        with store.read() as session:
            statuses = set(session.scalars(select(ReceiptRow.status).distinct()))
        if statuses != {Status.SETTLED}:
            raise RuntimeError(f"receipts are {statuses}")
        with store.write() as session:
            extend(session, [_opened(n) for n in range(COUNT)])
        opened = _size(store, folder)
        store.close()
    found = {
        "bytes for a receipt taken in": (taken - empty) / COUNT,
        "bytes more once it is settled": (settled - taken) / COUNT,
        "bytes for a job opened": (opened - settled) / COUNT,
    }
    report("database: " + ", ".join(f"{value:,.0f} {name}" for name, value in found.items()))
    return {name: round(value) for name, value in found.items()}


def _opened(number: int) -> JobOpened:
    other = terms().model_copy(update={"salt": keccak(text=f"salt {number}")})
    place = Place(1_000 + number // BLOCK, number % BLOCK, keccak(text=f"opening {number // 50}"))
    return JobOpened(place, job_id(other, DEPLOYMENT.vault_domain), other)


def _size(store: Store, folder: str) -> int:
    """Bytes of the database file with all that was written in it."""
    with store.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")  # a checkpoint needs no transaction around it
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return (Path(folder) / "oracle.db").stat().st_size
