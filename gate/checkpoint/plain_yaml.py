"""YAML that strangers write for people → text, lists and objects of text; whatever else it is says nothing.

Builds no type but str, executes no tag, follows no alias: nothing that is read here may stop a run or take its time.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_PYTHON = "tag:yaml.org,2002:python/"


class _Plain(yaml.BaseLoader):
    """Numbers and dates stay text; Python's tags become the plain value that they wrap."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # a few hundred bytes of aliases stand for billions of values
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        found = str(super().construct_scalar(node))
        if node.style is None and found in _NULLS:
            return None
        return found.encode("utf-8", "replace").decode("utf-8")  # "\\uD800" is no character that a report could hold


def _unwrapped(loader: _Plain, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        found = loader.construct_sequence(node, deep=True)
        return found[0] if len(found) == 1 else found
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node)


_Plain.add_multi_constructor(_PYTHON, _unwrapped)


def parse(text: str | bytes) -> Any:
    """The document, or None where it cannot be read."""
    try:
        return yaml.load(text, Loader=_Plain)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):  # OverflowError: "\UFFFFFFFF"
        return None


def beginning(path: Path, limit_bytes: int) -> bytes:
    """The first bytes of a plain file, never more than asked for; none where it cannot be read or is something else."""
    try:
        # opening what has become a pipe must not block
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(limit_bytes) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return b""
