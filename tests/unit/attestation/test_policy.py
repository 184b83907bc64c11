"""UpToDate passes; anything else passes only by an allowance for exactly that."""

import pytest
from pydantic import ValidationError

from oracle.attestation.errors import EvaluationTooLow, TcbRefused
from oracle.attestation.policy import TcbAllowance, TcbPolicy

NOW = 1_800_000_000
ALLOWANCE = TcbAllowance(
    status="SWHardeningNeeded",
    advisories=frozenset({"INTEL-SA-00615", "INTEL-SA-00289"}),
    until=NOW + 10,
)
POLICY = TcbPolicy(allowances=(ALLOWANCE,))


def test_up_to_date_passes_by_default() -> None:
    TcbPolicy().check("UpToDate", [], NOW)
    TcbPolicy().check("UpToDate", ["INTEL-SA-00615"], NOW)


@pytest.mark.parametrize("advisories", [[], ["INTEL-SA-00615"], sorted(ALLOWANCE.advisories)])
def test_allowed_status_passes_with_known_advisories(advisories: list[str]) -> None:
    POLICY.check("SWHardeningNeeded", advisories, NOW + 9)


@pytest.mark.parametrize(
    ("status", "advisories", "now"),
    [
        ("OutOfDate", ["INTEL-SA-00615"], NOW),
        ("ConfigurationAndSWHardeningNeeded", [], NOW),
        ("Revoked", [], NOW),
        ("", [], NOW),
        ("SWHardeningNeeded", ["INTEL-SA-00615", "INTEL-SA-99999"], NOW),
        ("SWHardeningNeeded", ["INTEL-SA-00615"], NOW + 10),
    ],
    ids=["other status", "worse status", "revoked", "no status", "new advisory", "too late"],
)
def test_anything_else_is_refused(status: str, advisories: list[str], now: int) -> None:
    with pytest.raises(TcbRefused) as refusal:
        POLICY.check(status, advisories, now)
    assert refusal.value.status == status
    assert refusal.value.advisories == tuple(advisories)
    assert refusal.value.final


def test_allowances_do_not_add_up() -> None:
    both = TcbPolicy(
        allowances=(
            TcbAllowance(status="OutOfDate", advisories=frozenset({"A"}), until=NOW + 1),
            TcbAllowance(status="OutOfDate", advisories=frozenset({"B"}), until=NOW + 1),
        )
    )
    with pytest.raises(TcbRefused):
        both.check("OutOfDate", ["A", "B"], NOW)


@pytest.mark.parametrize("status", ["Revoked", "UpToDate", "Debug"])
def test_status_that_cannot_be_tolerated_makes_no_allowance(status: str) -> None:
    with pytest.raises(ValidationError):
        TcbAllowance.model_validate({"status": status, "advisories": [], "until": NOW})


def test_policy_reads_from_json() -> None:
    assert TcbPolicy.model_validate_json(POLICY.model_dump_json()) == POLICY


def test_collateral_counts_from_the_minimum_evaluation_on() -> None:
    policy = TcbPolicy(minimum_evaluation=17)
    TcbPolicy().check_evaluation(0)
    policy.check_evaluation(17)
    policy.check_evaluation(18)
    with pytest.raises(EvaluationTooLow) as refusal:
        policy.check_evaluation(16)
    assert (refusal.value.found, refusal.value.minimum) == (16, 17)
    assert not refusal.value.final
