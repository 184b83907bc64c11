"""Collateral that the verifier fetches for itself, from Intel's PCS v4 or a PCCS, and keeps.

Whoever serves collateral is not trusted: every part is checked up to the pinned root before it is
kept, and nothing is fetched for a quote whose certificates do not lead there. What a server, or
somebody between, can still do is to withhold news; so collateral ends when it says it does, an
operator may ask for a minimum TCB evaluation, and nothing ever goes back to what is older.

Sources: Intel "Provisioning Certification Service" API version 4, and the reference PCCS, which
adds `rootcacrl`.
"""

import fcntl
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import unquote, urlsplit

import dcap_qvl
import httpx
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import TypeAdapter, ValidationError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from oracle.attestation.collateral import (
    INTEL_ROOT_KEY,
    X509_ERRORS,
    Collateral,
    authenticate,
    check_chain,
    crl_window,
    parse_collateral,
    public_point,
)
from oracle.attestation.errors import (
    AttestationRefused,
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
from oracle.attestation.quote import Kind, Quote
from settlement.errors import InvalidInput
from settlement.types import Frozen, UInt64

INTEL_PCS = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
"""Intel's own service has no `rootcacrl`: the root names this place in its certificate."""

MAX_PART = 1 << 20
MAX_CHAIN = 1 << 14
"""Bytes of one answer, and of an issuer chain in a header."""

Issuer = Literal["platform", "processor"]
Update = Literal["standard", "early"]

_OK = 200
_NOT_FOUND = 404
_TOO_MANY_REQUESTS = 429
IDENTITIES = {"sgx": "QE", "tdx": "TD_QE"}

_log = structlog.get_logger(__name__)


def wall_clock() -> int:
    """Unix seconds."""
    return int(time.time())


@dataclass(frozen=True)
class Platform:
    """For what collateral is asked. `fmspc` is upper-case hex; `pck_issuer` a P-256 point."""

    tee: Kind
    fmspc: str
    issuer: Issuer
    pck_issuer: bytes

    @property
    def name(self) -> str:
        """A name that is fit for a file."""
        return f"{self.tee}-{self.fmspc.lower()}-{self.issuer}"


def key_of_root(certificate: bytes) -> bytes:
    """The P-256 key of a development root (DER), x and y.

    Raises:
        InvalidInput: when it is not a certificate with such a key.
    """
    try:
        return public_point(x509.load_der_x509_certificate(certificate))
    except X509_ERRORS as error:
        raise InvalidInput(f"development root is not a certificate: {error}") from error


def platform_of(quote: Quote, root_key: bytes) -> Platform:
    """The platform that a quote's own certificates prove, up to the root with key `root_key`.

    Raises:
        PlatformUnproven: when they do not.
    """
    try:
        chain = x509.load_pem_x509_certificates(quote.pck_chain.rstrip(b"\0"))
        if len(chain) != 3:
            raise ValueError(f"{len(chain)} certificates, not 3")
        check_chain(chain, root_key)
        pem = chain[0].public_bytes(Encoding.PEM)
        fmspc = bytes(dcap_qvl.parse_pck_extension_from_pem(pem).fmspc).hex().upper()
        common_name = chain[0].issuer.rfc4514_string()
        issuer = next(kind for kind in get_args(Issuer) if f"{kind.title()} CA" in common_name)
        return Platform(quote.kind, fmspc, issuer, public_point(chain[1]))
    except InvalidSignature as error:
        raise PlatformUnproven("a signature is wrong") from error
    except StopIteration as error:
        raise PlatformUnproven(
            "issued by neither Intel's Platform CA nor its Processor CA"
        ) from error
    except X509_ERRORS as error:
        raise PlatformUnproven(" ".join(str(error).split())) from error


class PccsClient:
    """Asks one service for all parts of a platform's collateral. It checks nothing that it gets."""

    def __init__(
        self,
        url: str,
        *,
        root_crl_url: str | None = None,
        update: Update = "standard",
        timeout: float = 5.0,
        budget: float = 20.0,
        attempts: int = 3,
        backoff: float = 0.5,
        ca_file: Path | None = None,
    ) -> None:
        """`url` is the service's base, without `/sgx/certification`.

        `timeout` bounds each wait for the network and `budget` one part's whole transfer with its
        repetitions (seconds). `ca_file` (PEM) takes the place of the public authorities for a PCCS
        with a certificate of its own.
        """
        self._url = url.rstrip("/")
        own = urlsplit(self._url).hostname == urlsplit(INTEL_PCS).hostname
        served = f"{self._url}/sgx/certification/v4/rootcacrl"
        self._root_crl_url = root_crl_url or (INTEL_ROOT_CRL if own else served)
        self._update = update
        self._budget = budget
        self._attempts = attempts
        self._backoff = backoff
        self._http = httpx.Client(
            timeout=timeout,
            verify=_tls_context(ca_file),
            # A compressed answer could be far longer than what was counted on the way in.
            headers={"accept-encoding": "identity"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def fetch(self, platform: Platform) -> str:
        """The collateral, as JSON with the keys of `QuoteCollateralV3`.

        Raises:
            CollateralUnknown: when the service does not know the platform.
            CollateralUnavailable: when it gives no usable answer for now.
            CollateralMalformed, CollateralTooLarge: when an answer is not what it should be.
        """
        sgx, own = f"{self._url}/sgx/certification/v4", f"{self._url}/{platform.tee}"
        early: dict[str, str] = {} if self._update == "standard" else {"update": self._update}
        tcb_info = self._get(f"{own}/certification/v4/tcb", {"fmspc": platform.fmspc, **early})
        identity = self._get(f"{own}/certification/v4/qe/identity", early)
        crl = self._get(f"{sgx}/pckcrl", {"ca": platform.issuer, "encoding": "der"})
        root_crl = self._get(self._root_crl_url, {})
        tcb_text, tcb_signature = _signed_part(tcb_info, "tcbInfo")
        identity_text, identity_signature = _signed_part(identity, "enclaveIdentity")
        return json.dumps(
            {
                "pck_crl_issuer_chain": _chain(crl, "SGX-PCK-CRL-Issuer-Chain"),
                "root_ca_crl": _crl_hex(root_crl, "root CRL"),
                "pck_crl": _crl_hex(crl, "PCK CRL"),
                "tcb_info_issuer_chain": _chain(tcb_info, "TCB-Info-Issuer-Chain"),
                "tcb_info": tcb_text,
                "tcb_info_signature": tcb_signature,
                "qe_identity_issuer_chain": _chain(identity, "SGX-Enclave-Identity-Issuer-Chain"),
                "qe_identity": identity_text,
                "qe_identity_signature": identity_signature,
            }
        )

    def _get(self, url: str, parameters: dict[str, str]) -> "_Answer":
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts) | stop_after_delay(self._budget),
            wait=wait_exponential_jitter(
                initial=self._backoff, max=self._backoff * 8, jitter=self._backoff
            ),
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        )
        deadline = time.monotonic() + self._budget
        return retrying(self._get_once, url, parameters, deadline)

    def _get_once(self, url: str, parameters: dict[str, str], deadline: float) -> "_Answer":
        try:
            with self._http.stream("GET", url, params=parameters) as response:
                status = response.status_code
                if status == _NOT_FOUND:
                    raise CollateralUnknown(str(response.url))
                if status == _TOO_MANY_REQUESTS or response.is_server_error:
                    raise _Passing(url, f"HTTP {status}")
                if status != _OK:
                    raise CollateralUnavailable(url, f"HTTP {status}")
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise CollateralMalformed(f"{url} answered compressed, though asked not to")
                body = bytearray()
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > MAX_PART:
                        raise CollateralTooLarge(url, MAX_PART)
                    if time.monotonic() > deadline:
                        raise CollateralUnavailable(url, f"slower than {self._budget} s")
                return _Answer(url, bytes(body), response.headers)
        except httpx.HTTPError as error:
            raise _Passing(url, f"{type(error).__name__}: {error}") from error


class PccsCollateral:
    """Collateral from a service, kept on disk for as long as it says that it is valid.

    Kept collateral is asked for anew after `refresh` seconds; while that fails, it goes on being
    used, but never at or after its end. Every part is checked up to Intel's root, or for simulated
    quotes up to the development root. A part that is older than one seen before, by evaluation
    number or time of issue, is refused. Several processes may share the directory.
    """

    def __init__(
        self,
        client: PccsClient,
        directory: Path,
        *,
        minimum_evaluation: int = 0,
        development_root: bytes | None = None,
        refresh: int = 6 * 3600,
        pause: int = 60,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        """`development_root` is a DER certificate, `pause` seconds between attempts that failed.

        Raises:
            InvalidInput: when the development root is not a certificate with a P-256 key.
        """
        self._client = client
        self._directory = directory
        self._minimum = minimum_evaluation
        self._development_key = key_of_root(development_root) if development_root else None
        self._refresh = refresh
        self._pause = pause
        self._clock = clock
        self._guard = threading.Lock()
        self._locks: dict[Platform, threading.Lock] = {}
        self._failures: dict[Platform, tuple[int, Exception]] = {}

    def collateral(self, quote: Quote) -> str:
        """The collateral for the quote's platform, kept or fetched.

        Raises:
            PlatformUnproven: when the quote's certificates do not lead to the root.
            SimulatedQuoteRefused: when it is simulated and there is no development root.
            CollateralUnavailable, CollateralUnknown: when the service gives none.
            CollateralMalformed, CollateralTooLarge, CollateralForged, CollateralMismatch,
            CollateralRolledBack, EvaluationTooLow, QuoteStale: when it gives what cannot be used.
        """
        root_key = self._root_key(quote)
        platform = platform_of(quote, root_key)
        store = _Kept(self._directory / sha256(root_key).hexdigest()[:16])
        with self._guard:
            lock = self._locks.setdefault(platform, threading.Lock())
        held = self._held(store, platform, root_key)
        if held is not None and not self._is_due(held):
            return held.text
        if held is not None and lock.locked():
            return held.text  # somebody is asking already, and there is something to go on with
        with lock:
            return self._renew(store, platform, root_key)

    def _renew(self, store: "_Kept", platform: Platform, root_key: bytes) -> str:
        now = self._clock()
        held = self._held(store, platform, root_key)
        if held is not None and not self._is_due(held):
            return held.text
        pause_until, earlier = self._failures.get(platform, (0, None))
        if earlier is not None and now < pause_until:
            if held is not None:
                return held.text
            raise earlier
        try:
            text = self._client.fetch(platform)
            collateral = self._checked(text, platform, root_key)
            store.keep(platform, text, now, collateral)
        except (AttestationRefused, CollateralUnavailable) as error:
            self._failures[platform] = (now + self._pause, error)
            _log.warning(
                "collateral not renewed",
                platform=platform.name,
                code=error.code,
                detail=str(error),
                kept_until=held.until if held else None,
            )
            if held is None:
                raise
            return held.text
        self._failures.pop(platform, None)
        return text

    def _checked(self, text: str, platform: Platform, root_key: bytes) -> Collateral:
        collateral = parse_collateral(text)
        authenticate(collateral, root_key)
        now = self._clock()
        if not collateral.covers(now):
            raise QuoteStale(now, collateral.valid_from, collateral.valid_until)
        for part, found, expected in [
            ("tcb_info", collateral.tcb_info.about, platform.tee.upper()),
            ("tcb_info", collateral.tcb_info.fmspc, platform.fmspc),
            ("qe_identity", collateral.qe_identity.about, IDENTITIES[platform.tee]),
            ("pck_crl", public_point(collateral.pck_issuer).hex(), platform.pck_issuer.hex()),
        ]:
            if found != expected:
                raise CollateralMismatch(part, found, expected)
        if collateral.evaluation < self._minimum:
            raise EvaluationTooLow(collateral.evaluation, self._minimum)
        return collateral

    def _held(self, store: "_Kept", platform: Platform, root_key: bytes) -> "_Held | None":
        kept = store.read(platform)
        if kept is None:
            return None
        try:
            collateral = self._checked(kept.text, platform, root_key)
            store.check(collateral, platform)
        except AttestationRefused:
            return None
        return _Held(kept.text, kept.fetched, collateral.valid_until)

    def _is_due(self, held: "_Held") -> bool:
        now = self._clock()
        # A clock that was set back makes the time of fetching lie ahead: ask again then.
        return not held.fetched <= now < held.fetched + self._refresh

    def _root_key(self, quote: Quote) -> bytes:
        if not quote.simulated:
            return INTEL_ROOT_KEY
        if self._development_key is None:
            raise SimulatedQuoteRefused
        return self._development_key


class _Passing(CollateralUnavailable):
    """A failure that another attempt may not meet."""

    @property
    def code(self) -> str:
        return CollateralUnavailable.__name__


@dataclass(frozen=True)
class _Answer:
    url: str
    body: bytes
    headers: httpx.Headers


@dataclass(frozen=True)
class _Held:
    text: str
    fetched: int
    until: int


class _Record(Frozen):
    fetched: UInt64
    text: str


class _Seen(Frozen):
    evaluation: UInt64
    issued: UInt64


_SEEN = TypeAdapter(dict[str, _Seen])


@dataclass(frozen=True)
class _Kept:
    """What is on disk for one root: collateral by platform, and the newest that was ever seen."""

    directory: Path

    def read(self, platform: Platform) -> _Record | None:
        """The platform's record. One that cannot be read counts as none: it is fetched again."""
        try:
            return _Record.model_validate_json(self._path(platform).read_bytes())
        except (OSError, ValidationError):
            return None

    def keep(self, platform: Platform, text: str, now: int, collateral: Collateral) -> None:
        """Replace the platform's record, in one step.

        Raises:
            CollateralRolledBack: when a part is older than what was seen.
            CollateralUnavailable: when the directory cannot be written.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                self.check(collateral, platform)
                seen = self._seen() | _measures(collateral, platform)
                _replace(self.directory / "seen.json", _SEEN.dump_json(seen))
                record = _Record(fetched=now, text=text)
                _replace(self._path(platform), record.model_dump_json().encode())
        except OSError as error:
            if isinstance(error, CollateralUnavailable):
                raise
            reason = error.strerror or str(error)
            raise CollateralUnavailable(str(self.directory), reason) from error

    def check(self, collateral: Collateral, platform: Platform) -> None:
        """Compare with the newest that was seen.

        Raises:
            CollateralRolledBack: when a part is older.
        """
        seen = self._seen()
        for part, found in _measures(collateral, platform).items():
            before = seen.get(part)
            if before is None:
                continue
            name = part.partition("/")[0]
            if found.evaluation < before.evaluation:
                raise CollateralRolledBack(
                    name, "evaluation number", found.evaluation, before.evaluation
                )
            if found.issued < before.issued:
                raise CollateralRolledBack(name, "issue time", found.issued, before.issued)

    def _path(self, platform: Platform) -> Path:
        return self.directory / f"{platform.name}.json"

    def _seen(self) -> dict[str, _Seen]:
        path = self.directory / "seen.json"
        try:
            return _SEEN.validate_json(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            # Taking it for empty would let an older evaluation back in.
            raise CollateralUnavailable(str(path), "is damaged; restore or delete it") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.directory / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _measures(collateral: Collateral, platform: Platform) -> dict[str, _Seen]:
    tcb_info, identity = collateral.tcb_info, collateral.qe_identity
    return {
        f"tcb_info/{platform.tee}/{platform.fmspc}": _Seen(
            evaluation=tcb_info.evaluation, issued=tcb_info.issued
        ),
        f"qe_identity/{platform.tee}": _Seen(
            evaluation=identity.evaluation, issued=identity.issued
        ),
        # Intel gives every CRL the number 1, so only its time tells which is newer.
        f"pck_crl/{platform.issuer}": _Seen(evaluation=0, issued=crl_window(collateral.pck_crl)[0]),
        "root_ca_crl": _Seen(evaluation=0, issued=crl_window(collateral.root_ca_crl)[0]),
    }


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _signed_part(answer: _Answer, name: str) -> tuple[str, str]:
    """The text of the member `name`, exactly as it was signed, and the signature in hex."""
    try:
        text = answer.body.decode("utf-8")
        start = re.match(rf'\s*{{\s*"{name}"\s*:\s*', text)
        if start is None:
            raise ValueError("it does not begin with it")
        _, end = json.JSONDecoder().raw_decode(text, start.end())
        rest = re.fullmatch(r'\s*,\s*"signature"\s*:\s*"([0-9A-Fa-f]{128})"\s*}\s*', text[end:])
        if rest is None:
            raise ValueError("no signature of 64 bytes follows it")
        return text[start.end() : end], rest[1].lower()
    except (ValueError, RecursionError) as error:
        raise CollateralMalformed(f"{answer.url} gave no signed {name}: {error}") from error


def _chain(answer: _Answer, header: str) -> str:
    value = answer.headers.get(header)
    if value is None:
        raise CollateralMalformed(f"{answer.url} gave no {header} header")
    if len(value) > MAX_CHAIN:
        raise CollateralTooLarge(header, MAX_CHAIN)
    return unquote(value)


def _crl_hex(answer: _Answer, name: str) -> str:
    """A CRL as DER in hex. Intel's service gives DER or PEM, a PCCS gives hex."""
    body = answer.body.strip()
    try:
        if body.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_crl(body).public_bytes(Encoding.DER).hex()
        der = bytes.fromhex(body.decode()) if re.fullmatch(rb"[0-9A-Fa-f]+", body) else answer.body
        x509.load_der_x509_crl(der)
        return der.hex()
    except X509_ERRORS as error:
        raise CollateralMalformed(f"{answer.url} gave no {name}: {error}") from error


def _tls_context(ca_file: Path | None) -> bool | ssl.SSLContext:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise CollateralUnavailable(str(ca_file), error.strerror or "no certificates") from error
