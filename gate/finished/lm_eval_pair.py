"""The two roles' measurements of one policy task, from two lm-eval evaluations that must have asked the same.

Reads; judges nothing.  What was asked differently is an error that says how, never a smaller set of pairs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.errors import CouldNotMeasure
from gate.finished.lm_eval_folder import Evaluated, LmEvalFolder, ResultsFile
from gate.finished.lm_eval_metrics import LeafTask, agree, declare, observation, value_and_weight
from gate.finished.lm_eval_samples import read_samples
from gate.finished.stage import SourceEvidence
from gate.policy import Task
from gate.records import Answer, ItemFailure, Measurement, Observation, Role

_COMPARED = ("output_type", "num_fewshot", "generation_kwargs", "repeats", "metric_list", "filter_list")
"""Settings of a task that change its scores and show in no hash of its samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    role: Role
    file: ResultsFile
    leaves: tuple[LeafTask, ...]


def read_pair(stage: str, settings: Task, baseline: LmEvalFolder, candidate: LmEvalFolder) -> SourceEvidence:
    """The evidence on one task or group of the policy.

    Raises:
        DataError: a file is broken.
        CouldNotMeasure: one side lacks it, the two did not ask the same, or it is not what the policy asks.
    """
    task = settings.task
    found = {Role.BASELINE: baseline.find(task), Role.CANDIDATE: candidate.find(task)}
    sides = [_side(role, one) for role, one in found.items()]
    left, right = sides
    _check_policy(settings, sides)
    _check_same_tasks(task, left, right)
    for side in sides:
        _check_group(settings, side)
    _check_same_prompts(task, left, right)
    _check_same_settings(task, left, right)
    digest = hashlib.sha256(json.dumps([_settings(leaf) for leaf in left.leaves]).encode()).hexdigest()
    # What one side did not run is lost there, so the larger count is what was to be expected of both.
    n_expected = sum(
        max(pair[0].n_expected, pair[1].n_expected) for pair in zip(left.leaves, right.leaves, strict=True)
    )
    partly = list(dict.fromkeys(line for side in sides for line in _partly(task, side)))
    evidence = [_measurement(stage, task, side, digest, n_expected) for side in sides]
    return SourceEvidence(
        baseline=evidence[0],
        candidate=evidence[1],
        population_only="; ".join(partly) or None,
        notes=(*dict.fromkeys(note for one in found.values() for note in one.notes), *_remarks(settings, sides)),
    )


def _side(role: Role, found: Evaluated) -> _Side:
    return _Side(role=role, file=found.file, leaves=tuple(_leaf(found.file, name) for name in found.leaves))


def _leaf(file: ResultsFile, name: str) -> LeafTask:
    counts = file.of("n-samples", name)
    effective, original = counts.get("effective"), counts.get("original")
    if type(effective) is not int or type(original) is not int or not 0 <= effective <= original:
        raise CouldNotMeasure(
            f"{file.path.name} says {dict(counts)!r} of the number of documents of {name!r} (n-samples), expected "
            "original and effective counts: how many items there should be must not be guessed from those found"
        )
    if effective == 0:
        raise CouldNotMeasure(f"{file.path.name}: no document of {name!r} was evaluated: there is nothing to compare")
    config = file.of("configs", name)
    return LeafTask(
        name=name,
        config=config,
        higher_is_better=file.of("higher_is_better", name),
        aggregates=_aggregates(file, name),
        n_expected=effective,
        n_available=original,
        samples=read_samples(file.samples(name), name, str(config.get("output_type"))),
    )


# -- were they asked the same? ----------------------------------------------------------------------------


def _check_policy(settings: Task, sides: Sequence[_Side]) -> None:
    """What the policy says explicitly of how a task is asked must be how it was asked."""
    for side in sides:
        for leaf in side.leaves:
            for name, measured in _as_measured(settings, side.file, leaf):
                asked = getattr(settings, name)
                if name in settings.model_fields_set and asked is not None and asked != measured:
                    raise CouldNotMeasure(
                        f"the {side.role}'s results of {leaf.name!r} were made with {name} {_shown(measured)}, this "
                        f"policy asks {_shown(asked)}: run lm-eval with it, or take it out of the policy"
                    )
    for name in ("epochs", "pass_at"):
        asked = getattr(settings, name)
        if asked is not None and asked != Task.model_fields[name].default:
            raise CouldNotMeasure(
                f"this policy asks `{name}` of {settings.task!r}, and lm-eval's results hold one score for each item: "
                "use gate run, or take it out of the policy"
            )


