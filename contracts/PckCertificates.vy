# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title PckCertificates
@license AGPL-3.0-only
@notice Reads certificates of Intel's PCK hierarchy and checks who signed them. It keeps nothing and knows nobody:
        which root and which CA may sign is for the enclave registry to say. Apart from it, since the two together
        would exceed a contract's size.
"""
from contracts.interfaces import IPckCertificates
from contracts.modules import p256
from contracts.modules import x509

implements: IPckCertificates


@external
@view
@reentrant
def read_ca(
    certificate: Bytes[x509.MAX_LENGTH], root_x: bytes32, root_y: bytes32
) -> IPckCertificates.PckCa:
    """
    @notice What the certificate of a CA for PCK certificates says, signed by this root.
    @dev The root also signs itself and the certificate that signs TCB information; neither passes here.
    @param certificate In DER.
    """
    der: Bytes[x509.PADDED_LENGTH] = concat(certificate, empty(bytes32))
    read: x509.Certificate = self._read(der, root_x, root_y)
    assert x509._is_pck_ca(der, read), "dcap: not a PCK CA certificate"
    return IPckCertificates.PckCa(
        x=read.key.x, y=read.key.y, not_before=read.not_before, not_after=read.not_after
    )


@external
@view
@reentrant
def read_pck(
    certificate: Bytes[x509.MAX_LENGTH], issuer_x: bytes32, issuer_y: bytes32
) -> IPckCertificates.Pck:
    """
    @notice What the PCK certificate of a platform says, signed by this CA.
    @param certificate In DER.
    """
    der: Bytes[x509.PADDED_LENGTH] = concat(certificate, empty(bytes32))
    read: x509.Certificate = self._read(der, issuer_x, issuer_y)
    platform: x509.Platform = x509._platform(der, read)
    return IPckCertificates.Pck(
        x=read.key.x,
        y=read.key.y,
        not_before=read.not_before,
        not_after=read.not_after,
        serial=read.serial,
        fmspc=platform.fmspc,
        pce_id=platform.pce_id,
    )


@internal
@view
def _read(der: Bytes[x509.PADDED_LENGTH], x: bytes32, y: bytes32) -> x509.Certificate:
    read: x509.Certificate = x509._read(der)
    assert p256._is_valid(
        read.digest, read.signature, p256.Key(x=x, y=y)
    ), "dcap: invalid signature of the certificate"
    return read
