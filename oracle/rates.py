"""Counting requests: a library without service or store, for the oracle and its clients alike."""

import math
import time
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter


class Rate:
    """Counts per name in this process; `text` is as the `limits` library has it ("6000/minute")."""

    def __init__(self, text: str) -> None:
        self._limit = parse(text)
        self._counted = SlidingWindowCounterRateLimiter(MemoryStorage())

    def __str__(self) -> str:
        return str(self._limit)

    def hit(self, who: str, cost: int = 1) -> int | None:
        """Count a request: None; or what is too much and not counted, the seconds to wait."""
        if self._counted.hit(self._limit, who, cost=cost):
            return None
        reset = self._counted.get_window_stats(self._limit, who).reset_time
        return max(1, math.ceil(reset - time.time()))


def address_of(scope: Mapping[str, Any]) -> str:
    """By what a client without a key is counted: its address, of IPv6 the network (/64)."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
