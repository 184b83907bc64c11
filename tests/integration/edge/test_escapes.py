"""Ways out of the sandbox, each really tried from inside it, each refused by name.

What a wall stops is also tried without the system call filter, where another wall holds, and where
none does: that shows what the filter is for.
"""

import os
import platform
import signal
import socket
import sys
from pathlib import Path

import pytest

from oracle.clients.edge.sandbox import bubblewrap, seccomp

FAMILIES = {
    name: int(getattr(socket, name))
    for name in dir(socket)
    if name.startswith("AF_") and name != "AF_UNSPEC"
}
KINDS = "[socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET]"


def test_no_socket_of_any_family_can_be_made(attack):
    assert {"AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"} < set(FAMILIES)
    assert {"AF_UNIX", "AF_CAN", "AF_TIPC"} < set(FAMILIES)
    assert max(FAMILIES.values()) < 64
    told = attack(
        f"tell({{f'{{family}} {{kind}}': attempt(socket.socket, family, kind)"
        f" for family in range(64) for kind in {KINDS}}})"
    ).told
    assert len(told) == 256
    assert set(told.values()) == {"EPERM"}


def test_without_the_filter_some_families_could_be_opened(attack):
    told = attack(
        f"tell({{name: attempt(socket.socket, family, socket.SOCK_STREAM)"
        f" for name, family in {FAMILIES!r}.items()}})",
        filtered=False,
    ).told
    assert told["AF_INET"] == told["AF_UNIX"] == "done"
    assert told["AF_PACKET"] == "EPERM", "no capability in the sandbox"


def test_without_the_filter_there_is_still_no_way_to_any_address(attack):
    told = attack(
        "def reach(family, address):\n"
        "    with socket.socket(family, socket.SOCK_STREAM) as s:\n"
        "        return attempt(s.connect, address)\n"
        "tell([reach(socket.AF_INET, ('1.1.1.1', 443)), reach(socket.AF_INET, ('10.0.0.1', 80)),\n"
        "      reach(socket.AF_INET6, ('2606:4700::1', 443)),\n"
        "      sorted(name for _, name in socket.if_nameindex())])",
        filtered=False,
    ).told
    assert told == ["ENETUNREACH", "ENETUNREACH", "ENETUNREACH", ["lo"]]


