"""Configuration of the hospital's node: environment variables named RAPHA_EDGE_…"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from oracle.clients.edge.policy.settings import PolicySettings
from oracle.clients.edge.sandbox import launch, wan
from oracle.clients.edge.sandbox.limits import ChildLimits
from oracle.clients.edge.tpm import EkAlgorithm


class EdgeSettings(BaseSettings):
    """All that a node needs to know. Prices are USDC base units, times seconds.

    `tpm_tcti` is tpm2-tss's name of the machine's TPM (``device:/dev/tpmrm0``); without it the node
    runs on its enclave's evidence alone. The files are those of `oracle.clients.edge.tpm.TpmFiles`.
    `oracle_api_key` is the node's API key for the oracle (scopes `read` and `submit`), where that
    needs one.

    `dataset_file` is the TOML file of the hospital's dataset (`oracle.clients.edge.sources`);
    without it the node offers the public records that it ships.

    `limits` bounds the training process (JSON, or RAPHA_EDGE_LIMITS__WALL_SECONDS and so on);
    `policy` is what the hospital demands of a job (RAPHA_EDGE_POLICY__MIN_COHORT and so on).
    `sandbox` says whether the node trains nothing where there is none; `development` does, marks
    the evidence, and is refused on chains with real money. `wan_guard` says whether the node closes
    its own network while a job trains, `wan_allows` what stays open then: with the hub alone,
    receipts wait for the end of the training.
    """

    model_config = SettingsConfigDict(
        env_prefix="RAPHA_EDGE_", env_nested_delimiter="__", frozen=True
    )

    node_id: int = Field(gt=0)
    oracle_url: str
    oracle_api_key: SecretStr | None = None
    hub_url: str
    hub_key_file: Path
    deployment_file: Path
    state_dir: Path
    platform_dir: Path

    tpm_tcti: str | None = None
    tpm_ek: EkAlgorithm = "ecc"
    tpm_certificate_file: Path | None = None
    tpm_intermediates_file: Path | None = None
    tpm_event_log_file: Path | None = None
    tpm_command_seconds: float = Field(60.0, gt=0)
    tpm_margin_seconds: int = Field(3600, ge=0)

    dataset_file: Path | None = None
    price_per_record: int = Field(ge=0)
    price_per_epoch: int = Field(ge=0)
    description: str = "Breast Cancer Wisconsin (Diagnostic): 569 records of 30 measurements"

    receipt_every_records: int = Field(128, gt=0)
    receipt_every_seconds: float = Field(5.0, gt=0)
    receipt_interval_seconds: float = Field(0.5, ge=0)
    poll_seconds: float = Field(0.5, gt=0)
    lease_wait_seconds: float = Field(2.0, ge=0, le=30)
    """How long the hub may hold a question for work; the node stops no sooner."""
    attestation_seconds: float = Field(120.0, gt=0)
    reattest_margin_seconds: int = Field(600, ge=0)
    rejection_patience_seconds: float = Field(30.0, ge=0)
    output_limit_bytes: int = Field(256 * 2**20, gt=0)
    limits: ChildLimits = ChildLimits()
    policy: PolicySettings = PolicySettings()
    sandbox: launch.Mode = "required"
    wan_guard: wan.Setting = "if_allowed"
    wan_allows: Literal["hub", "hub_and_oracle"] = "hub"

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
