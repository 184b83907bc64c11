"""Run by `test_ape.py` in a process of its own: every script as `ape run` runs it, on one chain."""

import json
import os
import sys
from pathlib import Path

from anvil import DAY
from ape._cli import cli as ape
from click.testing import CliRunner
from eth_utils import keccak
from web3 import HTTPProvider, Web3

from scripts.chain import rpc
from settlement.types import to_hex

endpoint, network, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
w3 = Web3(HTTPProvider(endpoint))
chosen = ("--network", f"{network}:{endpoint}")
signed = (*chosen, "--account", "rehearser")
told: dict[str, str] = {}


def run(name: str, *words: object, expect: int = 0) -> None:
    """Run one script; each signature is confirmed and unlocked, as a person does."""
    asked = ["run", *map(str, words)]
    answers = f"y\n{os.environ['PASSPHRASE']}\nn\n" * 12  # sign; by this; stay locked
    done = CliRunner(env=dict(os.environ)).invoke(ape, asked, input=answers)
    if done.exit_code != expect:
        raise SystemExit(f"{asked}: {done.exit_code}: {done.output} {done.exception!r}")
    told[name] = done.output


def wait() -> None:
    """Let the timelock's delay pass."""
    now = int(w3.eth.get_block("latest")["timestamp"])
    rpc(w3, "evm_setNextBlockTimestamp", now + 2 * DAY + 1)
    rpc(w3, "evm_mine")


parameters, record = folder / "parameters.json", folder / "deployment.json"
run("dry run", "deploy", "--dry-run", "--json", *signed, "--parameters", parameters)
told["height"] = str(w3.eth.block_number)
run(
    "deploy",
    *("deploy", *signed, "--parameters", parameters),
    *("--output", record, "--records", folder),
)
(signed_record,) = folder.glob("80002-*.json")
run("verify", "verify", signed_record, "--explorer", "--api", os.environ["EXPLORER"], *chosen)
payees = json.loads((folder / "payees.json").read_text())
hardware = to_hex(keccak(text="machine"))
run(
    "node",
    *("register_node", record, *signed, "--hardware", hardware),
    *(word for role, address in payees.items() for word in (f"--{role}", address)),
)
for step in ("announce", "execute"):
    run(f"committee {step}", "set_committee", step, record, folder / "members.json", *signed)
    wait()
governance = folder / "governance.json"
run("prove before", "handover", "prove", record, governance, *chosen, expect=1)
for step in ("announce", "execute"):
    run(f"handover {step}", "handover", step, record, governance, *signed)
    wait()
run("prove", "handover", "prove", record, governance, *chosen)
# whoever governs no longer gets the call to bring to the Safe
run("printed", "set_committee", "announce", record, folder / "others.json", *signed)
print("TOLD " + json.dumps(told))
