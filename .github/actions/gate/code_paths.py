"""Names files that decide a result besides the workflow's: given globs, the baseline's folder, checkpoints' own code.

Reads the base branch's policy on stdin, run with -I; what cannot be named becomes `**`: then any change is one of code.
A policy that is not read (no PyYAML, not YAML, behind a link) is one that nothing can be named of.

A baseline in the repository is measured as the pull request has it, and one that only looks like a hub id could be
replaced by a folder of that name.  So its path is always listed, whatever lies there now.
"""

import os
import posixpath
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVERYTHING = "**"
CODE = "**/*.py"
"""What a checkpoint with `trust_remote_code` runs of its own."""

MAX_LINKS = 1_000


class Unknown(Exception):
    """The policy cannot be read, so what counts as code is not known."""


def references(baseline: str, policy: str, known: dict[str, Any]) -> list[str]:
    """The baseline's folder, relative to the repository; and its tokenizer's, if it is a name of the policy."""
    settings = known.get(baseline)
    if not isinstance(settings, dict):
        return [baseline, baseline.partition("@")[0]]
    folder = posixpath.dirname(policy)
    return [posixpath.join(folder, str(settings[key])) for key in ("path", "tokenizer") if settings.get(key)]


def own_code(policy: str, known: dict[str, Any], root: Path) -> Iterator[str]:
    """Globs of the Python files of every checkpoint that may run its own, and of what links among them lead to."""
    folder = posixpath.dirname(policy)
    for settings in known.values():
        if not isinstance(settings, dict) or settings.get("trust_remote_code") in (None, False):
            continue
        path = settings.get("path")
        if not path or not isinstance(path, str):
            yield CODE
            continue
        place = _inside(posixpath.join(folder, path), root)
        if place == ".":
            yield CODE
        elif place is not None:
            # a name alone stands for all below it, which is the candidate itself: only what links lead to has one
            yield from (glob for glob in globs(place, root, CODE) if glob != _name(place))


def checkpoints(text: str) -> dict[str, Any]:
    """The policy's table; empty where there is no policy.

    Raises:
        Unknown: it cannot be read.
    """
    if not text.strip():
        return {}  # the gate says that it is missing
    try:
        import yaml
    except ImportError:
        raise Unknown("no YAML here, so every changed file counts as code: see the input python") from None
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise Unknown("the base branch's policy is not YAML, so every changed file counts as code") from None
    if not isinstance(document, dict):
        raise Unknown("the base branch's policy is no mapping, so every changed file counts as code")
    found = document.get("checkpoints", {})
    if not isinstance(found, dict):
        raise Unknown("the policy's checkpoints are no mapping, so every changed file counts as code")
    return found


def globs(reference: str, root: Path, below: str = EVERYTHING) -> Iterator[str]:
    """Of a folder, and of what links lead to from there; nothing for what lies outside of the repository."""
    left, seen = [reference.strip()], set[str]()
    while left:
        place = _inside(left.pop(), root)
        if place is None or place in seen:
            continue
        seen.add(place)
        if place == "." or len(seen) > MAX_LINKS or not place.isprintable() or "\\" in place:
            yield EVERYTHING
            return
        yield from (_name(place), f"{_name(place)}/{below}")
        left += _links(root / place, root)


def _name(place: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in place)


def _inside(reference: str, root: Path) -> str | None:
    if not reference or reference.startswith("~") or "://" in reference:
        return None
    place = posixpath.relpath(posixpath.join(str(root), reference), str(root))
    return None if place == ".." or place.startswith("../") else place


def _links(place: Path, root: Path) -> Iterator[str]:
    """The links on the way to this folder and in it, and where they lead."""
    ways = [p for p in (place, *place.parents) if p.is_relative_to(root) and p != root and p.is_symlink()]
    inside = [Path(at) / n for at, folders, files in os.walk(place) for n in (*folders, *files)]
    ways += [p for p in inside if p.is_symlink()]
    for way in ways:
        yield str(way)
        yield os.path.normpath(way.parent / way.readlink())
    if ways:
        yield os.path.realpath(place)


def code_paths(root: Path, text: str) -> list[str]:
    """All of them.

    Raises:
        Unknown: the policy cannot be read.
    """
    if os.environ.get("LINKED", "false") != "false":
        raise Unknown("the policy lies behind a link, so every changed file counts as code: name the file itself")
    policy, baseline = os.environ.get("POLICY", ""), os.environ.get("BASELINE", "").strip()
    known = checkpoints(text)
    found = [line for line in os.environ.get("CODE_PATHS", "").splitlines() if line.strip()]
    for reference in references(baseline, policy, known) if baseline else ():
        found += globs(reference, root)
    found += own_code(policy, known, root)
    return list(dict.fromkeys(found))


def main() -> None:
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    try:
        found = code_paths(Path.cwd(), text)
    except Unknown as problem:
        print(f"::warning title=quantgate::{problem}", file=sys.stderr)
        found = [EVERYTHING]
    if EVERYTHING in found:
        found = [EVERYTHING]
    end = secrets.token_hex(16)
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.write("\n".join([f"code-paths<<{end}", *found, end, ""]))
    print("\n".join(found))


if __name__ == "__main__":
    main()
