"""Collateral fetched over HTTP is used while it is true, whole and new, and never otherwise."""

import json
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from integration.attestation.collateral_service import (
    LOCAL_CHAIN,
    NOW,
    PATHS,
    PCK_CRL,
    QE,
    ROOT_CRL,
    TCB,
    Answer,
    CollateralService,
)
from typer.testing import CliRunner

from oracle.attestation.cli import app
from oracle.attestation.errors import (
    CollateralForged,
    CollateralMalformed,
    CollateralMismatch,
    CollateralRolledBack,
    CollateralTooLarge,
    CollateralUnavailable,
    CollateralUnknown,
    EvaluationTooLow,
    PlatformUnproven,
    QuoteStale,
    SimulatedQuoteRefused,
)
from oracle.attestation.pccs import MAX_PART, PccsClient, PccsCollateral
from oracle.attestation.quote import Quote, parse_quote
from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge.devplatform import DAY, DevPlatform

REFRESH = 6 * 3600
PAUSE = 60


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quote(platform: DevPlatform) -> Quote:
    return parse_quote(platform.quote(bytes(32), bytes(64)))


@pytest.fixture
def source_of(
    service: CollateralService, platform: DevPlatform, clock: Clock, tmp_path: Path
) -> Callable[..., PccsCollateral]:
    """A source as it is after a start: each shares the directory and nothing else."""

    def build(minimum: int = 0, **client: object) -> PccsCollateral:
        options = {"timeout": 2.0, "backoff": 0.001, **client}
        return PccsCollateral(
            PccsClient(service.url, **options),  # type: ignore[arg-type]
            tmp_path / "collateral",
            minimum_evaluation=minimum,
            development_root=platform.root_der,
            refresh=REFRESH,
            pause=PAUSE,
            clock=clock,
        )

    return build


SourceOf = Callable[..., PccsCollateral]


def test_fetched_collateral_verifies_a_quote(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform)
    source = source_of()
    assert json.loads(source.collateral(quote)) == json.loads(platform.collateral_json())
    verifier = QuoteVerifier(
        chain_id=LOCAL_CHAIN, collateral=source, development_root=platform.root_der
    )
    assert verifier.verify(quote.raw, NOW).tcb_status == "UpToDate"
    assert [(a.path, a.parameters) for a in service.asked] == [
        (TCB, {"fmspc": "DE7000000001"}),
        (QE, {}),
        (PCK_CRL, {"ca": "platform", "encoding": "der"}),
        (ROOT_CRL, {}),
    ]


@pytest.mark.parametrize(
    ("name", "now", "end", "issuer"),
    [
        ("sgx/phala_v3", 1751500800, 4600, "processor"),
        ("sgx/automata_v3", 1755236700, 4734, "platform"),
        ("tdx/phala_v4", 1751500800, 4936, "platform"),
        ("tdx/near_v4", 1758000000, 4936, "platform"),
        ("tdx/automata_v4_outofdate", 1749095100, 4935, "platform"),
    ],
)
def test_intels_own_collateral_is_taken_for_a_real_machine(
    service: CollateralService, tmp_path: Path, name: str, now: int, end: int, issuer: str
) -> None:
    vectors = Path(__file__).parents[2] / "vectors" / "attestation"
    document = (vectors / f"{name}.collateral.json").read_text()
    quote = parse_quote((vectors / f"{name}.quote.bin").read_bytes()[:end])
    service.serve_json(document, name[:3])
    source = PccsCollateral(PccsClient(service.url), tmp_path, clock=lambda: now)
    taken = json.loads(source.collateral(quote))
    assert taken == {key: json.loads(document)[key] for key in taken}
    assert service.asked[2].parameters["ca"] == issuer


@pytest.mark.parametrize("version", [4, 5])
def test_td_quote_asks_for_td_collateral(
    service: CollateralService, platform: DevPlatform, source_of: SourceOf, version: int
) -> None:
    service.serve(platform.with_collateral(NOW, tee="tdx"), "tdx")
    raw = platform.td_quote(bytes(48), bytes(64), version=version)  # type: ignore[arg-type]
    verifier = QuoteVerifier(
        chain_id=LOCAL_CHAIN, collateral=source_of(), development_root=platform.root_der
    )
    assert verifier.verify(raw, NOW).kind == "tdx"
    assert [asked.path for asked in service.asked] == [
        TCB.replace("sgx", "tdx"),
        QE.replace("sgx", "tdx"),
        PCK_CRL,
        ROOT_CRL,
    ]


