"""Pictures of accounts. Needs the `plot` extra (matplotlib).

They have no background and draw in colours that a light and a dark page both carry; the file's
ending says what it is (.svg, .png, .pdf). The same numbers give the same bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from settlement.accounts import JobAccount, NodeAccount, running
from settlement.amounts import UNIT, format_usdc
from settlement.errors import InvalidInput

INK = "#828892"
GREEN = "#1f8a68"
BLUE = "#5b7fb5"
ORANGE = "#c98236"
RED = "#c2544f"
_RULES = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "font.size": 9,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "rapha",
}
_SUFFIXES = (".svg", ".png", ".pdf")


class PlotMissing(InvalidInput):
    """A picture was asked for where matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__("pictures need matplotlib: pip install 'rapha-settlement[plot]'")


@contextmanager
def canvas(path: Path, columns: int = 1) -> Iterator[tuple[Any, Sequence[Any]]]:
    """A figure with its axes beside each other; it is written to `path` at the end.

    Raises:
        PlotMissing: when matplotlib is not installed.
        InvalidInput: when the file's ending is of no picture.
    """
    if path.suffix not in _SUFFIXES:
        raise InvalidInput(f"{path.name} is no picture's name: end it in {', '.join(_SUFFIXES)}")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotMissing from error
    with rc_context(_RULES):
        figure = Figure(figsize=(5.5 * columns if columns > 1 else 8, 4.5), layout="constrained")
        yield figure, figure.subplots(1, columns, squeeze=False)[0]
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        figure.savefig(path, dpi=150, metadata=undated.get(path.suffix, {"Software": None}))


def draw_settlement(account: JobAccount, path: Path) -> None:
    """Left, what was paid as the receipts landed; right, who got the budget."""
    with canvas(path, columns=2) as (figure, (left, right)):
        figure.suptitle(f"Settlement of job 0x{account.job_id.hex()[:16]}…", fontsize=12)
        _draw_payments(left, account)
        _draw_waterfall(right, account)


def draw_earnings(account: NodeAccount, path: Path) -> None:
    """What a node had earned at each time, and how much of it was shared out or returned."""
    with canvas(path) as (_, (axes,)):
        end = max([p.time for p in account.payments] + [s.time for s in account.splits], default=0)
        for label, color, steps in (
            ("earned", GREEN, [(p.time, p.amount) for p in account.payments]),
            ("shared out", BLUE, [(s.time, s.total) for s in account.splits]),
            ("returned by an arbiter", RED, list(account.returned)),
        ):
            if not steps:
                continue
            times, amounts = running(steps)
            moments = (times[0], *times, max(end, times[-1]))
            when = [datetime.fromtimestamp(moment, UTC) for moment in moments]
            sums = [amount / UNIT for amount in (0, *amounts, amounts[-1])]
            label = f"{label}: {format_usdc(amounts[-1])}"
            axes.step(when, sums, where="post", color=color, label=label)
            axes.plot(when[1:-1], sums[1:-1], "o", color=color, markersize=3.5)
        waiting = f"{format_usdc(account.waiting)} USDC not shared out"
        axes.set_title(f"Earnings of node {account.node_id}: {waiting}")
        axes.set_ylabel("USDC")
        axes.set_xlabel("time (UTC)")
        axes.set_ylim(bottom=0)
        axes.tick_params(axis="x", rotation=20)
        if account.payments:
            axes.legend(loc="upper left")


def _draw_payments(axes: Any, account: JobAccount) -> None:
    payments = account.payments
    start = payments[0].time if payments else 0
    times, sums = running([(payment.time - start, payment.amount) for payment in payments])
    paid = [amount / UNIT for amount in sums]
    axes.step(times, paid, where="post", color=GREEN)
    axes.scatter(times, paid, color=GREEN, zorder=3)
    axes.axhline(account.funded / UNIT, color=INK, linestyle="--", linewidth=1)
    axes.text(0, account.funded / UNIT, " budget", va="bottom")
    labelled = payments if len(payments) <= 12 else (payments[0], payments[-1])
    for payment in labelled:
        index = payments.index(payment)
        axes.annotate(
            f"{payment.records} rec, {payment.epochs} ep",
            (times[index], paid[index]),
            textcoords="offset points",
            # the first label would cross the axis on the side of the others
            xytext=(0, 5) if index == 0 else (-6, 3),
            ha="left" if index == 0 else "right",
            fontsize=7,
        )
    axes.margins(x=0.12)
    axes.set_xlabel("seconds since the first settlement (block time)")
    axes.set_ylabel("USDC paid to the node")
    axes.set_ylim(bottom=0, top=account.funded / UNIT * 1.12)
    axes.set_title("Paid as the receipts landed")


def _draw_waterfall(axes: Any, account: JobAccount) -> None:
    parts = [
        *((name, amount, GREEN) for name, amount in account.shares.items()),
        ("in dispute", account.disputed, RED),
        ("returned by arbiter", account.returned, ORANGE),
        ("returned to payer", account.refunded, ORANGE),
        ("still in escrow", account.escrowed, INK),
    ]
    shown = [("budget", account.funded, BLUE), *(part for part in parts if part[1])]
    rest = account.funded
    for index, (_, amount, color) in enumerate(shown):
        rest -= amount if index else 0
        bottom = rest / UNIT if index else 0
        axes.bar(index, amount / UNIT, bottom=bottom, color=color)
        top = bottom + amount / UNIT
        axes.text(index, top, format_usdc(amount), ha="center", va="bottom", fontsize=8)
        if 0 < index < len(shown) - 1:
            axes.hlines(bottom, index + 0.4, index + 0.6, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(shown)), [name for name, _, _ in shown], rotation=20, ha="right")
    axes.set_ylim(bottom=0, top=account.funded / UNIT * 1.12)
    axes.set_ylabel("USDC")
    axes.set_title("Where the budget went")
