"""Pictures of a settlement. Needs the `plot` extra (matplotlib)."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import Field

from settlement.amounts import UNIT, format_usdc
from settlement.types import Bytes32, Frozen, Usdc


class Payment(Frozen):
    """One settlement on chain: `amount` in USDC base units, `time` in Unix seconds."""

    time: int
    records: int
    epochs: int
    amount: Usdc
    transaction: Bytes32


class Waterfall(Frozen):
    """Where a job's budget went, in USDC base units. `shares` sum to what was earned."""

    job_id: Bytes32
    budget: Usdc
    payments: tuple[Payment, ...]
    shares: Mapping[str, Usdc]
    refunded: Usdc = Field(ge=0)


def draw_settlement(waterfall: Waterfall, path: Path) -> None:
    """Write a PNG: left, what was paid as the receipts landed; right, who got the budget."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    figure.suptitle(f"Settlement of job 0x{waterfall.job_id.hex()[:16]}…", fontsize=12)

    start = waterfall.payments[0].time if waterfall.payments else 0
    times = [payment.time - start for payment in waterfall.payments]
    paid = [so_far / UNIT for so_far in accumulate(p.amount for p in waterfall.payments)]
    left.step(times, paid, where="post", color="#1b6e53")
    left.scatter(times, paid, color="#1b6e53", zorder=3)
    left.axhline(waterfall.budget / UNIT, color="#999999", linestyle="--", linewidth=1)
    left.text(0, waterfall.budget / UNIT, " budget", va="bottom", color="#666666", fontsize=9)
    for index, (point, payment) in enumerate(
        zip(zip(times, paid, strict=True), waterfall.payments, strict=True)
    ):
        left.annotate(
            f"{payment.records} rec, {payment.epochs} ep",
            point,
            textcoords="offset points",
            # the first label would cross the axis on the side of the others
            xytext=(0, 5) if index == 0 else (-6, 3),
            ha="left" if index == 0 else "right",
            fontsize=7,
            color="#444444",
        )
    left.margins(x=0.12)
    left.set_xlabel("seconds since the first settlement (block time)")
    left.set_ylabel("USDC paid to the node")
    left.set_ylim(bottom=0, top=waterfall.budget / UNIT * 1.12)
    left.set_title("Paid as the receipts landed", fontsize=10)

    _draw_bars(
        right,
        [*waterfall.shares.items(), ("returned to payer", waterfall.refunded)],
        waterfall.budget,
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _draw_bars(axes: Any, parts: Sequence[tuple[str, int]], budget: int) -> None:
    rest = budget
    names = ["budget", *(name for name, _ in parts)]
    axes.bar(0, budget / UNIT, color="#4a5a78")
    axes.text(0, budget / UNIT, format_usdc(budget), ha="center", va="bottom", fontsize=8)
    for index, (name, amount) in enumerate(parts, start=1):
        rest -= amount
        color = "#c0803a" if name.startswith("returned") else "#1b6e53"
        axes.bar(index, amount / UNIT, bottom=rest / UNIT, color=color)
        axes.text(
            index, (rest + amount) / UNIT, format_usdc(amount), ha="center", va="bottom", fontsize=8
        )
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=8)
    axes.set_ylabel("USDC")
    axes.set_title("Where the budget went", fontsize=10)
