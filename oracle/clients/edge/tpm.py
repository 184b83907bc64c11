"""The machine's TPM 2.0, through tpm2-tools: its endorsement, a key that attests, and quotes.

Nothing that would tell which TPM it is goes into a log or an error: neither key nor certificate.

Source: TCG EK Credential Profile for TPM Family 2.0 (templates, NV indices), tpm2-tools 5.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from oracle.client import Activation, EnrolmentRequest, TpmEvidence, TpmQuote, TpmWanted
from oracle.clients.edge.durable import write_atomically
from settlement.errors import InvalidInput, RaphaError

EkAlgorithm = Literal["ecc", "rsa"]

TOOLS = (
    "tpm2_createek",
    "tpm2_createak",
    "tpm2_load",
    "tpm2_activatecredential",
    "tpm2_quote",
    "tpm2_flushcontext",
    "tpm2_startauthsession",
    "tpm2_policysecret",
    "tpm2_nvread",
)
"""What is run of tpm2-tools."""

_CERTIFICATE_INDEX = {"ecc": "0x01c0000a", "rsa": "0x01c00002"}
_CREDENTIAL_HEADER = bytes.fromhex("badcc0de00000001")
_SELECTION = re.compile(r"sha(256|384|512):(\d{1,2}(?:,\d{1,2})*)")
_MAX_DETAIL = 200


class TpmToolsMissing(InvalidInput):
    """tpm2-tools are not installed."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        super().__init__(f"{tool} is not installed; the TPM is used through Debian's tpm2-tools")


class TpmFailed(RaphaError, OSError):
    """The TPM, or the tool that talks to it, did not do what it was asked for; it may later."""

    final = False

    def __init__(self, tool: str, detail: str) -> None:
        self.tool = tool
        self.detail = detail
        super().__init__(f"{tool}: {detail}")


