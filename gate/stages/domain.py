"""The team's own test set: ask every item, match the answer, watch the quality of the text.

Measures only.  An item that cannot be asked or matched is an `ItemFailure`, never a wrong answer.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gate.backends import Backend, Generation
from gate.errors import CouldNotMeasure
from gate.order import place
from gate.policy import DomainStage
from gate.records import Answer, ItemFailure, Measurement, Metric
from gate.stages import Context, judge_endpoint, matchers
from gate.stages.domain_data import Item, read_items
from gate.stages.domain_scores import Outcome, corpus_observations, declared, item_observations, pass_observation
from gate.stages.epochs import ask_repeatedly, averaged, decoding_note, seed
from gate.stages.isolation import Failed, each, failed
from gate.stages.jury import Jury
from gate.stages.sampling import blocks, digest, draw, token_estimate
from gate.template import render_template

HASH_CHARACTERS = 16
PROMPT_TAIL_CHARACTERS = 2000


def check(settings: DomainStage, base: Path) -> tuple[Path, ...]:
    """Every line of the data file, the wanted metrics, the judge.  Raises DataError or CouldNotMeasure."""
    _checked(settings, base)
    return (base / settings.data,)


def fetch(settings: DomainStage, base: Path) -> list[str]:
    """Nothing to download: the data are a local file."""
    return []


def measure(backend: Backend, settings: DomainStage, context: Context) -> Iterator[Measurement]:
    """Ask the seeded sample, a part per block of items; corpus scores come with the last part.

    Raises:
        DataError: the data file, the template or the wanted metrics are wrong.
        CouldNotMeasure: nothing to ask, no chat template, or the model answers no item at all.
    """
    started = time.perf_counter()
    items, metrics = _checked(settings, context.base)
    order = draw([f"{settings.name}\0{item.id}" for item in items], seed=context.sample_seed, sample=settings.sample)
    asked = [_asked(backend, settings, items[index], position) for position, index in enumerate(order)]
    asked.sort(key=lambda question: place(context.order_seed, question.item_id))
    by_chance = _chance(asked) if settings.match == "choice" else None
    jury = Jury(settings.judge, _judge_key(settings))
    epochs = settings.epochs.of(context.role)
    outcomes: list[list[Outcome]] = []  # by item, then by epoch
    done = 0
    for block in blocks(asked):
        results = ask_repeatedly(partial(_outcomes, backend, settings, context), block, epochs=epochs)
        failures = [
            ItemFailure(item_id=question.item_id, kind=result.kind, message=result.message)
            for question, result in zip(block, results, strict=True)
            if isinstance(result, Failed)
        ]
        measured = [result for result in results if not isinstance(result, Failed)]
        if not measured and not outcomes:
            first = failures[0]
            raise CouldNotMeasure(
                f"stage {settings.name!r}: none of the first {len(block)} items could be measured; "
                f"the first failure is {first.kind} on {first.item_id}: {first.message}"
            )
        outcomes += measured
        answered = [outcome for answers in measured for outcome in answers]
        observations = averaged((o for outcome in answered for o in item_observations(metrics, outcome)), epochs=epochs)
        if settings.pass_at is not None:
            observations += [pass_observation(answers, settings.pass_at) for answers in measured]
        observations += averaged(jury.hear(answered), epochs=epochs)
        notes = [f"{len(asked)} items sampled from {len(items)}"] if len(asked) < len(items) else []
        if settings.match != "choice":
            notes.append(decoding_note(temperature=settings.temperature, epochs=epochs))
        done += len(block)
        context.progress(done, len(asked), settings.name)
        if done == len(asked):
            scores = (corpus_observations(settings, metrics, epoch) for epoch in zip(*outcomes, strict=True))
            observations += averaged(itertools.chain.from_iterable(scores), epochs=epochs)
            notes += jury.notes()
        yield Measurement(
            stage=settings.name,
            source=settings.name,
            role=context.role,
            settings_digest=context.settings_digest,
            n_expected=len(asked),
            n_available=len(items),
            n_reached=len(block),
            planned_tokens=sum(_planned_tokens(settings, question) for question in block) * epochs,
            chance=by_chance,
            metrics=metrics,
            observations=tuple(observations),
            failures=tuple(failures),
            answers=tuple(_answer(answers[0]) for answers in measured),
            seconds=time.perf_counter() - started,
            notes=tuple(notes),
        )
        started = time.perf_counter()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """An item with its rendered prompt and its place in the seeded order."""

    item: Item
    item_id: str
    position: int
    prompt: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reply:
    """What the model said, or which choice it finds most likely (then without a generation)."""

    output: str
    generation: Generation | None


def _checked(settings: DomainStage, base: Path) -> tuple[list[Item], tuple[Metric, ...]]:
    metrics = declared(settings)
    if settings.judge is not None:
        judge_endpoint.verify(settings.judge, _judge_key(settings))
    return read_items(base / settings.data, partial(matchers.problem, settings)), metrics


def _asked(backend: Backend, settings: DomainStage, item: Item, position: int) -> _Asked:
    fields = {"input": item.input, "id": item.id, "category": item.category}
    prompt = render_template(settings.template, fields)
    if settings.chat:
        try:
            prompt = backend.chat([{"role": "user", "content": prompt}])
        except ValueError as error:
            raise CouldNotMeasure(f"stage {settings.name!r} has chat: true, but {error}") from error
    content = digest(prompt, json.dumps([item.expected, item.choices], sort_keys=True))
    return _Asked(
        item=item,
        item_id=f"{settings.name}/{item.id}/{content[:HASH_CHARACTERS]}",
        position=position,
        prompt=prompt,
    )


def _outcomes(
    backend: Backend, settings: DomainStage, context: Context, epoch: int, block: Sequence[_Asked]
) -> list[Outcome | Failed]:
    """What became of every question of a block in one epoch; one that the model would see in part is not asked."""
    cut = [_too_long(backend, settings, question) for question in block]
    asked = [question for question, reason in zip(block, cut, strict=True) if reason is None]
    write = partial(_generated, backend, settings, context, epoch)
    replies = iter(each(partial(_chosen, backend, settings) if settings.match == "choice" else write, asked))
    return [
        _outcome(settings, question, next(replies) if reason is None else reason)
        for question, reason in zip(block, cut, strict=True)
    ]


def _generated(
    backend: Backend, settings: DomainStage, context: Context, epoch: int, block: Sequence[_Asked]
) -> list[_Reply | Failed]:
    generations = backend.generate(
        [question.prompt for question in block],
        max_new_tokens=settings.max_new_tokens,
        stop=settings.stop,
        temperature=settings.temperature,
        seed=seed(context.sample_seed, [question.item_id for question in block], epoch),
    )
    return [_Reply(output=generation.text, generation=generation) for generation in generations]


def _chosen(backend: Backend, settings: DomainStage, block: Sequence[_Asked]) -> list[_Reply | Failed]:
    """The most likely choice of each item: the sum of its tokens' log-probabilities, not normalised by length."""
    requests = [request for question in block for request in _choice_requests(settings, question)]
    answers = iter(backend.loglikelihood(requests))
    replies: list[_Reply | Failed] = []
    for question in block:
        choices = question.item.choices or ()
        values = [value for value, _ in itertools.islice(answers, len(choices))]
        if len(values) != len(choices):
            raise CouldNotMeasure("found fewer log-likelihoods than requests, expected one for each")
        if any(math.isnan(value) for value in values) or max(values) == -math.inf:
            replies.append(Failed(kind="not_a_number", message=f"found the log-likelihoods {values}"))
        else:
            replies.append(_Reply(output=choices[values.index(max(values))], generation=None))
    return replies


