"""Secrets in files: private keys in hex, encrypted keystores, passwords. None is ever shown."""

from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

from oracle.errors import SecretFileInvalid
from settlement.committee import MemberKey


def read_secret(path: Path) -> str:
    """A file's text without the white space around it.

    Raises:
        SecretFileInvalid: when it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretFileInvalid(str(path), error.strerror or "cannot be read") from error
    except UnicodeDecodeError:
        raise SecretFileInvalid(str(path), "is not text") from None


def read_key(path: Path) -> LocalAccount:
    """The account of a hex private key in a file.

    Raises:
        SecretFileInvalid: when the file does not hold one; its content is not shown.
    """
    text = read_secret(path)
    try:
        key = bytes.fromhex(text.removeprefix("0x"))
        account: LocalAccount = Account.from_key(key)
    except ValueError:  # not chained: the cause would carry the key's text
        raise SecretFileInvalid(str(path), "does not hold a private key in hex") from None
    return account


def read_member_key(path: Path) -> MemberKey:
    """A committee member's key, of both schemes, from a hex private key in a file.

    Raises:
        SecretFileInvalid: when the file does not hold one; its content is not shown.
    """
    return MemberKey(bytes(read_key(path).key))


def read_keystore(path: Path, password_file: Path) -> LocalAccount:
    """The account of an encrypted keystore (Web3 Secret Storage, version 3).

    Raises:
        SecretFileInvalid: when the file is no keystore, or the password is not its own.
    """
    document, password = read_secret(path), read_secret(password_file)
    try:
        key = Account.decrypt(document, password)
    # not chained: the cause may carry secrets
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError):
        raise SecretFileInvalid(
            str(path), f"is no keystore that the password in {password_file} opens"
        ) from None
    account: LocalAccount = Account.from_key(key)
    return account
