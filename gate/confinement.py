"""What a measuring child gives up before it touches a checkpoint: the network, new privileges, most of its limits.

Runs in the child's first thread, before any other exists.  Where the system does not allow something, says so and
goes on: it is a second line of defence, behind the view that holds no code.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

MAX_FILE_BYTES = 64 * 2**30
"""Of one file that the child writes."""

MAX_OPEN_FILES = 2**16

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CUDA_SET_UP = Path("/dev/nvidia-uvm")
"""Where it is missing, the driver's set-up program has to run with privileges first."""


def confine(*, network: bool, device: str) -> tuple[str, ...]:
    """Give up what loading and measuring do not need; a line for everything that was not possible.

    Args:
        network: whether this child has to reach a server; without, it gets a loopback interface of its own.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump holds weights and prompts
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    if sys.platform != "linux":
        return ("not confined: the network and new privileges can be taken away on Linux only",)
    missing = []
    try:  # when memory runs out, the kernel takes this process, not the gate and not its neighbours
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError as problem:
        missing.append(f"it is not the first to go when memory runs out ({problem.strerror})")
    if not network and (said := _without_network()) is not None:
        missing.append(f"it has the network of this machine ({said}); its libraries are told to be offline")
    if device.startswith("cuda") and not _CUDA_SET_UP.exists():
        missing.append(f"it may gain privileges, because {_CUDA_SET_UP} is not there yet")
    else:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return tuple(f"not confined: {line}" for line in missing)


def die_with_parent(signal_number: int) -> None:
    """Linux: this signal when the thread that started us ends, even while native code holds the interpreter lock.

    Goes after `confine`: a change of namespace forgets it.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal_number)


def _lower(kind: int, limit: int) -> None:
    """Set a limit that cannot be raised again; what is lower already stays."""
    soft, hard = (limit if n == resource.RLIM_INFINITY else min(n, limit) for n in resource.getrlimit(kind))
    resource.setrlimit(kind, (soft, hard))


def _without_network() -> str | None:
    """Enter a network namespace with nothing but loopback; else why not, and nothing has changed."""
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208  a namespace is entered by threads
        return "it has several threads already"
    # root keeps its other users: the sandbox for programs that a model wrote becomes one of them
    way = _own_network if os.geteuid() == 0 else own_network_and_users
    said = _tried(way)
    if said is None:
        way()
    return said


def _own_network() -> None:
    """For root.  Raises OSError."""
    _unshare(_CLONE_NEWNET)
    _raise_loopback()


def own_network_and_users() -> None:
    """For everybody else, who may have a network of their own among users of their own.  Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _raise_loopback()
    _prctl(_PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root from here on


def _tried(way: Callable[[], None]) -> str | None:
    """Try it in a copy of this process, since there is no way back; None where it works, else why not."""
    reads, writes = os.pipe()
    copy = os.fork()
    if copy == 0:
        said = b""
        try:
            way()
        except OSError as problem:
            said = str(problem.strerror).encode() or b"no reason given"
        os.write(writes, said)
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        problem_text = pipe.read().decode()
    _, status = os.waitpid(copy, 0)
    return problem_text or (None if status == 0 else f"the attempt ended with status {status}")


def _raise_loopback() -> None:
    """Libraries talk to their own processes over it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
