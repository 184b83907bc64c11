"""A quote is laid out without a gap, and says of each field what the verifier reads there."""

from collections.abc import Callable
from pathlib import Path

import dcap_qvl
import pytest

from oracle.attestation.errors import QuoteMalformed
from oracle.attestation.explain import Explanation, explain
from oracle.attestation.quote import parse_quote
from oracle.clients.edge.devplatform import DevPlatform

VECTORS = [
    "sgx/phala_v3",
    "sgx/automata_v3",
    "tdx/phala_v4",
    "tdx/near_v4",
    "tdx/automata_v4_outofdate",
    "tdx/phala_v5_no_tcb_level",
    "tdx/automata_v5_service_td",
]


def value(explanation: Explanation, name: str) -> bytes:
    (field,) = (field for field in explanation.fields if field.name == name)
    return bytes.fromhex(field.value[2:])


def meaning(explanation: Explanation, name: str) -> str:
    (field,) = (field for field in explanation.fields if field.name == name)
    return field.meaning


@pytest.mark.parametrize("name", VECTORS)
def test_fields_are_the_whole_quote_in_order(vectors: Path, name: str) -> None:
    data = (vectors / f"{name}.quote.bin").read_bytes()
    fields = explain(data).fields
    assert b"".join(bytes.fromhex(field.value[2:]) for field in fields) == data
    position = 0
    for field in fields:
        assert field.offset == position
        assert field.size == len(field.value) // 2 - 1
        assert field.meaning
        position += field.size
    assert len({field.name for field in fields}) == len(fields)


@pytest.mark.parametrize("name", VECTORS)
def test_fields_are_those_that_the_library_reads(vectors: Path, name: str) -> None:
    data = (vectors / f"{name}.quote.bin").read_bytes()
    explanation = explain(data)
    report = dcap_qvl.parse_quote(data).report
    assert value(explanation, "report data") == report.report_data
    names = {
        "TEE TCB SVN": "tee_tcb_svn",
        "MRSEAM": "mr_seam",
        "MRSIGNERSEAM": "mr_signer_seam",
        "SEAM attributes": "seam_attributes",
        "TD attributes": "td_attributes",
        "XFAM": "xfam",
        "MRTD": "mr_td",
        "MRCONFIGID": "mr_config_id",
        "MROWNER": "mr_owner",
        "MROWNERCONFIG": "mr_owner_config",
        "RTMR0": "rt_mr0",
        "RTMR1": "rt_mr1",
        "RTMR2": "rt_mr2",
        "RTMR3": "rt_mr3",
    }
    if name.startswith("sgx"):
        names = {"MRENCLAVE": "mr_enclave", "MRSIGNER": "mr_signer", "CPU SVN": "cpu_svn"}
    for field, attribute in names.items():
        assert value(explanation, field) == getattr(report, attribute), field
    if name == "tdx/automata_v5_service_td":
        assert value(explanation, "MRSERVICETD") == report.mr_service_td
        assert value(explanation, "TEE TCB SVN 2") == report.tee_tcb_svn2


def test_names_of_the_system_are_the_parsers(dev_quote: bytes) -> None:
    explanation, quote = explain(dev_quote), parse_quote(dev_quote)
    assert explanation.measurement == quote.measurement
    assert explanation.attestation_digest == quote.attestation_digest
    assert (explanation.kind, explanation.version) == ("sgx", 3)
    assert (explanation.debug, explanation.simulated) == (False, True)


def test_simulated_and_debug_are_said_plainly(platform: DevPlatform) -> None:
    enclave = explain(platform.quote(bytes(32), bytes(64), debug=True))
    assert meaning(enclave, "user data").startswith("SIMULATED-DEV-ONLY")
    assert meaning(enclave, "attributes").startswith("DEBUG")
    td = explain(platform.td_quote(bytes(48), bytes(64), debug=True))
    assert meaning(td, "TD attributes").startswith("DEBUG")
    assert td.debug


def test_padding_is_shown_as_no_part_of_the_quote(vectors: Path) -> None:
    explanation = explain((vectors / "tdx" / "near_v4.quote.bin").read_bytes())
    last = explanation.fields[-1]
    assert (last.name, last.offset) == ("after the quote", 4936)
    assert "not part of it" in last.meaning


def test_certificates_are_named(vectors: Path, dev_quote: bytes) -> None:
    explanation = explain((vectors / "sgx" / "phala_v3.quote.bin").read_bytes())
    assert meaning(explanation, "certificates") == (
        "Intel SGX PCK Certificate < Intel SGX PCK Processor CA < Intel SGX Root CA"
    )
    broken = dev_quote[:1052] + bytes(len(dev_quote) - 1052)
    assert meaning(explain(broken), "certificates") == "not readable as certificates"


@pytest.mark.parametrize("cut", [lambda q: b"", lambda q: q[:-1], lambda q: b"\x09" + q[1:]])
def test_what_is_no_quote_is_refused(dev_quote: bytes, cut: Callable[[bytes], bytes]) -> None:
    with pytest.raises(QuoteMalformed):
        explain(cut(dev_quote))
