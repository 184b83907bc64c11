"""The oracle's configuration, from `RAPHA_ORACLE_*` variables and the files that they name."""

from pathlib import Path
from typing import Annotated

from eth_account import Account
from eth_account.signers.local import LocalAccount
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from oracle.attestation.errors import DevelopmentRootRefused
from oracle.attestation.policy import TcbAllowance
from oracle.errors import ConfigurationRefused, SecretFileInvalid, TestKeyRefused
from settlement.contracts import MAX_BATCH
from settlement.deployment import REAL_CHAINS

TEST_ACCOUNTS = frozenset(
    {
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
        "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
        "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
        "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
        "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
        "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
    }
)
"""The accounts of the mnemonic that every local chain starts with: their keys are public."""

MIN_TOKEN = 32
GWEI = 10**9


class OracleSettings(BaseSettings):
    """One operator's settings. Times are seconds, fees wei per gas; secrets are read from files.

    `database_url` is SQLAlchemy's. `committee_key_file` holds the operator's signing key (hex);
    `relayer_key_file` holds another one. `peers` are base URLs, separated by commas. `patience` is
    how many blocks a transaction may stay unmined before it is replaced at higher fees, `max_lag`
    how many finalized blocks the watcher may be behind while the oracle calls itself ready.
    """

    model_config = SettingsConfigDict(env_prefix="RAPHA_ORACLE_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8100, ge=0, lt=65536)
    rpc_url: SecretStr
    deployment_file: Path
    database_url: SecretStr = SecretStr("sqlite:///oracle.db")
    committee_key_file: Path
    relay: bool = False
    relayer_key_file: Path | None = None
    peers: Annotated[tuple[str, ...], NoDecode] = ()
    peer_token_file: Path
    peer_timeout: float = Field(default=3.0, gt=0)
    collateral_file: Path
    dev_root_file: Path | None = None
    tcb_allowances: tuple[TcbAllowance, ...] = ()
    registration_ttl: int = Field(default=7 * 24 * 3600, gt=0, le=30 * 24 * 3600)
    challenge_ttl: int = Field(default=600, gt=0)
    poll_interval: float = Field(default=1.0, gt=0)
    max_lag: int = Field(default=120, gt=0)
    max_batch: int = Field(default=MAX_BATCH, gt=0, le=MAX_BATCH)
    min_tip: int = Field(default=25 * GWEI, ge=0)
    max_fee: int = Field(default=1_000 * GWEI, gt=0)
    patience: int = Field(default=20, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _split_peers(cls, values: dict[str, object]) -> dict[str, object]:
        peers = values.get("peers")
        if isinstance(peers, str):
            urls = tuple(url.strip() for url in peers.split(",") if url.strip())
            return {**values, "peers": urls}
        return values

    @model_validator(mode="after")
    def _check(self) -> "OracleSettings":
        if self.relay and self.relayer_key_file is None:
            raise ValueError("relaying needs relayer_key_file")
        if self.min_tip > self.max_fee:
            raise ValueError("min_tip is above max_fee")
        return self


def read_key(path: Path) -> LocalAccount:
    """The account of a hex private key in a file.

    Raises:
        SecretFileInvalid: when the file does not hold one; its content is not shown.
    """
    text = _read_secret(path)
    try:
        key = bytes.fromhex(text.removeprefix("0x"))
        account: LocalAccount = Account.from_key(key)
    except ValueError:  # not chained: the cause would carry the key's text
        raise SecretFileInvalid(str(path), "does not hold a private key in hex") from None
    return account


def read_token(path: Path) -> str:
    """The operators' shared bearer token.

    Raises:
        SecretFileInvalid: when it is missing or short.
    """
    token = _read_secret(path)
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise SecretFileInvalid(str(path), f"needs {MIN_TOKEN} or more printable ASCII characters")
    return token


def check_for_real_money(
    settings: OracleSettings, chain_id: int, accounts: list[LocalAccount]
) -> None:
    """Refuse what belongs to development on a chain with real money.

    Raises:
        TestKeyRefused: for a private key that everybody knows.
        DevelopmentRootRefused: for a development platform's root.
        ConfigurationRefused: when one key both vouches and relays.
    """
    addresses = [str(account.address) for account in accounts]
    if len(set(addresses)) != len(addresses):
        raise ConfigurationRefused("the committee's key and the relayer's must differ")
    if chain_id not in REAL_CHAINS:
        return
    for address in addresses:
        if address in TEST_ACCOUNTS:
            raise TestKeyRefused(address, chain_id)
    if settings.dev_root_file is not None:
        raise DevelopmentRootRefused(chain_id)


def _read_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretFileInvalid(str(path), error.strerror or "cannot be read") from error
    except UnicodeDecodeError:
        raise SecretFileInvalid(str(path), "is not text") from None
