"""Why an identity proof is refused. Nothing personal is in a message or in an error's data."""

from settlement.errors import InvalidInput


class IdentityRefused(InvalidInput):
    """Base of all refusals of identity proofs."""


class ProviderUnknown(IdentityRefused):
    """No such provider of identity proofs is configured here."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        super().__init__(f"no identity provider {provider!r} is configured")


class ProofMalformed(IdentityRefused):
    """The proof does not have the provider's form."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"not an identity proof: {reason}")


class IdentifierMismatch(IdentityRefused):
    """The proof's content is not what its identifier names: somebody changed it."""

    def __init__(self, claimed: str, computed: str) -> None:
        self.claimed = claimed
        self.computed = computed
        super().__init__(f"the proof says it is {claimed}, but its content is {computed}")


class AttestorUnknown(IdentityRefused):
    """A signature is by nobody who is trusted here: a wrong one, or one of the prover's own."""

    def __init__(self, signer: str) -> None:
        self.signer = signer
        super().__init__(f"{signer} is not a pinned attestor")


class TooFewAttestors(IdentityRefused):
    """Fewer pinned attestors signed than are needed."""

    def __init__(self, found: int, needed: int) -> None:
        self.found = found
        self.needed = needed
        super().__init__(f"{found} pinned attestors signed, {needed} are needed")


class TemplateUnknown(IdentityRefused):
    """The proof is about another request than those that are pinned."""

    def __init__(self, provider_hash: str) -> None:
        self.provider_hash = provider_hash
        super().__init__(f"the request with provider hash {provider_hash} is not pinned")


class TemplateMismatch(IdentityRefused):
    """The proof names a pinned request, and carries another one; `part` differs."""

    def __init__(self, template: str, part: str) -> None:
        self.template = template
        self.part = part
        super().__init__(f"the proof's {part} is not that of template {template}")


class WalletMismatch(IdentityRefused):
    """The proof was made for another wallet, or for none."""

    def __init__(self, wallet: str) -> None:
        self.wallet = wallet
        super().__init__(f"the proof was not made for wallet {wallet}")


class PurposeMismatch(IdentityRefused):
    """The proof was made for something else."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        super().__init__(f"the proof was not made for {purpose!r}")


class ProofExpired(IdentityRefused):
    """The proof is older than what counts. Seconds."""

    def __init__(self, age: int, max_age: int) -> None:
        self.age = age
        self.max_age = max_age
        super().__init__(f"the proof is {age} s old; up to {max_age} s count, so make a new one")


class ProofFromFuture(IdentityRefused):
    """The proof bears a later time than this clock; one of the two is wrong. Unix seconds."""

    final = False

    def __init__(self, issued_at: int, now: int) -> None:
        self.issued_at = issued_at
        self.now = now
        super().__init__(f"the proof was made at {issued_at}, which is after {now}")


class IdentityTaken(IdentityRefused):
    """The same account was proven before, for another wallet."""

    def __init__(self) -> None:
        super().__init__("this account is already bound to another wallet")
