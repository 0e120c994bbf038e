"""Prompt templates of the domain stage: plain replacement of `{input}`, `{id}` and `{category}`.

Pure.  Executes nothing and reaches no attribute or index: a field is a name, its value is inserted as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FIELDS = ("input", "id", "category")

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def template_problem(template: str) -> str | None:
    """What is wrong with a template, or None."""
    found = set()
    for part in _PART.finditer(template):
        if part[0] in ("{{", "}}"):
            continue
        if part[1] is None:
            return (
                f"found a lone {part[0]!r} in {template!r}, expected braces in pairs: write {part[0] * 2!r} for a brace"
            )
        if part[1] not in FIELDS:
            fields = ", ".join(f"{{{name}}}" for name in FIELDS)
            return f"found {part[0]!r} in the template, expected only {fields} ({{{{ and }}}} for braces)"
        found.add(part[1])
    if "input" not in found:
        return f"found {template!r}, expected a template that contains {{input}}: every item would get the same prompt"
    return None


def render_template(template: str, fields: Mapping[str, str]) -> str:
    """The template with its fields replaced, once: braces inside the values stay as they are.

    Raises:
        ValueError: the template is invalid (`template_problem`) or `fields` lacks one that it uses.
    """
    problem = template_problem(template)
    if problem is not None:
        raise ValueError(problem)

    def replacement(part: re.Match[str]) -> str:
        if part[1] is None:
            return part[0][0]  # {{ or }}
        if part[1] not in fields:
            raise ValueError(f"the template uses {part[0]!r}, which this item lacks: it has {', '.join(fields)}")
        return fields[part[1]]

    return _PART.sub(replacement, template)
