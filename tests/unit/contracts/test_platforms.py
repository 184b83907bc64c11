"""From a platform's certificate to a key that counts, and every way in which it stops counting."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from quoting import (
    CONFIGURATION,
    KEY,
    REGISTERS,
    Maker,
    dev_platform,
    liar,
    recorded,
    td_quote,
    with_high_s,
)
from world import (
    COMMITTEE,
    DAY,
    ENCRYPTION_KEY,
    LOCAL_CHAIN,
    MEASUREMENT,
    World,
    actor,
    create_committee,
    deploy,
    reverts,
)

from oracle.attestation.quote import parse_quote
from settlement.contracts import abi_value
from settlement.dcap import INTEL, P256Key, QuoteParts, Trust, split_quote
from settlement.deployment import REAL_CHAINS
from settlement.eip712 import verdict_digest
from settlement.reverts import Revert
from settlement.types import ZERO_ADDRESS

ROOT = Path(__file__).resolve().parents[3]
START = 1_800_000_000
OTHER = actor("enclave 3").address
GUARDIAN = actor("guardian").address
TD_MEASUREMENT = keccak(b"".join(REGISTERS))
# TEE_TCB_SVN of the development platform's TDX module
MODULE_SVN = 0x030006 << 104


@pytest.fixture
def maker() -> Iterator[Maker]:
    """A world whose root is the development platform's."""
    with boa.env.anchor():
        boa.env.evm.patch.timestamp, boa.env.evm.patch.chain_id = START, LOCAL_CHAIN
        platform = dev_platform(START)
        yield Maker(World.create(trust=platform.trust), platform)


@pytest.fixture
def world(maker: Maker) -> World:
    return maker.world


def ready(maker: Maker, **verdict: int) -> QuoteParts:
    """An SGX quote for KEY, its platform registered and judged."""
    parts = maker.sgx(KEY)
    maker.world.register_platform(parts)
    maker.world.judge(maker.world.verdict(parts, **verdict))
    return maker.sgx(KEY)


def ready_tdx(maker: Maker) -> QuoteParts:
    """The same by TDX, its measurement allowed."""
    parts = maker.tdx(KEY)
    maker.world.govern(maker.world.enclaves, "allow_measurement", TD_MEASUREMENT)
    maker.world.register_platform(parts)
    maker.world.judge(maker.world.verdict(parts))
    return maker.tdx(KEY)


def judge_again(maker: Maker, parts: QuoteParts, **changes: int) -> None:
    """A later verdict, a day longer than the first unless told otherwise."""
    world = maker.world
    world.judge(world.verdict(parts, **{"expiry": world.now + 8 * DAY, **changes}))


@contextmanager
def on_chain(chain_id: int) -> Iterator[None]:
    with boa.env.anchor():
        boa.env.evm.patch.chain_id = chain_id
        try:
            yield
        finally:
            boa.env.evm.patch.chain_id = LOCAL_CHAIN


def create_registry(trust: Trust, reader: str) -> None:
    """An enclave registry that trusts a reader of certificates."""
    deployer = actor("deployer").address
    committee = create_committee([member.address for member in COMMITTEE], 2).address
    deploy(
        *("EnclaveRegistry", deployer, GUARDIAN, committee, [], trust.abi_value(reader)),
        sender=deployer,
    )


def is_valid(world: World, key: str = KEY, node_id: int = 1) -> bool:
    return bool(world.enclaves.is_valid(key, node_id))


def revoke_platform(world: World, platform: bytes) -> None:
    world.enclaves.revoke_platform(platform, sender=GUARDIAN)


# quotes


