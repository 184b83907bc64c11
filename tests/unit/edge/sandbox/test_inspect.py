"""Reading and judging a process from its /proc, laid out here as the kernel writes it."""

import resource

import pytest

from oracle.clients.edge.sandbox import bubblewrap
from oracle.clients.edge.sandbox.inspect import (
    Mount,
    confinement_faults,
    is_set_up,
    isolation_faults,
    observe,
)

STATUS = """Name:\tpython
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""
DEV = """Inter-|   Receive                |  Transmit
 face |bytes    packets errs drop |bytes
    lo:       0       0    0    0        0
"""
ROUTE = "Iface\tDestination\tGateway\n"
ROUTE6 = "fe80 40 0 00 0 00 00000001 lo\n"
MOUNTINFO = """65 42 0:40 /newroot / ro,nosuid,nodev,relatime - tmpfs tmpfs rw
66 65 254:0 /a /with\\040space ro,nosuid,nodev,relatime master:1 - ext4 /dev/vda rw
67 65 0:41 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
"""
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              2                    3                    seconds
Max open files            unlimited            unlimited            files
"""
TARGETS = {"/", "/with space", "/proc"}
CPU = {resource.RLIMIT_CPU: (2, 3)}


@pytest.fixture
def proc(tmp_path):
    """A /proc with one process, 7; files by path can be replaced."""

    def make(**files):
        folder = tmp_path / "7"
        texts = {
            "status": STATUS,
            "net/dev": DEV,
            "net/route": ROUTE,
            "net/ipv6_route": ROUTE6,
            "mountinfo": MOUNTINFO,
            "limits": LIMITS,
            "uid_map": "     65534          0          1\n",
            "gid_map": "     65534          0          1\n",
            **files,
        }
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        for name in bubblewrap.NAMESPACES:
            (folder / "ns").mkdir(exist_ok=True)
            (folder / "ns" / name).touch()
        (folder / "fd").mkdir()
        for number, target in enumerate(["/dev/null", *["pipe:[1]"] * 4]):
            (folder / "fd" / str(number)).symlink_to(target)
        return tmp_path

    return make


def outside():
    return dict.fromkeys(bubblewrap.NAMESPACES, -1)


def test_a_sound_sandbox_has_no_faults(proc):
    seen = observe(7, proc())
    assert seen.interfaces == ("lo",)
    assert seen.routes == ()
    assert seen.mounts[1] == Mount("/with space", "ext4", True, True, True)
    assert seen.user_map == "65534 0 1"
    assert seen.limits == {"Max cpu time": (2, 3), "Max open files": (None, None)}
    assert seen.descriptors == ("/dev/null", *["pipe"] * 4)
    assert isolation_faults(seen, outside(), TARGETS) == []
    assert confinement_faults(seen, CPU) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("net/dev", "    lo:", "  eth0:", "it has the network interfaces ['eth0']"),
        ("net/route", ROUTE, ROUTE + "eth0\t0\t1\n", "it has routes by ['eth0']"),
        ("net/ipv6_route", " lo", " eth0", "it has routes by ['eth0']"),
        ("status", "CapBnd:\t0000000000000000", "CapBnd:\t0000000000000001", "capabilities"),
        ("status", "NoNewPrivs:\t1", "NoNewPrivs:\t0", "it can gain privileges"),
        ("mountinfo", "/with\\040space", "/data", "/data is mounted"),
        ("mountinfo", "/with\\040space", "/other", "['/with space'] is not mounted"),
        ("mountinfo", "/ ro,", "/ rw,", "/ is writable"),
        ("mountinfo", "noexec", "dev", None),
        ("mountinfo", "rw,nosuid,nodev,", "rw,nosuid,", "/proc may hold devices"),
        ("mountinfo", "rw,nosuid,", "rw,", "/proc may hold set-user-id programs"),
    ],
)
def test_each_hole_is_named(proc, file, old, new, fault):
    text = {
        "net/dev": DEV,
        "net/route": ROUTE,
        "net/ipv6_route": ROUTE6,
        "status": STATUS,
        "mountinfo": MOUNTINFO,
    }[file]
    assert old in text
    faults = isolation_faults(
        observe(7, proc(**{file: text.replace(old, new)})), outside(), TARGETS
    )
    assert any(fault in found for found in faults) if fault else faults == []


@pytest.mark.parametrize("name", bubblewrap.NAMESPACES)
def test_a_shared_namespace_is_named(proc, name):
    seen = observe(7, proc())
    shared = {**outside(), name: seen.namespaces[name]}
    assert isolation_faults(seen, shared, TARGETS) == [f"it shares the {name} namespace"]


def test_a_process_without_filter_limit_or_with_a_file_is_named(proc):
    root = proc(status=STATUS.replace("Seccomp:\t2", "Seccomp:\t0"))
    (root / "7/fd/9").symlink_to("/etc/shadow")
    (root / "7/fd/4").unlink()
    assert confinement_faults(observe(7, root), {resource.RLIMIT_CPU: (2, 2)}) == [
        "its system calls are not filtered (mode 0)",
        "it holds ['/etc/shadow']",
        "it holds 3 pipes",
        'its limit "Max cpu time" is (2, 3)',
    ]


def test_a_sandbox_is_set_up_once_its_init_has_no_capability(proc):
    root = proc()
    assert is_set_up(7, root)
    text = STATUS.replace("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff")
    (root / "7/status").write_text(text)
    assert not is_set_up(7, root)
    with pytest.raises(FileNotFoundError):
        is_set_up(8, root)


def test_a_machine_without_ipv6_has_no_routes_of_it(proc):
    root = proc()
    (root / "7/net/ipv6_route").unlink()
    assert observe(7, root).routes == ()
