"""What the developer's client sends to the contracts themselves, blocking and awaited."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from anvil import DAY, GENESIS, Chain, key

from settlement.contracts import JobState
from settlement.errors import InvalidInput
from settlement.hub.rapha import AsyncRapha, Handle, Rapha
from settlement.models import JobTerms
from settlement.reverts import ContractReverted
from settlement.signer import LocalSigner

pytestmark = pytest.mark.xdist_group("anvil")

Do = Callable[[Callable[[], Any]], Any]


def blocking(call: Callable[[], Any]) -> Any:
    return call()


def awaited(call: Callable[[], Any]) -> Any:
    async def one() -> Any:
        answer = call()
        assert inspect.isawaitable(answer)
        return await answer

    return asyncio.run(one())


def client(kind: Any, chain: Chain, rpc_url: str | None) -> Any:
    signer = LocalSigner(key("payer"))
    return kind("http://hub", "no-key", chain.deployment, signer, rpc_url=rpc_url)


def handle(chain: Chain, terms: JobTerms) -> Handle:
    return Handle(chain.id(terms), terms, bytes(32))


@pytest.mark.parametrize(("kind", "do"), [(Rapha, blocking), (AsyncRapha, awaited)])
def test_balance_dispute_cancel_and_refund(waiting: Chain, kind: Any, do: Do) -> None:
    rapha = client(kind, waiting, str(waiting.w3.provider.endpoint_uri))  # type: ignore[attr-defined]
    friend = key("friend").address
    assert do(lambda: rapha.deposit(5_000_000)) == 5_000_000
    assert do(lambda: rapha.withdraw(2_000_000, to=friend)) == 3_000_000
    assert waiting.payer.usdc_balance(friend) == 2_000_000
    assert do(lambda: rapha.withdraw()) == do(lambda: rapha.balance()) == 0

    terms = waiting.open(waiting.terms())
    waiting.register_enclave()
    waiting.deployer.settle([waiting.claim(terms, 10)])
    job = rapha.job(handle(waiting, terms))
    disputed = do(lambda: job.dispute())
    assert waiting.w3.eth.get_transaction_receipt(disputed)["status"] == 1
    assert waiting.payer.earnings(1).disputes == 1
    assert do(lambda: job.cancel())
    assert waiting.payer.job(job.handle.job_id).state is JobState.CANCELLING
    with pytest.raises(ContractReverted, match="job is still payable"):
        do(lambda: job.refund())
    waiting.pass_time(GENESIS + 3 * DAY)
    assert do(lambda: job.refund())
    assert waiting.payer.job(job.handle.job_id).state is JobState.CLOSED
    assert do(lambda: rapha.balance()) == terms.budget - 500_000


def test_without_an_endpoint_nothing_is_sent(chain: Chain) -> None:
    with pytest.raises(InvalidInput, match="rpc_url"):
        client(Rapha, chain, None).deposit(1)
