"""Check a deployment against the chain, and verify it on the explorer.

`ape run verify RECORD --network <network>` checks; with --explorer it submits the sources too, with
the API key from ETHERSCAN_API_KEY.
"""

import json
import sys
from pathlib import Path

import click
from ape import networks
from ape.cli import ConnectedProviderCommand
from web3 import Web3

from scripts.explorer import API, Explorer
from settlement.handover import Governance, prove
from settlement.record import DeploymentRecord, check_deployed, check_record, load_record
from settlement.verify import Check


def check(w3: Web3, record: DeploymentRecord, governance: Governance | None) -> tuple[Check, ...]:
    """Everything that record and chain can say; roles too, where it is named who governs."""
    checks = (*check_record(record), *check_deployed(w3, record))
    if governance is not None:
        checks += prove(w3, record.deployment, governance)
    return checks


@click.command(cls=ConnectedProviderCommand)
@click.argument("record", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--governance",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON of settlement.handover.Governance: prove that these govern.",
)
@click.option("--explorer", is_flag=True, help="Verify the sources on the explorer too.")
@click.option("--key", envvar="ETHERSCAN_API_KEY", help="Etherscan's API key.")
@click.option("--api", default=API, show_default=True, help="Etherscan's API.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cli(
    record: Path, governance: Path | None, explorer: bool, key: str | None, api: str, as_json: bool
) -> None:
    """Check bytecode, parameters and roles of a deployment. Exit code 1 where one does not hold."""
    known = load_record(record)
    to = Governance.model_validate_json(governance.read_bytes()) if governance else None
    checks = check(networks.provider.web3, known, to)
    for each in checks:
        line = each.model_dump(mode="json")
        word = "holds" if each.holds else "FAILS"
        click.echo(json.dumps(line) if as_json else f"{word}  {each.claim}: {each.why}")
    if not all(each.holds for each in checks):
        sys.exit(1)
    if explorer:
        if not key:
            raise click.UsageError("--explorer needs ETHERSCAN_API_KEY")
        with Explorer(known.deployment.chain_id, key, api=api) as site:
            for created in known.contracts:
                click.echo(f"{created.contract}: {site.verify(known, created)}", err=as_json)