def test_quote_registers_the_key_that_it_binds(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    nonce = bytes(world.enclaves.challenge(parts.pck_key.digest))
    world.register_quote(parts, KEY)
    events = world.events(world.enclaves)
    expiry = world.now + 7 * DAY
    assert events == [
        (
            "EnclaveQuoted",
            {
                "enclave_key": KEY,
                "platform": parts.pck_key.digest,
                "nonce": nonce,
                "configuration": CONFIGURATION,
            },
        ),
        (
            "EnclaveRegistered",
            {
                "enclave_key": KEY,
                "node_id": 1,
                "measurement": MEASUREMENT,
                "attestation_digest": keccak(parts.signed),
                "encryption_key_digest": keccak(ENCRYPTION_KEY),
                "expiry": expiry,
            },
        ),
    ]
    assert tuple(world.enclaves.enclave(KEY)) == (1, expiry, MEASUREMENT, False)
    assert is_valid(world)
    assert not is_valid(world, node_id=2)
    assert not is_valid(world, key=OTHER)
    world.pass_time(7 * DAY - 1)
    assert is_valid(world)
    world.pass_time(1)
    assert not is_valid(world)


def test_tdx_quote_registers_a_key_too(maker: Maker) -> None:
    world, parts = maker.world, ready_tdx(maker)
    assert parse_quote(td_quote(maker.platform, bytes(64))).measurement == TD_MEASUREMENT
    world.register_quote(parts, KEY)
    assert is_valid(world)
    assert tuple(world.enclaves.enclave(KEY)) == (1, world.now + 7 * DAY, TD_MEASUREMENT, False)


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 137},
        {"registry": actor("another registry").address},
        {"enclave_key": OTHER},
        {"encryption_key": b"\x01" * 32},
        {"nonce": b"\x01" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_quote_that_binds_something_else_is_refused(maker: Maker, change: dict) -> None:
    ready(maker)
    parts = maker.sgx(**{"enclave_key": KEY, **change})
    with reverts(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE):
        maker.world.register_quote(parts, KEY)


def test_quote_brought_with_other_values_is_refused(maker: Maker) -> None:
    parts = ready(maker)
    with reverts(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE):
        maker.world.register_quote(parts, KEY, encryption_key=b"\x01" * 32)
    with reverts(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE):
        maker.world.register_quote(parts, OTHER)
    with reverts(Revert.ENCLAVES_KEY_IS_ZERO):
        maker.world.register_quote(parts, ZERO_ADDRESS)


def test_quote_counts_once(maker: Maker) -> None:
    """Neither again, in whichever form, nor after a later verdict, nor once its key is revoked."""
    world, parts = maker.world, ready(maker)
    high = replace(parts, signature=with_high_s(parts.signature))
    world.register_quote(high, KEY)
    for form in (parts, high):
        with reverts(Revert.ENCLAVES_REGISTRATION_IS_NOT_NEWER):
            world.register_quote(form, KEY)
    judge_again(maker, parts)
    for form in (parts, high):
        with reverts(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE):
            world.register_quote(form, KEY)
    world.enclaves.revoke(KEY, sender=GUARDIAN)
    with reverts(Revert.ENCLAVES_KEY_IS_REVOKED):
        world.register_quote(maker.sgx(KEY), KEY)


def test_challenge_is_used_up_by_the_quote_that_answers_it(maker: Maker) -> None:
    """Two enclaves of a platform that were given the same: the second has to ask again."""
    world, parts = maker.world, ready(maker)
    second = maker.sgx(OTHER)
    world.register_quote(parts, KEY)
    with reverts(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE):
        world.register_quote(second, OTHER)
    world.register_quote(maker.sgx(OTHER), OTHER)
    assert is_valid(world)
    assert is_valid(world, OTHER)


def test_refused_quote_uses_up_no_challenge(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    with reverts(Revert.ENCLAVES_QUOTE_BINDS_SOMETHING_ELSE):
        world.register_quote(parts, OTHER)
    world.register_quote(parts, KEY)
    assert is_valid(world)


def test_challenge_is_new_with_every_verdict(maker: Maker) -> None:
    """And for each platform its own; a renewed certificate leaves it as it is."""
    world, parts = maker.world, maker.sgx(KEY)
    platform = parts.pck_key.digest
    seen = {bytes(world.enclaves.challenge(platform)), bytes(world.enclaves.challenge(bytes(32)))}
    world.register_platform(parts)
    for days in range(1, 4):
        world.judge(world.verdict(parts, expiry=world.now + days * DAY))
        seen.add(bytes(world.enclaves.challenge(platform)))
    assert len(seen) == 5
    later = datetime.fromtimestamp(START + 4000 * DAY, UTC)
    renewed = maker.issue("pck", "pck_ca", not_after=later, serial=7)
    world.enclaves.register_platform(renewed, maker.issuer(), sender=actor("anyone").address)
    assert bytes(world.enclaves.challenge(platform)) in seen


def test_debug_enclaves_are_refused(maker: Maker) -> None:
    ready(maker)
    data = maker.report_data(KEY)
    for quote in [
        maker.platform.quote(MEASUREMENT, data, debug=True),
        td_quote(maker.platform, data, debug=True),
    ]:
        with reverts(Revert.DCAP_ENCLAVE_IS_IN_DEBUG_MODE):
            maker.world.register_quote(split_quote(quote), KEY)


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (96, b"\x04", Revert.DCAP_ENCLAVE_IS_NOT_INITIALISED),
        (96, b"\x07", Revert.DCAP_ENCLAVE_IS_IN_DEBUG_MODE),
        (112, b"\x00" * 32, Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED),
        (112, keccak(text="forbidden"), Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED),
        (12, b"\x00", Revert.DCAP_QUOTING_ENCLAVE_IS_NOT_FROM_INTEL),
        (28, b"\x00" * 20, Revert.DCAP_SIMULATED_OR_NOT_UNLIKE_THE_ROOT),
        (0, b"\x05", Revert.DCAP_KIND_OF_QUOTE_NOT_SUPPORTED),
        (2, b"\x03", Revert.DCAP_KIND_OF_QUOTE_NOT_SUPPORTED),
        (4, b"\x81", Revert.DCAP_KIND_OF_QUOTE_NOT_SUPPORTED),
    ],
)
def test_sgx_report_that_is_genuine_but_wrong_is_refused(
    maker: Maker, at: int, value: bytes, expected: Revert
) -> None:
    parts = maker.resign(ready(maker), at, value)
    with reverts(expected):
        maker.world.register_quote(parts, KEY)


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (112, b"\x01", Revert.DCAP_TDX_MODULE_IS_NOT_FROM_INTEL),
        (159, b"\x01", Revert.DCAP_TDX_MODULE_IS_NOT_FROM_INTEL),
        (160, b"\x01", Revert.DCAP_TDX_MODULE_IS_NOT_FROM_INTEL),
        (167, b"\x01", Revert.DCAP_TDX_MODULE_IS_NOT_FROM_INTEL),
        (168, b"\x01", Revert.DCAP_ENCLAVE_IS_IN_DEBUG_MODE),
        (168, b"\x80", Revert.DCAP_ENCLAVE_IS_IN_DEBUG_MODE),
        (171, b"\x00", Revert.DCAP_TRUST_DOMAIN_IS_NOT_SEALED_OFF),
        (171, b"\x50", Revert.DCAP_TRUST_DOMAIN_IS_NOT_SEALED_OFF),
        (175, b"\x80", Revert.DCAP_TRUST_DOMAIN_IS_NOT_SEALED_OFF),
        (48, b"\x07", Revert.ENCLAVES_VERDICT_ON_ANOTHER_TDX_MODULE),
        (48, bytes(16), Revert.DCAP_TDX_MODULE_IS_NOT_FROM_INTEL),
        (184, b"\x00", Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED),
        (567, b"\x00", Revert.ENCLAVES_MEASUREMENT_IS_NOT_ALLOWED),
    ],
)
def test_tdx_report_that_is_genuine_but_wrong_is_refused(
    maker: Maker, at: int, value: bytes, expected: Revert
) -> None:
    world, parts = maker.world, ready_tdx(maker)
    changed = maker.resign(parts, at, value)
    with reverts(expected):
        world.register_quote(changed, KEY)


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (16, b"\x01", Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED),
        (48, b"\x13", Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED),
        (55, b"\x01", Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED),
        (128, b"\x00" * 32, Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED),
        (256, b"\x02", Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED),
        (257, b"\x01", Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED),
        (258, b"\x07", Revert.DCAP_QUOTING_ENCLAVE_IS_OUTDATED),
        (352, b"\x01", Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR),
        (383, b"\x01", Revert.DCAP_ATTESTATION_KEY_NOT_VOUCHED_FOR),
    ],
)
def test_quoting_enclave_that_is_genuine_but_wrong_is_refused(
    maker: Maker, at: int, value: bytes, expected: Revert
) -> None:
    parts = maker.revouch(ready(maker), at, value)
    with reverts(expected):
        maker.world.register_quote(parts, KEY)


@pytest.mark.parametrize(
    ("at", "value"), [(48, b"\x15"), (56, b"\xe7"), (259, b"\x01"), (258, b"\x09"), (64, b"\x01")]
)
def test_quoting_enclave_may_differ_where_its_identity_leaves_it_open(
    maker: Maker, at: int, value: bytes
) -> None:
    maker.world.register_quote(maker.revouch(ready(maker), at, value), KEY)
    assert is_valid(maker.world)


