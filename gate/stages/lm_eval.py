"""lm-eval tasks, groups and local YAML, item by item: lm-eval defines prompts and scores, the gate the schedule.

Measures only.  An item that cannot be asked or scored is an `ItemFailure`, never a wrong answer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gate.backends import Backend
from gate.errors import CouldNotMeasure, DataError, NotFetched
from gate.order import place
from gate.policy import LmEvalStage, Task
from gate.records import ItemFailure, Measurement, Observation
from gate.stages import Context, harness_code, harness_context, harness_files
from gate.stages.epochs import ask_repeatedly, decoding_note, seed
from gate.stages.harness_items import (
    Document,
    Prompted,
    Scored,
    ask,
    chance,
    documents,
    item_id,
    planned_tokens,
    prompt,
    score,
    temperatures,
    unfit,
)
from gate.stages.harness_metrics import Declared, declare, item_observations, length_observations
from gate.stages.harness_tasks import (
    Found,
    NotHere,
    examples_from_evaluated_split,
    find,
    is_local,
    lacks_data,
    load,
    picks_hub_files,
    verify,
)
from gate.stages.isolation import Failed, each
from gate.stages.sampling import blocks, draw

TRIED_DOCUMENTS = 8
"""Documents that `check` renders; a task is refused when none of them can be."""


def check(settings: LmEvalStage, base: Path) -> tuple[Path, ...]:
    """Task names resolve, nothing unsafe is asked for by accident, tasks on local data can be built and rendered.

    Raises:
        DataError: a task, its YAML or its data is broken.
        NotFetched: its data set is not on this machine.
        CouldNotMeasure: a data file is empty, a package or a metric is not here.
    """
    include_path = _include_path(settings, base)
    files: tuple[Path, ...] = ()
    for task in settings.tasks:
        found = find(task.task, include_path)
        verify(found, task)
        if harness_code.may_execute(found.configs):
            harness_code.proven_sandbox()
        files += harness_files.read_for(found)
        if is_local(found):
            _try(found, task)
        elif lacks_data(found):
            _expect_missing(found, task)
    # a module may open any file beside it
    around = () if include_path is None else harness_files.below(include_path)
    return tuple(dict.fromkeys((*around, *files)))


def _expect_missing(found: Found, settings: Task) -> None:
    """Raises NotFetched unless the data is found where nobody looked."""
    try:
        load(found, settings)
    except NotHere as problem:
        raise NotFetched(str(problem)) from problem


def _try(found: Found, settings: Task) -> None:
    """Build the tasks and render their first documents: a wrong field name fails on all of them."""
    for name, task in load(found, settings).items():
        failures = [unfit(document) for document in islice(documents({name: task}), TRIED_DOCUMENTS)]
        if failures and all(failures):
            raise DataError(f"{found.place(name)}: its first document cannot be asked: {failures[0]}")


def fetch(settings: LmEvalStage, base: Path) -> list[str]:
    """Load every task once, which downloads its data set and the metrics that lm-eval takes from the hub.

    Raises:
        DataError: a task is unknown or broken.
        CouldNotMeasure: something could not be downloaded, or a package is missing.
    """
    lines = []
    for task in settings.tasks:
        found = find(task.task, _include_path(settings, base))
        verify(found, task)
        try:
            count = sum(1 for _ in documents(load(found, task)))
        except NotHere as problem:
            what, why = problem.missing
            raise CouldNotMeasure(f"the {what} could not be downloaded: {why}") from problem
        if picks_hub_files(found):
            lines.append(f"task {found.name}: {count} documents, but `datasets` may not find them without a network")
        elif not is_local(found):
            lines.append(f"task {found.name}: {count} documents")
    return lines


def measure(backend: Backend, settings: LmEvalStage, context: Context) -> Iterator[Measurement]:
    """Score the seeded sample of one task or group, a part per block of items.

    Raises:
        DataError: the task is unknown or broken.
        CouldNotMeasure: its data is not here, there is nothing to measure, or the model answers no item at all.
    """
    started = time.perf_counter()
    (task_settings,) = settings.tasks
    found = find(task_settings.task, _include_path(settings, context.base))
    verify(found, task_settings)
    tasks = load(found, task_settings)
    is_group = len(tasks) > 1
    available = list(documents(tasks))
    if not available:
        raise CouldNotMeasure(f"task {found.name!r} has no documents: there is nothing to measure")
    order = draw([d.key for d in available], seed=context.sample_seed, sample=task_settings.sample)
    chosen = sorted((available[i] for i in order), key=lambda d: place(context.order_seed, item_id(d, None)))
    by_chance = chance(chosen)
    lm = backend.harness()
    chat_template = lm.apply_chat_template if task_settings.chat else None
    rendered = list(_rendered(chosen, chat_template, lambda: context.progress(0, len(chosen), found.name)))
    # before any item is scored, over all of them: the order of the blocks and an early stop change nothing
    remarks = list(harness_context.cut_prompts(found.name, rendered, backend, task_settings.max_truncated))
    remarks += _remarks(task_settings, tasks, len(available), len(chosen))
    epochs = task_settings.epochs.of(context.role)
    ask_once = partial(_scored, lm, context.sample_seed, is_group)

    declared: Declared | None = None
    done = 0
    unusable: Counter[str] = Counter()
    late: set[str] = set()
    for block in blocks(rendered):
        items = [item for item in block if isinstance(item, Prompted)]
        failures = [item for item in block if isinstance(item, ItemFailure)]
        at_temperatures = _temperatures(found, task_settings, items)
        scored: list[list[Scored]] = []  # by item, then by epoch
        for item, result in zip(items, ask_repeatedly(ask_once, items, epochs=epochs), strict=True):
            if isinstance(result, Failed):
                failures.append(ItemFailure(item_id=item.item_id, kind=result.kind, message=result.message))
            else:
                scored.append(result)
        if declared is None:
            if not scored:
                first = failures[0]
                raise CouldNotMeasure(
                    f"task {found.name!r}: none of the first {len(block)} items could be measured; "
                    f"the first failure is {first.kind} on {first.item_id}: {first.message}"
                )
            declared = declare(tasks, list(chain.from_iterable(scored)), pass_at=task_settings.pass_at)
        observations: list[Observation] = []
        for answers in scored:
            for metric, value in item_observations(declared, answers, _group(answers[0].item, is_group)):
                if value is None:
                    unusable[metric.name] += 1
                else:
                    observations.append(value)
            observations += length_observations(answers, backend.encode, _group(answers[0].item, is_group))
            late |= {name for one in answers for name in one.values} - declared.seen
        done += len(block)
        context.progress(done, len(chosen), found.name)
        notes = [*declared.notes, *remarks]
        notes += [decoding_note(temperature=t, epochs=epochs) for t in sorted(at_temperatures)]
        if done == len(chosen):
            notes += [f"metric {name!r}: no usable value on {count} items" for name, count in sorted(unusable.items())]
            notes += [f"metric {name!r} is not reported: it appeared after the first block" for name in sorted(late)]
        yield Measurement(
            stage=settings.name,
            source=found.name,
            role=context.role,
            settings_digest=context.settings_digest,
            n_expected=len(chosen),
            n_available=len(available),
            n_reached=len(block),
            planned_tokens=sum(map(planned_tokens, items)) * epochs,
            chance=by_chance,
            metrics=declared.metrics,
            observations=tuple(observations),
            failures=tuple(failures),
            answers=tuple(answers[0].answer for answers in scored),
            seconds=time.perf_counter() - started,
            notes=tuple(notes),
        )
        started = time.perf_counter()


def _include_path(settings: LmEvalStage, base: Path) -> Path | None:
    return None if settings.include_path is None else (base / settings.include_path).resolve()


def _group(item: Prompted, is_group: bool) -> str | None:
    return item.document.task_name if is_group else None


def _rendered(
    documents: Sequence[Document], chat_template: Callable[..., str] | None, progress: Callable[[], None]
) -> Iterator[Prompted | ItemFailure]:
    """The prompts of all documents, or why there is none; it takes a while before anything is scored."""
    for block in blocks(documents):
        progress()
        for document in block:
            result = prompt(document, chat_template)
            if isinstance(result, Failed):
                yield ItemFailure(item_id=item_id(document, None), kind=result.kind, message=result.message)
            else:
                yield result


def _temperatures(found: Found, settings: Task, items: Sequence[Prompted]) -> set[float]:
    """At which temperatures the items are answered.  Raises DataError where a task does not take the policy's."""
    asked = temperatures(items)
    if settings.temperature > 0 and asked != {settings.temperature} and items:
        written = ", ".join(f"{t:g}" for t in sorted(asked)) or "none"
        raise DataError(
            f"task {found.name!r}: found temperature {written} in its requests, expected {settings.temperature:g}: its "
            "own code says how it decodes, remove `temperature` and `epochs`"
        )
    return asked


def _scored(lm: Any, sample_seed: str, is_group: bool, epoch: int, items: Sequence[Prompted]) -> list[Scored | Failed]:
    """What became of every item in one epoch."""

    def responses_to(batch: Sequence[Prompted]) -> list[list[list[Any]]]:
        return ask(lm, batch, seed=seed(sample_seed, [item.item_id for item in batch], epoch))

    return [
        responses if isinstance(responses, Failed) else score(item, responses, _group(item, is_group))
        for item, responses in zip(items, each(responses_to, items), strict=True)
    ]


def _remarks(settings: Task, tasks: Mapping[str, Any], n_available: int, n_chosen: int) -> Iterator[str]:
    if isinstance(settings.sample, int) and settings.sample > n_available:
        yield f"a sample of {settings.sample} was asked for, there are {n_available} items: all are used"
    elif n_chosen < n_available:
        yield f"{n_chosen} items sampled from {n_available}"
    for name, task in tasks.items():
        if harness_code.executes(task):
            yield harness_code.describe()
        if examples_from_evaluated_split(task):
            yield f"{name}: the few-shot examples come from the evaluated split and may contain the item itself"
