"""The console entry point of `rapha`.

Commands of parts that this one may not know, the oracle's clients among them, register themselves
under the entry point group `rapha.commands`, each with a Typer application.
"""

from importlib.metadata import EntryPoint, entry_points

import typer

from oracle.attestation.cli import app as attest
from oracle.commands import audit, challenge, escrow, job, money, node, receipt, reconcile
from oracle.commands.failures import UNTOLD, ending
from oracle.commands.programs import load

GROUP = "rapha.commands"
_EVERYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}

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
app.add_typer(audit.app, name="audit")
audit.app.command("challenge")(challenge.challenge)
audit.app.command("check")(challenge.check)
app.command("reconcile")(reconcile.anywhere)


def register(found: EntryPoint) -> None:
    """Add what an installed part registered; it is loaded when it is asked for."""

    def run(context: typer.Context) -> None:
        name = f"rapha {found.name}"
        load(found, name)(context.args, prog_name=name)

    app.command(
        found.name,
        help=f"See `rapha {found.name} --help`.",
        context_settings=_EVERYTHING,
        add_help_option=False,
    )(run)


for _found in sorted(entry_points(group=GROUP), key=lambda found: found.name):
    register(_found)


def main() -> None:
    """Typed errors become one line on standard error and exit code 1 or 2."""
    with ending(UNTOLD):
        app()


if __name__ == "__main__":
    main()
