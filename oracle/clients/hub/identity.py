"""The hub's one door to identity proofs: what it configures, and what it takes of them.

`oracle.attestation.identity` is a library without service, database or chain; any other hub can use
it in the same way.
"""

from pathlib import Path

from oracle.attestation.identity.errors import IdentityRefused, IdentityTaken
from oracle.attestation.identity.settings import load_identity_settings, purpose_on
from oracle.attestation.identity.verify import Identity, IdentityVerifier, refuse_taken
from settlement.deployment import Deployment
from settlement.hub.account import RegistrationTerms


class Identities:
    """Judges the proofs with which developers register."""

    def __init__(self, settings: Path | None, deployment: Deployment, nullifier_key: bytes) -> None:
        """`settings` is a file of `IdentitySettings`; without one the built-in ones hold.

        Raises:
            InvalidInput: when the file cannot be used.
        """
        loaded = load_identity_settings(settings)
        provider = loaded.provider()
        purpose = purpose_on(deployment.chain_id, deployment.vault)
        self.terms = RegistrationTerms(
            proof_required=True,
            provider=provider.name,
            templates=tuple(template.name for template in loaded.templates),
            purpose=purpose,
            max_age=loaded.max_age,
        )
        self._verifier = IdentityVerifier(
            [provider],
            purpose=purpose,
            nullifier_key=nullifier_key,
            max_age=loaded.max_age,
        )

    def verify(self, provider: str, proof: str, *, wallet: str, now: int) -> Identity:
        """The identity that a proof proves for `wallet` at `now` (Unix seconds).

        Raises:
            IdentityRefused: by a name of its own for each reason.
        """
        return self._verifier.verify(provider, proof, wallet=wallet, now=now)


__all__ = [
    "Identities",
    "Identity",
    "IdentityRefused",
    "IdentityTaken",
    "refuse_taken",
]
