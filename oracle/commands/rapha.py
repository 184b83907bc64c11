"""The console entry point of `rapha`."""

import typer

from oracle.attestation.cli import app as attest
from oracle.commands import escrow, job, money, node, receipt, reconcile
from oracle.commands.failures import UNTOLD, ending

app = typer.Typer(
    name="rapha",
    help="Rapha settlement: escrow, jobs, receipts and what they prove.",
    epilog="Exit codes: 0 done, or it holds; 1 refused, or it does not hold; 2 could not be told. "
    "Errors are one line of JSON on standard error: code, detail, and what to do next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("quote")(money.quote)
app.add_typer(job.app, name="job")
app.add_typer(escrow.app, name="escrow")
app.command("balance")(money.balance)
app.command("withdraw")(money.withdraw)
app.add_typer(node.app, name="node")
app.add_typer(receipt.app, name="receipt")
app.command("verify")(receipt.verify)
app.add_typer(attest, name="attest")
app.command("reconcile")(reconcile.anywhere)


def main() -> None:
    """Typed errors become one line on standard error and exit code 1 or 2."""
    with ending(UNTOLD):
        app()


if __name__ == "__main__":
    main()
