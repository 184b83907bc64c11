"""`rapha attest` shows and checks a quote, for a person and for a program."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from oracle.attestation.cli import app, main
from oracle.attestation.errors import QuoteMalformed
from oracle.attestation.policy import TcbAllowance, TcbPolicy
from oracle.clients.edge.devplatform import DevPlatform
from settlement.errors import InvalidInput


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


@pytest.fixture
def files(platform: DevPlatform, dev_quote: bytes, tmp_path: Path) -> Path:
    (tmp_path / "quote").write_bytes(dev_quote)
    (tmp_path / "collateral").write_text(platform.collateral_json())
    (tmp_path / "root").write_bytes(platform.root_der)
    return tmp_path


def verify(files: Path, now: int, *more: object) -> Result:
    return run(
        "verify",
        files / "quote",
        "--collateral",
        files / "collateral",
        "--dev-root",
        files / "root",
        "--chain-id",
        31337,
        "--at",
        now,
        *more,
    )


def test_show_prints_each_field(files: Path) -> None:
    result = run("show", files / "quote")
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    shown = next(line.split(maxsplit=3) for line in lines if "MRENCLAVE" in line)
    assert shown == [
        "112",
        "MRENCLAVE",
        f"0x{bytes(range(32)).hex()}",
        "the enclave's code and data as loaded: its measurement",
    ]
    assert lines[-2] == f"measurement         0x{bytes(range(32)).hex()}"
    assert lines[-1].startswith("attestation digest  0x")


def test_show_gives_json(files: Path, dev_quote: bytes) -> None:
    document = json.loads(run("show", files / "quote", "--json").stdout)
    assert document["measurement"] == f"0x{bytes(range(32)).hex()}"
    assert document["simulated"] is True
    assert sum(field["size"] for field in document["fields"]) == len(dev_quote)


@pytest.mark.parametrize("form", ["0x{}", "{}\n", "{}"])
def test_quote_may_be_hex(files: Path, dev_quote: bytes, form: str) -> None:
    (files / "hex").write_text(form.format(dev_quote.hex()))
    assert run("show", files / "hex").stdout == run("show", files / "quote").stdout


def test_quote_may_come_from_input(files: Path, dev_quote: bytes) -> None:
    assert run("show", "-", input=dev_quote).stdout == run("show", files / "quote").stdout


def test_accepted_quote_ends_with_zero(files: Path, now: int) -> None:
    result = verify(files, now)
    assert result.exit_code == 0
    assert "pass  verdict" in result.stdout
    assert "fail" not in result.stdout


def test_refused_quote_ends_with_one_and_says_why(
    files: Path, platform: DevPlatform, now: int
) -> None:
    behind = platform.with_collateral(now, tcb_status="OutOfDate", advisories=("INTEL-SA-00615",))
    (files / "collateral").write_text(behind.collateral_json())
    result = verify(files, now)
    assert result.exit_code == 1
    assert "TcbRefused: the policy does not allow TCB status OutOfDate (INTEL-SA-00615)" in (
        result.stdout
    )


def test_policy_comes_from_a_file(files: Path, platform: DevPlatform, now: int) -> None:
    behind = platform.with_collateral(now, tcb_status="OutOfDate")
    (files / "collateral").write_text(behind.collateral_json())
    allowance = TcbAllowance(status="OutOfDate", advisories=frozenset(), until=now + 1)
    (files / "policy").write_text(TcbPolicy(allowances=(allowance,)).model_dump_json())
    assert verify(files, now, "--policy", files / "policy").exit_code == 0
    (files / "policy").write_text('{"allowances": 1}')
    result = verify(files, now, "--policy", files / "policy")
    assert isinstance(result.exception, InvalidInput)
    assert str(result.exception).endswith("is not a TCB policy: invalid allowances")


def test_verify_gives_json(files: Path, now: int) -> None:
    document = json.loads(verify(files, now, "--json").stdout)
    assert document["accepted"] is True
    assert document["verified"]["tcb_status"] == "UpToDate"


def test_development_root_is_not_taken_by_default(files: Path, now: int) -> None:
    result = run(
        "verify", files / "quote", "--collateral", files / "collateral", "--dev-root",
        files / "root", "--at", now,
    )  # fmt: skip
    assert result.exit_code == 1
    assert str(result.exception) == "chain 137 accepts no development root; remove it"


def test_no_quote_is_refused(files: Path) -> None:
    (files / "quote").write_text("no quote")
    assert isinstance(run("show", files / "quote").exception, QuoteMalformed)


@pytest.mark.parametrize(("name", "reason"), [("nothing", "No such file"), ("big", "more than")])
def test_file_that_cannot_be_a_quote_is_named(files: Path, name: str, reason: str) -> None:
    (files / "big").write_bytes(bytes((1 << 20) + 1))
    result = run("show", files / name)
    assert isinstance(result.exception, InvalidInput)
    assert reason in str(result.exception)


def test_console_script_turns_a_refusal_into_a_line(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["rapha", "attest", "show", str(files / "nothing")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    line = json.loads(capsys.readouterr().err)
    assert line["code"] == "InvalidInput"
    assert line["detail"].endswith("No such file or directory")


def test_console_script_shows_a_quote(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["rapha", "attest", "show", str(files / "quote"), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "sgx"


PUBLIC_PROOF = (
    Path(__file__).parents[2] / "vectors" / "attestation" / "reclaim" / "rust_sdk_valid.json"
)
PROVEN_AT = 1_728_288_586


def test_public_identity_proof_counts_by_the_built_in_settings() -> None:
    result = run("identity", PUBLIC_PROOF, "--at", PROVEN_AT + 3600, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["accepted"] is True
    assert report["checked"] == ["attestors", "template", "age"]
    assert (report["site"], report["template"]) == ("kaggle.com", "kaggle-user")
    assert (report["purpose"], report["issued_at"]) == ("Example context message", PROVEN_AT)
    assert "providerreclaim" not in result.stdout
    assert "kaggle-user" in run("identity", PUBLIC_PROOF, "--at", PROVEN_AT).stdout


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--at", PROVEN_AT + 3601), "ProofExpired"),
        (("--at", PROVEN_AT - 61), "ProofFromFuture"),
        (("--at", PROVEN_AT, "--wallet", "0x" + "11" * 20), "WalletMismatch"),
        (("--at", PROVEN_AT, "--purpose", "rapha"), "PurposeMismatch"),
    ],
)
def test_identity_proof_that_does_not_count_is_named_with_exit_code_1(
    options: tuple[object, ...], code: str
) -> None:
    result = run("identity", PUBLIC_PROOF, *options, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["accepted"], report["code"], report["site"]) == (False, code, None)


def test_identity_proof_is_judged_by_the_operators_own_settings(tmp_path: Path) -> None:
    settings = tmp_path / "identity.json"
    settings.write_text(json.dumps({"attestors": ["0x" + "11" * 20]}))
    result = run(
        "identity", "-", "--settings", settings, "--at", PROVEN_AT, "--json",
        input=PUBLIC_PROOF.read_bytes(),
    )  # fmt: skip
    assert json.loads(result.stdout)["code"] == "AttestorUnknown"
    settings.write_text('{"attestors": []}')
    with pytest.raises(InvalidInput, match="attestors: Tuple should have at least 1 item"):
        run("identity", PUBLIC_PROOF, "--settings", settings, catch_exceptions=False)
    with pytest.raises(InvalidInput, match="not a wallet's address"):
        run("identity", PUBLIC_PROOF, "--wallet", "me", catch_exceptions=False)
