"""One lm-eval document as an item: its identity, its prompt, its answer and its scores.

Follows lm-eval's `evaluate()` step by step; decides nothing about samples, blocks or metrics.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from lm_eval.utils import handle_non_serializable, hash_string

from gate.records import Answer
from gate.sandbox import SandboxError
from gate.stages.harness_code import CODE_EVAL
from gate.stages.isolation import ITEM_ERRORS, MAX_MESSAGE, Failed, failed
from gate.stages.sampling import digest, token_estimate

HASH_CHARACTERS = 16
PROMPT_TAIL_CHARACTERS = 2000
DEFAULT_NEW_TOKENS = 256
"""What lm-eval's models generate at most where the task does not say."""
_CODE_ERRORS = (*ITEM_ERRORS, SyntaxError, jinja2.TemplateError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document of a task.  `occurrence` counts earlier documents of the task with the same content."""

    task_name: str
    task: Any
    index: int
    content: Mapping[str, Any]
    doc_hash: str
    occurrence: int

    @property
    def key(self) -> str:
        """What the seeded order is drawn from."""
        return f"{self.task_name}\0{self.doc_hash}\0{self.occurrence}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompted:
    """A document with its rendered requests (lm-eval `Instance`s)."""

    document: Document
    item_id: str
    requests: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Values as lm-eval gives them, by metric name (`acc`, `exact_match,strict-match`), and what was answered.

    `written` are the texts that the model wrote, none where it was asked for likelihoods alone.
    """

    item: Prompted
    values: Mapping[str, Any]
    answer: Answer
    written: tuple[str, ...]


def documents(tasks: Mapping[str, Any]) -> Iterator[Document]:
    """All evaluated documents of all tasks, in the order of their data sets."""
    for name, task in tasks.items():
        seen: Counter[str] = Counter()
        for index, content in enumerate(task.eval_docs):
            # the hash that lm-eval writes into its sample logs
            doc_hash = hash_string(json.dumps(content, indent=2, default=handle_non_serializable, ensure_ascii=False))
            yield Document(
                task_name=name,
                task=task,
                index=index,
                content=content,
                doc_hash=doc_hash,
                occurrence=seen[doc_hash],
            )
            seen[doc_hash] += 1


def prompt(document: Document, chat_template: Callable[..., str] | None) -> Prompted | Failed:
    """Render the requests of a document, or say why they cannot be rendered."""
    task = document.task
    # lm-eval draws examples from one generator in document order; re-seeded here, so that a document's
    # prompt does not depend on which documents came before it
    task.set_fewshot_seed(int(digest(document.task_name, document.doc_hash)[:HASH_CHARACTERS], 16))
    try:
        context = task.fewshot_context(
            document.content,
            num_fewshot=task.get_config("num_fewshot") or 0,
            system_instruction=None,
            apply_chat_template=chat_template is not None,
            fewshot_as_multiturn=chat_template is not None,
            chat_template=chat_template,
            gen_prefix=task.doc_to_prefix(document.content),
        )
        built = task.construct_requests(
            doc=document.content,
            ctx=context,
            metadata=(document.task_name, document.index, task.get_config("repeats") or 1),
            apply_chat_template=chat_template is not None,
            chat_template=chat_template,
        )
    except _CODE_ERRORS as error:
        return failed("prompt_error", error)
    requests = tuple(built) if isinstance(built, list) else (built,)
    arguments = json.dumps([r.args for r in requests], default=handle_non_serializable, ensure_ascii=False)
    return Prompted(document=document, item_id=item_id(document, digest(arguments)), requests=requests)


def unfit(document: Document) -> str | None:
    """Why no model could be asked or scored on this document, None if nothing speaks against it."""
    result = prompt(document, None)
    if isinstance(result, Failed):
        return result.message
    try:
        _target(document.task, document.content)
    except _CODE_ERRORS as error:
        return failed("scoring_error", error).message
    return None


def item_id(document: Document, prompt_hash: str | None) -> str:
    """`task/document hash/prompt hash`, with `#k` for the k-th repetition of a document."""
    parts = [document.task_name, document.doc_hash[:HASH_CHARACTERS], (prompt_hash or "no-prompt")[:HASH_CHARACTERS]]
    return "/".join(parts) + (f"#{document.occurrence}" if document.occurrence else "")


def chance(chosen: Sequence[Document]) -> float | None:
    """Expected accuracy of choices picked at random; None unless every document is multiple choice."""
    shares = []
    for document in chosen:
        if document.task.OUTPUT_TYPE != "multiple_choice":
            return None
        try:
            shares.append(1 / len(document.task.doc_to_choice(document.content)))
        except (*_CODE_ERRORS, ZeroDivisionError):
            continue  # it cannot be asked either
    return math.fsum(shares) / len(shares) if shares else None


def planned_tokens(item: Prompted) -> int:
    """What asking an item costs at most, in tokens: its texts, and the answer's limit where the model writes."""
    return sum(token_estimate(*_texts(request)) + _new_tokens(request) for request in item.requests)


def _texts(request: Any) -> Sequence[str]:
    return [a for a in request.args if isinstance(a, str)]


def _new_tokens(request: Any) -> int:
    if request.request_type != "generate_until":
        return 0
    return int(request.args[1].get("max_gen_toks", DEFAULT_NEW_TOKENS)) * int(request.repeats)


def temperatures(items: Sequence[Prompted]) -> set[float]:
    """The temperatures at which the items' answers are written; none where the model writes nothing."""
    settings = [r.args[1] for item in items for r in item.requests if r.request_type == "generate_until"]
    # lm-eval samples at a temperature above 0 unless `do_sample` says otherwise
    return {0.0 if s.get("do_sample") is False else float(s.get("temperature") or 0.0) for s in settings}


def ask(lm: Any, items: Sequence[Prompted], *, seed: int) -> list[list[list[Any]]]:
    """Responses of the model: per item, per request, per repeat.  One call of `lm` per request type.

    lm-eval's models sample from the generators of the process and take no seed, so these are seeded, as lm-eval does.
    """
    if max(temperatures(items), default=0.0) > 0:
        import torch  # greedy asking does without: it takes seconds to import

        random.seed(seed)
        torch.manual_seed(seed)
    responses: list[list[list[Any]]] = [[[] for _ in item.requests] for item in items]
    by_type: dict[str, list[tuple[list[Any], Any]]] = {}
    for item, collected in zip(items, responses, strict=True):
        for request, into in zip(item.requests, collected, strict=True):
            by_type.setdefault(request.request_type, []).extend([(into, request)] * request.repeats)
    for request_type, wanted in by_type.items():
        answers = getattr(lm, request_type)([request for _, request in wanted])
        for (into, _), answer in zip(wanted, answers, strict=True):
            into.append(answer)
    return responses


def score(item: Prompted, responses: list[list[Any]], group: str | None) -> Scored | Failed:
    """Filters and metrics of the task on one document, or why they could not be computed."""
    if any(_is_nan(answer) for repeats in responses for answer in repeats):
        return Failed(kind="not_a_number", message="the model's log-likelihood is NaN")
    document, task = item.document, item.document.task
    for request, repeats in zip(item.requests, responses, strict=True):
        request.resps = repeats
    ordered = sorted(item.requests, key=lambda request: int(request.idx))
    values: dict[str, Any] = {}
    problem: Failed | None = None
    CODE_EVAL.failure = None
    try:
        task._instances = ordered
        task.apply_filters()
        for name in ordered[0].filtered_resps:
            results = task.process_results(document.content, [request.filtered_resps[name] for request in ordered])
            values |= {metric if name == "none" else f"{metric},{name}": value for metric, value in results.items()}
        target = _target(task, document.content)
    except (*_CODE_ERRORS, SandboxError) as error:
        problem = failed("scoring_error", error)
    if CODE_EVAL.failure is not None:  # also where the task took the exception for a wrong answer
        return Failed(kind="sandbox_error", message=CODE_EVAL.failure[:MAX_MESSAGE])
    if problem is not None:
        return problem
    answer = Answer(
        item_id=item.item_id,
        group=group,
        prompt=str(ordered[0].args[0])[-PROMPT_TAIL_CHARACTERS:],
        output=_output(ordered),
        target=target,
    )
    return Scored(item=item, values=values, answer=answer, written=_written(ordered))


def _written(requests: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(text) for r in requests if r.request_type == "generate_until" for text in r.resps)


def _is_nan(answer: Any) -> bool:
    loglikelihood = answer[0] if isinstance(answer, tuple) else answer
    return isinstance(loglikelihood, float) and loglikelihood != loglikelihood


def _target(task: Any, content: Mapping[str, Any]) -> str:
    target = task.doc_to_target(content)
    if isinstance(target, int) and task.get_config("doc_to_choice") is not None:
        choices = task.doc_to_choice(content)
        return str(choices[target]) if 0 <= target < len(choices) else str(target)
    return str(target)


def _output(requests: Sequence[Any]) -> str:
    first = requests[0]
    match first.request_type:
        case "loglikelihood" if len(requests) > 1:
            best = max(requests, key=lambda request: request.resps[0][0])
            same = len({request.args[1] for request in requests}) == 1
            # tasks that put the choices into the context score one continuation after each
            return str(best.args[0])[-PROMPT_TAIL_CHARACTERS:] if same else str(best.args[1]).strip()
        case "loglikelihood":
            value, is_greedy = first.resps[0]
            return f"log-likelihood {value:.4f}, {'' if is_greedy else 'not '}the most likely continuation"
        case "loglikelihood_rolling":
            return f"log-likelihood {float(first.resps[0]):.4f}"
        case _:
            return str(first.resps[0])
