"""Real TPMs open the credentials that the verifier makes, and only those for their own keys."""

from collections.abc import Callable

import pytest
import swtpm
from swtpm import NOW, TTL, Key, Node, Swtpm, TpmCommandFailed, TpmToolsMissing, Vendor

from oracle.attestation.errors import (
    ActivationExpired,
    ActivationUnknown,
    AttestationKeyUnfit,
    CredentialMismatch,
    EndorsementCertificateRefused,
    EndorsementKeyUnfit,
)
from oracle.attestation.tpm.enrolment import ActivationAnswer
from oracle.attestation.tpm.structures import parse_public

NodeWith = Callable[..., Node]


@pytest.mark.parametrize("ek", ["rsa", "ecc"])
@pytest.mark.parametrize(
    "ak",
    [("ecc", "ecdsa"), ("ecc384", "ecdsa", "sha384"), ("rsa", "rsassa"), ("rsa", "rsapss")],
    ids="-".join,
)
def test_key_is_enrolled_by_its_own_tpm(node_with: NodeWith, ek: str, ak: tuple[str, ...]) -> None:
    node = node_with(ek, ak)
    enrolled = node.enrol(node_id=9)
    assert (enrolled.node_id, enrolled.enrolled_at) == (9, NOW + 1)
    assert enrolled.ak_name == parse_public(node.ak.public).name
    name = node.tpm.run("tpm2_readpublic", "-c", node.ak.context)
    assert enrolled.ak_name.hex() in name


def test_answer_counts_once(node: Node, vendor: Vendor) -> None:
    activation = vendor.enrolment.begin(vendor.request(node.ek, node.ak), NOW)
    answer = node.tpm.activate(node.ek, node.ak, activation)
    vendor.enrolment.finish(answer, NOW)
    with pytest.raises(ActivationUnknown) as refusal:
        vendor.enrolment.finish(answer, NOW)
    assert refusal.value.challenge_id == activation.challenge_id


def test_answer_in_the_last_second_counts_and_later_not(node: Node, vendor: Vendor) -> None:
    for late in (0, 1):
        activation = vendor.enrolment.begin(vendor.request(node.ek, node.ak), NOW)
        assert activation.expires_at == NOW + TTL
        answer = node.tpm.activate(node.ek, node.ak, activation)
        if not late:
            vendor.enrolment.finish(answer, NOW + TTL - 1)
            continue
        with pytest.raises(ActivationExpired) as refusal:
            vendor.enrolment.finish(answer, NOW + TTL)
        assert (refusal.value.expires_at, refusal.value.now) == (NOW + TTL, NOW + TTL)


def test_guess_is_refused_and_uses_the_activation_up(node: Node, vendor: Vendor) -> None:
    activation = vendor.enrolment.begin(vendor.request(node.ek, node.ak), NOW)
    guess = ActivationAnswer(challenge_id=activation.challenge_id, proof=bytes(32))
    with pytest.raises(CredentialMismatch):
        vendor.enrolment.finish(guess, NOW)
    answer = node.tpm.activate(node.ek, node.ak, activation)
    with pytest.raises(ActivationUnknown):
        vendor.enrolment.finish(answer, NOW)


@pytest.mark.parametrize("ek", ["rsa", "ecc"])
def test_tpm_opens_no_credential_for_another_key_of_its_own(
    node_with: NodeWith, vendor: Vendor, ek: str
) -> None:
    node, other = node_with(ek), node_with(ek)
    assert node.ek.public == other.ek.public
    activation = vendor.enrolment.begin(vendor.request(node.ek, node.ak), NOW)
    with pytest.raises(TpmCommandFailed, match="integrity check failed"):
        node.tpm.activate(node.ek, other.ak, activation)


def test_other_tpm_opens_no_credential(node: Node, vendor: Vendor, other_tpm: Swtpm) -> None:
    ek = other_tpm.create_ek("rsa")
    ak = other_tpm.create_ak(ek, "ecc", "ecdsa")
    activation = vendor.enrolment.begin(vendor.request(node.ek, node.ak), NOW)
    with pytest.raises(TpmCommandFailed, match="tpm2_activatecredential"):
        other_tpm.activate(ek, ak, activation)


def test_endorsed_tpm_does_not_vouch_for_the_key_of_another(
    node: Node, vendor: Vendor, other_tpm: Swtpm
) -> None:
    ek = other_tpm.create_ek("rsa")
    foreign = other_tpm.create_ak(ek, "ecc", "ecdsa")
    activation = vendor.enrolment.begin(vendor.request(node.ek, foreign), NOW)
    node.tpm.write("foreign", other_tpm.read(foreign.context))
    with pytest.raises(TpmCommandFailed, match="integrity check failed"):
        node.tpm.activate(node.ek, Key("foreign", foreign.public), activation)
    with pytest.raises(TpmCommandFailed, match="tpm2_activatecredential"):
        other_tpm.activate(ek, foreign, activation)


def test_certificate_of_another_tpm_is_refused(
    node: Node, vendor: Vendor, other_tpm: Swtpm
) -> None:
    request = vendor.request(node.ek, node.ak)
    other = vendor.request(other_tpm.create_ek("rsa"), node.ak)
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        vendor.enrolment.begin(
            request.model_copy(update={"ek_certificate": other.ek_certificate}), NOW
        )
    assert (refusal.value.part, refusal.value.reason) == ("key", "it is for another key")


def test_certificate_of_an_unknown_vendor_is_refused(node: Node, vendor: Vendor) -> None:
    stranger = Vendor.create()
    with pytest.raises(EndorsementCertificateRefused) as refusal:
        vendor.enrolment.begin(stranger.request(node.ek, node.ak), NOW)
    assert refusal.value.part == "chain"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (("fixedtpm", "fixedparent", "sensitivedataorigin"), "it is not restricted"),
        (("sensitivedataorigin",), "it is not fixed_tpm, fixed_parent, restricted"),
    ],
)
def test_key_that_signs_anything_is_not_enrolled(
    node: Node, vendor: Vendor, attributes: tuple[str, ...], reason: str
) -> None:
    key = node.tpm.create_signing_key(*attributes)
    with pytest.raises(AttestationKeyUnfit) as refusal:
        vendor.enrolment.begin(vendor.request(node.ek, key), NOW)
    assert refusal.value.reason == reason


def test_storage_key_is_not_enrolled(node: Node, vendor: Vendor) -> None:
    with pytest.raises(AttestationKeyUnfit) as refusal:
        vendor.enrolment.begin(vendor.request(node.ek, node.ek), NOW)
    assert refusal.value.reason == "it is not sign"


def test_signing_key_is_no_endorsement_key(node: Node, vendor: Vendor) -> None:
    key = node.tpm.create_signing_key("fixedtpm", "fixedparent", "sensitivedataorigin")
    with pytest.raises(EndorsementKeyUnfit) as refusal:
        vendor.enrolment.begin(vendor.request(key, node.ak), NOW)
    assert refusal.value.reason == "it is not restricted, decrypt"


def test_missing_emulator_is_named_with_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TpmToolsMissing) as refusal, swtpm.emulated_tpm():
        pass
    assert str(refusal.value) == (
        "swtpm is missing; these tests need a TPM emulator and its tools: "
        "apt-get install -y swtpm tpm2-tools"
    )
