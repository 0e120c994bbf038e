"""The store's log: who let a baseline take another's place, who pruned, when and why.

Only grows: every line is a file of its own, and no command of the gate changes or removes one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gate.store.bucket import GuardedBucket
from gate.store.seal import Signature, seal, unseal

_VERSION = 1


class Line(BaseModel):
    """One event.  `about` are the entries that it was about, `detail` what else is known of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: int = _VERSION
    action: Literal["promote", "prune"]
    at: str
    by: str
    why: str
    about: list[str]
    detail: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A line as it was found.  `problem`: why it cannot be relied on, None if it can."""

    name: str
    line: Line | None
    signature: Signature | None
    problem: str | None


class Log:
    """Raises Unavailable when the store does not answer."""

    def __init__(self, bucket: GuardedBucket, signing_key: bytes | None) -> None:
        self._bucket = bucket
        self._signing_key = signing_key

    def add(self, line: Line, now: datetime) -> None:
        name = f"log/{stamp(now)}.json"
        self._bucket.create(name, seal(line.model_dump(mode="json"), self._signing_key))

    def lines(self) -> tuple[Found, ...]:
        """The oldest first."""
        raw = self._bucket.read_some(sorted(self._bucket.names("log")))
        return tuple(self._found(name, raw[name]) for name in sorted(raw))

    def _found(self, name: str, raw: bytes) -> Found:
        try:
            sealed = unseal(raw, self._signing_key)
            line = Line.model_validate(sealed.document)
        except ValidationError as problem:
            return Found(
                name=name, line=None, signature=None, problem=f"is no line of a log ({problem.errors()[0]['msg']})"
            )
        except ValueError as problem:
            return Found(name=name, line=None, signature=None, problem=str(problem))
        return Found(name=name, line=line, signature=sealed.signature, problem=sealed.unusable(self._signing_key))


def stamp(now: datetime) -> str:
    """A name that sorts by time and that nobody else takes."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}"
