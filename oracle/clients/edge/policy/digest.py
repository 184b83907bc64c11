"""The rules of every node, and the digest by which a job's terms name them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from settlement import digests
from settlement.hub.messages import OutputPolicy

VERSION = "rapha.policy.v2"
RULES = Path(__file__).parent / "rules"


@cache
def base_rules() -> Mapping[str, bytes]:
    """The base rules by file name: those that a hospital's own can only add to."""
    return MappingProxyType({path.name: path.read_bytes() for path in sorted(RULES.glob("*.rego"))})


def policy_digest(policy: OutputPolicy) -> bytes:
    """The terms' `policy_digest`: of the base rules with the agreed output policy."""
    return digests.policy_digest(base_rules(), policy.model_dump(mode="json"))
