"""The committed gas figures are those of the committed contracts."""

import json
import re
from typing import Any

import pytest

from oracle.clients.hub.quotes import ESCROW_GAS, SETTLE_GAS
from scripts.bench.gas import HEADLINES, PAYING_IN, SETTLING, TOGETHER, measure_gas
from scripts.bench.report import DOCUMENT, FIGURES, document, missed
from scripts.bench.scaling import measure_scaling
from scripts.chain import ROOT

pytestmark = pytest.mark.xdist_group("anvil")

MEANT = "if the change is meant: run `make bench` and commit"


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIGURES / "gas.json").read_text())
    return found


@pytest.mark.timeout(900)
def test_gas_is_what_the_snapshot_says(committed: dict[str, Any]) -> None:
    measured = measure_gas()
    assert measured["operations"] == committed["operations"], MEANT
    assert measured["accounts"] == committed["accounts"], MEANT


@pytest.mark.timeout(900)
@pytest.mark.long("fills a chain with 10,000 jobs and 1,000 nodes")
def test_gas_on_a_fuller_deployment_is_what_the_snapshot_says(committed: dict[str, Any]) -> None:
    measured = measure_scaling(jobs=(10_000,), nodes=(100, 1_000))
    for what, operations in measured.items():
        for name, levels in operations.items():
            kept = committed["scaling"][what][name]
            assert levels == {level: kept[level] for level in levels}, (what, name, MEANT)


def test_gas_does_not_grow_with_jobs_receipts_or_nodes(committed: dict[str, Any]) -> None:
    jobs = committed["scaling"]["earlier jobs and receipts"]
    nodes = committed["scaling"]["nodes"]
    assert list(jobs["settle one"]) == ["1", "100", "10000"]
    assert list(nodes["settle one"]) == ["1", "100", "1000", "10000"]
    for what, levels in [*jobs.items(), *nodes.items()]:
        assert len(set(levels.values())) == 1, what


def test_an_account_sums_to_the_gas_used(committed: dict[str, Any]) -> None:
    for group, name in HEADLINES:
        account = committed["accounts"][group][name]
        assert sum(account.values()) == committed["operations"][group][name]["gas"], name


def test_targets_are_missed_only_where_a_receipt_does_more_than_pay(
    committed: dict[str, Any],
) -> None:
    assert missed(committed) == [
        (TOGETHER, "open, settle to the end, nothing left"),
        (TOGETHER, "open, settle to the end, with a refund"),
        (SETTLING, "settle 100 of one node, first in a new window"),
    ]


def test_a_figure_over_its_target_is_missed(committed: dict[str, Any]) -> None:
    key = (PAYING_IN, "open by EIP-3009, relayed")
    figure = committed["operations"][key[0]][key[1]]
    for used, expected in ((130_000, False), (130_001, True)):
        changed = {**committed["operations"][key[0]], key[1]: {**figure, "gas": used}}
        gas = {**committed, "operations": {**committed["operations"], key[0]: changed}}
        assert (key in missed(gas)) is expected


def test_the_document_is_made_of_the_snapshot(committed: dict[str, Any]) -> None:
    assert DOCUMENT.read_text() == document(committed), MEANT


def test_quotes_and_readme_name_the_committed_figures(committed: dict[str, Any]) -> None:
    assert committed["operations"][PAYING_IN]["open by EIP-3009, relayed"]["gas"] == ESCROW_GAS
    assert committed["operations"][SETTLING]["settle one"]["gas"] == SETTLE_GAS
    readme, known = (ROOT / "README.md").read_text(), document(committed)
    rows = readme.split("| gas, warm")[1].split("\n\n")[0].splitlines()[2:]
    figures = [figure for row in rows for figure in re.findall(r"[\d,]+", row.split("|")[2])]
    assert len(figures) > len(rows)
    assert [figure for figure in figures if f"| {figure} |" not in known] == []
