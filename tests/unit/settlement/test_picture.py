import sys
from pathlib import Path

import pytest

from settlement.accounts import JobAccount, NodeAccount, Payment, Split
from settlement.errors import InvalidInput
from settlement.picture import PlotMissing, draw_earnings, draw_settlement

JOB = bytes(range(32))


def payments(count: int) -> tuple[Payment, ...]:
    return tuple(
        Payment(
            time=1_800_000_000 + 7_200 * i,
            job_id=JOB,
            records=25 * (i + 1),
            epochs=i,
            amount=1_000_000,
            transaction=bytes(32),
        )
        for i in range(count)
    )


def job(count: int) -> JobAccount:
    return JobAccount(
        job_id=JOB,
        state="CLOSED",
        node_id=1,
        funded=10_000_000,
        payments=payments(count),
        shares={"hospital": count * 700_000, "node owner": count * 300_000},
        refunded=10_000_000 - count * 1_000_000,
    )


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf"])
def test_same_account_gives_the_same_picture(tmp_path: Path, name: str) -> None:
    drawn = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        draw_settlement(job(3), tmp_path / folder / name)
        drawn.append((tmp_path / folder / name).read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[name[1:]])


@pytest.mark.parametrize("count", [0, 1, 40])
def test_any_number_of_payments_can_be_drawn(tmp_path: Path, count: int) -> None:
    account = job(min(count, 10)).model_copy(update={"payments": payments(count)})
    draw_settlement(account, tmp_path / "job.svg")
    splits = (
        Split(
            time=1_800_100_000,
            hospital=700_000,
            node_owner=200_000,
            onboarder=50_000,
            protocol=50_000,
            transaction=bytes(32),
        ),
    )
    node = NodeAccount(node_id=1, payments=payments(count), splits=splits if count else ())
    draw_earnings(node, tmp_path / "node.svg")
    text = (tmp_path / "node.svg").read_text()
    assert ("shared out: 1.00" in text) == bool(count)
    assert node.waiting == (count - 1) * 1_000_000 if count else node.waiting == 0


def test_only_what_moved_is_drawn(tmp_path: Path) -> None:
    draw_settlement(job(3), tmp_path / "job.svg")
    text = (tmp_path / "job.svg").read_text()
    assert "returned to payer" in text
    assert "in dispute" not in text


def test_what_cannot_be_drawn_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match=r"job\.gif is no picture's name: end it in \.svg"):
        draw_settlement(job(1), tmp_path / "job.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotMissing, match=r"pip install 'rapha-settlement\[plot\]'"):
        draw_settlement(job(1), tmp_path / "job.png")
