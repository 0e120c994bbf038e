"""What a checkpoint says it was made from: names of its base model, and digests where it declares them.

Reads config.json and the front matter of README.md.  Names are only said, digests can be held against a baseline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gate.checkpoint import plain_yaml

_README_BYTES = 64 * 2**10
_NAME_KEYS = ("base_model", "base_model_name_or_path", "_name_or_path")
_DIGEST_KEYS = ("base_model_sha256", "base_model_digest")
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*(?:\n|\Z)", re.DOTALL)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """`names` and `digests` with the place that says each: `("README.md", "org/model")`."""

    names: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...]


def read(folder: Path, config: Mapping[str, Any]) -> BaseModel:
    """Unreadable front matter says nothing: it is written for people."""
    inner = config.get("quantization_config")
    places = [("config.json", config), ("README.md", _front_matter(folder / "README.md"))]
    if isinstance(inner, dict):
        places.insert(1, ("config.json", inner))
    names, digests = [], []
    for place, said in places:
        for key in _NAME_KEYS:
            found = said.get(key)
            listed = found if isinstance(found, list) else [found]
            names += [(place, n) for n in listed if isinstance(n, str) and n and not n.isdecimal()]
        digests += [(f"{key} in {place}", str(said[key])) for key in _DIGEST_KEYS if said.get(key)]
    return BaseModel(names=tuple(dict.fromkeys(names)), digests=tuple(digests))


def short(name: str) -> str:
    """The last part of a path or hub id: exporters write paths of their own machines."""
    return PurePosixPath(name.replace("\\", "/")).name or name


def other_base(made_from: BaseModel, baseline_names: frozenset[str]) -> str | None:
    """A remark where the candidate names another base model than the baseline's hub id; None where nothing is known."""
    known = {short(n).lower() for n in baseline_names if _HUB_ID.fullmatch(n)}
    said = {(place, n) for place, n in made_from.names if _HUB_ID.fullmatch(n)}
    if not known or not said or any(short(n).lower() in known for _, n in said):
        return None
    place, name = sorted(said)[0]
    return f"{place} says that the candidate was made from {name!r}, the baseline is {sorted(baseline_names)[0]!r}"


def hub_ids(made_from: BaseModel) -> frozenset[str]:
    """The names that look like hub ids."""
    return frozenset(n for _, n in made_from.names if _HUB_ID.fullmatch(n))


def _front_matter(path: Path) -> Mapping[str, Any]:
    text = plain_yaml.beginning(path, _README_BYTES).decode("utf-8", "replace")
    matter = _FRONT_MATTER.match(text)
    found = plain_yaml.parse(matter[1]) if matter else None
    return found if isinstance(found, dict) else {}
