"""Evaluates the expressions of workflow files, as far as ours use them.

Pure: contexts in, value out.  What it does not know is an error, so that a test never passes on a misreading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<op>&&|\|\||==|!=|!|\(|\)|,)"
    r"|(?P<name>[A-Za-z_][\w-]*(?:\.(?:[\w-]+|\*))*))"
)
_PART = re.compile(r"\$\{\{(.*?)\}\}", re.S)
STATUS = ("always", "success", "failure", "cancelled")


class UnknownExpression(Exception):
    """Something that GitHub may understand and this evaluator does not."""


def interpolate(text: str, contexts: Mapping[str, Any]) -> str:
    """The text with every `${{ … }}` replaced, as GitHub prints values."""
    return _PART.sub(lambda found: shown(evaluate(found[1], contexts)), text)


def condition(text: str | None, contexts: Mapping[str, Any], *, failed: bool) -> bool:
    """An `if`: without a function of status it also wants that nothing has failed before."""
    text = "success()" if text is None else text.strip().removeprefix("${{").removesuffix("}}")
    if not any(f"{name}()" in text for name in STATUS):
        text = f"success() && ({text})"
    return _true(evaluate(text, {**contexts, "failed": failed}))


def evaluate(text: str, contexts: Mapping[str, Any]) -> Any:
    tokens = _tokens(text)
    value = _Reader(tokens, contexts).either()
    if tokens:
        raise UnknownExpression(text)
    return value


def shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            return json.dumps(value)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise UnknownExpression(text[at:])
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _true(value: Any) -> bool:
    return value not in (None, "", False, 0)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    if left is None or right is None or isinstance(left, bool) or isinstance(right, bool):
        return bool(("" if left is None else left) == ("" if right is None else right))
    return bool(left == right)


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]], contexts: Mapping[str, Any]) -> None:
        self.tokens, self.contexts = tokens, contexts

    def takes(self, op: str) -> bool:
        if self.tokens and self.tokens[0] == ("op", op):
            del self.tokens[0]
            return True
        return False

    def either(self) -> Any:
        value = self.both()
        while self.takes("||"):
            other = self.both()
            value = value if _true(value) else other
        return value

    def both(self) -> Any:
        value = self.compared()
        while self.takes("&&"):
            other = self.compared()
            value = other if _true(value) else value
        return value

    def compared(self) -> Any:
        value = self.negated()
        for op in ("==", "!="):
            if self.takes(op):
                return _equal(value, self.negated()) is (op == "==")
        return value

    def negated(self) -> Any:
        if self.takes("!"):
            return not _true(self.negated())
        if self.takes("("):
            value = self.either()
            if not self.takes(")"):
                raise UnknownExpression("expected )")
            return value
        return self.single()

    def single(self) -> Any:
        if not self.tokens:
            raise UnknownExpression("ends too early")
        kind, text = self.tokens.pop(0)
        if kind == "string":
            return text[1:-1].replace("''", "'")
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind != "name":
            raise UnknownExpression(text)
        if self.takes("("):
            return self.called(text)
        return self.looked_up(text)

    def called(self, name: str) -> Any:
        arguments: list[Any] = []
        while not self.takes(")"):
            arguments.append(self.either())
            self.takes(",")
        failed = bool(self.contexts.get("failed"))
        functions: dict[str, Callable[..., Any]] = {
            "always": lambda: True,
            "success": lambda: not failed,
            "failure": lambda: failed,
            "cancelled": lambda: False,
            "format": lambda text, *parts: re.sub(r"\{(\d+)\}", lambda m: shown(parts[int(m[1])]), text),
            "startsWith": lambda text, start: shown(text).casefold().startswith(shown(start).casefold()),
            "fromJSON": json.loads,
        }
        if name not in functions:
            raise UnknownExpression(f"{name}()")
        return functions[name](*arguments)

    def looked_up(self, name: str) -> Any:
        if name in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[name]
        first, *rest = name.split(".")
        if first not in self.contexts:
            raise UnknownExpression(name)
        value = self.contexts[first]
        for part in rest:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value
