"""`make console`: the console on a local chain, with a job done through it. Stays until Ctrl-C."""

import signal
import tempfile
import threading
import webbrowser
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from oracle.clients.edge.bundle import example
from scripts.chain import rpc
from scripts.localnet import CHAIN_ID, Localnet
from scripts.run import PAYER_FUNDS, bring_up, pick_framework
from scripts.view import View
from scripts.visitors import Visitor
from settlement.amounts import format_usdc
from settlement.hub.rapha import Rapha
from settlement.signer import LocalSigner
from settlement.types import to_hex

EPOCHS = 20
BUDGET = 40_000_000
GAS_MONEY = 10 * 10**18


def main(
    framework: Annotated[str, typer.Option(help="torch or jax; torch where it is installed.")] = "",
    job: Annotated[bool, typer.Option(help="Do a job first, so that there is one to see.")] = True,
    browser: Annotated[bool, typer.Option(help="Open the console in this browser.")] = False,
) -> None:
    """Bring everything up, do a job as the developer, and say how to get in."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    console = Console()
    with tempfile.TemporaryDirectory(prefix="rapha-") as folder, Localnet(Path(folder)) as net:
        with View(Console(stderr=True)) as view:
            entry = bring_up(net, view)
            view.begin("developer registered and approved")
            key = _introduce(net)
            view.done("by wallet, reviewed by the operator")
            if job:
                view.begin("a job through the hub")
                modality = entry.profile.modality
                view.done(_do_a_job(net, key, modality, pick_framework(framework)))
        url = net.url("hub")
        actors = net.actors
        console.print(f"\nThe console: [bold]{url}/console/[/bold]")
        console.print(f"The chain: {net.url('chain')}, chain id {CHAIN_ID}. Add it to a wallet,")
        console.print("and import one of these keys, which are good on this chain alone:")
        for who, account in (
            ("developer", actors.payer),
            ("operator", actors.deployer),
            ("hospital", actors.hospital),
        ):
            console.print(f"  {who:10} {account.address}  {to_hex(account.key)}", soft_wrap=True)
        console.print("Ctrl-C ends it all.")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if browser:
            webbrowser.open(f"{url}/console/")
        while not stopped.wait(1):
            net.check()


def _introduce(net: Localnet) -> str:
    """Register and approve the payer as a developer; its API key."""
    rpc(net.w3, "anvil_setBalance", net.actors.payer.address, hex(GAS_MONEY))
    with Visitor(net.url("hub"), net.actors.payer) as developer:
        registration = developer.register("acme", "Acme Imaging")
        with Visitor(net.url("hub"), net.actors.deployer) as operator:
            operator.decide(registration, "approve", "known to us")
        return developer.make_key("first program")


def _do_a_job(net: Localnet, key: str, modality: str, framework: str) -> str:
    bundle = dict(example(f"breast_cancer_{framework}").files)
    with Rapha(net.url("hub"), key, net.deployment, LocalSigner(net.actors.payer)) as rapha:
        job = rapha.submit(bundle, modality=modality, epochs=EPOCHS, budget=BUDGET)
        weights = job.weights()
    spent = format_usdc(PAYER_FUNDS - net.payer().usdc_balance(net.actors.payer.address))
    return f"{len(weights):,} bytes of weights; {spent} USDC went into escrow"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
