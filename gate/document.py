"""YAML text → plain data plus the place of every value, without running or expanding anything dangerous.

Knows YAML and its traps, nothing of policies.  Never builds objects other than dict, list, str, int, float, bool.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from gate.policy import Location

MAX_DEPTH = 50
MAX_VALUES = 20_000

_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_TEXT = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "value"))
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Place:
    """1-based line and column."""

    line: int
    column: int


@dataclass(kw_only=True, slots=True)
class Document:
    """The data, where each value and key stands, how each scalar was written, and what was wrong on the way."""

    data: Any = None
    values: dict[Location, Place] = field(default_factory=dict)
    keys: dict[Location, Place] = field(default_factory=dict)
    written: dict[Location, str] = field(default_factory=dict)
    problems: list[tuple[Location, Place, str]] = field(default_factory=list)


class Unreadable(ValueError):
    """The text is not a YAML document that can be walked; `place` is None when it is the whole text."""

    def __init__(self, message: str, place: Place | None) -> None:
        self.place = place
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses deep nesting before Python's stack does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            place = _place(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
            raise Unreadable(f"nested deeper than {MAX_DEPTH} levels, expected a flat policy", place)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(text: str) -> Document:
    """The document in `text`.  Duplicate keys, tags and merge keys end up in `problems`.

    Raises:
        Unreadable: not YAML, more than one document, nested too deep, or aliases that expand without end.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            document = Document()
            if root is not None:
                document.data = _Walk(loader, document).value(root, ())
            return document
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(line=before.count("\n") + 1, column=error.position - before.rfind("\n"))
        raise Unreadable(f"found the character U+{error.character:04X}, expected printable text", place) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = ": indent with spaces" if "'\\t'" in str(error.problem) else ""
        context = f" {error.context}" if error.context else ""
        raise Unreadable(f"not valid YAML: {error.problem}{context}{hint}", _place(mark) if mark else None) from error


def _place(mark: yaml.Mark) -> Place:
    return Place(line=mark.line + 1, column=mark.column + 1)


class _Walk:
    """Turns nodes into data.  An alias is visited each time it is used, so the number of visits is limited."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._visits = 0

    def value(self, node: yaml.Node, at: Location) -> Any:
        place = _place(node.start_mark)
        self._visits += 1
        if self._visits > MAX_VALUES or len(at) > 2 * MAX_DEPTH:
            raise Unreadable(f"aliases expand to more than {MAX_VALUES:,} values, expected a plain document", place)
        self._document.values[at] = place
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*at, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, at)

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, child in node.value:
            place = _place(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self._problem(at, place, "found a key that is itself a list or a mapping: put braces in quotes")
            elif key.tag == _MERGE:
                self._problem(at, place, "merge keys (<<) are not supported: write the settings out")
            elif key.value in data:
                first = self._document.keys[(*at, key.value)].line
                self._problem((*at, key.value), place, f"duplicate key, first given on line {first}: remove one")
            else:
                # `on:` and `no:` are booleans to YAML 1.1; keys are taken as they are written.
                self._document.keys[(*at, key.value)] = place
                data[key.value] = self.value(child, (*at, key.value))
        return data

    def _scalar(self, node: yaml.Node, at: Location) -> Any:
        self._document.written[at] = node.value
        if node.tag in _TEXT:
            return node.value
        if node.tag in _PLAIN:
            try:
                return self._loader.construct_object(node)
            except ValueError:
                self._problem(at, _place(node.start_mark), f"found {node.value[:40]!r}, which is not a number")
                return None
        self._problem(at, _place(node.start_mark), f"found the tag {node.tag!r}, expected plain values without tags")
        return node.value

    def _problem(self, at: Location, place: Place, message: str) -> None:
        self._document.problems.append((at, place, message))
