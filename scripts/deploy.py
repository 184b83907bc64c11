"""Deploy the settlement with ape: `ape run deploy --network <network> --account <alias>`.

Goes on where an interrupted run stopped. Writes the signed record, and the short one that every
process reads. On a local chain it deploys a test USDC too. `docs/deploy.md` has the whole way.
"""

import json
from pathlib import Path

import click
from ape import networks
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand, account_option
from ape.logging import logger
from eth_account import Account
from web3 import Web3
from web3.types import TxReceipt

from scripts.chain import quiet_chain, rpc
from settlement.deploy import (
    DeploymentParameters,
    Planned,
    deploy,
    deploy_test_usdc,
    plan,
    present,
    release,
)
from settlement.deployment import Deployment
from settlement.errors import InvalidInput
from settlement.networks import NETWORKS
from settlement.record import FOLDER, DeploymentRecord, make_record, record_path
from settlement.signer import ApeSigner, LocalSigner, Signer
from settlement.types import Bytes32, Frozen, UInt64, to_hex


class Progress(Frozen):
    """What an unfinished deployment has to remember: where it began, and what created what."""

    block: UInt64
    usdc: str | None
    transactions: dict[str, Bytes32]


def run(
    w3: Web3,
    signer: Signer,
    parameters: DeploymentParameters,
    folder: Path,
    *,
    name: str | None = None,
    block: int | None = None,
) -> DeploymentRecord:
    """Deploy, or go on deploying, and write the signed record; returns it.

    What an interrupted run needs to remember is in the folder until the record is there. `block` is
    needed where something is there that no file here remembers: one before it was created.

    Raises:
        InvalidInput: when it is needed and not given, or see `settlement.deploy.deploy`.
    """
    named = name or release()
    chain_id = w3.eth.chain_id
    target = record_path(folder, chain_id, named)
    unfinished = target.with_suffix(".unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    if unfinished.exists():
        progress = Progress.model_validate_json(unfinished.read_bytes())
    else:
        usdc = None if chain_id in NETWORKS else deploy_test_usdc(w3, signer)
        there = present(w3, plan(chain_id, parameters, usdc=usdc, name=named))
        if there and block is None:
            raise InvalidInput(
                f"{', '.join(there)} of this deployment are there already, and {unfinished.name} "
                "is not: give --block, one before the first of them was created, from an earlier "
                "record or the explorer, so that no event is missed"
            )
        began = w3.eth.block_number if block is None else block
        progress = Progress(block=began, usdc=usdc, transactions={})
        unfinished.write_text(progress.model_dump_json())

    def created(planned: Planned, receipt: TxReceipt | None) -> None:
        nonlocal progress
        if receipt is None:
            click.echo(f"{planned.contract} at {planned.address}", err=True)
            return
        transaction = bytes(receipt["transactionHash"])
        click.echo(
            f"{planned.contract} at {planned.address}, {receipt['gasUsed']:,} gas by "
            f"{to_hex(transaction)}",
            err=True,
        )
        progress = progress.model_copy(
            update={"transactions": {**progress.transactions, planned.contract: transaction}}
        )
        unfinished.write_text(progress.model_dump_json())

    deployment = deploy(
        w3,
        signer,
        progress.usdc,
        parameters,
        name=named,
        block=progress.block,
        created=created,
    )
    planned = plan(chain_id, parameters, usdc=progress.usdc, name=named)
    record = make_record(w3, signer, planned, deployment, progress.transactions, named)
    target.write_text(record.model_dump_json(indent=1) + "\n")
    unfinished.unlink()
    return record


def rehearse(endpoint: str, parameters: DeploymentParameters) -> tuple[Deployment, int]:
    """Deploy on a fork of a chain, by an account made for it; what it is, and the gas it took.

    Nothing reaches the chain itself. The addresses are those of the deployment to come, since they
    depend on nobody's account.
    """
    used = 0

    def created(_: Planned, receipt: TxReceipt | None) -> None:
        nonlocal used
        used += receipt["gasUsed"] if receipt else 0

    head = int(Web3(Web3.HTTPProvider(endpoint)).eth.get_block("latest")["timestamp"])
    with quiet_chain(head + 1, "--fork-url", endpoint) as fork:
        signer = LocalSigner(Account.create())
        rpc(fork, "anvil_setBalance", signer.address, hex(10**21))
        usdc = None if fork.eth.chain_id in NETWORKS else deploy_test_usdc(fork, signer)
        return deploy(fork, signer, usdc, parameters, created=created), used


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
    help="Where the record that every process reads goes.",
)
@click.option(
    "--records",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where the signed record goes.",
)
@click.option("--block", type=int, help="One before the first contract, where none remembers.")
@click.option("--dry-run", is_flag=True, help="Deploy on a fork of the network, by nobody.")
@click.option("--json", "as_json", is_flag=True, help="Print the record instead of its path.")
def cli(
    account: AccountAPI,
    parameters: Path,
    output: Path,
    records: Path,
    block: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Deploy timelock, committee, registries and vault, check them, and write their records."""
    if as_json:
        logger.set_level("ERROR")  # ape logs to stdout
    w3: Web3 = networks.provider.web3
    chosen = DeploymentParameters.model_validate_json(parameters.read_bytes())
    if dry_run:
        deployment, gas = rehearse(str(networks.provider.http_uri), chosen)
        click.echo(
            json.dumps({"deployment": deployment.model_dump(mode="json"), "gas": gas})
            if as_json
            else f"{deployment.model_dump_json(indent=2)}\n{gas:,} gas; nothing was sent"
        )
        return
    record = run(w3, ApeSigner(account), chosen, records, block=block)
    output.write_text(record.deployment.model_dump_json(indent=2) + "\n")
    click.echo(
        json.dumps(record.deployment.model_dump(mode="json")) if as_json else f"wrote {output}"
    )
