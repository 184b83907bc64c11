"""The list of revert reasons is closed: the contracts and `settlement.reverts` agree on it."""

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

from settlement.reverts import Revert

ROOT = Path(__file__).resolve().parents[3]
SNEKMATE = Path(str(distribution("snekmate").locate_file("snekmate")))
OURS = sorted([*(ROOT / "contracts").glob("*.vy"), *(ROOT / "contracts/modules").glob("*.vy")])
TESTS = Path(__file__).parent
OUR_PREFIXES = ("vault", "nodes", "enclaves", "dcap", "committee", "governance", "timelock")
BORROWED = (
    "ownable",
    "ownable_2step",
    "access_control",
    "timelock_controller",
    "erc721",
    "ecdsa",
)

# members that no test of a contract provokes, each with its reason
UNREACHED: dict[str, str] = {}


def statements(source: str) -> list[str]:
    """The `assert` and `raise` statements outside of docstrings, each joined to one line."""
    source = re.sub(r'"""[\s\S]*?"""', "", source)
    lines, found, depth = iter(source.splitlines()), [], 0
    for line in lines:
        stripped = line.strip()
        if not stripped.startswith(("assert ", "raise ")):
            continue
        statement, depth = stripped, stripped.count("(") - stripped.count(")")
        while depth > 0:
            more = next(lines).strip()
            statement, depth = statement + " " + more, depth + more.count("(") - more.count(")")
        found.append(statement)
    return found


def reason(statement: str) -> str | None:
    """The string with which a statement refuses: the last thing in it."""
    match = re.search(r'"((?:[^"\\]|\\.)*)"$', statement)
    return match.group(1) if match else None


def reasons(path: Path) -> set[str]:
    found = (reason(statement) for statement in statements(path.read_text()))
    return {text for text in found if text is not None}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_no_assert_is_bare(path: Path) -> None:
    assert [s for s in statements(path.read_text()) if reason(s) is None] == []


def test_contracts_and_table_have_the_same_reasons() -> None:
    written = set().union(*(reasons(path) for path in OURS))
    ours = {text for text in written if text.split(":")[0] not in BORROWED}
    listed = {member.value for member in Revert if member.value.split(":")[0] in OUR_PREFIXES}
    assert ours == listed


def test_borrowed_reasons_are_snekmates() -> None:
    snekmate = set().union(*(reasons(path) for path in SNEKMATE.rglob("*.vy")))
    listed = {m.value for m in Revert if m.value.split(":")[0] in BORROWED}
    assert listed <= snekmate
    repeated = set().union(*(reasons(path) for path in OURS))
    assert {text for text in repeated if text.split(":")[0] in BORROWED} <= listed


def test_usdc_reasons_are_the_test_tokens() -> None:
    token = reasons(ROOT / "contracts/testing/TestUSDC.vy")
    listed = {member.value for member in Revert if member.name.startswith("USDC_")}
    assert listed <= token


def test_every_member_belongs_to_one_of_the_sources() -> None:
    prefixes = (
        "VAULT",
        "NODES",
        "ENCLAVES",
        "DCAP",
        "COMMITTEE",
        "GOVERNANCE",
        "OWNABLE",
        "ACCESS",
        "ERC721",
        "ECDSA",
        "TIMELOCK",
        "USDC",
    )
    assert [m.name for m in Revert if not m.name.startswith(prefixes)] == []


def test_names_follow_from_our_reasons() -> None:
    for member in Revert:
        contract, text = member.value.split(": ", 1)
        if contract in OUR_PREFIXES:
            assert member.name == f"{contract} {text}".upper().replace(" ", "_")


def test_reasons_are_short_enough_for_every_explorer() -> None:
    assert [m.value for m in Revert if len(m.value) > 64 or not m.value.isascii()] == []


def test_every_member_is_provoked_by_a_test() -> None:
    text = "".join(
        path.read_text() for path in TESTS.glob("test_*.py") if path.name != Path(__file__).name
    )
    provoked = set(re.findall(r"Revert\.([A-Z0-9_]+)", text))
    missing = {member.name for member in Revert} - provoked
    assert missing == set(UNREACHED)
    assert provoked <= {member.name for member in Revert}
