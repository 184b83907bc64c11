"""The relaying keys that the settings name."""

from oracle.config import OracleSettings
from oracle.keyfiles import read_key, read_keystore
from oracle.signers.local import LocalKey
from oracle.signers.transaction import TransactionSigner
from oracle.signers.web3signer import Web3Signer


def configured_signers(settings: OracleSettings) -> list[TransactionSigner]:
    """Every relaying key, in the settings' order: hex files, keystores, the remote signer's.

    Raises:
        SecretFileInvalid: a file does not hold what it should.
        SignerUnavailable, SignerRefused: the remote signer does not answer, or has no such key.
    """
    signers: list[TransactionSigner] = [LocalKey(read_key(p)) for p in settings.hex_key_files]
    if settings.relayer_password_file is not None:
        password = settings.relayer_password_file
        files = settings.relayer_keystore_files
        signers += [LocalKey(read_keystore(path, password)) for path in files]
    if settings.signer_url is not None:
        url = settings.signer_url.get_secret_value()
        for address in settings.signer_addresses:
            remote = Web3Signer(url, address, timeout=settings.signer_timeout)
            remote.check()
            signers.append(remote)
    return signers
