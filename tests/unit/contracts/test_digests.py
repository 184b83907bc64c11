"""Python's digests are the contracts' digests and the wallets', on any values."""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account.messages import SignableMessage, encode_typed_data
from eth_utils import keccak, to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st
from world import DAY, World, actor

from settlement.contracts import (
    Claim,
    Outcome,
    abi_value,
    authorization_document,
    order,
    terms_ref,
)
from settlement.eip712 import (
    Domain,
    assignment_digest,
    intent_digest,
    job_id,
    message_of,
    receipt_digest,
    receive_authorization_digest,
    registration_digest,
    sign_digest,
    type_hash,
    typed_data,
    usdc_domain,
    work_digest,
)
from settlement.models import (
    MAX_BUDGET,
    MAX_NODE_ID,
    Assignment,
    Deposit,
    EnclaveRegistration,
    JobTerms,
    OpenJobs,
    Receipt,
    SignedReceipt,
    Sponsorship,
    Withdrawal,
    Work,
)

EXAMPLES = settings(max_examples=50)

words = st.binary(min_size=32, max_size=32)
uint64 = st.integers(0, 2**64 - 1)
addresses = st.integers(1, 2**160 - 1).map(lambda n: to_checksum_address(n.to_bytes(20, "big")))
works = st.builds(
    Work, model_digest=words, dataset_digest=words, policy_digest=words, result_key_digest=words
)
job_terms = st.builds(
    JobTerms,
    payer=addresses,
    node_id=st.integers(0, MAX_NODE_ID),
    price_per_record=uint64,
    price_per_epoch=uint64,
    budget=st.integers(1, MAX_BUDGET),
    deadline=uint64,
    work=works,
    salt=words,
)
receipts = st.builds(
    Receipt,
    job_id=words,
    records=uint64,
    epochs=uint64,
    records_root=words,
    output_digest=words,
    complete=st.booleans(),
)
registrations = st.builds(
    EnclaveRegistration,
    enclave_key=addresses,
    node_id=st.integers(1, 2**64 - 1),
    measurement=words,
    attestation_digest=words,
    encryption_key_digest=words,
    expiry=uint64,
    epoch=uint64,
)


@pytest.fixture(scope="module")
def fixed() -> Iterator[World]:
    """One world for all examples: only views are called on it."""
    with World.temporary() as world:
        yield world


def wallet_digest(document: dict[str, Any]) -> bytes:
    """What a wallet signs for a document, by eth-account's own encoder."""
    message: SignableMessage = encode_typed_data(full_message=document)
    return keccak(b"\x19" + message.version + message.header + message.body)


@EXAMPLES
@given(terms=job_terms)
def test_job_id_is_the_vaults_and_the_wallets(fixed: World, terms: JobTerms) -> None:
    domain = fixed.deployment.vault_domain
    expected = job_id(terms, domain)
    assert fixed.vault.job_id(terms.payer, order(terms)) == expected
    assert wallet_digest(typed_data(domain, "JobTerms", message_of(terms))) == expected


@EXAMPLES
@given(receipt=receipts)
def test_receipt_digest_is_the_vaults_and_the_wallets(fixed: World, receipt: Receipt) -> None:
    domain = fixed.deployment.vault_domain
    expected = receipt_digest(receipt, domain)
    assert fixed.vault.receipt_digest(abi_value(receipt)) == expected
    assert wallet_digest(typed_data(domain, "Receipt", message_of(receipt))) == expected


@EXAMPLES
@given(registration=registrations)
def test_registration_digest_is_the_registrys_and_the_wallets(
    fixed: World, registration: EnclaveRegistration
) -> None:
    domain = fixed.deployment.enclave_domain
    expected = registration_digest(registration, domain)
    assert fixed.enclaves.registration_digest(abi_value(registration)) == expected
    document = typed_data(domain, "EnclaveRegistration", message_of(registration))
    assert wallet_digest(document) == expected


