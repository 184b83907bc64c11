"""Whatever proves an identity, it counts for one wallet, one use and a short time."""

import hmac
import json
from dataclasses import dataclass
from hashlib import sha256

import pytest
from unit.attestation.identity.reclaim_proofs import (
    IMPOSTOR,
    NOW,
    PURPOSE,
    WALLET,
    Claim,
    provider,
    request_hash,
    template,
)

from oracle.attestation.identity.errors import (
    IdentityTaken,
    ProofExpired,
    ProofFromFuture,
    ProofMalformed,
    ProviderUnknown,
    PurposeMismatch,
    WalletMismatch,
)
from oracle.attestation.identity.verify import (
    CLOCK_SKEW,
    Identity,
    IdentityProvider,
    IdentityVerifier,
    ProvenClaim,
    refuse_taken,
)
from settlement.errors import InvalidInput

KEY = bytes(range(32))
MAX_AGE = 600


@dataclass(frozen=True)
class NotaryProvider:
    """A second provider: a notary that shares a secret, and another form of proof."""

    secret: bytes
    name: str = "notary"

    def prove(self, site: str, account: str, wallet: str, time: int = NOW) -> str:
        body = json.dumps([site, account, wallet, PURPOSE, time])
        return f"{hmac.new(self.secret, body.encode(), 'sha256').hexdigest()}.{body}"

    def read(self, proof: str) -> ProvenClaim:
        tag, _, body = proof.partition(".")
        expected = hmac.new(self.secret, body.encode(), "sha256").hexdigest()
        if not hmac.compare_digest(tag, expected):
            raise ProofMalformed("not the notary's")
        site, account, wallet, purpose, time = json.loads(body)
        return ProvenClaim(
            site=site,
            template="deed",
            subject=account,
            attributes={"account": account},
            wallet=wallet,
            purpose=purpose,
            issued_at=time,
            digest=sha256(body.encode()).digest(),
        )


NOTARY = NotaryProvider(b"notary's secret")


def verifier(
    *providers: IdentityProvider, key: bytes = KEY, purpose: str = PURPOSE
) -> IdentityVerifier:
    return IdentityVerifier(
        providers or (provider(), NOTARY), purpose=purpose, nullifier_key=key, max_age=MAX_AGE
    )


def proven(claim: Claim | None = None, wallet: str = WALLET, now: int = NOW) -> Identity:
    return verifier().verify("reclaim", (claim or Claim()).text(), wallet=wallet, now=now)


def test_proof_gives_an_identity() -> None:
    identity = proven()
    assert (identity.provider, identity.site, identity.template) == (
        "reclaim",
        "accounts.example",
        "example-account",
    )
    assert (identity.wallet, identity.issued_at) == (WALLET, NOW)
    assert identity.attributes == {"account": "4711", "company": "Acme"}


@pytest.mark.parametrize("wallet", [IMPOSTOR.address, IMPOSTOR.address.lower()])
def test_proof_of_another_wallet_is_refused(wallet: str) -> None:
    with pytest.raises(WalletMismatch) as refusal:
        proven(wallet=wallet)
    assert refusal.value.wallet == IMPOSTOR.address


@pytest.mark.parametrize("bound", ["", "0x0", "0x" + "00" * 20, "user's address", WALLET[:-1]])
def test_proof_that_is_bound_to_no_address_is_refused(bound: str) -> None:
    with pytest.raises(WalletMismatch):
        proven(Claim(wallet=bound))


@pytest.mark.parametrize("bound", [WALLET, WALLET.lower()])
def test_wallet_may_be_written_in_both_ways(bound: str) -> None:
    assert proven(Claim(wallet=bound)).wallet == WALLET


@pytest.mark.parametrize("wallet", ["", "0x0", "0x" + "00" * 20])
def test_asking_for_no_wallet_is_refused(wallet: str) -> None:
    with pytest.raises(InvalidInput, match="is not a wallet's address"):
        proven(wallet=wallet)


def test_proof_for_another_use_is_refused() -> None:
    with pytest.raises(PurposeMismatch) as refusal:
        proven(Claim(message="rapha.identity.v1 on chain 1"))
    assert refusal.value.purpose == PURPOSE


