"""The system's own sandboxing tools as command lines: bubblewrap, or unshare, setpriv and mount of util-linux.

Starts nothing; whether a command line isolates anything is for `proof` to find out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from gate.sandbox.limits import SCRATCH, Limits, View, environment, prlimit

_OWN_IDS = range(50_000, 60_000)
"""User ids of nobody in particular.  The kernel counts processes by user, and counts none of root's."""

_DEVICES = ("null", "urandom")


Command = Callable[[Limits, View], list[str]]
"""(limits, view) → the command line that runs what follows it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """One way to isolate; `name` is for reports."""

    name: str
    command: Command


def available() -> Iterator[Tool]:
    """The tools that are installed, the one to prefer first."""
    if not all(map(shutil.which, ("setpriv", "prlimit"))):
        return
    found: list[tuple[str, Command, Command]] = []
    if shutil.which("bwrap"):
        found.append(("bubblewrap", _bubblewrap_as_root, _bubblewrap))
    if all(map(shutil.which, ("unshare", "mount", "umount", "pivot_root", "sh"))):
        found.append(("unshare", _unshare_as_root, _unshare))
    for name, privileged, unprivileged in found:
        if os.geteuid() == 0:
            yield Tool(name=name, command=privileged)
        yield Tool(name=name, command=unprivileged)


_UNPRIVILEGED = ("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")


def _nobody() -> list[str]:
    """The command that runs what follows it as another user, where root asks for it."""
    if os.geteuid() != 0:
        return []
    number = _OWN_IDS[os.getpid() % len(_OWN_IDS)]
    return ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]


def _bubblewrap(limits: Limits, view: View) -> list[str]:
    options = [*_bubblewrap_options(limits, view), "--unshare-user", "--cap-drop", "ALL"]
    return [*_nobody(), *options, "--", *prlimit(limits)]


def _bubblewrap_as_root(limits: Limits, view: View) -> list[str]:
    # the capabilities to become another user, which that user then does not have
    wanted = [word for name in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{name}")]
    options = [*_bubblewrap_options(limits, view), "--cap-drop", "ALL", *wanted]
    return [*options, "--", *prlimit(limits), *_nobody(), *_UNPRIVILEGED]


def _bubblewrap_options(limits: Limits, view: View) -> list[str]:
    options = ["bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    options += ["--clearenv", *(word for pair in environment().items() for word in ("--setenv", *pair))]
    shown = [*view.folders, "/dev/null"]
    for above in sorted({str(parent) for place in shown for parent in PurePath(place).parents} - {"/"}):
        options += ["--perms", "755", "--dir", above]  # else nobody but root may pass
    for folder in view.folders:
        options += ["--ro-bind", folder, folder]
    for place, target in view.links:
        options += ["--symlink", target, place]
    for device in _DEVICES:
        options += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    options += ["--perms", "1777", "--size", str(limits.scratch_bytes), "--tmpfs", SCRATCH]
    return [*options, "--remount-ro", "/", "--chdir", SCRATCH]


_MOUNT_POINT = "/sys"
"""A folder that is there on every machine, that nothing needed lies in, and that only the sandbox sees covered."""

_MOUNTS = """\
root=$1 size=$2 files=$3; shift 3
mount -t tmpfs -o "size=1m,mode=755" sandbox "$root"
cd "$root"
mkdir -p dev old ".$SCRATCH"
ln -s old/proc proc
for device in null urandom; do : > "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
while [ "$1" != -- ]; do
  if [ "$1" = link ]; then
    ln -s "$3" ".$2"
  else
    if [ -d "$2" ]; then mkdir -p ".$2"; else mkdir -p ".${2%/*}"; : > ".$2"; fi
    mount --bind -o "$3" "$2" ".$2"
  fi
  shift 3
done
shift
mount -t tmpfs -o "size=$size,nr_inodes=$files,mode=1777,nosuid,nodev" scratch ".$SCRATCH"
pivot_root . old
mount -o remount,bind,ro /
umount -l /old
cd "$SCRATCH"
"$@"
"""
"""Builds a root folder of its own and runs what follows `--` in it.  It stays: the first process of the namespace,
whose end is the end of all others.  /proc leads nowhere once the old root is gone."""


def _unshare(limits: Limits, view: View) -> list[str]:
    inside = _unshared(["--user", "--map-root-user"], limits, view)
    return [*_nobody(), *inside, "setpriv", *_UNPRIVILEGED]


def _unshare_as_root(limits: Limits, view: View) -> list[str]:
    return [*_unshared([], limits, view), *_nobody(), *_UNPRIVILEGED]


def _unshared(more: list[str], limits: Limits, view: View) -> list[str]:
    namespaces = ["--net", "--pid", "--fork", "--kill-child", "--mount", "--ipc", "--uts", *more]
    shown = [word for place in view.folders for word in ("show", place, _mount_options(place))]
    linked = [word for place, target in view.links for word in ("link", place, target)]
    settings = [f"{name}={value}" for name, value in {**environment(), "SCRATCH": SCRATCH}.items()]
    return [
        *("setpriv", "--pdeathsig=KILL", "unshare", *namespaces),
        *("env", "-i", *settings, "sh", "-ec", _MOUNTS, "sh"),
        *(_MOUNT_POINT, str(limits.scratch_bytes), str(limits.scratch_files), *shown, *linked, "--"),
        *prlimit(limits),
    ]


def _mount_options(place: str) -> str:
    """Read-only; what the place is mounted with may not be taken away by a user."""
    no_programs = ["noexec"] if os.statvfs(place).f_flag & os.ST_NOEXEC else []
    return ",".join(["ro", "nosuid", "nodev", *no_programs])
