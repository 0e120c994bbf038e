"""What contradicts itself in a policy that is well formed: unknown metrics, bounds that do not fit, clashing names.

Pure.  Reports every problem with its place in the document; never stops at the first, never mends anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from gate import metrics, units
from gate.formats import load_problems
from gate.policy import (
    Decoding,
    DomainStage,
    LmEvalStage,
    Location,
    PerplexityStage,
    Policy,
    ProfileStage,
    Stage,
    planned_rules,
    rule_settings,
)
from gate.policy_rule import JUDGE_METRICS, RuleSettings
from gate.records import BoundKind, Direction, Estimand, Metric, Severity

Problem = tuple[Location, str]

_WRITTEN = ("exact", "contains", "regex", "numeric", "json")
_MATCHES: dict[str, tuple[str, ...]] = {
    "macro_f1": ("exact", "contains", "choice"),
    **dict.fromkeys(("rouge_l", "bleu", "chrf"), ("exact", "contains", "numeric")),
    **dict.fromkeys(set(metrics.DOMAIN) - {"accuracy", "macro_f1", "rouge_l", "bleu", "chrf"}, _WRITTEN),
}
"""Domain metric → kinds of match under which it means something: labels, texts to compare with, a written answer."""


def rule_problems(policy: Policy) -> Iterator[Problem]:
    """Every contradiction in a policy that validates."""
    found = list(_twice((("stages", i, "name"), s.name) for i, s in enumerate(policy.stages)))
    for index, stage in enumerate(policy.stages):
        found += [(("stages", index, *at), message) for at, message in stage_problems(stage)]
    yield from found
    for name, checkpoint in policy.checkpoints.items():
        yield from ((("checkpoints", name, "load", key), message) for key, message in load_problems(checkpoint.load))
    if policy.quantization_cost is not None and policy.price_per_hour is None:
        yield ("quantization_cost",), "found no price_per_hour to add it to, expected both or neither"
    if units.percent(policy.output_length.min) >= units.percent(policy.output_length.max):
        yield ("output_length",), "found a min that is not below max, expected a range around 100% such as 90% to 110%"
    planned = planned_rules(policy, {})
    if planned and all(rule.severity is Severity.ADVISORY for rule in planned):
        yield ("stages",), "every rule is advisory: nothing could fail; make at least one rule blocking"
    if any(at[-1] in ("name", "task") for at, _ in found):
        return  # sources of the same name have rules of the same id: said already
    seen: set[str] = set()
    for rule, (_, _, _, location) in zip(planned, rule_settings(policy), strict=True):
        if rule.id in seen:
            yield location, f"rule id {rule.id!r} is used twice: give one of them another `id:`"
        seen.add(rule.id)


def stage_problems(stage: Stage) -> Iterator[Problem]:
    """Contradictions inside one stage; locations are relative to the stage."""
    match stage:
        case PerplexityStage():
            yield from _twice((("corpora", i, "name"), c.name) for i, c in enumerate(stage.corpora))
            names = [c.name for c in stage.corpora]
            for r, rule in enumerate(stage.rules):
                if rule.corpus is not None and rule.corpus not in names:
                    found = f"found {rule.corpus!r}, expected a corpus of this stage: {', '.join(names)}"
                    yield ("rules", r, "corpus"), found
        case LmEvalStage():
            yield from _twice((("tasks", i, "task"), t.task) for i, t in enumerate(stage.tasks))
            for t, task in enumerate(stage.tasks):
                for at, message in _decoding_problems(task, task.rules):
                    yield ("tasks", t, *at), message
        case DomainStage():
            yield from _domain_problems(stage)
        case ProfileStage():
            yield from _profile_problems(stage)
    for location, rule in _rules(stage):
        for tail, message in _rule_problems(stage, rule):
            yield (*location, *tail), message


def _profile_problems(stage: ProfileStage) -> Iterator[Problem]:
    loads = [] if stage.serving is None else stage.serving.loads
    yield from _twice((("serving", "loads", i), load.name) for i, load in enumerate(loads))
    known = {
        "batch": (list(map(str, stage.batch_sizes)), "one of batch_sizes"),
        "lengths": ([f"{p}+{n}" for p, n in stage.length_pairs], "one of the lengths"),
        "load": ([load.name for load in loads], "one of serving: loads"),
    }
    for r, rule in enumerate(stage.rules):
        for key, (names, where) in known.items():
            found = getattr(rule, key)
            if found is not None and str(found) not in names:
                yield ("rules", r, key), f"found {found!r}, expected {where}: {', '.join(names) or 'there are none'}"
        if rule.load is not None and (rule.batch is not None or rule.lengths is not None):
            yield ("rules", r, "load"), "found load beside batch or lengths, expected one of them: a load mixes both"
        if rule.metric == "goodput_requests_per_second" and not loads:
            yield ("rules", r, "metric"), "goodput is that of a load: add `serving: {loads: …}` to the stage"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`: did you mean 'accuracy'?` when a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close and close[0] != word else ""


def _unknown_metric(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name, known)
    return f"unknown metric {name!r}{hint or ', expected one of ' + ', '.join(sorted(known))}"


def _rules(stage: Stage) -> Iterator[tuple[Location, RuleSettings]]:
    if isinstance(stage, LmEvalStage):
        for t, task in enumerate(stage.tasks):
            for r, rule in enumerate(task.rules):
                yield ("tasks", t, "rules", r), rule
    else:
        for r, rule in enumerate(stage.rules):
            yield ("rules", r), rule


def _twice(named: Iterable[tuple[Location, str]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for location, name in named:
        if name in seen:
            yield location, f"{name!r} is used twice, expected unique names: results are kept under them"
        seen.add(name)


def _rule_problems(stage: Stage, rule: RuleSettings) -> Iterator[Problem]:
    known = metrics.BY_KIND.get(stage.kind)
    bound = rule.bound()
    if known is not None and rule.metric not in known:
        yield ("metric",), _unknown_metric(rule.metric, known)
    elif known is not None:
        yield from _bound_problems(known[rule.metric], rule)
    if _toothless(rule, None if known is None else known.get(rule.metric)):
        yield (bound.kind.value,), f"found {bound.text!r}: this rule can never fail, use a tighter bound"
    if rule.corpus is not None and not isinstance(stage, PerplexityStage):
        yield ("corpus",), "corpus is for perplexity rules only"
    for key in ("batch", "lengths", "load"):
        if getattr(rule, key) is not None and not isinstance(stage, ProfileStage):
            yield (key,), f"{key} is for profile rules only"
    if rule.by is not None and not isinstance(stage, DomainStage | LmEvalStage):
        yield ("by",), "by is for lm_eval and domain rules only"
    if rule.by is not None and bound.kind in (BoundKind.MAX_INCREASE, BoundKind.MIN_SPEEDUP):
        yield ("by",), f"by does not go with {bound.kind}, expected max_drop, min_retained, max or min"


def _toothless(rule: RuleSettings, metric: Metric | None) -> bool:
    """No measured value could break the bound.  `metric` is None where only lm-eval knows it."""
    bound = rule.bound()
    signed = metric is not None and metric.unit == "probability"  # delta_p_mean, the one metric below zero
    match bound.kind:
        case BoundKind.MAX_DROP:
            return bound.value >= 1
        case BoundKind.MIN_RETAINED:
            return bound.value <= 0
        case BoundKind.MIN:
            return bound.value <= 0 and not signed
        case BoundKind.MAX:
            return metric is not None and metric.unit == "rate" and bound.value >= 1
        case BoundKind.MAX_INCREASE | BoundKind.MIN_SPEEDUP:
            return False


def _bound_problems(metric: Metric, rule: RuleSettings) -> Iterator[Problem]:
    bound = rule.bound()
    fitting = metrics.BOUNDS[metric.estimand]
    if bound.kind not in fitting:
        expected = ", ".join(k.value for k in BoundKind if k in fitting)
        yield (bound.kind.value,), f"{bound.kind} does not fit {metric.name}, expected one of {expected}"
        return
    if metric.name in metrics.ADVISORY_ONLY and rule.effective_severity() is Severity.BLOCKING:
        yield ("metric",), f"{metric.name} {metrics.ADVISORY_ONLY[metric.name]}: set severity: advisory"
    lower = metric.direction is Direction.LOWER_IS_BETTER
    if lower and bound.kind in (BoundKind.MAX_DROP, BoundKind.MIN_RETAINED):
        yield (bound.kind.value,), f"{metric.name} is better when lower: {bound.kind} would punish it, use max"
    if not lower and bound.kind is BoundKind.MAX_INCREASE:
        yield (
            (bound.kind.value,),
            f"{metric.name} is better when higher: {bound.kind} would punish it, use min_retained",
        )
    quality = metric.estimand not in (Estimand.TIMING, Estimand.SCALAR)
    if bound.kind is BoundKind.MIN_RETAINED and quality and bound.value > 1:
        yield ("min_retained",), f"found {bound.text!r}, expected at most 100%: it asks for more than the baseline has"
    if bound.kind in (BoundKind.MAX, BoundKind.MIN):
        # a bare number may be negative (delta_p_mean), a written quantity may not
        written = units.dimension(bound.text.lstrip("-"))
        if metric.unit == "B" and written != "bytes":
            yield (bound.kind.value,), f"found {bound.text!r}, expected bytes such as 24GiB for {metric.name}"
        elif metric.unit == "s" and written not in ("seconds", "number"):
            yield (bound.kind.value,), f"found {bound.text!r}, expected a time such as 200ms for {metric.name}"
        elif metric.unit == "rate" and (written not in ("share", "number") or not 0 <= bound.value <= 1):
            yield (bound.kind.value,), f"found {bound.text!r}, expected a rate such as 0.9 or 90% for {metric.name}"
        elif metric.unit not in ("B", "s", "rate") and written != "number":
            yield (bound.kind.value,), f"found {bound.text!r}, expected a plain number for {metric.name}"


def _domain_problems(stage: DomainStage) -> Iterator[Problem]:
    if stage.tolerance and stage.match != "numeric":
        yield ("tolerance",), f"tolerance is for match: numeric, found match: {stage.match}"
    if stage.json_fields is not None and stage.match != "json":
        yield ("json_fields",), f"json_fields is for match: json, found match: {stage.match}"
    if stage.judge is not None and stage.match == "choice":
        yield ("judge",), "match: choice compares log-likelihoods and writes no answer that a judge could read"
    if stage.match == "choice":
        for key in Decoding.model_fields:
            if getattr(stage, key) != Decoding.model_fields[key].default:
                yield (key,), f"match: choice compares log-likelihoods and writes no answer: remove {key}"
    else:
        yield from _decoding_problems(stage, stage.rules)
    named = {r.metric for r in stage.rules}
    for name in stage.text_metrics:
        if name not in named and stage.match not in _MATCHES[name]:
            yield ("text_metrics",), _unfit(name, stage.match)
    for r, rule in enumerate(stage.rules):
        if rule.metric in JUDGE_METRICS and stage.judge is None:
            yield (
                ("rules", r, "metric"),
                f"{rule.metric} needs a `judge:` block (url, model, rubric) in this stage",
            )
        elif stage.match not in _MATCHES.get(rule.metric, (stage.match,)):
            yield ("rules", r, "metric"), _unfit(rule.metric, stage.match)


def _decoding_problems(decoding: Decoding, rules: Sequence[RuleSettings]) -> Iterator[Problem]:
    if decoding.temperature == 0 and decoding.epochs != Decoding().epochs:
        yield ("epochs",), "greedy decoding writes the same answer each time: set temperature above 0, or remove epochs"
    if decoding.pass_at is not None and decoding.pass_at > decoding.epochs.fewest:
        fewest = decoding.epochs.fewest
        yield ("pass_at",), f"found {decoding.pass_at}, expected at most the epochs of both roles, which is {fewest}"
    for r, rule in enumerate(rules):
        if rule.metric == "pass_at_k" and decoding.pass_at is None:
            yield ("rules", r, "metric"), "pass_at_k needs `pass_at`, the number of answers of which one must be right"


def _unfit(metric: str, match: str) -> str:
    return f"{metric} cannot be measured with match: {match}, expected match: {' or '.join(_MATCHES[metric])}"
