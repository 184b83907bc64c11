"""A genuine quote counts only for the chain, registry, keys, nonce and setup it was made for."""

from collections.abc import Callable
from typing import Any

import pytest

from oracle.attestation.errors import ReportDataMismatch
from oracle.attestation.evidence import check_evidence
from oracle.attestation.verify import QuoteVerifier, VerifiedQuote
from oracle.clients.edge.devplatform import DevPlatform
from settlement.enclave import report_data
from settlement.errors import InvalidInput

CLAIM: dict[str, Any] = {
    "chain_id": 31337,
    "registry": "0x" + "11" * 20,
    "enclave_key": "0x" + "22" * 20,
    "encryption_key": b"\x33" * 32,
    "nonce": b"\x44" * 32,
    "configuration": b"\x55" * 32,
}


@pytest.fixture
def verified(
    platform: DevPlatform, verifier_of: Callable[..., QuoteVerifier], now: int
) -> VerifiedQuote:
    quote = platform.quote(bytes(range(32)), report_data(**CLAIM))
    return verifier_of(platform).verify(quote, now)


def test_matching_evidence_passes(verified: VerifiedQuote) -> None:
    check_evidence(verified, **CLAIM)


@pytest.mark.parametrize(
    ("name", "other", "part"),
    [
        ("chain_id", 137, "binding"),
        ("registry", "0x" + "12" * 20, "binding"),
        ("enclave_key", "0x" + "23" * 20, "binding"),
        ("encryption_key", b"\x34" * 32, "binding"),
        ("nonce", b"\x45" * 32, "binding"),
        ("configuration", b"\x56" * 32, "configuration"),
    ],
)
def test_each_other_component_is_refused(
    verified: VerifiedQuote, name: str, other: object, part: str
) -> None:
    with pytest.raises(ReportDataMismatch) as refusal:
        check_evidence(verified, **{**CLAIM, name: other})
    assert refusal.value.part == part
    assert str(refusal.value) == f"report_data does not carry the expected {part}"


@pytest.mark.parametrize("name", ["encryption_key", "nonce", "configuration"])
@pytest.mark.parametrize("size", [0, 31, 33])
def test_component_of_another_length_is_refused(
    verified: VerifiedQuote, name: str, size: int
) -> None:
    with pytest.raises(InvalidInput, match=f"has {size} bytes, not 32"):
        check_evidence(verified, **{**CLAIM, name: b"\x44" * size})
