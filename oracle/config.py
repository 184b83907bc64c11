"""The oracle's configuration, from `RAPHA_ORACLE_*` variables and the files that they name."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from limits import parse
from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from oracle.attestation.errors import DevelopmentRootRefused
from oracle.attestation.policy import TcbAllowance
from oracle.errors import ConfigurationRefused, SecretFileInvalid
from oracle.keyfiles import read_secret
from oracle.limits import AccessPolicy
from oracle.messages import MAX_RECEIPTS, VouchFor
from settlement.contracts import MAX_BATCH
from settlement.deployment import REAL_CHAINS
from settlement.signer import refuse_known_key
from settlement.types import Address, Bytes32

MIN_TOKEN = 32
GWEI = 10**9
_LISTS = ("peers", "relayer_key_files", "relayer_keystore_files", "signer_addresses")


def _check_rate(text: str) -> str:
    """Raises ValueError."""
    try:
        item = parse(text)
    except ValueError:
        raise ValueError("a rate is written like 6000/minute") from None
    if item.amount < MAX_RECEIPTS:
        raise ValueError(f"a rate must allow a batch of {MAX_RECEIPTS} receipts")
    return text


Rate = Annotated[str, AfterValidator(_check_rate)]


class OracleSettings(BaseSettings):
    """One operator's settings. Times are seconds, fees wei per gas; secrets are read from files.

    Lists are separated by commas. `database_url` is SQLAlchemy's. `committee_key_file` holds the
    operator's signing key (hex). Relaying keys are others: in hex in `relayer_key_file` and
    `relayer_key_files`, in keystores that `relayer_password_file` opens in
    `relayer_keystore_files`, or behind the Web3Signer at `signer_url`, by `signer_addresses`.
    `rpc_url` may name several endpoints, the preferred one first; `rpc_agree` of them must say the
    same of what is final (two of three or more, unless told otherwise), and one that is
    `rpc_max_lag` blocks behind the others is not gone by. `peers` are base URLs. `patience` is how
    many blocks a transaction may stay unmined before it is replaced at higher fees, `max_lag` how
    many finalized blocks the watcher may be behind while the oracle calls itself ready.
    `max_batch` is how many receipts one transaction settles; a hundred of as many nodes, each
    completing its job, need 7.1 million gas, of 16.8 that a transaction may use (EIP-7825).
    `batch_*`, `cheap_gas`, `max_gas_share` and `coin_price` say when a batch goes, see
    `oracle.batching.BatchPolicy`; a key that can pay for fewer than `alarm_batches` full ones is
    called low.
    Collateral comes from `collateral_file`, or from the service at `pccs_url` (Intel's PCS v4 or a
    PCCS, without a path), which is kept in `pccs_directory` and asked anew each `pccs_refresh`;
    below `min_tcb_evaluation` none counts.
    `require_api_key`: whether the API is closed to whoever has no key; unless set, it is where
    `host` can be reached from other machines. `rate_per_key` and `rate_per_address` are how many
    requests, and receipts in them, one key or one address without a key may bring.

    `vouch_for` is the same for all operators of a deployment: `key`, and the committee's word alone
    registers an enclave key; or `platform`, and the chain checks the key's quote itself.
    TPM evidence is judged where `tpm_roots_file` (PEM, endorsement roots) and `tpm_policies_file`
    (JSON of `NodePolicies`) are given, and no enclave counts without it where `tpm_required`.
    `tpm_revoked_keys` are SHA-256 digests of endorsement keys; a verdict lasts `tpm_ttl`.
    """

    model_config = SettingsConfigDict(env_prefix="RAPHA_ORACLE_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8100, ge=0, lt=65536)
    require_api_key: bool | None = None
    rate_per_key: Rate = AccessPolicy.per_key
    rate_per_address: Rate = AccessPolicy.per_address
    rpc_url: SecretStr
    deployment_file: Path
    database_url: SecretStr = SecretStr("sqlite:///oracle.db")
    committee_key_file: Path
    relay: bool = False
    relayer_key_file: Path | None = None
    relayer_key_files: Annotated[tuple[Path, ...], NoDecode] = ()
    relayer_keystore_files: Annotated[tuple[Path, ...], NoDecode] = ()
    relayer_password_file: Path | None = None
    signer_url: SecretStr | None = None
    signer_addresses: Annotated[tuple[Address, ...], NoDecode] = ()
    signer_timeout: float = Field(default=5.0, gt=0)
    rpc_agree: int | None = Field(default=None, gt=0)
    rpc_max_lag: int = Field(default=10, gt=0)
    rpc_timeout: float = Field(default=5.0, gt=0)
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
    tpm_roots_file: Path | None = None
    tpm_policies_file: Path | None = None
    tpm_revoked_keys: frozenset[Bytes32] = frozenset()
    tpm_required: bool = False
    tpm_ttl: int = Field(default=24 * 3600, gt=0, le=7 * 24 * 3600)
    tcb_allowances: tuple[TcbAllowance, ...] = ()
    vouch_for: VouchFor = VouchFor.KEY
    registration_ttl: int = Field(default=7 * 24 * 3600, gt=0, le=30 * 24 * 3600)
    challenge_ttl: int = Field(default=600, gt=0)
    poll_interval: float = Field(default=1.0, gt=0)
    max_lag: int = Field(default=120, gt=0)
    max_batch: int = Field(default=MAX_BATCH, gt=0, le=MAX_BATCH)
    min_tip: int = Field(default=25 * GWEI, ge=0)
    max_fee: int = Field(default=1_000 * GWEI, gt=0)
    patience: int = Field(default=20, gt=0)
    max_in_flight: int = Field(default=16, gt=0)
    batch_value: int = Field(default=1_000_000, ge=0)
    batch_age: int = Field(default=5, ge=0)
    completing_age: int = Field(default=0, ge=0)
    cheap_gas: int = Field(default=0, ge=0)
    max_gas_share: int = Field(default=20, gt=0, le=100)
    coin_price: int | None = Field(default=None, gt=0)
    alarm_batches: int = Field(default=20, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        return {
            name: _parts(value) if name in _LISTS and isinstance(value, str) else value
            for name, value in values.items()
        }

    @property
    def rpc_urls(self) -> tuple[str, ...]:
        """The endpoints' URLs; they may carry keys."""
        return _parts(self.rpc_url.get_secret_value())

    @property
    def hex_key_files(self) -> tuple[Path, ...]:
        """All files with relaying keys in hex."""
        first = (self.relayer_key_file,) if self.relayer_key_file else ()
        return first + self.relayer_key_files

    @model_validator(mode="after")
    def _check(self) -> "OracleSettings":
        if self.relay and not (
            self.hex_key_files or self.relayer_keystore_files or self.signer_addresses
        ):
            raise ValueError(
                "relaying needs relayer_key_file, relayer_keystore_files or signer_addresses"
            )
        if self.relayer_keystore_files and self.relayer_password_file is None:
            raise ValueError("keystores need relayer_password_file")
        if (self.signer_url is None) != (not self.signer_addresses):
            raise ValueError("signer_url and signer_addresses go together")
        if not self.rpc_urls:
            raise ValueError("rpc_url names no endpoint")
        if self.rpc_agree is not None and self.rpc_agree > len(self.rpc_urls):
            raise ValueError("rpc_agree is more than there are endpoints")
        if self.min_tip > self.max_fee:
            raise ValueError("min_tip is above max_fee")
        if (self.collateral_file is None) == (self.pccs_url is None):
            raise ValueError("collateral comes from collateral_file or from pccs_url, not both")
        if (self.tpm_roots_file is None) != (self.tpm_policies_file is None):
            raise ValueError("TPMs are judged by tpm_roots_file and tpm_policies_file together")
        if self.tpm_required and self.tpm_roots_file is None:
            raise ValueError("tpm_required needs tpm_roots_file and tpm_policies_file")
        return self

    @property
    def access(self) -> AccessPolicy:
        """Who may ask, and how often."""
        required = self.require_api_key
        if required is None:
            required = not _is_loopback(self.host)
        return AccessPolicy(required, self.rate_per_key, self.rate_per_address)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_token(path: Path) -> str:
    """The operators' shared bearer token.

    Raises:
        SecretFileInvalid: when it is missing or short.
    """
    token = read_secret(path)
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise SecretFileInvalid(str(path), f"needs {MIN_TOKEN} or more printable ASCII characters")
    return token


def check_for_real_money(settings: OracleSettings, chain_id: int, addresses: Sequence[str]) -> None:
    """Refuse what belongs to development on a chain with real money.

    Raises:
        KnownKeyRefused: for a private key that everybody knows.
        DevelopmentRootRefused: for a development platform's root.
        ConfigurationRefused: when one key both vouches and relays, or is named twice.
    """
    if len(set(addresses)) != len(addresses):
        raise ConfigurationRefused("the committee's key and the relayers' must differ")
    if chain_id not in REAL_CHAINS:
        return
    for address in addresses:
        refuse_known_key(address, chain_id)
    if settings.dev_root_file is not None:
        raise DevelopmentRootRefused(chain_id)
