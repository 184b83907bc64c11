"""An activation is answered once, in time, by the TPM that it was made for."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from endorsement import DAY, EndorsementCa, der
from pydantic import ValidationError
from softtpm import SoftKey

from oracle.attestation.errors import (
    ActivationExpired,
    ActivationUnknown,
    AttestationKeyUnfit,
    CredentialMismatch,
    EndorsementCertificateRefused,
    TooManyActivations,
)
from oracle.attestation.tpm.endorsement import Endorsement, EndorsementRoots
from oracle.attestation.tpm.enrolment import (
    Activation,
    ActivationAnswer,
    Enrolment,
    EnrolmentRequest,
    MemoryActivations,
    OpenActivation,
    activation_proof,
)

TTL = 300
RequestOf = Callable[..., EnrolmentRequest]


@pytest.fixture
def enrolment(ca: EndorsementCa) -> Enrolment:
    return Enrolment(EndorsementRoots([der(ca.root)]), MemoryActivations(), ttl=TTL)


@pytest.fixture
def request_of(ca: EndorsementCa, eks: dict[str, SoftKey], ak: SoftKey) -> RequestOf:
    def build(ek: str = "ecc", key: SoftKey = ak, node_id: int = 7) -> EnrolmentRequest:
        endorsement = eks[ek]
        return EnrolmentRequest(
            node_id=node_id,
            ek_certificate=ca.certify(endorsement.parsed().key),
            intermediates=(der(ca.issuer),),
            ek_public=endorsement.public(),
            ak_public=key.public(),
        )

    return build


def opened_secret(ek: SoftKey, key: SoftKey, activation: Activation) -> bytes:
    return ek.activate(key.parsed().name, activation.credential_blob, activation.encrypted_secret)


def answered(
    ek: SoftKey, key: SoftKey, activation: Activation, node_id: int = 7
) -> ActivationAnswer:
    proof = activation_proof(
        opened_secret(ek, key, activation), challenge_id=activation.challenge_id, node_id=node_id
    )
    return ActivationAnswer(challenge_id=activation.challenge_id, proof=proof)


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_record_binds_node_key_and_endorsement(
    enrolment: Enrolment,
    request_of: RequestOf,
    ca: EndorsementCa,
    eks: dict[str, SoftKey],
    ak: SoftKey,
    kind: str,
) -> None:
    request = request_of(kind)
    activation = enrolment.begin(request, ca.now)
    assert activation.expires_at == ca.now + TTL
    record = enrolment.finish(answered(eks[kind], ak, activation), ca.now + TTL - 1)
    endorsement = EndorsementRoots([der(ca.root)]).verify(
        request.ek_certificate, request.intermediates, eks[kind].parsed(), ca.now
    )
    assert record.node_id == 7
    assert record.ak_name == ak.parsed().name
    assert record.ek_certificate_digest == endorsement.certificate_digest
    assert record.ek_key_digest == endorsement.key_digest
    assert record.enrolled_at == ca.now + TTL - 1
    assert record.valid_until == ca.now + 365 * DAY
    assert type(record).model_validate_json(record.model_dump_json()) == record


def test_second_answer_is_refused(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa,
    eks: dict[str, SoftKey], ak: SoftKey,
) -> None:  # fmt: skip
    activation = enrolment.begin(request_of(), ca.now)
    answer = answered(eks["ecc"], ak, activation)
    enrolment.finish(answer, ca.now)
    with pytest.raises(ActivationUnknown) as refusal:
        enrolment.finish(answer, ca.now)
    assert refusal.value.challenge_id == activation.challenge_id


def test_late_answer_is_refused_and_uses_the_activation_up(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa,
    eks: dict[str, SoftKey], ak: SoftKey,
) -> None:  # fmt: skip
    answer = answered(eks["ecc"], ak, enrolment.begin(request_of(), ca.now))
    with pytest.raises(ActivationExpired) as refusal:
        enrolment.finish(answer, ca.now + TTL)
    assert (refusal.value.expires_at, refusal.value.now) == (ca.now + TTL, ca.now + TTL)
    with pytest.raises(ActivationUnknown):
        enrolment.finish(answer, ca.now)


@pytest.mark.parametrize("guess", ["zeros", "the bare secret"])
def test_wrong_answer_is_refused_and_uses_the_activation_up(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa,
    eks: dict[str, SoftKey], ak: SoftKey, guess: str,
) -> None:  # fmt: skip
    activation = enrolment.begin(request_of(), ca.now)
    proof = opened_secret(eks["ecc"], ak, activation) if guess != "zeros" else bytes(32)
    with pytest.raises(CredentialMismatch):
        enrolment.finish(
            ActivationAnswer(challenge_id=activation.challenge_id, proof=proof), ca.now
        )
    with pytest.raises(ActivationUnknown):
        enrolment.finish(answered(eks["ecc"], ak, activation), ca.now)


def test_newer_activation_of_a_node_replaces_the_earlier(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa,
    eks: dict[str, SoftKey], ak: SoftKey,
) -> None:  # fmt: skip
    first, other, second = (enrolment.begin(request_of(node_id=n), ca.now) for n in (7, 8, 7))
    with pytest.raises(ActivationUnknown):
        enrolment.finish(answered(eks["ecc"], ak, first), ca.now)
    assert enrolment.finish(answered(eks["ecc"], ak, second), ca.now).node_id == 7
    assert enrolment.finish(answered(eks["ecc"], ak, other, 8), ca.now).node_id == 8


def test_answer_for_another_node_than_the_tpm_means_is_refused(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa,
    eks: dict[str, SoftKey], ak: SoftKey,
) -> None:  # fmt: skip
    # Whoever passes the request on wrote 8 into it; the node's TPM answers as node 7.
    activation = enrolment.begin(request_of(node_id=8), ca.now)
    with pytest.raises(CredentialMismatch):
        enrolment.finish(answered(eks["ecc"], ak, activation, node_id=7), ca.now)


def test_activation_with_another_tpm_does_not_displace_the_nodes_own(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa,
    eks: dict[str, SoftKey], ak: SoftKey,
) -> None:  # fmt: skip
    own = enrolment.begin(request_of("ecc"), ca.now)
    enrolment.begin(request_of("rsa"), ca.now)
    assert enrolment.finish(answered(eks["ecc"], ak, own), ca.now).node_id == 7


def test_answer_of_one_activation_does_not_fit_another(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa,
    eks: dict[str, SoftKey], ak: SoftKey,
) -> None:  # fmt: skip
    mine, other = (enrolment.begin(request_of(node_id=n), ca.now) for n in (7, 8))
    proof = answered(eks["ecc"], ak, mine).proof
    with pytest.raises(CredentialMismatch):
        enrolment.finish(ActivationAnswer(challenge_id=other.challenge_id, proof=proof), ca.now)


def test_unfit_keys_open_no_activation(
    enrolment: Enrolment, request_of: RequestOf, ca: EndorsementCa, eks: dict[str, SoftKey]
) -> None:
    with pytest.raises(AttestationKeyUnfit) as unfit:
        enrolment.begin(request_of(key=eks["rsa"]), ca.now)
    assert unfit.value.reason == "it is not sign"
    with pytest.raises(EndorsementCertificateRefused) as refused:
        enrolment.begin(request_of("rsa").model_copy(update={"intermediates": ()}), ca.now)
    assert refused.value.part == "chain"


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": 0},
        {"ek_certificate": bytes(4_097)},
        {"intermediates": (b"",) * 5},
        {"ak_public": bytes(2_049)},
    ],
)
def test_oversized_request_is_not_even_read(
    request_of: RequestOf, change: dict[str, object]
) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        EnrolmentRequest.model_validate({**request_of().model_dump(), **change})


def opened(number: int, expires_at: int) -> OpenActivation:
    endorsement = Endorsement(bytes(32), bytes(32), 2**40)
    return OpenActivation(
        number.to_bytes(32, "big"), number, b"name", endorsement, bytes(32), expires_at
    )


def test_store_is_bounded_and_forgets_what_expired() -> None:
    store = MemoryActivations(capacity=2)
    store.put(opened(1, 100), 0)
    store.put(opened(2, 200), 0)
    with pytest.raises(TooManyActivations) as refusal:
        store.put(opened(3, 300), 99)
    assert refusal.value.until == 100
    assert not refusal.value.final
    store.put(opened(2, 250), 99)
    store.put(opened(3, 300), 100)
    assert store.take(opened(1, 0).challenge_id) is None


def test_of_many_takers_one_gets_it() -> None:
    store = MemoryActivations()
    store.put(opened(1, 100), 0)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(store.take, [opened(1, 0).challenge_id] * 200))
    assert [activation for activation in taken if activation] == [opened(1, 100)]
