"""The development platform passes the real verifier, and every fault of it is refused by name."""

import json
from collections.abc import Callable
from typing import Any, get_args

import dcap_qvl
import pytest
from eth_utils import keccak

from oracle.attestation.errors import (
    CollateralMalformed,
    DebugEnclave,
    DevelopmentRootRefused,
    EvaluationTooLow,
    QuoteRefused,
    QuoteStale,
    SimulatedQuoteRefused,
    TcbRefused,
)
from oracle.attestation.policy import TcbAllowance, TcbPolicy, ToleratedStatus
from oracle.attestation.quote import parse_quote
from oracle.attestation.verify import QuoteVerifier
from oracle.clients.edge import devplatform
from oracle.clients.edge.devplatform import DAY, DevPlatform
from settlement.deployment import REAL_CHAINS
from settlement.errors import InvalidInput

LOCAL_CHAIN = 31337
VerifierOf = Callable[..., QuoteVerifier]


def test_quote_verifies_with_its_own_root(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    verified = verifier_of(platform).verify(dev_quote, now)
    assert verified.kind == "sgx"
    assert verified.measurement == bytes(range(32))
    assert verified.report_data == bytes(range(64, 128))
    assert verified.attestation_digest == parse_quote(dev_quote).attestation_digest
    assert (verified.tcb_status, verified.advisories) == ("UpToDate", ())
    assert verified.valid_until == now + devplatform.COLLATERAL_VALIDITY
    assert verified.simulated


def test_quotes_of_another_generator_verify(independent: dict[str, Any], given: Any) -> None:
    for name, collateral in [
        ("quote", "collateral"),
        ("tdx_v4", "collateral_tdx"),
        ("tdx_v5", "collateral_tdx"),
    ]:
        verifier = QuoteVerifier(
            chain_id=LOCAL_CHAIN,
            collateral=given(json.dumps(independent[collateral])),
            development_root=bytes.fromhex(independent["root_ca_der"]),
        )
        verified = verifier.verify(bytes.fromhex(independent[name]), independent["now"])
        assert verified.tcb_status == "UpToDate"
        assert verified.simulated


def test_intels_root_does_not_vouch_for_the_platform(
    platform: DevPlatform, dev_quote: bytes, now: int
) -> None:
    collateral = dcap_qvl.QuoteCollateralV3.from_json(platform.collateral_json())
    with pytest.raises(ValueError, match="InvalidCrlSignatureForPublicKey"):
        dcap_qvl.verify(dev_quote, collateral, now)


def test_simulated_quote_is_refused_where_no_root_is_configured(
    platform: DevPlatform, dev_quote: bytes, given: Any, now: int
) -> None:
    verifier = QuoteVerifier(chain_id=LOCAL_CHAIN, collateral=given(platform.collateral_json()))
    with pytest.raises(SimulatedQuoteRefused):
        verifier.verify(dev_quote, now)


def test_development_root_does_not_vouch_for_an_unmarked_quote(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devplatform, "SIMULATED", b"a real platform")
    unmarked = platform.quote(bytes(32), bytes(64))
    collateral = dcap_qvl.QuoteCollateralV3.from_json(platform.collateral_json())
    report = dcap_qvl.verify_with_root_ca(unmarked, collateral, platform.root_der, now)
    assert report.status == "UpToDate"
    with pytest.raises(QuoteRefused, match="InvalidCrlSignatureForPublicKey"):
        verifier_of(platform).verify(unmarked, now)


def test_another_platforms_root_does_not_vouch(
    platform: DevPlatform, dev_quote: bytes, given: Any, now: int
) -> None:
    other = DevPlatform.create(now, chain_id=LOCAL_CHAIN)
    for collateral in (platform, other):
        verifier = QuoteVerifier(
            chain_id=LOCAL_CHAIN,
            collateral=given(collateral.collateral_json()),
            development_root=other.root_der,
        )
        with pytest.raises(QuoteRefused):
            verifier.verify(dev_quote, now)


@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
def test_development_root_is_refused_on_real_chains(
    platform: DevPlatform, given: Any, chain_id: int
) -> None:
    with pytest.raises(DevelopmentRootRefused) as refusal:
        QuoteVerifier(
            chain_id=chain_id,
            collateral=given(platform.collateral_json()),
            development_root=platform.root_der,
        )
    assert refusal.value.chain_id == chain_id


def test_development_root_that_is_no_certificate_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput, match="development root is not a certificate"):
        QuoteVerifier(chain_id=LOCAL_CHAIN, collateral=given(""), development_root=b"root")


