"""The terms name the rules and the parameters, and nothing else."""

import hashlib
import json

import pytest
from eth_utils import keccak

from oracle.clients.edge.policy.digest import RULES, base_rules, policy_digest
from settlement import digests


def test_the_digest_is_of_each_rule_file_and_the_parameters(policy):
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in RULES.iterdir()}
    document = {"rules": files, "parameters": policy.model_dump(mode="json")}
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert policy_digest(policy) == keccak(text)


@pytest.mark.parametrize(
    "rules",
    [
        {"a.rego": b"package b"},
        {"b.rego": b"package a"},
        {"a.rego": b"package a", "b.rego": b""},
        {},
    ],
)
def test_another_name_or_content_is_another_digest(rules):
    one = digests.policy_digest({"a.rego": b"package a"}, {"max": 1})
    assert digests.policy_digest(rules, {"max": 1}) != one
    assert digests.policy_digest({"a.rego": b"package a"}, {"max": 2}) != one


def test_the_rules_cannot_be_changed_in_memory():
    with pytest.raises(TypeError):
        base_rules()["training.rego"] = b""
