"""The development platform: makes quotes in the real SGX and TDX formats where there is neither.

It has its own P-256 root in place of Intel's, and everything under it: PCK CA, PCK leaf, TCB
signing key, CRLs, TCB info, QE identity, attestation key. So the verifiers run unchanged; they
accept it only where its root is configured. Every quote carries `SIMULATED-DEV-ONLY`: it protects
nothing.

Sources: Intel SGX ECDSA QuoteLibReference and Intel TDX DCAP Quoting Library (quote formats), Intel
SGX PCK Certificate and CRL Profile, Intel PCS v4 (TCB info, QE identity).
"""

import json
import os
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256, sha384
from pathlib import Path
from typing import Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from settlement.dcap import P256Key, QuotingEnclave, Trust
from settlement.deployment import REAL_CHAINS
from settlement.errors import InvalidInput

Tee = Literal["sgx", "tdx"]
TcbStatus = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
]
"""Every status that Intel gives to a level of platform TCB."""

SIMULATED = b"SIMULATED-DEV-ONLY"
DAY = 86_400
CERTIFICATE_VALIDITY = 3650 * DAY
COLLATERAL_VALIDITY = 30 * DAY
# Verifiers may go by a block's time, which lags behind this machine's clock.
CLOCK_SKEW = 3600

_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_QE_SIGNER = sha256(b"rapha development quoting enclave").digest()
_ENCLAVE_SIGNER = sha256(b"rapha development enclave").digest()
_QE_ATTRIBUTES = struct.pack("<QQ", 0x11, 0)
_QE_SVN = 8
_TDX_SVN = bytes([3, 0, 6] + [0] * 13)
_SGX_PRODUCT, _TDX_PRODUCT = 1, 2
_EVALUATION = 17
_TD_ATTRIBUTES = 1 << 28  # SEPT_VE_DISABLE, which verifiers demand
_TD_FEATURES = bytes.fromhex("e702060000000000")
_CPU_SVN = bytes([5] * 16)
_PCE_SVN = 13
_PCE_ID = bytes(2)
_FMSPC = bytes.fromhex("de7000000001")
_SGX_OID = "1.2.840.113741.1.13.1"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_KEY_NAMES = ("root", "pck_ca", "pck", "tcb_signing", "attestation")
_CERTIFICATE_NAMES = ("root", "pck_ca", "pck", "tcb_signing")


class DevPlatformRefused(InvalidInput):
    """A development platform was asked for on a chain with real money."""

    def __init__(self, chain_id: int) -> None:
        self.chain_id = chain_id
        super().__init__(f"chain {chain_id} accepts no simulated quotes; run on enclave hardware")


class DevPlatformUnreadable(InvalidInput):
    """A saved development platform is incomplete or damaged; delete the directory for a new one."""

    def __init__(self, directory: Path, reason: str) -> None:
        self.directory = directory
        self.reason = reason
        super().__init__(f"no development platform can be read from {directory}: {reason}")


