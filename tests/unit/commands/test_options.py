"""What commands take as amounts, times, addresses and words, and what every error tells."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oracle.commands.failures import next_step
from oracle.commands.options import parse_time
from oracle.commands.rapha import app
from settlement.errors import InvalidInput
from settlement.reverts import ContractReverted, Revert


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output


def quote(price: str, *more: str) -> tuple[int, str]:
    return run("quote", "--records", "3", "--epochs", "0", "--price-per-record", price, *more)


def test_amount_is_counted_in_base_units() -> None:
    status, output = quote("0.000001", "--json")
    assert (status, json.loads(output)["cost"]) == (0, 3)


@pytest.mark.parametrize("text", ["0.0000001", "1e3", "-1", "1,000", "", "0.5.0", "½"])
def test_amount_that_would_be_rounded_or_guessed_is_refused(text: str) -> None:
    status, output = quote(text)
    assert status == 2
    assert "is not an amount of USDC: write it like 12.50" in output


def test_budget_that_is_too_small_is_a_no() -> None:
    status, output = quote("10", "--budget", "29.999999", "--json")
    assert (status, json.loads(output)) == (
        1,
        {"cost": 30_000_000, "budget": 29_999_999, "enough": False},
    )


def test_quote_beyond_what_a_job_can_hold_is_refused() -> None:
    status, output = quote("70000000")
    assert (status, json.loads(output)["code"]) == (2, "InvalidInput")


def test_time_is_a_span_a_date_or_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000.9)
    assert parse_time("+2d") == 1_000 + 2 * 86_400
    assert parse_time("1970-01-01T01:00+01:00") == 0
    assert parse_time("1800000000") == 1_800_000_000


@pytest.mark.parametrize("text", ["tomorrow", "2027-01-31T12:00", "+1w", "-5", "1.5"])
def test_time_that_could_be_another_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time"):
        parse_time(text)


def test_mistyped_address_is_refused() -> None:
    address = "0x5B38Da6a701c568545dCfcB03FcB875f56beddC5"  # its last digit is another
    status, output = run("balance", address, "--rpc", "http://127.0.0.1:1", "--deployment", "none")
    assert status == 2
    assert "does not match its EIP-55 checksum" in output


def test_file_that_holds_no_terms_is_named(tmp_path: Path) -> None:
    path = tmp_path / "terms.json"
    path.write_text('{"payer": 1}')
    record = tmp_path / "none.json"
    status, output = run("job", "show", str(path), "--rpc", "x", "--deployment", str(record))
    assert (status, json.loads(output)["code"]) == (2, "InvalidInput")


def test_every_refusal_that_a_command_can_meet_says_what_to_do() -> None:
    general = {"the same call cannot succeed", "try again later"}
    vague = {
        revert.name for revert in Revert if next_step(ContractReverted(revert.value)) in general
    }
    # no command creates contracts, moves a node's token, rotates a treasury or governs
    creation = {
        *("VAULT_ARBITRATION_OUT_OF_RANGE", "VAULT_GRACE_OUT_OF_RANGE", "VAULT_NOT_A_CONTRACT"),
        *("VAULT_WINDOW_OUT_OF_RANGE", "VAULT_NODE_REGISTRY_SERVES_ANOTHER_VAULT"),
        "NODES_VAULT_IS_ZERO",
    }
    treasury = {"NODES_CALLER_IS_NOT_PROPOSED", "NODES_CALLER_IS_NOT_THE_HOSPITAL"}
    governing = {
        *("VAULT_ARBITER_IS_ZERO", "VAULT_CALLER_IS_NOT_REGISTRY", "VAULT_NOT_PAUSED"),
        *("VAULT_PAUSED_TOO_RECENTLY", "NODES_NODE_IS_RETIRED"),
        *("NODES_HOSPITAL_SHARE_TOO_LOW", "NODES_PROTOCOL_SHARE_TOO_HIGH"),
    }
    token = {name for name in Revert.__members__ if name.startswith(("ERC721", "ECDSA"))}
    assert vague == creation | treasury | governing | token


def test_shells_complete_the_commands() -> None:
    asked = {"_RAPHA_COMPLETE": "complete_bash", "COMP_WORDS": "rapha job re", "COMP_CWORD": "2"}
    result = CliRunner().invoke(app, [], env=asked, prog_name="rapha")
    assert (result.exit_code, result.stdout.split()) == (0, ["refund"])


def test_help_documents_the_exit_codes() -> None:
    status, output = run("--help")
    assert status == 0
    assert "2 could not be told" in " ".join(output.split())
