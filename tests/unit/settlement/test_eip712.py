"""Typed data, domains and signatures."""

from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from settlement.eip712 import (
    TYPES,
    Domain,
    assignment_digest,
    enclave_registry_domain,
    encode_type,
    intent_digest,
    job_id,
    message_of,
    receipt_digest,
    recover_signer,
    referenced,
    sign_digest,
    type_hash,
    typed_data,
    usdc_domain,
    vault_domain,
)
from settlement.errors import InvalidInput, InvalidSignature, RaphaError
from settlement.models import (
    MAX_BUDGET,
    MAX_NODE_ID,
    Assignment,
    Deposit,
    EnclaveRegistration,
    JobTerms,
    OpenJobs,
    Receipt,
    Sponsorship,
    Withdrawal,
    Work,
)
from settlement.types import Frozen

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = keccak(text="a key")
SIGNER = Account.from_key(KEY).address
DIGEST = keccak(text="a digest")
VAULT = "0x1111111111111111111111111111111111111111"
WORK = Work(
    model_digest=b"\x01" * 32,
    dataset_digest=b"\x02" * 32,
    policy_digest=b"\x03" * 32,
    result_key_digest=b"\x04" * 32,
)
TERMS = JobTerms(
    payer=SIGNER,
    node_id=1,
    price_per_record=2,
    price_per_epoch=3,
    budget=4,
    deadline=5,
    work=WORK,
    salt=b"\x05" * 32,
)


@given(st.binary(min_size=32, max_size=32), st.integers(1, ORDER - 1))
def test_signature_recovers_to_its_signer(digest: bytes, secret: int) -> None:
    key = secret.to_bytes(32, "big")
    signature = sign_digest(digest, key)
    assert len(signature) == 65
    assert signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64], "big") <= ORDER // 2
    assert recover_signer(digest, signature) == Account.from_key(key).address


def test_signature_over_another_digest_recovers_to_a_stranger() -> None:
    assert recover_signer(keccak(text="another"), sign_digest(DIGEST, KEY)) != SIGNER


@pytest.mark.parametrize("length", [0, 1, 64, 66, 130])
def test_signature_of_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidSignature, match="65 bytes r, s, v"):
        recover_signer(DIGEST, b"\x1b" * length)


@pytest.mark.parametrize("v", [0, 1, 2, 26, 29, 37, 255])
def test_v_is_27_or_28(v: int) -> None:
    with pytest.raises(InvalidSignature, match="v 27 or 28"):
        recover_signer(DIGEST, sign_digest(DIGEST, KEY)[:64] + bytes([v]))


def test_malleated_signature_is_refused() -> None:
    low = sign_digest(DIGEST, KEY)
    high = (ORDER - int.from_bytes(low[32:64], "big")).to_bytes(32, "big")
    with pytest.raises(InvalidSignature, match="upper half"):
        recover_signer(DIGEST, low[:32] + high + bytes([55 - low[64]]))


@pytest.mark.parametrize(
    "rs",
    [
        bytes(64),
        bytes(32) + b"\x01" * 32,
        b"\x01" * 32 + bytes(32),
        b"\xff" * 32 + b"\x01" * 32,
        ORDER.to_bytes(32, "big") + b"\x01" * 32,
    ],
    ids=["zero", "r zero", "s zero", "r beyond the field", "r the order"],
)
def test_signature_of_nobody_is_refused(rs: bytes) -> None:
    with pytest.raises(InvalidSignature, match="does not recover"):
        recover_signer(DIGEST, rs + b"\x1b")


def test_refused_signature_is_a_typed_final_error() -> None:
    with pytest.raises(InvalidSignature) as caught:
        recover_signer(DIGEST, b"")
    assert isinstance(caught.value, (RaphaError, InvalidInput, ValueError))
    assert (caught.value.code, caught.value.final) == ("InvalidSignature", True)


# domains


def test_separator_is_that_of_the_eips_example() -> None:
    """EIP-712's own Ether Mail domain."""
    mail = Domain("Ether Mail", "1", 1, "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC")
    expected = "f2cee375fa42b42143804025fc449deafd50cc031ca257e0b194a650a912090f"
    assert mail.separator.hex() == expected


def test_separator_of_usdc_on_ethereum_is_the_deployed_one() -> None:
    token = usdc_domain(1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48")
    expected = "06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335"
    assert token.separator.hex() == expected


def test_each_part_of_a_domain_separates() -> None:
    domains = [
        vault_domain(1, VAULT),
        vault_domain(137, VAULT),
        vault_domain(1, SIGNER),
        enclave_registry_domain(1, VAULT),
        usdc_domain(1, VAULT),
    ]
    assert len({domain.separator for domain in domains}) == len(domains)
    assert len({job_id(TERMS, domain) for domain in domains}) == len(domains)


# types


def test_encoded_type_appends_what_it_refers_to() -> None:
    assert encode_type("JobTerms") == (
        "JobTerms(address payer,uint64 nodeId,uint64 pricePerRecord,uint64 pricePerEpoch,"
        "uint64 budget,uint64 deadline,Work work,bytes32 salt)"
        "Work(bytes32 modelDigest,bytes32 datasetDigest,bytes32 policyDigest,"
        "bytes32 resultKeyDigest)"
    )
    assert type_hash("JobTerms") == keccak(text=encode_type("JobTerms"))


def test_an_array_s_type_appends_that_of_its_items() -> None:
    assert encode_type("OpenJobs") == "OpenJobs(JobTerms[] jobs)" + encode_type("JobTerms")
    assert referenced("OpenJobs") == ["JobTerms", "Work"]


@pytest.mark.parametrize(
    "model",
    [
        Work,
        JobTerms,
        Receipt,
        EnclaveRegistration,
        OpenJobs,
        Sponsorship,
        Assignment,
        Deposit,
        Withdrawal,
    ],
)
def test_model_fields_are_the_types_fields_in_order(model: Any) -> None:
    def snake(name: str) -> str:
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)

    assert list(model.model_fields) == [snake(name) for _, name in TYPES[model.__name__]]


