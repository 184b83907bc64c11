"""What the oracle's documents say of it is what was measured."""

import json
from typing import Any

import pytest

from scripts.bench.oracle import FILE
from scripts.chain import ROOT

SIZING = ROOT / "docs" / "sizing.md"
ROWS = {
    "bytes for a receipt taken in": "a receipt taken in",
    "bytes more once it is settled": "more once it is settled: the event, its log, two changes",
    "bytes for a job opened": "a job opened",
}


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


@pytest.mark.parametrize("name", ROWS)
def test_sizing_has_the_bytes_that_were_measured(kept: dict[str, Any], name: str) -> None:
    row = f"| {ROWS[name]} (measured) | {kept['storage'][name]:,} |"
    assert row in SIZING.read_text(), "if the change is meant: make bench, and mend the document"