def test_sgx_enclave_may_not_stand_in_for_a_tdx_quoting_enclave(maker: Maker) -> None:
    """The SGX quoting enclave's report under a TDX quote, though all signatures hold."""
    world, parts = maker.world, ready_tdx(maker)
    sgx = maker.sgx(KEY)
    mixed = replace(parts, report=sgx.report, report_signature=sgx.report_signature)
    with reverts(Revert.DCAP_QUOTING_ENCLAVE_NOT_ALLOWED):
        world.register_quote(mixed, KEY)


def test_owner_replaces_a_quoting_enclave(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    newer = replace(maker.platform.trust.sgx, min_svn=9)
    world.govern(world.enclaves, "set_quoting_enclave", 0, newer.abi_value())
    assert world.events(world.enclaves) == [
        (
            "QuotingEnclaveChanged",
            {
                "tee": 0,
                "signer": newer.signer,
                "product": 1,
                "min_svn": 9,
                "misc_select": bytes(4),
                "misc_select_mask": b"\xff" * 4,
                "attributes": b"\x11" + bytes(15),
                "attributes_mask": b"\xfb" + b"\xff" * 7 + bytes(8),
            },
        )
    ]
    with reverts(Revert.DCAP_QUOTING_ENCLAVE_IS_OUTDATED):
        world.register_quote(parts, KEY)
    with reverts(Revert.DCAP_SIGNER_OF_QUOTING_ENCLAVE_IS_ZERO):
        world.govern(
            world.enclaves, "set_quoting_enclave", 0, replace(newer, signer=bytes(32)).abi_value()
        )
    with reverts(Revert.DCAP_KIND_OF_QUOTE_NOT_SUPPORTED):
        world.govern(world.enclaves, "set_quoting_enclave", 1, newer.abi_value())


# platforms


def test_certificate_registers_a_platform(maker: Maker) -> None:
    world, parts = maker.world, maker.sgx(KEY)
    certificate = x509.load_der_x509_certificate(parts.certificates[0])
    end = int(certificate.not_valid_after_utc.timestamp())
    platform = world.register_platform(parts)
    assert world.events(world.enclaves) == [
        (
            "PlatformRegistered",
            {
                "platform": platform,
                "issuer": parts.issuer.digest,
                "serial": certificate.serial_number,
                "fmspc": 0xDE7000000001,
                "pce_id": 0,
                "not_after": end,
            },
        )
    ]
    assert platform == parts.pck_key.digest
    assert tuple(world.enclaves.platform(platform)) == (False, end, 0xDE7000000001, 0, 0, 0, 0)
    with reverts(Revert.DCAP_CERTIFICATE_IS_NOT_NEWER):
        world.register_platform(parts)


def test_later_certificate_renews_a_platform(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    later = datetime.fromtimestamp(START + 4000 * DAY, UTC)
    renewed = maker.issue("pck", "pck_ca", not_after=later, serial=7)
    world.enclaves.register_platform(renewed, maker.issuer(), sender=actor("anyone").address)
    platform = world.enclaves.platform(parts.pck_key.digest)
    assert (platform[1], platform[4], platform[6]) == (START + 4000 * DAY, 1, START + 7 * DAY)
    with reverts(Revert.DCAP_CERTIFICATE_IS_NOT_NEWER):
        world.register_platform(parts)


def test_certificate_counts_within_its_dates(maker: Maker) -> None:
    world = maker.world
    first, last = START + DAY, START + 2 * DAY
    certificate = maker.issue(
        "pck",
        "pck_ca",
        not_before=datetime.fromtimestamp(first, UTC),
        not_after=datetime.fromtimestamp(last, UTC),
    )

    def register() -> None:
        world.enclaves.register_platform(
            certificate, maker.issuer(), sender=actor("anyone").address
        )

    for second, expected in [
        (first - 1, Revert.DCAP_CERTIFICATE_IS_NOT_YET_VALID),
        (last + 1, Revert.DCAP_CERTIFICATE_HAS_EXPIRED),
    ]:
        world.set_clock(second)
        with reverts(expected):
            register()
    for second in (first, last):
        world.set_clock(second)
        with boa.env.anchor():
            register()


def test_platform_without_certificate_is_not_judged(maker: Maker) -> None:
    world, parts = maker.world, maker.sgx(KEY)
    with reverts(Revert.DCAP_PLATFORM_IS_NOT_CERTIFIED_FOR_SO_LONG):
        world.judge(world.verdict(parts))
    with reverts(Revert.ENCLAVES_NO_VERDICT_ON_THE_PLATFORM):
        world.register_quote(parts, KEY)
    world.register_platform(parts)
    with reverts(Revert.ENCLAVES_NO_VERDICT_ON_THE_PLATFORM):
        world.register_quote(parts, KEY)


def test_verdict_ends_no_later_than_the_certificate(maker: Maker) -> None:
    world, parts = maker.world, maker.sgx(KEY)
    world.register_platform(parts)
    end = world.enclaves.platform(parts.pck_key.digest)[1]
    world.set_clock(end - DAY)
    with reverts(Revert.DCAP_PLATFORM_IS_NOT_CERTIFIED_FOR_SO_LONG):
        world.judge(world.verdict(parts, expiry=end + 1))
    world.judge(world.verdict(parts, expiry=end))
    world.register_quote(maker.sgx(KEY), KEY)
    assert is_valid(world)
    world.set_clock(end)
    assert not is_valid(world)


def usage(**uses: bool) -> x509.KeyUsage:
    """A key usage of just these."""
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: uses.get(name, False) for name in names})


def changed(
    maker: Maker, name: str, issuer: str, kind: type, value: x509.ExtensionType | None
) -> bytes:
    """A certificate with another extension, critical, in place of those of a kind, or without."""

    def replaced(old: list) -> list:
        kept = [(v, c) for v, c in old if not isinstance(v, kind)]
        return kept if value is None else [*kept, (value, True)]

    return maker.issue(name, issuer, extensions=replaced)


def stranger_extension(*, critical: bool) -> tuple[x509.UnrecognizedExtension, bool]:
    oid = x509.ObjectIdentifier("1.2.840.113741.1.13.2")
    return x509.UnrecognizedExtension(oid, b"\x05\0"), critical


