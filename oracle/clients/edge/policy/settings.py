"""What a hospital demands of any job: the part of its node's configuration that rules look at."""

from pathlib import Path

from pydantic import Field

from settlement.bundle import Framework
from settlement.types import Bytes32, Frozen

PURPOSE = "model-training"
"""What every job of this product uses records for."""
FAR = 4_102_444_800
"""1 January 2100, as Unix seconds."""


class PrivacyBudget(Frozen):
    """How much one buyer may learn of one dataset, over all its jobs: ε in millionths, δ in 1e-15.

    Demanded of every job. Only bundles among `private_bundles` can meet it; all others are denied.
    """

    epsilon_micro: int = Field(gt=0, lt=2**53)
    delta_femto: int = Field(ge=0, lt=2**53)


class PolicySettings(Frozen):
    """The hospital's bounds. Times are Unix seconds; an allow-list that is None allows any.

    The defaults are true of the public data set that the node ships, which nobody can withdraw and
    nobody must delete. A hospital states its own consent and retention. `datasets` that is None
    means the one dataset that the node serves. `rules_dir` holds the hospital's own rules.
    `private_bundles` are the digests of those whose code the hospital has reviewed: that it does
    the DP-SGD that its manifest declares, with secret noise, and gives nothing else. No job gets a
    GPU unless `max_gpus` lets it.
    """

    rules_dir: Path | None = None
    frameworks: tuple[Framework, ...] = (
        "pytorch",
        "tensorflow",
        "jax",
        "scikit-learn",
        "numpy",
    )
    bundles: tuple[Bytes32, ...] | None = None
    images: tuple[Bytes32, ...] | None = None
    datasets: tuple[Bytes32, ...] | None = None
    min_cohort: int = Field(20, ge=1, lt=2**53)
    consent_purposes: tuple[str, ...] = (PURPOSE,)
    consent_until: int = Field(FAR, ge=0, lt=2**53)
    retention_until: int = Field(FAR, ge=0, lt=2**53)
    max_epochs: int = Field(10_000, ge=1, lt=2**53)
    max_wall_seconds: int = Field(7 * 86_400, ge=1, lt=2**53)
    max_cpu_seconds: int = Field(14 * 86_400, ge=1, lt=2**53)
    max_memory_bytes: int = Field(64 * 2**30, ge=1, lt=2**53)
    max_gpus: int = Field(0, ge=0, lt=2**53)
    privacy: PrivacyBudget | None = None
    private_bundles: tuple[Bytes32, ...] = ()
