"""Both committees on a real chain, whose precompiles are not those of the in-process EVM."""

from collections.abc import Iterator

import pytest
from eth_account import Account
from eth_utils import keccak
from py_ecc.optimized_bn128 import field_modulus
from web3 import Web3
from web3.exceptions import ContractLogicError

from scripts.chain import quiet_chain
from settlement.bls import BlsSigner
from settlement.committee import (
    BlsCommittee,
    EcdsaCommittee,
    creation,
    join_signatures,
    read_committee,
)
from settlement.contracts import artifact
from settlement.deploy import create_for_tests
from settlement.eip712 import sign_digest
from settlement.reverts import Revert, reverted
from settlement.signer import LocalSigner

pytestmark = pytest.mark.xdist_group("anvil")

DIGEST = keccak(text="digest")
KEYS = [keccak(text=f"operator {i}") for i in range(3)]
# of the mnemonic that a local chain starts with
RICH = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
SIGNERS = sorted((BlsSigner(key) for key in KEYS), key=lambda s: s.public.key)
# on the twist's curve with x = 1, and not in the group of BN254's order
OUTSIDE = b"".join(
    value.to_bytes(32, "big")
    for value in (
        0,
        1,
        0x0D1271953ED9EA0836846E70A1934187998C7F790CB4D7511B7F8DA82DE048A4,
        0x2869111D5381F072F8E2728FDB825A51AADD70E52C9830E9AB4B871C0531F1BB,
    )
)


@pytest.fixture(scope="module")
def chain() -> Iterator[Web3]:
    with quiet_chain(1_800_000_000) as w3:
        yield w3


def is_signed(w3: Web3, place: str, signatures: bytes) -> bool:
    contract = w3.eth.contract(w3.to_checksum_address(place), abi=artifact("BlsCommittee").abi)
    return bool(contract.functions.is_signed(DIGEST, signatures).call())


def refused(w3: Web3, place: str, signatures: bytes) -> Revert | None:
    with pytest.raises(ContractLogicError) as caught:
        is_signed(w3, place, signatures)
    return reverted(caught.value).revert


def test_ecdsa_committee_is_created_read_and_asked(chain: Web3) -> None:
    accounts = {str(Account.from_key(key).address): key for key in KEYS}
    place, _ = create_for_tests(chain, LocalSigner(RICH), *creation(list(accounts), 2))
    committee = read_committee(chain, place)
    members = sorted(accounts, key=lambda address: int(address, 16))
    assert committee == EcdsaCommittee(members=tuple(members), threshold=2)
    signatures = {address: sign_digest(DIGEST, key) for address, key in accounts.items()}
    joined = join_signatures(committee, signatures)
    assert is_signed(chain, place, joined)
    assert refused(chain, place, joined[:65]) is Revert.COMMITTEE_TOO_FEW_SIGNATURES
    reversed_ = joined[65:] + joined[:65]
    assert refused(chain, place, reversed_) is Revert.COMMITTEE_SIGNATURES_NOT_SORTED


def test_bls_committee_is_created_read_and_asked(chain: Web3) -> None:
    proven = [signer.prove() for signer in SIGNERS]
    place, _ = create_for_tests(chain, LocalSigner(RICH), *creation(proven, 2))
    committee = read_committee(chain, place)
    assert committee == BlsCommittee(members=tuple(s.public for s in SIGNERS), threshold=2)
    signatures = {s.public.id: s.sign(DIGEST, chain.eth.chain_id) for s in SIGNERS}
    joined = join_signatures(committee, signatures)
    assert is_signed(chain, place, joined)
    del signatures[committee.ids[1]]
    assert is_signed(chain, place, join_signatures(committee, signatures))
    negative = field_modulus - int.from_bytes(joined[32:64], "big")
    again = int.from_bytes(joined[:32], "big") + field_modulus
    for changed in (
        joined[:32] + negative.to_bytes(32, "big") + joined[64:],
        again.to_bytes(32, "big") + joined[32:],
        bytes(64) + joined[64:],
        joined[:64] + OUTSIDE + joined[192:],
        joined[:64] + bytes(128) + joined[192:],
        joined[:64] + bytes(127) + b"\1" + joined[192:],
        joined[:64] + b"\xff" * 128 + joined[192:],
        joined[:-1] + b"\1",
    ):
        assert refused(chain, place, changed) is Revert.COMMITTEE_INVALID_SIGNATURE


@pytest.mark.parametrize(
    "changes",
    [{"twin": OUTSIDE}, {"twin": bytes(128)}, {"proof": SIGNERS[1].prove().proof}],
    ids=["twin outside the group", "twin at infinity", "proof of another"],
)
def test_unproven_key_is_not_created(chain: Web3, changes: dict[str, bytes]) -> None:
    member = SIGNERS[0].prove().model_copy(update=changes)
    with pytest.raises(ContractLogicError) as caught:
        create_for_tests(chain, LocalSigner(RICH), *creation([member], 1))
    assert reverted(caught.value).revert is Revert.COMMITTEE_KEY_IS_NOT_PROVEN
