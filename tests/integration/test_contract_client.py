"""`settlement.contracts.Settlement` against a real chain."""

import pytest
from anvil import DAY, GENESIS, Chain, key
from eth_account import Account
from hexbytes import HexBytes

from scripts.chain import rpc
from settlement.contracts import (
    JobState,
    Settlement,
    WrongChain,
    authorization_document,
    authorization_signer,
)
from settlement.deploy import DeploymentParameters, create, deploy
from settlement.eip712 import job_id
from settlement.errors import InvalidInput
from settlement.events import decode_events, terms_from_event
from settlement.reverts import ContractReverted, Revert
from settlement.signer import KnownKeyRefused, LocalSigner

pytestmark = pytest.mark.xdist_group("anvil")


def test_check_accepts_its_own_deployment(chain: Chain) -> None:
    chain.deployer.check()


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("chain_id", 137, "chain id"),
        ("vault", key("nobody").address, "code of vault"),
        ("usdc", None, "the vault's USDC"),
        ("enclave_registry", None, "the vault's enclaves"),
    ],
)
def test_check_names_what_is_wrong_with_a_deployment(
    chain: Chain, field: str, value: object, what: str
) -> None:
    wrong = chain.deployment.model_copy(
        update={field: chain.deployment.timelock if value is None else value}
    )
    with pytest.raises(WrongChain, match=what):
        Settlement(chain.w3, wrong).check()


def test_open_job_by_allowance_escrows_the_budget(chain: Chain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    receipt = chain.payer.open_job(terms)
    job = chain.payer.job(job_id(terms, chain.deployment.vault_domain))
    assert (job.state, job.funded, job.paid, job.node_id) == (JobState.OPEN, terms.budget, 0, 1)
    assert job.payable_until == terms.deadline + DAY
    assert chain.payer.usdc_balance(chain.deployment.vault) == terms.budget
    opened = decode_events(chain.deployment, receipt["logs"])[0]
    assert opened.name == "JobOpened"
    assert terms_from_event(opened.args) == terms


def test_open_job_with_authorization_needs_one_signature_and_no_gas_of_the_payer(
    chain: Chain,
) -> None:
    terms = chain.terms()
    authorization = chain.payer.authorize(terms)
    assert authorization_signer(chain.deployment, terms, authorization) == terms.payer
    gas_money = chain.w3.eth.get_balance(key("payer").address)
    chain.deployer.open_job_with_authorization(terms, authorization)
    assert chain.w3.eth.get_balance(key("payer").address) == gas_money
    job = chain.payer.job(job_id(terms, chain.deployment.vault_domain))
    assert (job.state, job.funded) == (JobState.OPEN, terms.budget)


def test_authorization_for_other_terms_is_refused_before_anything_is_sent(chain: Chain) -> None:
    authorization = chain.payer.authorize(chain.terms())
    dearer = chain.terms(price_per_record=60_000)
    block = chain.w3.eth.block_number
    with pytest.raises(ContractReverted) as refused:
        chain.deployer.open_job_with_authorization(dearer, authorization)
    assert refused.value.revert is Revert.USDC_INVALID_SIGNATURE
    assert chain.w3.eth.block_number == block


def test_authorize_refuses_terms_of_another_payer(chain: Chain) -> None:
    with pytest.raises(InvalidInput, match="cannot sign for the payer"):
        chain.deployer.authorize(chain.terms())


def test_a_revert_is_typed_and_says_whether_to_try_again(chain: Chain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    chain.payer.open_job(terms)
    with pytest.raises(ContractReverted) as refused:
        chain.payer.refund(terms)
    assert refused.value.revert is Revert.VAULT_JOB_IS_STILL_PAYABLE
    assert not refused.value.final
    with pytest.raises(ContractReverted) as refused:
        chain.payer.open_job(terms)
    assert refused.value.code == "VAULT_JOB_EXISTS"
    assert refused.value.final


def test_a_dead_node_costs_the_payer_nothing_but_time(chain: Chain) -> None:
    terms = chain.terms()
    chain.payer.approve(terms.budget)
    chain.payer.open_job(terms)
    rpc(chain.w3, "evm_setNextBlockTimestamp", terms.deadline + DAY + 1)
    rpc(chain.w3, "evm_mine")
    before = chain.payer.usdc_balance(terms.payer)
    chain.deployer.refund(terms)
    chain.deployer.withdraw_for(terms.payer)
    assert chain.payer.usdc_balance(terms.payer) == before + terms.budget


def test_writing_without_a_signer_says_so(chain: Chain) -> None:
    with pytest.raises(InvalidInput, match="needs a signer"):
        Settlement(chain.w3, chain.deployment).withdraw()


def test_test_contracts_and_short_delays_are_refused_on_a_real_chain(chain: Chain) -> None:
    rpc(chain.w3, "anvil_setChainId", 137)
    try:
        signer = LocalSigner(key("deployer"))
        with pytest.raises(InvalidInput, match="is for tests"):
            create(chain.w3, signer, "TestUSDC", [])
        with pytest.raises(InvalidInput, match="delay on chain 137"):
            deploy(
                chain.w3,
                signer,
                chain.deployment.usdc,
                DeploymentParameters(
                    proposers=(signer.address,),
                    guardian=signer.address,
                    registrar=signer.address,
                    protocol=signer.address,
                    committee=(signer.address,),
                    threshold=1,
                    grace_period=DAY,
                    timelock_delay=DAY,
                ),
            )
    finally:
        rpc(chain.w3, "anvil_setChainId", 31337)


def test_foreign_logs_are_left_out(chain: Chain) -> None:
    receipt = chain.payer.approve(1)
    assert receipt["logs"]
    assert decode_events(chain.deployment, receipt["logs"]) == []


def test_now_is_the_chain_s_clock(chain: Chain) -> None:
    assert chain.payer.now() >= GENESIS
    assert chain.payer.now() == chain.w3.eth.get_block("latest")["timestamp"]


def test_a_key_that_everybody_knows_is_refused_where_money_is_real(chain: Chain) -> None:
    junk = "test test test test test test test test test test test junk"
    Account.enable_unaudited_hdwallet_features()
    known = LocalSigner(Account.from_mnemonic(junk))
    call = {"to": chain.deployment.vault, "data": HexBytes("0x"), "gas": 21_000}
    document = authorization_document(
        chain.deployment.model_copy(update={"chain_id": 137}),
        chain.terms(payer=known.address),
        valid_after=0,
        valid_before=1,
    )
    with pytest.raises(KnownKeyRefused):
        known.sign_typed_data(document)
    rpc(chain.w3, "anvil_setChainId", 137)
    try:
        with pytest.raises(KnownKeyRefused):
            known.send(chain.w3, call)
    finally:
        rpc(chain.w3, "anvil_setChainId", 31337)
