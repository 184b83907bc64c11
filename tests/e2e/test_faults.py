"""What dies in mid-job loses nothing and bills nothing twice; what is wrong is named."""

import json

import pytest
from eth_utils import keccak
from network import Bench

from oracle.client import (
    EscrowRequest,
    Evidence,
    OracleClient,
    OracleRefused,
    OracleUnavailable,
    Status,
)
from oracle.clients.edge.devplatform import DevPlatform
from oracle.clients.edge.signer import EnclaveSigner, measurement
from scripts.developer import Job
from scripts.localnet import CHAIN_ID
from settlement.contracts import JobState
from settlement.eip712 import receipt_digest, sign_digest
from settlement.enclave import report_data
from settlement.hub.client import HubRefused
from settlement.models import Receipt, SignedReceipt
from settlement.reverts import ContractReverted, Revert

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(600)]


def check_settled_exactly(bench: Bench, job: Job) -> None:
    """The job closes having paid 569 records and its epochs once, and is delivered."""
    net = bench.net
    closed = net.wait("the settlement", lambda: job.progress() and job.closed(), 240)
    assert (closed.records, closed.epochs) == (569, job.epochs)
    paid = 569 * net.price_per_record + job.epochs * net.price_per_epoch
    on_chain = net.payer().job(job.id)
    assert (on_chain.state, on_chain.paid) == (JobState.CLOSED, paid)
    assert closed.paid + closed.refunded == job.terms.budget
    delivery = job.collect()
    assert delivery.receipts[-1].receipt.output_digest == delivery.digest
    records = [signed.receipt.records for signed in delivery.receipts]
    assert records == sorted(records)


def test_an_oracle_killed_in_mid_job_loses_nothing(bench: Bench) -> None:
    job = bench.job()
    job.escrow()
    bench.wait_until_paid(job, 128)
    oracle = bench.net.processes["oracle-1"]
    oracle.stop(gently=False)
    with pytest.raises(OracleUnavailable), bench.net.oracle() as client:
        client.job(job.id)
    log = bench.net.processes["node"].log
    bench.net.wait(
        "the node noticing", lambda: '"OracleUnavailable"' in log.read_text() or None, 60
    )
    oracle.start()
    bench.net.wait_for_services()
    check_settled_exactly(bench, job)


def test_a_node_killed_in_mid_job_resumes_and_bills_no_record_twice(bench: Bench) -> None:
    job = bench.job()
    job.escrow()
    bench.wait_until_paid(job, 128)
    node = bench.net.processes["node"]
    node.stop(gently=False)
    paid = bench.net.payer().job(job.id)
    assert paid.state is JobState.ASSIGNED
    node.start()
    check_settled_exactly(bench, job)


def test_a_dead_peer_does_not_stop_the_committee(bench: Bench) -> None:
    peer = bench.net.processes["oracle-3"]
    peer.stop(gently=False)
    node = bench.net.processes["node"]
    node.stop()
    # a machine that forgot its keys is a new enclave, which two of three must vouch for
    with bench.net.oracle() as oracle:
        before = {status.enclave_key for status in oracle.nodes()}
        enclave = bench.net.folder / "node" / "enclave"
        enclave.rename(enclave.with_name("enclave-before"))
        node.start()
        bench.net.wait(
            "the new enclave's registration",
            lambda: any(n.valid and n.enclave_key not in before for n in oracle.nodes()) or None,
            90,
        )
    peer.start()
    bench.net.wait_for_services()


def test_forged_receipts_are_refused_by_name_and_pay_nothing(bench: Bench) -> None:
    job = bench.job()
    job.escrow()
    domain = bench.net.deployment.vault_domain
    forged = Receipt(
        job_id=job.id,
        records=500,
        epochs=0,
        records_root=keccak(text="root"),
        output_digest=keccak(text="output"),
        complete=True,
    )
    thief = keccak(text="a key that no committee vouched for")
    signature = sign_digest(receipt_digest(forged, domain), thief)
    with bench.net.oracle() as oracle:
        status = oracle.submit_receipt(SignedReceipt(receipt=forged, signature=signature))
        assert (status.status, status.reason) == (Status.REJECTED, "EnclaveUnknown")
    check_settled_exactly(bench, job)


def test_a_replayed_receipt_pays_nothing(bench: Bench) -> None:
    job = bench.job(epochs=5)
    job.escrow()
    check_settled_exactly(bench, job)
    paid = bench.net.payer().job(job.id).paid
    with bench.net.oracle() as oracle:
        for signed in job.collect().receipts:
            assert oracle.submit_receipt(signed).status is Status.SETTLED
    assert bench.net.payer().job(job.id).paid == paid


