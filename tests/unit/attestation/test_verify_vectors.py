"""Real quotes of real machines give the verdicts that Intel's rules give them."""

from dataclasses import dataclass, replace
from pathlib import Path

import dcap_qvl
import pytest

from oracle.attestation.collateral import FileCollateral, parse_collateral
from oracle.attestation.errors import (
    QuoteRefused,
    QuoteStale,
    SimulatedQuoteRefused,
    TcbRefused,
    TrailingBytes,
)
from oracle.attestation.policy import TcbAllowance, TcbPolicy
from oracle.attestation.quote import parse_quote
from oracle.attestation.verify import QuoteVerifier

POLYGON = 137


@dataclass(frozen=True)
class Vector:
    name: str
    now: int
    window: tuple[int, int]
    end: int
    status: str = ""
    advisories: tuple[str, ...] = ()
    reason: str = ""


ACCEPTED = [
    Vector(
        "sgx/phala_v3",
        1751500800,
        (1750330571, 1752919278),
        4600,
        "ConfigurationAndSWHardeningNeeded",
        ("INTEL-SA-00289", "INTEL-SA-00615"),
    ),
    Vector(
        "sgx/automata_v3",
        1755236700,
        (1755236486, 1757824606),
        4734,
        "SWHardeningNeeded",
        ("INTEL-SA-00615",),
    ),
    Vector("tdx/phala_v4", 1751500800, (1750329147, 1752919235), 4936, "UpToDate"),
    Vector("tdx/near_v4", 1758000000, (1756798919, 1759388631), 4936, "UpToDate"),
    Vector(
        "tdx/automata_v4_outofdate",
        1749095100,
        (1749030698, 1751620771),
        4935,
        "OutOfDate",
        ("INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-00986"),
    ),
]
REFUSED = [
    Vector(
        "tdx/phala_v5_no_tcb_level",
        1772500000,
        (1771412331, 1774003275),
        5006,
        reason="No matching TCB level found",
    ),
    Vector(
        "tdx/automata_v5_service_td",
        1749945600,
        (1749095025, 1751620771),
        5006,
        reason="Invalid MR service TD",
    ),
]
accepted = pytest.mark.parametrize("vector", ACCEPTED, ids=lambda v: v.name)
every = pytest.mark.parametrize("vector", ACCEPTED + REFUSED, ids=lambda v: v.name)


def delivered(vectors: Path, vector: Vector) -> bytes:
    return (vectors / f"{vector.name}.quote.bin").read_bytes()


def unpadded(vectors: Path, vector: Vector) -> bytes:
    return delivered(vectors, vector)[: vector.end]


def verifier(vectors: Path, vector: Vector, policy: TcbPolicy | None = None) -> QuoteVerifier:
    source = FileCollateral(vectors / f"{vector.name}.collateral.json")
    return QuoteVerifier(chain_id=POLYGON, collateral=source, policy=policy)


def tolerant(vector: Vector) -> TcbPolicy:
    if vector.status == "UpToDate":
        return TcbPolicy()
    allowance = TcbAllowance.model_validate(
        {
            "status": vector.status,
            "advisories": frozenset(vector.advisories),
            "until": vector.now + 1,
        }
    )
    return TcbPolicy(allowances=(allowance,))


@accepted
def test_genuine_quote_gives_the_stated_status(vectors: Path, vector: Vector) -> None:
    quote = unpadded(vectors, vector)
    verified = verifier(vectors, vector, tolerant(vector)).verify(quote, vector.now)
    assert verified.tcb_status == vector.status
    assert verified.advisories == vector.advisories
    assert verified.kind == vector.name[:3]
    assert verified.valid_until == vector.window[1]
    assert not verified.simulated


@pytest.mark.parametrize(
    "vector", [v for v in ACCEPTED if v.status != "UpToDate"], ids=lambda v: v.name
)
def test_default_policy_refuses_what_is_not_up_to_date(vectors: Path, vector: Vector) -> None:
    with pytest.raises(TcbRefused) as refusal:
        verifier(vectors, vector).verify(unpadded(vectors, vector), vector.now)
    assert refusal.value.status == vector.status
    assert refusal.value.advisories == vector.advisories


@pytest.mark.parametrize("vector", REFUSED, ids=lambda v: v.name)
def test_refused_quote_gives_the_stated_reason(vectors: Path, vector: Vector) -> None:
    with pytest.raises(QuoteRefused) as refusal:
        verifier(vectors, vector).verify(unpadded(vectors, vector), vector.now)
    assert refusal.value.reason == vector.reason


@every
def test_fields_are_read_where_the_library_reads_them(vectors: Path, vector: Vector) -> None:
    quote = parse_quote(unpadded(vectors, vector))
    library = dcap_qvl.parse_quote(quote.raw)
    assert quote.report_data == library.report.report_data
    assert quote.version == library.header.version
    assert quote.pck_chain.rstrip(b"\0") == library.cert_chain_pem_bytes().rstrip(b"\0")
    if quote.kind == "sgx":
        assert quote.measurement == library.report.mr_enclave


@accepted
def test_padding_is_refused_and_says_where_to_cut(vectors: Path, vector: Vector) -> None:
    padded = unpadded(vectors, vector) + b"\0"
    with pytest.raises(TrailingBytes) as refusal:
        verifier(vectors, vector, tolerant(vector)).verify(padded, vector.now)
    assert (refusal.value.end, refusal.value.length) == (vector.end, vector.end + 1)


@pytest.mark.parametrize("vector", ACCEPTED[2:], ids=lambda v: v.name)
def test_padding_of_the_driver_is_refused(vectors: Path, vector: Vector) -> None:
    with pytest.raises(TrailingBytes) as refusal:
        parse_quote(delivered(vectors, vector))
    assert refusal.value.end == vector.end


@every
def test_collateral_covers_the_stated_window(vectors: Path, vector: Vector) -> None:
    collateral = parse_collateral((vectors / f"{vector.name}.collateral.json").read_text())
    assert (collateral.valid_from, collateral.valid_until) == vector.window


@accepted
def test_quote_is_stale_just_outside_the_window(vectors: Path, vector: Vector) -> None:
    first, end = vector.window
    for moment in (first - 1, end):
        with pytest.raises(QuoteStale) as refusal:
            verifier(vectors, vector).verify(unpadded(vectors, vector), moment)
        assert refusal.value.now == moment
        assert (refusal.value.valid_from, refusal.value.valid_until) == vector.window
        assert not refusal.value.final


@accepted
def test_quote_is_accepted_at_the_edges_of_the_window(vectors: Path, vector: Vector) -> None:
    policy = tolerant(replace(vector, now=vector.window[1]))
    judge = verifier(vectors, vector, policy)
    for moment in (vector.window[0], vector.window[1] - 1):
        assert judge.verify(unpadded(vectors, vector), moment).tcb_status == vector.status


def test_collateral_of_another_machine_is_refused(vectors: Path) -> None:
    phala, automata = ACCEPTED[0], ACCEPTED[1]
    with pytest.raises(QuoteRefused) as refusal:
        verifier(vectors, automata).verify(unpadded(vectors, phala), automata.now)
    assert refusal.value.reason == (
        "Failed to verify certificate chain Caused by: UnknownRevocationStatus"
    )


def test_genuine_intel_quote_marked_as_simulated_is_refused(vectors: Path) -> None:
    vector = ACCEPTED[0]
    quote = bytearray(unpadded(vectors, vector))
    quote[28:48] = b"SIMULATED-DEV-ONLY\0\0"
    with pytest.raises(SimulatedQuoteRefused):
        verifier(vectors, vector).verify(bytes(quote), vector.now)
