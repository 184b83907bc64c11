"""Every denial has words, with its numbers in units that a person reads."""

import re
import string

import pytest
from unit.edge.policy.documents import RELEASE_CASES, TRAINING_CASES, encoded, release, training

from oracle.clients.edge.policy.decision import INPUT_REFUSED, UNNAMED, Denial, decide
from oracle.clients.edge.policy.digest import base_rules
from oracle.clients.edge.policy.engine import Fault
from oracle.clients.edge.policy.explain import WORDS, explain, words
from oracle.clients.edge.policy.hospital import HospitalRules

CASES = [(training, *case) for case in TRAINING_CASES.items()]
CASES += [(release, *case) for case in RELEASE_CASES.items()]


def test_words_and_rules_are_the_same_list():
    text = b"".join(base_rules().values()).decode()
    rules = set(re.findall(r'"rule": "(\w+)"', text))
    assert set(WORDS) == rules | {INPUT_REFUSED} | set(Fault)


@pytest.mark.parametrize(
    ("make", "rule", "case"), CASES, ids=[f"{m.__name__}-{r}" for m, r, _ in CASES]
)
def test_the_words_of_a_rule_tell_all_that_its_denial_carries(engine, make, rule, case):
    changes, parameters = case
    (sentence,) = explain(decide(engine, encoded(make(*changes)), HospitalRules.none()))
    named = {name for _, name, _, _ in string.Formatter().parse(WORDS[rule]) if name}
    assert named == set(parameters)
    assert not set("{}") & set(sentence)


@pytest.mark.parametrize(
    ("denial", "sentence"),
    [
        (
            Denial("consent_until", "base", {"have": 86_400, "need": 1 << 52}),
            "the job may run until 1970-01-02 00:00 UTC,"
            " and the consent ends at Unix time 4503599627370496",
        ),
        (
            Denial("privacy_epsilon", "base", {"have": 3_000_001, "need": 3_000_000}),
            "ε would come to 3, and this buyer has 3 in all",
        ),
        (
            Denial("privacy_delta", "base", {"have": 11, "need": 10}),
            "δ would come to 1.1e-14, and this buyer has 1e-14 in all",
        ),
        (
            Denial("short", "hospital", {"need": 2, "have": 1}),
            "the rule short of the hospital's own denies it (have 1, need 2)",
        ),
        (Denial("epochs", "hospital"), "the rule epochs of the hospital's own denies it"),
        (Denial(UNNAMED, "hospital"), "an unnamed rule of the hospital's own denies it"),
        (
            Denial(Fault.TIMED_OUT, "hospital", detail="no answer in 20 s"),
            "the hospital's own rules: the rules could not be evaluated: the engine took too long",
        ),
    ],
)
def test_words(denial, sentence):
    assert words(denial) == sentence
