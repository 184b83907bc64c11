"""One identity proof judged offline, for a person or a program."""

from oracle.attestation.identity.errors import IdentityRefused
from oracle.attestation.identity.settings import IdentitySettings
from oracle.attestation.identity.verify import check_claim
from settlement.types import Bytes32, Frozen


class IdentityReport(Frozen):
    """Whether a proof counts, and what it says; nothing personal of it.

    `checked` is what was looked at: a wallet or a purpose that nobody named is told, not checked.
    `code` and `detail` are the refusal's.
    """

    accepted: bool
    checked: tuple[str, ...]
    code: str | None = None
    detail: str | None = None
    site: str | None = None
    template: str | None = None
    wallet: str | None = None
    purpose: str | None = None
    issued_at: int | None = None
    digest: Bytes32 | None = None


def examine_identity(
    proof: str,
    settings: IdentitySettings,
    *,
    wallet: str | None,
    purpose: str | None,
    now: int,
) -> IdentityReport:
    """Judge a Reclaim proof at `now` (Unix seconds).

    Raises:
        InvalidInput: when `wallet` is not an address.
    """
    named = [
        name for name, given in (("wallet", wallet), ("purpose", purpose)) if given is not None
    ]
    checked = ("attestors", "template", "age", *named)
    try:
        claim = settings.provider().read(proof)
        check_claim(claim, wallet=wallet, purpose=purpose, max_age=settings.max_age, now=now)
    except IdentityRefused as error:
        return IdentityReport(accepted=False, checked=checked, code=error.code, detail=str(error))
    return IdentityReport(
        accepted=True,
        checked=checked,
        site=claim.site,
        template=claim.template,
        wallet=claim.wallet,
        purpose=claim.purpose,
        issued_at=claim.issued_at,
        digest=claim.digest,
    )
