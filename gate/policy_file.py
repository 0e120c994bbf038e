"""Policy file → validated policy with a digest, planned rules and line numbers; every mistake is reported at once.

Reads one file.  Decides nothing about checkpoints and never mends a policy: it loads as written or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError

from gate.document import Document, Unreadable, parse
from gate.errors import PolicyError, UsageError
from gate.policy import Location, Policy, planned_rules
from gate.policy_mistakes import Mistake, contradictions, dotted, place_of, translated
from gate.policy_problems import rule_problems
from gate.records import Rule

MAX_BYTES = 1_000_000
_MAX_NAME_CHARACTERS = 1000
CHOSEN = "on_inconclusive: "
"""How a note begins that says who chose another value than the policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy that loaded without a mistake.

    Attributes:
        digest: SHA-256 of the validated policy as canonical JSON; comments and layout do not change it.
        source: what reports call it: the path as it was given, or its path in the repository (see `renamed`).
        base: folder that the policy's paths are relative to.
        lines: place in the document → 1-based line.
    """

    policy: Policy
    text: str
    digest: str
    source: str
    base: Path
    lines: dict[Location, int]
    rules: tuple[Rule, ...]


def load_policy(path: Path) -> LoadedPolicy:
    """Read and check a policy file.

    Raises:
        PolicyError: with one line per mistake, each with its place, in the order of the file.
    """
    source = path.as_posix()
    text, document = read_document(path, noun="policy", keys="`version` and `stages`")
    problems = [(place, at, message) for at, place, message in document.problems]
    policy = None
    try:
        policy = Policy.model_validate(document.data)
        problems += [(place_of(document, at), at, message) for at, message in rule_problems(policy)]
    except ValidationError as error:
        known = {(place, at) for place, at, _ in problems}
        problems += [p for p in translated(error, document) if (p[0], p[1]) not in known]
        problems += contradictions(error, document)
    if problems or policy is None:
        raise rejected(source, problems, noun="policy")
    lines_by_place = {at: place.line for at, place in document.values.items()}
    return LoadedPolicy(
        policy=policy,
        text=text,
        digest=policy_digest(policy),
        source=source,
        base=path.resolve().parent,
        lines=lines_by_place,
        rules=planned_rules(policy, lines_by_place),
    )


def renamed(loaded: LoadedPolicy, name: str | None) -> LoadedPolicy:
    """The policy as reports call it; its own paths stay beside the file that was read.  None changes nothing.

    CI judges by a copy of the base branch's policy: a path in a temporary folder leads nobody to the rule.

    Raises:
        UsageError: `name` is no path inside a repository.
    """
    if name is None:
        return loaded
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and len(name) <= _MAX_NAME_CHARACTERS
    if not plain or path.is_absolute() or ".." in path.parts or path == PurePosixPath():
        raise UsageError(f"found --policy-name {name[:120]!a}, expected the policy's path inside the repository")
    return replace(loaded, source=path.as_posix())


def with_on_inconclusive(
    loaded: LoadedPolicy, chosen: Literal["fail", "warn"] | None
) -> tuple[LoadedPolicy, tuple[str, ...]]:
    """The policy with this `on_inconclusive` and the digest of that, and the note that the record must carry.

    None, or what the file says, changes nothing.  Text and lines stay those of the file.
    """
    written = loaded.policy.on_inconclusive
    if chosen is None or chosen == written:
        return loaded, ()
    policy = loaded.policy.model_copy(update={"on_inconclusive": chosen})
    note = f"{CHOSEN}{chosen} was asked for on the command line, {loaded.source} says {written}"
    return replace(loaded, policy=policy, digest=policy_digest(policy)), (note,)


def policy_digest(policy: Policy) -> str:
    """SHA-256 (hex) over the validated policy as canonical JSON; settings left at None are left out."""
    plain = policy.model_dump(mode="json", exclude_none=True)
    canonical = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def schema() -> dict[str, Any]:
    """JSON Schema of the policy file; thresholds/schema.json is this, and a test keeps it so."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "quantgate policy",
        **{k: v for k, v in Policy.model_json_schema().items() if k != "title"},
    }


def read_document(path: Path, *, noun: str, keys: str) -> tuple[str, Document]:
    """The text of a YAML file and what it holds: a mapping, with mistakes of YAML's own in its `problems`.

    Args:
        noun: what the file is called in messages: `policy`.
        keys: of the mapping that is expected, in words.

    Raises:
        PolicyError: it cannot be read, or holds something else than a mapping.
    """
    source = path.as_posix()
    text = _read(path, source, noun)
    try:
        document = parse(text)
    except Unreadable as error:
        where = f"{source}:{error.place.line}:{error.place.column}" if error.place else source
        raise PolicyError(source, (f"{where}: {error}",), noun) from error
    if not isinstance(document.data, dict):
        found = "an empty file" if document.data is None else f"a {type(document.data).__name__}"
        raise PolicyError(source, (f"{source}:1:1: found {found}, expected a mapping with {keys}",), noun)
    return text, document


def rejected(source: str, mistakes: Iterable[Mistake], *, noun: str) -> PolicyError:
    """One line per mistake, in the order of the file."""
    ordered = sorted(dict.fromkeys(mistakes), key=lambda p: (p[0], dotted(p[1])))
    lines = (f"{source}:{place.line}:{place.column}: {dotted(at, noun)}: {text}" for place, at, text in ordered)
    return PolicyError(source, tuple(lines), noun)


def _read(path: Path, source: str, noun: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolicyError(
            source, (f"{source}: found no such file, expected a {noun}: see thresholds/",), noun
        ) from None
    except OSError as error:
        raise PolicyError(source, (f"{source}: cannot be read ({error.strerror}), expected a file",), noun) from error
    if len(raw) > MAX_BYTES:
        found = f"{source}: found more than {MAX_BYTES:,} bytes, expected a {noun} of a few KB"
        raise PolicyError(source, (found,), noun)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{source}:{line}:1: found byte 0x{raw[error.start]:02x}, expected UTF-8 text: save the file as UTF-8"
        raise PolicyError(source, (message,), noun) from error
