"""Real quotes pass, and every kind of wrong one is refused by name."""

import json
from collections.abc import Callable

import pytest
from eventlogs import BOOT, Measured, agile_log
from swtpm import NOW, TTL, Node, Swtpm, TpmCommandFailed, emulated_tpm

from oracle.attestation.errors import (
    AttestationKeyNotEnrolled,
    AttestationKeyUnfit,
    EventLogMismatch,
    NotATpmQuote,
    PcrDigestMismatch,
    PcrNotAllowed,
    PcrSelectionMismatch,
    TpmNonceMismatch,
    TpmSchemeMismatch,
)
from oracle.attestation.tpm.enrolment import EnrolledKey
from oracle.attestation.tpm.eventlog import parse_event_log
from oracle.attestation.tpm.evidence import check_tpm_evidence, quote_nonce
from oracle.attestation.tpm.policy import PcrPolicy
from oracle.attestation.tpm.quote import verify_quote
from oracle.attestation.tpm.structures import Bank, Selection, parse_public

NodeWith = Callable[..., Node]
NONCE = bytes(range(32))
SELECTION: Selection = {Bank.SHA256: frozenset({8, 9, 11})}
BANKS = (Bank.SHA1, Bank.SHA256, Bank.SHA384)


def boot(tpm: Swtpm, events: tuple[Measured, ...] = BOOT) -> bytes:
    """Measure a boot; its event log."""
    for event in events:
        tpm.extend(event.pcr, {bank: event.digest(bank) for bank in BANKS})
    return agile_log(events, BANKS)


@pytest.fixture(scope="module")
def log(tpm: Swtpm) -> bytes:
    """The log of the one boot of this file's TPM."""
    return boot(tpm)


@pytest.fixture(scope="module")
def enrolled(node: Node) -> EnrolledKey:
    return node.enrol()


@pytest.fixture
def policy(log: bytes) -> PcrPolicy:
    values = parse_event_log(log).replay(Bank.SHA256)
    pcrs = {pcr: frozenset({values[pcr]}) for pcr in (8, 9, 11)}
    return PcrPolicy(model="edge-a", version=1, pcrs=pcrs)


@pytest.mark.parametrize(
    "ak",
    [("ecc", "ecdsa"), ("ecc384", "ecdsa", "sha384"), ("rsa", "rsassa"), ("rsa", "rsapss")],
    ids="-".join,
)
@pytest.mark.parametrize(
    "selection",
    [SELECTION, {Bank.SHA384: frozenset({8}), Bank.SHA256: frozenset({15, 8})}],
    ids=["one bank", "two banks"],
)
def test_real_quote_verifies(
    node_with: NodeWith, log: bytes, ak: tuple[str, ...], selection: Selection
) -> None:
    node = node_with("ecc", ak)
    name = parse_public(node.ak.public).name
    quote = node.tpm.quote(node.ak, NONCE, selection)
    verified = verify_quote(quote, ak_name=name, nonce=NONCE, selection=selection)
    assert verified.ak_name == name
    assert verified.safe
    replayed = parse_event_log(log)
    for bank, pcrs in selection.items():
        assert verified.pcrs[bank] == {pcr: replayed.replay(bank)[pcr] for pcr in pcrs}


def test_whole_way_from_boot_to_verdict(
    node: Node, enrolled: EnrolledKey, policy: PcrPolicy, log: bytes
) -> None:
    nonce = quote_nonce(
        chain_id=31337,
        registry="0x" + "11" * 20,
        node_id=enrolled.node_id,
        enclave_key="0x" + "22" * 20,
        challenge=NONCE,
    )
    quote = node.tpm.quote(node.ak, nonce, policy.selection)
    verdict = check_tpm_evidence(
        quote,
        enrolled=enrolled,
        nonce=nonce,
        policy=policy,
        now=NOW + 2,
        ttl=TTL,
        log=parse_event_log(log),
    )
    assert (verdict.node_id, verdict.ak_name) == (7, enrolled.ak_name)
    assert verdict.policy_digest == policy.digest
    assert (verdict.verified_at, verdict.valid_until) == (NOW + 2, NOW + 2 + TTL)


