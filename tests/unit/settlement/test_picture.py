from pathlib import Path

from settlement.picture import Payment, Waterfall, draw_settlement


def waterfall(payments: int) -> Waterfall:
    return Waterfall(
        job_id=bytes(range(32)),
        budget=10_000_000,
        payments=tuple(
            Payment(
                time=1_000 + 2 * i,
                records=i,
                epochs=i,
                amount=1_000_000,
                transaction=bytes(32),
            )
            for i in range(payments)
        ),
        shares={"hospital": 2_100_000, "node owner": 600_000, "protocol": 300_000},
        refunded=7_000_000,
    )


def test_a_settlement_becomes_a_png(tmp_path: Path) -> None:
    draw_settlement(waterfall(3), tmp_path / "settlement.png")
    assert (tmp_path / "settlement.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_job_that_paid_nothing_can_be_drawn_too(tmp_path: Path) -> None:
    draw_settlement(waterfall(0), tmp_path / "settlement.png")
    assert (tmp_path / "settlement.png").stat().st_size > 10_000