def test_proof_counts_up_to_its_age() -> None:
    assert proven(now=NOW + MAX_AGE).issued_at == NOW
    with pytest.raises(ProofExpired) as refusal:
        proven(now=NOW + MAX_AGE + 1)
    assert (refusal.value.age, refusal.value.max_age) == (MAX_AGE + 1, MAX_AGE)


def test_proof_from_the_future_is_refused_beyond_a_clocks_error() -> None:
    assert proven(now=NOW - CLOCK_SKEW).issued_at == NOW
    with pytest.raises(ProofFromFuture) as refusal:
        proven(now=NOW - CLOCK_SKEW - 1)
    assert (refusal.value.issued_at, refusal.value.now) == (NOW, NOW - CLOCK_SKEW - 1)
    assert not refusal.value.final


def test_unknown_provider_is_refused() -> None:
    with pytest.raises(ProviderUnknown) as refusal:
        verifier().verify("oracle", "{}", wallet=WALLET, now=NOW)
    assert refusal.value.provider == "oracle"


def test_second_provider_takes_the_same_rules() -> None:
    text = NOTARY.prove("accounts.example", "4711", WALLET)
    identity = verifier().verify("notary", text, wallet=WALLET, now=NOW)
    assert (identity.provider, identity.template) == ("notary", "deed")
    with pytest.raises(WalletMismatch):
        verifier().verify("notary", text, wallet=IMPOSTOR.address, now=NOW)
    with pytest.raises(ProofExpired):
        verifier().verify("notary", text, wallet=WALLET, now=NOW + MAX_AGE + 1)
    with pytest.raises(ProofMalformed, match="not the notary's"):
        verifier().verify("notary", "0" + text, wallet=WALLET, now=NOW)


def test_proof_of_one_provider_is_none_of_the_others() -> None:
    with pytest.raises(ProofMalformed):
        verifier().verify("notary", Claim().text(), wallet=WALLET, now=NOW)
    with pytest.raises(ProofMalformed):
        verifier().verify("reclaim", NOTARY.prove("a", "b", WALLET), wallet=WALLET, now=NOW)


def test_nullifier_is_the_accounts_own() -> None:
    first = proven()
    again = proven(Claim(time=NOW - 1, wallet=IMPOSTOR.address.lower()), wallet=IMPOSTOR.address)
    assert again.nullifier == first.nullifier
    assert again.digest != first.digest
    by_notary = verifier().verify(
        "notary", NOTARY.prove("accounts.example", "4711", WALLET), wallet=WALLET, now=NOW
    )
    assert by_notary.nullifier == first.nullifier


def test_nullifier_of_another_account_site_or_key_differs() -> None:
    others = [
        proven(Claim(extracted={"account": "4712", "company": "Acme"})),
        verifier(provider(), NOTARY).verify(
            "notary", NOTARY.prove("elsewhere.example", "4711", WALLET), wallet=WALLET, now=NOW
        ),
        verifier(key=bytes(32)).verify("reclaim", Claim().text(), wallet=WALLET, now=NOW),
    ]
    nullifiers = {identity.nullifier for identity in [proven(), *others]}
    assert len(nullifiers) == 4


def test_renewed_template_keeps_the_nullifier() -> None:
    renewed = provider(
        template(), template("2026-04", name="renewed", provider_hash=_hash_of("2026-04"))
    )
    identity = verifier(renewed).verify(
        "reclaim", Claim(formula="2026-04").text(), wallet=WALLET, now=NOW
    )
    assert identity.template == "renewed"
    assert identity.nullifier == proven().nullifier


def _hash_of(formula: str) -> bytes:
    return request_hash(Claim().parameters, formula)  # type: ignore[arg-type]


def test_account_stands_for_one_wallet() -> None:
    identity = proven()
    refuse_taken(identity, None)
    refuse_taken(identity, WALLET.lower())
    with pytest.raises(IdentityTaken):
        refuse_taken(identity, IMPOSTOR.address)


def test_representation_shows_nothing_personal() -> None:
    assert "4711" not in repr(proven())
    assert "Acme" not in repr(proven())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"key": bytes(31)}, "the nullifier key has 31 bytes, not 32"),
        ({"purpose": ""}, "identity proofs need a purpose"),
    ],
)
def test_verifier_without_secret_or_purpose_is_refused(
    arguments: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        verifier(**arguments)  # type: ignore[arg-type]
    assert str(refusal.value) == reason


def test_two_providers_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the same name"):
        verifier(NOTARY, NotaryProvider(b"another"))
