"""A node's TPM: enrolled by each operator for itself, judged with the enclave, renewed alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from endorsement import EndorsementCa, der
from eth_utils import keccak
from eventlogs import BOOT, agile_log
from fastapi.testclient import TestClient
from softtpm import SoftKey
from sqlalchemy import select
from unit.oracle.bench import DAY, DEPLOYMENT, TOKEN, Bench, actor, evidence
from unit.oracle.ledger import START

from oracle.api import create_app
from oracle.attestation.errors import (
    ActivationUnknown,
    AttestationKeyNotEnrolled,
    CredentialMismatch,
    EndorsementCertificateRefused,
    EnrolmentExpired,
    EventLogMismatch,
    EventLogMissing,
    NodeHasAnotherTpm,
    NodeUnassigned,
    PcrNotAllowed,
    TooManyActivations,
    TpmEvidenceMissing,
    TpmNonceMismatch,
    TpmNotConfigured,
    TpmNotEnrolled,
    TpmNotPinned,
    TpmOfAnotherNode,
)
from oracle.attestation.tpm.endorsement import Endorsement, EndorsementRoots
from oracle.attestation.tpm.enrolment import (
    Activation,
    ActivationAnswer,
    EnrolmentRequest,
    OpenActivation,
    activation_proof,
)
from oracle.attestation.tpm.evidence import quote_nonce
from oracle.attestation.tpm.policy import NodePolicies, NodeTpm, PcrPolicy
from oracle.attestation.tpm.structures import Bank, Scheme
from oracle.client import OracleClient, OracleRefused, PeerClient
from oracle.committee import challenge_nonce
from oracle.errors import NodeUnknown, StaleChallenge
from oracle.limits import MAX_BODY, MAX_EVIDENCE
from oracle.messages import (
    ActivationAnswers,
    ChallengeRequest,
    ChallengeSet,
    PeerChallenge,
    Status,
    TpmEvidence,
    TpmRenewal,
)
from oracle.store.database import Store
from oracle.store.tpm import TpmActivationRow, TpmKeyRow
from oracle.tpm import NodeTpms, StoredActivations, TpmPolicy, forget_tpm
from settlement.types import to_hex

CHALLENGE_TTL = 600
PCRS = {8: keccak(text="kernel"), 9: keccak(text="initrd")}
ENCLAVE = actor("enclave").address
REQUEST = ChallengeRequest(node_id=1, enclave_key=ENCLAVE)
VENDOR = EndorsementCa.create(START - DAY)


@dataclass
class Machine:
    """A node's TPM."""

    ek: SoftKey = field(default_factory=lambda: SoftKey.ek(ec.generate_private_key(ec.SECP256R1())))
    ak: SoftKey = field(
        default_factory=lambda: SoftKey.ak(ec.generate_private_key(ec.SECP256R1()), Scheme.ECDSA)
    )
    node_id: int = 1

    def request(self, vendor: EndorsementCa = VENDOR, **changes: Any) -> EnrolmentRequest:
        fields = {
            "node_id": self.node_id,
            "ek_certificate": vendor.certify(self.ek.parsed().key),
            "intermediates": (der(vendor.issuer),),
            "ek_public": self.ek.public(),
            "ak_public": self.ak.public(),
        }
        return EnrolmentRequest.model_validate({**fields, **changes})

    def answer(self, activation: Activation) -> ActivationAnswer:
        secret = self.ek.activate(
            self.ak.parsed().name, activation.credential_blob, activation.encrypted_secret
        )
        proof = activation_proof(secret, challenge_id=activation.challenge_id, node_id=self.node_id)
        return ActivationAnswer(challenge_id=activation.challenge_id, proof=proof)

    def answers(self, *activations: Activation) -> ActivationAnswers:
        return ActivationAnswers(answers=tuple(self.answer(it) for it in activations))

    def evidence(
        self,
        challenge: ChallengeSet | PeerChallenge,
        *,
        enclave: str = ENCLAVE,
        pcrs: dict[int, bytes] = PCRS,
        log: bytes | None = None,
        clock: int = 1_000,
    ) -> TpmEvidence:
        nonce = quote_nonce(
            chain_id=DEPLOYMENT.chain_id,
            registry=DEPLOYMENT.enclave_registry,
            node_id=self.node_id,
            enclave_key=enclave,
            challenge=challenge_nonce(_challenges(challenge)),
        )
        return TpmEvidence(
            quote=self.ak.quote(nonce, {Bank.SHA256: pcrs}, clock=clock), event_log=log
        )

    def renewal(self, challenge: ChallengeSet | PeerChallenge, **changes: Any) -> TpmRenewal:
        return TpmRenewal(
            node_id=self.node_id,
            enclave_key=changes.get("enclave", ENCLAVE),
            challenges=_challenges(challenge),
            tpm=self.evidence(challenge, **changes),
        )


