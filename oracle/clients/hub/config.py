"""The hub's configuration, from `RAPHA_HUB_*`; its own secrets come by file."""

from pathlib import Path

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from oracle.clients.hub.access import Registering
from settlement.types import Address


class HubSettings(BaseSettings):
    """Everything that the hub is told; built once, by the command line."""

    model_config = SettingsConfigDict(env_prefix="RAPHA_HUB_", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8100, ge=1, le=65535)
    oracle_url: HttpUrl
    oracle_api_key: SecretStr | None = None
    """The hub's API key for the oracle (scopes `read` and `submit`), where that needs one."""
    oracle_timeout: float = Field(default=2.0, gt=0)
    """Seconds per question to the oracle; a stopping hub waits for a pending one this long."""
    deployment_file: Path
    database_url: str = "sqlite:///hub.sqlite"
    artifacts_dir: Path = Path("artifacts")
    keys_file: Path
    """JSON: ``{"developers": {name: key}, "nodes": {node id: key}, "operators": {name: key}}``."""
    hash_key_file: Path = Path("hub-hash.key")
    """32 bytes under which API keys are hashed; made on the first start."""
    registration: Registering = "closed"
    """Whether developers may register: "closed", by an identity "proof", or by a session of their
    "wallet" with or without one. What they may do follows after review."""
    identity_file: Path | None = None
    """JSON of `oracle.attestation.identity.settings.IdentitySettings`: pinned attestors and
    templates; without it the built-in ones."""
    nullifier_key_file: Path = Path("hub-nullifier.key")
    """32 bytes by which accounts are recognised again; made on the first start, never changed."""
    shortest_deadline: int = Field(default=60, ge=0)
    """Seconds that a job's deadline must at least lie ahead."""
    public_url: str | None = None
    """Where browsers see the hub, which is what wallets sign in to; without it host and port."""
    rpc_url: HttpUrl | None = None
    """The chain's endpoint: by it smart wallets sign in, and quotes name shares and gas price."""
    operators: frozenset[Address] = frozenset()
    """Wallets that operate this hub once they have signed in (JSON list)."""
    session_seconds: int = Field(default=12 * 3600, ge=60)
    rate_per_party: str = "6000/minute"
    rate_per_address: str = "600/minute"
    upload_seconds: int = Field(default=86_400, ge=60)
    """How long an upload may take, and how long its bundle waits for a job."""
    delivery_seconds: int = Field(default=30 * 86_400, ge=60)
    """How long a delivery is kept."""
    node_patience: int = Field(default=300, ge=1)
    """Seconds after which a node that was not heard of gets no new job."""
    node_lease: int = Field(default=120, ge=1)
    """Seconds that a node is counted on without a sign of life."""
    node_queue: int = Field(default=100, ge=1)
    """Unfinished jobs that one node may have."""
    authorization_seconds: int = Field(default=3600, ge=60)
    """How long a payer's signature is good for escrow."""
    freshness: float = Field(default=1.0, ge=0)
    """Seconds for which the oracle's word about nodes, and about unpaid quotes, is good enough."""