def test_a_budget_that_does_not_cover_the_job_is_refused_with_both_amounts(bench: Bench) -> None:
    with pytest.raises(HubRefused) as refused:
        bench.job(budget=1_000_000)
    assert refused.value.code == "BudgetTooSmall"
    assert "up to 40.45 USDC" in str(refused.value)
    assert "the budget is 1 USDC" in str(refused.value)


def test_an_unknown_job_is_named(bench: Bench) -> None:
    with bench.net.oracle() as oracle, pytest.raises(OracleRefused) as refused:
        oracle.job(keccak(text="no such job"))
    assert refused.value.code == "JobUnknown"


def test_a_blacklisted_payer_s_escrow_waits_by_name_and_opens_when_it_can(bench: Bench) -> None:
    payer = bench.net.actors.payer.address
    governance = bench.net.governance
    governance.transact(governance.usdc.functions.blacklist(payer))
    job = bench.job(epochs=3)
    authorization = bench.net.payer().authorize(job.terms)
    with bench.net.oracle() as oracle:
        oracle.submit_escrow(EscrowRequest(terms=job.terms, authorization=authorization))
        bench.net.wait(
            "the escrow's reason",
            lambda: oracle.escrow(job.id).reason == "USDC_BLACKLISTED" or None,
            30,
        )
    assert bench.net.payer().job(job.id).state is JobState.UNKNOWN
    governance.transact(governance.usdc.functions.unBlacklist(payer))
    check_settled_exactly(bench, job)


def test_a_blacklisted_payee_stops_only_itself(bench: Bench) -> None:
    job = bench.job(epochs=3)
    job.escrow()
    check_settled_exactly(bench, job)
    governance, actors = bench.net.governance, bench.net.actors
    governance.distribute(bench.net.node_id)
    governance.transact(governance.usdc.functions.blacklist(actors.onboarder.address))
    owed = governance.balance(actors.onboarder.address)
    with pytest.raises(ContractReverted) as refused:
        governance.withdraw_for(actors.onboarder.address)
    assert refused.value.revert is Revert.USDC_BLACKLISTED
    for account in (actors.hospital, actors.node_owner, actors.protocol, actors.payer):
        governance.withdraw_for(account.address)
        assert governance.balance(account.address) == 0
    governance.transact(governance.usdc.functions.unBlacklist(actors.onboarder.address))
    governance.withdraw_for(actors.onboarder.address)
    assert governance.usdc_balance(actors.onboarder.address) == owed


def test_stale_evidence_is_refused_by_name(bench: Bench) -> None:
    signer = EnclaveSigner.open(bench.net.folder / "impostor", chain_id=CHAIN_ID)
    platform = DevPlatform.load(bench.net.folder / "platform", chain_id=CHAIN_ID)
    nonce = keccak(text="a nonce of the sender's own")
    evidence = Evidence(
        node_id=bench.net.node_id,
        enclave_key=signer.enclave_key,
        encryption_key=signer.encryption_key,
        configuration=bytes(32),
        challenges=(nonce,),
        quote=platform.quote(
            measurement(),
            report_data(
                chain_id=CHAIN_ID,
                registry=bench.net.deployment.enclave_registry,
                enclave_key=signer.enclave_key,
                encryption_key=signer.encryption_key,
                nonce=nonce,
                configuration=bytes(32),
            ),
        ),
    )
    with bench.net.oracle() as oracle, pytest.raises(OracleRefused) as refused:
        oracle.submit_attestation(evidence)
    assert refused.value.code == "StaleChallenge"


def test_no_log_holds_a_key_or_a_token(bench: Bench) -> None:
    keys = [path.read_text() for path in (bench.net.folder / "keys").iterdir()]
    secrets = [key for key in keys if not key.startswith("{")]
    for text in keys:
        if text.startswith("{"):
            for group in json.loads(text).values():
                secrets.extend(group.values())
    assert len(secrets) >= 6
    for log in (bench.net.folder / "logs").iterdir():
        content = log.read_text()
        assert not [s for s in secrets if s.removeprefix("0x") in content], log.name


def test_every_operator_sees_the_same_ledger(bench: Bench) -> None:
    job = bench.job(epochs=3)
    job.escrow()
    check_settled_exactly(bench, job)
    seen = []
    for name in ("oracle-1", "oracle-2", "oracle-3"):
        with OracleClient(bench.net.url(name)) as oracle:

            def closed(oracle: OracleClient = oracle) -> tuple[int, int] | None:
                try:
                    status = oracle.job(job.id)
                except OracleRefused:
                    return None
                return (status.paid, status.refunded) if status.state.name == "CLOSED" else None

            seen.append(bench.net.wait(f"{name} following", closed, 30))
    assert len(set(seen)) == 1
