"""Options that commands share, and how a command gets its chain and its signer."""

import functools
import inspect
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from eth_account import Account
from eth_utils import to_checksum_address
from pydantic import ValidationError

from oracle.commands.answers import Answer
from oracle.commands.failures import UNTOLD, ending
from oracle.keyfiles import read_keystore, read_secret
from settlement.amounts import parse_usdc
from settlement.client import Settlement
from settlement.connection import connect
from settlement.deployment import load_deployment
from settlement.errors import InvalidInput
from settlement.models import JobTerms
from settlement.signer import ApeSigner, LocalSigner, Signer
from settlement.types import parse_address, parse_bytes

_SPAN = re.compile(r"\+([0-9]+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class SignerMissing(InvalidInput):
    """A command that signs was not told who does."""

    def __init__(self) -> None:
        super().__init__(
            "nobody signs: name --keystore FILE, or --ape ALIAS for an account or hardware wallet "
            "of ape's; some commands can --typed-data for another wallet"
        )


def _parsed(metavar: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What makes typer read an option by a parser of the SDK's, whose words say what is wrong."""

    def read(value: Any) -> Any:
        return parse(value) if isinstance(value, str) else value

    return {"metavar": metavar, "parser": read}


def parse_time(text: str) -> int:
    """Unix seconds from "+7d" (also s, m, h), from ISO 8601 with an offset, or as they are.

    Raises:
        InvalidInput: for anything else, such as a time without an offset.
    """
    if text.isdecimal():
        return int(text)
    if match := _SPAN.fullmatch(text):
        return int(time.time()) + int(match.group(1)) * _SECONDS[match.group(2)]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidInput(
            f'"{text}" is not a time: write +7d, 2027-01-31T12:00Z, or seconds since 1970'
        )
    return int(moment.timestamp())


def parse_word(text: str) -> bytes:
    """32 bytes of hex. Raises InvalidInput for anything else."""
    value = parse_bytes(text)
    if len(value) != 32:
        raise InvalidInput(f"expected 32 bytes of 0x-prefixed hex, found {len(value)}")
    return value


AMOUNT = _parsed("USDC", parse_usdc)
TIME = _parsed("TIME", parse_time)
ADDRESS = _parsed("ADDRESS", parse_address)
WORD = _parsed("BYTES32", parse_word)
HEX = _parsed("HEX", parse_bytes)

TermsFile = Annotated[
    Path, typer.Argument(metavar="TERMS", help="Terms of a job (JSON), as `rapha job terms` makes.")
]

Picture = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Draw it too: .svg, .png or .pdf."),
]


def read_terms(path: Path) -> JobTerms:
    """Terms from a file.

    Raises:
        InvalidInput: when it is not there, or holds no terms.
    """
    try:
        return JobTerms.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, part['loc'])) or 'file'}: {part['msg']}"
            for part in error.errors(include_input=False)
        )
        raise InvalidInput(f"{path} holds no terms of a job: {faults}") from error


@dataclass(frozen=True)
class Chosen:
    """Who was chosen to sign, if anybody."""

    keystore: Path | None
    password_file: Path | None
    ape: str | None

    @contextmanager
    def signer(self, rpc: str) -> Iterator[Signer | None]:
        """The signer, with what it needs held open."""
        if self.keystore and self.ape:
            raise InvalidInput("one signs, not two: leave out --keystore or --ape")
        if self.ape:
            with _ape_signer(self.ape, rpc) as signer:
                yield signer
        elif self.keystore:
            yield LocalSigner(self._unlocked(self.keystore))
        else:
            yield None

    def _unlocked(self, keystore: Path) -> Any:
        if self.password_file:
            return read_keystore(keystore, self.password_file)
        document = read_secret(keystore)
        password = typer.prompt(f"Password of {keystore.name}", hide_input=True, err=True)
        try:
            return Account.from_key(Account.decrypt(document, password))
        # not chained: the cause may carry secrets
        except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError):
            raise InvalidInput(f"{keystore} is no keystore that this password opens") from None