def test_early_updates_are_asked_for_by_name(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform)
    source_of(update="early").collateral(quote)
    assert [asked.parameters.get("update") for asked in service.asked] == [
        "early",
        "early",
        None,
        None,
    ]


@pytest.mark.parametrize("path", [PCK_CRL, ROOT_CRL])
@pytest.mark.parametrize("form", ["der", "hex", "pem"])
def test_each_form_of_a_crl_is_taken(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    path: str,
    form: str,
) -> None:
    name = "pck_crl" if path == PCK_CRL else "root_ca_crl"
    der = bytes.fromhex(json.loads(platform.collateral_json())[name])
    pem = x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)
    body = {"der": der, "hex": der.hex().upper().encode() + b"\n", "pem": pem}[form]
    service.serve(platform)
    service.fault(path, lambda true: replace(true, body=body))
    assert json.loads(source_of().collateral(quote))[name] == der.hex()


def test_kept_collateral_is_used_after_a_restart_and_asks_nobody(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    clock: Clock,
    tmp_path: Path,
) -> None:
    service.serve(platform)
    text = source_of().collateral(quote)
    asked = len(service.asked)
    clock.now += REFRESH - 1
    assert source_of().collateral(quote) == text
    assert len(service.asked) == asked
    files = sorted(f.name for f in (tmp_path / "collateral").rglob("*") if f.is_file())
    assert files == [".lock", "seen.json", "sgx-de7000000001-platform.json"]
    directory = next((tmp_path / "collateral").iterdir())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_kept_collateral_is_renewed_when_it_is_due(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    clock: Clock,
) -> None:
    service.serve(platform)
    source = source_of()
    source.collateral(quote)
    clock.now += REFRESH
    newer = platform.with_collateral(clock.now)
    service.serve(newer)
    assert json.loads(source.collateral(quote)) == json.loads(newer.collateral_json())


def test_clock_that_was_set_back_asks_again(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    clock: Clock,
) -> None:
    service.serve(platform)
    source = source_of()
    source.collateral(quote)
    asked = len(service.asked)
    clock.now -= 1
    source.collateral(quote)
    assert len(service.asked) == 2 * asked


def test_while_the_service_is_down_kept_collateral_serves_until_its_end_and_no_longer(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    clock: Clock,
) -> None:
    service.serve(platform.with_collateral(NOW, validity_seconds=DAY))
    source = source_of(attempts=1)
    text = source.collateral(quote)
    for path in PATHS:
        service.fault(path, lambda _: Answer(status=500))
    clock.now = NOW + DAY - 1
    assert source.collateral(quote) == text
    asked = len(service.asked)
    assert source.collateral(quote) == text
    assert len(service.asked) == asked, "it must not be asked at each quote while it fails"
    clock.now = NOW + DAY
    with pytest.raises(CollateralUnavailable) as refusal:
        source.collateral(quote)
    assert refusal.value.reason == "HTTP 500"


def test_service_that_failed_is_asked_again_after_a_pause(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    clock: Clock,
) -> None:
    service.serve(platform)
    service.fault(TCB, lambda _: Answer(status=503))
    source = source_of(attempts=1)
    for _ in range(3):
        with pytest.raises(CollateralUnavailable) as refusal:
            source.collateral(quote)
        assert refusal.value.code == "CollateralUnavailable"
    assert len(service.asked) == 1
    service.faults.clear()
    clock.now += PAUSE
    source.collateral(quote)
    assert len(service.asked) == 5


def test_passing_failure_is_tried_again(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform)
    failures = iter([500, 429])

    def fail(true: Answer) -> Answer:
        status = next(failures, 200)
        return true if status == 200 else Answer(status=status)

    service.fault(QE, fail)
    source_of(attempts=3).collateral(quote)
    assert [a.path for a in service.asked].count(QE) == 3


