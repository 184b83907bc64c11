"""Real TPM 2.0 commands: one emulated TPM, driven by tpm2-tools as a node would drive its own."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from endorsement import EndorsementCa, der

from oracle.attestation.tpm.endorsement import EndorsementRoots
from oracle.attestation.tpm.enrolment import (
    Activation,
    ActivationAnswer,
    EnrolledKey,
    Enrolment,
    EnrolmentRequest,
    MemoryActivations,
    activation_proof,
)
from oracle.attestation.tpm.quote import PcrValues, TpmQuote
from oracle.attestation.tpm.structures import Bank, Selection, parse_public, selection_text

NOW = 1_800_000_000
TTL = 300
PACKAGES = "swtpm tpm2-tools"
INSTALL = f"these tests need a TPM emulator and its tools: apt-get install -y {PACKAGES}"

_CMD_INIT = (2).to_bytes(4, "big")
"""swtpm's control command for a power cycle, before its flags."""


class TpmToolsMissing(RuntimeError):
    """The emulator or its tools are not installed."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"{missing} is missing; {INSTALL}")


class TpmCommandFailed(RuntimeError):
    """The TPM, or the tool that talks to it, refused a command."""


@dataclass(frozen=True)
class Key:
    """A key of one TPM: the tools' context file, and its TPM2B_PUBLIC."""

    context: str
    public: bytes