def test_the_nodes_own_sockets_are_out_of_reach(attack, tmp_path):
    """Abstract names belong to a network namespace; of the filter they are stopped before."""
    name = f"\0rapha-test-{os.getpid()}"
    code = (
        "def reach():\n"
        f"    with socket.socket(socket.AF_UNIX) as s: s.connect({name!r})\n"
        "tell(attempt(reach))"
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
        assert attack(code).told == "EPERM"
        assert attack(code, filtered=False).told == "ECONNREFUSED"


def test_the_nodes_loopback_is_out_of_reach(attack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "def reach():\n"
            f"    with socket.socket() as s: s.connect(('127.0.0.1', {port}))\n"
            "tell(attempt(reach))"
        )
        assert attack(code).told == "EPERM"
        assert attack(code, filtered=False).told == "ECONNREFUSED"


def test_each_call_that_leaves_the_sandbox_is_refused(attack, number):
    numbers = {name: number(name) for name in sorted(seccomp.REFUSED)}
    assert all(value >= 0 for value in numbers.values()), "each exists on this machine"
    told = attack(
        f"tell({{name: syscall(number, 0, 0, 0, 0, 0, 0) for name, number in {numbers!r}.items()}})"
    ).told
    assert told == dict.fromkeys(numbers, "EPERM")


def test_a_call_that_no_list_knows_is_not_there(attack, number):
    told = attack(
        f"tell([syscall({number('clone3')}, 0, 0), syscall({number('landlock_create_ruleset')},"
        " 0, 0, 1), syscall(4095)])"
    ).told
    assert told == ["ENOSYS", "ENOSYS", "ENOSYS"]


NAMESPACES = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


@pytest.mark.parametrize("name", NAMESPACES)
def test_no_namespace_can_be_made(attack, number, name):
    # clone with a namespace has no rule, so that it answers as a call that is not there
    flags = NAMESPACES[name]
    code = (
        f"told = [syscall({number('unshare')}, {flags}),\n"
        f"        syscall({number('clone')}, {flags | signal.SIGCHLD}, 0, 0, 0, 0)]\n"
        "tell(told)"
    )
    assert attack(code).told == ["EPERM", "ENOSYS"]


def test_without_the_filter_user_namespaces_are_used_up(attack, number):
    told = attack(f"tell(syscall({number('unshare')}, 0x10000000))", filtered=False).told
    assert told == "ENOSPC"


PTRACE = (
    "import time\n"
    "pid = os.fork()\n"
    "if pid == 0:\n"
    "    time.sleep(60); os._exit(0)\n"
    "tell(syscall({number}, 16, pid, 0, 0))\n"  # PTRACE_ATTACH
    "os.kill(pid, 9)"
)


def test_a_sibling_cannot_be_traced(attack, number):
    assert attack(PTRACE.format(number=number("ptrace"))).told == "EPERM"


def test_without_the_filter_a_sibling_could_be_traced(attack, number):
    assert attack(PTRACE.format(number=number("ptrace")), filtered=False).told == "done"


@pytest.mark.parametrize("filtered", [True, False])
def test_nothing_can_be_mounted(attack, number, filtered):
    told = attack(
        f"tell(syscall({number('mount')}, b'none', b'/scratch', b'tmpfs', 0, 0))",
        filtered=filtered,
    ).told
    assert told == "EPERM"


@pytest.mark.parametrize("filtered", [True, False])
def test_no_device_can_be_made(attack, filtered):
    told = attack(
        "import stat\n"
        "tell([attempt(os.mknod, '/scratch/d', stat.S_IFCHR | 0o666, os.makedev(1, 1)),\n"
        "      attempt(os.mknod, '/scratch/b', stat.S_IFBLK | 0o666, os.makedev(254, 0))])",
        filtered=filtered,
    ).told
    assert told == ["EPERM", "EPERM"]


def test_nobody_else_can_be_become(attack):
    told = attack(
        "tell([os.getuid(), attempt(os.setuid, 0), attempt(os.setgid, 0),\n"
        "      attempt(os.setgroups, [0]), os.getgroups()])"
    ).told
    assert told[:4] == [65534, "EPERM", "EPERM", "EPERM"]
    assert set(told[4]) <= {65534}


def test_without_the_filter_root_is_still_not_mapped(attack):
    told = attack("tell([attempt(os.setuid, 0), attempt(os.setgid, 0)])", filtered=False).told
    assert told == ["EINVAL", "EINVAL"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is x86's")
def test_a_32_bit_call_ends_the_process(attack):
    # mov eax, 20 (getpid); int 0x80; ret
    code = (
        "import mmap\n"
        "page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "tell(ctypes.CFUNCTYPE(ctypes.c_int)(at)() > 0)"
    )
    assert attack(code).status == -signal.SIGSYS
    assert attack(code, filtered=False).told is True


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is x86's")
def test_an_x32_call_ends_the_process(attack):
    assert attack("tell(syscall(0x40000000 + 39))").status == -signal.SIGSYS


def test_a_process_changes_nothing_about_itself_but_its_name(attack):
    told = attack(
        """
libc.prctl.restype = ctypes.c_int
def ask(option, value):
    ctypes.set_errno(0)
    done = libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)
    return "done" if done != -1 else errno.errorcode[ctypes.get_errno()]
name = ctypes.create_string_buffer(b"trainee")
# PR_SET_NAME; PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_MM
tell([ask(15, ctypes.addressof(name)), *(ask(option, 1) for option in (4, 8, 22, 36, 35))])
"""
    ).told
    assert told == ["done", *["ENOSYS"] * 5]


def test_terminal_input_cannot_be_forged(attack):
    told = attack("import fcntl\ntell(attempt(fcntl.ioctl, 0, 0x5412, b'x'))").told  # TIOCSTI
    assert told == "ENOSYS"


# files


def test_the_machine_is_not_there(attack, tmp_path):
    (tmp_path / "secret").write_text("patient 17")
    told = attack(
        "def there(path): return attempt(os.stat, path)\n"
        "tell({path: there(path) for path in ['/etc/passwd', '/etc/shadow', '/home', '/sys',"
        " '/run', '/var', '/bin', '/sbin', '/usr/bin/env', '/usr/sbin', '/boot', '/opt', '/mnt',"
        f" {str(tmp_path / 'secret')!r}, {str(Path(__file__))!r}]}})"
    ).told
    if Path(sys.executable).resolve().parent == Path("/usr/bin"):
        told.pop("/bin")  # the interpreter itself is there
    assert set(told.values()) == {"ENOENT"}


def test_only_scratch_can_be_written(attack):
    told = attack(
        "written, refused = [], set()\n"
        "for folder, below, names in os.walk('/'):\n"
        "    if folder == '/proc': below[:] = [n for n in below if not n.isdigit()\n"
        "                                       and n not in ('self', 'thread-self')]\n"
        "    if folder.count('/') > 6: below[:] = []\n"
        "    outcome = attempt(lambda: open(os.path.join(folder, 'escape'), 'x'))\n"
        "    written.append(folder) if outcome == 'done' else refused.add(outcome)\n"
        "    for name in names[:20]:\n"
        "        path = os.path.join(folder, name)\n"
        "        if not path.startswith(('/dev/', '/scratch')) and \\\n"
        "                attempt(lambda: open(path, 'r+b')) == 'done': written.append(path)\n"
        "tell([written, sorted(refused)])"
    ).told
    assert told[0] == ["/scratch"]
    assert set(told[1]) <= {"EROFS", "EACCES", "ENOENT", "EPERM"}


def test_nothing_can_be_changed_by_its_owner(attack):
    """As root started it the sandbox owns root's files, if read-only."""
    told = attack(
        "library = os.__file__\n"
        "tell([attempt(os.chmod, library, 0o777), attempt(os.unlink, library),\n"
        "      attempt(os.rename, library, '/scratch/os.py'),\n"
        "      attempt(os.link, library, '/scratch/os.py'),\n"
        "      attempt(os.chmod, '/job/trainee.py', 0o777)])"
    ).told
    assert told == ["EROFS", "EROFS", "EXDEV", "EXDEV", "EROFS"]


def test_the_kernels_settings_are_not_there(attack):
    told = attack(
        "known = {'self', 'thread-self', 'mounts', 'net'}\n"
        "readable = []\n"
        "for name in sorted(set(os.listdir('/proc')) - known):\n"
        "    path = '/proc/' + name\n"
        "    if name.isdigit(): continue\n"
        "    if os.path.isdir(path):\n"
        "        readable += [f'{name}/{inner}' for inner in os.listdir(path)]\n"
        "    elif attempt(lambda: open(path, 'rb').read(1)) == 'done': readable.append(name)\n"
        "tell([readable, attempt(open, '/proc/sys/kernel/core_pattern', 'w')])"
    ).told
    assert told[1] == "ENOENT"
    assert set(told[0]) <= set(bubblewrap.MACHINE)


def test_the_hosts_processes_are_not_there(attack):
    told = attack(
        f"tell([sorted(int(n) for n in os.listdir('/proc') if n.isdigit()), os.getpid(),\n"
        f"      attempt(os.stat, '/proc/{os.getpid()}'), attempt(os.kill, {os.getpid()}, 0),\n"
        "      sorted(os.listdir('/proc/1/root/')) == sorted(os.listdir('/'))])"
    ).told
    processes, own, status, kill, same_root = told
    assert processes == [1, own]
    assert status == "ENOENT"
    assert kill == "ESRCH"
    assert same_root is True


def test_the_sandboxs_init_cannot_be_killed_from_inside(attack):
    told = attack(
        "tell([attempt(os.kill, 1, 9), attempt(os.kill, -1, 9), os.path.exists('/proc/1/stat')])"
    ).told
    assert told == ["done", "ESRCH", True]


def test_only_four_harmless_devices_are_there(attack):
    told = attack(
        "tell([sorted(os.listdir('/dev')), {name: attempt(os.open, '/dev/' + name, os.O_RDWR)"
        " for name in ['mem', 'kmsg', 'kvm', 'fuse', 'net/tun', 'vda', 'sda', 'tty', 'ptmx',"
        " 'shm/x', 'vsock', 'tpm0', 'sgx_enclave']}])"
    ).told
    assert told[0] == ["fd", "null", "random", "urandom", "zero"]
    assert set(told[1].values()) == {"ENOENT"}


def test_no_descriptor_but_the_three_pipes_is_inherited(attack, tmp_path):
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        told = attack(
            "import stat\n"
            "held = {}\n"
            "for number in range(256):\n"
            "    try: held[number] = stat.S_ISFIFO(os.fstat(number).st_mode)\n"
            "    except OSError: pass\n"
            "tell(held)"
        ).told
    assert told == {"0": True, "1": True, "2": True}


# means


def test_a_fork_bomb_stops_at_its_limit(attack):
    told = attack(
        "import time\n"
        "count, refusal = 0, None\n"
        "while refusal is None and count < 500:\n"
        "    try:\n"
        "        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "        count += 1\n"
        "    except OSError as error: refusal = errno.errorcode[error.errno]\n"
        "tell([count, refusal])\n"
        "os._exit(0)",
        processes=32,
    ).told
    assert told == [30, "EAGAIN"], "beside init and the first"


def test_scratch_space_ends_at_its_limit(attack):
    told = attack(
        "written = 0\n"
        "def fill():\n"
        "    global written\n"
        "    with open('/scratch/hog', 'wb', buffering=0) as file:\n"
        "        while written < 64 * 2**20: written += file.write(bytes(2**16))\n"
        "outcome = attempt(fill)\n"
        "tell([outcome, written])",
        scratch_bytes=2**20,
    ).told
    assert told == ["ENOSPC", 2**20]


def test_a_process_cannot_raise_its_own_limits(attack):
    told = attack(
        "import resource\n"
        "limits = [resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU,"
        " resource.RLIMIT_FSIZE]\n"
        "def raising(limit):\n"
        "    try: resource.setrlimit(limit, (-1, -1))\n"
        "    except ValueError as error: return str(error)\n"
        "    return 'done'\n"
        "tell([raising(limit) for limit in limits])"
    ).told
    assert told == ["not allowed to raise maximum limit"] * 4
