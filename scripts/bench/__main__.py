"""`python -m scripts.bench`: measure, print, and keep."""

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from scripts.bench.committee import committee_table, measure_committees, save_committees
from scripts.bench.gas import measure_gas
from scripts.bench.hub import measure_hub
from scripts.bench.loader import loader_table, measure_loader, save_loader
from scripts.bench.oracle import machine, measure_oracle, oracle_tables, save_oracle
from scripts.bench.report import (
    DOCUMENT,
    FIGURES,
    PICTURE,
    document,
    draw,
    terminal_tables,
)
from scripts.bench.scaling import measure_scaling
from scripts.bench.speed import measure_speed


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    save: Annotated[bool, typer.Option(help="Write tests/bench/ and docs/gas.*")] = True,
    scaling: Annotated[
        bool, typer.Option(help="Fill chains with up to 10,000 jobs and nodes; else keep what was.")
    ] = True,
) -> None:
    """Measure gas and speed, print them, and keep them."""
    begun = time.monotonic()
    progress = Console(stderr=True, highlight=False)

    def report(what: str) -> None:
        progress.print(f"{time.monotonic() - begun:6.1f} s  {what}")

    gas: dict[str, Any] = measure_gas(report)
    gas["scaling"] = measure_scaling(report) if scaling else _kept()["scaling"]
    committees = measure_committees(report)
    speed = {name: round(found) for name, found in measure_speed().items()}
    report("speed off chain")
    oracle = measure_oracle(report)
    loader = measure_loader()
    report("the metered loader")
    hub = measure_hub(report)
    if save:
        (FIGURES / "gas.json").write_text(json.dumps(gas, indent=2) + "\n")
        kept = {"machine": machine(), "per_second": speed, "hub": hub}
        (FIGURES / "speed.json").write_text(json.dumps(kept, indent=2) + "\n")
        DOCUMENT.write_text(document(gas))
        draw(gas, PICTURE)
        save_committees(committees)
        save_loader(loader, machine())
        save_oracle(oracle)
    report("done")
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "gas": gas,
                    "committees": committees,
                    "per_second": speed,
                    "oracle": oracle,
                    "loader": loader,
                    "hub": hub,
                }
            )
        )
        return
    console = Console()
    for table in terminal_tables(gas):
        console.print(table)
    console.print(committee_table(committees))
    table = Table("operation", title=f"Speed, one core ({machine()})", title_justify="left")
    table.add_column("per second", justify="right")
    for name, per_second in speed.items():
        table.add_row(name, f"{per_second:,}")
    console.print(table)
    console.print(loader_table(loader))
    for table in oracle_tables(oracle):
        console.print(table)
    title = f"Hub: {hub['jobs']:,} queued jobs, {hub['nodes']} nodes that ask"
    table = Table("hub", title=title, title_justify="left")
    for kind in ("sqlite", "postgresql"):
        table.add_column(kind, justify="right")
    for name in hub["sqlite"]:
        row = [hub.get(kind, {}).get(name) for kind in ("sqlite", "postgresql")]
        table.add_row(name, *("-" if found is None else f"{found:,.1f}" for found in row))
    console.print(table)


def _kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIGURES / "gas.json").read_text())
    return found


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
