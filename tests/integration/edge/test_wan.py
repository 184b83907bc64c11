"""The guard of the node's network, in namespaces made for it: a node, and a hub across a cable."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oracle.clients.edge.sandbox.errors import WanGuardUnavailable
from oracle.clients.edge.sandbox.wan import WanGuard, obstacle

ROOT = Path(__file__).parents[3]

# Answers on 8000 (the hub), 9000 (an oracle), 9100 (an echo) and UDP 53; for each line that it
# reads it tries to reach the node, for so many seconds.
PEER = """
import socket, threading
def answer(server):
    while True:
        connection, _ = server.accept()
        connection.sendall(b"hello"); connection.close()
def echo(server):
    connection, _ = server.accept()
    while data := connection.recv(100): connection.sendall(data)
for port, serve in ((8000, answer), (9000, answer), (9100, echo)):
    server = socket.create_server(("10.99.0.2", port))
    threading.Thread(target=serve, args=(server,), daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("10.99.0.2", 53))
print("ready", flush=True)
import sys
for line in sys.stdin:
    with socket.socket() as s:
        s.settimeout(float(line))
        try: s.connect(("10.99.0.1", 7000)); print("connected", flush=True)
        except OSError as error: print(type(error).__name__, flush=True)
"""

NODE = """
import errno, json, os, socket, subprocess, sys
def sh(*words): subprocess.run(words, check=True)
peer = subprocess.Popen(["unshare", "--net", sys.executable, "-c", '''
import subprocess, sys
sys.stdin.readline()
for words in (["link", "set", "lo", "up"], ["addr", "add", "10.99.0.2/24", "dev", "hub0"],
              ["link", "set", "hub0", "up"]): subprocess.run(["ip", *words], check=True)
''' + PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
own = os.stat("/proc/self/ns/net").st_ino
while os.stat(f"/proc/{peer.pid}/ns/net").st_ino == own: os.sched_yield()
sh("ip", "link", "set", "lo", "up")
sh("ip", "link", "add", "node0", "type", "veth", "peer", "name", "hub0", "netns", str(peer.pid))
sh("ip", "addr", "add", "10.99.0.1/24", "dev", "node0"); sh("ip", "link", "set", "node0", "up")
print("", file=peer.stdin, flush=True)
assert peer.stdout.readline() == "ready\\n"
listening = socket.create_server(("10.99.0.1", 7000))
local = socket.create_server(("127.0.0.1", 7001))

def reach(address, port):
    with socket.socket() as s:
        s.settimeout(10)
        try: s.connect((address, port)); return "done"
        except OSError as error: return errno.errorcode.get(error.errno, type(error).__name__)

def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try: s.connect(("10.99.0.2", 53)); s.send(b"secret.example"); s.settimeout(10); s.recv(1)
        except OSError as error: return errno.errorcode.get(error.errno, type(error).__name__)
        return "done"

def incoming(seconds):
    print(seconds, file=peer.stdin, flush=True)
    return peer.stdout.readline().strip()

def nft(what): return subprocess.run(["nft", "list", what], capture_output=True, text=True).stdout
def tables(): return nft("tables")
def tell(value): print(json.dumps(value), flush=True)
from oracle.clients.edge.sandbox.wan import WanGuard, obstacle
import structlog; structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
"""


@pytest.fixture
def node():
    """Run code as a node that has a network namespace of its own."""
    missing = [name for name in ("ip", "nft", "unshare") if shutil.which(name) is None]
    assert not missing, f"apt-get install nftables iproute2: {missing} missing"
    started = []

    def start(code: str) -> subprocess.Popen:
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); PEER = {PEER!r}\n{NODE}\n{code}"
        process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def lines(process: subprocess.Popen) -> list:
    out, _ = process.communicate(timeout=120)
    return [json.loads(line) for line in out.splitlines()]


def test_while_a_job_trains_only_the_hub_is_reached(node):
    code = """
def all(): return [reach("10.99.0.2", 8000), reach("10.99.0.2", 9000), datagram(),
                   reach("127.0.0.1", 7001)]
tell(all()[:2] + [incoming(10)])
with WanGuard("required", ["http://10.99.0.2:8000"]).closed() as evidence:
    tell(all() + [incoming(1)])
    tell(dict(evidence))
tell(all()[:2] + [incoming(10), tables()])
peer.kill()
"""
    before, during, evidence, after = lines(node(code))
    assert before == ["done", "done", "connected"]
    assert during == ["done", "EHOSTUNREACH", "EPERM", "done", "TimeoutError"]
    assert evidence["guard"] == "nftables"
    assert len(evidence["rules_sha256"]) == 64
    assert after == ["done", "done", "connected", ""]


def test_the_oracle_too_where_it_is_allowed(node):
    code = """
urls = ["http://10.99.0.2:8000", "http://10.99.0.2:9000"]
with WanGuard("required", urls).closed():
    tell([reach("10.99.0.2", 8000), reach("10.99.0.2", 9000), reach("10.99.0.2", 9001)])
peer.kill()
"""
    assert lines(node(code)) == [["done", "done", "EHOSTUNREACH"]]


def test_a_connection_from_before_is_cut_too(node):
    code = """
old = socket.create_connection(("10.99.0.2", 9100), timeout=10)
def echoed(seconds):
    old.settimeout(seconds)
    try: old.sendall(b"secret"); return old.recv(100).decode()
    except OSError as error: return type(error).__name__
tell(echoed(10))
with WanGuard("required", ["http://10.99.0.2:8000"]).closed(): tell(echoed(1))
peer.kill()
"""
    assert lines(node(code)) == ["secret", "TimeoutError"]


def test_a_hub_that_does_not_resolve_leaves_nothing_open(node):
    code = """
with WanGuard("required", ["https://hub.invalid"]).closed():
    tell([reach("10.99.0.2", 8000), reach("127.0.0.1", 7001)])
peer.kill()
"""
    assert lines(node(code))[-1] == ["EHOSTUNREACH", "done"]


def test_a_failure_while_it_is_closed_opens_it_again(node):
    code = """
try:
    with WanGuard("required", ["http://10.99.0.2:8000"]).closed(): raise ValueError
except ValueError: tell([tables(), reach("10.99.0.2", 9000)])
peer.kill()
"""
    assert lines(node(code)) == [["", "done"]]


def test_a_killed_nodes_table_is_removed_at_the_next_start(node):
    code = """
guard = WanGuard("if_allowed", ["http://10.99.0.2:8000"])
if os.fork() == 0:
    closed = guard.closed(); closed.__enter__()
    os.kill(os.getpid(), 9)
os.wait()
tell([tables().split(), reach("10.99.0.2", 9000)])
guard.clear()
tell([tables().split(), reach("10.99.0.2", 9000)])
guard.clear()
peer.kill()
"""
    assert lines(node(code)) == [
        [["table", "inet", "rapha_edge"], "EHOSTUNREACH"],
        [[], "done"],
    ]


def test_the_table_is_replaced_when_a_crash_left_one(node):
    code = """
os.system("nft add table inet rapha_edge; nft add chain inet rapha_edge other")
with WanGuard("required", ["http://10.99.0.2:8000"]).closed():
    rules = nft("ruleset")
    tell(["other" in rules, rules.count("table inet rapha_edge")])
peer.kill()
"""
    assert lines(node(code)) == [[False, 1]]


def run_as(*before: str, setting: str) -> str:
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from oracle.clients.edge.sandbox.errors import WanGuardUnavailable
from oracle.clients.edge.sandbox.wan import WanGuard
import structlog; structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
guard = WanGuard({setting!r}, ["http://127.0.0.1:1"])
try:
    guard.check(); guard.clear()
    with guard.closed() as evidence: print(dict(evidence))
except WanGuardUnavailable as error: print("refused:", error.why)
"""
    done = subprocess.run(
        [*before, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


WITHOUT = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")


@pytest.mark.skipif(os.getuid() != 0, reason="a capability is taken away")
def test_a_node_that_may_not_says_so_and_trains_only_if_that_is_allowed():
    why = "the node has no CAP_NET_ADMIN"
    assert run_as(*WITHOUT, setting="required") == f"refused: {why}"
    assert run_as(*WITHOUT, setting="if_allowed") == str({"guard": "none", "why": why})


@pytest.mark.skipif(
    not Path("/proc/sys/net/core/netdev_max_backlog").exists() or os.getuid() != 0,
    reason="these tests run in a network namespace of their own, or without its capability",
)
def test_the_machines_own_network_is_never_touched():
    why = obstacle()
    assert why is not None
    with pytest.raises(WanGuardUnavailable, match="shares the machine's network namespace"):
        WanGuard("required", ["http://127.0.0.1:1"]).check()
    before = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout
    guard = WanGuard("if_allowed", ["http://127.0.0.1:1"])
    guard.clear()
    with guard.closed() as evidence:
        during = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout
    assert evidence == {"guard": "none", "why": why}
    assert during == before


def test_switched_off_it_says_so():
    assert run_as(setting="off") == str({"guard": "none", "why": "it is switched off"})
