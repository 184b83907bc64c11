"""Register a hospital's node as the registrar: `ape run register_node RECORD --owner …`.

The same as `rapha node register`, for accounts that only ape has.
"""

from pathlib import Path

import click
from ape import networks
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand, account_option

from settlement.client import Settlement
from settlement.deployment import load_deployment
from settlement.signer import ApeSigner
from settlement.types import parse_address, parse_bytes, to_hex


@click.command(cls=ConnectedProviderCommand)
@account_option()
@click.argument("record", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--owner", required=True, help="Gets the node's token and the owner's share.")
@click.option("--hospital", required=True, help="The hospital's treasury.")
@click.option("--onboarder", required=True, help="Who brought the hospital in.")
@click.option("--hardware", required=True, help="Salted digest of the machine's identity, in hex.")
def cli(
    account: AccountAPI, record: Path, owner: str, hospital: str, onboarder: str, hardware: str
) -> None:
    """Register a node and say its number."""
    settlement = Settlement(networks.provider.web3, load_deployment(record), ApeSigner(account))
    settlement.check()
    machine = parse_bytes(hardware)
    payees = [parse_address(payee) for payee in (owner, hospital, onboarder)]
    receipt = settlement.transact(settlement.nodes.functions.register_node(*payees, machine))
    number = settlement.nodes.functions.node_of_hardware(machine).call()
    click.echo(f"node {number}, by {to_hex(bytes(receipt['transactionHash']))}")
