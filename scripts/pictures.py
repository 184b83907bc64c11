"""Write the pictures and diagrams of the documentation that are made from code and figures.

`docs/states.md`: how a job and a receipt move, from `settlement.states` and `oracle.decide`.
`docs/gas.svg`: gas for each receipt, from `tests/bench/gas.json`. With `--check` they are compared
with what is there instead.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path

from oracle.decide import REFUSALS, EnclaveFact, JobFact, Reason, SettledFact, judge
from oracle.messages import Status
from oracle.outbox import CARRYING
from scripts.bench.report import FIGURES, PICTURE, draw
from scripts.chain import ROOT
from settlement.contracts import JobState
from settlement.models import JobTerms, Receipt, Work
from settlement.states import JOB_MOVES

STATES = ROOT / "docs" / "states.md"
_NOW = 1_000
_WORD = bytes(32)


def job_diagram() -> str:
    """The vault's states of a job, as Mermaid; moves between the same two are one arrow."""
    arrows: dict[tuple[JobState, JobState], list[str]] = defaultdict(list)
    for move in JOB_MOVES:
        arrows[move.before, move.after].append(move.event)
    lines = ["stateDiagram-v2"]
    for (before, after), labels in arrows.items():
        start = "[*]" if before is JobState.UNKNOWN else before.name
        lines.append(f"    {start} --> {after.name}: {', '.join(labels)}")
    lines.append("    CLOSED --> [*]")
    return "\n".join(lines)


def verdicts() -> dict[Status, list[Reason]]:
    """Every verdict that facts can give a receipt, with its reasons: all facts are tried."""
    terms = JobTerms(
        payer="0x1000000000000000000000000000000000000001",
        node_id=0,
        price_per_record=1,
        price_per_epoch=0,
        budget=100,
        deadline=_NOW,
        work=Work(
            model_digest=_WORD, dataset_digest=_WORD, policy_digest=_WORD, result_key_digest=_WORD
        ),
        salt=_WORD,
    )
    output = b"\x01" * 32
    jobs = [None] + [
        JobFact(terms, node, 100, closed, paid, output if closed else None, until)
        for node, closed, paid, until in product(
            (0, 1), (False, True), (0, 50), (_NOW - 1, _NOW + 1)
        )
    ]
    enclaves = [None] + [
        EnclaveFact(node, expiry, revoked, allowed)
        for node, expiry, revoked, allowed in product(
            (1, 2), (_NOW, _NOW + 1), (False, True), (False, True)
        )
    ]
    found: dict[Status, set[Reason | None]] = defaultdict(set)
    for job, enclave, settled, voided, complete, digest in product(
        jobs,
        enclaves,
        (None, SettledFact(_WORD, 1, 1)),
        (False, True),
        (False, True),
        (_WORD, output),
    ):
        receipt = Receipt(
            job_id=_WORD,
            records=20,
            epochs=0,
            records_root=_WORD,
            output_digest=digest,
            complete=complete,
        )
        verdict = judge(receipt, job=job, enclave=enclave, settled=settled, voided=voided, now=_NOW)
        found[verdict.status].add(verdict.reason)
    found[Status.REJECTED].update(REFUSALS.values())
    return {
        status: [reason for reason in Reason if reason in found[status]]
        for status in Status
        if status in found
    }


def receipt_diagram() -> str:
    """How a receipt gets its status, as Mermaid: by facts, and by the transaction it is in."""
    lines = [
        "stateDiagram-v2",
        "    [*] --> judged: taken in, durable",
        '    state "judged by final facts, anew whenever one changes" as judged {',
    ]
    for status, reasons in verdicts().items():
        lines.append(f"        {status.value}: {status.value}")  # the first line is its title
        lines += [f"        {status.value}: {reason.value}" for reason in reasons]
    lines.append("    }")
    for (before, after), why in CARRYING.items():
        lines.append(f"    {before.value} --> {after.value if after else 'judged'}: {why}")
    return "\n".join(lines)


def document() -> str:
    """`docs/states.md`."""
    moves = "\n".join(
        f"| `{move.event}` | {move.before.name} | {move.after.name} | {move.what} |"
        for move in JOB_MOVES
    )
    reasons = "\n".join(
        f"| {status.value} | {', '.join(f'`{reason.value}`' for reason in found) or '–'} |"
        for status, found in verdicts().items()
    )
    return f"""# States

Written by `make docs` from the code's own tables; a test compares this page with them.

## A job, in the vault

```mermaid
{job_diagram()}
```

UNKNOWN is where every job id is before its first event. From each state time alone leads to CLOSED:
anyone may `refund` a job after its deadline and grace, and a cancelled one after its grace.

| event | before | after | what moves it |
|---|---|---|---|
{moves}

The table is `settlement/states.py`. The ledger (`settlement/ledger.py`) refuses events that it does
not have, and `tests/unit/contracts/test_states.py` calls every function of the vault on a job in
every state and finds these moves and no others.

## A receipt, at an oracle

```mermaid
{receipt_diagram()}
```

A status that facts decide is decided anew whenever one of these facts changes, in any direction: a
reorg takes SETTLED back, a top-up makes a covered receipt due again. Only a receipt that the vault
called `Malformed` stays as it is, until an operator asks again (`rapha-oracle retry`). While a
receipt is in a transaction, facts move it to SETTLED and nowhere else.

| status | reasons that the facts or the vault give |
|---|---|
{reasons}

The reasons are found by trying `oracle.decide.judge` on every combination of facts.
`tests/unit/oracle/test_crash_twin.py` has the database note each change of a status while an oracle
is killed at every step, and finds no way into or out of a transaction but these.
"""


def main() -> int:
    """Write or check; the exit code is the number of differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    gas = json.loads((FIGURES / "gas.json").read_text())
    writers: dict[Path, Callable[[Path], object]] = {
        STATES: lambda path: path.write_text(document()),
        PICTURE: lambda path: draw(gas, path),
    }
    stale = []
    for target, write in writers.items():
        if not check:
            write(target)
            continue
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / target.name
            write(fresh)
            if not target.exists() or fresh.read_bytes() != target.read_bytes():
                stale.append(target.name)
    for name in stale:
        print(f"docs/{name} is not what the code says: run `make docs`", file=sys.stderr)
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
