"""What one oracle does: receipts taken in, settled, and left in the database.

The figures are kept in `tests/bench/oracle.json`.
`python -m scripts.bench.oracle` measures it alone: on a machine that does nothing else, because the
chain, the oracle and who asks it share the cores.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from scripts.bench.intake import measure_intake
from scripts.bench.relay import measure_relay
from scripts.bench.report import FIGURES
from scripts.bench.storage import measure_storage

FILE = FIGURES / "oracle.json"
PARTS: Mapping[str, Callable[[Callable[[str], None]], dict[str, Any]]] = {
    "intake": measure_intake,
    "relay": measure_relay,
    "storage": measure_storage,
}


def machine() -> str:
    """What these figures were measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def measure_oracle(report: Callable[[str], None]) -> dict[str, Any]:
    """All figures, by part."""
    return {name: measure(report) for name, measure in PARTS.items()}


def save_oracle(figures: Mapping[str, Any]) -> None:
    """Keep the figures of some parts, with the machine that they are from, beside the others."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept |= {name: {"machine": machine(), **found} for name, found in figures.items()}
    FILE.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n")


def oracle_tables(figures: Mapping[str, Any]) -> list[Table]:
    """The tables as a terminal shows them."""
    intake = Table("intake", title="Receipts a second, durable", title_justify="left")
    for kind in ("sqlite", "postgresql"):
        intake.add_column(kind, justify="right")
    for name in figures["intake"]["sqlite"]:
        row = [figures["intake"].get(kind, {}).get(name) for kind in ("sqlite", "postgresql")]
        intake.add_row(name, *("-" if found is None else f"{found:,.0f}" for found in row))
    relay = Table("from accepted to paid", title="Relaying", title_justify="left")
    for unit in ("blocks", "seconds"):
        relay.add_column(unit, justify="right")
    for name, found in figures["relay"]["blocks"].items():
        relay.add_row(name, str(found), str(figures["relay"]["seconds"][name]))
    storage = Table("SQLite", title="Database", title_justify="left")
    storage.add_column("bytes", justify="right")
    for name, found in figures["storage"].items():
        storage.add_row(name.removeprefix("bytes "), f"{found:,}")
    return [intake, relay, storage]


def main(
    parts: Annotated[list[str] | None, typer.Argument(help="intake, relay, storage: all.")] = None,
    save: Annotated[bool, typer.Option(help="Write tests/bench/oracle.json.")] = True,
) -> None:
    """Measure the oracle's parts, print the figures as JSON, and keep them."""
    unknown = sorted(set(parts or ()) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(PARTS)}")
    for name in parts or PARTS:
        found = PARTS[name](lambda what: typer.echo(what, err=True))
        if save:
            save_oracle({name: found})
        typer.echo(json.dumps({name: found}, indent=2))


if __name__ == "__main__":
    typer.run(main)
