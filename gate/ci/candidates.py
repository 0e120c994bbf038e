"""Names and references of candidates: what may go from a folder's name or a list into a job's matrix.

Pure: str → str.  Nothing is mended: a name that is not plain is an error, so that no checkpoint hides behind it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.errors import UsageError
from gate.publish.candidates import MAX_CANDIDATES, NAME

MAX_REFERENCE_CHARACTERS = 512
_ALSO_PLAIN = frozenset(" ._-+=@,/")
_RESERVED = frozenset({"observations", "previous"})
_EXPECTED = (
    "expected letters, digits and . _ - + = @ , or spaces between `/`, no part `..` and none that begins with `-`"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One candidate to gate: a name for its job and its artifact, and what `gate run --candidate` is given.

    `folder` is where its files lie in the repository, where that is known and not the candidate as written.
    """

    name: str
    candidate: str
    folder: str | None = None


def check_reference(text: str, what: str) -> str:
    """The reference itself: a folder inside the repository, a hub id, or a name from the policy.

    Raises:
        UsageError: it is anything that a shell, a workflow expression, an option parser or a path could read otherwise.
    """
    parts = text.split("/")
    bad = (
        not text
        or len(text) > MAX_REFERENCE_CHARACTERS
        or text.startswith("/")
        or ".." in parts
        or "" in parts
        or any(not (c.isalnum() or c in _ALSO_PLAIN) for c in text)
        or any(part != part.strip() for part in parts)
        or any(word.startswith("-") for part in parts for word in part.split(" "))
    )
    if bad:
        raise UsageError(f"{what} {_shown(text)} cannot be gated under this name, {_EXPECTED}: rename it")
    return text


def named(references: Iterable[str], folders: Mapping[str, str | None] | None = None) -> tuple[Wanted, ...]:
    """Each with a name made of the reference alone, so that it is the same in every run; `folders` are theirs.

    Where a reference is not a plain name, or two would get the same one, a digest of the reference is added.
    """
    wanted = list(references)
    plain = {ref: _plain(ref) for ref in wanted}
    seen = [name.casefold() for name, _ in plain.values()]
    found = []
    for ref in wanted:
        name, exact = plain[ref]
        alone = exact and seen.count(name.casefold()) == 1
        folder = (folders or {}).get(ref)
        found.append(Wanted(name=name if alone else _marked(name, ref), candidate=ref, folder=folder))
    return checked(found)


def checked(wanted: Sequence[Wanted]) -> tuple[Wanted, ...]:
    """The candidates.  Raises UsageError: two of one name, or more than a matrix may have."""
    if len(wanted) > MAX_CANDIDATES:
        raise UsageError(
            f"{len(wanted)} candidates are to be gated, expected at most {MAX_CANDIDATES} (GitHub's limit for a "
            "matrix): narrow --paths, or split the change"
        )
    names = [one.name.casefold() for one in wanted]
    twice = next((one.name for one in wanted if names.count(one.name.casefold()) > 1), None)
    if twice is not None:
        raise UsageError(f"two candidates have the name {twice!r}, expected each name once")
    return tuple(wanted)


def listed(text: str) -> tuple[Wanted, ...]:
    """`--list`: lines (`name=reference` or `reference`, `#` for remarks), or the same as JSON.

    Raises:
        UsageError: it is neither, a name or reference is not plain, or nothing is listed.
    """
    pairs = _of_json(text) if text.lstrip().startswith(("[", "{")) else _of_lines(text)
    if not pairs:
        raise UsageError("--list names no candidate, expected at least one reference")
    for name, ref in pairs:
        check_reference(ref, "the candidate")
        if name is not None and (not NAME.match(name) or name.startswith((".", "-")) or name in _RESERVED):
            raise UsageError(
                f"--list has the name {_shown(name)}, expected A-Z a-z 0-9 . _ - with at most 80 characters"
            )
    repeated = next((ref for i, (_, ref) in enumerate(pairs) if ref in [r for _, r in pairs[:i]]), None)
    if repeated is not None:
        raise UsageError(f"--list has {repeated!r} twice, expected each candidate once")
    by_reference = {one.candidate: one for one in named(ref for name, ref in pairs if name is None)}
    return checked([by_reference[ref] if name is None else Wanted(name=name, candidate=ref) for name, ref in pairs])


def _of_lines(text: str) -> list[tuple[str | None, str]]:
    pairs: list[tuple[str | None, str]] = []
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            name, sign, ref = line.partition("=")
            pairs.append((name.strip(), ref.strip()) if sign else (None, line))
    return pairs


def _of_json(text: str) -> list[tuple[str | None, str]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"--list begins like JSON and is none ({problem}): expected a list of candidates") from problem
    if isinstance(data, dict):
        data = [{"name": name, "candidate": ref} for name, ref in data.items()]
    return [_pair(one) for one in data]


def _pair(one: Any) -> tuple[str | None, str]:
    match one:
        case str():
            return None, one
        case {"name": str(name), "candidate": str(ref), **more} if not more:
            return name, ref
        case {"candidate": str(ref), **more} if not more:
            return None, ref
        case _:
            raise UsageError(f"--list holds {_shown(str(one))}, expected a reference, or name and candidate")


def as_plain(wanted: Sequence[Wanted]) -> list[Mapping[str, str]]:
    """For a matrix; `folder` is left out where it is the candidate itself."""
    plain: list[Mapping[str, str]] = []
    for one in wanted:
        place = {} if one.folder is None else {"folder": one.folder}
        plain.append({"name": one.name, "candidate": one.candidate, **place})
    return plain


def _plain(ref: str) -> tuple[str, bool]:
    """(a name, does it stand for this reference and no other of another spelling)."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ref.replace("/", "-"))
    kept = name.strip(".-")[:80]
    return kept or "candidate", kept == ref.replace("/", "-") and kept not in _RESERVED


def _marked(name: str, ref: str) -> str:
    return f"{name[:71]}-{hashlib.sha256(ref.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def _shown(text: str) -> str:
    """Untrusted text in an error: everything unprintable as an escape, never the thing itself."""
    shown = ascii(text[:120])
    return f"{shown}... ({len(text)} characters)" if len(text) > 120 else shown
