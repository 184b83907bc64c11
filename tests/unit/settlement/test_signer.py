"""Signing needs no chain: what a signer makes of typed data."""

import pytest
from ape.types import MessageSignature
from eth_account import Account
from eth_account.messages import SignableMessage
from eth_utils import keccak

from settlement.contracts import authorization_document, authorization_signer
from settlement.deployment import Deployment
from settlement.eip712 import job_id, receive_authorization_digest, sign_digest
from settlement.errors import InvalidSignature
from settlement.models import Authorization, JobTerms, Work
from settlement.signer import ApeSigner, LocalSigner

ACCOUNT = Account.from_key(keccak(text="payer"))
DEPLOYMENT = Deployment(
    chain_id=31337,
    block=0,
    vault="0x" + "11" * 20,
    node_registry="0x" + "22" * 20,
    enclave_registry="0x" + "33" * 20,
    timelock="0x" + "44" * 20,
    usdc="0x" + "55" * 20,
    grace_period=86_400,
)
TERMS = JobTerms(
    payer=ACCOUNT.address,
    node_id=1,
    price_per_record=1,
    price_per_epoch=1,
    budget=10,
    deadline=1_000,
    work=Work(
        model_digest=bytes(32),
        dataset_digest=bytes(32),
        policy_digest=bytes(32),
        result_key_digest=bytes(32),
    ),
    salt=bytes(32),
)
DOCUMENT = authorization_document(DEPLOYMENT, TERMS, valid_after=0, valid_before=99)
DIGEST = receive_authorization_digest(
    DEPLOYMENT.usdc_domain,
    payer=TERMS.payer,
    to=DEPLOYMENT.vault,
    value=TERMS.budget,
    valid_after=0,
    valid_before=99,
    nonce=job_id(TERMS, DEPLOYMENT.vault_domain),
)


class Parts:
    """An account that answers with ape's own signature type, as all of ape's accounts do."""

    address = ACCOUNT.address

    def sign_message(self, message: SignableMessage) -> MessageSignature:
        signed = ACCOUNT.sign_message(message)
        r, s = (n.to_bytes(32, "big") for n in (signed.r, signed.s))
        return MessageSignature(v=signed.v, r=r, s=s)


def test_key_in_memory_signs_the_digest_of_the_document() -> None:
    signer = LocalSigner(ACCOUNT)
    assert signer.address == ACCOUNT.address
    assert signer.sign_typed_data(DOCUMENT) == sign_digest(DIGEST, ACCOUNT.key)


def test_account_that_signs_in_parts_gives_the_same_65_bytes() -> None:
    signer = ApeSigner(Parts())
    assert signer.address == ACCOUNT.address
    assert bytes(signer.sign_typed_data(DOCUMENT)) == sign_digest(DIGEST, ACCOUNT.key)


def test_authorisation_names_its_signer() -> None:
    signature = LocalSigner(ACCOUNT).sign_typed_data(DOCUMENT)
    authorization = Authorization(valid_after=0, valid_before=99, signature=signature)
    assert authorization_signer(DEPLOYMENT, TERMS, authorization) == ACCOUNT.address
    longer = authorization.model_copy(update={"valid_before": 100})
    assert authorization_signer(DEPLOYMENT, TERMS, longer) != ACCOUNT.address


def test_authorisation_of_a_smart_wallet_names_nobody() -> None:
    authorization = Authorization(valid_after=0, valid_before=99, signature=b"\x01" * 100)
    with pytest.raises(InvalidSignature, match="65 bytes"):
        authorization_signer(DEPLOYMENT, TERMS, authorization)