def _challenges(challenge: ChallengeSet | PeerChallenge) -> tuple[bytes, ...]:
    if isinstance(challenge, ChallengeSet):
        return challenge.challenges
    return (challenge.challenge,)


def policies(**changes: Any) -> NodePolicies:
    policy = PcrPolicy(
        model="edge", version=1, pcrs={pcr: frozenset([value]) for pcr, value in PCRS.items()}
    )
    return NodePolicies.model_validate({"policies": (policy,), "default_model": "edge", **changes})


def judging(
    *, required: bool = True, revoked: frozenset[bytes] = frozenset(), **changes: Any
) -> Callable[[Store, Callable[[], int]], NodeTpms]:
    def build(store: Store, clock: Callable[[], int]) -> NodeTpms:
        roots = EndorsementRoots([der(VENDOR.root)], revoked_keys=revoked)
        policy = TpmPolicy(ttl=DAY, activation_ttl=CHALLENGE_TTL, required=required)
        return NodeTpms(store, DEPLOYMENT, roots, policies(**changes), policy, clock)

    return build


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.create(tmp_path, tpms=judging())


@pytest.fixture
def machine() -> Machine:
    return Machine()


def enrol(bench: Bench, machine: Machine) -> None:
    bench.operator.activate(machine.answers(bench.operator.enrol(machine.request())))


def key_digest(machine: Machine) -> bytes:
    request = machine.request()
    return (
        EndorsementRoots([der(VENDOR.root)])
        .verify(request.ek_certificate, request.intermediates, machine.ek.parsed(), START)
        .key_digest
    )


# Enrolment


def test_enrolled_key_is_kept_for_its_node(bench: Bench, machine: Machine) -> None:
    activation = bench.operator.enrol(machine.request())
    assert activation.expires_at == bench.now() + CHALLENGE_TTL
    status = bench.operator.activate(machine.answers(activation))
    assert (status.node_id, status.refusals) == (1, {})
    assert status.valid_until == START - DAY + 365 * DAY
    with bench.store.read() as session:
        row = session.get_one(TpmKeyRow, 1)
        assert (row.ak_name, row.ek_key) == (machine.ak.parsed().name, key_digest(machine))
        assert session.scalars(select(TpmActivationRow)).all() == []


