"""What one policy does to the rules of another: which are added, removed, loosened, tightened, or changed.

Pure: two loaded policies → a list.  Loosened wins over changed: an easier bar never hides behind another edit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gate.policy_file import LoadedPolicy
from gate.records import BoundKind, MaxLost, Rule, RuleChange, Severity

_MORE_IS_LOOSER = frozenset({BoundKind.MAX_INCREASE, BoundKind.MAX_DROP, BoundKind.MAX})
_LOOSER_FIRST: dict[str, tuple[Any, ...]] = {
    "on_inconclusive": ("warn", "fail"),
    "publish.inconclusive": ("neutral", "action_required", "failure"),
}
"""Settings of the whole policy with an order, the loosest first; confidence is one more, by its size."""

_MAX_TEXT = 300


def rule_changes(was: LoadedPolicy, now: LoadedPolicy) -> tuple[RuleChange, ...]:
    """All differences that judge, loosened and removed rules first; stage settings are changes of `<stage>`."""
    before, after = {r.id: r for r in was.rules}, {r.id: r for r in now.rules}
    found = []
    for name in dict.fromkeys((*before, *after)):
        one, other = before.get(name), after.get(name)
        kind = _kind(one, other)
        if kind is not None:
            found.append(RuleChange(rule=name, kind=kind, was=_line(one), now=_line(other)))
    order = ("loosened", "removed", "changed", "added", "tightened")
    return tuple(sorted((*found, *_settings(was, now)), key=lambda change: order.index(change.kind)))


def line(rule: Rule) -> str:
    """The rule as a line of text, with everything that it judges by."""
    parts = [f"{rule.metric} {rule.bound.kind.value} {rule.bound.text}", rule.severity.value]
    selectors = {"by": rule.by, "batch": rule.batch, "lengths": rule.lengths, "load": rule.load}
    selectors |= {"max_items": rule.max_items, "max_lost": _lost(rule.max_lost)}
    parts += [f"{name} {value}" for name, value in selectors.items() if value is not None]
    return ", ".join([*parts, f"scope {rule.scope.value}"])


def _line(rule: Rule | None) -> str | None:
    return None if rule is None else line(rule)


def _lost(lost: MaxLost) -> str | None:
    if lost.count is not None:
        return str(lost.count) if lost.count else None
    return f"{lost.share:.4%}"


def _kind(was: Rule | None, now: Rule | None) -> str | None:
    if was is None or now is None:
        return "added" if was is None else "removed"
    if replace(was, line=None) == replace(now, line=None):
        return None
    steps = [_by_bound(was, now), _by_severity(was, now), _by_lost(was.max_lost, now.max_lost)]
    alike = replace(was, line=None, bound=now.bound, severity=now.severity, max_lost=now.max_lost)
    others = alike != replace(now, line=None)
    return _combined([*steps, "changed" if others else None])


def _combined(steps: list[str | None]) -> str | None:
    """What several edits of one rule come to."""
    taken = {step for step in steps if step is not None}
    if not taken:
        return None
    if len(taken) == 1:
        return taken.pop()
    return "loosened" if "loosened" in taken and "tightened" not in taken else "changed"


def _by_bound(was: Rule, now: Rule) -> str | None:
    if was.bound.kind is not now.bound.kind:
        return "changed"
    return _step(was.bound.value, now.bound.value, more_is_looser=was.bound.kind in _MORE_IS_LOOSER)


def _by_severity(was: Rule, now: Rule) -> str | None:
    if was.severity is now.severity:
        return None
    return "loosened" if now.severity is Severity.ADVISORY else "tightened"


def _by_lost(was: MaxLost, now: MaxLost) -> str | None:
    if was == now:
        return None
    if was.count is not None and now.count is not None:
        return _step(was.count, now.count, more_is_looser=True)
    if was.share is not None and now.share is not None:
        return _step(was.share, now.share, more_is_looser=True)
    if was.count == 0 or now.count == 0:
        return "loosened" if was.count == 0 else "tightened"
    return "changed"


def _step(was: float, now: float, *, more_is_looser: bool) -> str | None:
    if was == now:
        return None
    return "loosened" if (now > was) == more_is_looser else "tightened"


def _settings(was: LoadedPolicy, now: LoadedPolicy) -> Iterator[RuleChange]:
    """What holds for all rules (`policy.…`), and what is measured (`stage <name>`)."""
    before, after = _plain(was), _plain(now)
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one != other:
            kind = "changed"
            if name == "policy.confidence":
                kind = "loosened" if now.policy.confidence < was.policy.confidence else "tightened"
            ranks = _LOOSER_FIRST.get(name.removeprefix("policy."))
            if ranks is not None:
                kind = "loosened" if ranks.index(other) < ranks.index(one) else "tightened"
            yield RuleChange(rule=name, kind=kind, was=_text(one), now=_text(other))


def _plain(loaded: LoadedPolicy) -> Mapping[str, Any]:
    data = loaded.policy.model_dump(mode="json")
    stages = data.pop("stages")
    publish = {f"policy.publish.{key}": value for key, value in data.pop("publish").items()}
    measured = {f"stage {stage['name']}": _without_rules(stage) for stage in stages}
    return {**{f"policy.{key}": value for key, value in data.items()}, **publish, **measured}


def _without_rules(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_rules(inner) for key, inner in value.items() if key != "rules" and inner is not None}
    return [_without_rules(inner) for inner in value] if isinstance(value, list) else value


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
