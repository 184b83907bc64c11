"""Random calls, made from the ABI alone; `Scene.near_calls` only lends them values."""

from typing import Any

from boa.util.abi import abi_encode
from eth_utils import function_signature_to_4byte_selector
from fuzz.scene import Scene
from hypothesis import strategies as st

MOSTLY = [False, False, False, True]


def type_of(entry: dict[str, Any]) -> str:
    """An ABI entry's type, tuples spelt out."""
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    inner = ",".join(type_of(component) for component in entry["components"])
    return f"({inner}){kind.removeprefix('tuple')}"


def signature_of(function: dict[str, Any]) -> str:
    """`(type,type)` of a function's arguments."""
    return f"({','.join(type_of(entry) for entry in function['inputs'])})"


def selector_of(function: dict[str, Any]) -> bytes:
    """The four bytes that name a function."""
    return function_signature_to_4byte_selector(function["name"] + signature_of(function))


def encode(function: dict[str, Any], arguments: tuple[Any, ...]) -> bytes:
    """Calldata."""
    return selector_of(function) + abi_encode(signature_of(function), list(arguments))


def values(scene: Scene, entry: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Anything that an argument's type admits: extremes, numbers at edges, known ids, random."""
    kind: str = entry["type"]
    if kind.endswith("]"):
        inner, _, size = kind[:-1].rpartition("[")
        item = values(scene, {**entry, "type": inner})
        return (
            st.lists(item, min_size=int(size), max_size=int(size))
            if size
            else st.lists(item, max_size=3)
        )
    if kind == "tuple":
        return st.tuples(*(values(scene, component) for component in entry["components"]))
    if kind == "address":
        return st.sampled_from(scene.accounts)
    if kind == "bool":
        return st.booleans()
    if kind == "bytes":
        return st.one_of(
            st.binary(max_size=200), st.sampled_from([b"", bytes(65), b"\xff" * 1_024])
        )
    if kind == "string":
        return st.text(max_size=40)
    if kind.startswith("bytes"):
        size = int(kind.removeprefix("bytes"))
        known = [bytes(size), b"\xff" * size, *(i for i in sorted(scene.job_ids) if size == 32)]
        return st.one_of(st.sampled_from(known), st.binary(min_size=size, max_size=size))
    bits = int(kind.removeprefix("uint"))
    edges = [number for number in scene.interesting if number < 2**bits]
    return st.one_of(st.sampled_from(edges), st.integers(0, 2**bits - 1))


@st.composite
def mixed(draw: st.DrawFn, scene: Scene, entry: dict[str, Any], near: Any) -> Any:
    """A value that would do, or with a part of it replaced, or anything."""
    if draw(st.sampled_from(MOSTLY)):
        return draw(values(scene, entry))
    if entry["type"] == "tuple" and draw(st.booleans()):
        at = draw(st.integers(0, len(near) - 1))
        part = draw(values(scene, entry["components"][at]))
        return (*near[:at], part, *near[at + 1 :])
    return near


@st.composite
def arguments(
    draw: st.DrawFn, scene: Scene, contract: str, function: dict[str, Any]
) -> tuple[Any, ...]:
    """Arguments for a function, near such that would succeed where some are known."""
    inputs = function["inputs"]
    near = [
        call
        for call in scene.near_calls.get((contract, function["name"]), [])
        if len(call) == len(inputs)
    ]
    if not near or draw(st.sampled_from(MOSTLY)):
        return tuple(draw(values(scene, entry)) for entry in inputs)
    chosen = draw(st.sampled_from(near))
    if draw(st.booleans()):
        return chosen
    return tuple(
        draw(mixed(scene, entry, value)) for entry, value in zip(inputs, chosen, strict=True)
    )
