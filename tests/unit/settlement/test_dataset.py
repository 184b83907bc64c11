"""The commitment to a dataset, and the challenge that opens random records of it."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from settlement.dataset import (
    Answer,
    Challenge,
    ChallengeInvalid,
    DatasetCommitment,
    Record,
    challenged_indexes,
    check_answer,
    detection_probability,
    open_leaves,
)
from settlement.metering import merkle_root, record_leaf, record_salt

KEY = bytes(range(32))


def hospital(size: int) -> tuple[DatasetCommitment, list[bytes], list[Record]]:
    ids = [b"%05d" % number for number in range(size)]
    records = [Record(name, record_salt(KEY, name), b"record of " + name) for name in ids]
    leaves = [record_leaf(salt, name, record) for name, salt, record in records]
    commitment = DatasetCommitment(
        records_root=merkle_root(leaves),
        record_count=size,
        modality="tabular",
        columns=("a:float32",),
        deduplicate=False,
    )
    return commitment, leaves, records


def challenge_to(commitment: DatasetCommitment, leaves: int, nonce: bytes = KEY) -> Challenge:
    return Challenge(dataset_digest=commitment.digest, leaves=leaves, nonce=nonce)


@given(st.integers(1, 60), st.data(), st.binary(min_size=32, max_size=32))
def test_an_honest_answer_opens_every_leaf_that_was_drawn_and_no_other(
    size: int, data: st.DataObject, nonce: bytes
) -> None:
    commitment, leaves, records = hospital(size)
    challenge = challenge_to(commitment, data.draw(st.integers(1, size)), nonce)
    indexes = challenged_indexes(challenge, commitment)
    assert len(set(indexes)) == len(indexes) == challenge.leaves
    assert set(indexes) <= set(range(size))
    answer = open_leaves(challenge, commitment, leaves, records)
    assert [opening.index for opening in answer.openings] == list(indexes)
    findings = check_answer(challenge, commitment, answer)
    assert [finding.fault for finding in findings] == [None] * challenge.leaves
    shown = answer.model_dump_json()
    for index in set(range(size)) - set(indexes):
        assert records[index].record.hex() not in shown
        assert records[index].salt.hex() not in shown
    assert Answer.model_validate_json(shown) == answer


@given(st.integers(0, 2**256 - 2))
def test_the_draw_follows_from_nonce_and_root(number: int) -> None:
    commitment, _, _ = hospital(50)
    other = commitment.model_copy(update={"records_root": bytes(32)})
    nonce, next_nonce = number.to_bytes(32, "big"), (number + 1).to_bytes(32, "big")
    drawn = challenged_indexes(challenge_to(commitment, 10, nonce), commitment)
    assert drawn == challenged_indexes(challenge_to(commitment, 10, nonce), commitment)
    assert drawn != challenged_indexes(challenge_to(commitment, 10, next_nonce), commitment)
    assert drawn != challenged_indexes(challenge_to(other, 10, nonce), other)


def test_the_draw_is_pinned() -> None:
    """Both sides compute it, perhaps in other versions or languages."""
    commitment = DatasetCommitment(
        records_root=bytes(32), record_count=1000, modality="m", columns=("a",), deduplicate=True
    )
    drawn = challenged_indexes(challenge_to(commitment, 5, bytes(32)), commitment)
    assert drawn == (311, 768, 262, 2, 515)


def test_each_record_is_as_likely_as_any_other() -> None:
    commitment, _, _ = hospital(10)
    counts = [0] * 10
    for number in range(2000):
        for index in challenged_indexes(
            challenge_to(commitment, 3, number.to_bytes(32, "big")), commitment
        ):
            counts[index] += 1
    assert sum(counts) == 6000
    # six standard deviations of a binomial with n = 2000, p = 0.3
    assert all(abs(count - 600) < 123 for count in counts)


Tamper = Callable[[Answer], Answer]


def first_with(**changes: Any) -> Tamper:
    def tamper(answer: Answer) -> Answer:
        opening = answer.openings[0].model_copy(update=changes)
        return answer.model_copy(update={"openings": (opening, *answer.openings[1:])})

    return tamper


@pytest.mark.parametrize(
    ("tamper", "fault"),
    [
        (first_with(record=b"invented"), "it is not under the published root"),
        (first_with(record_id=b"invented"), "it is not under the published root"),
        (first_with(salt=bytes(32)), "it is not under the published root"),
        (first_with(path=()), "it is not under the published root"),
        (lambda a: a.model_copy(update={"openings": a.openings[1:]}), "it was not opened"),
        (
            lambda a: a.model_copy(update={"openings": a.openings + a.openings[:1]}),
            "it was opened twice",
        ),
    ],
)
def test_a_leaf_that_does_not_open_is_named(tamper: Tamper, fault: str) -> None:
    commitment, leaves, records = hospital(40)
    challenge = challenge_to(commitment, 4)
    answer = tamper(open_leaves(challenge, commitment, leaves, records))
    findings = check_answer(challenge, commitment, answer)
    assert findings[0].fault == fault
    assert [finding.fault for finding in findings[1:]] == [None] * 3


def test_an_answer_to_another_challenge_opens_nothing() -> None:
    commitment, leaves, records = hospital(4)
    answer = open_leaves(challenge_to(commitment, 4), commitment, leaves, records)
    findings = check_answer(challenge_to(commitment, 4, bytes(32)), commitment, answer)
    assert {finding.fault for finding in findings} == {"the answer is to another challenge"}


def test_one_record_under_two_leaves_is_found() -> None:
    name, salt = b"00000", record_salt(KEY, b"00000")
    record = Record(name, salt, b"the only one")
    leaves = [record_leaf(*(salt, name, b"the only one"))] * 2
    commitment = hospital(2)[0].model_copy(update={"records_root": merkle_root(leaves)})
    challenge = challenge_to(commitment, 2)
    findings = check_answer(
        challenge, commitment, open_leaves(challenge, commitment, leaves, [record] * 2)
    )
    first, second = findings
    assert (first.fault, second.fault) == (None, f"it has the record id of leaf {first.place}")


@pytest.mark.parametrize("claimed", [39, 41, 80])
def test_another_number_of_records_than_committed_does_not_open(claimed: int) -> None:
    commitment, leaves, records = hospital(40)
    lying = commitment.model_copy(update={"record_count": claimed})
    padded = [*leaves, *leaves]
    challenge = challenge_to(lying, 39)
    answer = open_leaves(challenge, lying, padded[:claimed], [*records, *records])
    assert any(finding.fault for finding in check_answer(challenge, lying, answer))


def test_a_challenge_to_another_dataset_is_refused() -> None:
    commitment, leaves, records = hospital(5)
    challenge = Challenge(dataset_digest=bytes(32), leaves=1, nonce=KEY)
    with pytest.raises(ChallengeInvalid, match="it names 0x0000"):
        open_leaves(challenge, commitment, leaves, records)


def test_no_more_leaves_than_records_can_be_asked_for() -> None:
    commitment, _, _ = hospital(5)
    with pytest.raises(ChallengeInvalid, match="asks for 6 of 5"):
        challenged_indexes(challenge_to(commitment, 6), commitment)
    with pytest.raises(ValidationError):
        challenge_to(commitment, 1025)


@pytest.mark.parametrize(
    "change",
    [
        {"deduplicate": True},
        {"record_count": 6},
        {"modality": "other"},
        {"columns": ("b:float32",)},
        {"records_root": bytes(32)},
    ],
)
def test_the_digest_binds_everything_that_a_buyer_relies_on(change: dict[str, Any]) -> None:
    commitment, _, _ = hospital(5)
    assert commitment.model_copy(update=change).digest != commitment.digest


@pytest.mark.parametrize(
    ("size", "invented", "leaves"), [(6, 2, 3), (5, 0, 3), (5, 5, 1), (7, 3, 5)]
)
def test_detection_is_the_share_of_draws_that_hit(size: int, invented: int, leaves: int) -> None:
    draws = list(combinations(range(size), leaves))
    hits = sum(1 for draw in draws if min(draw) < invented)
    assert detection_probability(size, invented, leaves) == pytest.approx(hits / len(draws))


def test_detection_at_the_documented_sizes() -> None:
    assert detection_probability(100_000, 5_000, 60) > 0.95
    assert detection_probability(100_000, 1_000, 300) > 0.95
    with pytest.raises(ValueError, match="at most"):
        detection_probability(5, 6, 1)
