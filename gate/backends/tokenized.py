"""What backends with a transformers tokenizer and an lm-eval `LM` do alike.

Loads nothing; imports lm_eval when asked only, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.api.model import LM


def rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, ask: bool = True) -> str:
    """Messages by the tokenizer's chat template; `ask`: the assistant's turn begins, else the last message goes on.

    Raises:
        ValueError: there is no template.
    """
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: set `chat: false`, or give a tokenizer that has one")
    text: str = tokenizer.apply_chat_template(
        [dict(m) for m in messages], tokenize=False, add_generation_prompt=ask, continue_final_message=not ask
    )
    return text


def loglikelihoods(lm: LM, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    """(log-likelihood in nats, is it the greedy one) of each (context, continuation), in order."""
    from lm_eval.api.instance import Instance

    instances = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(requests)
    ]
    found = lm.loglikelihood(instances) if instances else []
    return [(float(total), bool(greedy)) for total, greedy in found]