@pytest.mark.parametrize("path", PATHS)
def test_failure_that_lasts_names_the_place(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    path: str,
) -> None:
    service.serve(platform)
    service.fault(path, lambda _: Answer(status=500))
    with pytest.raises(CollateralUnavailable) as refusal:
        source_of(attempts=2).collateral(quote)
    assert (refusal.value.location, refusal.value.reason) == (service.url + path, "HTTP 500")
    assert not refusal.value.final
    assert [a.path for a in service.asked].count(path) == 2


@pytest.mark.parametrize("status", [301, 400, 401, 403])
def test_refusal_by_the_service_is_not_repeated(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    status: int,
) -> None:
    service.serve(platform)
    elsewhere = {"Location": service.url + TCB}
    service.fault(TCB, lambda _: Answer(status=status, headers=elsewhere))
    with pytest.raises(CollateralUnavailable) as refusal:
        source_of().collateral(quote)
    assert refusal.value.reason == f"HTTP {status}"
    assert len(service.asked) == 1


def test_platform_that_the_service_does_not_know_is_told(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform.with_collateral(NOW, fmspc=bytes(6)))
    with pytest.raises(CollateralUnknown) as refusal:
        source_of().collateral(quote)
    assert refusal.value.location == f"{service.url}{TCB}?fmspc=DE7000000001"
    assert len(service.asked) == 1


def test_service_that_is_not_there_is_unavailable(
    service: CollateralService, quote: Quote, source_of: SourceOf
) -> None:
    source = source_of(attempts=2)
    service.stop()
    with pytest.raises(CollateralUnavailable) as refusal:
        source.collateral(quote)
    assert refusal.value.reason.startswith("ConnectError")


def test_service_that_keeps_silent_is_given_up(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    silence = threading.Event()
    service.serve(platform)

    def wait(true: Answer) -> Answer:
        silence.wait(10)
        return true

    service.fault(TCB, wait)
    with pytest.raises(CollateralUnavailable) as refusal:
        source_of(timeout=0.05, attempts=2).collateral(quote)
    silence.set()
    assert refusal.value.reason.startswith("ReadTimeout")
    assert len(service.asked) == 2


def test_answer_that_drips_is_given_up(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform)
    with pytest.raises(CollateralUnavailable) as refusal:
        source_of(budget=0.0).collateral(quote)
    assert refusal.value.reason == "slower than 0.0 s"


@pytest.mark.parametrize("path", PATHS)
def test_truncated_answer_is_not_taken(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    path: str,
) -> None:
    service.serve(platform)
    service.fault(path, lambda true: replace(true, body=true.body[:-1], claimed=len(true.body)))
    with pytest.raises(CollateralUnavailable) as refusal:
        source_of(attempts=1).collateral(quote)
    assert refusal.value.reason.startswith("RemoteProtocolError")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"tcbInfo":{},"signature":"00"}',
        b'{"tcbInfo":{},"enclaveIdentity":{},"signature":"' + b"00" * 64 + b'"}',
    ],
    ids=["empty", "html", "no members", "no text", "deep", "short signature", "two members"],
)
def test_garbage_is_refused(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    path: str,
    body: bytes,
) -> None:
    service.serve(platform)
    service.fault(path, lambda true: replace(true, body=body))
    with pytest.raises(CollateralMalformed) as refusal:
        source_of().collateral(quote)
    assert refusal.value.reason.startswith(f"{service.url}{path} gave no ")
    assert not refusal.value.final


def test_statement_of_other_members_is_refused(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform)
    body = b'{"tcbInfo":{},"signature":"' + b"00" * 64 + b'"}'
    service.fault(TCB, lambda true: replace(true, body=body))
    with pytest.raises(CollateralMalformed) as refusal:
        source_of().collateral(quote)
    assert refusal.value.reason == "a statement has no 'issueDate'"


@pytest.mark.parametrize("path", PATHS)
def test_endless_answer_is_cut(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    path: str,
) -> None:
    service.serve(platform)
    service.fault(path, lambda true: replace(true, body=bytes(MAX_PART + 1)))
    with pytest.raises(CollateralTooLarge) as refusal:
        source_of().collateral(quote)
    assert (refusal.value.part, refusal.value.limit) == (service.url + path, MAX_PART)