def with_sgx_twice(maker: Maker) -> bytes:
    """Two extensions of the same name, which no library writes: one of another name renamed."""
    extension = stranger_extension(critical=False)
    made = maker.issue("pck", "pck_ca", extensions=lambda old: [*old, extension])
    name = bytes.fromhex("06092a864886f84d010d02")
    return maker.rewrite(made, name, name[:-1] + b"\1")


def certificate_changes(maker: Maker) -> dict[str, tuple[bytes, Revert]]:
    """Certificates that the CA signed, or seems to have, and that are no platform's."""
    sgx = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
    value = next(
        e.value.value for e in maker.platform._certificates["pck"].extensions if e.oid == sgx
    )

    def with_sgx(*values: bytes) -> bytes:
        def change(old: list) -> list:
            kept = [(v, c) for v, c in old if v.oid != sgx]
            return kept + [(x509.UnrecognizedExtension(sgx, v), False) for v in values]

        return maker.issue("pck", "pck_ca", extensions=change)

    fmspc = bytes.fromhex("060a2a864886f84d010d01040406")
    pce_id = bytes.fromhex("060a2a864886f84d010d01030402")
    assert fmspc in value
    assert pce_id in value
    malformed = Revert.DCAP_CERTIFICATE_IS_MALFORMED
    no_pck = Revert.DCAP_NOT_A_PCK_CERTIFICATE
    forged = Revert.DCAP_INVALID_SIGNATURE_OF_THE_CERTIFICATE
    stranger = ec.generate_private_key(ec.SECP256R1())
    constraints = x509.BasicConstraints

    def dated(written: bytes, *instead: bytes) -> list[bytes]:
        long = len(written) == 15
        end = datetime(2052 if long else 2044, 12, 1, tzinfo=UTC)
        certificate = maker.issue("pck", "pck_ca", not_after=end)
        return [maker.rewrite(certificate, written, other) for other in instead]

    february, april, leap, month, hour, second, unwritten, zone = dated(
        b"441201000000Z",
        b"410229000000Z",
        b"440431000000Z",
        b"440230000000Z",
        b"441301000000Z",
        b"441201240000Z",
        b"441201000060Z",
        b"4412010000 0Z",
        b"441201000000+",
    )
    (early,) = dated(b"20521201000000Z", b"20491201000000Z")
    (century,) = dated(b"20521201000000Z", b"21000229000000Z")
    return {
        "a CA's": (changed(maker, "pck", "pck_ca", constraints, constraints(True, 0)), no_pck),
        "a CA's of any length": (
            changed(maker, "pck", "pck_ca", constraints, constraints(True, None)),
            no_pck,
        ),
        "no constraints": (changed(maker, "pck", "pck_ca", constraints, None), no_pck),
        "no usage": (changed(maker, "pck", "pck_ca", x509.KeyUsage, None), no_pck),
        "usage for no signatures": (
            changed(maker, "pck", "pck_ca", x509.KeyUsage, usage(content_commitment=True)),
            no_pck,
        ),
        "usage of nine bits": (
            changed(
                maker,
                "pck",
                "pck_ca",
                x509.KeyUsage,
                usage(digital_signature=True, key_agreement=True, decipher_only=True),
            ),
            no_pck,
        ),
        "critical stranger": (
            maker.issue(
                "pck", "pck_ca", extensions=lambda old: [*old, stranger_extension(critical=True)]
            ),
            Revert.DCAP_CRITICAL_EXTENSION_IS_NOT_KNOWN,
        ),
        "critical written as false": (
            maker.rewrite(
                maker.certificate("pck"), bytes.fromhex("551d13 0101ff"), b"\x55\x1d\x13\x01\x01\0"
            ),
            malformed,
        ),
        "critical written as one": (
            maker.rewrite(
                maker.certificate("pck"), bytes.fromhex("551d13 0101ff"), b"\x55\x1d\x13\x01\x01\1"
            ),
            malformed,
        ),
        "extension twice": (with_sgx_twice(maker), malformed),
        "29 February 2041": (february, malformed),
        "31 April": (april, malformed),
        "30 February 2044": (leap, malformed),
        "13th month": (month, malformed),
        "24 o'clock": (hour, malformed),
        "second 60": (second, malformed),
        "space in the time": (unwritten, malformed),
        "another time zone": (zone, malformed),
        "2049 in the long form": (early, malformed),
        "29 February 2100": (century, malformed),
        "no extension": (with_sgx(), no_pck),
        "no FMSPC": (with_sgx(value.replace(fmspc, fmspc[:11] + b"\x08\x04\x06")), no_pck),
        "no PCE id": (with_sgx(value.replace(pce_id, pce_id[:11] + b"\x08\x04\x02")), no_pck),
        "FMSPC twice": (with_sgx(value.replace(pce_id[:12], fmspc[:12])), malformed),
        "FMSPC of another type": (
            with_sgx(value.replace(fmspc, fmspc[:12] + b"\x05\x06")),
            malformed,
        ),
        "FMSPC of another length": (
            with_sgx(value.replace(fmspc, fmspc[:13] + b"\x05")),
            malformed,
        ),
        "extension cut": (with_sgx(value[:-1]), malformed),
        "extension continued": (with_sgx(value + b"\0"), malformed),
        "extension empty": (with_sgx(b""), malformed),
        "TCB signing": (maker.issue("tcb_signing", "pck_ca"), no_pck),
        "the CA itself": (maker.certificate("pck_ca"), forged),
        "the root's": (maker.issue("pck", "root"), forged),
        "its own": (maker.issue("pck", "pck"), forged),
        "a stranger's": (maker.issue("pck", "pck_ca", signer=stranger), forged),
        "TCB signing's": (maker.issue("pck", "tcb_signing"), forged),
        "SHA-384": (maker.issue("pck", "pck_ca", hash=hashes.SHA384()), malformed),
        "P-384": (
            maker.issue(
                "pck", "pck_ca", subject=ec.generate_private_key(ec.SECP384R1()).public_key()
            ),
            malformed,
        ),
    }


CHANGES = tuple(certificate_changes(Maker(None, dev_platform(START))))


@pytest.mark.parametrize("change", CHANGES)
def test_certificate_that_is_no_platforms_is_refused(maker: Maker, change: str) -> None:
    certificate, expected = certificate_changes(maker)[change]
    with reverts(expected):
        maker.world.enclaves.register_platform(
            certificate, maker.issuer(), sender=actor("anyone").address
        )


