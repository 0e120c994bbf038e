"""Folders of results → one candidate each: its record, or what came back instead.

Reads; believes nothing.  What was expected and is not there is a candidate without a record, never one less.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gate import artifact
from gate.errors import ArtifactError, UsageError
from gate.publish.incoming import is_folder, read_file
from gate.publish.model import Candidate
from gate.reports import shared

MAX_CANDIDATES = 256
"""As many jobs as a matrix of GitHub may have."""

MAX_RUN_BYTES = 64 * 2**20
MAX_ALL_BYTES = 256 * 2**20
"""Of one run.json, and of all that are held at once."""

ARTIFACT = "quantgate-run-"
"""Before a candidate's name, the name of the artifact that holds its run; the folder that it is downloaded to."""

NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,80}\Z")
_PARTS = frozenset({"observations", "previous"})
"""Folders inside a run's folder: one without run.json is still one run, that ended before it had a record."""


def read(dirs: Sequence[Path], expect: Sequence[str] | None) -> tuple[Candidate, ...]:
    """The candidates of these folders: run folders, or folders of run folders (named by the sub-folder).

    With `expect`, in that order, and further ones after them as unexpected; a single run folder takes the name of a
    single expected one.

    Raises:
        UsageError: `expect` holds something else than distinct names.
    """
    wanted = None if expect is None else _checked(expect)
    found: list[Candidate] = []
    left_bytes = MAX_ALL_BYTES
    places = [place for folder in dirs for place in _places(folder)]
    if wanted is not None:  # an empty folder is no candidate then: those that are missing have names
        places = [(name, at, given) for name, at, given in places if not given or _holds_record(at)]
    if wanted is not None and len(wanted) == 1 and len(places) == 1 and places[0][2]:
        places = [(wanted[0], places[0][1], True)]
    for name, folder, given in places[:MAX_CANDIDATES]:
        one, size_bytes = _candidate(name, folder, given, min(MAX_RUN_BYTES, left_bytes))
        left_bytes -= size_bytes
        found.append(one)
    if len(places) > MAX_CANDIDATES:
        more = f"{len(places) - MAX_CANDIDATES} further folders were not read: expected at most {MAX_CANDIDATES}"
        found.append(_without(more, name="and-more"))
    named = _distinct(found)
    return tuple(named) if wanted is None else _as_expected(named, wanted)


def expected(text: str | None) -> tuple[str, ...] | None:
    """`--expect`: a JSON list of names, or what `gate ci detect` prints (a list of {"name", "candidate"}).

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"--expect {text[:80]!r} is not JSON, expected a list of names") from problem
    if isinstance(data, dict) and data.keys() == {"include"}:
        data = data["include"]
    listed = data if isinstance(data, list) else [None]
    names = [one.get("name") if isinstance(one, dict) else one for one in listed]
    texts = [name for name in names if isinstance(name, str)]
    if len(texts) < len(names):
        raise UsageError(f"--expect {text[:80]!r} is not a JSON list of names")
    return _checked(texts)


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if not NAME.match(name):
            raise UsageError(
                f"--expect holds {name[:80]!r}, expected names of A-Z a-z 0-9 . _ - with at most 80 characters"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"--expect holds {twice!r} twice, expected each name once")
    if len(names) > MAX_CANDIDATES:
        raise UsageError(f"--expect holds {len(names)} names, expected at most {MAX_CANDIDATES}")
    return tuple(names)


def _places(folder: Path) -> list[tuple[str, Path, bool]]:
    """(name, folder of one run, was it given itself)."""
    inside: list[Path] = []
    if not _holds_record(folder):
        with contextlib.suppress(OSError):  # no folder at all: reading run.json says so
            inside = sorted(p for p in folder.iterdir() if p.name not in _PARTS and (p.is_symlink() or p.is_dir()))
    if not inside:
        return [(_plain(folder.resolve().name), folder, True)]
    return [(p.name.removeprefix(ARTIFACT), p, False) for p in inside]


def _holds_record(folder: Path) -> bool:
    return os.path.lexists(folder / "run.json")


def _candidate(name: str, folder: Path, given: bool, limit_bytes: int) -> tuple[Candidate, int]:
    """The candidate, and how many bytes its record has."""
    if not NAME.match(name):  # never mended: it could be given the name of another one
        return _without(f"the folder {name[:120]!r} has no candidate's name: it was not read", name="unnamed"), 0
    if not given and not is_folder(folder):
        return _without("its folder is a link: it was not read", name=name), 0
    try:
        data = read_file(folder / "run.json", limit_bytes=limit_bytes)
        return Candidate(name=name, record=shared.redacted(artifact.loads_record(data)), problem=""), len(data)
    except ArtifactError as problem:
        return _without(str(problem), name=name), 0


def _without(problem: str, *, name: str) -> Candidate:
    return Candidate(name=name, record=None, problem=problem)


def _distinct(found: Sequence[Candidate]) -> list[Candidate]:
    """Each with a name of its own: a second one of a name would hide the first, so both are told apart."""
    taken: set[str] = set()
    named = []
    for one in found:
        name, n = one.name, 2
        while name in taken:
            name, n = f"{one.name[:76]}-{n}", n + 1
        taken.add(name)
        named.append(Candidate(name=name, record=one.record, problem=one.problem))
    return named


def _as_expected(found: Sequence[Candidate], wanted: Sequence[str]) -> tuple[Candidate, ...]:
    known = {one.name: one for one in found}
    missing = "nothing came back: its job did not end with a record, or did not run"
    first = [known.get(name) or _without(missing, name=name) for name in wanted]
    more = [
        _without(f"it was not expected{f' ({one.problem})' if one.problem else ''}", name=one.name)
        for one in found
        if one.name not in wanted
    ]
    return (*first, *more)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:76].strip(".-") or "unnamed"
