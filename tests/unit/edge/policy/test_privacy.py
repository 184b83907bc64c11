"""A demanded budget is kept by the node's own accountant and ledger, or the job is denied."""

import json
from functools import partial
from math import log

import numpy as np
import pytest
from safetensors.numpy import save

from oracle.clients.edge.bundle import Bundle
from oracle.clients.edge.errors import PolicyDenied
from oracle.clients.edge.loader import Counters
from oracle.clients.edge.policy.accountant import MAX_EPSILON, DpSgdAccountant, dp_sgd_epsilon
from oracle.clients.edge.policy.privacy import LedgerInvalid, PrivacyLedger, Spend
from settlement.bundle import BundleRefused

WEIGHTS = save({"weight": np.zeros(3, np.float32), "bias": np.zeros(1, np.float32)})
METRICS: dict[str, float] = {}
COUNTERS = Counters(40, 2, bytes(32))
BUDGET = {"epsilon_micro": 3_000_000, "delta_femto": 10}
DATASET, BUYER = bytes([1] * 32), "0x" + "Aa" * 20


WHOLE, ENDED = 16, 1
"""Batches of two epochs of 32 records by four, and of a training that ended after its first."""


class Gaussian:
    """Vouches for what a whole training of each job takes, and one that ended early."""

    def __init__(self, plan: Spend, spent: Spend) -> None:
        self._spends = {WHOLE: plan, ENDED: spent}

    def spend(self, bundle, *, rate: float, steps: int) -> Spend:
        assert rate == 4 / 32
        return self._spends[steps]


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger(tmp_path / "privacy")


@pytest.fixture
def private_gates(make_gates, policy):
    """Gates of a job that agreed on no metrics."""
    return partial(make_gates, agreed=policy.model_copy(update={"allowed_metrics": ()}))


def accountant(epsilon: int, spent: int | None = None, delta: int = 1) -> Gaussian:
    return Gaussian(Spend(epsilon, delta), Spend(epsilon if spent is None else spent, delta))


def denied(gate, *arguments, **options) -> str:
    with pytest.raises(PolicyDenied) as caught:
        gate(*arguments, **options)
    return caught.value.rule


def test_without_an_accountant_no_job_meets_a_demanded_budget(make_gates):
    gates = make_gates(privacy=BUDGET)
    assert denied(gates.training, wall_seconds=60) == "privacy_accountant"
    assert denied(gates.release, WEIGHTS, METRICS, COUNTERS, steps=ENDED) == "privacy_accountant"
    assert denied(gates.progress, {"loss": 0.5}, COUNTERS) == "privacy_accountant"


def test_a_training_is_charged_in_advance_and_settled_by_what_it_took(
    private_gates, ledger, committed
):
    gates = private_gates(privacy=BUDGET, accountant=accountant(2_000_000, 1_500_000))
    account = (committed.digest, "0x" + "99" * 20)
    gates.training(wall_seconds=60)
    assert ledger.total(*account) == (2_000_000, 1)
    gates.release(WEIGHTS, METRICS, COUNTERS, steps=ENDED)
    assert ledger.total(*account) == (1_500_000, 1)


def test_the_budget_is_of_all_jobs_of_a_buyer_on_a_dataset(private_gates):
    for job in (1, 2, 3):
        gates = private_gates(job=job, privacy=BUDGET, accountant=accountant(1_000_000))
        gates.training(wall_seconds=60)
        gates.release(WEIGHTS, METRICS, COUNTERS, steps=ENDED)
    gates = private_gates(job=4, privacy=BUDGET, accountant=accountant(1))
    assert denied(gates.training, wall_seconds=60) == "privacy_epsilon"
    other = "0x" + "88" * 20
    private_gates(job=4, payer=other, privacy=BUDGET, accountant=accountant(1)).training(
        wall_seconds=60
    )


def test_delta_adds_up_as_epsilon_does(private_gates):
    private_gates(privacy=BUDGET, accountant=accountant(1, delta=6)).training(wall_seconds=60)
    gates = private_gates(job=2, privacy=BUDGET, accountant=accountant(1, delta=5))
    assert denied(gates.training, wall_seconds=60) == "privacy_delta"


def test_a_denied_training_is_not_charged(private_gates, ledger, committed):
    gates = private_gates(privacy=BUDGET, accountant=accountant(3_000_001))
    assert denied(gates.training, wall_seconds=60) == "privacy_epsilon"
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (0, 0)


def test_a_training_that_starts_again_after_a_crash_is_charged_again(
    private_gates, ledger, committed
):
    for _ in range(2):
        private_gates(privacy=BUDGET, accountant=accountant(1_500_000)).training(wall_seconds=60)
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (3_000_000, 2)
    gates = private_gates(privacy=BUDGET, accountant=accountant(1_500_000))
    assert denied(gates.training, wall_seconds=60) == "privacy_epsilon"