def test_quote_for_another_nonce_is_refused(node: Node, enrolled: EnrolledKey) -> None:
    quote = node.tpm.quote(node.ak, bytes(32), SELECTION)
    with pytest.raises(TpmNonceMismatch) as refusal:
        verify_quote(quote, ak_name=enrolled.ak_name, nonce=NONCE, selection=SELECTION)
    assert (refusal.value.found, refusal.value.expected) == (bytes(32), NONCE)


def test_replayed_quote_is_refused(node: Node, enrolled: EnrolledKey) -> None:
    quote = node.tpm.quote(node.ak, NONCE, SELECTION)
    assert verify_quote(quote, ak_name=enrolled.ak_name, nonce=NONCE, selection=SELECTION)
    fresh = bytes(31) + b"\1"
    with pytest.raises(TpmNonceMismatch) as refusal:
        verify_quote(quote, ak_name=enrolled.ak_name, nonce=fresh, selection=SELECTION)
    assert (refusal.value.found, refusal.value.expected) == (NONCE, fresh)


@pytest.mark.parametrize(
    ("quoted", "text"),
    [
        ({Bank.SHA256: frozenset({8, 9})}, "sha256:8,9"),
        ({Bank.SHA256: frozenset({8, 9, 10, 11})}, "sha256:8,9,10,11"),
        ({Bank.SHA384: frozenset({8, 9, 11})}, "sha384:8,9,11"),
        ({**SELECTION, Bank.SHA1: frozenset({8})}, "sha256:8,9,11+sha1:8"),
    ],
    ids=["fewer", "more", "another bank", "a second bank"],
)
def test_quote_over_other_pcrs_is_refused(
    node: Node, enrolled: EnrolledKey, quoted: Selection, text: str
) -> None:
    quote = node.tpm.quote(node.ak, NONCE, quoted)
    with pytest.raises(PcrSelectionMismatch) as refusal:
        verify_quote(quote, ak_name=enrolled.ak_name, nonce=NONCE, selection=SELECTION)
    assert (refusal.value.found, refusal.value.expected) == (text, "sha256:8,9,11")


def test_values_that_the_tpm_does_not_have_are_refused(node: Node, enrolled: EnrolledKey) -> None:
    quote = node.tpm.quote(node.ak, NONCE, SELECTION)
    wished = {Bank.SHA256: {**quote.pcrs[Bank.SHA256], 11: b"\1" * 32}}
    with pytest.raises(PcrDigestMismatch):
        verify_quote(
            quote.model_copy(update={"pcrs": wished}),
            ak_name=enrolled.ak_name,
            nonce=NONCE,
            selection=SELECTION,
        )


def test_quote_by_a_key_of_another_tpm_is_refused(enrolled: EnrolledKey, other_tpm: Swtpm) -> None:
    foreign = other_tpm.create_ak(other_tpm.create_ek("rsa"), "ecc", "ecdsa")
    quote = other_tpm.quote(foreign, NONCE, SELECTION)
    name = parse_public(foreign.public).name
    with pytest.raises(AttestationKeyNotEnrolled) as refusal:
        verify_quote(quote, ak_name=enrolled.ak_name, nonce=NONCE, selection=SELECTION)
    assert (refusal.value.name, refusal.value.enrolled) == (name, enrolled.ak_name)


def test_quote_by_a_key_that_signs_anything_is_refused(node: Node) -> None:
    key = node.tpm.create_signing_key("fixedtpm", "fixedparent", "sensitivedataorigin")
    quote = node.tpm.quote(key, NONCE, SELECTION)
    with pytest.raises(AttestationKeyUnfit) as refusal:
        verify_quote(quote, ak_name=parse_public(key.public).name, nonce=NONCE, selection=SELECTION)
    assert refusal.value.reason == "it is not restricted"


def test_enrolled_key_signs_no_attestation_that_its_tpm_did_not_make(node: Node) -> None:
    genuine = node.tpm.quote(node.ak, NONCE, SELECTION)
    node.tpm.write("forged", genuine.attest)
    node.tpm.run("tpm2_hash", "-C", "e", "-g", "sha256", "-o", "hash", "-t", "ticket", "forged")
    with pytest.raises(TpmCommandFailed, match="invalid ticket"):
        node.tpm.run(
            "tpm2_sign", "-c", node.ak.context, "-g", "sha256", "-d", "-t", "ticket",
            "-o", "forged.sig", "hash",
        )  # fmt: skip
    node.tpm.run("tpm2_flushcontext", "-t")


