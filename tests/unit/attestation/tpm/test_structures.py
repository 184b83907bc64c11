"""Every length, type and algorithm in a TPM structure is checked before anything is believed."""

import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from softtpm import AK, EK, SoftKey, attest, sized

from oracle.attestation.errors import (
    NotATpmQuote,
    NotTpmGenerated,
    TpmMalformed,
    TpmRefused,
    TpmTrailingBytes,
)
from oracle.attestation.tpm.structures import (
    Attributes,
    Bank,
    Scheme,
    parse_attest,
    parse_public,
    parse_signature,
    selection_text,
)

PCRS = {Bank.SHA256: {8: bytes(32), 15: bytes(32)}, Bank.SHA384: {0: bytes(48), 23: bytes(48)}}
ATTEST = attest(b"nonce", PCRS, b"digest")
SELECTIONS = ATTEST.index(struct.pack(">I", 2) + b"\0\x0b\3")
SAFE = SELECTIONS - 9
EC_HEAD = struct.pack(">HHIHHHH", 0x23, 0x0B, AK, 0, 0x10, 0x18, 0x0B)


def changed(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def test_attest_gives_its_fields() -> None:
    parsed = parse_attest(attest(b"nonce", PCRS, b"digest", safe=0, clock=7, resets=2, restarts=3))
    assert parsed.extra_data == b"nonce"
    assert parsed.pcr_digest == b"digest"
    assert (parsed.clock, parsed.reset_count, parsed.restart_count, parsed.safe) == (7, 2, 3, False)
    assert parsed.selection == {Bank.SHA256: {8, 15}, Bank.SHA384: {0, 23}}
    assert list(parsed.selection) == [Bank.SHA256, Bank.SHA384]
    assert selection_text(parsed.selection) == "sha256:8,15+sha384:0,23"


@pytest.mark.parametrize("magic", [0, 0xFF544346, 0x474354FF])
def test_attest_without_the_magic_value_is_refused(magic: int) -> None:
    with pytest.raises(NotTpmGenerated) as refusal:
        parse_attest(attest(b"", PCRS, b"", magic=magic))
    assert refusal.value.magic == magic


@pytest.mark.parametrize("kind", [0x8014, 0x8015, 0x8016, 0x8017, 0x8019, 0x801A, 0x801C, 0])
def test_other_attestation_is_refused(kind: int) -> None:
    with pytest.raises(NotATpmQuote) as refusal:
        parse_attest(attest(b"", PCRS, b"", kind=kind))
    assert refusal.value.kind == kind


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (SAFE, b"\2", "safe is 2, which is neither yes nor no"),
        (SELECTIONS + 4, b"\0\x12", "PCR bank 0x0012 is not supported"),
        (SELECTIONS + 6, b"\2", "a PCR bitmap has 2 bytes, not 3"),
        (SELECTIONS + 10, b"\0\x0b", "bank sha256 is selected twice"),
        (SELECTIONS, b"\xff\xff\xff\xff", "PCR bank 0x0006 is not supported"),
        (6, b"\xff\xff", "it ends inside qualified signer"),
    ],
)
def test_attest_that_does_not_fit_is_refused(offset: int, value: bytes, reason: str) -> None:
    with pytest.raises(TpmMalformed) as refusal:
        parse_attest(changed(ATTEST, offset, value))
    assert (refusal.value.structure, refusal.value.reason) == ("TPMS_ATTEST", reason)


def test_attest_cut_anywhere_is_refused() -> None:
    for end in range(len(ATTEST)):
        with pytest.raises(TpmMalformed, match="it ends inside"):
            parse_attest(ATTEST[:end])


def test_attest_with_trailing_bytes_is_refused() -> None:
    with pytest.raises(TpmTrailingBytes) as refusal:
        parse_attest(ATTEST + b"\0\0")
    assert (refusal.value.end, refusal.value.length) == (len(ATTEST), len(ATTEST) + 2)


