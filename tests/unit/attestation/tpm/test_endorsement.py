"""An endorsement certificate counts up to a configured root, in its time, for its key and use."""

from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from endorsement import DAY, EndorsementCa, der, key_usage
from hypothesis import given
from hypothesis import strategies as st
from softtpm import SoftKey

from oracle.attestation.errors import EndorsementCertificateRefused
from oracle.attestation.tpm.endorsement import EndorsementRoots
from settlement.errors import InvalidInput

ANY_SERIAL = pytest.mark.filterwarnings("ignore:Parsed a serial number")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0")


def refusal_of(
    vendor: EndorsementCa, endorsement: SoftKey, /, **faults: Any
) -> EndorsementCertificateRefused:
    public = endorsement.parsed()
    certificate = vendor.certify(public.key, **faults)
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        EndorsementRoots([der(vendor.root)]).verify(
            certificate, [der(vendor.issuer)], public, vendor.now
        )
    return refusal.value


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_certificate_vouches_for_its_key(
    ca: EndorsementCa, eks: dict[str, SoftKey], kind: str
) -> None:
    public = eks[kind].parsed()
    certificate = ca.certify(public.key)
    endorsement = EndorsementRoots([der(ca.root)]).verify(
        certificate, [der(ca.issuer)], public, ca.now
    )
    assert endorsement.certificate_digest == sha256(certificate).digest()
    encoded = public.key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert endorsement.key_digest == sha256(encoded).digest()
    assert endorsement.valid_until == ca.now + 365 * DAY


def test_chain_ends_with_its_shortest_link(ca: EndorsementCa, eks: dict[str, SoftKey]) -> None:
    public = eks["ecc"].parsed()
    certificate = ca.certify(public.key, until=ca.now + 10_000 * DAY)
    endorsement = EndorsementRoots([der(ca.root)]).verify(
        certificate, [der(ca.issuer)], public, ca.now
    )
    assert endorsement.valid_until == ca.now + 3650 * DAY


def test_extended_usage_may_be_absent(ca: EndorsementCa, eks: dict[str, SoftKey]) -> None:
    public = eks["rsa"].parsed()
    certificate = ca.certify(public.key, extended=None)
    roots = EndorsementRoots([der(ca.root)])
    assert roots.verify(certificate, [der(ca.issuer)], public, ca.now)


@pytest.mark.parametrize("offset", [-1, 365 * DAY + 1])
def test_certificate_outside_of_its_time_is_refused(
    ca: EndorsementCa, eks: dict[str, SoftKey], offset: int
) -> None:
    public = eks["rsa"].parsed()
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        EndorsementRoots([der(ca.root)]).verify(
            ca.certify(public.key), [der(ca.issuer)], public, ca.now + offset
        )
    assert refusal.value.part == "chain"
    assert "not valid at validation time" in refusal.value.reason


def test_certificate_without_its_intermediate_is_refused(
    ca: EndorsementCa, eks: dict[str, SoftKey]
) -> None:
    public = eks["rsa"].parsed()
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        EndorsementRoots([der(ca.root)]).verify(ca.certify(public.key), [], public, ca.now)
    assert refusal.value.part == "chain"


def test_certificate_of_another_authority_of_the_same_name_is_refused(
    ca: EndorsementCa, eks: dict[str, SoftKey]
) -> None:
    refusal = refusal_of(ca, eks["rsa"], key=ec.generate_private_key(ec.SECP256R1()))
    assert refusal.part == "chain"
    impostor = EndorsementCa.create(ca.now)
    public = eks["rsa"].parsed()
    with pytest.raises(EndorsementCertificateRefused) as other:
        EndorsementRoots([der(ca.root)]).verify(
            impostor.certify(public.key), [der(impostor.issuer)], public, ca.now
        )
    assert other.value.part == "chain"


def test_senders_own_root_does_not_help(ca: EndorsementCa, eks: dict[str, SoftKey]) -> None:
    impostor = EndorsementCa.create(ca.now)
    public = eks["rsa"].parsed()
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        EndorsementRoots([der(ca.root)]).verify(
            impostor.certify(public.key), [der(impostor.issuer), der(impostor.root)], public, ca.now
        )
    assert refusal.value.part == "chain"


def test_endorsed_key_is_no_authority(ca: EndorsementCa, eks: dict[str, SoftKey]) -> None:
    """A TPM's owner cannot issue certificates below the one that it holds."""
    held = eks["ecc"]
    certificate = ca.certify(held.parsed().key)
    below = EndorsementCa(ca.now, ca.root, x509.load_der_x509_certificate(certificate), held.key)
    public = eks["rsa"].parsed()
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        EndorsementRoots([der(ca.root)]).verify(
            below.certify(public.key), [certificate, der(ca.issuer)], public, ca.now
        )
    assert refusal.value.part == "chain"


