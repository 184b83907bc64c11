"""The oracle's configuration, from `RAPHA_ORACLE_*` variables and the files that they name."""

from pathlib import Path
from typing import Annotated

from eth_account import Account
from eth_account.signers.local import LocalAccount
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from oracle.attestation.errors import DevelopmentRootRefused
from oracle.attestation.policy import TcbAllowance
from oracle.errors import ConfigurationRefused, SecretFileInvalid
from settlement.bls import BlsSigner
from settlement.contracts import MAX_BATCH
from settlement.deployment import REAL_CHAINS
from settlement.signer import refuse_known_key

MIN_TOKEN = 32
GWEI = 10**9


class OracleSettings(BaseSettings):
    """One operator's settings. Times are seconds, fees wei per gas; secrets are read from files.

    `database_url` is SQLAlchemy's. `committee_key_file` holds the operator's signing key (hex);
    `relayer_key_file` holds another one. `peers` are base URLs, separated by commas. `patience` is
    how many blocks a transaction may stay unmined before it is replaced at higher fees, `max_lag`
    how many finalized blocks the watcher may be behind while the oracle calls itself ready.
    `max_batch` is how many receipts one transaction settles; a hundred of as many nodes, each
    completing its job, need 7.1 million gas, of 16.8 that a transaction may use (EIP-7825).
    Collateral comes from `collateral_file`, or from the service at `pccs_url` (Intel's PCS v4 or a
    PCCS, without a path), which is kept in `pccs_directory` and asked anew each `pccs_refresh`;
    below `min_tcb_evaluation` none counts.
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
    collateral_file: Path | None = None
    pccs_url: str | None = Field(default=None, pattern=r"^https?://")
    pccs_directory: Path = Path("collateral")
    pccs_ca_file: Path | None = None
    pccs_root_crl_url: str | None = Field(default=None, pattern=r"^https?://")
    pccs_refresh: int = Field(default=6 * 3600, gt=0)
    min_tcb_evaluation: int = Field(default=0, ge=0)
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
        if (self.collateral_file is None) == (self.pccs_url is None):
            raise ValueError("collateral comes from collateral_file or from pccs_url, not both")
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


def read_bls_signer(path: Path) -> BlsSigner:
    """The BLS key that is derived from a hex private key in a file, such as `read_key` takes.

    Its `address` is that of the file's key, so `check_for_real_money` knows it as it knows others.

    Raises:
        SecretFileInvalid: when the file does not hold one; its content is not shown.
    """
    return BlsSigner(bytes(read_key(path).key))


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
        KnownKeyRefused: for a private key that everybody knows.
        DevelopmentRootRefused: for a development platform's root.
        ConfigurationRefused: when one key both vouches and relays.
    """
    addresses = [str(account.address) for account in accounts]
    if len(set(addresses)) != len(addresses):
        raise ConfigurationRefused("the committee's key and the relayer's must differ")
    if chain_id not in REAL_CHAINS:
        return
    for address in addresses:
        refuse_known_key(address, chain_id)
    if settings.dev_root_file is not None:
        raise DevelopmentRootRefused(chain_id)


def _read_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretFileInvalid(str(path), error.strerror or "cannot be read") from error
    except UnicodeDecodeError:
        raise SecretFileInvalid(str(path), "is not text") from None
