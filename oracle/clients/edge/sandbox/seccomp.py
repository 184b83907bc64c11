"""The system calls of a bundle's process: a list of what is allowed, all else refused.

A list of what is allowed, since a list of what is refused would let each new call of a newer kernel
through. Calls that no list knows answer ENOSYS, so that libraries fall back as they do on an older
kernel (`clone3`, whose flags a filter cannot read, to `clone`). Calls that would leave the sandbox
answer EPERM. A call of another architecture (32-bit, x32) kills the process.
"""

import ctypes.util
import errno
import hashlib
import os
from functools import cache

from oracle.clients.edge.sandbox.errors import SandboxUnavailable


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED = _names(
    # files
    "access chdir chmod close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2"
    " fadvise64 fallocate fchdir fchmod fchmodat fcntl fdatasync fgetxattr flistxattr flock fstat"
    " fstatfs fsync ftruncate getcwd getdents getdents64 getxattr lgetxattr link linkat listxattr"
    " llistxattr lseek lstat mkdir mkdirat newfstatat open openat pipe pipe2 pread64 preadv preadv2"
    " pwrite64 pwritev pwritev2 read readlink readlinkat readv rename renameat renameat2 rmdir"
    " sendfile stat statfs statx symlink symlinkat truncate umask unlink unlinkat utime utimensat"
    " utimes write writev"
    # memory
    " brk madvise membarrier mincore mmap mprotect mremap msync munmap"
    # threads and processes
    " arch_prctl execve exit exit_group fork futex futex_waitv getcpu getegid geteuid getgid"
    " getgroups getpgid getpgrp getpid getppid getresgid getresuid getsid gettid getuid kill"
    " prlimit64 getrlimit rseq sched_get_priority_max sched_get_priority_min sched_getaffinity"
    " sched_getparam sched_getscheduler sched_setaffinity sched_yield set_robust_list"
    " set_tid_address setpgid setsid tgkill tkill vfork wait4 waitid"
    # signals
    " pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend"
    " rt_sigtimedwait sigaltstack"
    # time
    " alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer"
    " time times"
    # waiting
    " epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd eventfd2 poll ppoll"
    " pselect6 select"
    # the machine
    " getrandom getrusage sysinfo uname"
)
"""What Python, numpy, JAX and PyTorch need, by name; no more."""

REFUSED = _names(
    # every network, AF_UNIX too: what the job needs to say goes through its two pipes
    "socket socketpair connect bind listen accept accept4 getsockname getpeername getsockopt"
    " setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg shutdown"
    # other processes
    " ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_open pidfd_getfd"
    " pidfd_send_signal"
    # other namespaces and file systems
    " unshare setns mount umount2 pivot_root chroot fsopen fsmount fsconfig fspick move_mount"
    " open_tree mount_setattr mknod mknodat open_by_handle_at name_to_handle_at swapon swapoff"
    " quotactl fanotify_init"
    # the kernel's larger surfaces, none of which training needs
    " bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register add_key"
    " request_key keyctl init_module finit_module delete_module kexec_load kexec_file_load reboot"
    " syslog acct iopl ioperm modify_ldt personality memfd_create memfd_secret execveat splice tee"
    " vmsplice shmget shmat shmctl shmdt semget semop semctl msgget msgsnd msgrcv msgctl mq_open"
    # other users, other clocks
    " setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset chown"
    " fchown lchown fchownat sethostname setdomainname settimeofday clock_settime clock_adjtime"
    " adjtimex seccomp"
)
"""What would leave the sandbox, or widen the kernel's surface: EPERM."""

_NEW_NAMESPACES = (
    0x00020000  # CLONE_NEWNS
    | 0x02000000  # CLONE_NEWCGROUP
    | 0x04000000  # CLONE_NEWUTS
    | 0x08000000  # CLONE_NEWIPC
    | 0x10000000  # CLONE_NEWUSER
    | 0x20000000  # CLONE_NEWPID
    | 0x40000000  # CLONE_NEWNET
)
_PRCTL = (
    1,  # PR_SET_PDEATHSIG
    2,  # PR_GET_PDEATHSIG
    3,  # PR_GET_DUMPABLE
    15,  # PR_SET_NAME
    16,  # PR_GET_NAME
    39,  # PR_GET_NO_NEW_PRIVS
    0x53564D41,  # PR_SET_VMA: names of memory areas
)
_IOCTL = (
    0x5401,  # TCGETS: is it a terminal?
    0x541B,  # FIONREAD
    0x5421,  # FIONBIO
    0x5450,  # FIONCLEX
    0x5451,  # FIOCLEX
)
_LOW_32_BITS = 0xFFFFFFFF

_NVIDIA = (0xFF00, ord("F") << 8)
"""Mask and value of the requests of /dev/nvidia… (their `_IOC_TYPE` is F)."""
_NVIDIA_UVM = (0x30000001, 0x30000002)
_NVIDIA_UVM_LAST = 255
"""Those of /dev/nvidia-uvm: two large numbers (to begin and to end), else small plain ones."""


@cache
def program(*, gpus: bool = False) -> bytes:
    """The filter as the kernel takes it: an array of `struct sock_filter`.

    With `gpus` it lets through what NVIDIA's driver is asked by.

    Raises:
        SandboxUnavailable: when libseccomp is not installed.
    """
    try:
        import pyseccomp as seccomp
    except (ImportError, RuntimeError) as error:
        raise SandboxUnavailable(f"libseccomp does not load ({error})") from error
    arg = seccomp.Arg
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    rules.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)  # a tree: about eight comparisons a call
    for name in sorted(ALLOWED):
        rules.add_rule(seccomp.ALLOW, name)
    for name in sorted(REFUSED):
        rules.add_rule(seccomp.ERRNO(errno.EPERM), name)
    rules.add_rule(seccomp.ALLOW, "clone", arg(0, seccomp.MASKED_EQ, _NEW_NAMESPACES, 0))
    for option in _PRCTL:
        rules.add_rule(seccomp.ALLOW, "prctl", arg(0, seccomp.MASKED_EQ, _LOW_32_BITS, option))
    for request in _IOCTL:
        rules.add_rule(seccomp.ALLOW, "ioctl", arg(1, seccomp.MASKED_EQ, _LOW_32_BITS, request))
    if gpus:
        rules.add_rule(seccomp.ALLOW, "ioctl", arg(1, seccomp.MASKED_EQ, *_NVIDIA))
        rules.add_rule(seccomp.ALLOW, "ioctl", arg(1, seccomp.LE, _NVIDIA_UVM_LAST))
        for request in _NVIDIA_UVM:
            rules.add_rule(seccomp.ALLOW, "ioctl", arg(1, seccomp.MASKED_EQ, _LOW_32_BITS, request))
    with os.fdopen(os.memfd_create("seccomp"), "w+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def digest(*, gpus: bool = False) -> bytes:
    """SHA-256 of the program."""
    return hashlib.sha256(program(gpus=gpus)).digest()


class _Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


@cache
def library_version() -> str:
    """The version of libseccomp, as in ``2.5.4``: another one may write another program."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    version = library.seccomp_version().contents
    return f"{version.major}.{version.minor}.{version.micro}"
