"""What a server can do, found out with a handful of tiny requests before anything is measured.

Believes no documentation and no version number; scores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gate.backends import openai_stream
from gate.backends.openai_client import Body, Client, Reply, RequestFailed
from gate.backends.openai_reply import choice, count, generation, prompt_logprobs
from gate.backends.openai_tokenizer import Tokens
from gate.errors import CheckpointError, CouldNotMeasure, UsageError

SAMPLES = (
    "The clerk moved 1,250.75 euros on 3 May, twice.",
    "def area(width, height):\n    return width * height  # unused\n",
    "naïve Größe, 東京の天気 и погода 🙂",
)
"""Texts on which tokenizers differ; the first one is also the prompt of the other probes."""

STANDARD: Body = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
PLAIN: Body = {**STANDARD, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Plain decoding, whatever a checkpoint's generation_config or the server's own defaults say."""

EVERY_TOKEN = (-1, 0)
"""What servers take for a `top_k` that cuts nothing: all but a few the first, some only the second."""

_NEW_TOKENS = 8
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What was found.

    Attributes:
        model: name to ask for.
        answers_as: name in its replies.
        software: what runs it, as far as it says.
        context_length: tokens of prompt and answer together, or None if the server does not say.
        takes_ids: prompts may be token ids.
        adds_start: a start token is put before prompts that are text.
        decoding: the settings of plain decoding that it takes.
        no_logprobs: why it gives no log-probabilities of a prompt's tokens, or None.
        no_timing: why its tokens cannot be timed, or None.
        is_seeded: the same seed gave the same sampled text.
    """

    model: str
    answers_as: str
    software: str
    context_length: int | None
    takes_ids: bool
    adds_start: bool
    decoding: Body
    no_logprobs: str | None
    no_timing: str | None
    is_seeded: bool


def probe(client: Client, tokens: Tokens) -> Served:
    """Ask the server what it can do.

    Raises:
        UsageError: it serves several models and the policy names none.
        CheckpointError: it does not serve this checkpoint.
        CouldNotMeasure: it cannot be asked for completions at all.
    """
    found = _listed(client)
    model = str(found["id"])
    answers_as, adds_start = _same_tokenizer(client, model, tokens)
    ids = tokens.prompt(SAMPLES[0])
    base = {"model": model, "prompt": SAMPLES[0], "max_tokens": 1, "temperature": 0.0}

    def refused(body: Body) -> str | None:
        """Why the server does not answer this to the prompt's ids, None if it does."""
        asked = {**base, "prompt": ids, **body}
        try:
            client.ask([asked], [lambda reply: choice(reply, model=answers_as, n_prompt=len(ids))])
        except RequestFailed as problem:
            return _short(problem)
        return None

    why_no_ids = refused({})
    prompt = {"prompt": SAMPLES[0] if why_no_ids else ids}
    plain = ({**PLAIN, "top_k": top_k} for top_k in EVERY_TOKEN)
    decoding = next((d for d in plain if _is_answered(client, {**base, **prompt, **d})), STANDARD)
    return Served(
        model=model,
        answers_as=answers_as,
        software=f"{found.get('owned_by') or 'unknown'} {_version(client)}".strip(),
        context_length=_context_length(found),
        takes_ids=why_no_ids is None,
        adds_start=adds_start,
        decoding=decoding,
        no_logprobs=f"its prompts must be text: {why_no_ids}"
        if why_no_ids
        else _no_logprobs(client, base, ids, answers_as),
        no_timing=f"its prompts must be text: {why_no_ids}" if why_no_ids else _no_timing(client, model, ids, decoding),
        is_seeded=_is_seeded(client, {**base, **prompt, **decoding}),
    )


def scoring(model: str, ids: list[int]) -> Body:
    """The request for the log-probabilities of a prompt's own tokens.

    Some servers cannot generate nothing, so one token is asked for; at temperature 1 no server changes the values.
    """
    return {
        "model": model,
        "prompt": ids,
        "max_tokens": 1,
        "echo": True,
        "logprobs": 1,
        "temperature": 1.0,
        **STANDARD,
    }


def timing(model: str, ids: list[int], decoding: Body, *, new_tokens: int) -> Body:
    """The request for exactly `new_tokens` tokens, each sent as soon as it is there."""
    return {
        "model": model,
        "prompt": ids,
        "max_tokens": new_tokens,
        "min_tokens": new_tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        **decoding,
    }


