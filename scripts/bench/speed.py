"""How fast this machine does what runs off chain."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from eth_utils import keccak

from oracle.attestation.collateral import FileCollateral
from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge.devplatform import DevPlatform
from scripts.bench.world import MEASUREMENT, account
from settlement.eip712 import receipt_digest, recover_signer, sign_digest, vault_domain
from settlement.metering import MerkleLog, record_leaf, record_salt
from settlement.models import Receipt


def rate(action: Callable[[], object], *, seconds: float = 1.0) -> float:
    """How often `action` runs in a second."""
    count, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        action()
        count += 1
    return count / passed


def measure_speed() -> dict[str, float]:
    """Operations per second on one core of this machine."""
    key, domain_account = account("enclave 1").key, account("vault")
    receipt = Receipt(
        job_id=keccak(text="job"),
        records=569,
        epochs=40,
        records_root=keccak(text="root"),
        output_digest=bytes(32),
        complete=False,
    )
    domain = vault_domain(31337, domain_account.address)
    signature = sign_digest(receipt_digest(receipt, domain), key)
    now = int(time.time())
    dev = DevPlatform.create(now, chain_id=31337)
    quote = dev.quote(MEASUREMENT, bytes(64))
    record, log = bytes(248), MerkleLog()
    with tempfile.TemporaryDirectory() as folder:
        collateral = Path(folder) / "collateral.json"
        collateral.write_text(dev.collateral_json())
        verifier = QuoteVerifier(
            chain_id=31337,
            collateral=FileCollateral(collateral),
            development_root=dev.root_der,
        )
        return {
            "receipts signed": rate(lambda: sign_digest(receipt_digest(receipt, domain), key)),
            "receipts verified": rate(
                lambda: recover_signer(receipt_digest(receipt, domain), signature)
            ),
            "quotes verified": rate(lambda: verifier.verify(quote, now)),
            "record leaves made": rate(
                lambda: record_leaf(record_salt(bytes(32), b"id"), b"id", record)
            ),
            "leaves metered": rate(lambda: log.append(bytes(32))),
        }
