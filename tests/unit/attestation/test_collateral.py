"""Collateral is read whole, or refused with what is wrong with it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from oracle.attestation.collateral import (
    INTEL_ROOT_KEY,
    FileCollateral,
    authenticate,
    check_chain,
    parse_collateral,
    public_point,
)
from oracle.attestation.errors import (
    CollateralForged,
    CollateralMalformed,
    CollateralUnavailable,
)
from oracle.attestation.pccs import key_of_root
from oracle.attestation.quote import Quote, parse_quote
from oracle.clients.edge.devplatform import CLOCK_SKEW, DevPlatform


@pytest.fixture
def quote(dev_quote: bytes) -> Quote:
    return parse_quote(dev_quote)


def test_window_is_the_narrowest_of_all_parts(platform: DevPlatform, now: int) -> None:
    collateral = parse_collateral(
        platform.with_collateral(now, validity_seconds=60).collateral_json()
    )
    assert (collateral.valid_from, collateral.valid_until) == (now - CLOCK_SKEW, now + 60)
    assert not collateral.covers(now - CLOCK_SKEW - 1)
    assert collateral.covers(now - CLOCK_SKEW)
    assert collateral.covers(now + 59)
    assert not collateral.covers(now + 60)


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_ca_crl", "pck_crl"])
def test_each_part_narrows_the_window(platform: DevPlatform, now: int, part: str) -> None:
    document = json.loads(platform.collateral_json())
    brief = json.loads(platform.with_collateral(now + 5, validity_seconds=60).collateral_json())
    collateral = parse_collateral(json.dumps({**document, part: brief[part]}))
    assert (collateral.valid_from, collateral.valid_until) == (now + 5 - CLOCK_SKEW, now + 65)


@pytest.mark.parametrize(
    "chain", ["pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain"]
)
def test_each_issuer_chain_narrows_the_window(platform: DevPlatform, now: int, chain: str) -> None:
    document = json.loads(platform.collateral_json())
    newer = json.loads(DevPlatform.create(now + 5, chain_id=31337).collateral_json())
    collateral = parse_collateral(json.dumps({**document, chain: newer[chain]}))
    assert collateral.valid_from == now + 5 - CLOCK_SKEW


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tcb_info": None}, "invalid tcb_info"),
        ({"unknown": "part"}, "invalid unknown"),
        ({"tcb_info": "{}"}, "'issueDate'"),
        ({"qe_identity": "[]"}, "list indices must be integers or slices, not str"),
        ({"root_ca_crl": "zz"}, "non-hexadecimal number found"),
        ({"pck_crl": "00"}, "error parsing asn1 value"),
        ({"tcb_info_issuer_chain": ""}, "Unable to load PEM file"),
        ({"tcb_info_signature": "zz"}, "Invalid character 'z'"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_unreadable_part_is_named(
    platform: DevPlatform, change: dict[str, Any], reason: str
) -> None:
    text = json.dumps({**json.loads(platform.collateral_json()), **change})
    with pytest.raises(CollateralMalformed) as refusal:
        parse_collateral(text)
    assert reason in refusal.value.reason
    assert not refusal.value.final


@pytest.mark.parametrize("number", ["null", "true", "-1", "1.5", '"17"'])
def test_evaluation_that_is_no_number_is_refused(platform: DevPlatform, number: str) -> None:
    document = json.loads(platform.collateral_json())
    statement = document["tcb_info"].replace(
        '"tcbEvaluationDataNumber":17', f'"tcbEvaluationDataNumber":{number}'
    )
    with pytest.raises(CollateralMalformed) as refusal:
        parse_collateral(json.dumps({**document, "tcb_info": statement}))
    assert refusal.value.reason == "a statement's tcbEvaluationDataNumber is not a number"


def test_statements_say_of_what_they_speak(platform: DevPlatform, now: int) -> None:
    for tee, identity in [("sgx", "QE"), ("tdx", "TD_QE")]:
        collateral = parse_collateral(
            platform.with_collateral(now, tee=tee, evaluation=21).collateral_json()
        )
        assert (collateral.tcb_info.about, collateral.tcb_info.fmspc) == (
            tee.upper(),
            "DE7000000001",
        )
        assert collateral.qe_identity.about == identity
        assert collateral.evaluation == 21


def test_collateral_reaches_the_lower_of_its_evaluations(platform: DevPlatform, now: int) -> None:
    document = json.loads(platform.collateral_json())
    older = json.loads(platform.with_collateral(now, evaluation=3).collateral_json())
    for part in ("tcb_info", "qe_identity"):
        mixed = parse_collateral(json.dumps({**document, part: older[part]}))
        assert mixed.evaluation == 3


@pytest.mark.parametrize(
    "name",
    [
        "sgx/phala_v3",
        "sgx/automata_v3",
        "tdx/phala_v4",
        "tdx/near_v4",
        "tdx/automata_v4_outofdate",
        "tdx/phala_v5_no_tcb_level",
        "tdx/automata_v5_service_td",
    ],
)
def test_intels_collateral_is_authentic_under_intels_root_alone(
    vectors: Path, platform: DevPlatform, name: str
) -> None:
    collateral = parse_collateral((vectors / f"{name}.collateral.json").read_text())
    authenticate(collateral, INTEL_ROOT_KEY)
    with pytest.raises(CollateralForged) as refusal:
        authenticate(collateral, key_of_root(platform.root_der))
    assert refusal.value.reason == "its chain does not end at the pinned root"


def test_simulated_collateral_is_not_authentic_under_intels_root(platform: DevPlatform) -> None:
    with pytest.raises(CollateralForged):
        authenticate(parse_collateral(platform.collateral_json()), INTEL_ROOT_KEY)


@pytest.mark.parametrize("part", ["tcb_info_issuer_chain", "pck_crl_issuer_chain"])
def test_issuer_chain_with_another_certificate_is_not_authentic(
    platform: DevPlatform, part: str
) -> None:
    document = json.loads(platform.collateral_json())
    longer = document[part] + document["pck_crl_issuer_chain"]
    collateral = parse_collateral(json.dumps({**document, part: longer}))
    with pytest.raises(CollateralForged) as refusal:
        authenticate(collateral, key_of_root(platform.root_der))
    assert refusal.value.reason == "its chain has 4 certificates, not 2"


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "null"])
def test_text_that_is_no_collateral_is_refused(text: str) -> None:
    with pytest.raises(CollateralMalformed) as refusal:
        parse_collateral(text)
    assert refusal.value.reason == "invalid text"


def test_replaced_file_is_read_anew(quote: Quote, tmp_path: Path) -> None:
    path = tmp_path / "collateral.json"
    source = FileCollateral(path)
    for text in ("first", "second"):
        path.write_text(text)
        assert source.collateral(quote) == text


def test_missing_file_says_where_and_may_be_tried_again(quote: Quote, tmp_path: Path) -> None:
    path = tmp_path / "collateral.json"
    with pytest.raises(CollateralUnavailable) as refusal:
        FileCollateral(path).collateral(quote)
    assert refusal.value.location == str(path)
    assert refusal.value.reason == "No such file or directory"
    assert str(refusal.value) == f"no collateral at {path}: No such file or directory"
    assert not refusal.value.final


def test_file_that_is_not_text_is_refused(quote: Quote, tmp_path: Path) -> None:
    path = tmp_path / "collateral.json"
    path.write_bytes(b"\xff")
    with pytest.raises(CollateralMalformed, match="is not UTF-8"):
        FileCollateral(path).collateral(quote)


def test_certificate_that_is_no_authority_issues_none(now: int) -> None:
    """As a platform's own could otherwise, whose key an attacker may have."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]

    def issue(subject: int, issuer: int, *, ca: bool, by: int) -> x509.Certificate:
        names = [
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"key {number}")])
            for number in (subject, issuer)
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[0])
            .issuer_name(names[1])
            .public_key(keys[subject].public_key())
            .serial_number(1 + subject)
            .not_valid_before(datetime.fromtimestamp(now, UTC))
            .not_valid_after(datetime.fromtimestamp(now + 60, UTC))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        return builder.sign(keys[by], hashes.SHA256())

    root, leaf = issue(0, 0, ca=True, by=0), issue(2, 1, ca=False, by=1)
    top = public_point(root)
    check_chain([leaf, issue(1, 0, ca=True, by=0), root], top)
    with pytest.raises(ValueError, match="issued by one that is no authority"):
        check_chain([leaf, issue(1, 0, ca=False, by=0), root], top)
    for forged in (
        [issue(2, 1, ca=False, by=2), issue(1, 0, ca=True, by=0)],
        [leaf, issue(1, 0, ca=True, by=1)],
    ):
        with pytest.raises(InvalidSignature):
            check_chain([*forged, root], top)