def test_enrolling_the_same_key_again_changes_nothing_but_the_endorsements_end(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    with bench.store.read() as session:
        first = session.get_one(TpmKeyRow, 1).enrolled_at
    bench.ledger.time += 100
    enrol(bench, machine)
    with bench.store.read() as session:
        assert session.get_one(TpmKeyRow, 1).enrolled_at == first


def test_new_key_of_the_same_tpm_takes_the_place_of_the_earlier(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    rotated = Machine(ek=machine.ek)
    enrol(bench, rotated)
    challenge = bench.operator.challenge(REQUEST)
    with pytest.raises(AttestationKeyNotEnrolled) as refused:
        bench.operator.renew_tpm(machine.renewal(challenge))
    assert refused.value.enrolled == rotated.ak.parsed().name
    assert machine.ak.parsed().name.hex() not in str(refused.value)
    bench.operator.renew_tpm(rotated.renewal(challenge))


def test_another_tpm_is_not_enrolled_until_the_operator_forgets_the_first(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    other = Machine()
    with pytest.raises(NodeHasAnotherTpm) as refused:
        bench.operator.enrol(other.request())
    assert refused.value.node_id == 1
    assert forget_tpm(bench.store, 1) is True
    assert forget_tpm(bench.store, 1) is False
    enrol(bench, other)


def test_one_tpm_is_one_nodes(bench: Bench, machine: Machine) -> None:
    enrol(bench, machine)
    with pytest.raises(TpmOfAnotherNode):
        bench.operator.enrol(machine.request(node_id=2))


def test_of_two_enrolments_of_one_tpm_for_two_nodes_one_ends(
    bench: Bench, machine: Machine
) -> None:
    second = Machine(ek=machine.ek, node_id=2)
    first, other = (bench.operator.enrol(it.request()) for it in (machine, second))
    bench.operator.activate(machine.answers(first))
    with pytest.raises(TpmOfAnotherNode):
        bench.operator.activate(second.answers(other))


def test_where_a_tpm_is_pinned_no_other_is_enrolled(tmp_path: Path, machine: Machine) -> None:
    pin = NodeTpm(model="edge", ek_key_digest=key_digest(machine))
    bench = Bench.create(tmp_path, tpms=judging(nodes={1: pin}))
    with pytest.raises(TpmNotPinned):
        bench.operator.enrol(Machine().request())
    enrol(bench, machine)


def test_pin_lets_its_tpm_in_where_another_came_first(bench: Bench, machine: Machine) -> None:
    enrol(bench, Machine())
    bench.tpms = judging(nodes={1: NodeTpm(model="edge", ek_key_digest=key_digest(machine))})
    bench.restart()
    enrol(bench, machine)
    bench.operator.renew_tpm(machine.renewal(bench.operator.challenge(REQUEST)))


def test_node_that_is_not_active_enrols_nothing(bench: Bench, machine: Machine) -> None:
    with pytest.raises(NodeUnknown):
        bench.operator.enrol(machine.request(node_id=9))


def test_certificate_of_an_unknown_vendor_opens_no_activation(
    bench: Bench, machine: Machine
) -> None:
    stranger = EndorsementCa.create(START - DAY)
    with pytest.raises(EndorsementCertificateRefused) as refused:
        bench.operator.enrol(machine.request(stranger))
    assert refused.value.part == "chain"


def test_wrong_proof_is_refused_and_uses_the_activation_up(bench: Bench, machine: Machine) -> None:
    activation = bench.operator.enrol(machine.request())
    wrong = ActivationAnswer(challenge_id=activation.challenge_id, proof=bytes(32))
    with pytest.raises(CredentialMismatch):
        bench.operator.activate(ActivationAnswers(answers=(wrong,)))
    with pytest.raises(ActivationUnknown):
        bench.operator.activate(machine.answers(activation))


def test_open_activation_outlives_a_restart(bench: Bench, machine: Machine) -> None:
    activation = bench.operator.enrol(machine.request())
    bench.restart()
    assert bench.operator.activate(machine.answers(activation)).node_id == 1


def test_open_activations_are_bounded_and_expire(bench: Bench) -> None:
    def opened(number: int, expires_at: int) -> OpenActivation:
        name = number.to_bytes(32, "big")
        return OpenActivation(
            name, 1, b"ak", Endorsement(bytes(32), name, 2**40), bytes(32), expires_at
        )

    activations = StoredActivations(bench.store, capacity=2)
    activations.put(opened(1, 100), 0)
    activations.put(opened(2, 200), 0)
    with pytest.raises(TooManyActivations) as refused:
        activations.put(opened(3, 300), 99)
    assert refused.value.until == 100
    activations.put(opened(3, 300), 100)
    assert activations.take(opened(1, 0).challenge_id) is None
    assert activations.take(opened(3, 0).challenge_id) == opened(3, 300)


def test_operator_without_roots_and_policies_says_so(tmp_path: Path, machine: Machine) -> None:
    bench = Bench.create(tmp_path)
    for ask in (
        lambda: bench.operator.enrol(machine.request()),
        lambda: bench.operator.renew_tpm(machine.renewal(bench.operator.challenge(REQUEST))),
    ):
        with pytest.raises(TpmNotConfigured):
            ask()
    assert bench.operator.wanted_tpm(1) is None


# Evidence


def test_what_is_wanted_of_the_tpm_comes_with_the_challenges(bench: Bench) -> None:
    wanted = bench.quorum.challenges(REQUEST).tpm
    assert wanted is not None
    assert (wanted.required, wanted.selection, wanted.event_log) == (True, "sha256:8,9", False)


def test_enclave_with_its_tpm_is_vouched_for_and_routable(bench: Bench, machine: Machine) -> None:
    assert bench.intake.node(1).reasons == ("tpm_missing",)
    enrol(bench, machine)
    challenge = bench.operator.challenge(REQUEST)
    bench.operator.examine(evidence(challenge, tpm=machine.evidence(challenge)))
    node = bench.intake.node(1)
    assert (node.routable, node.reasons) == (True, ())
    assert node.tpm_valid_until == node.routable_until == bench.now() + DAY


def test_examining_the_same_evidence_again_makes_the_verdict_no_younger(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    challenge = bench.operator.challenge(REQUEST)
    it = evidence(challenge, tpm=machine.evidence(challenge))
    bench.operator.examine(it)
    until = bench.intake.node(1).tpm_valid_until
    bench.ledger.time += 60
    bench.operator.examine(it)
    assert bench.intake.node(1).tpm_valid_until == until


def test_required_tpm_that_is_missing_is_named(bench: Bench) -> None:
    with pytest.raises(TpmEvidenceMissing):
        bench.operator.examine(evidence(bench.operator.challenge(REQUEST)))


def test_tpm_that_is_not_required_may_be_missing_but_not_wrong(
    tmp_path: Path, machine: Machine
) -> None:
    bench = Bench.create(tmp_path, tpms=judging(required=False))
    challenge = bench.operator.challenge(REQUEST)
    with pytest.raises(TpmNotEnrolled):
        bench.operator.examine(evidence(challenge, tpm=machine.evidence(challenge)))
    bench.operator.examine(evidence(challenge))
    assert bench.intake.node(1).routable


def test_operator_that_judges_no_tpm_vouches_for_the_enclave_alone(
    tmp_path: Path, machine: Machine
) -> None:
    bench = Bench.create(tmp_path)
    challenge = bench.operator.challenge(REQUEST)
    bench.operator.examine(evidence(challenge, tpm=machine.evidence(challenge)))
    node = bench.intake.node(1)
    assert (node.routable, node.tpm_valid_until, node.routable_until) == (True, None, node.expiry)


def test_machine_that_booted_something_else_is_refused(bench: Bench, machine: Machine) -> None:
    enrol(bench, machine)
    challenge = bench.operator.challenge(REQUEST)
    it = machine.evidence(challenge, pcrs={**PCRS, 9: keccak(text="rootkit")})
    with pytest.raises(PcrNotAllowed) as refused:
        bench.operator.examine(evidence(challenge, tpm=it))
    assert refused.value.pcr == 9
    assert bench.intake.node(1).reasons == ("tpm_missing",)


def test_machine_that_boots_something_else_later_stops_counting_at_once(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    renew(bench, machine)
    challenge = bench.operator.challenge(REQUEST)
    with pytest.raises(PcrNotAllowed):
        bench.operator.renew_tpm(machine.renewal(challenge, pcrs={**PCRS, 8: bytes(32)}))
    assert bench.intake.node(1).reasons == ("tpm_missing",)
    assert renew(bench, machine) == bench.now() + DAY
    # What its key did not sign for this challenge says nothing about the machine.
    forged = Machine(ek=machine.ek).renewal(challenge, pcrs={**PCRS, 8: bytes(32)})
    with pytest.raises(AttestationKeyNotEnrolled):
        bench.operator.renew_tpm(forged)
    assert bench.intake.node(1).routable


def test_quote_for_another_enclave_key_or_challenge_is_refused(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    challenge = bench.operator.challenge(REQUEST)
    for it in (
        machine.evidence(challenge, enclave=actor("other").address),
        machine.evidence(bench.operator.challenge(REQUEST)),
    ):
        with pytest.raises(TpmNonceMismatch):
            bench.operator.examine(evidence(challenge, tpm=it))


def test_node_without_a_model_gets_no_verdict(tmp_path: Path, machine: Machine) -> None:
    bench = Bench.create(tmp_path, tpms=judging(default_model=None))
    enrol(bench, machine)
    assert bench.operator.wanted_tpm(1) is None
    challenge = bench.operator.challenge(REQUEST)
    with pytest.raises(NodeUnassigned):
        bench.operator.renew_tpm(machine.renewal(challenge))


@pytest.mark.parametrize("fault", ["none", "missing", "shortened"])
def test_where_the_event_log_is_required_it_has_to_explain_the_pcrs(
    tmp_path: Path, machine: Machine, fault: str
) -> None:
    pcrs = {pcr: bytes(32) for pcr in (8, 9)}
    for event in BOOT:
        if event.pcr in pcrs:
            pcrs[event.pcr] = Bank.SHA256.digest(pcrs[event.pcr] + event.digest(Bank.SHA256))
    policy = PcrPolicy(
        model="edge", version=2, pcrs={pcr: frozenset([value]) for pcr, value in pcrs.items()}
    )
    bench = Bench.create(tmp_path, tpms=judging(policies=(policy,), event_log_required=True))
    enrol(bench, machine)
    challenge = bench.operator.challenge(REQUEST)
    log = {"none": agile_log(BOOT), "missing": None, "shortened": agile_log(BOOT[:3])}[fault]
    renewal = machine.renewal(challenge, pcrs=pcrs, log=log)
    if fault == "none":
        bench.operator.renew_tpm(renewal)
        assert bench.intake.node(1).routable
        return
    with pytest.raises(EventLogMissing if fault == "missing" else EventLogMismatch):
        bench.operator.renew_tpm(renewal)


# Renewal and routing


def test_tpm_evidence_ends_and_is_renewed_without_a_new_registration(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    renew(bench, machine)
    bench.ledger.time += DAY
    node = bench.intake.node(1)
    assert (node.valid, node.routable, node.reasons) == (True, False, ("tpm_expired",))
    assert node.routable_until is None
    assert renew(bench, machine) == bench.now() + DAY
    assert bench.intake.node(1).routable
    assert bench.ledger.sent == []


def renew(bench: Bench, machine: Machine) -> int:
    return bench.operator.renew_tpm(machine.renewal(bench.operator.challenge(REQUEST))).valid_until


def test_old_renewal_is_not_accepted_again_for_a_new_challenge(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    old = machine.renewal(bench.operator.challenge(REQUEST))
    bench.operator.renew_tpm(old)
    bench.ledger.time += CHALLENGE_TTL
    with pytest.raises(StaleChallenge):
        bench.operator.renew_tpm(old)
    fresh = bench.operator.challenge(REQUEST)
    replayed = old.model_copy(update={"challenges": (fresh.challenge,)})
    with pytest.raises(TpmNonceMismatch):
        bench.operator.renew_tpm(replayed)


def test_a_challenge_serves_one_tpm_quote_only(bench: Bench, machine: Machine) -> None:
    enrol(bench, machine)
    challenge = bench.operator.challenge(REQUEST)
    bench.operator.renew_tpm(machine.renewal(challenge))
    with pytest.raises(StaleChallenge, match="used for another quote"):
        bench.operator.renew_tpm(machine.renewal(challenge, clock=2_000))


def test_renewal_is_for_a_registered_enclave_key_of_the_node(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    stranger = actor("stranger").address
    challenge = bench.operator.challenge(ChallengeRequest(node_id=1, enclave_key=stranger))
    with pytest.raises(NodeUnknown, match="no such enclave key"):
        bench.operator.renew_tpm(machine.renewal(challenge, enclave=stranger))


def test_revoked_forgotten_or_replaced_the_tpm_stops_counting_at_once(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    renew(bench, machine)
    other = PcrPolicy(model="edge", version=2, pcrs={8: frozenset([bytes(32)])})
    for tpms, reason in [
        (judging(revoked=frozenset([key_digest(machine)])), "tpm_key_revoked"),
        (
            judging(nodes={1: NodeTpm(model="edge", ek_key_digest=bytes(32))}),
            "tpm_key_revoked",
        ),
        (judging(policies=(other,)), "tpm_policy_replaced"),
        (judging(default_model=None), "tpm_policy_replaced"),
    ]:
        bench.tpms = tpms
        bench.restart()
        assert bench.intake.node(1).reasons == (reason,)
    bench.tpms = judging()
    bench.restart()
    assert bench.intake.node(1).routable
    forget_tpm(bench.store, 1)
    assert bench.intake.node(1).reasons == ("tpm_missing",)


def test_key_whose_endorsement_has_ended_counts_no_longer(bench: Bench, machine: Machine) -> None:
    short = machine.request(
        ek_certificate=VENDOR.certify(machine.ek.parsed().key, until=START + DAY)
    )
    bench.operator.activate(machine.answers(bench.operator.enrol(short)))
    bench.ledger.time = START + DAY
    with pytest.raises(EnrolmentExpired):
        renew(bench, machine)


def test_revoked_enclave_is_not_routable_whatever_the_tpm_says(
    bench: Bench, machine: Machine
) -> None:
    enrol(bench, machine)
    renew(bench, machine)
    bench.ledger.mine(lambda chain: chain.revoke(ENCLAVE))
    bench.finalize()
    node = bench.intake.node(1)
    assert (node.valid, node.routable, node.reasons) == (False, False, ("enclave_revoked",))


# Three operators, over HTTP


@dataclass
class Committee:
    """A relaying operator and its peers, each with the API and the store of its own."""

    bench: Bench
    client: OracleClient
    peers: list[Bench]


@pytest.fixture
def committee(tmp_path: Path) -> Committee:
    bench = Bench.create(tmp_path, tpms=judging())
    names = ["operator 1", "operator 2"]
    bench.ledger.seat(*(actor(name).address for name in ["operator", *names]), threshold=2)
    peers, clients = [], []
    for name in names:
        (tmp_path / name).mkdir()
        peer = Bench(bench.ledger, _migrated(tmp_path / name), bench.chain, tpms=judging())
        peer.operator = peer.operator_of(name, peer.store)
        peer.watch()
        http = TestClient(create_app(peer.service(relay=False)))
        peers.append(peer)
        clients.append(PeerClient("http://testserver", transport=http._transport, token=TOKEN))
    bench.peers = tuple(clients)
    bench.restart()
    http = TestClient(create_app(bench.service()))
    return Committee(bench, OracleClient("http://testserver", transport=http._transport), peers)


def _migrated(directory: Path) -> Store:
    store = Store(f"sqlite:///{directory / 'oracle.db'}")
    store.migrate()
    return store


def test_each_operator_enrols_and_verifies_for_itself(
    committee: Committee, machine: Machine
) -> None:
    client, everybody = committee.client, [committee.bench, *committee.peers]
    offered = client.enrol_tpm(machine.request())
    assert (len(offered.activations), offered.refusals) == (3, {})
    status = client.activate_tpm(machine.answers(*offered.activations))
    assert status.refusals == {}
    challenges = client.create_challenge(1, actor("new").address)
    it = evidence(
        challenges,
        enclave="new",
        tpm=machine.evidence(challenges, enclave=actor("new").address),
    )
    digest = client.submit_attestation(it).digest
    committee.bench.rounds()
    assert client.attestation(digest).status is Status.SETTLED
    for operator in everybody:
        operator.watch()
        node = next(n for n in operator.intake.nodes() if n.enclave_key == actor("new").address)
        assert (node.routable, node.reasons) == (True, ())


def test_peer_that_did_not_enrol_is_named_and_signs_nothing(
    committee: Committee, machine: Machine
) -> None:
    client, (_, second) = committee.client, committee.peers
    offered = client.enrol_tpm(machine.request())
    second.operator.activate(machine.answers(*offered.activations))
    forget_tpm(second.store, 1)
    status = client.activate_tpm(machine.answers(*offered.activations))
    last = to_hex(offered.activations[-1].challenge_id)
    assert list(status.refusals.values()) == [
        "ActivationUnknown: the oracle refused (ActivationUnknown): "
        f"no open activation {last}; start the enrolment again"
    ]
    challenges = client.create_challenge(1, ENCLAVE)
    renewed = client.renew_tpm(machine.renewal(challenges))
    assert len(renewed.refusals) == 1
    assert next(iter(renewed.refusals.values())).startswith("TpmNotEnrolled")
    assert committee.peers[0].intake.node(1).routable
    assert second.intake.node(1).reasons == ("tpm_missing",)


@pytest.mark.parametrize("lie", ["down", "garbage", "another node"])
def test_lying_or_dead_peer_keeps_nobody_from_enrolling_at_the_others(
    committee: Committee, machine: Machine, lie: str
) -> None:
    bench, (_, second) = committee.bench, committee.peers

    def answer(request: httpx.Request) -> httpx.Response:
        if lie == "down" or not request.url.path.endswith("enrolments"):
            raise httpx.ConnectError("connection refused")
        if lie == "garbage":
            return httpx.Response(201, text='{"challenge_id": "yes"}')
        # It hands on the request, with another node's id: the activation is for that one.
        body = EnrolmentRequest.model_validate_json(request.content)
        other = second.operator.enrol(body.model_copy(update={"node_id": 2}))
        return httpx.Response(201, text=other.model_dump_json())

    liar = PeerClient("http://liar.test", transport=httpx.MockTransport(answer), token="x")
    bench.peers = (bench.peers[0], liar)
    bench.restart()
    client = OracleClient(
        "http://testserver", transport=TestClient(create_app(bench.service()))._transport
    )
    offered = client.enrol_tpm(machine.request())
    if lie == "another node":
        assert len(offered.activations) == 3
        with pytest.raises(CredentialMismatch):
            second.operator.activate(machine.answers(*offered.activations))
        with second.store.read() as session:
            assert session.scalars(select(TpmKeyRow)).all() == []
    else:
        assert list(offered.refusals) == ["http://liar.test"]
        assert next(iter(offered.refusals.values())).startswith("OracleUnavailable")
    client.activate_tpm(machine.answers(*offered.activations))
    client.renew_tpm(machine.renewal(client.create_challenge(1, ENCLAVE)))
    assert client.node(1).routable
    assert committee.peers[0].intake.node(1).routable


@pytest.mark.parametrize("path", ["tpm", "tpm/enrolments", "tpm/activations"])
def test_committee_routes_need_the_operators_token(bench: Bench, path: str) -> None:
    with TestClient(create_app(bench.service())) as http:
        answer = http.post(f"/v1/committee/{path}", json={})
    assert (answer.status_code, answer.json()["code"]) == (401, "PeerTokenRefused")


def test_refusals_come_as_problems_by_name(bench: Bench, machine: Machine) -> None:
    with TestClient(create_app(bench.service())) as http:
        client = OracleClient("http://testserver", transport=http._transport)
        stranger = EndorsementCa.create(START - DAY)
        with pytest.raises(OracleRefused) as caught:
            client.enrol_tpm(machine.request(stranger))
        assert (caught.value.code, caught.value.status) == ("EndorsementCertificateRefused", 422)
        assert caught.value.data["part"] == "chain"
        with pytest.raises(OracleRefused) as caught:
            client.renew_tpm(machine.renewal(client.create_challenge(1, ENCLAVE)))
        assert (caught.value.code, caught.value.status) == ("TpmNotEnrolled", 422)


def test_evidence_may_be_as_long_as_an_event_log_and_no_longer(bench: Bench) -> None:
    with TestClient(create_app(bench.service())) as http:
        head = {"content-type": "application/json"}
        answer = http.post("/v1/attestations/tpm", content=b" " * (MAX_BODY + 1), headers=head)
        assert answer.json()["code"] == "MalformedRequest"
        answer = http.post("/v1/attestations/tpm", content=b" " * (MAX_EVIDENCE + 1), headers=head)
        assert (answer.json()["code"], answer.json()["limit"]) == ("BodyTooLarge", MAX_EVIDENCE)
