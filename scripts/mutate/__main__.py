"""The command line, the store of results, and `docs/mutants.md`."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from scripts.mutate.equivalent import EQUIVALENT
from scripts.mutate.mutants import ROOT, Mutant, digest, mutants_of, read_sources
from scripts.mutate.server import TESTS, Baseline, Server, Verdict, file_digest, serve

STORE = ROOT / "docs" / "mutants.json"
DOCUMENT = ROOT / "docs" / "mutants.md"
# not run by any test, since the code is the same or there is none
NOT_RUN = ("same code", "invalid")


class Store:
    """Results of before, which hold as long as the contracts and the tests behind them do.

    They are kept beside the document, so that another machine can go on where one stopped: name of
    the mutant -> status, the test that killed it, and a digest of the tests it stands on.
    """

    def __init__(self, path: Path, sources: dict[str, str]) -> None:
        self._path, self._sources = path, sources
        self._results: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}
        self._tests = tests_digest()

    def find(self, mutant: Mutant) -> Verdict | None:
        """What is known of a mutant and still holds."""
        status, killer, behind = self._results.get(mutant.key(self._sources), ("", "", ""))
        if not status or behind != self._behind(mutant, status, killer):
            return None
        return Verdict(status, killer)

    def keep(self, mutant: Mutant, verdict: Verdict) -> None:
        """Remember, on disk at once, so that a run can go on where it was stopped."""
        behind = self._behind(mutant, verdict.status, verdict.killer)
        self._results[mutant.key(self._sources)] = [verdict.status, verdict.killer, behind]
        self._write()

    def keep_only(self, mutants: Sequence[Mutant]) -> None:
        """Forget what no longer is a mutant."""
        names = {mutant.key(self._sources) for mutant in mutants}
        self._results = {name: kept for name, kept in self._results.items() if name in names}
        self._write()

    def baseline(self) -> Path:
        """Where the tests' times and lines are kept, as long as neither side changes."""
        name = sha256((digest(self._sources) + self._tests).encode()).hexdigest()[:16]
        return ROOT / ".cache" / f"mutants-baseline-{name}.json"

    def _write(self) -> None:
        lines = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(kept)}"
            for name, kept in sorted(self._results.items())
        )
        partial = self._path.with_suffix(".part")
        partial.write_text(f"{{\n{lines}\n}}\n")
        partial.rename(self._path)

    def _behind(self, mutant: Mutant, status: str, killer: str) -> str:
        """What a result stands on: a reason, the file of the test that killed, or all tests."""
        if status in NOT_RUN or (status == "survived" and reason_of(mutant, self._sources)):
            return ""
        path = ROOT / killer.split("::")[0]
        return file_digest(path) if killer and path.is_file() else self._tests[:16]


def tests_digest() -> str:
    """Over all files of the tests that may kill."""
    files = sorted(path for test in TESTS for path in (ROOT / test).rglob("*.py"))
    files.append(ROOT / "tests" / "world.py")
    return sha256("".join(file_digest(path) for path in files).encode()).hexdigest()


def status_of(mutant: Mutant, verdict: Verdict, sources: dict[str, str]) -> str:
    """The verdict's status, with what is known to be equal in effect set apart."""
    if verdict.status == "survived" and reason_of(mutant, sources):
        return "equivalent"
    return "killed" if verdict.status == "timeout" else verdict.status


def reason_of(mutant: Mutant, sources: dict[str, str]) -> str | None:
    """Why a mutant is equal in effect, where that is known."""
    return EQUIVALENT.get((mutant.file, *mutant.texts(sources[mutant.file])))


def document(
    results: Sequence[tuple[Mutant, Verdict]], sources: dict[str, str], not_run: Counter[str]
) -> str:
    """`docs/mutants.md`; `not_run` is how many of each file have no result that still holds."""
    groups: dict[str, list[tuple[Mutant, Verdict]]] = {}
    for mutant, verdict in results:
        groups.setdefault(status_of(mutant, verdict, sources), []).append((mutant, verdict))
    survived, killed = groups.pop("survived", []), groups.get("killed", [])
    lines = [
        "# Mutants of the contracts",
        "",
        "Written by `python -m scripts.mutate`: each check, comparison, operator, constant,",
        "write, call and event of the contracts was changed in turn, and the contract tests were",
        "run until one failed.",
        "",
        f"Of {len(results):,} mutants {len(killed):,} were killed and {len(survived):,} survived; "
        f"{len(groups.get('equivalent', [])):,} are equal in effect, "
        f"{len(groups.get('same code', [])):,} compile to the same code and "
        f"{len(groups.get('invalid', [])):,} do not compile.",
        "",
        *(["## Not run yet", "", *_counts(not_run), ""] if not_run else []),
        "## Survived",
        "",
        *(_table(survived, sources) if survived else ["None."]),
        "",
        "## Equal in effect",
        "",
        *_table(groups.get("equivalent", []), sources, "reason"),
        "",
        "## Killed",
        "",
        *_table(killed, sources, "killed by"),
    ]
    for status in sorted(groups.keys() - {"equivalent", "killed"}):
        lines += ["", f"## {status.capitalize()}", "", *_table(groups[status], sources)]
    return "\n".join(lines) + "\n"