@pytest.mark.parametrize("issuer", ["root", "tcb_signing", "pck", "attestation"])
def test_only_cas_for_platforms_certify_them(maker: Maker, issuer: str) -> None:
    signer = maker.key(issuer)
    point = signer.public_key().public_numbers()
    key = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
    certificate = maker.issue("pck", "pck_ca", signer=signer)
    with reverts(Revert.DCAP_CA_NOT_ALLOWED):
        maker.world.enclaves.register_platform(certificate, key, sender=actor("anyone").address)


@settings(max_examples=40)
@given(
    before=st.datetimes(datetime(1970, 1, 1), datetime(2080, 1, 1)),
    length=st.timedeltas(timedelta(0), timedelta(days=40_000)),
    serial=st.integers(1, 2**159 - 1),
)
def test_what_is_read_is_what_was_written(before: datetime, length: timedelta, serial: int) -> None:
    """Dates on either side of 2050, where their form changes, and leap days; any serial number."""
    maker = Maker(None, dev_platform(START))
    before = before.replace(microsecond=0, tzinfo=UTC)
    after = (before + length).replace(microsecond=0)
    certificate = maker.issue("pck", "pck_ca", not_before=before, not_after=after, serial=serial)
    with boa.env.anchor():
        reader = deploy("PckCertificates", sender=actor("deployer").address)
        x, y, *read = reader.read_pck(certificate, *maker.issuer())
    assert (x, y) == maker.issuer("pck")
    seconds = [int(t.timestamp()) for t in (before, after)]
    assert read == [*seconds, serial, 0xDE7000000001, 0]


# authorities and roots


def authority_changes(maker: Maker) -> dict[str, tuple[bytes, Revert]]:
    """Certificates that the root signed, or seems to have, and that are no CA for platforms."""

    def change(kind: type, value: x509.ExtensionType | None) -> bytes:
        return changed(maker, "pck_ca", "root", kind, value)

    def named(name: str, field: x509.ObjectIdentifier = NameOID.COMMON_NAME) -> bytes:
        return maker.issue("pck_ca", "root", name=x509.Name([x509.NameAttribute(field, name)]))

    no_ca = Revert.DCAP_NOT_A_PCK_CA_CERTIFICATE
    forged = Revert.DCAP_INVALID_SIGNATURE_OF_THE_CERTIFICATE
    constraints = x509.BasicConstraints
    return {
        "the root": (maker.certificate("root"), no_ca),
        "TCB signing": (maker.certificate("tcb_signing"), no_ca),
        "TCB signing by name": (named("Intel SGX TCB Signing"), no_ca),
        "TCB signing named as a CA": (
            maker.issue("tcb_signing", "root", name=maker.platform._certificates["pck_ca"].subject),
            no_ca,
        ),
        "a platform": (maker.certificate("pck"), forged),
        "a platform by the root": (maker.issue("pck", "root"), no_ca),
        "no CA": (change(constraints, constraints(ca=False, path_length=None)), no_ca),
        "no constraints": (change(constraints, None), no_ca),
        "CAs below": (change(constraints, constraints(ca=True, path_length=1)), no_ca),
        "any CAs below": (change(constraints, constraints(ca=True, path_length=None)), no_ca),
        "no usage": (change(x509.KeyUsage, None), no_ca),
        "usage for CRLs alone": (
            change(x509.KeyUsage, usage(digital_signature=True, crl_sign=True)),
            no_ca,
        ),
        "critical stranger": (
            maker.issue(
                "pck_ca", "root", extensions=lambda old: [*old, stranger_extension(critical=True)]
            ),
            Revert.DCAP_CRITICAL_EXTENSION_IS_NOT_KNOWN,
        ),
        "other name": (named("Intel SGX PCK Something CA"), no_ca),
        "name continued": (named("Intel SGX PCK Platform CAs"), no_ca),
        "short name": (named("CA"), no_ca),
        "name in another field": (named("SGX PCK Platform CA", NameOID.ORGANIZATION_NAME), no_ca),
        "by the CA": (maker.issue("pck_ca", "pck_ca"), forged),
        "by TCB signing": (maker.issue("pck_ca", "tcb_signing"), forged),
        "Intel's": (INTEL.authorities[0], forged),
    }


AUTHORITY_CHANGES = tuple(authority_changes(Maker(None, dev_platform(START))))


@pytest.mark.parametrize("change", AUTHORITY_CHANGES)
def test_certificate_that_is_no_ca_is_refused(maker: Maker, change: str) -> None:
    certificate, expected = authority_changes(maker)[change]
    with reverts(expected):
        maker.world.govern(maker.world.enclaves, "allow_authority", certificate)
    with reverts(expected):
        World.create(trust=replace(maker.platform.trust, authorities=(certificate,)))


@pytest.mark.parametrize("name", ["Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"])
def test_owner_allows_a_ca_and_guardian_revokes_it(maker: Maker, name: str) -> None:
    world = maker.world
    key = ec.generate_private_key(ec.SECP256R1())
    authority = maker.issue(
        "pck_ca",
        "root",
        subject=key.public_key(),
        name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
    )
    parsed = P256Key.of(x509.load_der_x509_certificate(authority))
    certificate = maker.issue("pck", "pck_ca", signer=key)

    def register() -> None:
        world.enclaves.register_platform(
            certificate, parsed.abi_value(), sender=actor("anyone").address
        )

    with reverts(Revert.DCAP_CA_NOT_ALLOWED):
        register()
    world.govern(world.enclaves, "allow_authority", authority)
    end = START + 3650 * DAY
    assert world.events(world.enclaves) == [
        ("AuthorityAllowed", {"authority": parsed.digest, "not_after": end})
    ]
    assert world.enclaves.authority_expiry(parsed.digest) == end
    with boa.env.anchor():
        register()
    world.enclaves.revoke_authority(parsed.digest, sender=GUARDIAN)
    assert world.events(world.enclaves) == [("AuthorityRevoked", {"authority": parsed.digest})]
    with reverts(Revert.DCAP_CA_NOT_ALLOWED):
        register()


def test_ca_certifies_until_its_own_certificate_ends(maker: Maker) -> None:
    world = maker.world
    later = datetime.fromtimestamp(START + 4000 * DAY, UTC)
    certificate = maker.issue("pck", "pck_ca", not_after=later)
    world.set_clock(START + 3650 * DAY + 1)
    with reverts(Revert.DCAP_CA_NOT_ALLOWED):
        world.enclaves.register_platform(
            certificate, maker.issuer(), sender=actor("anyone").address
        )


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (START - 3601, Revert.DCAP_CERTIFICATE_IS_NOT_YET_VALID),
        (START + 3650 * DAY + 1, Revert.DCAP_CERTIFICATE_HAS_EXPIRED),
    ],
)
def test_ca_outside_of_its_dates_is_not_allowed(
    maker: Maker, second: int, expected: Revert
) -> None:
    maker.world.set_clock(second)
    with reverts(expected):
        maker.world.govern(maker.world.enclaves, "allow_authority", maker.certificate("pck_ca"))


