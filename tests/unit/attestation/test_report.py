"""A report says of each link whether it holds, and never accepts what the verifier refuses."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as given_any
from hypothesis import strategies as st

from oracle.attestation.collateral import FileCollateral, authenticate, parse_collateral
from oracle.attestation.errors import AttestationRefused, DevelopmentRootRefused
from oracle.attestation.explain import explain
from oracle.attestation.pccs import key_of_root
from oracle.attestation.policy import TcbPolicy
from oracle.attestation.report import Report, examine
from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge.devplatform import DAY, DevPlatform

LOCAL_CHAIN = 31337
NAMES = [
    "structure",
    "production mode",
    "root",
    "platform certificates",
    "quoting enclave's report",
    "attestation key",
    "quote's signature",
    "collateral",
    "collateral's signatures",
    "collateral's time",
    "collateral's subject",
    "revocation",
    "quoting enclave's identity",
    "verdict",
]
VECTORS = [
    ("sgx/phala_v3", 1751500800, 4600, "TcbRefused"),
    ("sgx/automata_v3", 1755236700, 4734, "TcbRefused"),
    ("tdx/phala_v4", 1751500800, 4936, ""),
    ("tdx/near_v4", 1758000000, 4936, ""),
    ("tdx/automata_v4_outofdate", 1749095100, 4935, "TcbRefused"),
    ("tdx/phala_v5_no_tcb_level", 1772500000, 5006, "QuoteRefused"),
    ("tdx/automata_v5_service_td", 1749945600, 5006, "QuoteRefused"),
]
ReportOf = Callable[..., Report]


def outcomes(report: Report) -> dict[str, str]:
    return {check.name: check.outcome for check in report.checks}


def failures(report: Report) -> list[str]:
    return [check.name for check in report.checks if check.outcome == "fail"]


@pytest.fixture
def report_of(platform: DevPlatform, given: Any, now: int) -> ReportOf:
    def build(quote: bytes, about: DevPlatform = platform, at: int = now) -> Report:
        return examine(
            quote,
            chain_id=LOCAL_CHAIN,
            collateral=given(about.collateral_json()),
            now=at,
            development_root=platform.root_der,
        )

    return build


@pytest.mark.parametrize(("name", "now", "end", "refusal"), VECTORS, ids=lambda v: str(v))
def test_links_of_real_quotes_hold_whatever_their_verdict(
    vectors: Path, name: str, now: int, end: int, refusal: str
) -> None:
    report = examine(
        (vectors / f"{name}.quote.bin").read_bytes()[:end],
        chain_id=137,
        collateral=FileCollateral(vectors / f"{name}.collateral.json"),
        now=now,
    )
    assert list(outcomes(report)) == NAMES
    assert set(list(outcomes(report).values())[:-1]) == {"pass"}
    assert report.accepted == (refusal == "")
    assert report.checks[-1].why.startswith(refusal or "the policy allows UpToDate")
    assert (report.verified is not None) == report.accepted


@pytest.mark.parametrize("version", [3, 4, 5])
def test_every_link_of_a_development_quote_holds(
    platform: DevPlatform, report_of: ReportOf, now: int, version: Any
) -> None:
    if version == 3:
        report = report_of(platform.quote(bytes(32), bytes(64)))
    else:
        quote = platform.td_quote(bytes(48), bytes(64), version=version)
        report = report_of(quote, platform.with_collateral(now, tee="tdx"))
    assert report.accepted
    assert list(outcomes(report)) == NAMES
    assert set(outcomes(report).values()) == {"pass"}
    assert "protects nothing" in next(c.why for c in report.checks if c.name == "root")


@pytest.mark.parametrize(
    ("offset", "link"),
    [
        (100, "quote's signature"),
        (440, "quote's signature"),
        (600, "quoting enclave's report"),
        (950, "quoting enclave's report"),
        (1020, "attestation key"),
    ],
)
def test_changed_byte_breaks_its_own_link(
    dev_quote: bytes, report_of: ReportOf, offset: int, link: str
) -> None:
    changed = bytearray(dev_quote)
    changed[offset] ^= 1
    assert failures(report_of(bytes(changed))) == [link, "verdict"]


@pytest.mark.parametrize(
    ("collateral", "link"),
    [
        ({"pck_revoked": True}, "revocation"),
        ({"pck_ca_revoked": True}, "revocation"),
        ({"tcb_signing_revoked": True}, "revocation"),
        ({"fmspc": bytes(6)}, "collateral's subject"),
    ],
)
def test_faulty_collateral_breaks_its_own_link(
    platform: DevPlatform,
    dev_quote: bytes,
    report_of: ReportOf,
    now: int,
    collateral: dict[str, Any],
    link: str,
) -> None:
    report = report_of(dev_quote, platform.with_collateral(now, **collateral))
    assert failures(report) == [link, "verdict"]


def test_collateral_of_the_other_kind_breaks_subject_and_identity(
    platform: DevPlatform, dev_quote: bytes, report_of: ReportOf, now: int
) -> None:
    report = report_of(dev_quote, platform.with_collateral(now, tee="tdx"))
    assert failures(report) == ["collateral's subject", "quoting enclave's identity", "verdict"]


def test_expired_collateral_breaks_its_time(
    dev_quote: bytes, report_of: ReportOf, now: int
) -> None:
    assert failures(report_of(dev_quote, at=now + 31 * DAY)) == ["collateral's time", "verdict"]


def test_collateral_by_another_authority_breaks_its_signatures(
    dev_quote: bytes, report_of: ReportOf, now: int
) -> None:
    other = DevPlatform.create(now, chain_id=LOCAL_CHAIN)
    report = report_of(dev_quote, other)
    assert "collateral's signatures" in failures(report)
    assert not report.accepted


def test_debug_enclave_breaks_production_mode(platform: DevPlatform, report_of: ReportOf) -> None:
    report = report_of(platform.quote(bytes(32), bytes(64), debug=True))
    assert failures(report) == ["production mode", "verdict"]


def test_missing_collateral_skips_what_rests_on_it(
    platform: DevPlatform, dev_quote: bytes, tmp_path: Path, now: int
) -> None:
    report = examine(
        dev_quote,
        chain_id=LOCAL_CHAIN,
        collateral=FileCollateral(tmp_path / "nothing"),
        now=now,
        development_root=platform.root_der,
    )
    assert failures(report) == ["collateral", "verdict"]
    assert [c.name for c in report.checks if c.outcome == "skip"] == NAMES[8:13]


def test_simulated_quote_without_a_root_skips_the_rest(
    platform: DevPlatform, dev_quote: bytes, given: Any, now: int
) -> None:
    report = examine(dev_quote, chain_id=137, collateral=given(platform.collateral_json()), now=now)
    assert failures(report) == ["root", "verdict"]
    assert outcomes(report)["platform certificates"] == "skip"
    assert outcomes(report)["quote's signature"] == "pass"


def test_quote_of_another_platform_asks_for_no_collateral(
    platform: DevPlatform, report_of: ReportOf, now: int
) -> None:
    other = DevPlatform.create(now, chain_id=LOCAL_CHAIN)
    report = report_of(other.quote(bytes(32), bytes(64)))
    assert failures(report) == ["platform certificates", "verdict"]
    assert outcomes(report)["collateral"] == "skip"


@pytest.mark.parametrize("data", [b"", b"no quote", bytes(5000)])
def test_what_is_no_quote_fails_at_its_structure(report_of: ReportOf, data: bytes) -> None:
    report = report_of(data)
    assert list(outcomes(report)) == NAMES
    assert failures(report) == ["structure", "verdict"]


def test_development_root_is_refused_where_money_is_real(
    platform: DevPlatform, dev_quote: bytes, given: Any, now: int
) -> None:
    with pytest.raises(DevelopmentRootRefused):
        examine(
            dev_quote,
            chain_id=137,
            collateral=given(platform.collateral_json()),
            now=now,
            development_root=platform.root_der,
        )


def test_two_readings_agree_on_every_byte(
    platform: DevPlatform,
    dev_quote: bytes,
    report_of: ReportOf,
    verifier_of: Callable[..., QuoteVerifier],
    now: int,
) -> None:
    """What the library refuses for a changed byte, a check of the report's own refuses too."""
    verifier = verifier_of(platform)
    for offset in range(0, 1052, 3):
        changed = bytearray(dev_quote)
        changed[offset] ^= 1 << offset % 8
        with pytest.raises(AttestationRefused):
            verifier.verify(bytes(changed), now)
        assert failures(report_of(bytes(changed)))[:-1], f"byte {offset} only the library refuses"