STATUSES = [status for status in get_args(devplatform.TcbStatus) if status != "Revoked"]
KINDS = pytest.mark.parametrize("version", [3, 4, 5])


def quote_of(platform: DevPlatform, version: int, *, debug: bool = False) -> bytes:
    if version == 3:
        return platform.quote(bytes(32), bytes(64), debug=debug)
    td_version: Any = version
    return platform.td_quote(bytes(48), bytes(64), version=td_version, debug=debug)


def judging(platform: DevPlatform, now: int, version: int, **says: Any) -> DevPlatform:
    return platform.with_collateral(now, tee="sgx" if version == 3 else "tdx", **says)


@KINDS
@pytest.mark.parametrize("status", STATUSES)
def test_platform_of_each_status_is_judged_by_the_policy(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int, status: Any
) -> None:
    quote, advisories = quote_of(platform, version), ("INTEL-SA-00615", "INTEL-SA-00828")
    source = judging(platform, now, version, tcb_status=status, advisories=advisories)
    if status == "UpToDate":
        verified = verifier_of(source).verify(quote, now)
        assert (verified.tcb_status, verified.advisories) == (status, advisories)
        return
    with pytest.raises(TcbRefused) as refusal:
        verifier_of(source).verify(quote, now)
    assert (refusal.value.status, refusal.value.advisories) == (status, advisories)

    def tolerating(*known: str, until: int) -> QuoteVerifier:
        allowance = TcbAllowance(status=status, advisories=frozenset(known), until=until)
        return verifier_of(source, TcbPolicy(allowances=(allowance,)))

    assert tolerating(*advisories, until=now + 1).verify(quote, now).tcb_status == status
    for refusing in (
        tolerating(*advisories, until=now),
        tolerating(*advisories[:1], until=now + 1),
    ):
        with pytest.raises(TcbRefused):
            refusing.verify(quote, now)


@KINDS
def test_td_and_enclave_quotes_say_what_they_were_made_for(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int
) -> None:
    verified = verifier_of(judging(platform, now, version)).verify(quote_of(platform, version), now)
    assert verified.kind == ("sgx" if version == 3 else "tdx")
    assert verified.measurement == (bytes(32) if version == 3 else keccak(bytes(48 * 5)))
    assert verified.simulated


@KINDS
def test_revoked_level_is_refused_whatever_the_policy(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int
) -> None:
    for says in ({"tcb_status": "Revoked"}, {"qe_status": "Revoked"}):
        with pytest.raises(QuoteRefused) as refusal:
            verifier_of(judging(platform, now, version, **says), tolerant(now)).verify(
                quote_of(platform, version), now
            )
        assert refusal.value.reason == "TCB status is invalid: Revoked"


@KINDS
def test_debug_is_refused_whatever_the_policy(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int
) -> None:
    verifier = verifier_of(judging(platform, now, version), tolerant(now))
    with pytest.raises(DebugEnclave):
        verifier.verify(quote_of(platform, version, debug=True), now)


def tolerant(now: int) -> TcbPolicy:
    """The most that a policy can be made to allow."""
    return TcbPolicy(
        allowances=tuple(
            TcbAllowance(status=status, advisories=frozenset(), until=now + DAY)
            for status in get_args(ToleratedStatus)
        )
    )


@KINDS
@pytest.mark.parametrize("revoked", ["pck_revoked", "pck_ca_revoked", "tcb_signing_revoked"])
def test_revoked_certificate_is_refused(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int, revoked: str
) -> None:
    with pytest.raises(QuoteRefused) as refusal:
        verifier_of(judging(platform, now, version, **{revoked: True})).verify(
            quote_of(platform, version), now
        )
    assert refusal.value.reason.endswith("CertRevoked")
    assert "\n" not in refusal.value.reason


