"""`rapha` as a person runs it, on a real chain."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anvil import Chain, key
from eth_account import Account
from typer.testing import CliRunner, Result

from oracle.commands.rapha import app
from settlement.models import JobTerms


@dataclass
class Shell:
    """A folder with a deployment record, and the commands with it."""

    chain: Chain
    folder: Path

    def __post_init__(self) -> None:
        self.record = self.folder / "deployment.json"
        self.record.write_text(self.chain.deployment.model_dump_json())
        self.password = self.folder / "password"
        self.password.write_text("open sesame")

    @property
    def rpc(self) -> str:
        """The chain's endpoint."""
        return str(self.chain.w3.provider.endpoint_uri)  # type: ignore[attr-defined]

    def terms(self, **changes: Any) -> Path:
        """A file with the terms of a job."""
        return self.write("terms.json", self.chain.terms(**changes))

    def write(self, name: str, model: Any) -> Path:
        """A file with a model."""
        path = self.folder / name
        path.write_text(model.model_dump_json())
        return path

    def signed(self, name: str) -> list[str]:
        """The options by which a role signs."""
        self.chain.actor(name)
        path = self.folder / f"{name}.keystore"
        if not path.exists():
            sealed = Account.encrypt(key(name).key, "open sesame", kdf="pbkdf2", iterations=1)
            path.write_text(json.dumps(sealed))
        return ["--keystore", str(path), "--password-file", str(self.password)]

    def run(self, *arguments: object, by: str | None = None) -> Result:
        """Run one command with the chain's options, and a role's signature where one is named."""
        words = [str(argument) for argument in arguments]
        words += ["--rpc", self.rpc, "--deployment", str(self.record)]
        return self.bare(*words, *(self.signed(by) if by else []))

    def bare(self, *arguments: object) -> Result:
        """Run one command with these options only."""
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def told(self, *arguments: object, by: str | None = None) -> dict[str, Any]:
        """What a command that succeeds answers as JSON."""
        result = self.run(*arguments, "--json", by=by)
        assert result.exit_code == 0, result.output
        # an oracle in this process logs to the same output
        answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return answer


def failure(result: Result, code: str, status: int) -> dict[str, Any]:
    """The one line that a failed command says; each says what to do next."""
    assert result.exit_code == status, result.output
    line: dict[str, Any] = json.loads(result.stderr.strip().splitlines()[-1])
    assert line["code"] == code
    assert line["next"]
    return line


def job_hex(chain: Chain, terms: JobTerms) -> str:
    """A job's id as commands print it."""
    return "0x" + chain.id(terms).hex()
