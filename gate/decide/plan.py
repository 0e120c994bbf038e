"""What a policy can and cannot see, said before any GPU time is spent, and which capabilities it never looks at.

Pure: no I/O, no model, no data.  Judges no checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gate import metrics
from gate.decide.outlook import Outlook, over_blocks, over_documents, over_items
from gate.policy import DomainStage, LmEvalStage, PerplexityStage, Policy, ProfileStage, Stage
from gate.records import Estimand, Rule, Severity
from gate.task_catalog import AXES, facts


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One rule, its stage's kind, the capability axis it speaks for (or None), and what it can see."""

    rule: Rule
    kind: str
    axis: str | None
    outlook: Outlook


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Rows in the order of the rules.

    Attributes:
        problems: blocking rules that can never pass: such a policy must not be run.
        warnings: what is weak about single rules, and about the policy as a whole.
        together: probability that a lossless candidate passes every blocking rule whose odds are known, rules taken
            as independent; None when none is known.
        covered, only_advisory, uncovered: capability axes with a blocking rule, with an advisory one, with none.
    """

    confidence: float
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    together: float | None
    covered: tuple[str, ...]
    only_advisory: tuple[str, ...]
    uncovered: tuple[str, ...]


def plan(policy: Policy, rules: tuple[Rule, ...], sizes: Mapping[str, int]) -> Plan:
    """Plan `rules` of `policy`.  `sizes`: source → items (or documents) where the data has been counted.

    Every rule is planned as it is judged: with a fixed number of items, for tasks like these.
    """
    stages = {stage.name: stage for stage in policy.stages}
    rows = tuple(_row(rule, stages[rule.stage], sizes, policy.confidence) for rule in rules)
    blocking = {row.axis for row in rows if row.rule.severity is Severity.BLOCKING}
    advisory = {row.axis for row in rows} - blocking
    stuck = [row for row in rows if row.outlook.problem is not None]
    odds = [r.outlook.odds for r in rows if r.rule.severity is Severity.BLOCKING and r.outlook.odds is not None]
    return Plan(
        confidence=policy.confidence,
        rows=rows,
        problems=tuple(_problem(row) for row in stuck if row.rule.severity is Severity.BLOCKING),
        warnings=(
            *(_problem(row) for row in stuck if row.rule.severity is Severity.ADVISORY),
            *dict.fromkeys(warning for row in rows for warning in row.outlook.warnings),
            *_only_choices(rows),
        ),
        together=math.prod(odds) if odds else None,
        covered=tuple(axis for axis in AXES if axis in blocking),
        only_advisory=tuple(axis for axis in AXES if axis in advisory),
        uncovered=tuple(axis for axis in AXES if axis not in blocking | advisory),
    )


def _row(rule: Rule, stage: Stage, sizes: Mapping[str, int], confidence: float) -> Row:
    axis = None
    match stage:
        case PerplexityStage():
            corpus = next(c for c in stage.corpora if c.name == rule.source)
            outlook = over_documents(rule, corpus, sizes.get(corpus.name), confidence)
        case LmEvalStage():
            task = next(t for t in stage.tasks if t.task == rule.source)
            known = facts(task.task)
            axis = known.axis if known else None
            outlook = over_items(
                rule,
                task_kind=known.kind if known else "generate",
                available=sizes.get(task.task, known.items if known else None),
                sample=task.sample,
                estimand=Estimand.ITEM_MEAN,
                confidence=confidence,
            )
        case DomainStage():
            axis = "your own data"
            outlook = over_items(
                rule,
                task_kind="choice" if stage.match == "choice" else "generate",
                available=sizes.get(rule.source),
                sample=stage.sample,
                estimand=metrics.DOMAIN[rule.metric].estimand,
                confidence=confidence,
            )
        case ProfileStage():
            estimand = metrics.PROFILE[rule.metric].estimand
            outlook = over_blocks(rule, estimand=estimand, blocks=stage.blocks, confidence=confidence)
    return Row(rule=rule, kind=stage.kind, axis=axis, outlook=outlook)


def _problem(row: Row) -> str:
    line = "" if row.rule.line is None else f"line {row.rule.line}: "
    return f"{line}{row.rule.id}: {row.outlook.problem}"


def _only_choices(rows: tuple[Row, ...]) -> tuple[str, ...]:
    tasks = [row.rule.source for row in rows if row.kind == "lm_eval" and row.rule.severity is Severity.BLOCKING]
    if {known.kind if (known := facts(task)) else "unknown" for task in tasks} != {"choice"}:
        return ()
    return (
        "Every blocking benchmark is multiple choice. Reasoning, code and format following lose 3 to 5 times more "
        "when a model is quantized: add a task in which the model writes (gsm8k, humaneval, ifeval).",
    )
