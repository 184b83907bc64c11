"""The committed gas figures are those of the committed contracts."""

import json

import pytest

from scripts.bench import FIGURES, measure_gas


@pytest.mark.xdist_group("anvil")
def test_gas_is_what_the_snapshot_says() -> None:
    committed = json.loads((FIGURES / "gas.json").read_text())
    assert measure_gas() == committed, "if the change is meant: run `make bench` and commit"
