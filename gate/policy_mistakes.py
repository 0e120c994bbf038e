"""What pydantic rejected, said in the words and at the places of the policy file.

Pure.  Translates; finds no mistake of its own and mends none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gate import engines
from gate import policy as models
from gate.document import Document, Place
from gate.policy import Location, Policy, Stage
from gate.policy_problems import did_you_mean, stage_problems
from gate.policy_rule import RuleSettings

Mistake = tuple[Place, Location, str]

_STAGES: dict[str, type[Stage]] = {
    "perplexity": models.PerplexityStage,
    "lm_eval": models.LmEvalStage,
    "domain": models.DomainStage,
    "profile": models.ProfileStage,
}
_PARTS: dict[str, tuple[type[BaseModel], str]] = {
    "rules": (RuleSettings, "a rule"),
    "corpora": (models.Corpus, "a corpus"),
    "tasks": (models.Task, "a task"),
    "checkpoints": (models.CheckpointSettings, "a named checkpoint"),
}
_ENGINES: dict[str, tuple[type[BaseModel], str]] = {
    "engines": (engines.Engines, "engines"),
    "hf": (engines.HfEngine, "engines.hf"),
    "vllm": (engines.VllmEngine, "engines.vllm"),
    "openai": (engines.OpenaiEngine, "engines.openai"),
}
_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def translated(
    error: ValidationError, document: Document, unknown_key: Callable[[Location, Any], str] | None = None
) -> list[Mistake]:
    """Each thing pydantic rejected, in our words, at its place in the document.

    `unknown_key` says what is wrong with a key that a document which is no policy does not know.
    """
    return [_translated(detail, document, unknown_key or _unknown_key) for detail in error.errors()]


def _translated(detail: ErrorDetails, document: Document, unknown_key: Callable[[Location, Any], str]) -> Mistake:
    kind, context = detail["type"], detail.get("ctx", {})
    at = _located(detail["loc"], document.data)
    if kind == "extra_forbidden":
        return document.keys[at], at, unknown_key(at, document.data)
    if kind == "missing":
        return place_of(document, at), at, f"missing key {str(detail['loc'][-1])!r}"
    if kind == "union_tag_not_found":
        return place_of(document, at), at, f"missing key 'kind', expected one of {', '.join(_STAGES)}"
    if detail["loc"][-1] == "[key]":
        return document.keys[at], at, str(context["error"])
    found = _found(document, at)
    if kind == "value_error":
        return place_of(document, at), at, str(context["error"])
    if kind == "union_tag_invalid":
        at = (*at, "kind")
        expected = f"one of {', '.join(_STAGES)}{did_you_mean(str(context['tag']), _STAGES)}"
        return place_of(document, at), at, f"found {_found(document, at)}, expected {expected}"
    if kind in ("literal_error", "enum"):
        choices = str(context["expected"])
        expected = choices + did_you_mean(document.written.get(at, ""), re.findall(r"'([^']+)'", choices))
    elif kind in _TYPES:
        expected = _TYPES[kind] + _quoting(kind, document.written.get(at), detail["input"])
    elif kind in _LIMITS:
        key, words = _LIMITS[kind]
        expected = f"{words} {context[key]:g}"
    elif kind == "too_short":
        found, expected = "an empty list", "at least one entry"
    elif kind == "string_too_short":
        expected = "text that is not empty"
    else:
        expected = detail["msg"]
    return place_of(document, at), at, f"found {found}, expected {expected}"


def _located(loc: tuple[int | str, ...], data: Any) -> Location:
    """Pydantic's location without what is no part of the document (union tags, `[key]`, missing keys)."""
    at: Location = ()
    for index, part in enumerate(loc):
        if index == 2 and loc[0] == "stages" and part in _STAGES:
            continue  # the tag of the discriminated union
        if part in (data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()):
            at, data = (*at, part), data[part]
    return at


def place_of(document: Document, at: Location) -> Place:
    """Where a value stands; for a value that is not in the document, its nearest parent."""
    while at not in document.values:
        at = at[:-1]
    return document.values[at]