def test_compressed_answer_is_refused(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform)
    service.fault(
        TCB, lambda true: replace(true, headers={**true.headers, "Content-Encoding": "gzip"})
    )
    with pytest.raises(CollateralMalformed, match="answered compressed"):
        source_of().collateral(quote)


@pytest.mark.parametrize(
    ("path", "header"),
    [
        (TCB, "TCB-Info-Issuer-Chain"),
        (QE, "SGX-Enclave-Identity-Issuer-Chain"),
        (PCK_CRL, "SGX-PCK-CRL-Issuer-Chain"),
    ],
)
def test_issuer_chain_that_is_missing_or_too_long_is_refused(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    path: str,
    header: str,
) -> None:
    service.serve(platform)
    service.fault(path, lambda true: replace(true, headers={}))
    with pytest.raises(CollateralMalformed) as refusal:
        source_of().collateral(quote)
    assert refusal.value.reason == f"{service.url}{path} gave no {header} header"
    service.fault(path, lambda true: replace(true, headers={header: "x" * 20_000}))
    with pytest.raises(CollateralTooLarge) as too_large:
        source_of().collateral(quote)
    assert too_large.value.part == header


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl"])
def test_part_by_another_authority_is_refused(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    part: str,
) -> None:
    document = json.loads(platform.collateral_json())
    other = json.loads(DevPlatform.create(NOW, chain_id=LOCAL_CHAIN).collateral_json())
    own = {name: other[name] for name in other if name.startswith(part)}
    service.serve_json(json.dumps({**document, **own}))
    with pytest.raises(CollateralForged) as refusal:
        source_of().collateral(quote)
    assert refusal.value.part == part
    assert not refusal.value.final


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity"])
def test_changed_statement_is_refused(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    part: str,
) -> None:
    document = json.loads(platform.collateral_json())
    changed = document[part].replace('"tcbEvaluationDataNumber":17', '"tcbEvaluationDataNumber":99')
    assert changed != document[part]
    service.serve_json(json.dumps({**document, part: changed}))
    with pytest.raises(CollateralForged) as refusal:
        source_of().collateral(quote)
    assert (refusal.value.part, refusal.value.reason) == (part, "its signature is wrong")
    # Nothing of it was remembered: the true one still counts.
    service.serve(platform)
    source_of().collateral(quote)


