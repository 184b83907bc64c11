"""The figures as a person reads them: on a terminal, and as `docs/gas.md` with its picture."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from scripts.bench.gas import (
    ENDING,
    HEADLINES,
    NODES_AND_ENCLAVES,
    PAYING_IN,
    PAYING_OUT,
    SETTLING,
    SETTLING_AT_ONCE,
    SIZES,
    TOGETHER,
    TOKEN,
)
from scripts.bench.trace import CATEGORIES
from scripts.chain import ROOT
from settlement.picture import BLUE, INK, ORANGE, canvas

FIGURES = ROOT / "tests" / "bench"
DOCUMENT = ROOT / "docs" / "gas.md"
PICTURE = ROOT / "docs" / "gas.svg"

Gas = Mapping[str, Any]
"""What `gas.json` holds."""

ONE_NODE, DISTINCT = "settle {size} of one node", "settle {size} of {size} nodes"
TARGETS = {
    (TOGETHER, "open, settle a receipt"): 150_000,
    (TOGETHER, "open, settle to the end, nothing left"): 150_000,
    (TOGETHER, "open, settle to the end, with a refund"): 150_000,
    (PAYING_IN, "open by EIP-3009, relayed"): 130_000,
    (PAYING_IN, "open 50 from a balance, by signature"): 32_000,
    (SETTLING, "settle 100 of one node"): 18_000,
    (SETTLING, "settle 100 of one node, first in a new window"): 18_000,
    (SETTLING, "settle 100 of 100 nodes"): 26_000,
    (SETTLING_AT_ONCE, "settle 100 of one node"): 18_000,
    (SETTLING_AT_ONCE, "settle 100 of 100 nodes"): 26_000,
    (NODES_AND_ENCLAVES, "register a platform"): 180_000,
    (NODES_AND_ENCLAVES, "register an enclave by SGX quote"): 110_000,
    (NODES_AND_ENCLAVES, "register an enclave by TDX quote"): 110_000,
}
"""Most gas that an operation, or one item of a batch, is meant to use."""

# Measured on one anvil 1.7.1 chain with Circle's own USDC, warm, each system with its own compiler
# settings; floors are stripped Vyper contracts of the same storage.
_FLOORS_ONE_NODE = {1: 43_433, 10: 19_868, 50: 16_453, 100: 16_029}
_FLOORS_DISTINCT = {10: 24_186, 50: 21_157, 100: 20_776}
FLOORS: dict[tuple[str, str], str] = {
    (PAYING_IN, "open by allowance"): "78,762",
    (PAYING_IN, "open by EIP-3009, relayed"): "113,207",
    (PAYING_IN, "open 1 from a balance, by signature"): "51,742",
    (PAYING_IN, "open 10 from a balance, by signature"): "31,193",
    (PAYING_IN, "open 50 from a balance, by signature"): "26,686",
    (SETTLING, "settle one"): "43,433",
    (SETTLING_AT_ONCE, "settle one"): "43,433",
    **{
        (group, name.format(size=size)): f"{floor:,}"
        for group in (SETTLING, SETTLING_AT_ONCE)
        for name, floors in ((ONE_NODE, _FLOORS_ONE_NODE), (DISTINCT, _FLOORS_DISTINCT))
        for size, floor in floors.items()
        if size in SIZES
    },
    (TOGETHER, "open, settle a receipt"): f"{78_762 + 43_433:,}",
    (ENDING, "refund after deadline and grace"): "48,407 (refund push)",
    (PAYING_OUT, "withdraw"): "52,615",
}
CIRCLE = {
    "transfer": 45_071,
    "transferFrom": 53_292,
    "permit, no allowance before": 76_682,
    "receiveWithAuthorization": 86_083,
}
"""Circle's own USDC, called alone."""
PEERS = {
    (PAYING_IN, "open by allowance"): (
        "150,497 Rapha's public Solidity vault; 183,292 Ocean Escrow; 436,993 iExec PoCo Boost; "
        "805,757 + 222,317 iExec PoCo classic; 179,348 Sablier Flow; 250,539 ApePay"
    ),
    (SETTLING, "settle one"): (
        "172,268 Rapha's public Solidity vault; 114,617 Ocean Escrow; 164,836 iExec PoCo Boost; "
        "498,607 iExec PoCo classic; 119,106 Sablier Flow; 62–67k ApePay"
    ),
    (TOGETHER, "open, settle a receipt"): (
        "322.8k Rapha's public Solidity vault; 297.9k Ocean Escrow; 601.8k iExec PoCo Boost; "
        "1,526.7k iExec PoCo classic; 298.5k Sablier Flow; ~315k ApePay"
    ),
    **{
        (NODES_AND_ENCLAVES, f"register an enclave by {tee} quote"): (
            "Automata DCAP: about 4M with the P-256 precompile, 5M without, 493k-569k by ZK proof"
        )
        for tee in ("SGX", "TDX")
    },
    **{(TOKEN, name): f"{gas:,} Circle's USDC" for name, gas in CIRCLE.items()},
}
COLUMNS = (
    "operation",
    "gas",
    "target",
    "floor",
    "cold reads",
    "gas at 5,460 a cold read",
    "peers",
)


