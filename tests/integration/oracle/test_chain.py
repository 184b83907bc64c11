"""The oracle's view of the real contracts on anvil."""

import pytest
from anvil import MEASUREMENT, Chain, key
from eth_account.signers.local import LocalAccount
from eth_utils import keccak

from oracle.chain import RpcChain
from oracle.errors import ChainUnavailable, Delivery
from oracle.facts import Committee, JobOpened, MeasurementChanged
from oracle.transactions import Bid, signed_row
from scripts.chain import rpc
from settlement.contracts import Authorization, Claim, Outcome, WrongChain
from settlement.eip712 import job_id, receipt_digest, sign_digest
from settlement.models import Receipt, SignedReceipt
from settlement.reverts import ContractReverted, Revert

GWEI = 10**9


@pytest.fixture
def view(chain: Chain) -> RpcChain:
    return RpcChain(str(chain.w3.provider.endpoint_uri), chain.deployment)  # type: ignore[attr-defined]


def test_the_right_deployment_passes(view: RpcChain) -> None:
    view.check()


@pytest.mark.parametrize("field", ["chain_id", "vault", "usdc", "enclave_registry", "grace_period"])
def test_a_deployment_that_is_not_this_chains_is_refused(chain: Chain, field: str) -> None:
    wrong = {
        "chain_id": 1,
        "vault": chain.deployment.usdc,
        "usdc": chain.deployment.node_registry,
        "enclave_registry": chain.deployment.node_registry,
        "grace_period": 7,
    }
    other = chain.deployment.model_copy(update={field: wrong[field]})
    with pytest.raises(WrongChain):
        RpcChain(str(chain.w3.provider.endpoint_uri), other).check()  # type: ignore[attr-defined]


def test_an_address_without_code_is_refused(chain: Chain) -> None:
    other = chain.deployment.model_copy(update={"vault": key("nobody").address})
    with pytest.raises(WrongChain, match="code of vault"):
        RpcChain(str(chain.w3.provider.endpoint_uri), other).check()  # type: ignore[attr-defined]


def test_an_endpoint_that_is_not_there_is_unavailable(chain: Chain) -> None:
    with pytest.raises(ChainUnavailable):
        RpcChain("http://127.0.0.1:1", chain.deployment).latest()


def test_governance_is_read_from_the_contracts(view: RpcChain) -> None:
    assert view.committee() == Committee(epoch=1, threshold=2)
    assert view.is_member(key("operator 0").address)
    assert not view.is_member(key("nobody").address)
    assert view.is_measurement_allowed(MEASUREMENT)
    assert not view.is_measurement_allowed(keccak(text="other"))
    assert (view.is_node_active(1), view.is_node_active(2)) == (True, False)


def test_events_become_facts_in_order(chain: Chain, view: RpcChain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    chain.payer.open_job(terms)
    facts = view.events(chain.deployment.block, view.latest())
    assert [type(fact) for fact in facts] == [MeasurementChanged, JobOpened]
    opened = facts[1]
    assert isinstance(opened, JobOpened)
    assert opened.terms == terms
    assert opened.job_id == job_id(terms, chain.deployment.vault_domain)


def test_simulating_names_each_items_outcome(chain: Chain, view: RpcChain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    chain.payer.open_job(terms)
    claims = []
    for index, (job, records) in enumerate(
        [(terms, 5), (chain.terms(salt=b"\1" * 32), 5), (terms, 0)]
    ):
        receipt = Receipt(
            job_id=job_id(job, chain.deployment.vault_domain),
            records=records,
            epochs=0,
            records_root=keccak(text=str(index)),
            output_digest=bytes(32),
            complete=False,
        )
        digest = receipt_digest(receipt, chain.deployment.vault_domain)
        signature = sign_digest(digest, key("forger").key)
        claims.append(Claim(job, SignedReceipt(receipt=receipt, signature=signature)))
    assert view.simulate_settle(claims) == [
        Outcome.ENCLAVE_REFUSED,
        Outcome.UNKNOWN_JOB,
        Outcome.NOTHING_NEW,
    ]


def test_a_call_that_would_revert_is_named(chain: Chain, view: RpcChain) -> None:
    terms = chain.terms()
    late = Authorization(valid_after=0, valid_before=1, signature=bytes(65))
    with pytest.raises(ContractReverted) as caught:
        view.estimate_gas(view.open_call(terms, late), key("payer").address)
    assert caught.value.revert is Revert.USDC_AUTHORIZATION_EXPIRED


def test_sending_twice_and_sending_late_are_told_apart(chain: Chain, view: RpcChain) -> None:
    account: LocalAccount = key("relayer")
    rpc(chain.w3, "anvil_setBalance", account.address, hex(10**21))
    rpc(chain.w3, "evm_setAutomine", False)
    row = signed_row(
        view.open_call(chain.terms(), _authorization()),
        account=account,
        chain_id=chain.deployment.chain_id,
        nonce=view.next_nonce(account.address, final=False),
        attempt=1,
        gas=500_000,
        bid=Bid(max_fee=100 * GWEI, tip=GWEI),
        since=view.latest(),
    )
    assert view.send(row.raw) is Delivery.SENT
    assert view.send(row.raw) is Delivery.KNOWN
    assert view.mined(row.hash) is None
    rpc(chain.w3, "evm_mine")
    rpc(chain.w3, "evm_setAutomine", True)
    mined = view.mined(row.hash)
    assert mined is not None
    assert (mined.block, mined.success) == (view.latest(), False)
    assert view.send(row.raw) is Delivery.NONCE_USED
    assert view.next_nonce(account.address, final=False) == row.nonce + 1


def _authorization() -> Authorization:
    return Authorization(valid_after=0, valid_before=1, signature=bytes(65))


def test_blocks_and_fees(view: RpcChain) -> None:
    final = view.finalized()
    assert view.block(final.number) == final
    assert view.block(view.latest() + 10) is None
    fees = view.fees()
    assert fees.base_fee > 0
    assert fees.tip >= 0