def test_public_areas_give_their_fields(aks: dict[str, SoftKey], eks: dict[str, SoftKey]) -> None:
    for key in (*aks.values(), *eks.values()):
        public = key.parsed()
        assert public.attributes == key.attributes
        assert public.bank == key.bank
        assert public.aes_bits == key.aes_bits
        assert public.key.public_numbers() == key.key.public_key().public_numbers()
        if key.scheme is None:
            assert public.scheme is None
        else:
            assert public.scheme is not None
            assert (public.scheme.scheme, public.scheme.bank) == (key.scheme, key.hash)
        digest = key.bank.digest(key.public()[2:])
        assert public.name == key.bank.algorithm_id.to_bytes(2, "big") + digest


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"\0\x08", "key type 0x0008 is not supported"),
        (2, b"\0\x10", "name algorithm 0x0010 is not supported"),
        (2, b"\0\x12", "name algorithm 0x0012 is not supported"),
        (4, b"\x80\0\0\0", "attributes 0x80000000 have unknown bits"),
        (4, b"\0\0\0\x01", "attributes 0x00000001 have unknown bits"),
        (10, b"\0\x25", "symmetric algorithm 0x0025 of 24 bits in mode 0x000b is not supported"),
        (12, b"\0\x17", "scheme 0x0017 is not supported"),
        (12, b"\0\x14", "scheme RSASSA is not one of the key's type"),
        (14, b"\0\x12", "scheme hash 0x0012 is not supported"),
        (16, b"\0\x20", "curve 0x0020 with KDF 0x0010 is not supported"),
        (18, b"\0\x20", "curve 0x0003 with KDF 0x0020 is not supported"),
        (22, bytes(32), "the point is not on the curve"),
    ],
)
def test_ecc_public_area_that_does_not_fit_is_refused(
    ak: SoftKey, offset: int, value: bytes, reason: str
) -> None:
    with pytest.raises(TpmMalformed) as refusal:
        parse_public(changed(ak.public(), offset + 2, value))
    assert (refusal.value.structure, refusal.value.reason) == ("TPMT_PUBLIC", reason)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (16, b"\x04\0", "RSA key of 1024 bits with exponent 65537 is not supported"),
        (18, b"\0\0\0\3", "RSA key of 2048 bits with exponent 3 is not supported"),
        (16, b"\x0c\0", "the modulus is not one of 3072 bits"),
        (24, b"\0", "the modulus is not one of 2048 bits"),
        (279, b"\0", "the modulus is not one of 2048 bits"),
    ],
)
def test_rsa_public_area_that_does_not_fit_is_refused(
    aks: dict[str, SoftKey], offset: int, value: bytes, reason: str
) -> None:
    with pytest.raises(TpmMalformed) as refusal:
        parse_public(changed(aks["rsassa"].public(), offset + 2, value))
    assert refusal.value.reason == reason


def test_policy_that_is_no_digest_is_refused(ec_key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(TpmMalformed) as refusal:
        SoftKey.ek(ec_key, policy=bytes(20)).parsed()
    assert refusal.value.reason == "the policy is not a digest by the name algorithm"


def test_bytes_hidden_in_a_public_area_are_refused(ak: SoftKey) -> None:
    area = ak.public()[2:]
    with pytest.raises(TpmTrailingBytes) as refusal:
        parse_public(sized(area + b"\0"))
    assert (refusal.value.structure, refusal.value.end) == ("TPMT_PUBLIC", len(area))


def test_coordinate_longer_than_the_curve_is_refused() -> None:
    area = EC_HEAD + struct.pack(">HH", 3, 0x10) + sized(bytes(33)) + sized(bytes(32))
    with pytest.raises(TpmMalformed) as refusal:
        parse_public(sized(area))
    assert refusal.value.reason == "a coordinate is longer than the curve's"


def test_attributes_are_the_specifications_bits() -> None:
    assert AK == 0x0005_0072
    assert EK == 0x0003_00F2
    assert Attributes.X509_SIGN == 0x0008_0000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\x1a\0\x0b", "scheme 0x001a is not supported"),
        (b"\0\x05\0\x0b", "scheme 0x0005 is not supported"),
        (b"\0\x10", "scheme 0x0010 is not supported"),
        (b"\0\x18\0\x10", "scheme hash 0x0010 is not supported"),
        (b"\0\x18\0\x0b\0\1\1", "it ends inside s size"),
        (b"\0\x14\0\x0b\1\0", "it ends inside signature"),
        (b"\0", "it ends inside algorithm"),
    ],
)
def test_signature_that_does_not_fit_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(TpmMalformed) as refusal:
        parse_signature(data)
    assert (refusal.value.structure, refusal.value.reason) == ("TPMT_SIGNATURE", reason)


def test_signatures_give_their_parts(aks: dict[str, SoftKey]) -> None:
    for key in aks.values():
        parsed = parse_signature(key.sign(b"data"))
        assert (parsed.scheme.scheme, parsed.scheme.bank) == (key.scheme, key.hash)
        assert len(parsed.parts) == (2 if key.scheme is Scheme.ECDSA else 1)


ANYTHING = st.binary(max_size=700)
PARSERS: dict[Callable[[bytes], object], list[bytes]] = {
    parse_public: [
        b"",
        sized(EC_HEAD + struct.pack(">HH", 3, 0x10))[2:],
        struct.pack(">HHIHHHH", 1, 0x0B, AK, 0, 0x10, 0x14, 0x0B),
    ],
    parse_attest: [b"", ATTEST[:6], ATTEST[:SELECTIONS], ATTEST[: SELECTIONS + 4]],
    parse_signature: [b"", b"\0\x18\0\x0b", b"\0\x14\0\x0b", b"\0\x16\0\x0d"],
}


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(data=st.data())
def test_no_bytes_make_a_parser_fail_otherwise(
    parse: Callable[[bytes], object], data: st.DataObject
) -> None:
    start = data.draw(st.sampled_from(PARSERS[parse]))
    tail = data.draw(ANYTHING)
    body = start + tail
    if parse is parse_public and data.draw(st.booleans()):
        body = sized(body)
    try:
        parse(body)
    except TpmRefused:
        return
    assert parse is not parse_public, "no random bytes are a key on the curve"


@given(
    modulus=st.integers(min_value=2**2047, max_value=2**2048 - 1).map(lambda n: n | 1),
)
def test_no_modulus_makes_the_parser_fail_otherwise(modulus: int) -> None:
    area = struct.pack(">HHIHHHHHI", 1, 0x0B, AK, 0, 0x10, 0x14, 0x0B, 2048, 0)
    key = parse_public(sized(area + sized(modulus.to_bytes(256, "big")))).key
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.public_numbers().n == modulus
