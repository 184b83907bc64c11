"""Which records a buyer has paid for already, where the dataset's terms say that it pays once.

There is no second book: what a job counts stands in its journal, and what it can be paid for in its
signed receipts, both on disk before they count. A file beside them says whose job it was.
"""

import json
from pathlib import Path

from oracle.clients.edge.dataset import CommittedDataset
from oracle.clients.edge.durable import write_atomically
from oracle.clients.edge.errors import JournalInvalid
from oracle.clients.edge.loader import Meter
from oracle.clients.edge.outbox import POSTED, Outbox
from settlement.digests import canonical_json

ACCOUNT = "account.json"
JOURNAL = "meter.journal"
RECEIPTS = "receipts"
FAILURE = "failure.json"


class PaidRecords:
    """What the jobs in a directory, each in a folder by its id, count for each buyer.

    A signed receipt is a voucher that anyone may redeem, so what one covers is paid for, unless the
    oracle refused it for good. A job that has not failed will sign for all of its journal.
    """

    def __init__(self, jobs: Path, committed: CommittedDataset) -> None:
        self._jobs = jobs
        self._committed = committed

    def open_account(self, job_id: bytes, buyer: str) -> frozenset[int]:
        """Note durably whose job this is; the positions that its meter must not count.

        Raises:
            JournalInvalid: when a file of an earlier job is damaged. Nothing is billed then.
        """
        account = self._account(buyer)
        directory = self._jobs / job_id.hex()
        write_atomically(directory / ACCOUNT, account)
        paid: set[int] = set()
        for other in sorted(self._jobs.glob(f"*/{ACCOUNT}")):
            if other.parent == directory or self._read(other) != json.loads(account):
                continue
            paid.update(self._counted(other.parent))
        return frozenset(paid)

    def _account(self, buyer: str) -> bytes:
        return canonical_json({"buyer": buyer.lower(), "dataset": self._committed.digest.hex()})

    def _read(self, path: Path) -> object:
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise JournalInvalid(path, "it names no buyer and dataset") from error

    def _counted(self, directory: Path) -> tuple[int, ...]:
        journal = directory / JOURNAL
        if not journal.exists():
            return ()
        try:
            job_id = bytes.fromhex(directory.name)
        except ValueError as error:
            raise JournalInvalid(journal, "its folder is not named by a job") from error
        with Meter(journal, self._committed, job_id) as meter:
            counted = meter.counted
        if not (directory / FAILURE).exists():
            return counted
        outbox = Outbox(directory / RECEIPTS)
        billed = [
            signed.receipt.records for signed, fate in outbox.fates() if fate in (None, POSTED)
        ]
        return counted[: max(billed, default=0)]