def test_every_field_changes_the_job_id() -> None:
    domain = vault_domain(1, VAULT)
    changes: dict[str, Any] = {
        "payer": VAULT,
        "node_id": 9,
        "price_per_record": 9,
        "price_per_epoch": 9,
        "budget": 9,
        "deadline": 9,
        "work": WORK.model_copy(update={"policy_digest": bytes(32)}),
        "salt": bytes(32),
    }
    assert set(changes) == set(JobTerms.model_fields)
    ids = {
        job_id(TERMS.model_copy(update={name: value}), domain) for name, value in changes.items()
    }
    assert len(ids | {job_id(TERMS, domain)}) == len(changes) + 1


# digests


def digest_by_eth_account(domain: Domain, model: Frozen) -> bytes:
    """The digest that an independent implementation gives the document that a wallet is shown."""
    document = typed_data(domain, type(model).__name__, message_of(model))
    signable = encode_typed_data(full_message=document)
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


words = st.binary(min_size=32, max_size=32)
addresses = st.integers(1, 2**160 - 1).map(lambda number: f"0x{number:040x}")
uint64s = st.integers(0, 2**64 - 1)
amounts = st.integers(1, 2**64 - 1)
domains = st.builds(vault_domain, st.integers(1, 2**63), addresses)
works = st.builds(
    Work,
    model_digest=words,
    dataset_digest=words,
    policy_digest=words,
    result_key_digest=words,
)
all_terms = st.builds(
    JobTerms,
    payer=addresses,
    node_id=st.integers(0, MAX_NODE_ID),
    price_per_record=uint64s,
    price_per_epoch=uint64s,
    budget=st.integers(1, MAX_BUDGET),
    deadline=uint64s,
    work=works,
    salt=words,
)


@given(domains, st.builds(OpenJobs, jobs=st.lists(all_terms, min_size=1, max_size=4).map(tuple)))
def test_digest_of_an_order_for_jobs_is_that_of_its_document(domain: Domain, it: OpenJobs) -> None:
    assert intent_digest(it, domain) == digest_by_eth_account(domain, it)


def test_digest_of_the_longest_order_is_that_of_its_document() -> None:
    terms = [TERMS.model_copy(update={"salt": bytes(31) + bytes([i])}) for i in range(50)]
    it = OpenJobs(jobs=tuple(terms))
    domain = vault_domain(137, VAULT)
    assert intent_digest(it, domain) == digest_by_eth_account(domain, it)
    assert intent_digest(OpenJobs(jobs=it.jobs[::-1]), domain) != intent_digest(it, domain)


@given(domains, st.builds(Sponsorship, terms=all_terms, sponsor=addresses))
def test_digest_of_a_sponsorship_is_that_of_its_document(domain: Domain, it: Sponsorship) -> None:
    assert intent_digest(it, domain) == digest_by_eth_account(domain, it)


@given(
    domains,
    st.builds(
        Withdrawal, account=addresses, to=addresses, amount=amounts, nonce=uint64s, deadline=uint64s
    ),
)
def test_digest_of_a_withdrawal_is_that_of_its_document(domain: Domain, it: Withdrawal) -> None:
    assert intent_digest(it, domain) == digest_by_eth_account(domain, it)


@given(domains, st.builds(Deposit, account=addresses, amount=amounts, salt=words))
def test_digest_of_a_deposit_is_that_of_its_document(domain: Domain, it: Deposit) -> None:
    assert intent_digest(it, domain) == digest_by_eth_account(domain, it)


@given(
    domains,
    st.builds(Assignment, job_id=words, node_id=st.integers(1, MAX_NODE_ID), epoch=uint64s),
)
def test_digest_of_an_assignment_is_that_of_its_document(domain: Domain, it: Assignment) -> None:
    assert assignment_digest(it, domain) == digest_by_eth_account(domain, it)


@given(
    domains,
    all_terms,
    st.builds(
        Receipt,
        job_id=words,
        records=uint64s,
        epochs=uint64s,
        records_root=words,
        output_digest=words,
        complete=st.booleans(),
    ),
)
def test_digests_of_terms_and_receipts_are_those_of_their_documents(
    domain: Domain, terms: JobTerms, receipt: Receipt
) -> None:
    assert job_id(terms, domain) == digest_by_eth_account(domain, terms)
    assert receipt_digest(receipt, domain) == digest_by_eth_account(domain, receipt)


def test_document_has_the_form_that_wallets_read() -> None:
    document = typed_data(vault_domain(137, VAULT), "JobTerms", message_of(TERMS))
    assert set(document) == {"types", "primaryType", "domain", "message"}
    assert list(document["types"]) == ["EIP712Domain", "JobTerms", "Work"]
    assert document["domain"] == {
        "name": "RaphaClearingVault",
        "version": "1",
        "chainId": 137,
        "verifyingContract": VAULT,
    }
    assert document["message"]["work"]["modelDigest"] == "0x" + "01" * 32
    assert document["message"]["pricePerRecord"] == 2
