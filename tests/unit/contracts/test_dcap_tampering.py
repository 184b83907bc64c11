"""Every region of a quote and of a certificate, changed: each change has its own refusal."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boa
import pytest
from boa import BoaError
from quoting import RECORDED, recorded, splice
from world import World, actor, deploy, reverts

from settlement.dcap import INTEL, P256Key, QuoteParts
from settlement.reverts import Revert, reason_of

# one flipped byte in so many; 1 is every byte
STRIDE = 4
CERTIFICATE_STRIDE = 5
SGX, TDX = "sgx/phala_v3", "tdx/near_v4"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.temporary(trust=INTEL) as world:
        yield world


def refusal(call: Callable[..., Any], *arguments: Any) -> str | None:
    """The reason with which a call reverts; it must."""
    try:
        call(*arguments)
    except BoaError as error:
        return reason_of(error.call_trace.computation.output)
    raise AssertionError("it passed")


def reason_in_signed(tdx: bool, at: int, byte: int) -> Revert:
    """Why a quote with this byte at this place of its signed part is refused."""
    if at < 8:
        return Revert.DCAP_KIND_OF_QUOTE_NOT_SUPPORTED
    if 12 <= at < 28:
        return Revert.DCAP_QUOTING_ENCLAVE_IS_NOT_FROM_INTEL
    if not tdx and at == 96 and byte & 0x02:
        return Revert.DCAP_ENCLAVE_IS_IN_DEBUG_MODE
    if not tdx and at == 96 and not byte & 0x01:
        return Revert.DCAP_ENCLAVE_IS_NOT_INITIALISED
    if tdx and 112 <= at < 168:
        return Revert.DCAP_TDX_MODULE_IS_NOT_FROM_INTEL
    if tdx and at == 168:
        return Revert.DCAP_ENCLAVE_IS_IN_DEBUG_MODE
    if tdx and 168 < at < 176:
        return Revert.DCAP_TRUST_DOMAIN_IS_NOT_SEALED_OFF
    return Revert.DCAP_INVALID_SIGNATURE_OF_THE_QUOTE


def reason_in_report(at: int, bit: int) -> Revert:
    """Why a quote with this bit flipped in the quoting enclave's report is refused."""
    identity = 16 <= at < 20 or 48 <= at < 56 or 128 <= at < 160 or 256 <= at < 258
    # the bit that says whether it is 64-bit code does not count
    if identity and not (at == 48 and bit == 2):
        return Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED
    return Revert.DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY


