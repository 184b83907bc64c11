"""Claims that no honest enclave makes: each is refused by name and stops no other."""

from typing import Any

import pytest
from eth_abi import decode, encode
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from world import GRACE, OUTPUT, World, actor, reverts

from settlement.contracts import JobState, Outcome
from settlement.eip712 import sign_digest, type_hash
from settlement.models import JobTerms

RECORD = 100_000
WORDS = [
    "payer",
    "node id",
    "price per record",
    "price per epoch",
    "budget",
    "deadline",
    "work",
    "salt",
]
TOP = 2**256 - 1


@pytest.fixture
def terms(world: World) -> JobTerms:
    """An open job."""
    terms = world.terms()
    world.open(terms)
    return terms


def signed(
    world: World,
    terms: JobTerms,
    records: int = 10,
    epochs: int = 0,
    complete: int = 0,
    words: list[int] | None = None,
) -> tuple[Any, ...]:
    """A claim with any word in any place, truly signed by the node's enclave.

    `words` stand in for those of the terms, and for their hash in the receipt that is signed.
    """
    words = list(world.claim(terms).abi_value()[0]) if words is None else words
    terms_hash = keccak(
        encode(["bytes32", *["uint256"] * len(words)], [type_hash("JobTerms"), *words])
    )
    separator = world.deployment.vault_domain.separator
    job_id = keccak(b"\x19\x01" + separator + terms_hash)
    root, output = keccak(text="root"), OUTPUT if complete else bytes(32)
    values = [type_hash("Receipt"), job_id, records, epochs, root, output, complete]
    kinds = ["bytes32", "bytes32", "uint256", "uint256", "bytes32", "bytes32", "uint256"]
    digest = keccak(b"\x19\x01" + separator + keccak(encode(kinds, values)))
    signature = sign_digest(digest, actor("enclave").key)
    r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
    return (words, records, epochs, root, output, complete, r, s | (signature[64] - 27) << 255)


def settle(world: World, *claims: tuple[Any, ...]) -> list[Outcome]:
    outcomes = world.vault.settle_many(list(claims), sender=actor("anyone").address)
    return [Outcome(outcome) for outcome in outcomes]


def test_claims_of_this_form_are_paid_when_they_are_in_range(world: World, terms: JobTerms) -> None:
    """What makes the refusals below mean something."""
    assert settle(world, signed(world, terms, 10, 2)) == [Outcome.PAID]
    assert world.earnings().total == 3 * 1_000_000
    assert settle(world, signed(world, terms, 10, 2, complete=1)) == [Outcome.PAID]
    assert world.job(terms).state == JobState.CLOSED


@pytest.mark.parametrize(
    ("records", "epochs", "complete"),
    [
        (2**64, 0, 0),
        (0, 2**64, 0),
        (2**64, 2**64, 1),
        (2**255, 0, 0),
        (TOP, TOP, 1),
        (TOP // RECORD + 1, 0, 0),
        (10, 0, 2),
        (10, 0, 2**8),
        (10, 0, TOP),
    ],
)
def test_words_beyond_their_range_are_malformed_and_never_block(
    world: World, terms: JobTerms, records: int, epochs: int, complete: int
) -> None:
    bad = signed(world, terms, records, epochs, complete)
    good = world.claim(terms, 30).abi_value()
    assert settle(world, bad, good, bad) == [Outcome.MALFORMED, Outcome.PAID, Outcome.MALFORMED]
    refused = ("ReceiptRefused", {"job_id": world.job_id(terms), "outcome": Outcome.MALFORMED})
    events = world.events(world.vault)
    assert [events[0], events[2]] == [refused, refused]
    assert events[1][0] == "Settled"
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 30 * RECORD)
    assert world.vault.settle(bad, sender=actor("anyone").address) == Outcome.MALFORMED


def test_greatest_counters_in_range_are_not_malformed(world: World, terms: JobTerms) -> None:
    assert settle(world, signed(world, terms, 2**64 - 1, 2**64 - 1)) == [Outcome.PAID]
    assert world.earnings().total == terms.budget


@pytest.mark.parametrize("node_id", [0, 1])
def test_malformed_comes_before_what_the_job_is_in(world: World, node_id: int) -> None:
    terms = world.terms(1, node_id=node_id)
    world.open(terms)
    bad = signed(world, terms, 2**64)
    world.cancel(terms)
    assert settle(world, bad) == [Outcome.MALFORMED]
    world.pass_time(GRACE + 1)
    assert settle(world, bad) == [Outcome.MALFORMED]


def test_malformed_claim_for_an_unknown_job_is_an_unknown_job(world: World) -> None:
    assert settle(world, signed(world, world.terms(9), TOP, TOP, TOP)) == [Outcome.UNKNOWN_JOB]