def test_a_result_that_took_more_than_there_was_does_not_leave_and_is_charged(
    private_gates, ledger, committed
):
    gates = private_gates(privacy=BUDGET, accountant=accountant(1_000_000, 3_000_001))
    gates.training(wall_seconds=60)
    assert denied(gates.release, WEIGHTS, METRICS, COUNTERS, steps=ENDED) == "privacy_epsilon"
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (3_000_001, 1)


def test_a_result_that_is_denied_stays_charged_in_full(private_gates, ledger, committed):
    gates = private_gates(privacy=BUDGET, accountant=accountant(2_000_000, 1))
    gates.training(wall_seconds=60)
    assert (
        denied(gates.release, WEIGHTS, {"other": 1.0}, COUNTERS, steps=ENDED) == "allowed_metrics"
    )
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
def test_a_damaged_ledger_stops_its_jobs(private_gates, ledger, committed, tmp_path, data):
    (tmp_path / "privacy").mkdir()
    (tmp_path / "privacy" / f"{committed.digest.hex()}-0x{'99' * 20}.json").write_bytes(data)
    with pytest.raises(LedgerInvalid):
        private_gates(privacy=BUDGET, accountant=accountant(1)).training(wall_seconds=60)


def test_a_training_that_did_not_begin_is_not_charged(private_gates, ledger, committed):
    gates = private_gates(privacy=BUDGET, accountant=accountant(2_000_000))
    gates.training(wall_seconds=60)
    assert gates.private
    gates.abandon()
    assert not gates.private
    assert ledger.total(committed.digest, "0x" + "99" * 20) == (0, 0)


def test_no_metric_leaves_where_a_budget_is_demanded(make_gates, private_gates):
    gates = make_gates(privacy=BUDGET, accountant=accountant(1))
    assert denied(gates.training, wall_seconds=60) == "privacy_metrics"
    gates = private_gates(privacy=BUDGET, accountant=accountant(1))
    gates.training(wall_seconds=60)
    with pytest.raises(PolicyDenied, match="covers weights and no metric"):
        gates.release(WEIGHTS, {"loss": 0.5}, COUNTERS, steps=ENDED)


DP = {"noise_multiplier": 1.1, "clipping_norm": 1.0, "delta": 1e-5}


def private_bundle(**changes):
    manifest = {
        "framework": "jax",
        "entry_point": "train:train",
        "hyperparameters": {"batch_size": 4},
        "outputs": {"weight": {"dtype": "F32", "shape": [3]}},
        "privacy": DP,
        **changes,
    }
    return Bundle.from_files({"train.py": b"", "manifest.json": json.dumps(manifest).encode()})


def test_only_a_reviewed_bundle_that_declares_its_noise_is_vouched_for():
    bundle, silent = private_bundle(), private_bundle(privacy=None)
    vouching = DpSgdAccountant([bundle.digest, silent.digest])
    assert vouching.spend(bundle, rate=0.1, steps=1) is not None
    assert vouching.spend(silent, rate=0.1, steps=1) is None
    changed = private_bundle(privacy={**DP, "noise_multiplier": 9.0})
    assert vouching.spend(changed, rate=0.1, steps=1) is None


def test_the_figures_are_those_of_the_literature_and_round_up():
    # Abadi et al. 2016, figure 2: q = 0.01, σ = 4, T = 10 000, δ = 1e-5 take ε of about 1.26.
    assert 1.0 < dp_sgd_epsilon(4.0, rate=0.01, steps=10_000, delta=1e-5) < 1.27
    # One step without sampling is the Gaussian mechanism: the classical bound is looser.
    assert dp_sgd_epsilon(5.0, rate=1.0, steps=1, delta=1e-5) < (2 * log(1.25e5)) ** 0.5 / 5
    bundle = private_bundle()
    spend = DpSgdAccountant([bundle.digest]).spend(bundle, rate=4 / 32, steps=16)
    exact = dp_sgd_epsilon(1.1, rate=4 / 32, steps=16, delta=1e-5)
    assert exact * 10**6 <= spend.epsilon < exact * 10**6 + 1
    assert spend.delta == 10**10


def test_more_steps_and_a_higher_rate_take_more_and_nothing_takes_nothing():
    def take(rate, steps):
        return dp_sgd_epsilon(1.1, rate=rate, steps=steps, delta=1e-5)

    assert take(0.1, 0) == 0 < take(0.1, 10) < take(0.1, 11) < take(0.11, 11)
    assert dp_sgd_epsilon(1e-3, rate=1.0, steps=10_000, delta=1e-5) == MAX_EPSILON


@pytest.mark.parametrize(
    "declared",
    [
        {**DP, "noise_multiplier": 0.0},
        {**DP, "noise_multiplier": -1.0},
        {**DP, "delta": 0.0},
        {**DP, "delta": 1.0},
        {**DP, "clipping_norm": 0.0},
        {**DP, "more": 1},
        {"noise_multiplier": 1.0},
    ],
)
def test_a_declaration_that_means_nothing_is_refused_with_the_bundle(declared):
    with pytest.raises(BundleRefused, match="privacy"):
        private_bundle(privacy=declared)
