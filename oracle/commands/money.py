"""`rapha quote`, `balance` and `withdraw`."""

from typing import Annotated

import typer

from oracle.commands.answers import Answer, plain, usdc
from oracle.commands.options import ADDRESS, AMOUNT, TIME, offline, reading, sending
from oracle.commands.options import signer_of as own
from oracle.commands.signing import HOUR, SIGNATURE, TYPED_DATA, document_answer, sent, signed_by
from settlement.amounts import format_usdc
from settlement.client import Settlement
from settlement.eip712 import message_of, typed_data
from settlement.errors import InvalidInput
from settlement.models import MAX_BUDGET, Withdrawal

Account = Annotated[str | None, typer.Argument(**ADDRESS, help="An address.")]


@offline
def quote(
    records: Annotated[int, typer.Option(min=0, help="Unique records that a job will count.")],
    epochs: Annotated[int, typer.Option(min=0, help="Epochs that it will run.")] = 1,
    price_per_record: Annotated[int, typer.Option(**AMOUNT, help="USDC.")] = 0,
    price_per_epoch: Annotated[int, typer.Option(**AMOUNT, help="USDC.")] = 0,
    budget: Annotated[int | None, typer.Option(**AMOUNT, help="USDC; is it enough?")] = None,
) -> Answer:
    """Say what a job will cost: price times count. With --budget, whether that is enough."""
    cost = records * price_per_record + epochs * price_per_epoch
    if cost > MAX_BUDGET:
        raise InvalidInput(
            f"{format_usdc(cost)} USDC is above what one job can hold "
            f"({format_usdc(MAX_BUDGET)}): make several jobs"
        )
    enough = budget is None or cost <= budget
    data = {"cost": cost, "budget": budget, "enough": enough}
    rows = [
        ("records", f"{records} at {usdc(price_per_record)}: {usdc(records * price_per_record)}"),
        ("epochs", f"{epochs} at {usdc(price_per_epoch)}: {usdc(epochs * price_per_epoch)}"),
        ("cost", usdc(cost)),
    ]
    if budget is not None:
        rest = budget - cost
        rows.append(
            ("returned", usdc(rest)) if enough else ("missing", f"{usdc(-rest)}: work stops early")
        )
    return Answer(data, tuple(rows), holds=enough)


@reading
def balance(settlement: Settlement, account: Annotated[str, typer.Argument(**ADDRESS)]) -> Answer:
    """Say what an account can withdraw from the vault, and holds in its wallet."""
    inside, outside = settlement.balance(account), settlement.usdc_balance(account)
    nonce = int(settlement.vault.functions.withdrawal_nonces(account).call())
    return Answer(
        {"account": account, "balance": inside, "wallet": outside, "withdrawal_nonce": nonce},
        (
            ("account", account),
            ("in the vault", usdc(inside)),
            ("in the wallet", usdc(outside)),
            ("signed withdrawals", str(nonce)),
        ),
    )


@sending
def withdraw(
    settlement: Settlement,
    account: Account = None,
    amount: Annotated[
        int | None, typer.Option(**AMOUNT, help="USDC; the whole balance otherwise.")
    ] = None,
    to: Annotated[str | None, typer.Option(**ADDRESS, help="To another address.")] = None,
    typed_data_only: TYPED_DATA = False,
    signature: SIGNATURE = None,
    deadline: Annotated[
        int | None, typer.Option(**TIME, help="Until when a signature counts.")
    ] = None,
) -> Answer:
    """Take USDC out of the vault.

    Without ACCOUNT the signer's own. For another's account anyone may push its whole balance to it;
    a part, or to another address, needs its signature (--typed-data, then --signature).
    """
    if typed_data_only or signature is not None:
        return _by_signature(
            settlement, account or own(settlement), amount, to, signature, deadline
        )
    signer = own(settlement)
    if account not in (None, signer):
        if amount is not None or to is not None:
            raise InvalidInput(
                f"only {account} can send a part of its balance, or to another address: "
                "have it sign with --typed-data"
            )
        taken = settlement.balance(account)
        return sent(settlement.withdraw_for(account), {"amount": taken}, amount=usdc(taken))
    whole = settlement.balance(signer)
    if amount is None and to is None:
        return sent(settlement.withdraw(), {"amount": whole}, amount=usdc(whole))
    taken = whole if amount is None else amount
    return sent(settlement.withdraw_to(to or signer, taken), {"amount": taken}, amount=usdc(taken))


def _by_signature(
    settlement: Settlement,
    account: str,
    amount: int | None,
    to: str | None,
    signature: bytes | None,
    deadline: int | None,
) -> Answer:
    taken = settlement.balance(account) if amount is None else amount
    if signature is not None and (amount is None or deadline is None):
        raise InvalidInput(
            "a signature is over an amount and a deadline: give --amount and --deadline as signed"
        )
    order = Withdrawal(
        account=account,
        to=to or account,
        amount=taken,
        nonce=int(settlement.vault.functions.withdrawal_nonces(account).call()),
        deadline=deadline or settlement.now() + HOUR,
    )
    document = typed_data(settlement.deployment.vault_domain, "Withdrawal", message_of(order))
    if signature is None:
        return document_answer(
            document,
            f"rapha withdraw {account} --amount {plain(order.amount)} --to {order.to} "
            f"--deadline {order.deadline} --signature 0x…",
        )
    signed_by(settlement, document, signature, account)
    own(settlement)
    return sent(
        settlement.withdraw_by_signature(order, signature), {"amount": taken}, amount=usdc(taken)
    )
