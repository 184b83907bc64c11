"""Hand a deployment over to a Safe: `ape run handover announce|execute|prove RECORD GOVERNANCE`.

The timelock makes all changes in one operation, after its delay. Where the account is no proposer,
such as when a Safe is, the call is printed for it to make.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click
from ape import networks
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand, account_option
from web3 import Web3
from web3.contract.contract import ContractFunction

from settlement.client import Settlement
from settlement.deployment import Deployment, load_deployment
from settlement.handover import Governance, Operation, plan_handover, prove, timelock_of
from settlement.signer import ApeSigner
from settlement.types import to_hex

RecordPath = click.Path(exists=True, dir_okay=False, path_type=Path)


def calldata(w3: Web3, function: ContractFunction) -> str:
    """A call as JSON, for a Safe's transaction builder."""
    return json.dumps(
        {
            "chainId": w3.eth.chain_id,
            "to": function.address,
            "value": "0",
            "data": function._encode_transaction_data(),
        }
    )


def send_or_print(
    account: AccountAPI,
    w3: Web3,
    deployment: Deployment,
    operation: Operation,
    step: str,
    print_only: bool,
) -> None:
    """Have the timelock `schedule` or `execute` an operation, or print the call for a Safe."""
    timelock = timelock_of(w3, deployment)
    function = getattr(operation, step)(timelock)
    click.echo(f"operation {to_hex(operation.id(timelock))}, {len(operation.targets)} calls")
    role = timelock.functions["PROPOSER_ROLE" if step == "schedule" else "EXECUTOR_ROLE"]().call()
    if print_only or not timelock.functions.hasRole(role, account.address).call():
        click.echo(calldata(w3, function))
        return
    receipt = Settlement(w3, deployment, ApeSigner(account)).transact(function)
    click.echo(f"{step}d by {to_hex(bytes(receipt['transactionHash']))}")


def add_steps(
    group: click.Group,
    file: str,
    plan: Callable[[Web3, Deployment, Path, AccountAPI, str], Operation],
) -> None:
    """Give a group of commands `announce` and `execute`, each of RECORD and another file.

    `plan` makes the operation from that file; it is told who signs and which step it is for.
    """

    def add(name: str, step: str, told: str) -> None:
        @group.command(name, cls=ConnectedProviderCommand, help=told)
        @account_option()
        @click.argument("record", type=RecordPath)
        @click.argument(file, type=RecordPath)
        @click.option("--print", "print_only", is_flag=True, help="Only print the timelock's call.")
        def command(account: AccountAPI, record: Path, print_only: bool, **files: Path) -> None:
            w3, deployment = networks.provider.web3, load_deployment(record)
            operation = plan(w3, deployment, files[file], account, step)
            send_or_print(account, w3, deployment, operation, step, print_only)

    add("announce", "schedule", "Announce it: it can be carried out after the timelock's delay.")
    add("execute", "execute", "Carry out what was announced.")


@click.group()
def cli() -> None:
    """Hand over to those who are to govern, and prove it."""


def _governance(path: Path) -> Governance:
    return Governance.model_validate_json(path.read_bytes())


def _plan(w3: Web3, deployment: Deployment, file: Path, _: AccountAPI, step: str) -> Operation:
    return plan_handover(w3, deployment, _governance(file))


add_steps(cli, "governance", _plan)


@cli.command("prove", cls=ConnectedProviderCommand)
@click.argument("record", type=RecordPath)
@click.argument("governance", type=RecordPath)
def prove_(record: Path, governance: Path) -> None:
    """Prove that these govern and nobody else. Exit code 1 where something does not hold."""
    w3 = networks.provider.web3
    checks = prove(w3, load_deployment(record), _governance(governance))
    for each in checks:
        click.echo(f"{'holds' if each.holds else 'FAILS'}  {each.claim}: {each.why}")
    if not all(each.holds for each in checks):
        sys.exit(1)
