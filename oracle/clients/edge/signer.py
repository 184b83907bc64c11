"""The enclave's keys: who it is, what code it runs, and the receipts that it signs.

On the development platform the keys are sealed to nothing but a file that says so.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Protocol, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from eth_account import Account
from pydantic import ValidationError

from oracle.clients.edge import loader, trainer
from oracle.clients.edge.durable import write_atomically
from oracle.clients.edge.errors import KeyFileInvalid, ReceiptRegression, SimulatedEnclaveRefused
from oracle.clients.edge.policy import digest as policy
from oracle.clients.edge.sandbox.limits import ChildLimits
from settlement.deployment import REAL_CHAINS
from settlement.digests import canonical_json
from settlement.eip712 import Domain, receipt_digest, sign_digest
from settlement.enclave import report_data
from settlement.models import Receipt, SignedReceipt
from settlement.types import ZERO_BYTES32

SIMULATED = "SIMULATED-DEV-ONLY"
_ROOT = Path(__file__).parents[3]

# Everything that touches a record, a counter or a key, and all of this project's that it imports.
MEASURED_FILES = (
    "oracle/clients/edge/bundle.py",
    "oracle/clients/edge/checkpoint.py",
    "oracle/clients/edge/child.py",
    "oracle/clients/edge/dataset.py",
    "oracle/clients/edge/durable.py",
    "oracle/clients/edge/errors.py",
    "oracle/clients/edge/loader.py",
    "oracle/clients/edge/poisson.py",
    "oracle/clients/edge/outbox.py",
    "oracle/clients/edge/paid.py",
    "oracle/clients/edge/policy/__init__.py",
    "oracle/clients/edge/policy/accountant.py",
    "oracle/clients/edge/policy/decision.py",
    "oracle/clients/edge/policy/digest.py",
    "oracle/clients/edge/policy/engine.py",
    "oracle/clients/edge/policy/evaluator.py",
    "oracle/clients/edge/policy/explain.py",
    "oracle/clients/edge/policy/guard.py",
    "oracle/clients/edge/policy/hospital.py",
    "oracle/clients/edge/policy/input.py",
    "oracle/clients/edge/policy/privacy.py",
    "oracle/clients/edge/policy/rules/release.rego",
    "oracle/clients/edge/policy/rules/shapes.rego",
    "oracle/clients/edge/policy/rules/training.rego",
    "oracle/clients/edge/policy/settings.py",
    "oracle/clients/edge/sandbox/bubblewrap.py",
    "oracle/clients/edge/sandbox/cgroup.py",
    "oracle/clients/edge/sandbox/errors.py",
    "oracle/clients/edge/sandbox/gpu.py",
    "oracle/clients/edge/sandbox/inspect.py",
    "oracle/clients/edge/sandbox/launch.py",
    "oracle/clients/edge/sandbox/limits.py",
    "oracle/clients/edge/sandbox/seccomp.py",
    "oracle/clients/edge/sandbox/wan.py",
    "oracle/clients/edge/signer.py",
    "oracle/clients/edge/sources/__init__.py",
    "oracle/clients/edge/sources/fhir.py",
    "oracle/clients/edge/sources/images.py",
    "oracle/clients/edge/sources/open.py",
    "oracle/clients/edge/sources/rows.py",
    "oracle/clients/edge/sources/settings.py",
    "oracle/clients/edge/sources/tables.py",
    "oracle/clients/edge/tensors.py",
    "oracle/clients/edge/trainee.py",
    "oracle/clients/edge/trainer.py",
    "settlement/bundle.py",
    "settlement/dataset.py",
    "settlement/delivery.py",
    "settlement/deployment.py",
    "settlement/digests.py",
    "settlement/eip712.py",
    "settlement/enclave.py",
    "settlement/errors.py",
    "settlement/hub/messages.py",
    "settlement/metering.py",
    "settlement/models.py",
    "settlement/types.py",
)


class QuotePlatform(Protocol):
    """Hardware, or its simulation, that vouches for an enclave."""

    def quote(self, measurement: bytes, report_data: bytes) -> bytes:
        """A quote of an enclave with this measurement (32 bytes) over `report_data` (64 bytes)."""


def measurement() -> bytes:
    """The 32-byte identity of the enclave's code: SHA-256 over its files' paths and SHA-256.

    Stands where hardware has MRENCLAVE; the same sources give the same value on any machine.
    """
    hasher = hashlib.sha256()
    for name in sorted(MEASURED_FILES):
        hasher.update(name.encode() + b"\0")
        hasher.update(hashlib.sha256((_ROOT / name).read_bytes()).digest())
    return hasher.digest()


def configuration_digest(limits: ChildLimits) -> bytes:
    """The 32 bytes of `report_data` that say how the code is configured."""
    configuration = {
        "loader": loader.VERSION,
        "policy": policy.VERSION,
        "trainer": trainer.VERSION,
        "limits": limits.model_dump(mode="json"),
    }
    return hashlib.sha256(canonical_json(configuration)).digest()


class EnclaveSigner:
    """Holds the enclave's secp256k1 signing key and X25519 encryption key; neither ever leaves it.

    What it signed last for each job is kept on disk, so that not even a restarted or rewound node
    can make it sign less than before, or anything after a completing receipt.
    """

    def __init__(self, directory: Path, signing_key: bytes, encryption_key: bytes) -> None:
        self._directory = directory
        self._signing_key = signing_key
        self.enclave_key: str = Account.from_key(signing_key).address
        """The address that the registry knows."""
        self.encryption_key = (
            X25519PrivateKey.from_private_bytes(encryption_key).public_key().public_bytes_raw()
        )
        """The raw X25519 public key, 32 bytes."""

    @classmethod
    def open(cls, directory: Path, *, chain_id: int) -> Self:
        """The enclave sealed in `directory`; a new one when there is none.

        Raises:
            SimulatedEnclaveRefused: on a chain with real money.
            KeyFileInvalid: when the sealed file is damaged.
        """
        if chain_id in REAL_CHAINS:
            raise SimulatedEnclaveRefused(chain_id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "sealed.json"
        if not path.exists():
            sealed = {
                "sealing": SIMULATED,
                "signing_key": bytes(Account.create(os.urandom(32)).key).hex(),
                "encryption_key": X25519PrivateKey.generate().private_bytes_raw().hex(),
            }
            write_atomically(path, canonical_json(sealed), 0o600)
        try:
            sealed = json.loads(path.read_bytes())
            if sealed["sealing"] != SIMULATED:
                raise ValueError("sealed by another platform")
            keys = (bytes.fromhex(sealed[name]) for name in ("signing_key", "encryption_key"))
            return cls(directory, *keys)
        except (ValueError, KeyError, TypeError):  # the cause could show a part of the key
            raise KeyFileInvalid(path, f"the keys of a {SIMULATED} enclave") from None

    def quote(
        self,
        platform: QuotePlatform,
        *,
        nonce: bytes,
        chain_id: int,
        registry: str,
        configuration: bytes,
    ) -> bytes:
        """The platform's quote; it binds these keys to chain, registry, nonce and configuration."""
        bound = report_data(
            chain_id=chain_id,
            registry=registry,
            enclave_key=self.enclave_key,
            encryption_key=self.encryption_key,
            nonce=nonce,
            configuration=configuration,
        )
        return platform.quote(measurement(), bound)

    def sign_receipt(self, receipt: Receipt, vault: Domain) -> SignedReceipt:
        """Sign a receipt that continues what was signed for its job before; the same again is fine.

        Raises:
            ReceiptRegression: when it does not continue it, or is not a proper receipt.
        """
        path = self._directory / "signed" / f"{receipt.job_id.hex()}.json"
        fault = _fault(receipt, _last(path, receipt.job_id))
        if fault is not None:
            raise ReceiptRegression(receipt.job_id, fault)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, receipt.model_dump_json().encode())
        signature = sign_digest(receipt_digest(receipt, vault), self._signing_key)
        return SignedReceipt(receipt=receipt, signature=signature)


def _last(path: Path, job_id: bytes) -> Receipt | None:
    if not path.exists():
        return None
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ReceiptRegression(job_id, f"its last receipt in {path} is unreadable") from error


def _fault(receipt: Receipt, last: Receipt | None) -> str | None:
    """Why `receipt` does not continue `last`, or None when it does."""
    if receipt.complete and receipt.output_digest == ZERO_BYTES32:
        return "a completing receipt names an output"
    if last is None or receipt == last:
        return None
    if last.complete:
        return "the job is complete"
    if receipt.records < last.records or receipt.epochs < last.epochs:
        return (
            f"{receipt.records} records and {receipt.epochs} epochs are less than the"
            f" {last.records} and {last.epochs} signed before"
        )
    if receipt.records == last.records and receipt.records_root != last.records_root:
        return "the same number of records with another root"
    return None