def _choice_requests(settings: DomainStage, question: _Asked) -> list[tuple[str, str]]:
    # as lm-eval does: a space between prompt and choice, none after a chat template or where there is one already
    space = "" if settings.chat or question.prompt[-1:].isspace() else " "
    return [(question.prompt, space + choice) for choice in question.item.choices or ()]


def _chance(asked: Sequence[_Asked]) -> float:
    """Expected accuracy of choices picked at random."""
    return math.fsum(1 / len(question.item.choices or ("",)) for question in asked) / len(asked)


def _planned_tokens(settings: DomainStage, question: _Asked) -> int:
    if settings.match == "choice":
        return sum(token_estimate(prompt, choice) for prompt, choice in _choice_requests(settings, question))
    return token_estimate(question.prompt) + settings.max_new_tokens


def _outcome(settings: DomainStage, question: _Asked, reply: _Reply | Failed) -> Outcome | Failed:
    if isinstance(reply, Failed):
        return reply
    try:
        is_right = (
            reply.output == question.item.expected
            if reply.generation is None
            else matchers.is_right(settings, question.item, reply.output)
        )
    except matchers.MatchTimeout as error:
        return failed("match_timeout", error)
    return Outcome(
        item=question.item,
        item_id=question.item_id,
        position=question.position,
        prompt=question.prompt,
        output=reply.output,
        is_right=is_right,
        generation=reply.generation,
    )


def _answer(outcome: Outcome) -> Answer:
    expected = outcome.item.expected
    return Answer(
        item_id=outcome.item_id,
        group=outcome.item.category,
        prompt=outcome.prompt[-PROMPT_TAIL_CHARACTERS:],
        output=outcome.output,
        target=expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False),
    )


def _too_long(backend: Backend, settings: DomainStage, question: _Asked) -> Failed | None:
    """Why prompt and answer do not fit the model's context together, None if they do."""
    room = backend.info.context_length
    if settings.match == "choice":
        texts = [prompt + choice for prompt, choice in _choice_requests(settings, question)]
        needed = 0
    else:
        texts, needed = [question.prompt], settings.max_new_tokens
    # a token is at least one byte: most prompts need no tokenizing to know that they fit
    if max(len(text.encode()) for text in texts) + needed <= room:
        return None
    n_tokens = max(len(backend.encode(text)) for text in texts) + needed
    if n_tokens <= room:
        return None
    message = f"prompt and answer take {n_tokens} tokens, expected at most the model's context length of {room}"
    return Failed(kind="too_long", message=message)


def _judge_key(settings: DomainStage) -> str | None:
    name = settings.judge.api_key_env if settings.judge is not None else None
    return os.environ.get(name) if name is not None else None
