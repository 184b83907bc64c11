"""The console entry point of `rapha`.

Commands of parts that this one may not know, the oracle's clients among them, register themselves
under the entry point group `rapha.commands`, each with a Typer application.
"""

from importlib.metadata import EntryPoint, entry_points

import typer

from oracle.attestation.cli import app as attest
from oracle.commands import audit, reconcile
from oracle.commands.failures import UNTOLD, ending, fail

GROUP = "rapha.commands"
_EVERYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="rapha",
    help="Rapha settlement.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(attest, name="attest")
app.add_typer(audit.app, name="audit")
app.command("reconcile")(reconcile.anywhere)


def register(found: EntryPoint) -> None:
    """Add what an installed part registered; it is loaded when it is asked for."""

    def run(context: typer.Context) -> None:
        try:
            application = found.load()
        except ModuleNotFoundError as error:
            detail = f"rapha {found.name} needs the module {error.name}: install the extra `edge`"
            fail("ExtraMissing", detail, UNTOLD)
        application(context.args, prog_name=f"rapha {found.name}")

    app.command(
        found.name,
        help=f"See `rapha {found.name} --help`.",
        context_settings=_EVERYTHING,
        add_help_option=False,
    )(run)


for _found in sorted(entry_points(group=GROUP), key=lambda found: found.name):
    register(_found)


def main() -> None:
    """Typed errors become one line on standard error and exit code 2."""
    with ending(UNTOLD):
        app()


if __name__ == "__main__":
    main()
