"""`rapha job`: terms, and a job's way from open to closed."""

import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from oracle.client import OracleClient
from oracle.commands.answers import Answer, moment, usdc
from oracle.commands.options import (
    ADDRESS,
    AMOUNT,
    TIME,
    WORD,
    Picture,
    TermsFile,
    knowing,
    parse_word,
    read_terms,
    reading,
    sending,
    signer_of,
)
from oracle.commands.signing import (
    HOUR,
    SIGNATURE,
    TYPED_DATA,
    VALID_BEFORE,
    document_answer,
    sent,
    signed_by,
)
from oracle.messages import EscrowRequest
from settlement.accounts import job_account
from settlement.client import Settlement
from settlement.contracts import JobState, JobStatus, authorization_document
from settlement.deployment import Deployment
from settlement.eip712 import job_id
from settlement.errors import InvalidInput, RaphaError
from settlement.history import newest_block, read_events
from settlement.models import Authorization, JobTerms, Work
from settlement.picture import draw_settlement
from settlement.types import to_hex

app = typer.Typer(help="Make, submit, follow and end jobs.", no_args_is_help=True)

Digest = Annotated[bytes, typer.Option(**WORD, help="32 bytes in hex.")]
Price = Annotated[int, typer.Option(**AMOUNT, help="USDC, like 0.05.")]
OracleUrl = Annotated[
    str | None,
    typer.Option("--oracle", envvar="RAPHA_ORACLE_URL", help="An oracle that brings it to chain."),
]


class StillOpen(RaphaError, TimeoutError):
    """A job was not closed in the time that a command was to wait."""

    final = False

    def __init__(self, job: bytes, state: JobState, seconds: int) -> None:
        self.job, self.state = job, state
        super().__init__(f"job {to_hex(job)} is still {state.name} after {seconds} seconds")


@app.command()
@knowing
def terms(
    deployment: Deployment,
    payer: Annotated[str, typer.Option(**ADDRESS, help="Who escrows.")],
    budget: Price,
    deadline: Annotated[int, typer.Option(**TIME, help="+7d, ISO 8601, or Unix time.")],
    model: Digest,
    dataset: Digest,
    policy: Digest,
    result_key: Digest,
    price_per_record: Price = 0,
    price_per_epoch: Price = 0,
    node: Annotated[int, typer.Option(min=0, help="0 leaves it to the committee.")] = 0,
    salt: Annotated[bytes | None, typer.Option(**WORD, help="Random otherwise.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the terms go, for TERMS.")] = None,
) -> Answer:
    """Make the terms of a job; their digest is its id. A hub makes them too."""
    made = JobTerms(
        payer=payer,
        node_id=node,
        price_per_record=price_per_record,
        price_per_epoch=price_per_epoch,
        budget=budget,
        deadline=deadline,
        work=Work(
            model_digest=model,
            dataset_digest=dataset,
            policy_digest=policy,
            result_key_digest=result_key,
        ),
        salt=salt or secrets.token_bytes(32),
    )
    if output:
        output.write_text(made.model_dump_json(indent=2) + "\n")
    job = to_hex(job_id(made, deployment.vault_domain))
    written = str(output) if output else made.model_dump_json()
    return Answer(
        {"job_id": job, "terms": made.model_dump(mode="json")},
        (
            ("job", job),
            ("budget", usdc(budget)),
            ("terms", written),
            ("next", f"rapha job submit {output or 'TERMS'} --oracle URL, or rapha escrow open"),
        ),
    )


@app.command()
@sending
def submit(
    settlement: Settlement,
    terms_file: TermsFile,
    oracle: OracleUrl = None,
    typed_data: TYPED_DATA = False,
    signature: SIGNATURE = None,
    valid_before: VALID_BEFORE = None,
) -> Answer:
    """Escrow a job by one signature of its payer (EIP-3009), which moves nothing else.

    With --oracle an operator brings it and pays for the gas. Without, the signer does, who need not
    be the payer.
    """
    made = read_terms(terms_file)
    deployment = settlement.deployment
    job = job_id(made, deployment.vault_domain)
    end = valid_before or settlement.now() + HOUR
    document = authorization_document(deployment, made, valid_after=0, valid_before=end)
    if typed_data:
        brought = f" --oracle {oracle}" if oracle else ""
        return document_answer(
            document,
            f"rapha job submit {terms_file} --valid-before {end} --signature 0x…{brought}",
        )
    if signature is None:
        payer = signer_of(settlement)
        if payer != made.payer:
            raise InvalidInput(
                f"{payer} is not the payer {made.payer} of these terms: sign as the payer, or "
                "bring its signature with --signature"
            )
        assert settlement.signer is not None
        signature = settlement.signer.sign_typed_data(document)
    signed_by(settlement, document, signature, made.payer)
    authorization = Authorization(valid_after=0, valid_before=end, signature=signature)
    if oracle is None:
        signer_of(settlement)
        receipt = settlement.open_job_with_authorization(made, authorization)
        return sent(
            receipt, {"job_id": to_hex(job), "budget": made.budget}, budget=usdc(made.budget)
        )
    with OracleClient(oracle) as client:
        status = client.submit_escrow(EscrowRequest(terms=made, authorization=authorization))
    return Answer(
        status.model_dump(mode="json"),
        (
            ("job", to_hex(job)),
            ("escrow", status.status.value),
            ("next", f"rapha job watch {terms_file}"),
        ),
    )