@KINDS
def test_quoting_enclave_that_is_out_of_date_lowers_the_status(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int
) -> None:
    source = judging(platform, now, version, qe_status="OutOfDate")
    with pytest.raises(TcbRefused) as refusal:
        verifier_of(source).verify(quote_of(platform, version), now)
    assert refusal.value.status == "OutOfDate"


@KINDS
def test_low_evaluation_is_refused_where_a_minimum_is_asked(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int
) -> None:
    source, policy = (
        judging(platform, now, version, evaluation=16),
        TcbPolicy(minimum_evaluation=17),
    )
    with pytest.raises(EvaluationTooLow) as refusal:
        verifier_of(source, policy).verify(quote_of(platform, version), now)
    assert (refusal.value.found, refusal.value.minimum) == (16, 17)
    assert verifier_of(source, TcbPolicy(minimum_evaluation=16)).verify(
        quote_of(platform, version), now
    )


@KINDS
def test_collateral_of_the_other_kind_is_refused(
    platform: DevPlatform, verifier_of: VerifierOf, now: int, version: int
) -> None:
    other = platform.with_collateral(now, tee="tdx" if version == 3 else "sgx")
    with pytest.raises(QuoteRefused):
        verifier_of(other).verify(quote_of(platform, version), now)


def test_tcb_that_the_policy_tolerates_passes_until_the_allowance_ends(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    behind = platform.with_collateral(now, tcb_status="OutOfDate", advisories=("INTEL-SA-00615",))
    allowance = TcbAllowance(
        status="OutOfDate", advisories=frozenset({"INTEL-SA-00615"}), until=now + DAY
    )
    verifier = verifier_of(behind, TcbPolicy(allowances=(allowance,)))
    assert verifier.verify(dev_quote, now + DAY - 1).tcb_status == "OutOfDate"
    with pytest.raises(TcbRefused):
        verifier.verify(dev_quote, now + DAY)


def test_collateral_of_another_machine_type_is_refused(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    other = platform.with_collateral(now, fmspc=bytes(6))
    with pytest.raises(QuoteRefused) as refusal:
        verifier_of(other).verify(dev_quote, now)
    assert refusal.value.reason == "Fmspc mismatch"


def test_expired_collateral_is_stale_until_it_is_replaced(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    later = now + devplatform.COLLATERAL_VALIDITY
    with pytest.raises(QuoteStale) as refusal:
        verifier_of(platform).verify(dev_quote, later)
    assert (refusal.value.now, refusal.value.valid_until) == (later, later)
    fresh = platform.with_collateral(later)
    assert verifier_of(fresh).verify(dev_quote, later).tcb_status == "UpToDate"


def test_collateral_from_the_future_is_stale(
    platform: DevPlatform, dev_quote: bytes, verifier_of: VerifierOf, now: int
) -> None:
    earlier = now - devplatform.CLOCK_SKEW - 1
    with pytest.raises(QuoteStale) as refusal:
        verifier_of(platform).verify(dev_quote, earlier)
    assert refusal.value.valid_from == earlier + 1


def test_collateral_with_a_changed_statement_is_refused(
    platform: DevPlatform, dev_quote: bytes, given: Any, now: int
) -> None:
    for genuine, forged in [('pcesvn\\":13', 'pcesvn\\":12'), ('isvsvn\\":8', 'isvsvn\\":7')]:
        text = platform.collateral_json()
        assert genuine in text
        verifier = QuoteVerifier(
            chain_id=LOCAL_CHAIN,
            collateral=given(text.replace(genuine, forged)),
            development_root=platform.root_der,
        )
        with pytest.raises(QuoteRefused, match="Signature is invalid"):
            verifier.verify(dev_quote, now)


def test_collateral_that_cannot_be_read_is_refused_as_such(
    platform: DevPlatform, dev_quote: bytes, given: Any, now: int
) -> None:
    verifier = QuoteVerifier(
        chain_id=LOCAL_CHAIN, collateral=given("{}"), development_root=platform.root_der
    )
    with pytest.raises(CollateralMalformed):
        verifier.verify(dev_quote, now)
