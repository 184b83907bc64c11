"""The console entry point of `rapha`."""

import typer

from oracle.attestation.cli import app as attest
from oracle.commands import challenge, reconcile
from oracle.commands.failures import UNTOLD, ending

app = typer.Typer(
    name="rapha",
    help="Rapha settlement.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(attest, name="attest")
app.command("reconcile")(reconcile.anywhere)
audit = typer.Typer(name="audit", help="Hold a hospital to what it says.", no_args_is_help=True)
audit.command("challenge")(challenge.challenge)
audit.command("check")(challenge.check)
app.add_typer(audit)


def main() -> None:
    """Typed errors become one line on standard error and exit code 2."""
    with ending(UNTOLD):
        app()


if __name__ == "__main__":
    main()
