"""An operator's settings say where collateral comes from: a file, or a service."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from oracle.attestation.collateral import FileCollateral
from oracle.attestation.pccs import INTEL_PCS, PccsCollateral
from oracle.clients.edge.devplatform import DevPlatform
from oracle.config import OracleSettings
from oracle.service import collateral_source
from settlement.errors import InvalidInput


@pytest.fixture
def required(tmp_path: Path) -> dict[str, Any]:
    return {
        "rpc_url": "http://127.0.0.1:1",
        "deployment_file": tmp_path / "deployment",
        "committee_key_file": tmp_path / "key",
        "peer_token_file": tmp_path / "token",
    }


def test_file_is_a_source(required: dict[str, Any], tmp_path: Path) -> None:
    settings = OracleSettings(**required, collateral_file=tmp_path / "collateral.json")
    assert isinstance(collateral_source(settings, None), FileCollateral)


def test_service_is_a_source(
    required: dict[str, Any], platform: DevPlatform, tmp_path: Path
) -> None:
    settings = OracleSettings(**required, pccs_url=INTEL_PCS, pccs_directory=tmp_path)
    assert isinstance(collateral_source(settings, platform.root_der), PccsCollateral)
    with pytest.raises(InvalidInput, match="development root is not a certificate"):
        collateral_source(settings, b"root")


@pytest.mark.parametrize("both", [True, False])
def test_one_source_is_needed(required: dict[str, Any], tmp_path: Path, both: bool) -> None:
    given = {"collateral_file": tmp_path, "pccs_url": INTEL_PCS} if both else {}
    with pytest.raises(ValidationError, match="from collateral_file or from pccs_url, not both"):
        OracleSettings(**required, **given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pccs_url": "file:///etc/passwd"},
        {"pccs_url": INTEL_PCS, "pccs_root_crl_url": "ftp://elsewhere"},
        {"pccs_url": INTEL_PCS, "pccs_refresh": 0},
        {"pccs_url": INTEL_PCS, "min_tcb_evaluation": -1},
    ],
)
def test_setting_that_cannot_be_is_refused(required: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OracleSettings(**required, **wrong)