def _as_measured(settings: Task, file: ResultsFile, leaf: LeafTask) -> Iterator[tuple[str, Any]]:
    """(setting of the policy, its value in the evaluation), where the results say it."""
    yield "fewshot", _fewshot(file, leaf)
    yield "chat", bool(file.document.get("chat_template"))
    if leaf.config.get("output_type") == "generate_until":
        generation = leaf.config.get("generation_kwargs") or {}
        if "max_gen_toks" in generation:
            yield "max_new_tokens", generation["max_gen_toks"]
        if settings.temperature > 0:  # 0 leaves it to the task
            yield "temperature", generation.get("temperature", 0.0) if generation.get("do_sample", True) else 0.0


def _fewshot(file: ResultsFile, leaf: LeafTask) -> Any:
    return file.section("n-shot").get(leaf.name, leaf.config.get("num_fewshot"))


def _check_same_tasks(task: str, left: _Side, right: _Side) -> None:
    names = [[leaf.name for leaf in side.leaves] for side in (left, right)]
    if names[0] != names[1]:
        only = sorted(set(names[0]) ^ set(names[1]))
        raise CouldNotMeasure(
            f"{task}: the baseline's results cover {len(names[0])} tasks and the candidate's {len(names[1])}, one side "
            f"alone has {', '.join(only[:5]) or 'another order'}: run lm-eval on the same group for both"
        )


def _check_group(settings: Task, side: _Side) -> None:
    """A group's own score must be the mean over its items, which is what is judged; lm-eval can weigh tasks alike."""
    reported = _aggregates(side.file, settings.task) if len(side.leaves) > 1 else {}
    for metric in dict.fromkeys(rule.metric for rule in settings.rules if rule.metric in reported):
        scores = [(leaf.aggregates.get(metric), leaf.n_expected) for leaf in side.leaves]
        known = [(score, n) for score, n in scores if isinstance(score, int | float)]
        pooled = sum(score * n for score, n in known) / max(sum(n for _, n in known), 1)
        if len(known) == len(scores) and not agree(pooled, reported[metric]):
            raise CouldNotMeasure(
                f"{settings.task}: the {side.role}'s results say {metric} of the group is {reported[metric]!r}, its "
                f"items make {pooled:.6g}: lm-eval was told to weigh its tasks otherwise (weight_by_size: false), and "
                "the gate judges items; name the tasks of the group one by one in the policy"
            )


def _aggregates(file: ResultsFile, name: str) -> dict[str, Any]:
    """Metric as judged → what the results file says of a task or group."""
    found = {}
    for key, value in file.of("results", name).items():
        metric, _, selected = key.partition(",")
        found[metric if selected == "none" else key] = value
    return found


def _check_same_prompts(task: str, left: _Side, right: _Side) -> None:
    """The same document must have been asked and scored in the same way; else its scores are not a pair."""
    for what, attribute in (
        ("prompts", "prompt_hash"),
        ("targets", "target_hash"),
        ("choices or generation settings", "request_hash"),
    ):
        of = [
            {s.document: getattr(s, attribute) for leaf in side.leaves for s in leaf.samples} for side in (left, right)
        ]
        shared = of[0].keys() & of[1].keys()
        different = sorted(document for document in shared if of[0][document] != of[1][document])
        if different:
            raise CouldNotMeasure(
                f"{task}: different {what} for the same document, {len(different)} of {len(shared)} documents (for "
                f"instance {different[0]}): their scores cannot be paired{_prompt_causes(left, right)}; run lm-eval "
                "with the same settings and tokenizer for both"
            )


def _prompt_causes(left: _Side, right: _Side) -> str:
    found = []
    shots = [{_fewshot(side.file, leaf) for leaf in side.leaves} for side in (left, right)]
    if shots[0] != shots[1]:
        found.append(f"few-shot examples are {_listed(shots[0])} for the baseline and {_listed(shots[1])}")
    for key, noun in (("chat_template_sha", "chat template"), ("system_instruction_sha", "system instruction")):
        if left.file.document.get(key) != right.file.document.get(key):
            found.append(f"the {noun} differs")
    seeds = [side.file.section("config").get("fewshot_seed") for side in (left, right)]
    if seeds[0] != seeds[1]:
        found.append(f"the few-shot seed is {seeds[0]} for the baseline and {seeds[1]} for the candidate")
    return f" ({'; '.join(found)})" if found else ""


def _listed(values: set[Any]) -> str:
    return " or ".join(sorted(map(str, values)))


def _check_same_settings(task: str, left: _Side, right: _Side) -> None:
    for b, c in zip(left.leaves, right.leaves, strict=True):
        ours, theirs = _settings(b), _settings(c)
        versions = [side.file.section("versions").get(b.name) for side in (left, right)]
        differing = [key for key in _COMPARED if ours[key] != theirs[key]]
        if versions[0] != versions[1]:
            raise CouldNotMeasure(
                f"{task}: {b.name} is version {versions[0]} for the baseline and {versions[1]} for the candidate: run "
                "both with one lm-eval"
            )
        if differing:
            key = differing[0]
            raise CouldNotMeasure(
                f"{task}: {b.name} was measured with {key} {_shown(ours[key])} for the baseline and "
                f"{_shown(theirs[key])} for the candidate: run lm-eval with the same settings for both"
            )


