"""A verification report: each link of a quote's chain checked by itself, and the verdict.

The links are checked on `cryptography` alone, apart from the library that gives the verdict: a
person sees where a chain breaks, and two readings of the rules meet in every report. The verdict is
`QuoteVerifier`'s, which is what the committee signs by.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from oracle.attestation.collateral import (
    INTEL_ROOT_KEY,
    X509_ERRORS,
    Collateral,
    CollateralSource,
    authenticate,
    parse_collateral,
    verify_raw,
)
from oracle.attestation.errors import (
    CollateralMismatch,
    DebugEnclave,
    QuoteRefused,
    QuoteStale,
    SimulatedQuoteRefused,
)
from oracle.attestation.pccs import IDENTITIES, Platform, key_of_root, platform_of
from oracle.attestation.policy import TcbPolicy
from oracle.attestation.quote import Quote, parse_quote
from oracle.attestation.verify import QuoteVerifier, VerifiedQuote
from settlement.errors import RaphaError
from settlement.types import Frozen

T = TypeVar("T")
Outcome = Literal["pass", "fail", "skip"]


class Check(Frozen):
    """One check, how it ended, and why. Skipped is what rests on a check that failed."""

    name: str
    outcome: Outcome
    why: str


class Report(Frozen):
    """All checks of a quote at `at` (Unix seconds); `accepted` is the verdict, the last of them.

    Every refused quote has a check that says why. An accepted one may have a failed check where the
    report is stricter: the library takes its own root, so it leaves the copy in the quote unread.
    """

    at: int
    accepted: bool
    checks: tuple[Check, ...]
    verified: VerifiedQuote | None


def examine(
    data: bytes,
    *,
    chain_id: int,
    collateral: CollateralSource,
    now: int,
    policy: TcbPolicy | None = None,
    development_root: bytes | None = None,
) -> Report:
    """Check a quote link by link at `now` (Unix seconds), with the arguments of `QuoteVerifier`.

    Raises:
        DevelopmentRootRefused: when a development root is given for a chain with real money.
        InvalidInput: when it is not a certificate.
    """
    verifier = QuoteVerifier(
        chain_id=chain_id,
        collateral=collateral,
        policy=policy,
        development_root=development_root,
    )
    root = key_of_root(development_root) if development_root else None
    checks = _Checks()
    _examine(checks, data, root, collateral, now)
    try:
        verified = verifier.verify(data, now)
    except RaphaError as error:
        checks.add("verdict", "fail", f"{error.code}: {error}")
        return Report(at=now, accepted=False, checks=tuple(checks.done), verified=None)
    listed = ", ".join(verified.advisories) or "no advisories"
    checks.add("verdict", "pass", f"the policy allows {verified.tcb_status} ({listed})")
    return Report(at=now, accepted=True, checks=tuple(checks.done), verified=verified)


class _Checks:
    def __init__(self) -> None:
        self.done: list[Check] = []

    def add(self, name: str, outcome: Outcome, why: str) -> None:
        self.done.append(Check(name=name, outcome=outcome, why=why))

    def run(self, name: str, check: Callable[[], T], why: Callable[[T], str]) -> T | None:
        """What `check` returns; None once its refusal is noted."""
        try:
            value = check()
        except InvalidSignature:
            self.add(name, "fail", "the signature is wrong")
        except (RaphaError, *X509_ERRORS) as error:
            self.add(name, "fail", str(error))
        else:
            self.add(name, "pass", why(value))
            return value
        return None

    def skip(self, *names: str) -> None:
        for name in names:
            self.add(name, "skip", "rests on a check that failed")


def _examine(
    checks: _Checks,
    data: bytes,
    development_key: bytes | None,
    source: CollateralSource,
    now: int,
) -> None:
    quote = checks.run("structure", lambda: parse_quote(data), _structure)
    if quote is None:
        checks.skip(*_OF_QUOTE, *_OF_COLLATERAL)
        return
    checks.run("production mode", lambda: _refuse_debug(quote), lambda _: "not a debug enclave")
    root = checks.run("root", lambda: _root(quote, development_key), _root_name)
    platform = None
    if root is None:
        checks.skip("platform certificates")
    else:
        platform = checks.run(
            "platform certificates",
            lambda: platform_of(quote, root),
            lambda p: (
                f"FMSPC {p.fmspc}, by Intel's {p.issuer} CA, up to the root"
                if not quote.simulated
                else f"FMSPC {p.fmspc}, up to the development root"
            ),
        )
    parts = _Parts.of(quote)
    checks.run(
        "quoting enclave's report",
        lambda: verify_raw(_pck_key(quote), parts.qe_signature, parts.qe_report),
        lambda _: "signed by the platform's key",
    )
    checks.run(
        "attestation key",
        lambda: _check_binding(parts),
        lambda _: "the one that the quoting enclave reported",
    )
    checks.run(
        "quote's signature",
        lambda: verify_raw(_key(parts.attestation_key), parts.signature, quote.signed),
        lambda _: f"by the attestation key, over {len(quote.signed)} bytes",
    )
    if root is None or platform is None:
        checks.skip(*_OF_COLLATERAL)
        return
    _examine_collateral(checks, quote, parts, platform, root, source, now)


_OF_QUOTE = (
    "production mode",
    "root",
    "platform certificates",
    "quoting enclave's report",
    "attestation key",
    "quote's signature",
)
_OF_COLLATERAL = (
    "collateral",
    "collateral's signatures",
    "collateral's time",
    "collateral's subject",
    "revocation",
    "quoting enclave's identity",
)


def _examine_collateral(
    checks: _Checks,
    quote: Quote,
    parts: "_Parts",
    platform: Platform,
    root: bytes,
    source: CollateralSource,
    now: int,
) -> None:
    collateral = checks.run(
        "collateral",
        lambda: parse_collateral(source.collateral(quote)),
        lambda c: f"TCB evaluation data number {c.evaluation}",
    )
    if collateral is None:
        checks.skip(*_OF_COLLATERAL[1:])
        return
    checks.run(
        "collateral's signatures",
        lambda: authenticate(collateral, root),
        lambda _: "every part leads to the root",
    )
    checks.run(
        "collateral's time",
        lambda: _check_time(collateral, now),
        lambda _: f"until {_date(collateral.valid_until)}",
    )
    checks.run(
        "collateral's subject",
        lambda: _check_subject(collateral, platform),
        lambda _: f"{platform.tee.upper()} on FMSPC {platform.fmspc}",
    )
    checks.run(
        "revocation",
        lambda: _check_revocation(collateral, quote),
        lambda count: f"none of {count} certificates is revoked",
    )
    checks.run(
        "quoting enclave's identity",
        lambda: _check_identity(collateral, parts.qe_report),
        lambda status: f"the vendor's, {status}",
    )


@dataclass(frozen=True)
class _Parts:
    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_signature: bytes
    authentication: bytes

    @classmethod
    def of(cls, quote: Quote) -> "_Parts":
        """The signature data of a quote that was read already, so its sizes hold."""
        data = quote.raw[len(quote.signed) + 4 :]
        certification = data[134:] if quote.version > 3 else data[128:]
        size = int.from_bytes(certification[448:450], "little")
        return cls(
            signature=data[:64],
            attestation_key=data[64:128],
            qe_report=certification[:384],
            qe_signature=certification[384:448],
            authentication=certification[450 : 450 + size],
        )


def _structure(quote: Quote) -> str:
    return f"{quote.kind.upper()} quote, version {quote.version}"


def _refuse_debug(quote: Quote) -> None:
    if quote.debug:
        raise DebugEnclave


def _root(quote: Quote, development_key: bytes | None) -> bytes:
    if not quote.simulated:
        return INTEL_ROOT_KEY
    if development_key is None:
        raise SimulatedQuoteRefused
    return development_key


def _root_name(root: bytes) -> str:
    if root == INTEL_ROOT_KEY:
        return "Intel's is asked for"
    return "SIMULATED-DEV-ONLY: the development root is asked for, which protects nothing"


def _pck_key(quote: Quote) -> ec.EllipticCurvePublicKey:
    leaf = x509.load_pem_x509_certificates(quote.pck_chain.rstrip(b"\0"))[0]
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the platform's key is not on a curve")
    return key


def _key(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)


def _check_binding(parts: _Parts) -> None:
    expected = sha256(parts.attestation_key + parts.authentication).digest() + bytes(32)
    if parts.qe_report[320:384] != expected:
        raise QuoteRefused("the quoting enclave reported another attestation key")


def _check_time(collateral: Collateral, now: int) -> None:
    if not collateral.covers(now):
        raise QuoteStale(now, collateral.valid_from, collateral.valid_until)


def _check_subject(collateral: Collateral, platform: Platform) -> None:
    for part, found, expected in [
        ("tcb_info", collateral.tcb_info.about, platform.tee.upper()),
        ("tcb_info", collateral.tcb_info.fmspc, platform.fmspc),
        ("qe_identity", collateral.qe_identity.about, IDENTITIES[platform.tee]),
    ]:
        if found != expected:
            raise CollateralMismatch(part, found, expected)


def _check_revocation(collateral: Collateral, quote: Quote) -> int:
    leaf, issuer = x509.load_pem_x509_certificates(quote.pck_chain.rstrip(b"\0"))[:2]
    document = collateral.document
    signers = [
        x509.load_pem_x509_certificate(chain.encode())
        for chain in (document.tcb_info_issuer_chain, document.qe_identity_issuer_chain)
    ]
    cases = [(leaf, collateral.pck_crl), *((c, collateral.root_ca_crl) for c in [issuer, *signers])]
    for certificate, crl in cases:
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise QuoteRefused(f"revoked: {certificate.subject.rfc4514_string()}")
    return len({certificate.serial_number for certificate, _ in cases})


def _check_identity(collateral: Collateral, report: bytes) -> str:
    """Compare the QE's report with its identity; the status of its TCB level."""
    identity = json.loads(collateral.document.qe_identity)
    for name, found in [("miscselect", report[16:20]), ("attributes", report[48:64])]:
        mask = bytes.fromhex(identity[f"{name}Mask"])
        masked = bytes(a & b for a, b in zip(found, mask, strict=True))
        if masked != bytes.fromhex(identity[name]):
            raise QuoteRefused(f"the quoting enclave's {name} is not the vendor's")
    if report[128:160] != bytes.fromhex(identity["mrsigner"]):
        raise QuoteRefused("the quoting enclave is not signed by the vendor")
    if int.from_bytes(report[256:258], "little") != identity["isvprodid"]:
        raise QuoteRefused("the quoting enclave is another product")
    svn = int.from_bytes(report[258:260], "little")
    for level in identity["tcbLevels"]:
        if level["tcb"]["isvsvn"] <= svn:
            return str(level["tcbStatus"])
    raise QuoteRefused(f"no level of the quoting enclave is as low as {svn}")


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
