"""What a person sees while the settlement runs, and the tables at its end. All of it on stderr."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from settlement.amounts import format_usdc
from settlement.types import Address, Bytes32, Frozen, Usdc, to_hex

STEPS = (
    "local chain",
    "contracts",
    "oracles and hub",
    "hospital's node attested",
    "job quoted and routed",
    "budget escrowed with one signature",
    "training, settled by receipts",
    "weights delivered",
    "everybody paid",
)


class View(AbstractContextManager["View"]):
    """A list of steps that fills in. On a terminal it is drawn live, elsewhere a line per step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done: list[tuple[str, str, float]] = []
        self._current: str | None = None
        self._since = self._begun = time.monotonic()
        self._bars = Progress(
            TextColumn("    {task.description:<9}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[label]}"),
        )
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def begin(self, step: str) -> None:
        """Start a step; `step` is one of `STEPS`."""
        self._current, self._since = step, time.monotonic()

    def done(self, detail: str = "") -> None:
        """The current step is over."""
        assert self._current is not None
        seconds = time.monotonic() - self._since
        self._done.append((self._current, detail, seconds))
        if not self._console.is_terminal:
            line = f"{self._current}: {detail} ({seconds:.1f} s)"
            self._console.print(line, highlight=False, soft_wrap=True)
        self._current = None

    def bars(self, totals: dict[str, int]) -> None:
        """Show a bar per quantity, each up to its total."""
        for name, total in totals.items():
            self._bars.add_task(name, total=total, label="")

    def advance(self, values: dict[str, tuple[int, str]]) -> None:
        """Move the bars: quantity -> (value, label)."""
        for task in self._bars.tasks:
            if task.description in values:
                value, label = values[task.description]
                self._bars.update(task.id, completed=value, label=label)

    def _render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        for step, detail, seconds in self._done:
            took = Text(f"{seconds:5.1f} s", style="dim")
            grid.add_row(Text("✓", style="green"), step, took, Text(detail, style="dim"))
        if self._current is not None:
            took = Text(f"{time.monotonic() - self._since:5.1f} s", style="dim")
            grid.add_row(Text("▸", style="yellow"), Text(self._current, style="bold"), took, "")
        begun = {step for step, _, _ in self._done} | {self._current}
        for step in STEPS:
            if step not in begun:
                grid.add_row(" ", Text(step, style="dim"), "", "")
        return Group(grid, self._bars) if self._bars.tasks else grid


class Payout(Frozen):
    """What one party got out of the vault; `amount` in USDC base units."""

    who: str
    purpose: str
    wallet: Address
    amount: Usdc
    transaction: Bytes32


class ChainEvent(Frozen):
    """Something that happened on chain, in words; `gas` is its whole transaction's."""

    block: int
    what: str
    detail: str
    gas: int
    transaction: Bytes32


def payout_table(payouts: Sequence[Payout]) -> Table:
    """Who was paid."""
    table = Table(title="Who was paid what, for which records", title_justify="left")
    for heading in ("who", "for", "wallet"):
        table.add_column(heading, overflow="fold")
    table.add_column("USDC", justify="right")
    table.add_column("transaction")
    for paid in payouts:
        amount, transaction = format_usdc(paid.amount), short(to_hex(paid.transaction))
        table.add_row(paid.who, paid.purpose, short(paid.wallet), amount, transaction)
    return table


def event_table(events: Sequence[ChainEvent]) -> Table:
    """What happened on chain."""
    table = Table(title="Transactions", title_justify="left")
    table.add_column("block", justify="right")
    table.add_column("what")
    table.add_column("detail", overflow="fold")
    table.add_column("gas", justify="right")
    table.add_column("transaction")
    for event in events:
        transaction = short(to_hex(event.transaction))
        table.add_row(str(event.block), event.what, event.detail, f"{event.gas:,}", transaction)
    return table


def short(value: str) -> str:
    """The ends of an address or hash."""
    return f"{value[:8]}…{value[-6:]}"
