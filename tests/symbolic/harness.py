"""A contract that opens to view what is proven, made of the very text of the contracts.

`contracts/modules/words.vy` is imported as it is; statements that stand in the middle of a function
are cut out of it by the compiler's own parser. So a change of the contracts changes what is proven.
`edits` break the text on purpose: a proof that still holds then proves nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePath
from typing import Any

from eth_utils import function_signature_to_4byte_selector
from vyper import ast as vy_ast
from vyper.compiler import compile_from_file_input
from vyper.compiler.input_bundle import JSONInputBundle

ROOT = Path(__file__).resolve().parents[2]
VAULT = "contracts/RaphaClearingVault.vy"
REGISTRY = "contracts/RaphaNodeRegistry.vy"
WORDS = "contracts/modules/words.vy"
EARNINGS = "contracts/modules/earnings.vy"
ESCROW = "contracts/modules/escrow.vy"
NAME = PurePath("Harness.vy")

Edit = tuple[str, str, str]
"""A file, a text that stands in it once, and what replaces it."""

JOB = ("state", "sponsored", "node_id", "version", "period", "earlier", "fresh", "paid", "funded")
NODE = ("matured", "fresh", "earlier", "version", "period", "disputes")
SHARES = ("node_owner_bps", "onboarder_bps", "protocol_bps")

INTERFACE = """
from contracts.interfaces import INodeRegistry
from contracts.modules import typed_data
from contracts.modules import words

{constants}

{claim}


@external
@pure
def pack_job(job: words.Job) -> uint256:
    return words._pack_job(job)


@external
@pure
def unpack_job(word: uint256) -> words.Job:
    return words._unpack_job(word)


@external
@pure
def roll_job(job: words.Job, period: uint256) -> words.Job:
    return words._roll_job(job, period)


@external
@pure
def pack_earnings(earnings: words.Earnings) -> uint256:
    return words._pack_earnings(earnings)


@external
@pure
def unpack_earnings(word: uint256) -> words.Earnings:
    return words._unpack_earnings(word)


@external
@pure
def roll_earnings(earnings: words.Earnings, period: uint256) -> words.Earnings:
    return words._roll_earnings(earnings, period)


@external
@pure
def job_paid_at_once(job_word: uint256, amount: uint256) -> uint256:
    return {job_paid_at_once}


@external
@pure
def job_paid_fresh(job_word: uint256, amount: uint256) -> uint256:
    return {job_paid_fresh}


@external
@pure
def node_paid_at_once(earnings_word: uint256, amount: uint256) -> uint256:
    return {node_paid_at_once}


@external
@pure
def node_paid_fresh(earnings_word: uint256, amount: uint256) -> uint256:
    return {node_paid_fresh}


@external
@pure
def malformed(claim: Claim) -> bool:
    return {malformed}


@external
@pure
def price_in_range(order: typed_data.Order) -> bool:
    return {price_in_range}


@external
@pure
def earned(claim: Claim) -> uint256:
    return {earned}


@external
@pure
def allow_shares(node_owner_bps: uint256, onboarder_bps: uint256, protocol_bps: uint256):
    {allowed}


@external
@pure
def split(amount: uint256, payees: INodeRegistry.Payees) -> (uint256, uint256, uint256, uint256):
    {split}
    return hospital_amount, node_owner_amount, onboarder_amount, protocol_amount