@dataclass(frozen=True)
class DevPlatform:
    """One simulated machine: its keys, its certificates and the collateral about it."""

    _keys: dict[str, ec.EllipticCurvePrivateKey] = field(repr=False)
    _certificates: dict[str, x509.Certificate] = field(repr=False)
    _collateral: str = field(repr=False)

    @classmethod
    def create(
        cls,
        now: int,
        *,
        chain_id: int,
        validity_seconds: int = COLLATERAL_VALIDITY,
        tee: Tee = "sgx",
        secret: bytes | None = None,
    ) -> Self:
        """A new up-to-date platform with collateral for `validity_seconds` from `now` (Unix time).

        From the same `secret` and `now` comes the same platform, to the byte, with the same quotes:
        for figures that have to repeat.

        Raises:
            DevPlatformRefused: when `chain_id` is a chain with real money.
        """
        _refuse_real(chain_id)
        secret = secret or os.urandom(32)
        keys = {name: _derived_key(secret, name) for name in _KEY_NAMES}
        platform = cls(keys, _issue_certificates(keys, now, secret), "")
        return platform.with_collateral(now, validity_seconds=validity_seconds, tee=tee)

    def with_collateral(
        self,
        now: int,
        *,
        validity_seconds: int = COLLATERAL_VALIDITY,
        tee: Tee = "sgx",
        tcb_status: TcbStatus = "UpToDate",
        advisories: tuple[str, ...] = (),
        qe_status: TcbStatus = "UpToDate",
        evaluation: int = _EVALUATION,
        pck_revoked: bool = False,
        pck_ca_revoked: bool = False,
        tcb_signing_revoked: bool = False,
        fmspc: bytes = _FMSPC,
    ) -> Self:
        """The same platform with collateral issued anew: to refresh it, or to say something else.

        `tee` is what the collateral judges, SGX or TDX quotes. `tcb_status` and `advisories` are
        the vendor's verdict on the platform's TCB level, `qe_status` on its quoting enclave's,
        `evaluation` the TCB evaluation data number. Each `..._revoked` puts that certificate on its
        CRL, and an `fmspc` (6 bytes) not its own is another machine's. Collateral issued for a
        `now` long past has expired.
        """
        statements = _Statements(
            self._keys, self._certificates, now, now + validity_seconds, evaluation, tee
        )
        tcb_info = statements.tcb_info(tcb_status, advisories, fmspc)
        qe_identity = statements.qe_identity(qe_status)
        revoked = self._serials(pck=pck_revoked)
        root_revoked = self._serials(pck_ca=pck_ca_revoked, tcb_signing=tcb_signing_revoked)
        collateral = {
            "pck_crl_issuer_chain": self._chain("pck_ca", "root"),
            "root_ca_crl": statements.crl("root", root_revoked).hex(),
            "pck_crl": statements.crl("pck_ca", revoked).hex(),
            "tcb_info_issuer_chain": self._chain("tcb_signing", "root"),
            "tcb_info": tcb_info,
            "tcb_info_signature": self._sign("tcb_signing", tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": self._chain("tcb_signing", "root"),
            "qe_identity": qe_identity,
            "qe_identity_signature": self._sign("tcb_signing", qe_identity.encode()).hex(),
        }
        return replace(self, _collateral=json.dumps(collateral, indent=1))

    @property
    def root_der(self) -> bytes:
        """The root certificate that a verifier must be configured with."""
        return self._certificates["root"].public_bytes(serialization.Encoding.DER)

    @property
    def trust(self) -> Trust:
        """What a registry that takes this platform's quotes must be deployed with."""
        return Trust(
            root=P256Key.of(self._certificates["root"]),
            authorities=(self._certificates["pck_ca"].public_bytes(serialization.Encoding.DER),),
            sgx=QuotingEnclave(signer=_QE_SIGNER, product=_SGX_PRODUCT, min_svn=_QE_SVN),
            tdx=QuotingEnclave(signer=_QE_SIGNER, product=_TDX_PRODUCT, min_svn=_QE_SVN),
        )

    def collateral_json(self) -> str:
        """The collateral in the form that `dcap_qvl.QuoteCollateralV3.from_json` takes."""
        return self._collateral

    def quote(self, measurement: bytes, report_data: bytes, *, debug: bool = False) -> bytes:
        """An SGX v3 quote for MRENCLAVE `measurement` (32 bytes) over `report_data` (64 bytes).

        Raises:
            InvalidInput: when a length is wrong.
        """
        if len(measurement) != 32 or len(report_data) != 64:
            raise InvalidInput("a quote takes 32 bytes of measurement and 64 of report data")
        signed = _header(3) + _report(
            attributes=struct.pack("<QQ", 0x07 if debug else 0x05, 3),
            measurement=measurement,
            signer=_ENCLAVE_SIGNER,
            report_data=report_data,
        )
        return self._signed(signed, self._quoting_enclave(_SGX_PRODUCT), wrapped=False)

    def td_quote(
        self,
        mrtd: bytes,
        report_data: bytes,
        *,
        rtmrs: tuple[bytes, bytes, bytes, bytes] = (bytes(48),) * 4,
        version: Literal[4, 5] = 4,
        debug: bool = False,
    ) -> bytes:
        """A TDX quote for MRTD and the four RTMRs (48 bytes each) over `report_data` (64 bytes).

        It takes collateral for `tee="tdx"`.

        Raises:
            InvalidInput: when a length is wrong.
        """
        if {len(register) for register in (mrtd, *rtmrs)} != {48} or len(report_data) != 64:
            raise InvalidInput("a TD quote takes 48 bytes for each register and 64 of report data")
        body = struct.pack(
            "<16s48s48x8xQ8s48s144x192s64s",
            _TDX_SVN,
            sha384(b"rapha development TDX module").digest(),
            _TD_ATTRIBUTES | debug,
            _TD_FEATURES,
            mrtd,
            b"".join(rtmrs),
            report_data,
        )
        signed = _header(version, tee_type=0x81)
        if version == 5:
            signed += struct.pack("<HI", 2, len(body))
        return self._signed(signed + body, self._quoting_enclave(_TDX_PRODUCT), wrapped=True)

    def _quoting_enclave(self, product: int) -> bytes:
        """The QE's report on the attestation key, its signature, and the certificates under it."""
        authentication = bytes(range(32))
        report = _report(
            attributes=_QE_ATTRIBUTES,
            measurement=sha256(_QE_SIGNER).digest(),
            signer=_QE_SIGNER,
            product=product,
            svn=_QE_SVN,
            report_data=sha256(self._attestation_key + authentication).digest() + bytes(32),
        )
        chain = self._chain("pck", "pck_ca", "root").encode()
        return (
            report
            + self._sign("pck", report)
            + struct.pack("<H", len(authentication))
            + authentication
            + struct.pack("<HI", 5, len(chain))
            + chain
        )

    def _signed(self, signed: bytes, certification: bytes, *, wrapped: bool) -> bytes:
        if wrapped:  # from version 4 on the QE's part is certification data of its own
            certification = struct.pack("<HI", 6, len(certification)) + certification
        data = self._sign("attestation", signed) + self._attestation_key + certification
        return signed + struct.pack("<I", len(data)) + data

    @property
    def _attestation_key(self) -> bytes:
        point = self._keys["attestation"].public_key().public_numbers()
        return point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")

    def _serials(self, **revoked: bool) -> tuple[int, ...]:
        return tuple(self._certificates[name].serial_number for name in revoked if revoked[name])

    def save(self, directory: Path) -> None:
        """Write the platform: keys for their owner alone, `root.der` and `collateral.json` public.

        `collateral.json` comes last: a directory that has it is complete.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, key in self._keys.items():
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            _write(directory / f"{name}.key", pem, 0o600)
        for name in _CERTIFICATE_NAMES:
            _write(directory / f"{name}.pem", self._chain(name).encode(), 0o644)
        _write(directory / "root.der", self.root_der, 0o644)
        _write(directory / "collateral.json", self._collateral.encode(), 0o644)

    @classmethod
    def load(cls, directory: Path, *, chain_id: int) -> Self:
        """The platform that was saved there.

        Raises:
            DevPlatformRefused: when `chain_id` is a chain with real money.
            DevPlatformUnreadable: when a file is missing or is not what it should be.
        """
        _refuse_real(chain_id)
        try:
            keys = {name: _load_key(directory / f"{name}.key") for name in _KEY_NAMES}
            certificates = {
                name: x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
                for name in _CERTIFICATE_NAMES
            }
            collateral = (directory / "collateral.json").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DevPlatformUnreadable(directory, str(error)) from error
        for name, certificate in certificates.items():
            if certificate.public_key() != keys[name].public_key():
                raise DevPlatformUnreadable(directory, f"{name}.pem is not for {name}.key")
        return cls(keys, certificates, collateral)

    @classmethod
    def open(cls, directory: Path, now: int, *, chain_id: int) -> Self:
        """The platform saved there, or a new one, saved; either way with collateral as of `now`.

        Raises:
            DevPlatformRefused, DevPlatformUnreadable: as `load` does.
        """
        if not (directory / "collateral.json").exists():
            platform = cls.create(now, chain_id=chain_id)
            platform.save(directory)
            return platform
        platform = cls.load(directory, chain_id=chain_id).with_collateral(now)
        _write(directory / "collateral.json", platform.collateral_json().encode(), 0o644)
        return platform

    def _chain(self, *names: str) -> str:
        certificates = (self._certificates[name] for name in names)
        return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)

    def _sign(self, name: str, data: bytes) -> bytes:
        der = self._keys[name].sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _derived(secret: bytes, what: str) -> bytes:
    return sha256(b"rapha development platform" + sha256(secret).digest() + what.encode()).digest()


def _derived_key(secret: bytes, name: str) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(_derived(secret, f"key of {name}")) % (_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def _refuse_real(chain_id: int) -> None:
    if chain_id in REAL_CHAINS:
        raise DevPlatformRefused(chain_id)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError(f"{path.name} is not a P-256 key")
    return key


def _write(path: Path, data: bytes, mode: int) -> None:
    # Replaced in one step, and never readable by others in between.
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    temporary.replace(path)


def _header(version: int, tee_type: int = 0) -> bytes:
    return struct.pack(
        "<HHIHH16s20s", version, 2, tee_type, _QE_SVN, _PCE_SVN, _QE_VENDOR, SIMULATED
    )


def _report(
    *,
    attributes: bytes,
    measurement: bytes,
    signer: bytes,
    report_data: bytes,
    product: int = 0,
    svn: int = 0,
) -> bytes:
    """The 384 bytes of an SGX enclave report (REPORTBODY)."""
    return struct.pack(
        "<16s4x28x16s32s32x32s96xHH60x64s",
        _CPU_SVN,
        attributes,
        measurement,
        signer,
        product,
        svn,
        report_data,
    )


@dataclass(frozen=True)
class _Statements:
    """What the platform's vendor signs, from an hour before `start` until `end` (Unix seconds)."""

    keys: dict[str, ec.EllipticCurvePrivateKey]
    certificates: dict[str, x509.Certificate]
    start: int
    end: int
    evaluation: int
    tee: Tee

    @property
    def _issue(self) -> dict[str, object]:
        return {
            "issueDate": _rfc3339(self.start - CLOCK_SKEW),
            "nextUpdate": _rfc3339(self.end),
            "tcbEvaluationDataNumber": self.evaluation,
        }

    def tcb_info(self, status: str, advisories: tuple[str, ...], fmspc: bytes) -> str:
        tcb: dict[str, object] = {"sgxtcbcomponents": _components(_CPU_SVN), "pcesvn": _PCE_SVN}
        module: dict[str, object] = {}
        if self.tee == "tdx":
            tcb["tdxtcbcomponents"] = _components(_TDX_SVN)
            module["tdxModule"] = {
                "mrsigner": "00" * 48,
                "attributes": "00" * 8,
                "attributesMask": "FF" * 8,
            }
        level = {
            "tcb": tcb,
            "tcbDate": _rfc3339(self.start - CLOCK_SKEW),
            "tcbStatus": status,
            "advisoryIDs": list(advisories),
        }
        return _compact(
            {
                "id": self.tee.upper(),
                "version": 3,
                **self._issue,
                "fmspc": fmspc.hex().upper(),
                "pceId": _PCE_ID.hex().upper(),
                "tcbType": 0,
                **module,
                "tcbLevels": [level],
            }
        )

    def qe_identity(self, status: str) -> str:
        level = {
            "tcb": {"isvsvn": _QE_SVN},
            "tcbDate": _rfc3339(self.start - CLOCK_SKEW),
            "tcbStatus": status,
        }
        return _compact(
            {
                "id": "TD_QE" if self.tee == "tdx" else "QE",
                "version": 2,
                **self._issue,
                "miscselect": "00000000",
                "miscselectMask": "FFFFFFFF",
                "attributes": _QE_ATTRIBUTES.hex().upper(),
                "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
                "mrsigner": _QE_SIGNER.hex().upper(),
                "isvprodid": _TDX_PRODUCT if self.tee == "tdx" else _SGX_PRODUCT,
                "tcbLevels": [level],
            }
        )

    def crl(self, issuer: str, revoked: tuple[int, ...]) -> bytes:
        start, end = _time(self.start - CLOCK_SKEW), _time(self.end)
        key, certificate = self.keys[issuer], self.certificates[issuer]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(start)
            .next_update(end)
            .add_extension(x509.CRLNumber(self.start), critical=False)
            .add_extension(_authority(key), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _issue_certificates(
    keys: dict[str, ec.EllipticCurvePrivateKey], now: int, secret: bytes
) -> dict[str, x509.Certificate]:
    def issue(
        name: str, subject: str, issuer: str, issuer_subject: str, ca_depth: int | None, is_ca: bool
    ) -> x509.Certificate:
        public = keys[name].public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer_subject))
            .public_key(public)
            .serial_number(int.from_bytes(_derived(secret, f"serial of {name}")[:20]) >> 1)
            .not_valid_before(_time(now - CLOCK_SKEW))
            .not_valid_after(_time(now + CERTIFICATE_VALIDITY))
            .add_extension(_authority(keys[issuer]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_distribution_point(issuer), critical=False)
            .add_extension(_key_usage(is_ca), critical=True)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=ca_depth), critical=True)
        )
        if name == "pck":
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX_OID), _sgx_values())
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(keys[issuer], hashes.SHA256(), ecdsa_deterministic=True)

    root, pck_ca = "SGX Root CA", "SGX PCK Platform CA"
    return {
        "root": issue("root", root, "root", root, 1, True),
        "pck_ca": issue("pck_ca", pck_ca, "root", root, 0, True),
        "pck": issue("pck", "SGX PCK Certificate", "pck_ca", pck_ca, None, False),
        "tcb_signing": issue("tcb_signing", "SGX TCB Signing", "root", root, None, False),
    }


