"""The steps of a tokenizer.json in one spelling, however old the library that wrote them: equal text, equal token ids.

Leaves out what moves offsets only, and what joins pairs of texts.  Pure; knows no files and compares nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

_MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "BPE": {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    },
    "Unigram": {"byte_fallback": False},
}
"""What `tokenizers` 0.23 writes for what is not there."""

_BYTES = frozenset(f"<0x{n:02X}>" for n in range(256))
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")
_SPACE = "\u2581"
_SENTENCEPIECE = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": _SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
    ],
}
SPACES = "handling of spaces after special tokens"
DECODER = "decoder"


def model_settings(model: Mapping[str, Any], vocabulary: Set[str]) -> dict[str, Any]:
    """A model without its vocabulary and merges, with the defaults of its kind filled in."""
    kind = model.get("type", "BPE")
    found = {**_MODEL_DEFAULTS.get(kind if isinstance(kind, str) else "", {}), **model, "type": kind}
    if kind == "BPE":
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            found[name] = found[name] or None  # none, 0 and "" do the same
        if found["byte_fallback"] is True and vocabulary >= _BYTES:
            found["unk_token"] = None  # no text is unknown
        if found["unk_token"] is None:
            found["fuse_unk"] = False
    return found


def pipeline(document: Mapping[str, Any]) -> dict[str, Any]:
    """Normalizer, pre-tokenizer, post-processor and decoder by name, and how spaces after special tokens are handled.

    SentencePiece's way with spaces is written as a normalizer by older libraries, as a pre-tokenizer by newer ones.
    """
    found = {
        "normalizer": _step(document.get("normalizer"), _ids_only),
        "pre_tokenizer": _step(document.get("pre_tokenizer"), _ids_only),
        "post_processor": _step(document.get("post_processor"), _post),
        DECODER: _step(document.get("decoder"), _text_only),
        SPACES: None,
    }
    before = found["pre_tokenizer"]
    if found["normalizer"] == _SENTENCEPIECE and before is None:
        found |= {"normalizer": None, "pre_tokenizer": _metaspace("start"), SPACES: "always"}
    elif before in (_metaspace("first"), _metaspace("always")):
        found |= {"pre_tokenizer": _metaspace("start"), SPACES: before["prepend_scheme"]}
    return found


def _metaspace(scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": False}


def _step(step: Any, spelled: Callable[[dict[str, Any]], Any]) -> Any:
    """One step in its spelling; a sequence of none is none, of one is that one."""
    if not isinstance(step, dict):
        return step
    if step.get("type") != "Sequence":
        return spelled(step)
    for name in _LISTS:
        if isinstance(inner := step.get(name), list):
            kept = [s for s in (_step(s, spelled) for s in inner) if s is not None]
            return {**step, name: kept} if len(kept) > 1 else next(iter(kept), None)
    return step


def _ids_only(step: dict[str, Any]) -> Any:
    """A normalizer or a pre-tokenizer."""
    match step.get("type"):
        case "ByteLevel":
            return {"use_regex": True, **_without(step, "trim_offsets")}
        case "Metaspace":
            prefix = step.get("add_prefix_space")
            scheme = "never" if prefix is False else "always"
            kept = _without(step, "add_prefix_space", "str_rep")
            return {"prepend_scheme": scheme, "split": True, **kept}
        case "Punctuation":
            return {"behavior": "Isolated", **step}
    return step


def _post(step: dict[str, Any]) -> Any:
    """A post-processor, as far as it adds tokens to one text."""
    match step.get("type"):
        case "ByteLevel":
            return None
        case "RobertaProcessing":
            return _without(step, "trim_offsets", "add_prefix_space")
        case "TemplateProcessing":
            single = step.get("single")
            parts = [part for part in single if isinstance(part, dict)] if isinstance(single, list) else []
            if len(parts) == 1 and "Sequence" in parts[0]:
                return None
            added = [part["SpecialToken"] for part in parts if isinstance(part.get("SpecialToken"), dict)]
            used = [token.get("id") for token in added]
            tokens = step.get("special_tokens")
            kept = {k: v for k, v in tokens.items() if k in used} if isinstance(tokens, dict) else tokens
            return {"type": "TemplateProcessing", "single": single, "special_tokens": kept}
    return step


def _text_only(step: dict[str, Any]) -> Any:
    """A decoder; that of bytes has no settings of its own."""
    return {"type": "ByteLevel"} if step.get("type") == "ByteLevel" else _ids_only(step)


def _without(step: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in step.items() if k not in names}
