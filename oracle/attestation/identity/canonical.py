"""JSON in its one canonical form, after RFC 8785, for values without fractions."""

import json
from typing import Any

from settlement.digests import check_nesting

MAX_SAFE = 2**53 - 1
"""The largest integer that every reader of JSON reads alike."""


def parse_strictly(text: str) -> Any:
    """The value of a JSON text that every reader reads alike.

    Raises:
        ValueError: when a member occurs twice, a number is not a plain integer up to `MAX_SAFE`, a
            string cannot be encoded, it is nested too deeply, or it is not JSON.
    """
    check_nesting(text)
    value = json.loads(
        text,
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=_refuse_number,
        parse_constant=_refuse_number,
    )
    canonical_json(value).encode()
    return value


def canonical_json(value: Any) -> str:
    """The canonical text of what `parse_strictly` returned: no white space, members in order."""
    return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        # RFC 8785 orders by UTF-16 code units, Python's comparison by code points.
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return {name: _ordered(value[name]) for name in names}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member occurs twice")
    return value


def _integer(digits: str) -> int:
    if len(digits) > len(str(MAX_SAFE)) + 1 or abs(int(digits)) > MAX_SAFE or digits == "-0":
        return _refuse_number(digits)
    return int(digits)


def _refuse_number(_digits: str) -> int:
    raise ValueError("a number is not a plain integer")
