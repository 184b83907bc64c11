"""`docs/contracts.md` leaves out no function and no reason, and names only tests that exist."""

import re
from pathlib import Path

import pytest

from settlement.contracts import artifact
from settlement.reverts import Revert

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = " ".join((ROOT / "docs/contracts.md").read_text().split())
CONTRACTS = (
    "RaphaClearingVault",
    "RaphaNodeRegistry",
    "EnclaveRegistry",
    "PckCertificates",
    "EcdsaCommittee",
    "BlsCommittee",
)
OURS = ("vault", "nodes", "enclaves", "dcap", "committee", "timelock")
# a getter of snekmate's timelock says what its name says
TIMELOCK = ("schedule", "schedule_batch", "cancel", "execute", "execute_batch", "update_delay")


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_function_is_described(contract: str) -> None:
    names = {entry["name"] for entry in artifact(contract).abi if entry["type"] == "function"}
    assert {name for name in names if not re.search(rf"`{name}[`(]", DOCUMENT)} == set()


def test_every_function_of_the_timelock_that_acts_is_described() -> None:
    assert [name for name in TIMELOCK if f"`{name}`" not in DOCUMENT] == []


def test_every_reason_is_described() -> None:
    reasons = [member.value for member in Revert if member.value.split(":")[0] in OURS]
    assert [reason for reason in reasons if f"`{reason}`" not in DOCUMENT] == []


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`(test_\w+)`", DOCUMENT)
    assert named
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        name for name in named if name not in files and not re.search(rf"def {name}\b", sources)
    ]
    assert missing == []