def test_other_attestation_of_the_same_key_is_refused(node: Node, enrolled: EnrolledKey) -> None:
    quote = node.tpm.quote(node.ak, NONCE, SELECTION)
    node.tpm.run("tpm2_gettime", "-c", node.ak.context, "-q", NONCE.hex(),
                 "--attestation", "time", "-o", "time.sig")  # fmt: skip
    node.tpm.run("tpm2_flushcontext", "-t")
    time = {"attest": node.tpm.read("time"), "signature": node.tpm.read("time.sig")}
    with pytest.raises(NotATpmQuote) as refusal:
        verify_quote(
            quote.model_copy(update=time),
            ak_name=enrolled.ak_name,
            nonce=NONCE,
            selection=SELECTION,
        )
    assert refusal.value.kind == 0x8019


def test_signature_of_another_scheme_is_refused(node_with: NodeWith) -> None:
    pss, ssa = (node_with("ecc", ("rsa", scheme)) for scheme in ("rsapss", "rsassa"))
    quote = pss.tpm.quote(pss.ak, NONCE, SELECTION)
    other = ssa.tpm.quote(ssa.ak, NONCE, SELECTION)
    with pytest.raises(TpmSchemeMismatch) as refusal:
        verify_quote(
            quote.model_copy(update={"signature": other.signature}),
            ak_name=parse_public(pss.ak.public).name,
            nonce=NONCE,
            selection=SELECTION,
        )
    assert (refusal.value.found, refusal.value.expected) == (
        "RSASSA with sha256",
        "RSAPSS with sha256",
    )


def test_replay_agrees_with_the_tools_own(node: Node, log: bytes) -> None:
    node.tpm.write("log", log)
    text = node.tpm.run("tpm2_eventlog", "log")
    for bank in BANKS:
        replayed = parse_event_log(log).replay(bank)
        for pcr in (8, 9, 11):
            assert f"0x{replayed[pcr].hex()}" in text.partition("pcrs:")[2]


def test_log_that_hides_an_event_is_refused(
    node: Node, enrolled: EnrolledKey, policy: PcrPolicy, log: bytes
) -> None:
    hidden = agile_log((*BOOT[:3], *BOOT[4:]), BANKS)
    quote = node.tpm.quote(node.ak, NONCE, policy.selection)
    with pytest.raises(EventLogMismatch) as refusal:
        check_tpm_evidence(
            quote,
            enrolled=enrolled,
            nonce=NONCE,
            policy=policy,
            now=NOW + 2,
            ttl=TTL,
            log=parse_event_log(hidden),
            reference=parse_event_log(log),
        )
    assert (refusal.value.pcr, refusal.value.event) == (9, 6)


def test_reboot_into_something_else_is_seen(vendor: object, policy: PcrPolicy) -> None:
    with emulated_tpm() as tpm:
        ak = tpm.create_ak(tpm.create_ek("ecc"), "ecc", "ecdsa")
        name = parse_public(ak.public).name
        boot(tpm)
        before = verify_quote(
            tpm.quote(ak, NONCE, SELECTION), ak_name=name, nonce=NONCE, selection=SELECTION
        )
        policy.check(before.pcrs[Bank.SHA256])

        tpm.reboot()
        again = tpm.create_ak(tpm.create_ek("ecc"), "ecc", "ecdsa")
        boot(tpm, (*BOOT[:5], Measured(11, b"edge node 1.2.0-patched")))
        after = verify_quote(
            tpm.quote(again, NONCE, SELECTION),
            ak_name=parse_public(again.public).name,
            nonce=NONCE,
            selection=SELECTION,
        )
        assert after.reset_count == before.reset_count + 1
        with pytest.raises(PcrNotAllowed) as refusal:
            policy.check(after.pcrs[Bank.SHA256])
        assert (refusal.value.pcr, refusal.value.policy) == (11, "edge-a v1")
        assert refusal.value.value == after.pcrs[Bank.SHA256][11]


def test_evidence_survives_json(node: Node, enrolled: EnrolledKey) -> None:
    quote = node.tpm.quote(node.ak, NONCE, SELECTION)
    received = type(quote).model_validate_json(quote.model_dump_json())
    assert received == quote
    assert json.loads(quote.model_dump_json())["pcrs"]["sha256"].keys() == {"8", "9", "11"}
    assert verify_quote(received, ak_name=enrolled.ak_name, nonce=NONCE, selection=SELECTION)
