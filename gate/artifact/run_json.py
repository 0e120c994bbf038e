"""RunRecord ↔ run.json, and the JSON Schema of run.json.

Pure text ↔ record: no files, and no repair of what does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from gate.errors import ArtifactError
from gate.records import ARTIFACT_VERSION, MAX_FLIPS, RunRecord

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MAX_CHARACTERS = 64 * 2**20


def _from_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 2: both sides of an interval have a confidence of their own, findings a p-value, runs a quality score."""

    def interval(found: Any) -> Any:
        return None if found is None else {**found, "fail_confidence": found["confidence"]}

    def finding(found: dict[str, Any]) -> dict[str, Any]:
        members = [{**m, "interval": interval(m["interval"])} for m in found["members"]]
        return {**found, "interval": interval(found["interval"]), "members": members, "p_value": None}

    stages = [{**s, "findings": [finding(f) for f in s["findings"]]} for s in document["stages"]]
    return {**document, "stages": stages, "quality": None}


def _from_2(document: dict[str, Any]) -> dict[str, Any]:
    """Version 3: what the profile stages found besides their findings, output lengths, selectors of timing rules."""

    def finding(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "rule": {**found["rule"], "lengths": None, "load": None}}

    stages = [{**s, "findings": [finding(f) for f in s["findings"]]} for s in document["stages"]]
    return {**document, "stages": stages, "performance": [], "output_lengths": []}


def _from_3(document: dict[str, Any]) -> dict[str, Any]:
    """Version 4: waivers, and what a pull request does to the policy that judges it."""
    return {**document, "waivers": [], "policy_change": None}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2, 3: _from_3}
"""Version n → a function that turns its document into one of version n + 1."""


def dumps_record(record: RunRecord) -> str:
    """The record as JSON: keys in the order of the fields, enums as their values, floats exact.

    Half a surrogate pair, which no JSON reader takes, becomes U+FFFD.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: something that is not plain data.
    """
    return json.dumps(_plain(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def loads_record(text: str | bytes) -> RunRecord:
    """The record that `dumps_record` wrote, of this version or an older one.

    Raises:
        ArtifactError: not JSON, truncated, too large, from a newer gate, or not a record.
    """
    try:
        return _loaded(text)
    except RecursionError as problem:
        raise ArtifactError("run.json is nested too deep: not a run record") from problem


def _loaded(text: str | bytes) -> RunRecord:
    if len(text) > MAX_CHARACTERS:
        raise ArtifactError(f"run.json has {len(text)} characters, expected at most {MAX_CHARACTERS}: not a run record")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ArtifactError(
            f"run.json is not readable JSON ({problem}): it is damaged or incomplete, run the gate again"
        ) from problem
    if not isinstance(document, dict) or type(document.get("artifact_version")) is not int:
        raise ArtifactError("found JSON without an artifact_version, expected the run.json of `gate run`")
    document = _migrated(document)
    try:
        record = _adapter().validate_json(json.dumps(document, allow_nan=False), strict=True)
    except ValueError as problem:
        raise ArtifactError(
            f"run.json is not a run record of version {ARTIFACT_VERSION}: {_first(problem)}"
        ) from problem
    if len(record.flips) > MAX_FLIPS:
        raise ArtifactError(f"run.json has {len(record.flips)} flips, expected at most {MAX_FLIPS}: not a run record")
    unknown = next(_unknown(document, _plain(record), ""), None)
    if unknown is not None:
        raise ArtifactError(
            f"run.json has an unknown field {unknown}, expected version {ARTIFACT_VERSION} of the record"
        )
    return record


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of run.json."""
    found = _adapter().json_schema(mode="serialization")
    for definition in (found, *found["$defs"].values()):
        if definition.get("type") == "object":
            definition["additionalProperties"] = False
            definition["required"] = list(definition["properties"])
    found["properties"]["artifact_version"] = {"const": ARTIFACT_VERSION, "type": "integer"}
    found["properties"]["flips"]["maxItems"] = MAX_FLIPS
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "run.json of quantgate",
        **{k: v for k, v in found.items() if k != "title"},
    }


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)


def _migrated(document: dict[str, Any]) -> dict[str, Any]:
    version = document["artifact_version"]
    if version > ARTIFACT_VERSION:
        raise ArtifactError(
            f"run.json has version {version}, written by a newer gate; this one reads up to {ARTIFACT_VERSION}: upgrade"
        )
    for step in range(version, ARTIFACT_VERSION):
        if step not in MIGRATIONS:
            raise ArtifactError(f"run.json has version {version}, which no gate has written")
        try:
            document = {**MIGRATIONS[step](document), "artifact_version": step + 1}
        except (KeyError, TypeError) as problem:
            raise ArtifactError(f"run.json is not a run record of version {version}: missing {problem}") from problem
    return document


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _unknown(given: Any, kept: Any, place: str) -> Iterator[str]:
    """Places of fields that the record has no room for."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name not in kept:
                yield f"{place}.{name}".lstrip(".")
            else:
                yield from _unknown(value, kept[name], f"{place}.{name}")
    elif isinstance(given, list) and isinstance(kept, list):
        for i, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _unknown(one, other, f"{place}[{i}]")


def _first(problem: ValueError) -> str:
    """The first mistake of a pydantic error in one line, else its text."""
    errors = getattr(problem, "errors", None)
    if errors is None:
        return str(problem)
    mistakes = errors(include_url=False, include_context=False)
    first = mistakes[0]
    place = ".".join(map(str, first["loc"])) or "the document"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return f"{place}: {first['msg']}, found {first['input']!r:.80}{more}"