@dataclass(frozen=True)
class Row:
    """One line of the table; of a batch, everything is for one of its items."""

    operation: str
    gas: str
    target: str
    floor: str
    cold_reads: str
    repriced: str
    peers: str

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `COLUMNS`."""
        return (
            self.operation,
            self.gas,
            self.target,
            self.floor,
            self.cold_reads,
            self.repriced,
            self.peers,
        )


def rows(gas: Gas, group: str) -> Iterator[Row]:
    """A group's lines."""
    for name, figure in gas["operations"][group].items():
        items, key = figure["items"], (group, name)
        yield Row(
            operation=name if items == 1 else f"{name}: each",
            gas=f"{_each(figure['gas'], items):,}",
            target=_target(TARGETS[key], figure["gas"], items) if key in TARGETS else "",
            floor=FLOORS.get(key, ""),
            cold_reads=f"{figure['cold_reads'] / items:.2f}".removesuffix(".00"),
            repriced=f"{_each(figure['repriced'], items):,}",
            peers=PEERS.get(key, ""),
        )


def missed(gas: Gas) -> list[tuple[str, str]]:
    """The operations that use more gas than they are meant to."""
    operations = gas["operations"]
    return [
        (group, name)
        for (group, name), target in TARGETS.items()
        if operations[group][name]["gas"] > target * operations[group][name]["items"]
    ]


def terminal_tables(gas: Gas) -> Iterator[Table]:
    """A table for each group with its peers below, one for the accounts, two for the scaling."""
    for group in gas["operations"]:
        found = list(rows(gas, group))
        peers = [f"{row.operation}: {row.peers}" for row in found if row.peers]
        table = Table(title=group, title_justify="left", caption="\n".join(peers) or None)
        table.caption_justify = "left"
        for column in COLUMNS[:-1]:
            table.add_column(column, justify="left" if column == "operation" else "right")
        for row in found:
            table.add_row(*row.cells[:-1])
        yield table
    header, *lines = _account_lines(gas)
    table = Table(*header, title="Where the gas goes", title_justify="left")
    for line in lines:
        table.add_row(*line)
    yield table
    for what, operations in gas["scaling"].items():
        header, *lines = _scaling_lines(operations)
        table = Table(*header, title=f"Gas by the number of {what}", title_justify="left")
        for line in lines:
            table.add_row(*line)
        yield table


def draw(gas: Gas, path: Path) -> None:
    """The picture: gas for each receipt by the size of the batch, against the floors."""
    with canvas(path) as (_, (axes,)):
        _draw_batches(axes, gas)


def _draw_batches(axes: Any, gas: Gas) -> None:
    settling = gas["operations"][SETTLING]
    one = {1: "settle one"} | {size: ONE_NODE.format(size=size) for size in SIZES}
    distinct = {size: DISTINCT.format(size=size) for size in SIZES}
    sizes, width = list(one), 0.38
    floor_label = "floor: no roles, pause, dispute or lock"
    for names, floors, label, colour, shift in (
        (one, _FLOORS_ONE_NODE, "of one node", BLUE, -width / 2),
        (distinct, _FLOORS_DISTINCT, "of a distinct node each", ORANGE, width / 2),
    ):
        # a single receipt has no distinct nodes: its bar stands in the middle
        places = [sizes.index(size) + (shift if size > 1 else 0) for size in names]
        each = [_each(settling[name]["gas"], size) for size, name in names.items()]
        bars = axes.bar(places, each, width, color=colour, label=label)
        axes.bar_label(bars, [f"{value:,}" for value in each], padding=2, fontsize=9)
        axes.hlines(
            [floors[size] for size in names],
            [place - width / 2 for place in places],
            [place + width / 2 for place in places],
            colors=INK,
            linestyles="dashed",
            label=floor_label,
        )
        floor_label = "_"  # once is enough
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("receipts in one transaction")
    axes.set_ylabel("gas for each receipt")
    axes.set_title("Settling, challenge window of 7,200 s, warm")
    axes.legend()