def flips(parts: QuoteParts) -> Iterator[tuple[str, QuoteParts, Revert]]:
    """The quote with one bit of one byte flipped, in all of its parts in turn."""
    tdx = len(parts.signed) == 632
    checked = range(112, 176) if tdx else range(96, 97)
    for at in sorted({*range(0, len(parts.signed), STRIDE), *checked}):
        byte = parts.signed[at] ^ 1 << at % 8
        changed = splice(parts.signed, at, bytes([byte]))
        yield f"signed {at}", replace(parts, signed=changed), reason_in_signed(tdx, at, byte)
    for at in [*range(0, 384, STRIDE), *range(16, 20), *range(48, 56), *range(256, 258)]:
        bit = at // STRIDE % 8
        if 258 <= at < 260:
            continue
        byte = parts.report[at] ^ 1 << bit
        changed = splice(parts.report, at, bytes([byte]))
        yield f"report {at}", replace(parts, report=changed), reason_in_report(at, bit)
    for at in range(0, 64, STRIDE // 2):
        signature = splice(parts.signature, at, bytes([parts.signature[at] ^ 1]))
        yield (
            f"signature {at}",
            replace(parts, signature=signature),
            Revert.DCAP_INVALID_SIGNATURE_OF_THE_QUOTE,
        )
        signature = splice(parts.report_signature, at, bytes([parts.report_signature[at] ^ 1]))
        yield (
            f"report signature {at}",
            replace(parts, report_signature=signature),
            Revert.DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY,
        )
        key = parts.attestation_key.x + parts.attestation_key.y
        key = splice(key, at, bytes([key[at] ^ 1]))
        yield (
            f"attestation key {at}",
            replace(parts, attestation_key=P256Key(key[:32], key[32:])),
            Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR,
        )
    for at in range(32):
        authentication = splice(parts.authentication, at, bytes([parts.authentication[at] ^ 1]))
        yield (
            f"authentication {at}",
            replace(parts, authentication=authentication),
            Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR,
        )


@pytest.mark.parametrize("name", RECORDED)
def test_flipped_bit_in_a_quote_is_refused(world: World, name: str) -> None:
    tried = 0
    for where, parts, expected in flips(recorded(name)):
        found = refusal(world.enclaves.check_quote, parts.abi_value())
        assert found == expected.value, where
        tried += 1
    assert tried >= 340


@pytest.mark.parametrize("name", RECORDED)
def test_flipped_bit_in_the_pck_key_is_refused(world: World, name: str) -> None:
    value = recorded(name).abi_value()
    for at in range(0, 64, 2):
        key = b"".join(value[-1])
        key = splice(key, at, bytes([key[at] ^ 1]))
        changed = (*value[:-1], (key[:32], key[32:]))
        with reverts(Revert.DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY):
            world.enclaves.check_quote(changed)


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("size", [0, 1, 31, 32, 47, 48, 384, 431, 433, 584, 631])
def test_signed_part_of_another_length_is_refused(world: World, name: str, size: int) -> None:
    parts = recorded(name)
    with reverts(Revert.DCAP_QUOTE_HAS_ANOTHER_LENGTH):
        world.enclaves.check_quote(
            replace(parts, signed=parts.signed.ljust(632, b"\0")[:size]).abi_value()
        )


@pytest.mark.parametrize(("name", "size"), [(SGX, 632), (TDX, 432)])
def test_signed_part_of_the_other_kinds_length_is_refused(
    world: World, name: str, size: int
) -> None:
    parts = recorded(name)
    with reverts(Revert.DCAP_KIND_OF_QUOTE_NOT_SUPPORTED):
        world.enclaves.check_quote(
            replace(parts, signed=parts.signed.ljust(632, b"\0")[:size]).abi_value()
        )


def test_longer_signed_part_is_no_valid_call(world: World) -> None:
    parts = recorded(TDX)
    with reverts(None):
        world.enclaves.check_quote(replace(parts, signed=parts.signed + b"\0").abi_value())


@pytest.mark.parametrize("other", [name for name in RECORDED if name != "tdx/phala_v4"])
@pytest.mark.parametrize("name", ["tdx/phala_v4"])
def test_parts_of_two_quotes_do_not_mix(world: World, name: str, other: str) -> None:
    one, two = recorded(name), recorded(other)
    same_kind = other.startswith("tdx")
    for fields, expected in [
        (("signed",), Revert.DCAP_INVALID_SIGNATURE_OF_THE_QUOTE),
        (("signature",), Revert.DCAP_INVALID_SIGNATURE_OF_THE_QUOTE),
        (("attestation_key",), Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR),
        (("signature", "attestation_key"), Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR),
        (("authentication",), Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR),
        (("report",), Revert.DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY),
        (("report_signature",), Revert.DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY),
        (("report", "report_signature"), Revert.DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY),
        (("certificates",), Revert.DCAP_INVALID_SIGNATURE_OF_THE_PCK_KEY),
        (
            ("report", "report_signature", "certificates"),
            Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR,
        ),
    ]:
        if "authentication" in fields and one.authentication == two.authentication:
            continue
        if not same_kind and {"signed", "report"} & set(fields):
            expected = Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED
        mixed = replace(one, **{field: getattr(two, field) for field in fields})
        assert refusal(world.enclaves.check_quote, mixed.abi_value()) == expected.value, fields


def headers(der: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Tag, start, content and end of each element from `at` to `end`, side by side."""
    while at < end:
        size, start = der[at + 1], at + 2
        if size & 0x80:
            start = at + 2 + (size & 0x7F)
            size = int.from_bytes(der[at + 2 : start], "big")
        yield der[at], at, start, start + size
        at = start + size


def structure(der: bytes) -> set[int]:
    """The bytes of a certificate in which any change of the highest bit breaks its form."""
    ((_, at, start, end),) = headers(der, 0, len(der))
    found = set(range(at, start))
    signed, algorithm, bits = headers(der, start, end)
    found |= {*range(signed[1], signed[2]), *range(algorithm[1], algorithm[3])}
    found |= set(range(bits[1], bits[2] + 1))
    ((_, at, start, end),) = headers(der, bits[2] + 1, bits[3])
    found |= set(range(at, start))
    for integer in headers(der, start, end):
        # length and sign of a number of 256 bits
        found |= set(range(integer[1], integer[2] + 1))
        if der[integer[2]] == 0:
            found.add(integer[2] + 1)
    version, serial, inner, issuer, validity, subject, key, extensions = headers(
        der, signed[2], signed[3]
    )
    found |= {*range(version[1], version[3]), *range(inner[1], inner[3])}
    found |= set(range(serial[1], serial[2] + 1))
    if der[serial[2]] == 0:
        found.add(serial[2] + 1)
    found |= {*range(issuer[1], issuer[2]), *range(subject[1], subject[2])}
    found |= set(range(validity[1], validity[3]))
    found |= set(range(key[1], key[3] - 64))
    found |= set(range(extensions[1], extensions[2]))
    ((_, at, start, end),) = headers(der, extensions[2], extensions[3])
    found |= set(range(at, start))
    for _, at, inside, extension_end in headers(der, start, end):
        name, *critical, value = headers(der, inside, extension_end)
        found |= {*range(at, inside), *range(name[1], name[2]), *range(value[1], value[2])}
        for _, at, _, boolean_end in critical:
            found |= set(range(at, boolean_end))
    return found


def critical_names(der: bytes) -> set[int]:
    """The bytes of the names of its critical extensions."""
    ((_, _, start, end),) = headers(der, 0, len(der))
    (_, _, start, end), *_ = headers(der, start, end)
    *_, (_, _, start, end) = headers(der, start, end)
    ((_, _, start, end),) = headers(der, start, end)
    found: set[int] = set()
    for _, _, inside, extension_end in headers(der, start, end):
        name, *critical, _ = headers(der, inside, extension_end)
        if critical:
            found |= set(range(name[2], name[3]))
    return found


def read(reader: Any, certificate: bytes, issuer: P256Key) -> Any:
    return reader.read_pck(certificate, *issuer.abi_value())


@pytest.fixture(scope="module")
def reader() -> Iterator[Any]:
    with boa.env.anchor():
        yield deploy("PckCertificates", sender=actor("deployer").address)


@pytest.mark.parametrize("name", RECORDED)
def test_flipped_bit_in_a_certificate_is_refused(reader: Any, name: str) -> None:
    parts = recorded(name)
    certificate, issuer = parts.certificates[0], parts.issuer
    form, critical = structure(certificate), critical_names(certificate)
    # every byte of its form, and of what it says one in a few
    places = sorted(form | critical | set(range(0, len(certificate), CERTIFICATE_STRIDE)))
    for at in places:
        changed = splice(certificate, at, bytes([certificate[at] ^ 0x80]))
        expected = Revert.DCAP_INVALID_SIGNATURE_OF_THE_CERTIFICATE
        if at in form:
            expected = Revert.DCAP_CERTIFICATE_IS_MALFORMED
        elif at in critical:
            expected = Revert.DCAP_CRITICAL_EXTENSION_IS_NOT_KNOWN
        assert refusal(read, reader, changed, issuer) == expected.value, at
    assert len(places) >= 300


@pytest.mark.parametrize("name", RECORDED)
def test_certificate_cut_or_continued_is_refused(reader: Any, name: str) -> None:
    parts = recorded(name)
    certificate, issuer = parts.certificates[0], parts.issuer
    sizes = [*range(32), *range(32, len(certificate), 41), len(certificate) - 1]
    for changed in [*(certificate[:size] for size in sizes), certificate + b"\0"]:
        assert refusal(read, reader, changed, issuer) == "dcap: certificate is malformed"


@pytest.mark.parametrize("name", RECORDED)
def test_certificate_by_another_issuer_is_refused(reader: Any, name: str) -> None:
    parts = recorded(name)
    others = {recorded(other).issuer for other in RECORDED} - {parts.issuer}
    for issuer in [*others, INTEL.root, parts.pck_key, P256Key(bytes(32), bytes(32))]:
        found = refusal(read, reader, parts.certificates[0], issuer)
        assert found == "dcap: invalid signature of the certificate"


def test_certificate_longer_than_any_is_no_valid_call(reader: Any) -> None:
    with reverts(None):
        read(reader, bytes(1537), INTEL.root)