def test_statement_signed_by_a_platforms_key_is_refused(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    document = json.loads(platform.collateral_json())
    chain = document["pck_crl_issuer_chain"]
    service.serve_json(json.dumps({**document, "tcb_info_issuer_chain": chain}))
    with pytest.raises(CollateralForged) as refusal:
        source_of().collateral(quote)
    assert refusal.value.reason == "it is signed by a certificate authority"


def test_collateral_of_another_machine_is_refused(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    other = platform.with_collateral(NOW, fmspc=bytes.fromhex("00606A000000"))
    service.serve(other)
    document = json.loads(other.collateral_json())
    body = f'{{"tcbInfo":{document["tcb_info"]},"signature":"{document["tcb_info_signature"]}"}}'
    headers = {"TCB-Info-Issuer-Chain": document["tcb_info_issuer_chain"].replace("\n", "%0A")}
    service.fault(TCB, lambda _: Answer(body.encode(), headers))
    with pytest.raises(CollateralMismatch) as refusal:
        source_of().collateral(quote)
    assert (refusal.value.found, refusal.value.expected) == ("00606A000000", "DE7000000001")


def test_td_collateral_is_not_taken_for_an_sgx_quote(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform.with_collateral(NOW, tee="tdx"))
    with pytest.raises(CollateralMismatch) as refusal:
        source_of().collateral(quote)
    assert (refusal.value.part, refusal.value.found, refusal.value.expected) == (
        "tcb_info",
        "TDX",
        "SGX",
    )


@pytest.mark.parametrize(("shift", "edge"), [(-60 * DAY, "expired"), (60 * DAY, "future")])
def test_collateral_outside_its_time_is_refused(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    shift: int,
    edge: str,
) -> None:
    service.serve(platform.with_collateral(NOW + shift))
    with pytest.raises(QuoteStale) as refusal:
        source_of().collateral(quote)
    assert refusal.value.now == NOW
    assert (refusal.value.valid_until <= NOW) == (edge == "expired")


def test_evaluation_below_the_minimum_is_refused(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform.with_collateral(NOW, evaluation=16))
    with pytest.raises(EvaluationTooLow) as refusal:
        source_of(minimum=17).collateral(quote)
    assert (refusal.value.found, refusal.value.minimum) == (16, 17)


def test_raised_minimum_ends_what_was_kept(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform.with_collateral(NOW, evaluation=16))
    source_of(minimum=16).collateral(quote)
    newer = platform.with_collateral(NOW, evaluation=17)
    service.serve(newer)
    kept = json.loads(source_of(minimum=17).collateral(quote))
    assert kept == json.loads(newer.collateral_json())


def test_evaluation_never_goes_back_not_even_after_the_newer_expired(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    clock: Clock,
) -> None:
    newer = platform.with_collateral(NOW, evaluation=18, validity_seconds=DAY)
    service.serve(newer)
    source_of().collateral(quote)
    clock.now = NOW + REFRESH
    service.serve(platform.with_collateral(clock.now, evaluation=17))
    assert json.loads(source_of().collateral(quote)) == json.loads(newer.collateral_json())
    clock.now = NOW + DAY
    with pytest.raises(CollateralRolledBack) as refusal:
        source_of().collateral(quote)
    assert (refusal.value.part, refusal.value.measure) == ("tcb_info", "evaluation number")
    assert (refusal.value.found, refusal.value.seen) == (17, 18)


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl"])
def test_older_issue_of_any_part_is_refused(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    clock: Clock,
    part: str,
) -> None:
    older = json.loads(platform.with_collateral(NOW - 60).collateral_json())
    newer = platform.with_collateral(NOW, validity_seconds=DAY)
    service.serve(newer)
    source_of().collateral(quote)
    clock.now = NOW + DAY
    later = json.loads(platform.with_collateral(clock.now).collateral_json())
    service.serve_json(
        json.dumps({**later, **{name: older[name] for name in older if name.startswith(part)}})
    )
    with pytest.raises(CollateralRolledBack) as refusal:
        source_of().collateral(quote)
    assert (refusal.value.part, refusal.value.measure) == (part, "issue time")
    assert refusal.value.seen - refusal.value.found == 60


def test_quoting_enclave_identity_seen_for_one_machine_counts_for_all(
    service: CollateralService, platform: DevPlatform, source_of: SourceOf, clock: Clock
) -> None:
    source = source_of()
    service.serve(platform.with_collateral(NOW, evaluation=18))
    source.collateral(parse_quote(platform.quote(bytes(32), bytes(64))))
    seen = json.loads(next(source._directory.rglob("seen.json")).read_text())
    assert {name: value["evaluation"] for name, value in seen.items()} == {
        "tcb_info/sgx/DE7000000001": 18,
        "qe_identity/sgx": 18,
        "pck_crl/platform": 0,
        "root_ca_crl": 0,
    }


@pytest.mark.parametrize("damage", ["", "{}", '{"fetched":1,"text":"x"}', "changed"])
def test_damaged_record_is_fetched_again(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    tmp_path: Path,
    damage: str,
) -> None:
    service.serve(platform)
    text = source_of().collateral(quote)
    record = next(tmp_path.rglob("sgx-*.json"))
    forged = record.read_text().replace("UpToDate", "upToDate")
    record.write_text(forged if damage == "changed" else damage)
    asked = len(service.asked)
    assert source_of().collateral(quote) == text
    assert len(service.asked) == 2 * asked


def test_damaged_memory_of_what_was_seen_stops_the_source(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    tmp_path: Path,
) -> None:
    service.serve(platform)
    source_of().collateral(quote)
    seen = next(tmp_path.rglob("seen.json"))
    seen.write_text("")
    with pytest.raises(CollateralUnavailable) as refusal:
        source_of().collateral(quote)
    assert (refusal.value.location, refusal.value.reason) == (
        str(seen),
        "is damaged; restore or delete it",
    )


def test_directory_that_cannot_be_written_is_named(
    service: CollateralService,
    platform: DevPlatform,
    quote: Quote,
    source_of: SourceOf,
    tmp_path: Path,
) -> None:
    service.serve(platform)
    (tmp_path / "collateral").write_text("a file")
    with pytest.raises(CollateralUnavailable) as refusal:
        source_of().collateral(quote)
    assert refusal.value.location.startswith(str(tmp_path / "collateral"))
    assert refusal.value.reason in ("Not a directory", "File exists")


def test_quote_of_another_root_is_refused_before_anybody_is_asked(
    service: CollateralService, platform: DevPlatform, source_of: SourceOf
) -> None:
    service.serve(platform)
    other = DevPlatform.create(NOW, chain_id=LOCAL_CHAIN)
    with pytest.raises(PlatformUnproven) as refusal:
        source_of().collateral(parse_quote(other.quote(bytes(32), bytes(64))))
    assert refusal.value.reason == "its chain does not end at the pinned root"
    assert service.asked == []


def test_unmarked_quote_of_a_development_platform_is_refused_before_anybody_is_asked(
    service: CollateralService, platform: DevPlatform, source_of: SourceOf
) -> None:
    raw = bytearray(platform.quote(bytes(32), bytes(64)))
    raw[28:48] = bytes(20)
    with pytest.raises(PlatformUnproven):
        source_of().collateral(parse_quote(bytes(raw)))
    assert service.asked == []


def test_simulated_quote_needs_a_development_root(
    service: CollateralService, quote: Quote, tmp_path: Path
) -> None:
    source = PccsCollateral(PccsClient(service.url), tmp_path)
    with pytest.raises(SimulatedQuoteRefused):
        source.collateral(quote)
    assert service.asked == []


def test_many_at_once_ask_the_service_once(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform)
    source = source_of()
    start = threading.Barrier(8)
    texts: list[str] = []

    def ask() -> None:
        start.wait()
        texts.append(source.collateral(quote))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert len(set(texts)) == 1
    assert len(service.asked) == 4


def test_two_roots_share_no_memory(
    service: CollateralService, platform: DevPlatform, quote: Quote, source_of: SourceOf
) -> None:
    service.serve(platform.with_collateral(NOW, evaluation=30))
    source_of().collateral(quote)
    other = DevPlatform.create(NOW, chain_id=LOCAL_CHAIN)
    service.serve(other)
    source = PccsCollateral(
        PccsClient(service.url),
        source_of()._directory,
        development_root=other.root_der,
        clock=lambda: NOW,
    )
    assert source.collateral(parse_quote(other.quote(bytes(32), bytes(64))))


@pytest.fixture
def certified(platform: DevPlatform, tmp_path: Path) -> Iterator[tuple[CollateralService, Path]]:
    """A service over TLS with a certificate of its own making, and that certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospital's PCCS")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(secret)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    service = CollateralService(tls)
    service.serve(platform)
    yield service, tmp_path / "ca.pem"
    service.stop()


def test_service_with_a_certificate_of_its_own_is_taken_when_it_is_pinned(
    certified: tuple[CollateralService, Path],
    platform: DevPlatform,
    quote: Quote,
    tmp_path: Path,
) -> None:
    service, ca_file = certified

    def source(client: PccsClient) -> PccsCollateral:
        root = platform.root_der
        return PccsCollateral(client, tmp_path / "kept", development_root=root, clock=lambda: NOW)

    with pytest.raises(CollateralUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        source(PccsClient(service.url, attempts=1)).collateral(quote)
    assert source(PccsClient(service.url, ca_file=ca_file)).collateral(quote)
    with pytest.raises(CollateralUnavailable) as refusal:
        PccsClient(service.url, ca_file=tmp_path / "nothing")
    assert refusal.value.location == str(tmp_path / "nothing")


def test_command_line_checks_a_quote_with_fetched_collateral(
    service: CollateralService, platform: DevPlatform, quote: Quote, tmp_path: Path
) -> None:
    service.serve(platform)
    (tmp_path / "quote").write_bytes(quote.raw)
    (tmp_path / "root").write_bytes(platform.root_der)
    arguments = [
        "verify", str(tmp_path / "quote"), "--pccs", service.url, "--cache", str(tmp_path / "kept"),
        "--dev-root", str(tmp_path / "root"), "--chain-id", str(LOCAL_CHAIN), "--at", str(NOW),
        "--json",
    ]  # fmt: skip
    for _ in range(2):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["accepted"] is True
    assert len(service.asked) == 4