def _listed(client: Client) -> Mapping[str, Any]:
    """The entry of /models that is meant."""
    url, wanted = client.server.url, client.server.model
    try:
        reply = client.get(f"{url}/models")
    except RequestFailed as problem:
        raise CouldNotMeasure(f"the server at {url} does not list its models: {problem}") from problem
    data = reply.get("data") if isinstance(reply, dict) else None
    entries = (
        [e for e in data if isinstance(e, dict) and isinstance(e.get("id"), str)] if isinstance(data, list) else []
    )
    names = ", ".join(repr(e["id"]) for e in entries) or "none"
    if wanted is not None:
        for entry in entries:
            if entry["id"] == wanted:
                return entry
        raise CheckpointError(
            f"the server at {url} serves the models {names}, expected {wanted!r} (engines.openai.model)"
        )
    if not entries:
        raise CouldNotMeasure(f"the server at {url} lists no model: wait until it has loaded one")
    if len(entries) > 1:
        raise UsageError(f"the server at {url} serves the models {names}: name one in engines.openai.model")
    return entries[0]


def _context_length(entry: Mapping[str, Any]) -> int | None:
    told = entry.get("max_model_len")  # vLLM, SGLang
    return told if isinstance(told, int) and told > 0 else None


def _version(client: Client) -> str:
    """What the server says at /version, beside /v1; many say nothing."""
    try:
        reply = client.get(f"{client.server.url.removesuffix('/v1')}/version")
    except (RequestFailed, CouldNotMeasure):
        return ""
    version = reply.get("version") if isinstance(reply, dict) else None
    return version if isinstance(version, str) else ""


def _same_tokenizer(client: Client, model: str, tokens: Tokens) -> tuple[str, bool]:
    """The model's name in replies, and whether text gets a start token.  Raises CheckpointError."""
    url = client.server.url
    bodies = [{"model": model, "prompt": text, "max_tokens": 1, "temperature": 0.0} for text in SAMPLES]
    client.proven = bodies[0]

    def read(reply: Reply) -> tuple[str, int]:
        n_prompt = count(reply, "prompt_tokens")
        name = str(reply.get("model"))
        choice(reply, model=name, n_prompt=n_prompt)
        return name, n_prompt

    try:
        answers = client.ask(bodies, [read] * len(bodies))
    except RequestFailed as problem:
        raise CouldNotMeasure(f"the server at {url} gives no completions that can be used: {problem}") from problem
    name = answers[0][0]
    if name != model and client.server.model is not None:
        raise CheckpointError(f"asked for the model {model!r}, the server at {url} answered with {name!r}")
    found = [n for _, n in answers]
    plain, full = [len(tokens.encode(t)) for t in SAMPLES], [len(tokens.prompt(t)) for t in SAMPLES]
    if found not in (plain, full, [n + 1 for n in plain]):
        raise CheckpointError(
            f"the server at {url} does not serve this checkpoint: it reads three sample texts as "
            f"{', '.join(map(str, found))} tokens, the checkpoint's own tokenizer as {', '.join(map(str, full))}"
        )
    return name, found != plain


def _is_answered(client: Client, body: Body) -> bool:
    try:
        client.ask([body], [lambda reply: reply])
    except RequestFailed:
        return False
    return True


def _no_logprobs(client: Client, base: Body, ids: list[int], answers_as: str) -> str | None:
    n = len(ids)
    try:
        ((logprobs, _),) = client.ask(
            [scoring(base["model"], ids)],
            [lambda reply: prompt_logprobs(reply, model=answers_as, n_prompt=n, n_scored=n - 1)],
        )
    except RequestFailed as problem:
        return _short(problem)
    return None if np.isfinite(logprobs).all() else "some of them are missing"


def _no_timing(client: Client, model: str, ids: list[int], decoding: Body) -> str | None:
    try:
        openai_stream.check(client, timing(model, ids, decoding, new_tokens=_NEW_TOKENS), new_tokens=_NEW_TOKENS)
    except CouldNotMeasure as problem:
        return _short(problem)
    return None


def _short(problem: Exception) -> str:
    text = str(problem)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _is_seeded(client: Client, base: Body) -> bool:
    sampled = {**base, "temperature": 1.0, "seed": 7, "max_tokens": _NEW_TOKENS}

    def text(reply: Reply) -> str:
        n_prompt = count(reply, "prompt_tokens")
        return generation(reply, model=reply["model"], n_prompt=n_prompt, max_tokens=_NEW_TOKENS, stop=[]).text

    try:
        return client.ask([sampled], [text]) == client.ask([sampled], [text])
    except RequestFailed:
        return False
