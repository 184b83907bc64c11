"""How commands end when they cannot do what they were asked to, and what to do then."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from pydantic import ValidationError
from requests.exceptions import RequestException
from web3.exceptions import Web3Exception

from oracle.client import OracleRefused, OracleUnavailable
from settlement.contracts import TransactionFailed, WrongChain
from settlement.errors import RaphaError
from settlement.reverts import ContractReverted, Revert
from settlement.signer import KnownKeyRefused

REFUSED = 1
"""The exit code of a no: a check does not hold, or contract or oracle refused."""
UNTOLD = 2
"""The exit code of a question that could not be put or answered."""

ADVICE: dict[Revert, str] = {
    Revert.VAULT_ACCOUNT_IS_NOT_ALLOWED: "name another account: neither zero nor the vault itself",
    Revert.VAULT_AMOUNT_IS_ZERO: "name an amount above zero",
    Revert.VAULT_AMOUNT_TOO_LARGE: "take a smaller amount, or wait until the vault owes less",
    Revert.VAULT_ARBITER_MAY_STILL_ANSWER: "wait until the arbiter's time is over",
    Revert.VAULT_BALANCE_TOO_LOW: "see `rapha balance`; deposit first, or take a smaller amount",
    Revert.VAULT_BUDGET_OUT_OF_RANGE: "make terms with a budget from 0.000001 to 70368744.177663",
    Revert.VAULT_CALLER_CANNOT_DISPUTE: "sign as payer, funder or guardian",
    Revert.VAULT_CALLER_IS_NOT_THE_ARBITER: "sign as the arbiter",
    Revert.VAULT_CALLER_IS_NOT_THE_FUNDER: "sign as who funded the job",
    Revert.VAULT_CALLER_IS_NOT_THE_PAYER: "sign as the payer in the terms, or as the funder",
    Revert.VAULT_DEADLINE_HAS_PASSED: "nothing can be added now; see `rapha job refund`",
    Revert.VAULT_DEADLINE_OUT_OF_RANGE: "make new terms with a deadline ahead, within a year",
    Revert.VAULT_INVALID_SIGNATURE: "sign again: the account, the chain or a value is another",
    Revert.VAULT_JOB_EXISTS: "it is there already: see `rapha job show`; new terms need a new salt",
    Revert.VAULT_JOB_IS_NOT_OPEN: "see `rapha job show`: it was never opened, or is closed already",
    Revert.VAULT_JOB_IS_NOT_UNASSIGNED: "see `rapha job show`: it has a node already",
    Revert.VAULT_JOB_IS_STILL_PAYABLE: "wait until deadline and grace are over, or cancel the job",
    Revert.VAULT_NO_SUCH_DISPUTE: "check the dispute's number",
    Revert.VAULT_NODE_IS_NOT_ACTIVE: "see `rapha node show`; choose another node, or 0 for any",
    Revert.VAULT_NOTHING_TO_DISPUTE: "only fresh earnings can be disputed: see `rapha job show`",
    Revert.VAULT_NOTHING_TO_RECOVER: "nothing is there that belongs to nobody",
    Revert.VAULT_NOTHING_TO_WITHDRAW: "see `rapha balance`; `rapha node distribute` comes first",
    Revert.VAULT_PAUSED: "wait: a pause ends by itself; withdrawals and refunds go on",
    Revert.VAULT_PAYEES_CHANGED_TOO_OFTEN: "this node's payees cannot change any more",
    Revert.VAULT_PRICE_OUT_OF_RANGE: "make new terms with lower prices",
    Revert.VAULT_RECEIVED_TOO_LITTLE: "the token kept a fee: is it the right USDC?",
    Revert.VAULT_RECEIVER_IS_NOT_ALLOWED: "name another receiver: not zero, the vault or USDC",
    Revert.VAULT_RETURNED_EXCEEDS_DISPUTED: "return no more than is disputed",
    Revert.VAULT_SIGNATURE_HAS_EXPIRED: "sign again, with a later deadline",
    Revert.VAULT_SPONSOR_IS_THE_PAYER: "open the job as its payer: `rapha escrow open`",
    Revert.VAULT_TOO_LATE_TO_ANSWER: "release the dispute instead",
    Revert.VAULT_TRANSFER_FAILED: "USDC refused: ask its issuer, or name another receiver",
    Revert.NODES_CALLER_IS_NOT_THE_REGISTRAR: "sign as the registrar, or as the owner",
    Revert.NODES_HARDWARE_ALREADY_REGISTERED: "this machine has a node: see `rapha node show`",
    Revert.NODES_HARDWARE_HASH_IS_ZERO: "name the salted digest of the machine's identity",
    Revert.NODES_NODE_IS_NOT_REGISTERED: "check the node's number",
    Revert.NODES_PAYEE_IS_ZERO: "name owner, hospital and onboarder",
    Revert.NODES_RECEIVER_IS_NOT_ALLOWED: "name another owner: not the vault or the registry",
    Revert.NODES_REGISTRY_IS_FULL: "this registry takes no more nodes",
    Revert.USDC_BLACKLISTED: "USDC's issuer has blocked this account; ask it, or use another",
    Revert.USDC_PAUSED: "USDC's issuer has paused the token; try later",
    Revert.USDC_BALANCE_TOO_LOW: "see `rapha balance`; the wallet holds too little USDC",
    Revert.USDC_ALLOWANCE_TOO_LOW: "allow the vault first: --allow does so in a transaction before",
    Revert.USDC_AUTHORIZATION_NOT_YET_VALID: "try again when the signature has become valid",
    Revert.USDC_AUTHORIZATION_EXPIRED: "sign again, with a later --valid-before",
    Revert.USDC_AUTHORIZATION_USED: "it has been used or cancelled: see `rapha job show`",
    Revert.USDC_INVALID_SIGNATURE: "sign again: the account, the chain or a value is another",
    **dict.fromkeys(
        (
            Revert.USDC_INVALID_SIGNATURE_LENGTH,
            Revert.USDC_INVALID_S,
            Revert.USDC_INVALID_V,
            Revert.USDC_UNRECOVERABLE_SIGNATURE,
        ),
        "bring the signature as the wallet gave it: 65 bytes r, s, v in hex",
    ),
}
"""What to do about refusals that a command can meet."""

_AREAS = {
    "ENCLAVES": "the enclave's registration is not good: see `rapha attest verify`",
    "DCAP": "the enclave's evidence is not good: see `rapha attest verify`",
    "COMMITTEE": "the operators' signatures are not good: ask an operator",
    "OWNABLE": "this is the timelock's to do: see docs/deploy.md",
    "GOVERNANCE": "this is the guardian's or the timelock's to do: see docs/deploy.md",
    "TIMELOCK": "see docs/deploy.md: announced operations wait for the timelock's delay",
    "ACCESS": "see docs/deploy.md: this role is not the signer's",
}


def next_step(error: Exception) -> str:
    """What to do about an error, in a sentence; whatever it is, there is one."""
    if isinstance(error, ContractReverted):
        if error.revert in ADVICE:
            return ADVICE[error.revert]
        area = error.revert.name.split("_")[0] if error.revert else ""
        if area in _AREAS:
            return _AREAS[area]
        return "the same call cannot succeed" if error.final else "try again later"
    for kind, advice in (
        (TransactionFailed, "something changed in between: run the command again"),
        (WrongChain, "check --rpc and --deployment: they do not belong together"),
        (KnownKeyRefused, "use a key of your own: --keystore or --ape"),
        (OracleUnavailable, "check --oracle, or try again later; any operator's oracle will do"),
        (OracleRefused, "mend what the detail says, and send it again"),
        (RequestException, "check --rpc, and that its endpoint is up"),
        (Web3Exception, "check --rpc and --deployment, and that the endpoint is in sync"),
    ):
        if isinstance(error, kind):
            return advice
    if isinstance(error, RaphaError) and not error.final:
        return "try again later"
    return "mend what the detail says, and run the command again; --help shows its options"


@contextmanager
def ending(status: int) -> Iterator[None]:
    """Errors within become one line of JSON on standard error, and end the process.

    Exit code 1 where contract or oracle refused, `status` for everything else.
    """
    try:
        yield
    except ValidationError as error:
        fields = "; ".join(
            f"RAPHA_ORACLE_{'_'.join(map(str, part['loc'])).upper()}: {part['msg']}"
            for part in error.errors(include_input=False)
        )
        fail("ConfigurationInvalid", fields, status, next_step(error))
    except (ContractReverted, TransactionFailed, OracleRefused) as error:
        fail(error.code, str(error), REFUSED, next_step(error))
    except RaphaError as error:
        fail(error.code, str(error), status, next_step(error))
    except (RequestException, Web3Exception) as error:
        # not their text: it may hold the endpoint's URL, and with it a key
        fail("EndpointUnavailable", type(error).__name__, status, next_step(error))


def fail(code: str, detail: str, status: int, step: str) -> NoReturn:
    """Say what was wrong and what to do next, and end."""
    line = {"event": "failed", "code": code, "detail": detail, "next": step}
    typer.echo(json.dumps(line), err=True)
    sys.exit(status)


def missing(name: str, error: ModuleNotFoundError, *extras: str) -> NoReturn:
    """Say which extra brings what a program or command needs, and end."""
    step = f"pip install 'rapha-settlement[{','.join(extras)}]'"
    fail("ExtraMissing", f"{name} needs the module {error.name}", UNTOLD, step)
