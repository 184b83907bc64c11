"""While a job trains, the node's own network reaches the hub, and nothing else in or out.

By nftables, in the node's network namespace, which therefore has to be its own: rules bind whatever
shares it. One transaction puts the table in place, one removes it; a table that a crash left behind
is removed at the next start.
"""

import hashlib
import ipaddress
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import structlog

from oracle.clients.edge.sandbox.errors import WanGuardUnavailable

TABLE = "rapha_edge"
Setting = Literal["required", "if_allowed", "off"]
_INITIAL_ONLY = Path("/proc/sys/net/core/netdev_max_backlog")
"""The kernel shows this setting in the machine's first network namespace alone."""
_PORTS = {"http": 80, "https": 443}
_CAP_NET_ADMIN = 1 << 12
_NFT_SECONDS = 10

log = structlog.get_logger(__name__)


class Endpoint(NamedTuple):
    """An address and a TCP port."""

    address: str
    port: int


def endpoints(urls: Iterable[str]) -> list[Endpoint]:
    """The addresses behind URLs, as the resolver knows them now.

    A name that does not resolve gives none: then it cannot be reached, and nor can anything else.
    """
    found = set()
    for url in urls:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        try:
            answers = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            log.warning("not_resolved", host=parts.hostname, detail=str(error))
            continue
        found |= {Endpoint(str(answer[4][0]), port) for answer in answers}
    return sorted(found)


def ruleset(allowed: Iterable[Endpoint]) -> str:
    """The transaction that replaces the table: only `allowed` can be reached, or can answer."""
    fourth: list[str] = []
    sixth: list[str] = []
    for address, port in allowed:
        version = ipaddress.ip_address(address).version
        (fourth if version == 4 else sixth).append(f"{address} . {port}")
    outgoing, incoming = [], []
    for family, pairs in (("ip", fourth), ("ip6", sixth)):
        if pairs:
            peers = "{ " + ", ".join(pairs) + " }"
            outgoing.append(f"{family} daddr . tcp dport {peers} accept")
            incoming.append(f"{family} saddr . tcp sport {peers} ct state established accept")
    neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
    too_large = "ct state related icmp type destination-unreachable accept"
    too_large_sixth = "ct state related icmpv6 type { packet-too-big } accept"
    chains: dict[str, list[str]] = {
        "output": ['oif "lo" accept', *outgoing, neighbours, "reject with icmpx admin-prohibited"],
        "input": ['iif "lo" accept', *incoming, neighbours, too_large, too_large_sixth],
        "forward": [],
    }
    lines = [_REMOVE, f"table inet {TABLE} {{"]
    for hook, rules in chains.items():
        lines += [f"chain {hook} {{", f"type filter hook {hook} priority 0; policy drop;"]
        lines += [*rules, "}"]
    return "\n".join([*lines, "}"]) + "\n"


# Declared first, so that it may be removed whether it was there or not.
_REMOVE = f"table inet {TABLE}\ndelete table inet {TABLE}"


class WanGuard:
    """Closes the node's network for as long as a job trains, where the machine lets it."""

    def __init__(self, setting: Setting, urls: Iterable[str]) -> None:
        self._setting = setting
        self._urls = tuple(urls)

    def check(self) -> None:
        """Pass a node that can do what it is configured to.

        Raises:
            WanGuardUnavailable: when it is required and cannot be.
        """
        why = obstacle()
        if self._setting == "required" and why is not None:
            raise WanGuardUnavailable(why)

    def clear(self) -> None:
        """Remove what a crashed node left behind.

        Raises:
            WanGuardUnavailable: when it is required and nftables does not work.
        """
        if self._setting == "off" or obstacle() is not None:
            return
        try:
            _nft(_REMOVE)
        except WanGuardUnavailable as error:
            if self._setting == "required":
                raise
            log.warning("wan_guard_not_cleared", why=error.why)

    @contextmanager
    def closed(self) -> Iterator[Mapping[str, Any]]:
        """Keep the network closed, and say in the evidence's terms how, or why not.

        Raises:
            WanGuardUnavailable: when it is required and cannot be.
        """
        why = "it is switched off" if self._setting == "off" else obstacle()
        rules = "" if why is not None else ruleset(endpoints(self._urls))
        if why is None:
            try:
                _nft(rules)
            except WanGuardUnavailable as error:  # a kernel without nf_tables, for one
                why = error.why
        if why is not None:
            if self._setting == "required":
                raise WanGuardUnavailable(why)
            log.warning("wan_open_while_training", why=why)
            yield {"guard": "none", "why": why}
            return
        try:
            yield {"guard": "nftables", "rules_sha256": hashlib.sha256(rules.encode()).hexdigest()}
        finally:
            _nft(_REMOVE)


def obstacle() -> str | None:
    """Why this process may not close its network, or None when it may."""
    if shutil.which("nft") is None:
        return "nftables is not installed"
    if not _effective_capabilities() & _CAP_NET_ADMIN:
        return "the node has no CAP_NET_ADMIN"
    if _INITIAL_ONLY.exists():
        return "the node shares the machine's network namespace, whose other users it would cut off"
    return None


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _nft(script: str) -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],
            input=script,
            text=True,
            capture_output=True,
            timeout=_NFT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WanGuardUnavailable(f"nft does not end in {_NFT_SECONDS} s") from error
    if done.returncode != 0:
        raise WanGuardUnavailable(f"nft says: {done.stderr.strip()[:500]}")