@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
@pytest.mark.parametrize("part", ["root", "x", "y"])
def test_real_chains_take_no_root_but_intels(maker: Maker, chain_id: int, part: str) -> None:
    trust = replace(maker.platform.trust, authorities=())
    if part != "root":
        own = trust.root
        intel = INTEL.root
        trust = replace(
            trust, root=P256Key(own.x, intel.y) if part == "x" else P256Key(intel.x, own.y)
        )
    with on_chain(chain_id):
        with reverts(Revert.DCAP_ROOT_IS_NOT_FROM_INTEL):
            World.create(trust=trust)
        World.create(trust=INTEL)


@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
def test_real_chains_take_no_reader_of_certificates_but_this(maker: Maker, chain_id: int) -> None:
    """One that lies would put anybody's keys under Intel's root."""
    readers = [liar(b"\1" * 128), actor("deployer").address, ZERO_ADDRESS]
    with on_chain(chain_id):
        for reader in readers:
            with reverts(Revert.DCAP_ANOTHER_READER_OF_CERTIFICATES):
                create_registry(replace(INTEL, authorities=()), reader)


def test_reader_on_real_chains_is_the_one_that_stands_here() -> None:
    """After a change of `PckCertificates` its new hash belongs into `platforms.vy`."""
    reader = deploy("PckCertificates", sender=actor("deployer").address)
    source = (ROOT / "contracts/modules/platforms.vy").read_text()
    (written,) = re.findall(r"READER_CODE_HASH: constant\(bytes32\) = (0x[0-9A-F]{64})", source)
    code = boa.env.get_code(reader.address)
    assert written == "0x" + keccak(code).hex().upper()


def test_intels_root_takes_no_ca_but_intels_two(maker: Maker) -> None:
    """Whatever the root may have signed; here a reader says that it signed this."""
    key = maker.issuer("pck_ca")
    answer = b"".join([*key, START.to_bytes(32, "big"), (START + DAY).to_bytes(32, "big")])
    trust = replace(INTEL, authorities=(maker.certificate("pck_ca"),))
    with reverts(Revert.DCAP_CA_IS_NOT_FROM_INTEL):
        create_registry(trust, liar(answer))
    # under another root the same reader is believed
    create_registry(replace(trust, root=maker.platform.trust.root), liar(answer))


def test_intels_root_takes_no_simulated_quote_nor_the_other_way_round(maker: Maker) -> None:
    """Each with a signature chain that would otherwise be refused later or hold."""
    intel = World.create(trust=INTEL)
    with reverts(Revert.DCAP_SIMULATED_OR_NOT_UNLIKE_THE_ROOT):
        intel.enclaves.check_quote(maker.sgx(KEY).abi_value())
    for name in ("sgx/phala_v3", "tdx/near_v4"):
        with reverts(Revert.DCAP_SIMULATED_OR_NOT_UNLIKE_THE_ROOT):
            maker.world.enclaves.check_quote(recorded(name).abi_value())
    with reverts(Revert.DCAP_INVALID_SIGNATURE_OF_THE_CERTIFICATE):
        intel.govern(intel.enclaves, "allow_authority", maker.certificate("pck_ca"))
    with reverts(Revert.DCAP_CA_NOT_ALLOWED):
        intel.register_platform(maker.sgx(KEY))


# verdicts


def test_verdict_is_kept_and_renewed(maker: Maker) -> None:
    world, parts = maker.world, maker.tdx(KEY)
    world.register_platform(parts)
    verdict = world.verdict(parts)
    world.judge(verdict)
    assert world.events(world.enclaves) == [
        (
            "PlatformJudged",
            {
                "platform": parts.pck_key.digest,
                "node_id": 1,
                "module_svn": MODULE_SVN,
                "expiry": verdict.expiry,
            },
        )
    ]
    assert tuple(world.enclaves.platform(verdict.platform))[4:] == (
        1,
        MODULE_SVN,
        verdict.expiry,
    )
    with reverts(Revert.DCAP_VERDICT_IS_NOT_NEWER):
        world.judge(verdict)
    world.judge(world.verdict(parts, expiry=verdict.expiry + 1, node_id=2))
    with reverts(Revert.DCAP_VERDICT_IS_NOT_NEWER):
        world.judge(verdict)
    assert world.enclaves.platform(verdict.platform)[4] == 2


@settings(max_examples=20)
@given(
    node_id=st.integers(1, 2**64 - 1),
    module_svn=st.integers(0, 2**128 - 1),
    seconds=st.integers(1, 31 * DAY),
)
def test_no_field_of_a_verdict_reaches_into_another(
    node_id: int, module_svn: int, seconds: int
) -> None:
    platform = dev_platform(START)
    with boa.env.anchor():
        boa.env.evm.patch.timestamp, boa.env.evm.patch.chain_id = START, LOCAL_CHAIN
        maker = Maker(World.create(trust=platform.trust), platform)
        world, parts = maker.world, maker.sgx(KEY)
        world.register_platform(parts)
        verdict = world.verdict(
            parts, node_id=node_id, module_svn=module_svn, expiry=START + seconds
        )
        assert world.enclaves.verdict_digest(abi_value(verdict)) == verdict_digest(
            verdict, world.deployment.enclave_domain
        )
        world.judge(verdict)
        assert tuple(world.enclaves.platform(verdict.platform)) == (
            False,
            START + 3650 * DAY,
            0xDE7000000001,
            0,
            node_id,
            module_svn,
            START + seconds,
        )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epoch": 0}, Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE),
        ({"epoch": 2}, Revert.ENCLAVES_SIGNED_FOR_ANOTHER_COMMITTEE),
        ({"expiry": START}, Revert.ENCLAVES_REGISTRATION_HAS_EXPIRED),
        ({"expiry": START + 31 * DAY + 1}, Revert.ENCLAVES_EXPIRY_TOO_FAR_AHEAD),
        ({"expiry": 2**64 - 1}, Revert.ENCLAVES_EXPIRY_TOO_FAR_AHEAD),
    ],
)
def test_verdict_out_of_bounds_is_refused(maker: Maker, changes: dict, expected: Revert) -> None:
    parts = maker.sgx(KEY)
    maker.world.register_platform(parts)
    with reverts(expected):
        maker.world.judge(maker.world.verdict(parts, **changes))


