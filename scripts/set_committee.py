"""Give a deployment another committee: `ape run set_committee announce|execute RECORD MEMBERS`.

MEMBERS is JSON {"members": [addresses or proven BLS keys], "threshold": M}. Announcing creates the
committee's contract, then has the timelock schedule the change; where the account is no proposer,
the call is printed for a Safe to make.
"""

from pathlib import Path

import click
from ape import networks
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand, account_option
from pydantic import Field
from web3 import Web3

from scripts.handover import RecordPath, send_or_print
from settlement.bls import BlsMember
from settlement.deploy import check_deployer, create, plan_committee
from settlement.deployment import load_deployment
from settlement.handover import plan_committee_change
from settlement.signer import ApeSigner
from settlement.types import Address, Frozen


class Members(Frozen):
    """Who is to be the committee, and how many of them must sign."""

    members: tuple[Address | BlsMember, ...] = Field(min_length=1)
    threshold: int = Field(gt=0)


@click.group()
def cli() -> None:
    """Change the committee, by the timelock."""


@cli.command(cls=ConnectedProviderCommand)
@account_option()
@click.argument("record", type=RecordPath)
@click.argument("members", type=RecordPath)
@click.option("--print", "print_only", is_flag=True, help="Only print the timelock's call.")
def announce(account: AccountAPI, record: Path, members: Path, print_only: bool) -> None:
    """Create the committee's contract and announce the change."""
    w3: Web3 = networks.provider.web3
    deployment = load_deployment(record)
    chosen = Members.model_validate_json(members.read_bytes())
    planned, salt = plan_committee(deployment.chain_id, chosen.members, chosen.threshold)
    check_deployer(w3)
    create(w3, ApeSigner(account), planned, salt)
    click.echo(f"{planned.contract} at {planned.address}")
    operation = plan_committee_change(w3, deployment, planned.address)
    send_or_print(account, w3, deployment, operation, "schedule", print_only)


@cli.command(cls=ConnectedProviderCommand)
@account_option()
@click.argument("record", type=RecordPath)
@click.argument("members", type=RecordPath)
@click.option("--print", "print_only", is_flag=True, help="Only print the timelock's call.")
def execute(account: AccountAPI, record: Path, members: Path, print_only: bool) -> None:
    """Carry the announced change out."""
    w3: Web3 = networks.provider.web3
    deployment = load_deployment(record)
    chosen = Members.model_validate_json(members.read_bytes())
    planned, _ = plan_committee(deployment.chain_id, chosen.members, chosen.threshold)
    operation = plan_committee_change(w3, deployment, planned.address)
    send_or_print(account, w3, deployment, operation, "execute", print_only)
