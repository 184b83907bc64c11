"""The tutorials do what they say: their marked blocks run in order, each page in its own scene.

A block after `<!-- run -->` runs; `<!-- run: exit 1 -->` says how a command ends. Console blocks
run `rapha` and `rapha-edge` in this process. Lines under a command have to be in what it says,
where `…` stands for anything. What needs a whole network is not marked; `e2e/test_run.py` has one.
"""

import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anvil import Chain, key
from integration.commands.scene import Shell
from typer.testing import CliRunner

from oracle.clients.edge.cli import app as edge
from oracle.commands import options
from oracle.commands.rapha import app as rapha
from scripts.chain import ROOT, rpc

pytestmark = pytest.mark.xdist_group("anvil")

TUTORIALS = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^<!-- run(?:: exit (\d))? -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"rapha": rapha, "rapha-edge": edge}


def run_console(text: str, status: int) -> None:
    command, *expected = text.removeprefix("$ ").splitlines()
    line, _, target = command.partition(" > ")
    words = [os.path.expandvars(word) for word in shlex.split(line, comments=True)]
    result = CliRunner().invoke(PROGRAMS[words[0]], words[1:])
    assert result.exit_code == status, f"{command}: {result.output}"
    if target:
        Path(target).write_text(result.stdout)
    said = " ".join(result.stdout.split())
    for told in expected:
        pattern = ".*".join(re.escape(" ".join(part.split())) for part in told.split("…"))
        assert re.search(pattern, said), f"{command} does not say {told!r}: {result.stdout}"


def follow(name: str, names: dict[str, Any]) -> int:
    """Run all marked blocks of a page; how many there were."""
    blocks = BLOCK.findall((TUTORIALS / name).read_text())
    for status, language, text in blocks:
        if language == "python":
            exec(compile(text, name, "exec"), names)
        else:
            run_console(text, int(status or 0))
    return len(blocks)


@pytest.fixture
def names(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a shell has after `source runs/network/env`, and what the Python blocks are given."""
    shell = Shell(chain, tmp_path)
    keystore = shell.signed("payer")[1]
    for name, value in {
        "RAPHA_RPC_URL": shell.rpc,
        "RAPHA_DEPLOYMENT_FILE": str(shell.record),
        "RAPHA_KEYSTORE": keystore,
        "RAPHA_PASSWORD_FILE": str(shell.password),
        "PAYER": key("payer").address,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    # "+1d" is of this machine's clock, and the chain's is ahead of it
    monkeypatch.setattr(options, "time", SimpleNamespace(time=chain.payer.now))
    chain.register_enclave()
    return {
        "rpc_url": shell.rpc,
        "deployment_file": shell.record,
        "key": key("payer").key,
        "account": key("payer"),
        "payer": key("payer").address,
        "enclave_key": key("enclave").key,
        "now": chain.payer.now(),
    }


@pytest.mark.parametrize(
    ("page", "blocks"),
    [("developer.md", 8), ("hospital.md", 7), ("operator.md", 1), ("integrator.md", 6)],
)
def test_tutorial_runs_as_written(
    page: str, blocks: int, names: dict[str, Any], chain: Chain
) -> None:
    rpc(chain.w3, "anvil_mine", hex(100))  # so that what is there is final
    assert follow(page, names) == blocks


def test_readmes_example_runs(names: dict[str, Any], chain: Chain) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    block = block.replace("http://127.0.0.1:8545", names["rpc_url"])
    block = block.replace('"deployment.json"', "deployment_file")
    exec(compile(block, "README.md", "exec"), {**names, "terms": chain.terms()})
    assert chain.payer.job(chain.id(chain.terms())).funded == chain.terms().budget
