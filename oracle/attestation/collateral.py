"""Collateral: what the vendor says about platforms, chosen by the verifier, never by the sender."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import dcap_qvl
from cryptography import x509
from pydantic import ValidationError

from oracle.attestation.errors import CollateralMalformed, CollateralUnavailable
from oracle.attestation.quote import Quote
from settlement.types import Frozen


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
class Collateral:
    """Collateral as the verifier takes it, with the time that all of it covers.

    It counts from `valid_from` up to, but not at, `valid_until` (Unix seconds): the narrowest of
    TCB info, QE identity, both CRLs and the issuers' certificates.
    """

    document: dcap_qvl.QuoteCollateralV3
    valid_from: int
    valid_until: int

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
        windows = [
            _statement_window(document.tcb_info),
            _statement_window(document.qe_identity),
            _crl_window(document.root_ca_crl),
            _crl_window(document.pck_crl),
            *_chain_windows(document.pck_crl_issuer_chain),
            *_chain_windows(document.tcb_info_issuer_chain),
            *_chain_windows(document.qe_identity_issuer_chain),
        ]
        return Collateral(
            document=dcap_qvl.QuoteCollateralV3.from_json(text),
            valid_from=max(start for start, _ in windows),
            valid_until=min(end for _, end in windows),
        )
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, part["loc"])) or "text" for part in error.errors())
        raise CollateralMalformed(f"invalid {fields}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CollateralMalformed(str(error)) from error


def _statement_window(text: str) -> tuple[int, int]:
    statement = json.loads(text)
    start, end = (datetime.fromisoformat(statement[key]) for key in ("issueDate", "nextUpdate"))
    return int(start.timestamp()), int(end.timestamp())


def _crl_window(crl_hex: str) -> tuple[int, int]:
    crl = x509.load_der_x509_crl(bytes.fromhex(crl_hex))
    if crl.next_update_utc is None:
        raise ValueError("a CRL has no nextUpdate")
    return int(crl.last_update_utc.timestamp()), int(crl.next_update_utc.timestamp())


def _chain_windows(pem: str) -> list[tuple[int, int]]:
    certificates = x509.load_pem_x509_certificates(pem.encode())
    return [
        (int(c.not_valid_before_utc.timestamp()), int(c.not_valid_after_utc.timestamp()))
        for c in certificates
    ]
