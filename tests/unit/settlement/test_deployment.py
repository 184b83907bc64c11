"""The record of one deployment."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from settlement.deploy import DeploymentParameters, create_address
from settlement.deployment import REAL_CHAINS, Deployment, load_deployment
from settlement.errors import InvalidInput

FIELDS: dict[str, Any] = {
    "chain_id": 31337,
    "block": 4,
    "vault": "0x" + "11" * 20,
    "node_registry": "0x" + "22" * 20,
    "enclave_registry": "0x" + "33" * 20,
    "timelock": "0x" + "44" * 20,
    "usdc": "0x" + "55" * 20,
    "grace_period": 86_400,
}


def test_record_is_the_same_again_from_its_file(tmp_path: Path) -> None:
    made = Deployment(**FIELDS)
    path = tmp_path / "deployment.json"
    path.write_text(made.model_dump_json())
    assert load_deployment(path) == made


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.json is not a deployment record"):
        load_deployment(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"chain_id": 1}', "not json"])
def test_file_that_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="is not a deployment record"):
        load_deployment(path)


@pytest.mark.parametrize("chain_id", [0, -1])
def test_chain_id_is_positive(chain_id: int) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Deployment(**{**FIELDS, "chain_id": chain_id})


def test_domains_are_of_the_records_chain_and_contracts() -> None:
    made = Deployment(**FIELDS)
    domains = {
        "vault": made.vault_domain,
        "enclave_registry": made.enclave_domain,
        "usdc": made.usdc_domain,
    }
    for name, domain in domains.items():
        assert (domain.chain_id, domain.verifying_contract) == (31337, getattr(made, name))
    assert [d.name for d in domains.values()] == [
        "RaphaClearingVault",
        "RaphaEnclaveRegistry",
        "USD Coin",
    ]


def test_real_chains_are_ethereum_polygon_and_amoy() -> None:
    assert {1, 137, 80002} == REAL_CHAINS


@pytest.mark.parametrize(
    ("nonce", "expected"),
    [
        (0, "0xcd234A471b72ba2F1Ccf0A70FCABA648a5eeCD8d"),
        (1, "0x343c43A37D37dfF08AE8C4A11544c718AbB4fCF8"),
        (2, "0xf778B86FA74E846c4f0a1fBd1335FE81c00a0C91"),
        (3, "0xffFd933A0bC612844eaF0C6Fe3E5b8E9B6C1d19c"),
    ],
)
def test_creation_address_is_the_published_one(nonce: int, expected: str) -> None:
    """The well-known addresses of 0x6ac7…f0d0's first creations."""
    assert create_address("0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0", nonce) == expected


def test_a_record_without_a_challenge_window_has_none() -> None:
    assert Deployment(**FIELDS).challenge_window == 0
    assert Deployment(**FIELDS, challenge_window=3_600).challenge_window == 3_600


def test_parameters_need_a_proposer_a_committee_and_a_threshold() -> None:
    good: dict[str, Any] = {
        "proposers": [FIELDS["vault"]],
        "guardian": FIELDS["vault"],
        "registrar": FIELDS["vault"],
        "protocol": FIELDS["vault"],
        "arbiter": FIELDS["vault"],
        "committee": [FIELDS["usdc"]],
        "threshold": 1,
        "grace_period": 3_600,
        "timelock_delay": 0,
    }
    made = DeploymentParameters(**good)
    assert (made.measurements, made.challenge_window) == ((), 0)
    assert made.arbitration_period == 7 * 24 * 60 * 60
    for name, value in (("proposers", []), ("committee", []), ("threshold", 0)):
        with pytest.raises(ValidationError, match=name):
            DeploymentParameters(**{**good, name: value})
