"""What a command answers: the same to a person as to a program."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from settlement.amounts import format_usdc

PIPED = 240
"""Columns where there is no terminal to say how many it has."""


@dataclass(frozen=True)
class Answer:
    """`data` as JSON has it: amounts in USDC base units, bytes in hex, times in Unix seconds.

    `rows` are what a person reads, label and text. `holds` is false for an answer that is a no,
    which the exit code 1 tells too.
    """

    data: Mapping[str, Any]
    rows: tuple[tuple[str, str], ...] = field(default=())
    holds: bool = True

    def tell(self, *, as_json: bool) -> None:
        """Print it, and end the process with 1 where it is a no."""
        if as_json:
            typer.echo(json.dumps(self.data))
        else:
            console = Console(highlight=False)
            if not console.is_terminal:
                console.width = PIPED
            table = Table.grid(padding=(0, 2))
            for label, text in self.rows:
                table.add_row(Text(label, style="bold"), Text(text))
            console.print(table)
        if not self.holds:
            raise typer.Exit(1)


def usdc(amount: int) -> str:
    """An amount for a person."""
    return f"{format_usdc(amount)} USDC"


def plain(amount: int) -> str:
    """An amount as the commands take it back."""
    return format_usdc(amount).replace(",", "")


def moment(time: int) -> str:
    """A time for a person; programs get Unix seconds."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