def _name(subject: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Development {subject}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIMULATED.decode()),
        ]
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _distribution_point(issuer: str) -> x509.CRLDistributionPoints:
    # Intel's library demands one; nobody fetches from it.
    url = x509.UniformResourceIdentifier(f"https://development.invalid/{issuer}.crl")
    return x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)])


def _key_usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=not is_ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _sgx_values() -> bytes:
    """The PCK leaf's SGX extension: PPID, TCB, PCE id, FMSPC, type, instance, configuration."""
    components = [(f"2.{i}", _integer(svn)) for i, svn in enumerate(_CPU_SVN, start=1)]
    tcb = [*components, ("2.17", _integer(_PCE_SVN)), ("2.18", _octets(_CPU_SVN))]
    no = _der(0x01, b"\0")
    values = [
        ("1", _octets(sha256(SIMULATED).digest()[:16])),
        ("2", _sequence(tcb)),
        ("3", _octets(_PCE_ID)),
        ("4", _octets(_FMSPC)),
        ("5", _der(0x0A, b"\1")),
        ("6", _octets(sha256(_QE_SIGNER).digest()[:16])),
        ("7", _sequence([("7.1", no), ("7.2", no), ("7.3", no)])),
    ]
    return _sequence(values)


def _sequence(values: list[tuple[str, bytes]]) -> bytes:
    pairs = (_der(0x30, _oid(f"{_SGX_OID}.{oid}") + value) for oid, value in values)
    return _der(0x30, b"".join(pairs))


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _octets(value: bytes) -> bytes:
    return _der(0x04, value)


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    content = bytes([40 * first + second])
    for arc in rest:
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | arc & 0x7F)
        content += bytes(reversed(septets))
    return _der(0x06, content)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _components(svns: bytes) -> list[dict[str, int]]:
    return [{"svn": svn} for svn in svns]


def _compact(value: dict[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _rfc3339(seconds: int) -> str:
    return _time(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