@pytest.mark.parametrize(
    ("kind", "faults", "part", "reason"),
    [
        ("rsa", {"ca": True}, "usage", "it is a CA's"),
        ("rsa", {"has_usage": False}, "usage", "it has no key usage"),
        (
            "rsa",
            {"usage": key_usage(key_agreement=True)},
            "usage",
            "its key usage is without keyEncipherment",
        ),
        (
            "ecc",
            {"usage": key_usage(key_encipherment=True)},
            "usage",
            "its key usage is without keyAgreement",
        ),
        (
            "rsa",
            {"usage": key_usage(key_encipherment=True, digital_signature=True)},
            "usage",
            "its key may sign",
        ),
        (
            "rsa",
            {"extended": ExtendedKeyUsageOID.CLIENT_AUTH},
            "usage",
            "it is not for an endorsement key",
        ),
        (
            "rsa",
            {"extra": UNKNOWN},
            "chain",
            "certificate contains unaccounted-for critical extensions",
        ),
    ],
    ids=["CA", "no usage", "RSA", "ECC", "signing", "extended", "unknown critical extension"],
)
def test_each_fault_is_refused(
    ca: EndorsementCa,
    eks: dict[str, SoftKey],
    kind: str,
    faults: dict[str, Any],
    part: str,
    reason: str,
) -> None:
    refusal = refusal_of(ca, eks[kind], **faults)
    assert refusal.part == part
    # the library names the chain that failed around its reason
    assert reason in refusal.reason if part == "chain" else reason == refusal.reason


@pytest.mark.parametrize(("certified", "shown"), [("rsa", "ecc"), ("ecc", "rsa")])
def test_certificate_of_another_key_is_refused(
    ca: EndorsementCa, eks: dict[str, SoftKey], certified: str, shown: str
) -> None:
    public = eks[shown].parsed()
    both = key_usage(key_agreement=True, key_encipherment=True)
    certificate = ca.certify(eks[certified].parsed().key, usage=both)
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        EndorsementRoots([der(ca.root)]).verify(certificate, [der(ca.issuer)], public, ca.now)
    assert (refusal.value.part, refusal.value.reason) == ("key", "it is for another key")


def test_revoked_key_is_refused_under_any_certificate(
    ca: EndorsementCa, eks: dict[str, SoftKey]
) -> None:
    public = eks["rsa"].parsed()
    issuer = [der(ca.issuer)]
    first = EndorsementRoots([der(ca.root)]).verify(ca.certify(public.key), issuer, public, ca.now)
    roots = EndorsementRoots([der(ca.root)], revoked_keys=frozenset({first.key_digest}))
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        roots.verify(ca.certify(public.key), issuer, public, ca.now)
    assert (refusal.value.part, refusal.value.reason) == ("revocation", "the key is revoked here")


def test_several_roots_are_all_trusted(ca: EndorsementCa, eks: dict[str, SoftKey]) -> None:
    other = EndorsementCa.create(ca.now, "Another vendor")
    roots = EndorsementRoots([der(other.root), der(ca.root)])
    public = eks["ecc"].parsed()
    for vendor in (ca, other):
        assert roots.verify(vendor.certify(public.key), [der(vendor.issuer)], public, ca.now)


def test_roots_must_be_certificates() -> None:
    with pytest.raises(InvalidInput, match="at least one endorsement root"):
        EndorsementRoots([])
    with pytest.raises(InvalidInput, match="is not a certificate"):
        EndorsementRoots([b"no certificate"])


@pytest.mark.parametrize("tail", [b"\0", b"\xff" * 16])
def test_trailing_bytes_are_refused(
    ca: EndorsementCa, eks: dict[str, SoftKey], tail: bytes
) -> None:
    public = eks["rsa"].parsed()
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        EndorsementRoots([der(ca.root)]).verify(
            ca.certify(public.key) + tail, [der(ca.issuer)], public, ca.now
        )
    assert refusal.value.part == "form"


@ANY_SERIAL
def test_every_byte_of_a_certificate_counts(ca: EndorsementCa, eks: dict[str, SoftKey]) -> None:
    public = eks["ecc"].parsed()
    roots, issuer = EndorsementRoots([der(ca.root)]), [der(ca.issuer)]
    certificate = ca.certify(public.key)
    assert roots.verify(certificate, issuer, public, ca.now)
    for offset in range(len(certificate)):
        changed = bytearray(certificate)
        changed[offset] ^= 1 << offset % 8
        with pytest.raises(EndorsementCertificateRefused):
            roots.verify(bytes(changed), issuer, public, ca.now)


@ANY_SERIAL
@given(
    changes=st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 255)), min_size=1, max_size=4),
    tail=st.binary(max_size=4),
    intermediates=st.sampled_from(["issuer", "nonsense", "itself"]),
)
def test_no_bytes_make_the_verifier_fail_otherwise(
    ca: EndorsementCa,
    eks: dict[str, SoftKey],
    changes: list[tuple[int, int]],
    tail: bytes,
    intermediates: str,
) -> None:
    public = eks["ecc"].parsed()
    roots = EndorsementRoots([der(ca.root)])
    genuine = ca.certify(public.key)
    changed = bytearray(genuine + tail)
    for spot, value in changes:
        changed[spot % len(genuine)] = value
    sent = {"issuer": [der(ca.issuer)], "nonsense": [b"\x30"], "itself": [bytes(changed)]}
    try:
        roots.verify(bytes(changed), sent[intermediates], public, ca.now)
    except EndorsementCertificateRefused:
        return
    assert changed == genuine
    assert intermediates == "issuer"
