"""Give a deployment another committee: `ape run set_committee announce|execute RECORD MEMBERS`.

MEMBERS is JSON {"members": [addresses or proven BLS keys], "threshold": M}. Announcing creates the
committee's contract, then has the timelock schedule the change; where the account is no proposer,
the call is printed for a Safe to make.
"""

from pathlib import Path

import click
from ape.api import AccountAPI
from pydantic import Field
from web3 import Web3

from scripts.handover import add_steps
from settlement.bls import BlsMember
from settlement.deploy import check_deployer, create, plan_committee
from settlement.deployment import Deployment
from settlement.handover import Operation, plan_committee_change
from settlement.signer import ApeSigner
from settlement.types import Address, Frozen


class Members(Frozen):
    """Who is to be the committee, and how many of them must sign."""

    members: tuple[Address | BlsMember, ...] = Field(min_length=1)
    threshold: int = Field(gt=0)


@click.group()
def cli() -> None:
    """Change the committee, by the timelock."""


def _plan(
    w3: Web3, deployment: Deployment, file: Path, account: AccountAPI, step: str
) -> Operation:
    chosen = Members.model_validate_json(file.read_bytes())
    planned, salt = plan_committee(deployment.chain_id, chosen.members, chosen.threshold)
    if step == "schedule":  # its contract has to be there before anybody can ask it
        check_deployer(w3)
        create(w3, ApeSigner(account), planned, salt)
    click.echo(f"{planned.contract} at {planned.address}")
    return plan_committee_change(w3, deployment, planned.address)


add_steps(cli, "members", _plan)