def _settings(leaf: LeafTask) -> Mapping[str, Any]:
    return {key: leaf.config.get(key) for key in _COMPARED}


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:120]


# -- one measurement --------------------------------------------------------------------------------------


def _measurement(stage: str, task: str, side: _Side, digest: str, n_expected: int) -> Measurement:
    declared = declare(side.leaves)
    observations: list[Observation] = []
    failures: list[ItemFailure] = []
    answers: list[Answer] = []
    unusable: dict[str, int] = {}
    for leaf in side.leaves:
        group = leaf.name if len(side.leaves) > 1 else None
        for sample in leaf.samples:
            answers.append(
                Answer(
                    item_id=sample.item_id,
                    group=group,
                    prompt=sample.prompt,
                    output=sample.output,
                    target=sample.target,
                )
            )
            if sample.broken is not None:
                failures.append(ItemFailure(item_id=sample.item_id, kind="not_a_number", message=sample.broken))
                continue
            bad = []
            for metric in declared.metrics:
                found = value_and_weight(metric, sample)
                if found is None:
                    continue
                value, weight = found
                if math.isnan(value):
                    bad.append(metric.name)
                else:
                    observations.append(observation(metric, sample, value, weight, group))
            for name in bad:
                unusable[name] = unusable.get(name, 0) + 1
            if bad:
                said = f"{', '.join(bad)} is not a number"
                failures.append(ItemFailure(item_id=sample.item_id, kind="not_a_number", message=said))
    n_found = sum(len(leaf.samples) for leaf in side.leaves)
    asked = sum(leaf.n_expected for leaf in side.leaves)
    notes = [*declared.notes]
    if n_found != asked:
        notes.append(f"{task}: the {side.role}'s log holds {n_found} documents, {asked} were evaluated by its results")
    notes += [f"{side.role}: {name} is not a number on {count} items" for name, count in sorted(unusable.items())]
    return Measurement(
        stage=stage,
        source=task,
        role=side.role,
        settings_digest=digest,
        n_expected=n_expected,
        n_available=sum(leaf.n_available for leaf in side.leaves),
        n_reached=n_expected,
        planned_tokens=0,
        chance=_chance(side.leaves),
        metrics=declared.metrics,
        observations=tuple(observations),
        failures=tuple(failures),
        answers=tuple(answers),
        seconds=0.0,
        notes=tuple(notes),
    )


def _chance(leaves: Sequence[LeafTask]) -> float | None:
    """Expected accuracy of choices picked at random; None unless every task is multiple choice."""
    shares: list[float] = []
    for leaf in leaves:
        if leaf.config.get("output_type") != "multiple_choice":
            return None
        for sample in leaf.samples:
            # acc_mutual_info asks every choice a second time, without the question
            n_choices = sample.n_requests // (2 if "acc_mutual_info" in sample.values else 1)
            if n_choices:
                shares.append(1 / n_choices)
    return math.fsum(shares) / len(shares) if shares else None


def _partly(task: str, side: _Side) -> Iterator[str]:
    """Why these are not all documents, nor a random sample of them."""
    run, there = sum(leaf.n_expected for leaf in side.leaves), sum(leaf.n_available for leaf in side.leaves)
    if run == there:
        return
    limit = side.file.section("config").get("limit")
    how = f"made with --limit {limit:g}: the first" if isinstance(limit, int | float) else "made on a choice of"
    yield f"{task}: the {side.role}'s results were {how} {run} of {there} documents, which is no random sample"


def _remarks(settings: Task, sides: Sequence[_Side]) -> Iterator[str]:
    if settings.sample is not None:
        yield f"{settings.task}: the policy's sample does not apply, all items in the results are judged"
    versions = {str(side.file.document.get("lm_eval_version")) for side in sides}
    if len(versions) > 1:
        yield f"{settings.task}: evaluated by different versions of lm-eval: {', '.join(sorted(versions))}"
    files = [side.file for side in sides]
    if files[0].loaded is not None and files[0].loaded == files[1].loaded:
        yield f"both folders name the same model ({files[0].model}): an A/A comparison, or the wrong folder"


def same_evaluation(left: ResultsFile, right: ResultsFile) -> bool:
    """Whether two results files are one evaluation, possibly copied."""
    if left.path.resolve() == right.path.resolve():
        return True
    keys = ("date", "model_name", "total_evaluation_time_seconds")
    return left.date == right.date and all(left.document.get(k) == right.document.get(k) for k in keys)