def test_verdict_for_node_zero_is_refused(maker: Maker) -> None:
    parts = maker.sgx(KEY)
    maker.world.register_platform(parts)
    verdict = maker.world.verdict(parts).model_copy(update={"node_id": 0})
    with reverts(Revert.ENCLAVES_NODE_IS_ZERO):
        maker.world.judge(verdict)


def test_verdict_needs_the_committee(maker: Maker) -> None:
    world, parts = maker.world, maker.sgx(KEY)
    world.register_platform(parts)
    verdict = world.verdict(parts)
    with reverts(Revert.COMMITTEE_TOO_FEW_SIGNATURES):
        world.judge(verdict, COMMITTEE[:1])
    with reverts(Revert.COMMITTEE_SIGNER_IS_NOT_A_MEMBER):
        world.judge(verdict, [COMMITTEE[0], actor("thief")])


def test_verdict_on_sgx_admits_no_trust_domain_nor_the_other_way_round(maker: Maker) -> None:
    world = maker.world
    world.govern(world.enclaves, "allow_measurement", TD_MEASUREMENT)
    ready(maker)
    tdx = maker.tdx(OTHER)
    with reverts(Revert.ENCLAVES_VERDICT_ON_ANOTHER_TDX_MODULE):
        world.register_quote(tdx, OTHER)
    judge_again(maker, tdx)
    with reverts(Revert.ENCLAVES_VERDICT_ON_ANOTHER_TDX_MODULE):
        world.register_quote(maker.sgx(KEY), KEY)


def test_expired_verdict_registers_nothing(maker: Maker) -> None:
    parts = ready(maker)
    maker.world.pass_time(7 * DAY)
    with reverts(Revert.ENCLAVES_NO_VERDICT_ON_THE_PLATFORM):
        maker.world.register_quote(parts, KEY)


