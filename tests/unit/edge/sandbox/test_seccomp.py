import struct

import pytest

from oracle.clients.edge.sandbox import seccomp


def test_no_call_is_both_allowed_and_refused():
    assert seccomp.ALLOWED.isdisjoint(seccomp.REFUSED)
    conditional = {"clone", "prctl", "ioctl"}
    assert not conditional & (seccomp.ALLOWED | seccomp.REFUSED)


def test_the_program_is_one_that_the_kernel_can_take():
    program = seccomp.program()
    assert len(program) % 8 == 0
    assert 0 < len(program) // 8 <= 4096
    # its last words are returns: default or a verdict
    code, _, _, _ = struct.unpack("HBBI", program[-8:])
    assert code == 0x06


@pytest.mark.parametrize(
    "name",
    ["socket", "ptrace", "mount", "unshare", "setns", "bpf", "keyctl", "userfaultfd",
     "perf_event_open", "io_uring_setup", "mknod", "pidfd_getfd", "process_vm_readv", "setuid"],
)  # fmt: skip
def test_the_calls_that_matter_most_are_refused(name):
    assert name in seccomp.REFUSED


def test_another_list_gives_another_digest(monkeypatch):
    digest = seccomp.digest()
    seccomp.program.cache_clear()
    assert seccomp.digest() == digest
    monkeypatch.setattr(seccomp, "ALLOWED", seccomp.ALLOWED - {"uname"})
    seccomp.program.cache_clear()
    assert seccomp.digest() != digest
    seccomp.program.cache_clear()