intents = st.one_of(
    st.builds(OpenJobs, jobs=st.lists(job_terms, min_size=1, max_size=5).map(tuple)),
    st.builds(Sponsorship, terms=job_terms, sponsor=addresses),
    st.builds(
        Withdrawal,
        account=addresses,
        to=addresses,
        amount=st.integers(1, 2**64 - 1),
        nonce=uint64,
        deadline=uint64,
    ),
    st.builds(Deposit, account=addresses, amount=st.integers(1, 2**64 - 1), salt=words),
)


@EXAMPLES
@given(intent=intents)
def test_digest_of_what_a_payer_wants_is_the_wallets(
    fixed: World, intent: OpenJobs | Sponsorship | Withdrawal | Deposit
) -> None:
    domain = fixed.deployment.vault_domain
    document = typed_data(domain, type(intent).__name__, message_of(intent))
    assert wallet_digest(document) == intent_digest(intent, domain)


@EXAMPLES
@given(
    assignment=st.builds(
        Assignment, job_id=words, node_id=st.integers(1, MAX_NODE_ID), epoch=uint64
    )
)
def test_digest_of_an_assignment_is_the_wallets(fixed: World, assignment: Assignment) -> None:
    domain = fixed.deployment.vault_domain
    document = typed_data(domain, "Assignment", message_of(assignment))
    assert wallet_digest(document) == assignment_digest(assignment, domain)


@settings(max_examples=15)
@given(
    works=st.lists(works, min_size=1, max_size=4),
    salts=st.lists(words, min_size=4, max_size=4, unique=True),
    amount=st.integers(1, 10**6),
    lifetime=st.integers(0, 2**60),
)
def test_vault_takes_signatures_over_pythons_digests_of_all_that_a_payer_wants(
    works: list[Work], salts: list[bytes], amount: int, lifetime: int
) -> None:
    """A deposit's digest as USDC's nonce, a list of jobs, a sponsorship and a withdrawal."""
    with World.temporary() as world:
        payer, anyone = actor("payer"), actor("anyone").address
        world.fund(actor("sponsor"))
        jobs = [
            world.terms(work=work).model_copy(update={"salt": salt})
            for work, salt in zip(works, salts, strict=False)
        ]
        total = sum(terms.budget for terms in jobs) + amount
        deposit = Deposit(account=payer.address, amount=total, salt=salts[0])
        nonce = intent_digest(deposit, world.deployment.vault_domain)
        before = world.now + DAY
        signature = world.authorization(jobs[0], nonce=nonce, value=total, valid_before=before)
        world.vault.deposit_with_authorization(
            payer.address, total, 0, before, salts[0], signature, sender=anyone
        )
        sponsored = jobs[-1].model_copy(update={"salt": bytes(32), "node_id": 0})
        world.sponsor(sponsored)
        world.assign(sponsored)
        signature = world.sign_intent(OpenJobs(jobs=tuple(jobs)), payer)
        world.open_many(*jobs, signature=signature, sender=anyone)
        withdrawal = Withdrawal(
            account=payer.address,
            to=anyone,
            amount=amount,
            nonce=0,
            deadline=world.now + lifetime,
        )
        world.vault.withdraw_by_signature(
            payer.address,
            anyone,
            amount,
            withdrawal.deadline,
            world.sign_intent(withdrawal, payer),
            sender=anyone,
        )
        assert world.balance("payer") == 0
        assert all(world.job(terms).funded == terms.budget for terms in [*jobs, sponsored])


@EXAMPLES
@given(work=works)
def test_work_digest_is_the_wallets(fixed: World, work: Work) -> None:
    domain = fixed.deployment.vault_domain
    expected = keccak(b"\x19\x01" + domain.separator + work_digest(work))
    assert wallet_digest(typed_data(domain, "Work", message_of(work))) == expected