def _found(document: Document, at: Location) -> str:
    if at in document.written:
        return repr(document.written[at]) if document.written[at] else "nothing"
    value = _at(document.data, at)
    return "a list" if isinstance(value, list) else "a mapping"


def _quoting(kind: str, written: str | None, value: object) -> str:
    """Advice on quotes, the usual reason for a wrong type: YAML reads `no` as false and `{input}` as a mapping."""
    if kind == "string_type" and written is not None and value is not None:
        return f": YAML reads this as {type(value).__name__}, write it in quotes"
    if kind == "string_type" and isinstance(value, dict | list):
        return ": text with braces or brackets needs quotes"
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        plain = yaml.SafeLoader(value).get_single_data() if value.strip().isalnum() else None
        return ": remove the quotes" if isinstance(plain, int | bool) else ""
    return ""


def _unknown_key(at: Location, data: Any) -> str:
    key, fields = str(at[-1]), _fields(at[:-1], data)
    suggestion = did_you_mean(key, fields)
    homes = [words for model, words in (*_PARTS.values(), *_ENGINES.values()) if key in model.model_fields]
    homes += [f"a {kind} stage" for kind, model in _STAGES.items() if key in model.model_fields]
    homes += ["the top level"] if key in Policy.model_fields else []
    if not suggestion and homes:
        suggestion = f": it belongs to {' or '.join(homes[:2])}"
    return f"unknown key {key!r}{suggestion or ', expected one of ' + ', '.join(fields)}"


def _fields(at: Location, data: Any) -> list[str]:
    """The keys that the mapping at a place may have."""
    if not at:
        return list(Policy.model_fields)
    if at[-1] == "judge":
        return list(models.Judge.model_fields)
    if at[-1] in _ENGINES and "engines" in at:
        return list(_ENGINES[str(at[-1])][0].model_fields)
    if at[-2] == "stages":
        return list(_STAGES[_at(data, at)["kind"]].model_fields)
    return list(_PARTS[str(at[-2])][0].model_fields)


def _at(data: Any, at: Location) -> Any:
    for part in at:
        data = data[part]
    return data


def dotted(at: Location, whole: str = "policy") -> str:
    """`stages[1].rules[0].max_drop`; `whole` is how the whole document is called."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in at).lstrip(".") or whole


def contradictions(error: ValidationError, document: Document) -> list[Mistake]:
    """Contradictions in the stages after what pydantic rejected is set aside, so that one round shows them all."""
    stages = document.data.get("stages")
    if not isinstance(stages, list):
        return []
    found: list[Mistake] = []
    rejected = {_enclosing(_located(d["loc"], document.data)) for d in error.errors()}
    for index in range(len(stages)):
        origin: dict[Location, Location] = {}
        kept = _without(rejected, stages[index], ("stages", index), (), origin)
        kind = kept.get("kind") if isinstance(kept, dict) else None
        if not (isinstance(kind, str) and kind in _STAGES):
            continue
        try:
            stage = _STAGES[kind].model_validate(kept)
        except ValidationError:
            continue  # too little is left to say more
        for near, message in stage_problems(stage):
            at = _origin(origin, near)
            found.append((place_of(document, at), at, message))
    return found


def _enclosing(at: Location) -> Location:
    """A rule is set aside as a whole; elsewhere only the value that was rejected."""
    return at[: at.index("rules") + 2] if "rules" in at else at


def _without(rejected: set[Location], data: Any, at: Location, new: Location, origin: dict[Location, Location]) -> Any:
    """A copy of `data` without the rejected places; `origin` maps its places to those of the document."""
    origin[new] = at
    if isinstance(data, dict):
        kept = {k: v for k, v in data.items() if (*at, k) not in rejected}
        return {k: _without(rejected, v, (*at, k), (*new, k), origin) for k, v in kept.items()}
    if isinstance(data, list):
        places = [i for i in range(len(data)) if (*at, i) not in rejected]
        return [_without(rejected, data[i], (*at, i), (*new, n), origin) for n, i in enumerate(places)]
    return data


def _origin(origin: dict[Location, Location], at: Location) -> Location:
    tail: Location = ()
    while at not in origin:
        at, tail = at[:-1], (at[-1], *tail)
    return (*origin[at], *tail)
