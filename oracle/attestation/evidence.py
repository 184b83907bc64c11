"""What binds a verified quote to this deployment: its `report_data`."""

from oracle.attestation.errors import ReportDataMismatch
from oracle.attestation.verify import VerifiedQuote
from settlement.enclave import report_data
from settlement.errors import InvalidInput


def check_evidence(
    verified: VerifiedQuote,
    *,
    chain_id: int,
    registry: str,
    enclave_key: str,
    encryption_key: bytes,
    nonce: bytes,
    configuration: bytes,
) -> None:
    """Check that the quote was made for this chain, registry, keys, nonce and configuration.

    Raises:
        InvalidInput: when encryption key, nonce or configuration is not 32 bytes long.
        ReportDataMismatch: when the quote carries anything else.
    """
    for name, value in [
        ("encryption key", encryption_key),
        ("nonce", nonce),
        ("configuration", configuration),
    ]:
        if len(value) != 32:
            raise InvalidInput(f"{name} has {len(value)} bytes, not 32")
    expected = report_data(
        chain_id=chain_id,
        registry=registry,
        enclave_key=enclave_key,
        encryption_key=encryption_key,
        nonce=nonce,
        configuration=configuration,
    )
    if verified.report_data[:32] != expected[:32]:
        raise ReportDataMismatch("binding")
    if verified.report_data[32:] != expected[32:]:
        raise ReportDataMismatch("configuration")
