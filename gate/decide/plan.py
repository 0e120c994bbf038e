"""What a policy can and cannot see, said before any GPU time is spent, and which capabilities it never looks at.

Pure: no I/O, no model, no data.  Judges no checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from gate import metrics, units
from gate.decide.outlook import Floors, Outlook, over_profile, written
from gate.decide.outlook_documents import over_documents
from gate.decide.outlook_items import Items, over_items, scores_to_see
from gate.decide.power import SMALLEST_FLIP_RATE
from gate.decide.profile_time import EXAMPLE, EXAMPLE_GPU, Model, ProfileTime, estimate
from gate.decide.speed import UNKNOWN, Speed
from gate.decide.stoppable import FLIP_RATES
from gate.policy import DomainStage, LmEvalStage, PerplexityStage, Policy, ProfileStage, Stage, Task, sample_size
from gate.records import Estimand, Role, Rule, Severity
from gate.task_catalog import AXES, TaskFacts, facts, tokens_per_item


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known besides the counts; every mapping may lack any source.

    Attributes:
        flip_rates: source → share of answers that earlier candidates changed.
        floors: (stage, source) → share of answers that the baseline changed against itself; None: never calibrated.
        tokens: source → tokens of one item, prompt and answer, of the team's own data.
        model: the two checkpoints, for the time that profile stages take on `gpu`, a name of `hardware.GPUS`.
    """

    flip_rates: Mapping[str, float] = field(default_factory=dict)
    floors: Floors | None = None
    tokens: Mapping[str, float] = field(default_factory=dict)
    speed: Speed = UNKNOWN
    model: Model = EXAMPLE
    gpu: str = EXAMPLE_GPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One rule, its stage's kind, the capability axis it speaks for (or None), and what it can see.

    `minutes`: what the rule takes for a lossless candidate; `most_minutes`: with all its items.
    """

    rule: Rule
    kind: str
    axis: str | None
    outlook: Outlook
    minutes: float | None
    most_minutes: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Items of all benchmarks and data sets that have been counted, and their minutes at the given speed, if known."""

    lossless: int
    most: int
    minutes: float | None
    most_minutes: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Rows in the order of the rules.

    Attributes:
        n_blocking: rules that can stop a release; they share the error of a false REGRESSION.
        problems: blocking rules that can never pass: such a policy must not be run.
        warnings: what is weak about single rules, and about the policy as a whole.
        notes: what is not known yet and how to learn it.
        together: probability that a lossless candidate passes every blocking rule whose odds are known, rules taken
            as independent; None when none is known.
        load: what one candidate takes; None where no item has been counted.
        profile_times: what each profile stage takes on a GPU, which is another matter than the given speed.
        covered, only_advisory, uncovered: capability axes with a blocking rule, with an advisory one, with none.
    """

    confidence: float
    n_blocking: int
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    together: float | None
    load: Load | None
    profile_times: tuple[ProfileTime, ...]
    covered: tuple[str, ...]
    only_advisory: tuple[str, ...]
    uncovered: tuple[str, ...]


def plan(policy: Policy, rules: tuple[Rule, ...], sizes: Mapping[str, int], known: Known | None = None) -> Plan:
    """Plan `rules` of `policy` as they are judged.

    Args:
        sizes: source → items (or documents) where the data has been counted.
        known: what earlier runs have shown, if there were any.
    """
    known = known or Known()
    stages = {stage.name: stage for stage in policy.stages}
    n_blocking = sum(rule.severity is Severity.BLOCKING for rule in rules)
    rows = tuple(_row(rule, stages[rule.stage], sizes, known, policy.confidence, n_blocking) for rule in rules)
    blocking = {row.axis for row in rows if row.rule.severity is Severity.BLOCKING}
    advisory = {row.axis for row in rows} - blocking
    stuck = [row for row in rows if row.outlook.problem is not None]
    odds = [r.outlook.odds for r in rows if r.rule.severity is Severity.BLOCKING and r.outlook.odds is not None]
    load = _load(rows)
    return Plan(
        confidence=policy.confidence,
        n_blocking=n_blocking,
        rows=rows,
        problems=tuple(_problem(row) for row in stuck if row.rule.severity is Severity.BLOCKING),
        warnings=(
            *(_problem(row) for row in stuck if row.rule.severity is Severity.ADVISORY),
            *dict.fromkeys(warning for row in rows for warning in row.outlook.warnings),
            *_only_choices(rows),
            *_over_budget(policy, load),
        ),
        notes=(*_uncounted(policy, rows), *_uncalibrated(rows, known), *_near_chance(rows)),
        together=math.prod(odds) if odds else None,
        load=load,
        profile_times=tuple(
            estimate(stage, known.model, known.gpu) for stage in policy.stages if isinstance(stage, ProfileStage)
        ),
        covered=tuple(axis for axis in AXES if axis in blocking),
        only_advisory=tuple(axis for axis in AXES if axis in advisory),
        uncovered=tuple(axis for axis in AXES if axis not in blocking | advisory),
    )


def _row(rule: Rule, stage: Stage, sizes: Mapping[str, int], known: Known, confidence: float, n_blocking: int) -> Row:
    axis, tokens, one_item = None, known.tokens.get(rule.source), True
    match stage:
        case PerplexityStage():
            corpus = next(c for c in stage.corpora if c.name == rule.source)
            outlook = over_documents(rule, corpus, sizes.get(corpus.name), confidence)
            one_item, tokens = False, outlook.tokens
        case LmEvalStage():
            task = next(t for t in stage.tasks if t.task == rule.source)
            fact = facts(task.task)
            axis = fact.axis if fact else None
            items = _task_items(stage.name, task, fact, sizes.get(task.task), known)
            outlook = over_items(rule, items, item_mean=True, confidence=confidence, n_blocking=n_blocking)
            once = tokens_per_item(task.task, task.fewshot)
            tokens = tokens if once is None else once * task.epochs.of(Role.CANDIDATE)
        case DomainStage():
            axis = "your own data"
            item_mean = metrics.DOMAIN[rule.metric].estimand is Estimand.ITEM_MEAN
            items = _domain_items(stage, sizes.get(rule.source), known)
            outlook = over_items(rule, items, item_mean=item_mean, confidence=confidence, n_blocking=n_blocking)
        case ProfileStage():
            outlook = over_profile(rule, stage, confidence)
            one_item, tokens = False, None
    few, most = (_first(outlook), outlook.most) if one_item else (1, 1)
    return Row(
        rule=rule,
        kind=stage.kind,
        axis=axis,
        outlook=outlook,
        minutes=_minutes(known.speed, few, tokens, one_item),
        most_minutes=_minutes(known.speed, most, tokens, one_item),
    )


def _first(outlook: Outlook) -> int | None:
    """Items for a lossless candidate: the most where nothing is known that ends the rule earlier."""
    return outlook.most if outlook.expected is None else outlook.expected.lossless


def _minutes(speed: Speed, items: int | None, tokens: float | None, of_items: bool) -> float | None:
    if items is None or not (of_items or speed.tokens_per_second):
        return None
    return speed.minutes(items=items, tokens_per_item=tokens)


def _task_items(stage: str, task: Task, fact: TaskFacts | None, counted: int | None, known: Known) -> Items:
    available = counted if counted is not None or fact is None else fact.items
    kind = fact.kind if fact else "generate"
    return Items(
        writes=kind == "generate",
        available=available,
        n=None if available is None else sample_size(task.sample, available),
        grouped=fact is not None and fact.grouped,
        flip_rate=_flip_rate((stage, task.task), "sampled" if task.temperature > 0 else kind, known),
        floor=(known.floors or {}).get((stage, task.task)),
        chance=fact.chance if fact else None,
    )


def _domain_items(stage: DomainStage, counted: int | None, known: Known) -> Items:
    kind = "choice" if stage.match == "choice" else "generate"
    return Items(
        writes=kind == "generate",
        available=counted,
        n=None if counted is None else sample_size(stage.sample, counted),
        grouped=False,
        flip_rate=_flip_rate((stage.name, stage.name), "sampled" if stage.temperature > 0 else kind, known),
        floor=(known.floors or {}).get((stage.name, stage.name)),
        chance=None,
    )


def _flip_rate(source: tuple[str, str], kind: str, known: Known) -> float:
    """Measured where it was, else assumed; never below what the baseline changes against itself."""
    rate = known.flip_rates.get(source[1], FLIP_RATES[kind])
    return min(max(rate, (known.floors or {}).get(source, 0.0), SMALLEST_FLIP_RATE), 1 - SMALLEST_FLIP_RATE)


def _load(rows: tuple[Row, ...]) -> Load | None:
    """Per source the blocking rule that takes longest, guard rails left out; all items of a source without one."""
    few: list[tuple[int, float | None]] = []
    most: list[tuple[int, float | None]] = []
    counted = [row for row in rows if row.outlook.unit == "items" and row.outlook.n]
    for _, group in groupby(counted, key=lambda row: (row.rule.stage, row.rule.source)):
        found = list(group)
        deciding = [r for r in found if r.rule.severity is Severity.BLOCKING and r.rule.by is None]
        longest = max(deciding or found, key=lambda r: r.outlook.most or 0)
        most.append((longest.outlook.most or 0, longest.most_minutes))
        row = max(deciding, key=lambda r: _first(r.outlook) or 0, default=None)
        few.append(most[-1] if row is None else (_first(row.outlook) or 0, row.minutes))
    if not counted:
        return None
    return Load(
        lossless=sum(items for items, _ in few),
        most=sum(items for items, _ in most),
        minutes=_sum([minutes for _, minutes in few]),
        most_minutes=_sum([minutes for _, minutes in most]),
    )


def _sum(minutes: list[float | None]) -> float | None:
    known = [value for value in minutes if value is not None]
    return math.fsum(known) if len(known) == len(minutes) else None


# -- sentences --------------------------------------------------------------------------------------------


def _problem(row: Row) -> str:
    line = "" if row.rule.line is None else f"line {row.rule.line}: "
    return f"{line}{row.rule.id}: {row.outlook.problem}"


def _only_choices(rows: tuple[Row, ...]) -> Iterator[str]:
    tasks = [row.rule.source for row in rows if row.kind == "lm_eval" and row.rule.severity is Severity.BLOCKING]
    if {known.kind if (known := facts(task)) else "unknown" for task in tasks} == {"choice"}:
        yield (
            "Every blocking benchmark is multiple choice. Reasoning, code and format following lose 3 to 5 times more "
            "when a model is quantized: add a task in which the model writes (gsm8k, humaneval, ifeval)."
        )


def _over_budget(policy: Policy, load: Load | None) -> Iterator[str]:
    if policy.budget is None or load is None or load.minutes is None:
        return
    if load.minutes > units.duration_seconds(policy.budget) / 60:
        yield (
            f"At this speed a lossless candidate takes about {load.minutes:,.0f} minutes on benchmarks and data sets, "
            f"more than the budget of {policy.budget}: the run would end inconclusive. Raise the budget or sample less."
        )


def _uncounted(policy: Policy, rows: tuple[Row, ...]) -> Iterator[str]:
    files = {stage.name: stage.data for stage in policy.stages if isinstance(stage, DomainStage)}
    for source in dict.fromkeys(r.rule.source for r in rows if r.outlook.unit == "items" and r.outlook.n is None):
        if source in files:
            yield f"{source}: its items are not counted, since {files[source]} is not there or has broken lines."
        else:
            yield f"{source}: how many items it has is known once lm-eval has loaded it; it is in no list of this gate."


def _uncalibrated(rows: tuple[Row, ...], known: Known) -> Iterator[str]:
    """Once for the whole policy."""
    floors = known.floors or {}
    asked = [(r.rule.stage, r.rule.source) for r in rows if r.outlook.flip_rate is not None]
    missing = list(dict.fromkeys(source for stage, source in asked if (stage, source) not in floors))
    if missing:
        where = "" if known.floors is None else f" of {', '.join(missing)}"
        yield (
            f"The noise floor{where} has not been measured: even the same model changes some answers when batch size "
            "or kernels change. `gate calibrate` measures it; after that a bound inside the noise is refused here."
        )


def _near_chance(rows: tuple[Row, ...]) -> Iterator[str]:
    limits = []
    for row in rows:
        known = facts(row.rule.source) if row.kind == "lm_eval" else None
        above = scores_to_see(row.rule, known.chance) if known is not None and known.chance else None
        if above is not None:
            limits.append(f"{row.rule.source} {above:.1%} ({written(row.rule)})")
    if limits:
        yield (
            "A model that guesses cannot get worse, so a rule sees no regression unless the baseline scores above "
            f"chance by more than the bound: {', '.join(limits)}."
        )