def _counts(not_run: Counter[str]) -> list[str]:
    return [
        "No result since these files, or contracts that they go into, last changed:",
        "",
        "| file | mutants |",
        "|---|---:|",
        *(f"| {file.removeprefix('contracts/')} | {count:,} |" for file, count in not_run.items()),
    ]


def _table(
    rows: Sequence[tuple[Mutant, Verdict]], sources: dict[str, str], last: str = ""
) -> list[str]:
    heads = ["where", "what", "as it is", "as changed", *([last] if last else [])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for mutant, verdict in rows:
        old, new = mutant.texts(sources[mutant.file])
        cells = [
            f"{mutant.file.removeprefix('contracts/')}:{mutant.line}",
            mutant.kind,
            _code(old),
            _code(new),
        ]
        if last == "reason":
            cells.append(reason_of(mutant, sources) or "")
        elif last:
            timeout = " (time ran out)" if verdict.status == "timeout" else ""
            cells.append(_code(verdict.killer.removeprefix("tests/")) + timeout)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _code(text: str) -> str:
    """As code in a table's cell, where a bar would end it."""
    escaped = text.replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in escaped else f"`{escaped}`"


def select(sources: dict[str, str], only: str) -> list[Mutant]:
    """The mutants of the files whose path contains `only`."""
    return [
        mutant
        for file, source in sorted(sources.items(), key=lambda item: "modules" not in item[0])
        if file.endswith(".vy") and only in file
        for mutant in mutants_of(file, source)
    ]


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    jobs: Annotated[int, typer.Option(help="Mutants at a time.")] = os.cpu_count() or 1,
    only: Annotated[str, typer.Option(help="Only files whose path contains this.")] = "",
    fresh: Annotated[bool, typer.Option(help="Forget the results of before.")] = False,
    save: Annotated[bool, typer.Option(help="Write docs/mutants.md.")] = True,
) -> None:
    """Run every mutant, print, and keep; 1 when a mutant survived that is not listed as equal."""
    console = Console(stderr=True)
    sources = read_sources()
    chosen = select(sources, only)
    if fresh:
        STORE.unlink(missing_ok=True)
    store = Store(STORE, sources)
    results: dict[Mutant, Verdict] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("the tests on the contracts as they are", total=len(chosen))

        def ready(baseline: Baseline) -> list[Mutant]:
            for test in baseline.failing:
                console.print(f"[red]fails without a change, and is left out:[/red] {test}")
            total = sum(baseline.seconds.values())
            console.print(f"{len(baseline.seconds):,} tests in {total:.0f} s")
            pending = [mutant for mutant in chosen if mutant not in results]
            progress.update(task, completed=len(results), description="mutants")
            return pending

        def report(mutant: Mutant, verdict: Verdict) -> None:
            results[mutant] = verdict
            if verdict.status != "crashed":
                store.keep(mutant, verdict)
            if status_of(mutant, verdict, sources) in ("survived", "crashed"):
                old, new = mutant.texts(sources[mutant.file])
                console.print(
                    f"{verdict.status} {mutant.file}:{mutant.line}\n  {old}\n  {new}", markup=False
                )
            progress.advance(task)

        for mutant in chosen:
            if (known := store.find(mutant)) is not None:
                results[mutant] = known
        if len(results) < len(chosen):
            kept, tests = store.baseline(), tests_digest()

            def has_changed() -> bool:
                return read_sources() != sources or tests_digest() != tests

            serve(Server(sources, jobs, kept, report, ready, has_changed), TESTS)
    ordered = [(mutant, results[mutant]) for mutant in chosen]
    if save:
        everything = [(m, results.get(m) or store.find(m)) for m in select(sources, "")]
        store.keep_only([mutant for mutant, _ in everything])
        judged = [(mutant, verdict) for mutant, verdict in everything if verdict is not None]
        not_run = Counter(mutant.file for mutant, verdict in everything if verdict is None)
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(document(judged, sources, not_run))
    _print(ordered, sources, as_json)
    if any(status_of(m, v, sources) in ("survived", "crashed") for m, v in ordered):
        raise typer.Exit(1)


def _print(
    results: Sequence[tuple[Mutant, Verdict]], sources: dict[str, str], as_json: bool
) -> None:
    if as_json:
        rows = [
            {
                "file": mutant.file,
                "line": mutant.line,
                "kind": mutant.kind,
                "change": mutant.texts(sources[mutant.file]),
                "status": status_of(mutant, verdict, sources),
                "killer": verdict.killer,
                "seconds": round(verdict.seconds, 2),
                "tests": verdict.tests,
            }
            for mutant, verdict in results
        ]
        typer.echo(json.dumps(rows))
        return
    counts: dict[str, Counter[str]] = {}
    for mutant, verdict in results:
        counts.setdefault(mutant.file, Counter())[status_of(mutant, verdict, sources)] += 1
    statuses = ("killed", "survived", "equivalent", "same code", "invalid", "crashed")
    table = Table("file", title="Mutants", title_justify="left")
    for status in statuses:
        table.add_column(status, justify="right")
    for file, count in counts.items():
        table.add_row(file, *(str(count[status]) for status in statuses))
    total = sum(counts.values(), Counter[str]())
    table.add_row("all", *(str(total[status]) for status in statuses), style="bold")
    Console().print(table)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
