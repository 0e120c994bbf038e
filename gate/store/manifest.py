"""What an entry of the store says of itself: its key, its files with their checksums, where it comes from.

Pure: text ↔ values.  The manifest is written last and makes an entry exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gate.store.key import measurement_key
from gate.store.seal import Signature, seal, unseal

VERSION = 2
MAX_BYTES = 4_000_000
"""A manifest is a few KB; nothing larger is read."""

DATA, ARTIFACTS = "measurement.parquet", "artifacts"
_SHA256 = r"^[0-9a-f]{64}$"
_STAMP = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}"
_NAME = re.compile(
    rf"(?:entries/(?P<key>[0-9a-f]{{64}})/(?P<generation>[0-9]{{6}})|proposed/(?P<proposed>[0-9a-f]{{64}})/{_STAMP})\.json"
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileFacts(_Strict):
    """Of one file of an entry."""

    sha256: Annotated[str, Field(pattern=_SHA256)]
    n_bytes: Annotated[int, Field(ge=0)]


class Promotion(_Strict):
    """Who let this measurement take the place of another, when and why.  `replaced` is the other's content folder."""

    by: str
    why: str
    at: str
    replaced: str


class Manifest(_Strict):
    """One measurement as it is stored.

    Attributes:
        generation: counts what was kept under this key; the highest one is the baseline.  None: a proposal, which
            becomes one by a promotion.
        content: name of the folder of its files in `data/`.
        files: path in that folder → its facts.
        items: with a value.
        seconds: that measuring took.
        promotion: None where it took nobody's place, or that of one which could not be used.
    """

    version: int
    key: Annotated[str, Field(pattern=_SHA256)]
    generation: Annotated[int, Field(ge=0)] | None
    parts: dict[str, str]
    content: Annotated[str, Field(pattern=rf"^[0-9a-f]{{64}}\.{_STAMP}$")]
    files: dict[str, FileFacts]
    items: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    created_at: str
    provenance: dict[str, Any]
    promotion: Promotion | None

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileFacts]) -> dict[str, FileFacts]:
        """No name leads out of the entry's folder, whoever wrote it."""
        for name in files:
            below = name.removeprefix(f"{ARTIFACTS}/")
            safe = (
                below != name
                and all(p not in ("", ".", "..") for p in below.split("/"))
                and not set(name) & {"\\", "\0"}
            )
            if name != DATA and not safe:
                raise ValueError(f"found a file {name!r}, expected {DATA} and files in {ARTIFACTS}/")
        if DATA not in files:
            raise ValueError(f"found no {DATA}")
        return files

    @field_validator("created_at")
    @classmethod
    def _a_time(cls, text: str) -> str:
        if datetime.fromisoformat(text).tzinfo is None:
            raise ValueError(f"found the time {text!r} without a zone")
        return text

    @property
    def name(self) -> str:
        """Of the manifest's own file."""
        if self.generation is None:
            return f"proposed/{self.key}/{self.content.partition('.')[2]}.json"
        return f"entries/{self.key}/{self.generation:06d}.json"

    @property
    def n_bytes(self) -> int:
        """Of all its files."""
        return sum(facts.n_bytes for facts in self.files.values())


def is_name(name: str) -> bool:
    """Whether a manifest may be called so."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A manifest as it was found.

    Attributes:
        name: of its file.
        generation: as its name says; None for a proposal.
        manifest: None where it cannot be read.
        signature: None where it cannot be read.
        problem: why it must not be used, None if it may; says nothing of the files that it lists.
    """

    name: str
    key: str
    generation: int | None
    manifest: Manifest | None
    signature: Signature | None
    problem: str | None

    @property
    def created_at(self) -> str:
        """ISO 8601 in UTC; empty where it cannot be read."""
        return "" if self.manifest is None else self.manifest.created_at


def dumps(manifest: Manifest, key: bytes | None) -> bytes:
    """The manifest's file."""
    return seal(manifest.model_dump(mode="json"), key)


def entry(name: str, raw: bytes, signing_key: bytes | None) -> Entry:
    """What a manifest's file is worth.  Raises ValueError for a name that is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"found {name!r}, expected the name of a manifest")
    generation = int(found["generation"]) if found["generation"] else None

    def as_found(manifest: Manifest | None, signature: Signature | None, problem: str | None) -> Entry:
        return Entry(
            name=name,
            key=found["key"] or found["proposed"],
            generation=generation,
            manifest=manifest,
            signature=signature,
            problem=problem,
        )

    try:
        sealed = unseal(raw, signing_key)
        version = sealed.document.get("version")
        if version != VERSION:
            return as_found(None, None, f"has version {version!r}, expected {VERSION}")
        manifest = Manifest.model_validate(sealed.document)
        if manifest.name != name or measurement_key(manifest.parts) != manifest.key:
            return as_found(None, None, f"belongs to {manifest.name}, under another key")
    except ValidationError as problem:
        first = problem.errors()[0]
        return as_found(None, None, f"is no manifest ({'.'.join(map(str, first['loc']))}: {first['msg']})")
    except ValueError as problem:
        return as_found(None, None, str(problem))
    return as_found(manifest, sealed.signature, sealed.unusable(signing_key))
