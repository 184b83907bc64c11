"""Collateral: what the vendor says about platforms, chosen by the verifier, never by the sender."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pydantic import ValidationError

from oracle.attestation.errors import (
    CollateralForged,
    CollateralMalformed,
    CollateralUnavailable,
)
from oracle.attestation.quote import Quote
from settlement.types import Frozen

INTEL_ROOT_KEY = bytes.fromhex(
    "0ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5"
    "67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
)
"""The P-256 key (x, y) of Intel's SGX Root CA."""

X509_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.AttributeNotFound,
)
"""What reading a certificate of unknown origin may raise."""


class CollateralSource(Protocol):
    """Where a verifier gets its collateral."""

    def collateral(self, quote: Quote) -> str:
        """The collateral for the quote's platform, as JSON with the keys of `QuoteCollateralV3`.

        Raises:
            CollateralUnavailable: when there is none for now.
        """


class FileCollateral:
    """Collateral from one file, read anew each time so that replacing the file refreshes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collateral(self, quote: Quote) -> str:
        """The file's text, whatever the quote."""
        try:
            return self._path.read_text(encoding="utf-8")
        except OSError as error:
            raise CollateralUnavailable(str(self._path), error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise CollateralMalformed(f"{self._path} is not UTF-8") from error


@dataclass(frozen=True)
class Statement:
    """One thing that the vendor signed. `issued` and `until` are Unix seconds.

    `about` is what it speaks of: "SGX" or "TDX", "QE" or "TD_QE". `evaluation` is its TCB
    evaluation data number; `fmspc` (upper-case hex) stands in TCB info only.
    """

    about: str
    evaluation: int
    issued: int
    until: int
    fmspc: str = ""


@dataclass(frozen=True)
class Collateral:
    """Collateral as the verifier takes it, with the time that all of it covers.

    It counts from `valid_from` up to, but not at, `valid_until` (Unix seconds): the narrowest of
    TCB info, QE identity, both CRLs and the issuers' certificates. `pck_issuer` is the certificate
    of whom the PCK CRL speaks.
    """

    document: dcap_qvl.QuoteCollateralV3
    valid_from: int
    valid_until: int
    tcb_info: Statement
    qe_identity: Statement
    root_ca_crl: x509.CertificateRevocationList
    pck_crl: x509.CertificateRevocationList
    pck_issuer: x509.Certificate

    @property
    def evaluation(self) -> int:
        """The TCB evaluation data number that all of it reaches."""
        return min(self.tcb_info.evaluation, self.qe_identity.evaluation)

    def covers(self, now: int) -> bool:
        """Whether nothing in it is from the future or has expired."""
        return self.valid_from <= now < self.valid_until


class _Document(Frozen):
    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str
    pck_certificate_chain: str | None = None


def parse_collateral(text: str) -> Collateral:
    """Read collateral and the times it covers. Its signatures are checked with the quote's.

    Raises:
        CollateralMalformed: when a part is missing or cannot be read.
    """
    try:
        document = _Document.model_validate_json(text)
        tcb_info, qe_identity = _statement(document.tcb_info), _statement(document.qe_identity)
        root_ca_crl, pck_crl = _crl(document.root_ca_crl), _crl(document.pck_crl)
        pck_issuers = _certificates(document.pck_crl_issuer_chain)
        windows = [
            *((statement.issued, statement.until) for statement in (tcb_info, qe_identity)),
            *(crl_window(crl) for crl in (root_ca_crl, pck_crl)),
            *_chain_windows(pck_issuers),
            *_chain_windows(_certificates(document.tcb_info_issuer_chain)),
            *_chain_windows(_certificates(document.qe_identity_issuer_chain)),
        ]
        return Collateral(
            document=dcap_qvl.QuoteCollateralV3.from_json(text),
            valid_from=max(start for start, _ in windows),
            valid_until=min(end for _, end in windows),
            tcb_info=tcb_info,
            qe_identity=qe_identity,
            root_ca_crl=root_ca_crl,
            pck_crl=pck_crl,
            pck_issuer=pck_issuers[0],
        )
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, part["loc"])) or "text" for part in error.errors())
        raise CollateralMalformed(f"invalid {fields}") from error
    except KeyError as error:
        raise CollateralMalformed(f"a statement has no {error}") from error
    except (AttributeError, OverflowError, *X509_ERRORS) as error:
        raise CollateralMalformed(str(error)) from error
    except RecursionError as error:
        raise CollateralMalformed("a statement is nested too deeply") from error