class Swtpm:
    """One emulated TPM; its PCRs start at zero."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keys = 0

    def create_ek(self, algorithm: str) -> Key:
        """The endorsement key by the TCG's template: "rsa" or "ecc"."""
        return self._key("tpm2_createek", "-G", algorithm)

    def create_ak(self, ek: Key, algorithm: str, scheme: str, hash_: str = "sha256") -> Key:
        """An attestation key under the endorsement key."""
        return self._key(
            "tpm2_createak", "-C", ek.context, "-G", algorithm, "-s", scheme, "-g", hash_
        )

    def create_signing_key(self, *attributes: str) -> Key:
        """A primary P-256 key that signs, with these attributes."""
        context = self._context()
        listed = "|".join(("sign", "userwithauth", *attributes))
        self.run("tpm2_createprimary", "-C", "e", "-G", "ecc:ecdsa-sha256:null", "-a", listed,
                 "-c", context)  # fmt: skip
        self.run("tpm2_readpublic", "-c", context, "-o", f"{context}.pub")
        self.run("tpm2_flushcontext", "-t")
        return Key(context, self.read(f"{context}.pub"))

    def activate(
        self, ek: Key, ak: Key, activation: Activation, node_id: int = 7
    ) -> ActivationAnswer:
        """Let the TPM open a credential, by TPM2_ActivateCredential."""
        header = bytes.fromhex("badcc0de00000001")
        blob = header + activation.credential_blob + activation.encrypted_secret
        (self._directory / "credential").write_bytes(blob)
        self.run("tpm2_startauthsession", "--policy-session", "-S", "session")
        try:
            self.run("tpm2_policysecret", "-S", "session", "-c", "e")
            self.run("tpm2_activatecredential", "-c", ak.context, "-C", ek.context,
                     "-i", "credential", "-o", "secret", "-P", "session:session")  # fmt: skip
        finally:
            self.run("tpm2_flushcontext", "session")
            self.run("tpm2_flushcontext", "-t")
        proof = activation_proof(
            self.read("secret"), challenge_id=activation.challenge_id, node_id=node_id
        )
        return ActivationAnswer(challenge_id=activation.challenge_id, proof=proof)

    def extend(self, pcr: int, digests: Mapping[Bank, bytes]) -> None:
        """Measure one event."""
        listed = ",".join(f"{bank}={digest.hex()}" for bank, digest in digests.items())
        self.run("tpm2_pcrextend", f"{pcr}:{listed}")

    def quote(self, ak: Key, nonce: bytes, selection: Selection) -> TpmQuote:
        """A quote over exactly these PCRs, by the key's own scheme."""
        scheme = parse_public(ak.public).scheme
        assert scheme is not None
        self.run("tpm2_quote", "-c", ak.context, "-q", nonce.hex(), "-l", selection_text(selection),
                 "--scheme", scheme.scheme.name.lower(), "-g", scheme.bank.value,
                 "-m", "attest", "-s", "signature", "-o", "pcrs", "-F", "values")  # fmt: skip
        self.run("tpm2_flushcontext", "-t")
        joined, values = self.read("pcrs"), PcrValues()
        for bank, pcrs in selection.items():
            for pcr in sorted(pcrs):
                values.setdefault(bank, {})[pcr] = joined[: bank.size]
                joined = joined[bank.size :]
        assert joined == b""
        return TpmQuote(
            ak_public=ak.public,
            attest=self.read("attest"),
            signature=self.read("signature"),
            pcrs=values,
        )

    def reboot(self) -> None:
        """What a power cycle does to a TPM: its PCRs are zero again, its reset count rises."""
        self.run("tpm2_shutdown", "-c")
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._directory / "tpm.ctrl"))
            control.sendall(_CMD_INIT + bytes(4))
            assert control.recv(4) == bytes(4), "the emulator does not start anew"
        self.run("tpm2_startup", "-c")

    def run(self, *command: str) -> str:
        """Run a tool against this TPM; its output.

        Raises:
            TpmCommandFailed: with what the tool says.
        """
        done = subprocess.run(
            command,
            cwd=self._directory,
            env={**os.environ, "TPM2TOOLS_TCTI": f"swtpm:path={self._directory / 'tpm'}"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if "Could not load tcti" in done.stderr:
            raise TpmToolsMissing("the TCTI for swtpm")
        if done.returncode:
            raise TpmCommandFailed(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def read(self, name: str) -> bytes:
        """A file that a tool wrote."""
        return (self._directory / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """A file for a tool to read."""
        (self._directory / name).write_bytes(data)

    def _context(self) -> str:
        self._keys += 1
        return f"key{self._keys}"

    def _key(self, *command: str) -> Key:
        context = self._context()
        self.run(*command, "-c", context, "-u", f"{context}.pub")
        self.run("tpm2_flushcontext", "-t")
        return Key(context, self.read(f"{context}.pub"))


@dataclass(frozen=True)
class Vendor:
    """A vendor's authority, and the enrolment of a verifier that trusts it alone."""

    ca: EndorsementCa
    enrolment: Enrolment

    @classmethod
    def create(cls) -> "Vendor":
        ca = EndorsementCa.create(NOW)
        roots = EndorsementRoots([der(ca.root)])
        return cls(ca, Enrolment(roots, MemoryActivations(), ttl=TTL))

    def request(self, ek: Key, ak: Key, node_id: int = 7) -> EnrolmentRequest:
        return EnrolmentRequest(
            node_id=node_id,
            ek_certificate=self.ca.certify(parse_public(ek.public).key),
            intermediates=(der(self.ca.issuer),),
            ek_public=ek.public,
            ak_public=ak.public,
        )


@dataclass
class Node:
    """A node with its TPM and keys, enrolled or not yet."""

    tpm: Swtpm
    ek: Key
    ak: Key
    vendor: Vendor = field(repr=False)

    def enrol(self, node_id: int = 7) -> EnrolledKey:
        """Enrol the keys one second after NOW."""
        activation = self.vendor.enrolment.begin(
            self.vendor.request(self.ek, self.ak, node_id), NOW
        )
        answer = self.tpm.activate(self.ek, self.ak, activation, node_id)
        return self.vendor.enrolment.finish(answer, NOW + 1)


@contextmanager
def emulated_tpm() -> Iterator[Swtpm]:
    """A new TPM, gone with the context.

    Raises:
        TpmToolsMissing: when the emulator or its tools are not installed.
    """
    for tool in ("swtpm", "tpm2_createek"):
        if shutil.which(tool) is None:
            raise TpmToolsMissing(tool)
    with tempfile.TemporaryDirectory(prefix="tpm") as name:
        directory = Path(name)
        (directory / "state").mkdir()
        # Listening before the emulator starts, so that no client can come too early.
        with _listen(directory / "tpm") as data, _listen(directory / "tpm.ctrl") as control:
            process = subprocess.Popen(
                ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory / 'state'}",
                 "--server", f"type=unixio,fd={data.fileno()}",
                 "--ctrl", f"type=unixio,fd={control.fileno()}",
                 "--flags", "not-need-init,startup-clear"],
                pass_fds=(data.fileno(), control.fileno()),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            yield Swtpm(directory)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(8)
    return listening
