"""The hospital's node with a real TPM: its keys, its certificate, its quotes, and its failures."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from endorsement import EndorsementCa, der
from eth_utils import keccak
from structlog.testing import capture_logs
from swtpm import NOW, Swtpm, emulated_tpm
from typer.testing import CliRunner

from oracle.attestation.errors import EndorsementCertificateRefused
from oracle.attestation.tpm.endorsement import EndorsementRoots
from oracle.attestation.tpm.enrolment import Enrolment, MemoryActivations
from oracle.attestation.tpm.quote import verify_quote
from oracle.attestation.tpm.structures import Bank, parse_public
from oracle.client import (
    Activation,
    ActivationSet,
    ChallengeSet,
    OracleRefused,
    OracleUnavailable,
    TpmStatus,
    TpmWanted,
    activation_proof,
)
from oracle.clients.edge import cli
from oracle.clients.edge.machine import RETRY_SECONDS, Machine
from oracle.clients.edge.tpm import Tpm, TpmFailed, TpmFiles, TpmRequestRefused, TpmToolsMissing
from settlement.deployment import Deployment

NO_FILES = TpmFiles()
NONCE = keccak(text="nonce")
WANTED = TpmWanted(required=True, selection="sha256:8,9", event_log=False)


@pytest.fixture(scope="module")
def ca() -> EndorsementCa:
    return EndorsementCa.create(NOW)


def certified(tpm: Swtpm, ca: EndorsementCa, folder: Path, algorithm: str = "ecc") -> TpmFiles:
    """The endorsement of a TPM as files."""
    folder.mkdir(exist_ok=True)
    certificate, chain = folder / "ek.der", folder / "chain.pem"
    public = parse_public(tpm.create_ek(algorithm).public)
    certificate.write_bytes(ca.certify(public.key))
    chain.write_bytes(ca.issuer.public_bytes(Encoding.PEM))
    return TpmFiles(certificate=certificate, intermediates=chain)


def client(tpm: Swtpm, directory: Path, files: TpmFiles = NO_FILES, **options: str) -> Tpm:
    return Tpm(directory, f"swtpm:path={tpm._directory / 'tpm'}", files=files, **options)


@pytest.mark.parametrize("algorithm", ["ecc", "rsa"])
def test_keys_are_enrolled_and_quote(
    tpm: Swtpm, ca: EndorsementCa, tmp_path: Path, algorithm: str
) -> None:
    files = certified(tpm, ca, tmp_path / "files", algorithm)
    enrolment = Enrolment(EndorsementRoots([der(ca.root)]), MemoryActivations(), ttl=300)
    with client(tpm, tmp_path / "state", files, algorithm=algorithm).session() as session:
        activation = enrolment.begin(session.request(7), NOW)
        secret = session.open(activation)
        evidence = session.evidence(NONCE, WANTED)
    proof = activation_proof(secret, challenge_id=activation.challenge_id, node_id=7)
    answer = SimpleNamespace(challenge_id=activation.challenge_id, proof=proof)
    enrolled = enrolment.finish(answer, NOW)
    verified = verify_quote(
        evidence.quote,
        ak_name=enrolled.ak_name,
        nonce=NONCE,
        selection={Bank.SHA256: frozenset({8, 9})},
    )
    assert set(verified.pcrs[Bank.SHA256]) == {8, 9}
    assert evidence.event_log is None


def test_key_stays_the_same_through_sessions_and_a_reboot(tmp_path: Path) -> None:
    with emulated_tpm() as own:
        first = _ak(client(own, tmp_path))
        assert _ak(client(own, tmp_path)) == first
        own.reboot()
        assert _ak(client(own, tmp_path)) == first


def test_with_another_tpm_there_is_another_key(
    tpm: Swtpm, other_tpm: Swtpm, tmp_path: Path
) -> None:
    first = _ak(client(tpm, tmp_path))
    second = _ak(client(other_tpm, tmp_path))
    assert first != second
    assert _ak(client(other_tpm, tmp_path)) == second


def _ak(tpm: Tpm) -> bytes:
    with tpm.session() as session:
        return session.ak_public


def test_many_sessions_leave_nothing_in_the_tpm(tpm: Swtpm, tmp_path: Path) -> None:
    own = client(tpm, tmp_path)
    for _ in range(5):  # a TPM has three slots for keys
        with own.session() as session:
            session.evidence(NONCE, WANTED)
    assert tpm.run("tpm2_getcap", "handles-transient") == ""


def test_certificate_is_read_from_the_tpms_own_memory(ca: EndorsementCa, tmp_path: Path) -> None:
    with emulated_tpm() as own:
        certificate = ca.certify(parse_public(own.create_ek("ecc").public).key)
        padded = certificate + b"\xff" * 32
        own.write("certificate", padded)
        own.run("tpm2_nvdefine", "0x01c0000a", "-C", "o", "-s", str(len(padded)),
                "-a", "ownerread|ownerwrite|authread|authwrite")  # fmt: skip
        own.run("tpm2_nvwrite", "0x01c0000a", "-C", "o", "-i", "certificate")
        with client(own, tmp_path).session() as session:
            assert session.request(7).ek_certificate == certificate


def test_event_log_comes_along_where_it_is_wanted(tpm: Swtpm, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"what was measured")
    own = client(tpm, tmp_path, TpmFiles(event_log=log))
    wanted = WANTED.model_copy(update={"event_log": True})
    with own.session() as session:
        assert session.evidence(NONCE, wanted).event_log == b"what was measured"
        log.unlink()
        with pytest.raises(TpmFailed, match="No such file"):
            session.evidence(NONCE, wanted)


@pytest.mark.parametrize(
    "selection", ["sha1:8", "sha256:24", "sha256:", "sha256:8+sha384:8", "-o/etc/passwd", ""]
)
def test_selection_that_is_none_is_refused_before_the_tpm_sees_it(
    tpm: Swtpm, tmp_path: Path, selection: str
) -> None:
    with client(tpm, tmp_path).session() as session, pytest.raises(TpmRequestRefused):
        session.evidence(NONCE, WANTED.model_copy(update={"selection": selection}))


def test_absent_tpm_and_damaged_files_are_named_without_their_content(
    tpm: Swtpm, tmp_path: Path
) -> None:
    with pytest.raises(TpmFailed) as absent, Tpm(tmp_path, "swtpm:path=/nowhere").session():
        pass
    assert (absent.value.tool, absent.value.final) == ("tpm2_createek", False)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"secret stuff")
    for files in (TpmFiles(certificate=damaged), TpmFiles(intermediates=damaged)):
        with client(tpm, tmp_path, files).session() as session, pytest.raises(TpmFailed) as bad:
            session.request(7)
        assert "secret" not in str(bad.value)


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TpmToolsMissing) as missing:
        Tpm(tmp_path, "device:/dev/tpmrm0")
    assert missing.value.tool == "tpm2_createek"


class Operators:
    """Two operators on the other side of a wire that can be cut; each enrols for itself."""

    def __init__(self, ca: EndorsementCa) -> None:
        roots = EndorsementRoots([der(ca.root)])
        self.enrolments = [Enrolment(roots, MemoryActivations(), ttl=300) for _ in range(2)]
        self.enrolled = [0, 0]
        self.wanted: TpmWanted | None = WANTED
        self.refuse: list[Exception] = []
        self.refusals: dict[str, str] = {}
        self.lie: Activation | None = None
        self.renewals = 0

    def create_challenge(self, node_id: int, enclave_key: str) -> ChallengeSet:
        return ChallengeSet(challenges=(NONCE,), nonce=NONCE, expires_at=NOW, tpm=self.wanted)

    def enrol_tpm(self, request):
        made = [enrolment.begin(request, NOW) for enrolment in self.enrolments]
        if self.lie is not None:
            made[1] = self.lie
        return ActivationSet(activations=tuple(made), refusals={})

    def activate_tpm(self, answers):
        known = {answer.challenge_id: answer for answer in answers.answers}
        for index, enrolment in enumerate(self.enrolments):
            for answer in known.values():
                if answer.challenge_id in enrolment._activations._open:
                    enrolment.finish(answer, NOW)
                    self.enrolled[index] += 1
        return TpmStatus(node_id=7, valid_until=NOW + 10**6, refusals=self.refusals)

    def renew_tpm(self, renewal):
        if self.refuse:
            raise self.refuse.pop(0)
        self.renewals += 1
        return TpmStatus(node_id=7, valid_until=NOW + 86_400, refusals=self.refusals)


@pytest.fixture
def operators(ca: EndorsementCa) -> Operators:
    return Operators(ca)


@pytest.fixture
def now() -> list[int]:
    return [NOW]


@pytest.fixture
def machine(
    tpm: Swtpm, ca: EndorsementCa, tmp_path: Path, operators: Operators, now: list[int]
) -> Machine:
    return Machine(
        tpm=client(tpm, tmp_path / "state", certified(tpm, ca, tmp_path / "files")),
        oracle=operators,
        deployment=Deployment(
            chain_id=31337,
            block=0,
            vault="0x" + "11" * 20,
            node_registry="0x" + "22" * 20,
            enclave_registry="0x" + "33" * 20,
            timelock="0x" + "44" * 20,
            usdc="0x" + "55" * 20,
            grace_period=3600,
        ),
        node_id=7,
        enclave_key="0x" + "66" * 20,
        margin=3_600,
        clock=lambda: now[0],
    )


def test_machine_enrols_once_and_renews_before_the_verdict_ends(
    machine: Machine, operators: Operators, now: list[int]
) -> None:
    machine.keep_fresh()
    machine.keep_fresh()
    assert (operators.enrolled, operators.renewals) == ([1, 1], 1)
    now[0] += 86_400 - 3_601
    machine.keep_fresh()
    assert operators.renewals == 1
    now[0] += 1
    machine.keep_fresh()
    assert (operators.enrolled, operators.renewals) == ([1, 1], 2)


def test_operator_that_forgot_the_key_gets_it_again_at_once(
    machine: Machine, operators: Operators
) -> None:
    refused = OracleRefused("TpmNotEnrolled", 422, "enrol it first", final=True, data={})
    operators.refuse = [refused]
    machine.keep_fresh()
    assert (operators.enrolled, operators.renewals) == ([2, 2], 1)


def test_peer_that_lacks_the_key_gets_it_with_the_next_try(
    machine: Machine, operators: Operators, now: list[int]
) -> None:
    operators.refusals = {"http://peer": "TpmNotEnrolled: no", "http://other": "TpmNotConfigured: "}
    with capture_logs() as logs:
        machine.keep_fresh()
    assert [e["codes"] for e in logs if e["event"] == "tpm_not_verified_by_all"] == [
        ["TpmNotEnrolled"]
    ]
    operators.refusals = {"http://other": "TpmNotConfigured: "}
    now[0] += RETRY_SECONDS
    machine.keep_fresh()
    assert (operators.enrolled, operators.renewals) == ([2, 2], 2)
    now[0] += RETRY_SECONDS
    machine.keep_fresh()
    assert operators.renewals == 2


@pytest.mark.parametrize(
    "error",
    [
        OracleRefused("PcrNotAllowed", 422, "0xabcdef in PCR 9", final=True, data={}),
        OracleUnavailable("http://oracle", "down"),
    ],
)
def test_refused_renewal_is_logged_by_name_and_tried_again_later(
    machine: Machine, operators: Operators, now: list[int], error: Exception
) -> None:
    operators.refuse = [error]
    with capture_logs() as logs:
        machine.keep_fresh()
        machine.keep_fresh()
    told = [entry for entry in logs if entry["event"] == "tpm_not_renewed"]
    assert [entry["code"] for entry in told] == [error.code]
    assert "0xabcdef" not in str(logs)
    now[0] += RETRY_SECONDS
    machine.keep_fresh()
    assert operators.renewals == 1


def test_bad_activation_of_one_operator_keeps_the_other_from_nothing(
    machine: Machine, operators: Operators
) -> None:
    operators.lie = Activation(
        challenge_id=bytes(32),
        credential_blob=bytes(50),
        encrypted_secret=bytes(70),
        expires_at=NOW,
    )
    with capture_logs() as logs:
        machine.keep_fresh()
    assert operators.enrolled == [1, 0]
    assert "tpm_activation_failed" in {entry["event"] for entry in logs}


def test_oracle_that_wants_no_tpm_is_left_alone(
    machine: Machine, operators: Operators, now: list[int]
) -> None:
    operators.wanted = None
    machine.keep_fresh()
    operators.wanted = WANTED
    now[0] += RETRY_SECONDS
    machine.keep_fresh()
    assert operators.renewals == 0
    now[0] += 3_600
    machine.keep_fresh()
    assert operators.renewals == 1


def test_nothing_that_tells_which_tpm_it_is_is_logged(
    machine: Machine, operators: Operators, ca: EndorsementCa
) -> None:
    with capture_logs() as logs:
        machine.keep_fresh()
        with machine._tpm.session() as session:
            request = session.request(7)
    assert {entry["event"] for entry in logs} == {"tpm_enrolled", "tpm_verified"}
    text = str(logs)
    for secret in (request.ek_public, request.ak_public, request.ek_certificate):
        assert secret.hex() not in text
    assert parse_public(request.ak_public).name.hex() not in text


def test_refusal_of_a_chain_does_not_name_the_certificate(ca: EndorsementCa) -> None:
    with ExitStack() as stack:
        tpm = stack.enter_context(emulated_tpm())
        public = parse_public(tpm.create_ek("ecc").public)
        certificate = ca.certify(public.key)
        with pytest.raises(EndorsementCertificateRefused) as refused:
            EndorsementRoots([der(EndorsementCa.create(NOW).root)]).verify(
                certificate, [der(ca.issuer)], public, NOW
            )
    assert "Certificate" not in refused.value.reason
    assert str(x509.load_der_x509_certificate(certificate).serial_number) not in str(refused.value)


@pytest.fixture
def environment(
    tpm: Swtpm, ca: EndorsementCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TpmFiles:
    files = certified(tpm, ca, tmp_path / "files")
    settings = {
        "NODE_ID": "7",
        "ORACLE_URL": "http://oracle",
        "HUB_URL": "http://hub",
        "HUB_KEY_FILE": str(tmp_path / "key"),
        "DEPLOYMENT_FILE": str(tmp_path / "deployment.json"),
        "STATE_DIR": str(tmp_path / "state"),
        "PLATFORM_DIR": str(tmp_path / "platform"),
        "PRICE_PER_RECORD": "1",
        "PRICE_PER_EPOCH": "1",
        "TPM_TCTI": f"swtpm:path={tpm._directory / 'tpm'}",
        "TPM_CERTIFICATE_FILE": str(files.certificate),
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"RAPHA_EDGE_{name}", value)
    return files


def test_command_line_shows_what_operators_pin(
    environment: TpmFiles, ca: EndorsementCa, tpm: Swtpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(cli.app, ["tpm", "--json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    endorsement = EndorsementRoots([der(ca.root)]).verify(
        environment.certificate.read_bytes(),
        [der(ca.issuer)],
        parse_public(tpm.create_ek("ecc").public),
        NOW,
    )
    assert shown["ek_key_digest"] == "0x" + endorsement.key_digest.hex()
    assert shown["pcrs"] == {"sha256": {"8": "0x" + "00" * 32, "9": "0x" + "00" * 32}}
    lines = CliRunner().invoke(cli.app, ["tpm", "--pcrs", "sha256:8"]).stdout.splitlines()
    assert lines[1] == "sha256 8: 0x" + "00" * 32
    refused = CliRunner().invoke(cli.app, ["tpm", "--pcrs", "sha1:8"])
    assert (refused.exit_code, refused.stderr.split(":")[0]) == (1, "TpmRequestRefused")
    monkeypatch.delenv("RAPHA_EDGE_TPM_TCTI")
    absent = CliRunner().invoke(cli.app, ["tpm"])
    assert (absent.exit_code, absent.stderr) == (2, "RAPHA_EDGE_TPM_TCTI: names no TPM\n")