def authenticate(collateral: Collateral, root_key: bytes) -> None:
    """Check that every part was signed under the root with the P-256 key `root_key` (x, y).

    This says who spoke, so that what was said can be kept. Times, revocation and what the parts say
    about a quote are the quote verification's.

    Raises:
        CollateralForged: for the first part that was not.
    """
    document = collateral.document
    for part, check in _signature_checks(collateral, document, root_key).items():
        try:
            check()
        except InvalidSignature as error:
            raise CollateralForged(part, "its signature is wrong") from error
        except X509_ERRORS as error:
            raise CollateralForged(part, str(error)) from error


def public_point(certificate: x509.Certificate) -> bytes:
    """The certificate's P-256 key as x and y, 64 bytes.

    Raises:
        ValueError: when it has another kind of key.
    """
    return point_of(_p256(certificate.public_key()))


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A P-256 key as x and y, 64 bytes."""
    return key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )[1:]


def verify_raw(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    """Check an ECDSA-SHA256 signature given as r and s, 64 bytes.

    Raises:
        InvalidSignature: when it is not the key's over `data`.
    """
    if len(signature) != 64:
        raise InvalidSignature
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))


def crl_window(crl: x509.CertificateRevocationList) -> tuple[int, int]:
    """When a CRL was issued and when the next one is due, Unix seconds.

    Raises:
        ValueError: when it names no next one.
    """
    if crl.next_update_utc is None:
        raise ValueError("a CRL has no nextUpdate")
    return int(crl.last_update_utc.timestamp()), int(crl.next_update_utc.timestamp())


def check_chain(chain: list[x509.Certificate], root_key: bytes) -> None:
    """Check that each certificate was issued by the next, and the last by the pinned root itself.

    Raises:
        InvalidSignature, or one of X509_ERRORS: when it was not.
    """
    if public_point(chain[-1]) != root_key:
        raise ValueError("its chain does not end at the pinned root")
    for certificate, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        if not _is_authority(issuer):
            raise ValueError("a certificate in its chain was issued by one that is no authority")
        certificate.verify_directly_issued_by(issuer)


def _signature_checks(
    collateral: Collateral, document: dcap_qvl.QuoteCollateralV3, root_key: bytes
) -> dict[str, Callable[[], None]]:
    def statement(text: str, signature: bytes, chain_pem: str) -> None:
        chain = _certificates(chain_pem)
        _expect_two(chain)
        check_chain(chain, root_key)
        if _is_authority(chain[0]):
            raise ValueError("it is signed by a certificate authority")
        verify_raw(_p256(chain[0].public_key()), signature, text.encode())

    def crl(value: x509.CertificateRevocationList, issuer: x509.Certificate) -> None:
        if not value.is_signature_valid(_p256(issuer.public_key())):
            raise InvalidSignature

    def pck_crl() -> None:
        chain = _certificates(document.pck_crl_issuer_chain)
        _expect_two(chain)
        check_chain(chain, root_key)
        crl(collateral.pck_crl, chain[0])

    def root_ca_crl() -> None:
        root = _certificates(document.pck_crl_issuer_chain)[-1]
        crl(collateral.root_ca_crl, root)

    return {
        "pck_crl": pck_crl,
        "root_ca_crl": root_ca_crl,
        "tcb_info": lambda: statement(
            document.tcb_info, document.tcb_info_signature, document.tcb_info_issuer_chain
        ),
        "qe_identity": lambda: statement(
            document.qe_identity, document.qe_identity_signature, document.qe_identity_issuer_chain
        ),
    }


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _expect_two(chain: list[x509.Certificate]) -> None:
    if len(chain) != 2:
        raise ValueError(f"its chain has {len(chain)} certificates, not 2")


def _p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("a certificate's key is not on P-256")
    return key


def _statement(text: str) -> Statement:
    statement = json.loads(text)
    issued, until = (datetime.fromisoformat(statement[key]) for key in ("issueDate", "nextUpdate"))
    evaluation = statement["tcbEvaluationDataNumber"]
    if type(evaluation) is not int or evaluation < 0:
        raise ValueError("a statement's tcbEvaluationDataNumber is not a number")
    return Statement(
        about=str(statement["id"]),
        evaluation=evaluation,
        issued=int(issued.timestamp()),
        until=int(until.timestamp()),
        fmspc=str(statement.get("fmspc", "")).upper(),
    )


def _crl(crl_hex: str) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(bytes.fromhex(crl_hex))


def _certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def _chain_windows(chain: list[x509.Certificate]) -> list[tuple[int, int]]:
    return [
        (int(c.not_valid_before_utc.timestamp()), int(c.not_valid_after_utc.timestamp()))
        for c in chain
    ]