class TpmRequestRefused(InvalidInput):
    """An oracle wants something of the TPM that this node does not do."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True)
class TpmFiles:
    """Where the machine keeps what belongs to its TPM's word; None where it keeps no such file.

    `certificate` is the endorsement key's (DER or PEM; without one it is read from the TPM),
    `intermediates` (PEM) lead from it to the vendor's root, `event_log` is the firmware's.
    """

    certificate: Path | None = None
    intermediates: Path | None = None
    event_log: Path | None = None


class TpmSession:
    """A TPM with its keys loaded, for as long as the context of `Tpm.session` lasts."""

    def __init__(self, tpm: "Tpm", folder: Path) -> None:
        self._tpm = tpm
        self._folder = folder
        self.ek_public = (folder / "ek.pub").read_bytes()
        self.ak_public = (folder / "ak.pub").read_bytes()

    def request(self, node_id: int) -> EnrolmentRequest:
        """The keys and the endorsement, as an oracle wants them for an enrolment."""
        return EnrolmentRequest(
            node_id=node_id,
            ek_certificate=self._tpm.certificate(self._folder),
            intermediates=self._tpm.intermediates(),
            ek_public=self.ek_public,
            ak_public=self.ak_public,
        )

    def open(self, activation: Activation) -> bytes:
        """The secret in an activation, which only the TPM of both keys finds."""
        blob = _CREDENTIAL_HEADER + activation.credential_blob + activation.encrypted_secret
        (self._folder / "credential").write_bytes(blob)
        with self._tpm.policy(self._folder) as session:
            self._tpm.run(
                self._folder,
                *("tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx"),
                *("-i", "credential", "-o", "secret", "-P", f"session:{session}"),
            )
        return (self._folder / "secret").read_bytes()

    def evidence(self, nonce: bytes, wanted: TpmWanted) -> TpmEvidence:
        """A quote over what is wanted, with the event log where that is wanted.

        Raises:
            TpmRequestRefused: when PCRs are wanted that no policy can be about.
            TpmFailed: when the TPM fails, or the event log cannot be read.
        """
        bank, pcrs = _selected(wanted.selection)
        self._tpm.run(
            self._folder,
            *("tpm2_quote", "-c", "ak.ctx", "-q", nonce.hex(), "-l", wanted.selection),
            *("--scheme", "ecdsa", "-g", "sha256"),
            *("-m", "attest", "-s", "signature", "-o", "pcrs", "-F", "values"),
        )
        values, size = (self._folder / "pcrs").read_bytes(), int(bank[3:]) // 8
        if len(values) != size * len(pcrs):
            raise TpmFailed("tpm2_quote", f"{len(values)} bytes of {len(pcrs)} PCRs")
        quote = TpmQuote.model_validate(
            {
                "ak_public": self.ak_public,
                "attest": (self._folder / "attest").read_bytes(),
                "signature": (self._folder / "signature").read_bytes(),
                "pcrs": {
                    bank: {
                        pcr: values[place * size : (place + 1) * size]
                        for place, pcr in enumerate(pcrs)
                    }
                },
            }
        )
        return TpmEvidence(
            quote=quote, event_log=self._tpm.event_log() if wanted.event_log else None
        )


class Tpm:
    """The TPM at `tcti` (tpm2-tss's name for it, such as ``device:/dev/tpmrm0``).

    The attestation key is kept in `directory`, wrapped by the TPM that made it; with another TPM
    there is a new one. `timeout` is seconds per command.
    """

    def __init__(
        self,
        directory: Path,
        tcti: str,
        *,
        files: TpmFiles = TpmFiles(),
        algorithm: EkAlgorithm = "ecc",
        timeout: float = 60.0,
    ) -> None:
        """
        Raises:
            TpmToolsMissing: naming the first of the tools that is not there.
        """
        for tool in TOOLS:
            if shutil.which(tool) is None:
                raise TpmToolsMissing(tool)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._tcti = tcti
        self._files = files or TpmFiles()
        self._algorithm = algorithm
        self._timeout = timeout

    @contextmanager
    def session(self) -> Iterator[TpmSession]:
        """Load the keys; they are gone from the TPM afterwards.

        Raises:
            TpmFailed: when the TPM does not do it.
        """
        with tempfile.TemporaryDirectory(prefix="rapha-tpm-") as name:
            folder = Path(name)
            try:
                self.run(
                    folder,
                    *("tpm2_createek", "-G", self._algorithm, "-c", "ek.ctx", "-u", "ek.pub"),
                )
                self._flush(folder)
                if not self._load(folder):
                    self._create(folder)
                yield TpmSession(self, folder)
            finally:
                with suppress(TpmFailed):  # what failed before is the error to tell
                    self._flush(folder)

    def certificate(self, folder: Path) -> bytes:
        """The endorsement certificate (DER): from its file, or from the TPM's own memory."""
        if self._files.certificate is not None:
            data = _read(self._files.certificate)
        else:
            index = _CERTIFICATE_INDEX[self._algorithm]
            self.run(folder, "tpm2_nvread", index, "-o", "certificate")
            data = _without_padding((folder / "certificate").read_bytes())
        try:
            if data.startswith(b"-----BEGIN"):
                return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
            x509.load_der_x509_certificate(data)
        except ValueError:  # not chained: its text may carry parts of the certificate
            raise TpmFailed("endorsement certificate", "it is not a certificate") from None
        return data

    def intermediates(self) -> tuple[bytes, ...]:
        """The certificates (DER) between the endorsement key's and the vendor's root."""
        if self._files.intermediates is None:
            return ()
        try:
            chain = x509.load_pem_x509_certificates(_read(self._files.intermediates))
        except ValueError:
            raise TpmFailed("intermediates", "the file does not hold PEM certificates") from None
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)

    def event_log(self) -> bytes | None:
        """The firmware's event log, None where no file is configured."""
        return None if self._files.event_log is None else _read(self._files.event_log)

    @contextmanager
    def policy(self, folder: Path) -> Iterator[str]:
        """A session that satisfies the endorsement key's policy; its file's name."""
        self.run(folder, "tpm2_startauthsession", "--policy-session", "-S", "policy")
        try:
            self.run(folder, "tpm2_policysecret", "-S", "policy", "-c", "e")
            yield "policy"
        finally:
            self.run(folder, "tpm2_flushcontext", "policy")
            self._flush(folder)

    def run(self, folder: Path, *command: str) -> None:
        """Run one of the tools.

        Raises:
            TpmFailed: with the tool's own error, which names no key.
        """
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "TPM2TOOLS_TCTI": self._tcti},
                capture_output=True,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TpmFailed(command[0], f"no answer in {self._timeout} s") from None
        except OSError as error:
            raise TpmFailed(command[0], error.strerror or "cannot be run") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").splitlines()
            errors = [line for line in said if line.startswith("ERROR:")]
            detail = errors[0] if errors else f"ended with {done.returncode}"
            raise TpmFailed(command[0], detail[:_MAX_DETAIL])

    def _load(self, folder: Path) -> bool:
        """Load the attestation key of before; False when there is none of this TPM."""
        try:
            for name in ("ak.pub", "ak.priv"):
                (folder / name).write_bytes((self._directory / name).read_bytes())
        except FileNotFoundError:
            return False
        try:
            with self.policy(folder) as session:
                self.run(
                    folder,
                    *("tpm2_load", "-C", "ek.ctx", "-P", f"session:{session}"),
                    *("-u", "ak.pub", "-r", "ak.priv", "-c", "ak.ctx"),
                )
        except TpmFailed as error:
            if error.tool != "tpm2_load":
                raise
            return False
        return True

    def _create(self, folder: Path) -> None:
        self.run(
            folder,
            *("tpm2_createak", "-C", "ek.ctx", "-G", "ecc", "-s", "ecdsa", "-g", "sha256"),
            *("-u", "ak.pub", "-r", "ak.priv", "-c", "ak.ctx"),
        )
        self._flush(folder)
        # The private part last: without it there is no key, and the next session makes one.
        for name in ("ak.pub", "ak.priv"):
            write_atomically(self._directory / name, (folder / name).read_bytes())

    def _flush(self, folder: Path) -> None:
        """Free the TPM's slots: without a resource manager loaded keys would fill them."""
        self.run(folder, "tpm2_flushcontext", "-t")


def endorsement_digest(certificate: bytes) -> bytes:
    """The SHA-256 of a certificate's key (SubjectPublicKeyInfo), by which operators pin a TPM."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def _selected(selection: str) -> tuple[str, list[int]]:
    """The bank and the PCRs, in ascending order, of a selection such as ``sha256:8,9``."""
    match = _SELECTION.fullmatch(selection)
    pcrs = sorted({int(pcr) for pcr in match[2].split(",")}) if match else []
    if match is None or pcrs[-1] > 23:
        raise TpmRequestRefused(f"a quote over {selection[:64]!r} is wanted; this node makes none")
    return f"sha{match[1]}", pcrs


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TpmFailed(str(path), error.strerror or "cannot be read") from error


def _without_padding(data: bytes) -> bytes:
    """A DER value without what follows it: vendors fill the TPM's memory up."""
    if len(data) > 4 and data[:2] == b"\x30\x82":
        return data[: 4 + int.from_bytes(data[2:4], "big")]
    return data
