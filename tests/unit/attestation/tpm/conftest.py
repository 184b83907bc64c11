"""Keys, which take long to make, and a vendor who endorses them."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from endorsement import EndorsementCa
from softtpm import SoftKey

from oracle.attestation.tpm.structures import Bank, Scheme


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2048)


@pytest.fixture(scope="session")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def aks(rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> dict[str, SoftKey]:
    """An attestation key of each kind."""
    p384 = ec.generate_private_key(ec.SECP384R1())
    return {
        "ecdsa": SoftKey.ak(ec_key, Scheme.ECDSA),
        "ecdsa-p384": SoftKey.ak(p384, Scheme.ECDSA, bank=Bank.SHA384, hash=Bank.SHA384),
        "rsassa": SoftKey.ak(rsa_key, Scheme.RSASSA),
        "rsapss": SoftKey.ak(rsa_key, Scheme.RSAPSS, hash=Bank.SHA512),
    }


@pytest.fixture(scope="session")
def ak(aks: dict[str, SoftKey]) -> SoftKey:
    return aks["ecdsa"]


@pytest.fixture(scope="session")
def eks(rsa_key: rsa.RSAPrivateKey) -> dict[str, SoftKey]:
    """An endorsement key of each kind."""
    return {
        "rsa": SoftKey.ek(rsa_key),
        "ecc": SoftKey.ek(ec.generate_private_key(ec.SECP256R1())),
    }


@pytest.fixture(scope="session")
def tpm_now() -> int:
    return 1_800_000_000


@pytest.fixture(scope="session")
def ca(tpm_now: int) -> EndorsementCa:
    return EndorsementCa.create(tpm_now)


@pytest.fixture(scope="session")
def flipped() -> Callable[[bytes, int], bytes]:
    """The same bytes with one bit of one byte changed."""

    def flip(data: bytes, offset: int) -> bytes:
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        return bytes(changed)

    return flip