"""


@dataclass(frozen=True)
class Harness:
    """The compiled contract: runtime code and selectors."""

    code: bytes
    creation_code: bytes
    abi: list[dict[str, Any]]

    @cached_property
    def selectors(self) -> dict[str, bytes]:
        """Function name -> selector."""
        return {
            entry["name"]: function_signature_to_4byte_selector(
                f"{entry['name']}({','.join(_type(i) for i in entry['inputs'])})"
            )
            for entry in self.abi
        }


def _type(entry: Mapping[str, Any]) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_type(c) for c in entry['components'])}){kind.removeprefix('tuple')}"


@cache
def harness(*edits: Edit) -> Harness:
    """Cut, write and compile, with the vault's own compiler settings."""
    sources = {
        str(path.relative_to(ROOT)): path.read_text()
        for pattern in ("*.vy", "modules/*.vy", "interfaces/*.vyi")
        for path in (ROOT / "contracts").glob(pattern)
    }
    for file, old, new in edits:
        assert sources[file].count(old) == 1, f"{old!r} is not once in {file}"
        sources[file] = sources[file].replace(old, new)
    sources[str(NAME)] = _source(sources)
    contents = {PurePath(path): {"content": text} for path, text in sources.items()}
    bundle = JSONInputBundle(contents, [PurePath()])
    output = compile_from_file_input(
        bundle.load_file(NAME),
        input_bundle=bundle,
        output_formats=["abi", "bytecode", "bytecode_runtime"],
    )
    return Harness(
        bytes.fromhex(output["bytecode_runtime"][2:]),
        bytes.fromhex(output["bytecode"][2:]),
        output["abi"],
    )


def _source(sources: Mapping[str, str]) -> str:
    settle = _function(sources[VAULT], "_settle")
    paid = {
        (value.args[0].node_source_code, value.args[1].node_source_code): value.node_source_code
        for value in _calls(settle, "unsafe_add")
        if " << words." in value.node_source_code
    }
    at_once, fresh = sorted((p for p in paid if p[0] == "job_word"), key=lambda p: "|" in p[1])
    node_at_once, node_fresh = sorted(
        (p for p in paid if p[0] == "run.earnings_word"), key=lambda p: "FRESH" in p[1]
    )
    assert len(paid) == 4
    (malformed,) = (
        branch.test.node_source_code
        for branch in settle.get_descendants(vy_ast.If)
        if "claim.complete > 1" in branch.test.node_source_code
    )
    (price,) = (
        check.test.node_source_code
        for check in _function(sources[ESCROW], "_enter").get_descendants(vy_ast.Assert)
        if "price" in check.test.node_source_code
    )
    (earned,) = (
        s.value.node_source_code
        for s in settle.get_descendants(vy_ast.AnnAssign)
        if s.target.node_source_code == "earned"
    )
    allowed = [
        check.node_source_code
        for check in _function(sources[REGISTRY], "set_shares").get_descendants(vy_ast.Assert)
    ]
    split = [
        s.node_source_code
        for s in _function(sources[EARNINGS], "_split").get_children(vy_ast.AnnAssign)
    ]
    assert len(allowed) == 3
    assert len(split) == 4
    registry = vy_ast.parse_to_ast(sources[REGISTRY])
    pragmas = re.findall(r"^# pragma .*$", sources[VAULT], re.M)
    constants = [
        declared.node_source_code
        for declared in registry.get_children(vy_ast.VariableDecl)
        if declared.target.node_source_code in ("BPS", "MIN_HOSPITAL_BPS", "MAX_PROTOCOL_BPS")
    ]
    (claim,) = (
        s.node_source_code
        for s in vy_ast.parse_to_ast(sources[VAULT]).get_children(vy_ast.StructDef)
        if s.name == "Claim"
    )
    return "\n".join(pragmas) + INTERFACE.format(
        constants="\n".join(constants),
        claim=claim,
        job_paid_at_once=paid[at_once],
        job_paid_fresh=paid[fresh],
        node_paid_at_once=paid[node_at_once].replace("run.", ""),
        node_paid_fresh=paid[node_fresh].replace("run.", ""),
        malformed=malformed,
        price_in_range=price,
        earned=earned,
        allowed="\n    ".join(allowed),
        split="\n    ".join(split),
    )


def _function(source: str, name: str) -> Any:
    (found,) = (
        f for f in vy_ast.parse_to_ast(source).get_children(vy_ast.FunctionDef) if f.name == name
    )
    return found


def _calls(node: Any, name: str) -> list[Any]:
    return [
        call for call in node.get_descendants(vy_ast.Call) if call.func.node_source_code == name
    ]