def document(gas: Gas) -> str:
    """`docs/gas.md`."""
    operations = gas["operations"]
    parts = [
        "# Gas",
        _prose(
            """
            Written by `make bench` from `tests/bench/gas.json`, which `tests/bench` compares with
            new measurements, to the unit.
            """
        ),
        "![gas for each receipt by the size of the batch](gas.svg)",
        "## How it is measured",
        _prose(*_METHOD),
        "## Every operation",
        _prose(*_TABLE_NOTE),
    ]
    for group in operations:
        parts += [f"### {group}", _markdown([COLUMNS, *(row.cells for row in rows(gas, group))])]
    parts += [_verdict(gas), "## Where the gas goes", _prose(_ACCOUNT_NOTE)]
    parts += [_markdown(list(_account_lines(gas))), _completing(gas)]
    parts += ["## What happened before does not matter", _prose(_SCALING_NOTE)]
    for what, found in gas["scaling"].items():
        parts += [f"By the number of {what}:", _markdown(list(_scaling_lines(found)))]
    parts += ["## What could still be cut, and what it would give up", _guarantees(gas)]
    return "\n\n".join(parts) + "\n"


_METHOD = (
    """
    On anvil with the Osaka rules, one transaction a block, from a fixed genesis with fixed keys,
    salts and addresses. The bytecode is that of `settlement/artifacts`. The token is the test USDC
    behind its proxy, which reads its pause, its blacklist, its admin and its implementation as
    Circle's FiatToken v2.2 does. "Warm" means that the slots involved already hold a value: node
    and payees have earned before, accounts hold USDC. A new job's slot is new all the same.
    """,
    """
    Figures are the receipt's `gasUsed`. Every trace (`debug_traceTransaction`) is added up
    instruction by instruction and must give the same number, or the bench stops.
    """,
)

_TABLE_NOTE = (
    """
    Of a batch, everything is for one item, rounded up. `cold reads` counts the storage slots that a
    transaction touches first by reading them, the token's included. Polygon charges 5,460 gas for
    one since PIP-88 (Ethereum 2,100) and 2,940 for the cold part of a write (2,100), and gives back
    3,960 for a cleared slot (4,800); a write to a slot in use stays at 5,000 in all, so it costs
    2,060 and not 2,900 once the slot has been read. The column `gas at 5,460 a cold read` is each
    transaction's trace at those prices. Targets, floors and peers are at Ethereum's.
    """,
    """
    Floors are stripped Vyper contracts of the same storage, without roles, pause, dispute or lock;
    peers are other systems with their own compiler settings. Both were measured on anvil with
    Circle's own USDC. For openings in a batch the floor takes one `transferFrom` for all and checks
    no signature; ours takes the payer's balance, by one signature.
    """,
)

_ACCOUNT_NOTE = """
    By instruction, from the trace, to the unit. A call is charged to who is called, with the first
    touch of its address; everything else is the vault's own. The cold part of a write is in storage
    writes, and `hashing` is the instruction alone, also for the keys of maps.
    """

_SCALING_NOTE = """
    Each column is a new chain with the same keys and salts, filled to that number before, so that
    the measured calls are the same to the byte. Every row is one number all along: nothing loops
    over jobs, receipts or nodes. Payees are paid for the first time here, so that distributing and
    withdrawing cost more than in the tables above.
    """


def _each(total: int, items: int) -> int:
    return -(-total // items)


def _target(target: int, used: int, items: int) -> str:
    held = used <= target * items
    return f"≤ {target:,}" if held else f"≤ {target:,}, over by {_each(used, items) - target:,}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    header, *body = lines
    kinds = ["---" if title in ("operation", "peers", "") else "---:" for title in header]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, kinds, *body))


def _account_lines(gas: Gas) -> Iterator[Sequence[str]]:
    accounts = [gas["accounts"][group][name] for group, name in HEADLINES]
    items = [gas["operations"][group][name]["items"] for group, name in HEADLINES]
    yield ["", *(name for _, name in HEADLINES)]
    for category in CATEGORIES:
        if any(category in account for account in accounts):
            yield [category, *(f"{account.get(category, 0):,}" for account in accounts)]
    totals = [sum(account.values()) for account in accounts]
    yield ["gas used", *(f"{total:,}" for total in totals)]
    yield [
        "for each job or receipt",
        *(f"{_each(*pair):,}" for pair in zip(totals, items, strict=True)),
    ]


def _scaling_lines(operations: Mapping[str, Mapping[str, int]]) -> Iterator[Sequence[str]]:
    levels = list(next(iter(operations.values())))
    yield ["", *(f"{int(level):,}" for level in levels)]
    for name, found in operations.items():
        cells = (f"{found[level]:,}" if level in found else "–" for level in levels)
        yield [name, *cells]


