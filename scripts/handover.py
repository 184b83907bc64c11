"""Hand a deployment over to a Safe: `ape run handover announce|execute|prove RECORD GOVERNANCE`.

The timelock makes all changes in one operation, after its delay. Where the account is no proposer,
such as when a Safe is, the call is printed for it to make.
"""

import json
import sys
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


def _parts(record: Path, governance: Path) -> tuple[Web3, Deployment, Governance]:
    to = Governance.model_validate_json(governance.read_bytes())
    return networks.provider.web3, load_deployment(record), to


def _step(account: AccountAPI, record: Path, governance: Path, step: str, print_only: bool) -> None:
    w3, deployment, to = _parts(record, governance)
    operation = plan_handover(w3, deployment, to)
    send_or_print(account, w3, deployment, operation, step, print_only)


@click.group()
def cli() -> None:
    """Hand over to those who are to govern, and prove it."""


@cli.command(cls=ConnectedProviderCommand)
@account_option()
@click.argument("record", type=RecordPath)
@click.argument("governance", type=RecordPath)
@click.option("--print", "print_only", is_flag=True, help="Send nothing: print the call.")
def announce(account: AccountAPI, record: Path, governance: Path, print_only: bool) -> None:
    """Announce the operation; it can be carried out after the timelock's delay."""
    _step(account, record, governance, "schedule", print_only)


@cli.command(cls=ConnectedProviderCommand)
@account_option()
@click.argument("record", type=RecordPath)
@click.argument("governance", type=RecordPath)
@click.option("--print", "print_only", is_flag=True, help="Send nothing: print the call.")
def execute(account: AccountAPI, record: Path, governance: Path, print_only: bool) -> None:
    """Carry the announced operation out."""
    _step(account, record, governance, "execute", print_only)


@cli.command("prove", cls=ConnectedProviderCommand)
@click.argument("record", type=RecordPath)
@click.argument("governance", type=RecordPath)
def prove_(record: Path, governance: Path) -> None:
    """Prove that these govern and nobody else. Exit code 1 where something does not hold."""
    checks = prove(*_parts(record, governance))
    for each in checks:
        click.echo(f"{'holds' if each.holds else 'FAILS'}  {each.claim}: {each.why}")
    if not all(each.holds for each in checks):
        sys.exit(1)
