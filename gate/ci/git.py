"""A repository's commits, read through git's plumbing: trees, blobs, what changed between two of them.

Reads objects only: never the working tree, no hook, no attribute, no external program that a commit could name.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gate.errors import UsageError

NOTHING = "0" * 40
"""What GitHub sends as the commit before a branch's first."""

MAX_PATHS_BYTES = 256 * 2**20
_COMMIT = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.quotePath=false",
)
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
_DROPPED = re.compile(r"GIT_(?:DIR|WORK_TREE|INDEX_FILE|NAMESPACE|EXTERNAL_DIFF|DIFF_OPTS|TRACE.*|LFS_SKIP_SMUDGE)")
_FULL_HISTORY = "check the repository out with its history (actions/checkout with fetch-depth: 0)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of a commit.  `kind` is file, link (its blob holds the target) or submodule."""

    path: str
    kind: str
    blob: str


class Repository:
    """The repository that a folder belongs to.  Paths are relative to its root, with `/`; odd bytes are surrogates."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        """Raises UsageError: there is no git, or no repository."""
        known = os.environ if environ is None else environ
        self._environment = {n: v for n, v in known.items() if not _DROPPED.fullmatch(n)} | _ENVIRONMENT
        self.root = folder
        code, found, said = self._run("rev-parse", "--show-toplevel")
        if code:
            raise UsageError(f"found no git repository at {str(folder)!r} ({said}): run it inside the checkout")
        self.root = Path(os.fsdecode(found.removesuffix(b"\n")))

    def commit(self, sha: str, option: str) -> str:
        """The commit, checked: a full SHA that is here.  Raises UsageError."""
        if not _COMMIT.fullmatch(sha):
            raise UsageError(f"{option} {sha[:80]!r} is no commit, expected its full SHA of 40 (or 64) hex digits")
        code, found, _ = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{sha}^{{commit}}")
        if code:
            raise UsageError(f"{option} {sha} is not in this checkout: {_FULL_HISTORY}")
        return found.decode("ascii").strip()

    def merge_base(self, one: str, other: str) -> str:
        """The commit at which they parted.  Raises UsageError: there is none, or it is beyond a shallow history."""
        code, found, _ = self._run("merge-base", one, other)
        if code:
            raise UsageError(f"{one} and {other} have no common commit in this checkout: {_FULL_HISTORY}")
        return found.decode("ascii").strip()

    def changed(self, before: str, after: str) -> tuple[str, ...]:
        """Paths that differ between two commits; a renamed file counts at both places."""
        text = self._output("diff-tree", "-r", "-z", "--name-only", "--no-renames", before, after, "--")
        return tuple(_text(path) for path in text.split(b"\0") if path)

    def entries(self, commit: str) -> tuple[Entry, ...]:
        """Every file of a commit, in git's order."""
        found = []
        for line in self._output("ls-tree", "-r", "-z", "--full-tree", commit, "--").split(b"\0"):
            if line:
                head, _, path = line.partition(b"\t")
                mode, _, blob = head.decode("ascii").split()
                kind = {"120000": "link", "160000": "submodule"}.get(mode, "file")
                found.append(Entry(path=_text(path), kind=kind, blob=blob))
        return tuple(found)

    def blob(self, name: str, *, limit_bytes: int) -> bytes:
        """A blob's bytes, unfiltered.  Raises UsageError: larger than the limit, or not here."""
        size = int(self._output("cat-file", "-s", name))
        if size > limit_bytes:
            raise UsageError(f"a file of {size:,} bytes in the repository, expected at most {limit_bytes:,}")
        return self._output("cat-file", "blob", name, limit_bytes=limit_bytes)

    def link_targets(self, links: Sequence[Entry]) -> Mapping[str, str]:
        """Path of each link → where it points to, as written."""
        asked = "".join(f"{link.blob}\n" for link in links).encode("ascii")
        text, at, targets = self._output("cat-file", "--batch", stdin=asked), 0, {}
        for link in links:
            head_end = text.index(b"\n", at)
            size = int(text[at:head_end].split()[-1])
            targets[link.path] = _text(text[head_end + 1 : head_end + 1 + size])
            at = head_end + size + 2
        return targets

    def smudged(self, pointer: bytes, path: str, *, limit_bytes: int) -> bytes | None:
        """What Git LFS has for a pointer, None where it has nothing; the caller checks the digest."""
        code, found, _ = self._run("lfs", "smudge", "--", path, stdin=pointer)
        return found if code == 0 and len(found) <= limit_bytes else None

    def _output(self, *arguments: str, stdin: bytes = b"", limit_bytes: int = MAX_PATHS_BYTES) -> bytes:
        code, found, said = self._run(*arguments, stdin=stdin)
        if code:
            raise UsageError(f"git {arguments[0]} failed ({said}): {_FULL_HISTORY}")
        if len(found) > limit_bytes:
            raise UsageError(f"git {arguments[0]} printed more than {limit_bytes:,} bytes: the repository is too large")
        return found

    def _run(self, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """(exit code, stdout, the last line of stderr)."""
        settings = [part for one in _SETTINGS for part in ("-c", one)]
        try:
            done = subprocess.run(
                ["git", "--no-pager", *settings, *arguments],
                cwd=self.root,
                env=self._environment,
                input=stdin,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            missing = "git" if self.root.is_dir() else str(self.root)
            raise UsageError(f"found no {missing!r}: install git, and run it inside the checkout") from None
        except OSError as problem:
            raise UsageError(f"git cannot be run in {str(self.root)!r}: {problem.strerror}") from problem
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return done.returncode, done.stdout, lines[-1] if lines else "no message"


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