@pytest.mark.parametrize("position", range(8), ids=WORDS)
@pytest.mark.parametrize("change", [1, 1 << 64, 1 << 160, 1 << 255])
def test_terms_changed_in_any_word_are_an_unknown_job(
    world: World, terms: JobTerms, position: int, change: int
) -> None:
    """Also in bits above an address or a uint64: nothing is cut short."""
    words = list(world.claim(terms).abi_value()[0])
    words[position] ^= change
    claim = signed(world, terms, 30, words=words)
    good = world.claim(terms, 20).abi_value()
    assert settle(world, claim, good) == [Outcome.UNKNOWN_JOB, Outcome.PAID]
    assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 20 * RECORD)


def test_invented_terms_with_huge_words_overflow_nothing(world: World, terms: JobTerms) -> None:
    """Prices, deadline and all the rest as large as a word can be, with the greatest counters."""
    good = world.claim(terms, 20).abi_value()
    for counters in ((2**64 - 1, 2**64 - 1), (TOP, TOP)):
        claim = signed(world, terms, *counters, words=[TOP] * 8)
        assert settle(world, claim, good)[0] == Outcome.UNKNOWN_JOB
        assert world.vault.settle(claim, sender=actor("anyone").address) == Outcome.UNKNOWN_JOB
    assert world.earnings().total == 20 * RECORD


@pytest.mark.parametrize(("r", "vs"), [(0, 0), (TOP, TOP), (1, 0), (0, 1 << 255), (TOP, 1)])
def test_words_that_are_no_signature_are_a_refused_enclave(
    world: World, terms: JobTerms, r: int, vs: int
) -> None:
    value = world.claim(terms, 10).abi_value()
    bad = (*value[:6], r, vs)
    assert settle(world, bad, value) == [Outcome.ENCLAVE_REFUSED, Outcome.PAID]
    assert world.earnings().total == 10 * RECORD


def test_flipped_parity_is_a_refused_enclave(world: World, terms: JobTerms) -> None:
    value = world.claim(terms, 10).abi_value()
    assert settle(world, (*value[:7], value[7] ^ 1 << 255)) == [Outcome.ENCLAVE_REFUSED]


def test_calldata_that_ends_early_pays_nothing(world: World, terms: JobTerms) -> None:
    """What is missing of a batch reads as zero, so the signature is of something else."""
    value = world.claim(terms, 1).abi_value()
    value = (*value[:7], value[7] | 1)  # the missing byte is not zero already
    batch = world.vault.settle_many.prepare_calldata([value])
    answer = world.call_raw(world.vault, batch[:-1], "anyone")
    assert decode(["uint256[]"], answer) == ((Outcome.ENCLAVE_REFUSED,),)
    single = world.vault.settle.prepare_calldata(value)
    with reverts(None):
        world.call_raw(world.vault, single[:-1], "anyone")
    assert world.earnings().total == 0


words_of_any_size = st.one_of(
    st.integers(0, 3), st.integers(0, 2**64 + 2), st.integers(TOP - 2, TOP), st.integers(0, TOP)
)


@settings(max_examples=60)
@given(
    terms_words=st.none() | st.lists(words_of_any_size, min_size=8, max_size=8),
    records=words_of_any_size,
    epochs=words_of_any_size,
    complete=words_of_any_size,
    r=st.none() | words_of_any_size,
    vs=st.none() | words_of_any_size,
    window=st.sampled_from([0, 3_600]),
)
def test_no_claim_whatever_stops_its_batch(
    terms_words: list[int] | None,
    records: int,
    epochs: int,
    complete: int,
    r: int | None,
    vs: int | None,
    window: int,
) -> None:
    with World.temporary(window=window) as world:
        terms, other = world.terms(1), world.terms(2)
        world.open(terms)
        world.open(other)
        claim = list(signed(world, terms, records, epochs, complete, terms_words))
        claim[6:] = [claim[6] if r is None else r, claim[7] if vs is None else vs]
        good = world.claim(other, 10).abi_value()
        outcome, paid = settle(world, tuple(claim), good)
        assert paid == Outcome.PAID
        assert world.state_of(other) == (JobState.ASSIGNED, other.budget, 10 * RECORD)
        sound = terms_words is None and records < 2**64 and epochs < 2**64 and complete < 2
        if outcome == Outcome.PAID:
            assert sound
            assert r is None
            assert vs is None
            assert world.job(terms).paid == terms.earned(records, epochs)
        else:
            assert world.state_of(terms) == (JobState.ASSIGNED, terms.budget, 0)
            assert (outcome == Outcome.UNKNOWN_JOB) == (terms_words is not None)
