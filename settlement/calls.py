"""Transactions for a wallet to send about a job, encoded without a connection to a chain."""

from web3 import Web3

from settlement.contracts import artifact, terms_ref
from settlement.deployment import Deployment
from settlement.hub.market import Call
from settlement.models import JobTerms
from settlement.types import parse_bytes


def calls_about(deployment: Deployment, terms: JobTerms) -> tuple[Call, ...]:
    """What may be sent about a job: to end it, and to have back what is left."""
    vault = Web3().eth.contract(abi=artifact("RaphaClearingVault").abi)
    reference = terms_ref(terms)

    def call(name: str, explanation: str, *, payer: bool) -> Call:
        return Call.model_validate(
            {
                "name": name,
                "to": deployment.vault,
                "data": parse_bytes(vault.encode_abi(name, args=[reference])),
                "chain_id": deployment.chain_id,
                "sender": terms.payer if payer else None,
                "explanation": explanation,
            }
        )

    return (
        call(
            "cancel",
            "Ends the job. Without a node on chain the budget is back at once; with one, finished "
            "work is still paid for a while, and then refund gives back the rest.",
            payer=True,
        ),
        call(
            "refund",
            "Closes a job whose time is over, and credits what is left to who funded it. Anyone "
            "may send it.",
            payer=False,
        ),
    )
