"""Deploy the settlement with ape: `ape run deploy --network <network> --account <alias>`.

Writes the deployment record that every process reads. On a local chain it deploys a test USDC too.
"""

import json
from pathlib import Path

import click
from ape import networks
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand, account_option
from ape.logging import logger
from web3 import Web3

from settlement.deploy import DeploymentParameters, deploy, deploy_test_usdc
from settlement.signer import ApeSigner

NATIVE_USDC = {
    # Circle, "USDC contract addresses"; `deploy` checks the token's EIP-712 domain besides
    137: "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359",
    80002: "0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582",
}


@click.command(cls=ConnectedProviderCommand)
@account_option()
@click.option(
    "--parameters",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="JSON of settlement.deploy.DeploymentParameters.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("deployment.json"),
    show_default=True,
    help="Where the deployment record goes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record instead of its path.")
def cli(account: AccountAPI, parameters: Path, output: Path, as_json: bool) -> None:
    """Deploy timelock, registries and vault, check them, and write their record."""
    if as_json:
        logger.set_level("ERROR")  # ape logs to stdout
    w3: Web3 = networks.provider.web3
    signer = ApeSigner(account)
    chosen = DeploymentParameters.model_validate_json(parameters.read_bytes())
    usdc = NATIVE_USDC.get(w3.eth.chain_id) or deploy_test_usdc(w3, signer)
    deployment = deploy(w3, signer, usdc, chosen)
    output.write_text(deployment.model_dump_json(indent=2) + "\n")
    click.echo(json.dumps(deployment.model_dump(mode="json")) if as_json else f"wrote {output}")