def test_report_reads_as_json(dev_quote: bytes, report_of: ReportOf, now: int) -> None:
    document = json.loads(report_of(dev_quote).model_dump_json())
    assert (document["at"], document["accepted"]) == (now, True)
    assert document["checks"][0] == {
        "name": "structure",
        "outcome": "pass",
        "why": "SGX quote, version 3",
    }
    assert document["verified"]["simulated"] is True


def test_policy_decides_the_verdict_alone(
    platform: DevPlatform, dev_quote: bytes, given: Any, now: int
) -> None:
    report = examine(
        dev_quote,
        chain_id=LOCAL_CHAIN,
        collateral=given(platform.collateral_json()),
        now=now,
        policy=TcbPolicy(minimum_evaluation=18),
        development_root=platform.root_der,
    )
    assert failures(report) == ["verdict"]
    assert report.checks[-1].why == (
        "EvaluationTooLow: TCB evaluation data number 17 is below the minimum of 18"
    )


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given_any(data=st.data())
def test_no_certificate_makes_a_reader_fail_otherwise(
    platform: DevPlatform, dev_quote: bytes, report_of: ReportOf, data: st.DataObject
) -> None:
    letters = st.sampled_from(b"ABCDxyz019+/=-\n\0")
    changed = bytearray(dev_quote)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(1052, len(changed) - 1))] = data.draw(letters)
    report = report_of(bytes(changed))
    assert list(outcomes(report)) == NAMES
    assert report.accepted or failures(report)
    assert explain(bytes(changed)).fields[-1].meaning
    text = list(platform.collateral_json())
    text[data.draw(st.integers(0, len(text) - 1))] = chr(data.draw(letters))
    with suppress(AttestationRefused):
        authenticate(parse_collateral("".join(text)), key_of_root(platform.root_der))
