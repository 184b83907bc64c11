"""The hub's configuration, from `RAPHA_HUB_*`; its own secrets come by file."""

from pathlib import Path

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    """JSON: ``{"developers": {name: key}, "nodes": {node id: key}}``."""
    hash_key_file: Path = Path("hub-hash.key")
    """32 bytes under which API keys are hashed; made on the first start."""
    registration: bool = False
    """Whether developers may register by an identity proof; keys follow after review."""
    identity_file: Path | None = None
    """JSON of `oracle.attestation.identity.settings.IdentitySettings`: pinned attestors and
    templates; without it the built-in ones."""
    nullifier_key_file: Path = Path("hub-nullifier.key")
    """32 bytes by which accounts are recognised again; made on the first start, never changed."""
    shortest_deadline: int = Field(default=60, ge=0)
    """Seconds that a job's deadline must at least lie ahead."""
