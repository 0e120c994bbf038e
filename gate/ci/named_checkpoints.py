"""The base branch's `checkpoints:` table as folders of the repository: what has a name, a tokenizer, settings.

Reads git's objects only; a table that cannot be read is a remark here, and an error of whoever measures by it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gate.ci.candidates import check_reference
from gate.ci.git import Repository
from gate.ci.links import followed
from gate.ci.tree import Tree
from gate.document import Unreadable, parse
from gate.errors import UsageError
from gate.policy_file import MAX_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """One entry.  `folder` and `tokenizer` are relative to the repository; None for what is no folder of it."""

    name: str
    folder: str | None
    tokenizer: str | None
    gguf_file: str | None


def read(repository: Repository, policy: str, base: Tree, head: Tree) -> tuple[tuple[Named, ...], tuple[str, ...]]:
    """The table of the policy as `base` has it, and remarks.

    Raises:
        UsageError: neither commit has such a policy, or its name is not plain.
    """
    name = posixpath.normpath(check_reference(policy.removeprefix("./"), "the policy"))
    place = followed(name, base.links)
    if place is None or place not in base.files:
        if followed(name, head.links) not in head.files:
            raise UsageError(
                f"found no policy {name!r}, neither on the base branch nor in the change: correct --policy"
            )
        return (), (f"the base branch has no policy {name!a}: no checkpoint has a name yet",)
    try:
        text = repository.blob(base.files[place].blob, limit_bytes=MAX_BYTES).decode("utf-8-sig")
        data = parse(text).data
    except (UnicodeDecodeError, Unreadable, UsageError):
        return (), (f"the base branch's policy {name!a} cannot be read: no checkpoint has a name",)
    table = data.get("checkpoints") if isinstance(data, dict) else None
    return tuple(_entries(table, posixpath.dirname(name), base)), ()


def _entries(table: Any, folder: str, base: Tree) -> Iterator[Named]:
    for name, settings in table.items() if isinstance(table, dict) else ():
        if isinstance(name, str) and isinstance(settings, dict):
            load = settings.get("load")
            gguf = load.get("gguf_file") if isinstance(load, dict) else None
            yield Named(
                name=name,
                folder=_inside(settings.get("path"), folder, base),
                tokenizer=_inside(settings.get("tokenizer"), folder, base),
                gguf_file=posixpath.normpath(gguf) if isinstance(gguf, str) and gguf else None,
            )


def _inside(text: Any, folder: str, base: Tree) -> str | None:
    """As `gate ci policy` links them: what could be a hub id is a folder only if the base branch has it."""
    if not isinstance(text, str) or not text or text.startswith(("/", "~")):
        return None
    place = posixpath.normpath(posixpath.join(folder, text))
    if place.split("/")[0] == ".." or not (text.startswith(".") or base.folder(place) is not None):
        return None
    return place
