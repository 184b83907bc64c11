"""The committed figures of committees are those of the committed contracts."""

import json

import pytest

from scripts.bench.committee import (
    DOCUMENT,
    FIGURES,
    SIZES,
    Figures,
    crossover,
    document,
    measure_committees,
    threshold_of,
)

MEANT = "if the change is meant: run `make bench` and commit"


@pytest.fixture(scope="module")
def committed() -> Figures:
    found: Figures = json.loads(FIGURES.read_text())
    return found


@pytest.mark.xdist_group("anvil")
@pytest.mark.timeout(900)
def test_gas_of_committees_is_what_the_snapshot_says(committed: Figures) -> None:
    measured = measure_committees(sizes=(3, 9))
    assert measured == {size: committed[size] for size in measured}, MEANT


def test_document_is_made_of_the_snapshot(committed: Figures) -> None:
    assert list(committed) == [str(size) for size in SIZES]
    assert DOCUMENT.read_text() == document(committed), MEANT


@pytest.mark.parametrize(("size", "threshold"), [(3, 2), (4, 3), (5, 4), (6, 4), (64, 43)])
def test_threshold_is_two_thirds_rounded_up(size: int, threshold: int) -> None:
    assert threshold_of(size) == threshold


def test_gas_of_bls_does_not_grow_with_those_who_signed(committed: Figures) -> None:
    everybody = [found["bls, all"] for found in committed.values()]
    assert max(everybody) - min(everybody) < 100


@pytest.mark.parametrize("present", ["quorum", "all"])
def test_bls_is_cheaper_from_the_crossover_on_and_not_before(
    committed: Figures, present: str
) -> None:
    first = crossover(committed, present)
    cheaper = {
        int(size): found[f"bls, {present}"] < found["ecdsa, quorum"]
        for size, found in committed.items()
        if "ecdsa, quorum" in found
    }
    assert not cheaper[first - 1]
    assert all(is_cheaper for size, is_cheaper in cheaper.items() if size >= first)


def test_crossover_between_unmeasured_sizes_is_not_guessed(committed: Figures) -> None:
    few = {size: committed[size] for size in ("3", "64")}
    with pytest.raises(KeyError):
        crossover(few, "quorum")