@app.command()
@reading
def show(settlement: Settlement, terms_file: TermsFile) -> Answer:
    """Say how a job stands on chain."""
    made = read_terms(terms_file)
    return _state(settlement, made, settlement.job(_id(settlement, made)))


@app.command()
@reading
def watch(
    settlement: Settlement,
    terms_file: TermsFile,
    timeout: Annotated[int, typer.Option(min=0, help="Seconds to wait at most.")] = 86_400,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> Answer:
    """Wait until a job is closed, and say how it ended. Changes go to standard error."""
    made = read_terms(terms_file)
    job = _id(settlement, made)
    end = time.monotonic() + timeout
    seen: JobStatus | None = None
    while True:
        status = settlement.job(job)
        if status != seen:
            typer.echo(
                f"{status.state.name}: {usdc(status.paid)} of {usdc(status.funded)} paid", err=True
            )
            seen = status
        if status.state is JobState.CLOSED:
            return _state(settlement, made, status)
        if time.monotonic() >= end:
            raise StillOpen(job, status.state, timeout)
        time.sleep(every)


@app.command()
@reading
def settlement(
    settlement: Settlement,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or a file of its terms.")],
    picture: Picture = None,
) -> Answer:
    """Say what was paid when, and where a job's budget is now, from the chain's events."""
    is_id = job.startswith("0x")
    key = parse_word(job) if is_id else _id(settlement, read_terms(Path(job)))
    deployment = settlement.deployment
    events = read_events(settlement.w3, deployment, newest_block(settlement.w3))
    account = job_account(deployment, events, key)
    if picture:
        draw_settlement(account, picture)
    parts = {
        **account.shares,
        "in dispute": account.disputed,
        "returned by an arbiter": account.returned,
        "returned to the payer": account.refunded,
        "still in escrow": account.escrowed,
    }
    rows = [
        ("job", to_hex(key)),
        ("state", account.state),
        *(
            (
                moment(each.time),
                f"{usdc(each.amount)}: {each.records} records, {each.epochs} epochs",
            )
            for each in account.payments
        ),
        ("budget", usdc(account.funded)),
        *((name, usdc(amount)) for name, amount in parts.items() if amount),
    ]
    return Answer({**account.model_dump(mode="json"), "paid": account.paid}, tuple(rows))


@app.command()
@sending
def cancel(settlement: Settlement, terms_file: TermsFile) -> Answer:
    """End a job: without a node at once, else finished work is paid for a grace period."""
    signer_of(settlement)
    made = read_terms(terms_file)
    receipt = settlement.cancel(made)
    state = settlement.job(_id(settlement, made)).state
    step = (
        "the escrow is in the funder's balance: rapha withdraw"
        if state is JobState.CLOSED
        else f"when the grace period is over: rapha job refund {terms_file}"
    )
    return sent(
        receipt,
        {"job_id": to_hex(_id(settlement, made)), "state": state.name},
        state=state.name,
        next=step,
    )


@app.command()
@sending
def refund(settlement: Settlement, terms_file: TermsFile) -> Answer:
    """Give back what a job left whose time is over. Anyone may."""
    signer_of(settlement)
    made = read_terms(terms_file)
    receipt = settlement.refund(made)
    status = settlement.job(_id(settlement, made))
    returned = status.funded - status.paid
    return sent(
        receipt,
        {"job_id": to_hex(_id(settlement, made)), "returned": returned},
        returned=usdc(returned),
    )


@app.command()
@sending
def dispute(
    settlement: Settlement,
    terms_file: TermsFile,
    version: Annotated[
        int | None, typer.Option(min=0, help="Of the node's payees; the present ones otherwise.")
    ] = None,
) -> Answer:
    """Freeze what a job has freshly earned, until the arbiter has answered."""
    signer_of(settlement)
    made = read_terms(terms_file)
    receipt = settlement.dispute(made, version)
    number = int(settlement.vault.functions.dispute_count().call())
    return sent(
        receipt,
        {"job_id": to_hex(_id(settlement, made)), "dispute": number},
        dispute=str(number),
    )


def _id(settlement: Settlement, made: JobTerms) -> bytes:
    return job_id(made, settlement.deployment.vault_domain)


def _state(settlement: Settlement, made: JobTerms, status: JobStatus) -> Answer:
    job = to_hex(_id(settlement, made))
    frozen = status.disputable(settlement.now(), settlement.deployment.challenge_window)
    data: dict[str, Any] = {
        "job_id": job,
        **status.model_dump(mode="json"),
        "state": status.state.name,
        "disputable": frozen,
        "deadline": made.deadline,
        "grace_period": settlement.deployment.grace_period,
    }
    rows = [
        ("job", job),
        ("state", status.state.name),
        ("node", str(status.node_id)),
        ("funded", usdc(status.funded)),
        ("paid", usdc(status.paid)),
        ("can be disputed", usdc(frozen)),
    ]
    return Answer(data, tuple(rows), holds=status.state is not JobState.UNKNOWN)
