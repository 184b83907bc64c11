"""The document's files are files that the programs take."""

import json
import re
from pathlib import Path

from oracle.attestation.identity.settings import IdentitySettings
from oracle.attestation.tpm.policy import NodePolicies
from oracle.attestation.tpm.routable import NotRoutable
from oracle.clients.edge.config import EdgeSettings
from oracle.clients.hub.config import HubSettings
from oracle.config import OracleSettings
from settlement.hub.account import RegistrationRequest

DOCUMENT = (Path(__file__).parents[3] / "docs" / "attestation.md").read_text()
BLOCKS = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)


def test_policies_are_an_operators_file() -> None:
    policies = NodePolicies.model_validate_json(BLOCKS[0])
    assert policies.of(2).selection == policies.of(1).selection
    assert policies.pinned(1) == b"\x33" * 32


def test_registration_is_what_the_hub_takes() -> None:
    assert RegistrationRequest.model_validate_json(BLOCKS[1]).name == "acme"


def test_identity_settings_are_the_built_in_ones() -> None:
    assert IdentitySettings.model_validate(json.loads(BLOCKS[2])) == IdentitySettings()


def test_every_reason_that_a_node_can_have_is_explained() -> None:
    # The others need facts of another node, or a time before the verdict's.
    told = [reason for reason in NotRoutable if f"`{reason}`" in DOCUMENT]
    assert [reason for reason in NotRoutable if reason not in told] == [
        NotRoutable.ENCLAVE_OF_ANOTHER_NODE,
        NotRoutable.ENCLAVE_NOT_YET_VALID,
        NotRoutable.TPM_OF_ANOTHER_NODE,
        NotRoutable.TPM_NOT_YET_VALID,
    ]


def test_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"`((?:RAPHA_[A-Z]+_|TPM_)[A-Z_]+)`", DOCUMENT))
    known = {
        f"{prefix}{name.upper()}"
        for prefix, model in (
            ("RAPHA_ORACLE_", OracleSettings),
            ("RAPHA_HUB_", HubSettings),
            ("", OracleSettings),
            ("", EdgeSettings),
        )
        for name in model.model_fields
    }
    assert named
    assert named <= known
