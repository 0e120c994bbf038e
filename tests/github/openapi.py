"""GitHub's own OpenAPI description, cut down to the calls that the gate makes: what Prism validates against.

Never committed and never written by hand: it is made from the npm package `@octokit/openapi` when the tests start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path("@octokit") / "openapi" / "generated" / "api.github.com.json"
_REPOSITORY = r"/repos/\{owner\}/\{repo\}"
_USED = re.compile(
    rf"/user|/app|/rate_limit|{_REPOSITORY}("
    r"|/check-runs(/\{check_run_id\}(/annotations)?)?"
    r"|/commits/\{ref\}(/check-runs|/status|/statuses)?"
    r"|/commits/\{commit_sha\}/pulls"
    r"|/statuses/\{sha\}"
    r"|/issues/\{issue_number\}(/comments|/events)?"
    r"|/issues/comments/\{comment_id\}"
    r"|/pulls(/\{pull_number\}(/files)?)?"
    r"|/compare/\{basehead\}"
    r"|/actions/runs/\{run_id\}"
    r")"
)
_METHODS = ("get", "post", "patch", "put", "delete")
# What GitHub answers anywhere, although the description names only some of it (POST check-runs: nothing but 201).
_ERRORS = {
    "401": ("basic-error",),
    "403": ("basic-error",),
    "404": ("basic-error",),
    "422": ("validation-error", "validation-error-simple"),
}
_COMPONENT = "#/components/"


def load(node_modules: Path) -> dict[str, Any]:
    """The whole description, as GitHub publishes it."""
    described: dict[str, Any] = json.loads((node_modules / PACKAGE).read_text(encoding="utf-8"))
    return described


def subset(described: Mapping[str, Any]) -> dict[str, Any]:
    """The paths that the gate uses, with the components that they refer to.

    Two things are stricter and wider than published.  A request body may have no field that is not described (the
    description lets a misspelt one pass).  Every path may answer the errors that GitHub answers everywhere, in the
    shape that it describes for them.
    """
    paths = {path: _closed(methods) for path, methods in described["paths"].items() if _USED.fullmatch(path)}
    components: dict[str, dict[str, Any]] = {}
    waiting: list[Any] = [paths]
    while waiting:
        for kind, name in _references(waiting.pop()):
            if name not in components.setdefault(kind, {}):
                components[kind][name] = described["components"][kind][name]
                waiting.append(components[kind][name])
    return {k: v for k, v in described.items() if k in ("openapi", "info", "servers")} | {
        "paths": paths,
        "components": components,
    }


def operation(described: Mapping[str, Any], method: str, path: str) -> tuple[str, Mapping[str, Any]]:
    """The template of a path and what is described for its method.

    Raises:
        LookupError: the description knows no such call.
    """
    for template, methods in described["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if method.lower() in methods and re.fullmatch(pattern, path):
            return template, methods[method.lower()]
    raise LookupError(f"{method} {path} is not in GitHub's description (as cut in {__name__})")


def query_parameters(described: Mapping[str, Any], method: str, path: str) -> set[str]:
    """Names that the query of a call may have: Prism checks their values, and lets unknown names pass."""
    _, found = operation(described, method, path)
    parameters = [_resolved(described, one) for one in found.get("parameters", ())]
    return {str(one["name"]) for one in parameters if one["in"] == "query"}


def _resolved(described: Mapping[str, Any], one: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in one:
        return one
    kind, name = one["$ref"].removeprefix(_COMPONENT).split("/", 1)
    found: Mapping[str, Any] = described["components"][kind][name]
    return found


def _closed(methods: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _operation(value) if key in _METHODS else value for key, value in methods.items()}


def _operation(published: Mapping[str, Any]) -> dict[str, Any]:
    errors = {
        code: {
            "description": "answered everywhere",
            "content": {
                "application/json": {"schema": {"anyOf": [{"$ref": f"{_COMPONENT}schemas/{name}"} for name in names]}}
            },
        }
        for code, names in _ERRORS.items()
    }
    found = dict(published) | {"responses": errors | published["responses"]}
    body = found.get("requestBody")
    if body is not None:
        content = {kind: media | {"schema": _no_more(media["schema"])} for kind, media in body["content"].items()}
        found["requestBody"] = body | {"content": content}
    return found


def _no_more(schema: Any) -> Any:
    """The schema of a request, without room for fields that it does not list."""
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: {name: _no_more(one) for name, one in value.items()} if key == "properties" else value
        for key, value in schema.items()
    }
    if "items" in closed:
        closed["items"] = _no_more(closed["items"])
    if "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


def _references(found: Any) -> Iterator[tuple[str, str]]:
    if isinstance(found, dict):
        reference = found.get("$ref")
        if isinstance(reference, str) and reference.startswith(_COMPONENT):
            kind, name = reference.removeprefix(_COMPONENT).split("/", 1)
            yield kind, name
        for value in found.values():
            yield from _references(value)
    elif isinstance(found, list):
        for value in found:
            yield from _references(value)