def _prose(*paragraphs: str) -> str:
    return "\n\n".join(_filled(paragraph) for paragraph in paragraphs)


def _filled(text: str, first: str = "", others: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()),
        100,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict(gas: Gas) -> str:
    over = missed(gas)
    operations = gas["operations"]
    dearer = {name: circle - operations[TOKEN][name]["gas"] for name, circle in CIRCLE.items()}
    pulled, authorized = dearer["transferFrom"], dearer["receiveWithAuthorization"]
    together = operations[TOGETHER]["open, settle a receipt"]["gas"]
    relayed = operations[PAYING_IN]["open by EIP-3009, relayed"]["gas"]
    return _prose(
        f"""
        {len(TARGETS) - len(over)} of {len(TARGETS)} targets are held. Over are:
        {"; ".join(f"{name} ({group})" for group, name in over)}.
        """,
        f"""
        The test USDC is cheaper than Circle's: alone, a `transfer` by {dearer["transfer"]:,} gas, a
        `transferFrom` by {pulled:,} and a `receiveWithAuthorization` by {authorized:,} (see the
        last table). Circle's is compiled from Solidity, and asks of whoever calls whether it is
        blacklisted. With these differences added, opening and settling a receipt comes to
        {together + pulled:,} and opening by EIP-3009 to {relayed + authorized:,}: compare those
        with floors and peers. Settling moves no USDC.
        """,
    )


def _completing(gas: Gas) -> str:
    settling, together = gas["operations"][SETTLING], gas["operations"][TOGETHER]
    first, nothing, refunding = (
        settling[f"settle one, {name}"]["gas"]
        for name in (
            "the job's first",
            "first and completing, nothing left",
            "first and completing, with a refund",
        )
    )
    whole, whole_nothing, whole_refunding = (
        together[f"open, settle {name}"]["gas"]
        for name in ("a receipt", "to the end, nothing left", "to the end, with a refund")
    )
    return _prose(
        f"""
        A receipt that also completes its job costs {nothing - first:,} gas more than one that does
        not, for the output's digest and the closing event, and {refunding - nothing:,} more again
        when something is left, for the credit to who funded the job: one more slot, read and
        written. So opening a job and settling a receipt of it is {whole:,}, and {whole_nothing:,}
        or {whole_refunding:,} when that receipt closes the job.
        """
    )


def _guarantees(gas: Gas) -> str:
    settling, at_once = gas["operations"][SETTLING], gas["operations"][SETTLING_AT_ONCE]
    opened = gas["accounts"][PAYING_IN]["open by allowance"]
    one = gas["accounts"][SETTLING]["settle one"]
    many = gas["accounts"][SETTLING]["settle 100 of one node"]
    warm = settling["settle one"]["gas"]
    window = warm - at_once["settle one"]["gas"]
    rolled = settling["settle one, first in a new window"]["gas"] - warm
    rolled_batch = _each(
        settling["settle 100 of one node, first in a new window"]["gas"]
        - settling["settle 100 of one node"]["gas"],
        100,
    )
    points = (
        f"""
        **The balance check after a transfer**: {opened["USDC, balance checked"]:,} gas an opening
        by allowance. It refuses a token that keeps a part of what it moves, so that the ledger
        never owes more than the vault holds.
        """,
        f"""
        **The challenge window**: {window:,} gas a receipt; {rolled:,} more for one that is the
        first of its job and node in a new window, {rolled_batch:,} more each for 100 such receipts
        of one node. It is the time in which a payer can dispute what an enclave signed.
        """,
        f"""
        **The enclave check**: {one["enclave registry"]:,} gas for a run of receipts by one enclave.
        A revoked key or measurement stops counting at once, because each transaction asks again.
        """,
        """
        **The node check**: one cold read, 2,100 gas, an opening. A suspended node takes no new job;
        the registry tells the vault, so that no opening has to ask it.
        """,
        f"""
        **The events**: {opened["logs"]:,} gas an opening, {one["logs"]:,} a receipt. The whole
        terms and every counter are on chain, so that anybody can follow a job from the chain alone.
        """,
        """
        **The pause**: one cold read, 2,100 gas, a settling transaction. When a job opens, it shares
        its slot with what is owed.
        """,
        f"""
        **The reentrancy lock**: {one["reentrancy lock"]:,} gas a transaction, in transient storage.
        """,
        f"""
        **A signature for each receipt**: {many["ecrecover"] // 100:,} gas to recover, and 64 bytes
        of calldata, about 1,024. With one for a whole batch, a receipt would count only in the
        batch that its enclave put it in, and one lost receipt would hold up the others.
        """,
    )
    return "\n".join(_filled(point, "- ", "  ") for point in points)
