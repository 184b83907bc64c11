"""A demanded budget is kept by the node's own accountant and ledger, or the job is denied."""

import numpy as np
import pytest
from safetensors.numpy import save

from oracle.clients.edge.errors import PolicyDenied
from oracle.clients.edge.loader import Counters
from oracle.clients.edge.policy.privacy import LedgerInvalid, PrivacyLedger, Spend

WEIGHTS = save({"weight": np.zeros(3, np.float32), "bias": np.zeros(1, np.float32)})
METRICS = {"loss": [0.5, 0.25], "holdout_accuracy": 0.97}
COUNTERS = Counters(40, 2, bytes(32))
BUDGET = {"epsilon_micro": 3_000_000, "delta_femto": 10}
DATASET, BUYER = bytes([1] * 32), "0x" + "Aa" * 20


class Gaussian:
    """Vouches for what each training of each job takes."""

    def __init__(self, plan: Spend, spent: Spend) -> None:
        self._plan, self._spent = plan, spent

    def plan(self, job_id: bytes) -> Spend:
        return self._plan

    def spent(self, job_id: bytes) -> Spend:
        return self._spent


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger(tmp_path / "privacy")


def accountant(epsilon: int, spent: int | None = None, delta: int = 1) -> Gaussian:
    return Gaussian(Spend(epsilon, delta), Spend(epsilon if spent is None else spent, delta))


def denied(gate, *arguments, **options) -> str:
    with pytest.raises(PolicyDenied) as caught:
        gate(*arguments, **options)
    return caught.value.rule


def test_without_an_accountant_no_job_meets_a_demanded_budget(make_gates, ledger, committed):
    gates = make_gates(privacy=BUDGET)
    assert denied(gates.training, wall_seconds=60) == "privacy_accountant"
    assert denied(gates.release, WEIGHTS, METRICS, COUNTERS) == "privacy_accountant"
    assert denied(gates.progress, {"loss": 0.5}, COUNTERS) == "privacy_accountant"


def test_a_training_is_charged_in_advance_and_settled_by_what_it_took(
    make_gates, ledger, committed
):
    gates = make_gates(privacy=BUDGET, accountant=accountant(2_000_000, 1_500_000))
    account = (committed.digest, "0x" + "99" * 20)
    gates.training(wall_seconds=60)
    assert ledger.total(*account) == (2_000_000, 1)
    assert gates.progress({"loss": 0.5}, COUNTERS) == {"loss": 0.5}
    gates.release(WEIGHTS, METRICS, COUNTERS)
    assert ledger.total(*account) == (1_500_000, 1)


def test_the_budget_is_of_all_jobs_of_a_buyer_on_a_dataset(make_gates):
    for job in (1, 2, 3):
        gates = make_gates(job=job, privacy=BUDGET, accountant=accountant(1_000_000))
        gates.training(wall_seconds=60)
        gates.release(WEIGHTS, METRICS, COUNTERS)
    gates = make_gates(job=4, privacy=BUDGET, accountant=accountant(1))
    assert denied(gates.training, wall_seconds=60) == "privacy_epsilon"
    other = "0x" + "88" * 20
    make_gates(job=4, payer=other, privacy=BUDGET, accountant=accountant(1)).training(
        wall_seconds=60
    )


def test_delta_adds_up_as_epsilon_does(make_gates):
    make_gates(privacy=BUDGET, accountant=accountant(1, delta=6)).training(wall_seconds=60)
    gates = make_gates(job=2, privacy=BUDGET, accountant=accountant(1, delta=5))
    assert denied(gates.training, wall_seconds=60) == "privacy_delta"


def test_a_denied_training_is_not_charged(make_gates, ledger, committed):
    gates = make_gates(privacy=BUDGET, accountant=accountant(3_000_001))
    assert denied(gates.training, wall_seconds=60) == "privacy_epsilon"
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (0, 0)


def test_a_training_that_starts_again_after_a_crash_is_charged_again(make_gates, ledger, committed):
    for _ in range(2):
        make_gates(privacy=BUDGET, accountant=accountant(1_500_000)).training(wall_seconds=60)
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (3_000_000, 2)
    gates = make_gates(privacy=BUDGET, accountant=accountant(1_500_000))
    assert denied(gates.training, wall_seconds=60) == "privacy_epsilon"


def test_a_result_that_took_more_than_there_was_does_not_leave_and_is_charged(
    make_gates, ledger, committed
):
    gates = make_gates(privacy=BUDGET, accountant=accountant(1_000_000, 3_000_001))
    gates.training(wall_seconds=60)
    assert denied(gates.release, WEIGHTS, METRICS, COUNTERS) == "privacy_epsilon"
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (3_000_001, 1)


def test_a_result_that_is_denied_stays_charged_in_full(make_gates, ledger, committed):
    gates = make_gates(privacy=BUDGET, accountant=accountant(2_000_000, 1))
    gates.training(wall_seconds=60)
    assert denied(gates.release, WEIGHTS, {"other": 1.0}, COUNTERS) == "allowed_metrics"
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (2_000_000, 1)


def test_the_ledger_keeps_accounts_apart_and_survives(tmp_path, ledger):
    assert ledger.total(DATASET, BUYER) == (0, 0)
    assert ledger.charge(DATASET, BUYER, b"\x01", Spend(5, 1)) == 0
    assert ledger.charge(DATASET, BUYER, b"\x01", Spend(7, 2)) == 1
    ledger.settle(DATASET, BUYER, 0, Spend(3, 0))
    again = PrivacyLedger(tmp_path / "privacy")
    assert again.total(DATASET, BUYER.lower()) == (10, 2)
    assert again.total(bytes(32), BUYER) == (0, 0)
    assert again.total(DATASET, "0x" + "bb" * 20) == (0, 0)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"5", b"[5]", b'[["a",1]]', b'[["a",-1,0]]', b'[["a",1.5,0]]', b"[[1,1,1]]"]
)
def test_a_damaged_ledger_stops_its_jobs(make_gates, ledger, committed, tmp_path, data):
    (tmp_path / "privacy").mkdir()
    (tmp_path / "privacy" / f"{committed.digest.hex()}-0x{'99' * 20}.json").write_bytes(data)
    with pytest.raises(LedgerInvalid):
        make_gates(privacy=BUDGET, accountant=accountant(1)).training(wall_seconds=60)
