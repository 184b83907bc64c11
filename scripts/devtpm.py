"""A development TPM for the local network: swtpm, endorsed by a vendor made for the one run.

It protects nothing; operators believe it only where its vendor's root is configured.
"""

import json
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from oracle.attestation.tpm.endorsement import EK_CERTIFICATE
from oracle.attestation.tpm.structures import parse_public
from oracle.clients.edge.signer import SIMULATED
from oracle.clients.edge.tpm import TOOLS, Tpm

VALIDITY = 30 * 86_400
CLOCK_SKEW = 3600
MODEL = "development"
PCR = 9
"""What the node's software is measured into, where a boot loader measures the kernel."""


def is_installed() -> bool:
    """Whether swtpm and tpm2-tools are there."""
    return all(shutil.which(tool) for tool in ("swtpm", "tpm2_pcrextend", *TOOLS))


@dataclass(frozen=True)
class DevTpm:
    """The emulator's folder: its sockets, and the files that a node and its operators need."""

    folder: Path

    @property
    def tcti(self) -> str:
        """How tpm2-tools reach it."""
        return f"swtpm:path={self.folder / 'tpm'}"

    @property
    def command(self) -> list[str]:
        """The emulator's command line; it runs until it is ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return [
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder}"),
            *("--server", f"type=unixio,path={self.folder / 'tpm'}"),
            *("--ctrl", f"type=unixio,path={self.folder / 'tpm.ctrl'}"),
            *("--flags", "not-need-init,startup-clear"),
        ]

    def answers(self) -> bool | None:
        """True once it listens."""
        with socket.socket(socket.AF_UNIX) as control:
            try:
                control.connect(str(self.folder / "tpm.ctrl"))
            except OSError:
                return None
        return True

    def provision(self, software: bytes) -> None:
        """What factory and boot do: certify the endorsement key, and measure the software."""
        tpm = Tpm(self.folder / "factory", self.tcti)
        with tpm.session() as session:
            key = parse_public(session.ek_public).key
        assert isinstance(key, ec.EllipticCurvePublicKey)
        root, certificate = _certify(key)
        (self.folder / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
        (self.folder / "ek.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        measured = sha256(software).digest()
        tpm.run(self.folder, "tpm2_pcrextend", f"{PCR}:sha256={measured.hex()}")
        policy = {
            "model": MODEL,
            "version": 1,
            "pcrs": {
                "8": ["0x" + "00" * 32],
                str(PCR): ["0x" + sha256(bytes(32) + measured).hexdigest()],
            },
        }
        policies = {"policies": [policy], "default_model": MODEL}
        (self.folder / "policies.json").write_text(json.dumps(policies, indent=2))

    def operator_settings(self) -> Mapping[str, str]:
        """RAPHA_ORACLE_* of an operator that requires it."""
        return {
            "TPM_REQUIRED": "true",
            "TPM_ROOTS_FILE": str(self.folder / "root.pem"),
            "TPM_POLICIES_FILE": str(self.folder / "policies.json"),
        }

    def node_settings(self) -> Mapping[str, str]:
        """RAPHA_EDGE_* of the node that has it."""
        return {
            "TPM_TCTI": self.tcti,
            "TPM_CERTIFICATE_FILE": str(self.folder / "ek.pem"),
        }


def _certify(
    key: ec.EllipticCurvePublicKey,
) -> tuple[x509.Certificate, x509.Certificate]:
    """A vendor's root, and its certificate for an endorsement key."""
    vendor_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Rapha TPM root {SIMULATED}")])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(vendor_key.public_key())
    root = (
        _builder(name, name, vendor_key.public_key())
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(vendor_key.public_key()), False)
        .add_extension(authority, False)
        .sign(vendor_key, hashes.SHA256())
    )
    model = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SIMULATED)])
    certificate = (
        _builder(x509.Name([]), name, key)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(_usage(key_agreement=True), True)
        .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(model)]), True)
        .add_extension(x509.ExtendedKeyUsage([EK_CERTIFICATE]), False)
        .add_extension(authority, False)
        .sign(vendor_key, hashes.SHA256())
    )
    return root, certificate


def _usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in names})


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = time.time()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - CLOCK_SKEW, UTC))
        .not_valid_after(datetime.fromtimestamp(now + VALIDITY, UTC))
    )
