"""How commands end when they cannot do what they were asked to."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from settlement.errors import RaphaError

UNTOLD = 2
"""The exit code of a comparison that could not be made."""


@contextmanager
def ending(status: int) -> Iterator[None]:
    """Errors within become one line of JSON on standard error, and end the process."""
    try:
        yield
    except ValidationError as error:
        fields = "; ".join(
            f"RAPHA_ORACLE_{'_'.join(map(str, part['loc'])).upper()}: {part['msg']}"
            for part in error.errors(include_input=False)
        )
        fail("ConfigurationInvalid", fields, status)
    except RaphaError as error:
        fail(error.code, str(error), status)
    except SQLAlchemyError as error:
        fail("StoreUnavailable", type(error).__name__, status)


def fail(code: str, detail: str, status: int) -> None:
    """Say what was wrong, and end."""
    typer.echo(json.dumps({"event": "failed", "code": code, "detail": detail}), err=True)
    sys.exit(status)