def test_key_is_renewed_by_a_new_quote_after_each_verdict(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    world.pass_time(8 * DAY)
    assert not is_valid(world)
    world.judge(world.verdict(parts))
    assert not is_valid(world)
    world.register_quote(maker.sgx(KEY), KEY)
    assert is_valid(world)
    assert tuple(world.enclaves.enclave(KEY)) == (1, world.now + 7 * DAY, MEASUREMENT, False)


def test_key_does_not_follow_its_platform_to_another_node(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    judge_again(maker, parts, node_id=2)
    with reverts(Revert.ENCLAVES_KEY_BELONGS_TO_ANOTHER_NODE):
        world.register_quote(maker.sgx(KEY), KEY)
    world.register_quote(maker.sgx(OTHER), OTHER)
    assert is_valid(world, OTHER, 2)


def test_committees_key_may_come_by_quote_later(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    world.register_enclave(enclave_key=KEY, expiry=world.now + DAY)
    world.register_quote(parts, KEY)
    assert tuple(world.enclaves.enclave(KEY)) == (1, world.now + 7 * DAY, MEASUREMENT, False)
    revoke_platform(world, parts.pck_key.digest)
    assert not is_valid(world)


def test_key_by_quote_stays_its_platforms_when_the_committee_extends_it(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    world.register_enclave(enclave_key=KEY, expiry=world.now + 20 * DAY)
    assert is_valid(world)
    revoke_platform(world, parts.pck_key.digest)
    assert not is_valid(world)


@pytest.mark.parametrize("by_committee", [True, False])
def test_key_of_a_revoked_platform_is_brought_back_by_nobody(
    maker: Maker, by_committee: bool
) -> None:
    """Neither by the committee, nor by a quote of the node's next platform."""
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    revoke_platform(world, parts.pck_key.digest)
    if by_committee:
        with reverts(Revert.DCAP_PLATFORM_IS_REVOKED):
            world.register_enclave(enclave_key=KEY, expiry=world.now + 20 * DAY)
    else:
        next_one = maker.next_platform()
        parts = next_one.sgx(KEY)
        world.register_platform(parts)
        judge_again(next_one, parts)
        with reverts(Revert.DCAP_PLATFORM_IS_REVOKED):
            world.register_quote(next_one.sgx(KEY), KEY)
        world.register_quote(next_one.sgx(OTHER), OTHER)
        assert is_valid(world, OTHER)
    assert not is_valid(world)


def test_key_moves_to_its_machines_next_certified_key(maker: Maker) -> None:
    """A recovered TCB gives a machine another PCK key; revoking the old one stops nothing then."""
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    next_one = maker.next_platform()
    renewed = next_one.sgx(KEY)
    world.register_platform(renewed)
    judge_again(next_one, renewed)
    world.register_quote(next_one.sgx(KEY), KEY)
    revoke_platform(world, parts.pck_key.digest)
    assert is_valid(world)
    revoke_platform(world, renewed.pck_key.digest)
    assert not is_valid(world)


def test_registry_says_whom_it_trusts(maker: Maker) -> None:
    enclaves, trust = maker.world.enclaves, maker.platform.trust
    assert tuple(enclaves.root()) == trust.root.abi_value()
    reader = enclaves.certificates()
    assert boa.env.get_code(reader) == boa.env.get_code(
        deploy("PckCertificates", sender=actor("deployer").address).address
    )
    for tee, enclave in [(0x00, trust.sgx), (0x81, trust.tdx)]:
        fields = enclave.attributes_mask + (b"\xff\xff" + bytes(2))
        mask = int.from_bytes(enclave.misc_select_mask + fields)
        pairs = zip(enclave.attributes, enclave.attributes_mask, strict=True)
        attributes = bytes(a & m for a, m in pairs)
        product, svn = enclave.product.to_bytes(2), enclave.min_svn.to_bytes(2)
        bits = int.from_bytes(enclave.misc_select + attributes + product + svn)
        assert tuple(enclaves.quoting_enclave(tee)) == (enclave.signer, bits, mask)
    assert tuple(enclaves.quoting_enclave(0x80)) == (bytes(32), 0, 0)


# revocation


def test_revoked_platform_stops_its_keys_at_once_and_for_good(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    platform = parts.pck_key.digest
    world.register_quote(parts, KEY)
    revoke_platform(world, platform)
    assert world.events(world.enclaves) == [("PlatformRevoked", {"platform": platform})]
    assert not is_valid(world)
    assert is_valid(world, actor("enclave").address)
    assert world.enclaves.platform(platform)[0]
    with reverts(Revert.DCAP_PLATFORM_IS_REVOKED):
        world.register_quote(maker.sgx(OTHER), OTHER)
    with reverts(Revert.DCAP_PLATFORM_IS_REVOKED):
        world.judge(world.verdict(parts, expiry=world.now + 8 * DAY))
    with reverts(Revert.DCAP_PLATFORM_IS_REVOKED):
        world.register_platform(parts)


def test_other_platforms_keys_outlive_a_revocation(maker: Maker) -> None:
    """Before they are renewed, and after."""
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    for i in range(3):
        revoke_platform(world, keccak(text=f"another platform {i}"))
        assert is_valid(world)
    judge_again(maker, parts)
    world.register_quote(maker.sgx(KEY), KEY)
    assert is_valid(world)
    assert is_valid(world, actor("enclave").address)
    revoke_platform(world, parts.pck_key.digest)
    assert not is_valid(world)


def test_platform_can_be_revoked_before_it_is_registered(maker: Maker) -> None:
    world, parts = maker.world, maker.sgx(KEY)
    revoke_platform(world, parts.pck_key.digest)
    with reverts(Revert.DCAP_PLATFORM_IS_REVOKED):
        world.register_platform(parts)


def test_revoked_certificate_revokes_its_platform(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    serial = x509.load_der_x509_certificate(parts.certificates[0]).serial_number
    other_issuer = keccak(text="another CA")
    world.enclaves.revoke_certificate(other_issuer, serial, sender=GUARDIAN)
    world.enclaves.revoke_certificate(parts.issuer.digest, serial + 1, sender=GUARDIAN)
    assert is_valid(world)
    world.enclaves.revoke_certificate(parts.issuer.digest, serial, sender=GUARDIAN)
    assert world.events(world.enclaves) == [
        ("CertificateRevoked", {"authority": parts.issuer.digest, "serial": serial}),
        ("PlatformRevoked", {"platform": parts.pck_key.digest}),
    ]
    assert not is_valid(world)
    world.enclaves.revoke_certificate(parts.issuer.digest, serial, sender=GUARDIAN)
    assert world.events(world.enclaves) == [
        ("CertificateRevoked", {"authority": parts.issuer.digest, "serial": serial})
    ]


def test_certificate_can_be_revoked_before_it_is_brought(maker: Maker) -> None:
    world, parts = maker.world, maker.sgx(KEY)
    serial = x509.load_der_x509_certificate(parts.certificates[0]).serial_number
    world.enclaves.revoke_certificate(parts.issuer.digest, serial, sender=GUARDIAN)
    with reverts(Revert.DCAP_CERTIFICATE_IS_REVOKED):
        world.register_platform(parts)


def test_measurement_revoked_before_a_platform_stays_revoked_after(maker: Maker) -> None:
    """For keys of the committee and by quote, of the era before and after."""
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    committees = actor("enclave").address
    world.enclaves.revoke_measurement(MEASUREMENT, sender=GUARDIAN)
    revoke_platform(world, keccak(text="another platform"))
    assert not is_valid(world)
    assert not is_valid(world, committees)
    world.govern(world.enclaves, "allow_measurement", MEASUREMENT)
    world.set_clock(START + 1)
    assert is_valid(world)
    assert is_valid(world, committees)


def test_revoked_measurement_and_key_stop_keys_by_quote(maker: Maker) -> None:
    world, parts = maker.world, ready(maker)
    world.register_quote(parts, KEY)
    world.register_quote(maker.sgx(OTHER), OTHER)
    world.enclaves.revoke(KEY, sender=GUARDIAN)
    assert not is_valid(world)
    assert is_valid(world, OTHER)
    world.enclaves.revoke_measurement(MEASUREMENT, sender=GUARDIAN)
    assert not is_valid(world, OTHER)


@pytest.mark.parametrize("name", ["thief", "operator 0", "deployer"])
def test_only_guardian_and_owner_revoke_and_only_the_owner_allows(maker: Maker, name: str) -> None:
    enclaves, sender = maker.world.enclaves, actor(name).address
    with reverts(Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN):
        enclaves.revoke_platform(bytes(32), sender=sender)
    with reverts(Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN):
        enclaves.revoke_certificate(bytes(32), 1, sender=sender)
    with reverts(Revert.GOVERNANCE_CALLER_IS_NOT_THE_GUARDIAN):
        enclaves.revoke_authority(bytes(32), sender=sender)
    for who in (sender, GUARDIAN):
        with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
            enclaves.allow_authority(maker.certificate("pck_ca"), sender=who)
        with reverts(Revert.OWNABLE_CALLER_IS_NOT_THE_OWNER):
            enclaves.set_quoting_enclave(0, maker.platform.trust.sgx.abi_value(), sender=who)


def test_measurements_are_allowed_up_to_their_number(world: World) -> None:
    measurements = [keccak(text=f"measurement {i}") for i in range(1_022)]
    owner = str(world.timelock.address)

    def allow(measurement: bytes) -> None:
        world.enclaves.allow_measurement(measurement, sender=owner)

    for measurement in measurements:
        allow(measurement)
    with reverts(Revert.ENCLAVES_TOO_MANY_MEASUREMENTS):
        allow(keccak(text="one too many"))
    world.register_enclave(enclave_key=KEY, measurement=measurements[-1])
    revoke_platform(world, bytes(32))
    assert is_valid(world)
    world.enclaves.revoke_measurement(measurements[-1], sender=GUARDIAN)
    assert not is_valid(world)
    assert is_valid(world, actor("enclave").address)
    allow(measurements[-1])
    assert is_valid(world)


@pytest.mark.parametrize("others", [0, 1, 5])
def test_revoked_platform_stops_keys_of_any_measurement(maker: Maker, others: int) -> None:
    """Also of one that was allowed after another platform had been revoked."""
    world = maker.world
    revoke_platform(world, keccak(text="earlier"))
    owner = str(world.timelock.address)
    for i in range(others):
        world.enclaves.allow_measurement(keccak(text=f"other {i}"), sender=owner)
    measurement = keccak(text="measurement of the enclave")
    world.enclaves.allow_measurement(measurement, sender=owner)
    parts = ready(maker)
    revoke_platform(world, keccak(text="another"))
    world.register_quote(maker.sgx(KEY, measurement), KEY)
    assert is_valid(world)
    revoke_platform(world, keccak(text="a third"))
    assert is_valid(world)
    revoke_platform(world, parts.pck_key.digest)
    assert not is_valid(world)
