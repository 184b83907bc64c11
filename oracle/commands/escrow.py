"""`rapha escrow`: money into the vault."""

import secrets
from typing import Annotated

import typer

from oracle.commands.answers import Answer, plain, usdc
from oracle.commands.options import (
    ADDRESS,
    AMOUNT,
    WORD,
    TermsFile,
    read_terms,
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
from settlement.client import Settlement
from settlement.contracts import deposit_document
from settlement.eip712 import job_id
from settlement.models import Authorization, Deposit, OpenJobs
from settlement.types import to_hex

app = typer.Typer(help="Put USDC into escrow, or into a balance.", no_args_is_help=True)

Amount = Annotated[int, typer.Argument(**AMOUNT, help="USDC, like 12.50.")]


@app.command("open")
@sending
def open_(
    settlement: Settlement,
    terms_file: TermsFile,
    permit: Annotated[
        bool, typer.Option("--permit", help="Allow and open in one transaction (EIP-2612).")
    ] = False,
    from_balance: Annotated[
        bool, typer.Option("--from-balance", help="From the payer's balance in the vault.")
    ] = False,
    allow: Annotated[
        bool, typer.Option("--allow", help="Allow the vault the budget, in a transaction before.")
    ] = False,
) -> Answer:
    """Escrow a job's budget, signed and paid for by its payer."""
    signer_of(settlement)
    terms = read_terms(terms_file)
    if permit:
        receipt = settlement.open_job_with_permit(terms)
    elif from_balance:
        receipt = settlement.open_jobs(OpenJobs(jobs=(terms,)))
    else:
        if allow:
            settlement.approve(terms.budget)
        receipt = settlement.open_job(terms)
    job = to_hex(job_id(terms, settlement.deployment.vault_domain))
    return sent(receipt, {"job_id": job, "budget": terms.budget}, budget=usdc(terms.budget))


@app.command()
@sending
def deposit(
    settlement: Settlement,
    amount: Amount,
    account: Annotated[
        str | None,
        typer.Option(**ADDRESS, help="Whose balance; the signer's own otherwise."),
    ] = None,
    allow: Annotated[
        bool, typer.Option("--allow", help="Allow the vault the amount, in a transaction before.")
    ] = False,
    typed_data: TYPED_DATA = False,
    signature: SIGNATURE = None,
    valid_before: VALID_BEFORE = None,
    salt: Annotated[
        bytes | None,
        typer.Option(**WORD, help="Of a deposit by signature; made up where needed."),
    ] = None,
) -> Answer:
    """Add to a balance in the vault.

    With --typed-data the account signs elsewhere, and --signature brings what it signed.
    """
    if not typed_data and signature is None:
        payer = signer_of(settlement)
        if allow:
            settlement.approve(amount)
        receipt = settlement.deposit(amount, account)
        return sent(receipt, {"account": account or payer, "amount": amount}, amount=usdc(amount))
    owner = account or signer_of(settlement)
    order = Deposit(account=owner, amount=amount, salt=salt or secrets.token_bytes(32))
    end = valid_before or settlement.now() + HOUR
    document = deposit_document(settlement.deployment, order, valid_after=0, valid_before=end)
    if signature is None:
        return document_answer(
            document,
            f"rapha escrow deposit {plain(amount)} --account {owner} "
            f"--salt {to_hex(order.salt)} --valid-before {end} --signature 0x…",
        )
    signed_by(settlement, document, signature, owner)
    authorization = Authorization(valid_after=0, valid_before=end, signature=signature)
    receipt = settlement.deposit_with_authorization(order, authorization)
    return sent(receipt, {"account": owner, "amount": amount}, amount=usdc(amount))


@app.command("top-up")
@sending
def top_up(
    settlement: Settlement,
    terms_file: TermsFile,
    amount: Amount,
    from_balance: Annotated[
        bool, typer.Option("--from-balance", help="From the balance in the vault.")
    ] = False,
    allow: Annotated[
        bool, typer.Option("--allow", help="Allow the vault the amount, in a transaction before.")
    ] = False,
) -> Answer:
    """Add to the escrow of a job that the signer funded."""
    signer_of(settlement)
    terms = read_terms(terms_file)
    if allow and not from_balance:
        settlement.approve(amount)
    receipt = settlement.top_up(terms, amount, from_balance=from_balance)
    return sent(receipt, {"amount": amount}, amount=usdc(amount))


@app.command()
@sending
def void(settlement: Settlement, terms_file: TermsFile) -> Answer:
    """Make sure that terms which were signed are never opened."""
    signer_of(settlement)
    return sent(settlement.void_job(read_terms(terms_file)), {})