@contextmanager
def _ape_signer(alias: str, rpc: str) -> Iterator[Signer]:
    try:
        import ape
    except ImportError as error:
        raise InvalidInput(
            "ape is not installed: pip install 'rapha-settlement[contracts]'"
        ) from error
    with ape.networks.parse_network_choice(rpc):
        if alias.startswith("TEST::"):
            yield ApeSigner(ape.accounts.test_accounts[int(alias.removeprefix("TEST::"))])
        else:
            try:
                yield ApeSigner(ape.accounts.load(alias))
            except KeyError as error:
                raise InvalidInput(
                    f"ape has no account {alias}: see `ape accounts list`, plugins included"
                ) from error


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Rpc = Annotated[
    str, typer.Option("--rpc", envvar="RAPHA_RPC_URL", help="Any JSON-RPC endpoint of the chain.")
]
DeploymentFile = Annotated[
    Path, typer.Option("--deployment", envvar="RAPHA_DEPLOYMENT_FILE", help="Deployment record.")
]
Keystore = Annotated[
    Path | None,
    typer.Option("--keystore", envvar="RAPHA_KEYSTORE", help="Who signs: an encrypted keystore."),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file", envvar="RAPHA_PASSWORD_FILE", help="Its password; else it is asked for."
    ),
]
Ape = Annotated[
    str | None,
    typer.Option(
        "--ape", envvar="RAPHA_APE", help="Who signs: an account of ape's, hardware included."
    ),
]

_OFFLINE: dict[str, tuple[Any, Any]] = {"as_json": (AsJson, False)}
_KNOWING = {"deployment": (DeploymentFile, inspect.Parameter.empty), **_OFFLINE}
_READING = {"rpc": (Rpc, inspect.Parameter.empty), **_KNOWING}
_SENDING = {
    **_READING,
    "keystore": (Keystore, None),
    "password_file": (PasswordFile, None),
    "ape": (Ape, None),
}


def offline(command: Callable[..., Answer]) -> Callable[..., None]:
    """A command that needs nothing but its own options."""

    def run(own: dict[str, Any], as_json: bool) -> None:
        with ending(UNTOLD):
            command(**own).tell(as_json=as_json)

    return _with_options(command, _OFFLINE, run, given=0)


def knowing(command: Callable[..., Answer]) -> Callable[..., None]:
    """A command that is given a `Deployment` first, and asks no chain."""

    def run(own: dict[str, Any], deployment: Path, as_json: bool) -> None:
        with ending(UNTOLD):
            command(load_deployment(deployment), **own).tell(as_json=as_json)

    return _with_options(command, _KNOWING, run)


def reading(command: Callable[..., Answer]) -> Callable[..., None]:
    """A command that is given a `Settlement` first, of a chain that fits its deployment."""

    def run(own: dict[str, Any], rpc: str, deployment: Path, as_json: bool) -> None:
        with ending(UNTOLD):
            settlement = Settlement(connect(rpc), load_deployment(deployment))
            settlement.check()
            command(settlement, **own).tell(as_json=as_json)

    return _with_options(command, _READING, run)


def sending(command: Callable[..., Answer]) -> Callable[..., None]:
    """The same for one that signs or sends; its `Settlement` has the chosen signer, if any."""

    def run(
        own: dict[str, Any],
        rpc: str,
        deployment: Path,
        as_json: bool,
        keystore: Path | None,
        password_file: Path | None,
        ape: str | None,
    ) -> None:
        with ending(UNTOLD):
            settlement = Settlement(connect(rpc), load_deployment(deployment))
            settlement.check()  # before a password is asked for
            with Chosen(keystore, password_file, ape).signer(rpc) as signer:
                answer = command(settlement.on_behalf_of(signer), **own)
            answer.tell(as_json=as_json)

    return _with_options(command, _SENDING, run)


def signer_of(settlement: Settlement) -> str:
    """Whose signature a command has.

    Raises:
        SignerMissing: when nobody was named.
    """
    if settlement.signer is None:
        raise SignerMissing
    return to_checksum_address(settlement.signer.address)


def _with_options(
    command: Callable[..., Answer],
    shared: dict[str, tuple[Any, Any]],
    run: Callable[..., None],
    *,
    given: int = 1,
) -> Callable[..., None]:
    """`run`, with the command's own options and the shared ones in its signature, for typer."""
    parameters = list(inspect.signature(command, eval_str=True).parameters.values())[given:]
    clash = {parameter.name for parameter in parameters} & set(shared)
    assert not clash, f"{command.__name__} takes {clash} twice"
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
        )
        for name, (annotation, default) in shared.items()
    ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        run(
            {parameter.name: values[parameter.name] for parameter in parameters},
            **{name: values[name] for name in shared},
        )

    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    wrapper.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in [*own, *added]}
    return wrapper
