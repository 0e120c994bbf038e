"""Policy file → validated policy with a digest, planned rules and line numbers; every mistake is reported at once.

Reads one file.  Decides nothing about checkpoints and never mends a policy: it loads as written or not at all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gate.document import Unreadable, parse
from gate.errors import PolicyError
from gate.policy import Location, Policy, planned_rules
from gate.policy_mistakes import contradictions, dotted, place_of, translated
from gate.policy_problems import rule_problems
from gate.records import Rule

MAX_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPolicy:
    """A policy that loaded without a mistake.

    Attributes:
        digest: SHA-256 of the validated policy as canonical JSON; comments and layout do not change it.
        source: the path as it was given.
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
    text = _read(path, source)
    try:
        document = parse(text)
    except Unreadable as error:
        where = f"{source}:{error.place.line}:{error.place.column}" if error.place else source
        raise PolicyError(source, (f"{where}: {error}",)) from error
    if not isinstance(document.data, dict):
        found = "an empty file" if document.data is None else f"a {type(document.data).__name__}"
        raise PolicyError(source, (f"{source}:1:1: found {found}, expected a mapping with `version` and `stages`",))
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
        ordered = sorted(dict.fromkeys(problems), key=lambda p: (p[0], dotted(p[1])))
        lines = tuple(f"{source}:{p.line}:{p.column}: {dotted(at)}: {text}" for p, at, text in ordered)
        raise PolicyError(source, lines)
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


def _read(path: Path, source: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolicyError(source, (f"{source}: found no such file, expected a policy: see thresholds/",)) from None
    except OSError as error:
        raise PolicyError(source, (f"{source}: cannot be read ({error.strerror}), expected a file",)) from error
    if len(raw) > MAX_BYTES:
        raise PolicyError(source, (f"{source}: found more than {MAX_BYTES:,} bytes, expected a policy of a few KB",))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{source}:{line}:1: found byte 0x{raw[error.start]:02x}, expected UTF-8 text: save the file as UTF-8"
        raise PolicyError(source, (message,)) from error
