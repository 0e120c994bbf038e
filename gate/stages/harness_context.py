"""Prompts that are longer than the model's context: lm-eval cuts them on the left without a word, so they are counted.

Cuts nothing itself; a task with more of them than the policy allows is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gate import units
from gate.backends import Backend
from gate.errors import CouldNotMeasure
from gate.records import ItemFailure, MaxLost
from gate.stages.harness_items import DEFAULT_NEW_TOKENS, Prompted


def cut_prompts(
    name: str, items: Sequence[Prompted | ItemFailure], backend: Backend, allowed: int | str
) -> Iterator[str]:
    """A remark on the items whose prompts will be cut, if there are any.

    Args:
        name: of the task.
        items: all that were chosen.
        allowed: how many of them may be cut, a count or a percentage.

    Raises:
        CouldNotMeasure: more are.
    """
    lengths: dict[str, int] = {}
    prompted = [item for item in items if isinstance(item, Prompted)]
    needs = [need for item in prompted if (need := _too_long(item, backend, lengths)) is not None]
    if not needs:
        return
    context = backend.info.context_length
    found = (
        f"{len(needs)} of {len(items)} prompts do not fit the {context} tokens of context (the longest needs "
        f"{max(needs)}, answer included) and are cut on the left"
    )
    share = units.percent(allowed) if isinstance(allowed, str) else None
    bound = MaxLost(count=None if isinstance(allowed, str) else allowed, share=share)
    shorter = " or `max_new_tokens`" if any(_answers(item) for item in items) else ""
    if len(needs) > bound.allowed(len(items)):
        raise CouldNotMeasure(
            f"task {name!r}: {found}, and max_truncated allows {allowed}. Lower `fewshot`{shorter}, give the model a "
            "longer context (`max_model_len` under `engines`), choose a task with shorter prompts, or set "
            "`max_truncated`"
        )
    yield found


def _answers(item: Prompted | ItemFailure) -> bool:
    return isinstance(item, Prompted) and any(r.request_type == "generate_until" for r in item.requests)


def _too_long(item: Prompted, backend: Backend, lengths: dict[str, int]) -> int | None:
    """Tokens that the item's longest request needs, None when all fit the context."""
    needs = [need for request in item.requests if (need := _exceeds(request, backend, lengths)) is not None]
    return max(needs, default=None)


def _exceeds(request: Any, backend: Backend, lengths: dict[str, int]) -> int | None:
    """Tokens that a request needs if the context is too short for it; `lengths` remembers those of prompts.

    Counted as the model is asked: with the tokens that lm-eval's `tok_encode` puts before a text.
    """
    match request.request_type:
        case "loglikelihood":
            prompt, rest, reserved = request.args[0], request.args[1], -1  # the last token is predicted, never read
        case "generate_until":
            prompt, rest = request.args[0], ""
            reserved = int(request.args[1].get("max_gen_toks", DEFAULT_NEW_TOKENS))
        case _:
            return None  # rolling windows see every token
    limit = backend.info.context_length - reserved
    encode: Callable[[str], list[int]] = backend.harness().tok_encode
    if "" not in lengths:
        lengths[""] = len(encode(""))
    # a token is at least one byte: most requests need no tokenizing to know that they fit, hardly any two
    if lengths[""] + _bytes(prompt) + _bytes(rest) <= limit:
        return None
    if prompt not in lengths:
        lengths[prompt] = len(encode(prompt))
    if lengths[prompt] + _bytes(rest) <= limit:
        return None
    need = (len(encode(prompt + rest)) if rest else lengths[prompt]) + reserved
    return need if need > backend.info.context_length else None


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
