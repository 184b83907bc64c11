"""Whose word counts about identities, and about which requests: an operator's file, and defaults.

The defaults are those of the one public proof that this project verifies (Reclaim's Rust SDK,
reclaimprotocol/reclaim-rust-sdk at 9d41dacc, examples/basic_usage.rs, of October 2024, which is in
tests/vectors/attestation/reclaim): its attestor, at witness.reclaimprotocol.org, and its template.
Whoever relies on them should compare them with what Reclaim publishes at the time: this project
cannot tell whether a key is still the attestor's own.
"""

from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from oracle.attestation.identity.reclaim import ReclaimProvider, ReclaimTemplate
from settlement.errors import InvalidInput
from settlement.types import Address, Frozen

RECLAIM_ATTESTORS: tuple[Address, ...] = ("0x244897572368Eadf65bfBc5aec98D8e5443a9072",)
"""The attestor behind wss://witness.reclaimprotocol.org/ws."""

KAGGLE_USER = ReclaimTemplate(
    name="kaggle-user",
    site="kaggle.com",
    provider_hash=bytes.fromhex("59f7ca945580a9570e9988a11f5683e9ba95a9445141b34200de4a96f648544a"),
    formula="2024-03",
    url="https://www.kaggle.com/api/i/users.UsersService/GetCurrentUser",
    method="POST",
    body='{"includeGroups":false,"includeLogins":false,"includeVerificationStatus":true}',
    keys=frozenset({"email", "userName"}),
    subject="userName",
)
"""That somebody is logged in to Kaggle as this user."""


class IdentitySettings(Frozen):
    """Pinned attestors, of whom `threshold` must have signed, and pinned templates.

    A proof counts for `max_age` seconds.
    """

    attestors: tuple[Address, ...] = Field(default=RECLAIM_ATTESTORS, min_length=1)
    threshold: int = Field(default=1, ge=1)
    templates: tuple[ReclaimTemplate, ...] = Field(default=(KAGGLE_USER,), min_length=1)
    max_age: int = Field(default=3600, gt=0)

    @model_validator(mode="after")
    def _can_be_met(self) -> "IdentitySettings":
        self.provider()
        return self

    def provider(self) -> ReclaimProvider:
        """Reads Reclaim proofs by these rules."""
        return ReclaimProvider(
            attestors=self.attestors, templates=self.templates, threshold=self.threshold
        )


def load_identity_settings(path: Path | None) -> IdentitySettings:
    """The settings in a file (JSON); the defaults where there is none.

    Raises:
        InvalidInput: when the file does not hold such settings.
    """
    if path is None:
        return IdentitySettings()
    try:
        return IdentitySettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'whole'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise InvalidInput(f"{path} holds no identity settings: {faults}") from error


def purpose_on(chain_id: int, vault: Address) -> str:
    """The message that a proof has to carry (Reclaim's context message): where it is to count."""
    return f"rapha.identity.v1 on chain {chain_id} for vault {vault}"