@settings(max_examples=15)
@given(work=works, salt=words)
def test_vault_settles_by_the_work_digest_what_was_opened_by_the_work(
    work: Work, salt: bytes
) -> None:
    with World.temporary() as world:
        terms = world.terms(work=work).model_copy(update={"salt": salt})
        assert world.open(terms) == world.job_id(terms)
        assert terms_ref(terms)[6] == work_digest(work)
        assert world.settle(world.claim(terms, 1)) == [Outcome.PAID]


@settings(max_examples=15)
@given(
    records=st.integers(1, 2**64 - 1),
    epochs=uint64,
    root=words,
    output=words.map(lambda word: b"\x01" + word[1:]),  # a completion's is not zero
    complete=st.booleans(),
)
def test_vault_pays_a_signature_over_pythons_receipt_digest(
    records: int, epochs: int, root: bytes, output: bytes, complete: bool
) -> None:
    with World.temporary() as world:
        terms = world.terms()
        world.open(terms)
        receipt = Receipt(
            job_id=world.job_id(terms),
            records=records,
            epochs=epochs,
            records_root=root,
            output_digest=output,
            complete=complete,
        )
        digest = receipt_digest(receipt, world.deployment.vault_domain)
        signature = sign_digest(digest, actor("enclave").key)
        claim = Claim(terms, SignedReceipt(receipt=receipt, signature=signature))
        assert world.settle(claim) == [Outcome.PAID]
        assert world.earnings().total == terms.earned(records, epochs)


@EXAMPLES
@given(
    payer=addresses,
    to=addresses,
    value=st.integers(0, 2**256 - 1),
    after=st.integers(0, 2**256 - 1),
    before=st.integers(0, 2**256 - 1),
    nonce=words,
    chain=st.integers(1, 2**64),
    usdc=addresses,
)
def test_authorisation_digest_is_the_wallets(
    payer: str, to: str, value: int, after: int, before: int, nonce: bytes, chain: int, usdc: str
) -> None:
    domain = usdc_domain(chain, usdc)
    message = {
        "from": payer,
        "to": to,
        "value": value,
        "validAfter": after,
        "validBefore": before,
        "nonce": "0x" + nonce.hex(),
    }
    expected = receive_authorization_digest(
        domain,
        payer=payer,
        to=to,
        value=value,
        valid_after=after,
        valid_before=before,
        nonce=nonce,
    )
    assert wallet_digest(typed_data(domain, "ReceiveWithAuthorization", message)) == expected


def test_wallets_signature_over_the_document_opens_the_job(fixed: World) -> None:
    """The document that the SDK shows a wallet is the one that USDC accepts."""
    with World.temporary() as world:
        terms, before = world.terms(), world.now + DAY
        document = authorization_document(
            world.deployment, terms, valid_after=0, valid_before=before
        )
        signed = actor("payer").sign_message(encode_typed_data(full_message=document))
        world.vault.open_job_with_authorization(
            terms.payer,
            order(terms),
            0,
            before,
            bytes(signed.signature),
            sender=actor("relayer").address,
        )
        assert world.job(terms).funded == terms.budget


@pytest.mark.parametrize(
    ("contract", "domain"), [("vault", "vault_domain"), ("enclaves", "enclave_domain")]
)
def test_contract_announces_the_domain_that_python_uses(
    fixed: World, contract: str, domain: str
) -> None:
    expected: Domain = getattr(fixed.deployment, domain)
    answer = getattr(fixed, contract).eip712Domain()
    assert answer[1:5] == (
        expected.name,
        expected.version,
        expected.chain_id,
        expected.verifying_contract,
    )


def test_usdcs_separator_is_pythons(fixed: World) -> None:
    assert fixed.usdc.DOMAIN_SEPARATOR() == fixed.deployment.usdc_domain.separator


def test_type_hash_of_usdcs_authorisation_is_the_published_one() -> None:
    """Circle's RECEIVE_WITH_AUTHORIZATION_TYPEHASH, as in EIP-3009."""
    published = "d099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8"
    assert type_hash("ReceiveWithAuthorization").hex() == published
