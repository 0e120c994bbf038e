"""The tokenizer's files: their digest, and in words how two tokenizers differ.

Compares files, not behaviour: never builds a tokenizer.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gate.checkpoint.weights import read_json
from gate.errors import CheckpointError

_DECIDING_TOKENS = ("bos_token", "eos_token", "unk_token")
_SWITCHES = ("add_bos_token", "add_eos_token")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
_PIPELINE = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_MODEL_FILES = ("tokenizer.model", "spiece.model", "vocab.txt")
_SHOWN = 3
_SHOWN_CHARACTERS = 60
_MAX_DIFF_LINES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """What decides how text becomes tokens.

    Attributes:
        vocabulary: token → id, with the added tokens; None where only opaque files are there.
        rules: canonical JSON of merges and of each step of the pipeline, by name.
        opaque: SHA-256 of files that are compared byte for byte, by name.
        special: beginning, end and unknown token.
        padding: the padding token; quantizers add one, and it changes no score.
        switches: whether beginning and end are added to a text, as far as it is said.
        flags: how added tokens are matched in a text, by token.
        chat_template: as text, or None.
    """

    vocabulary: Mapping[str, int] | None
    rules: Mapping[str, str]
    opaque: Mapping[str, str]
    special: Mapping[str, str | None]
    padding: str | None
    switches: Mapping[str, bool]
    flags: Mapping[str, Mapping[str, bool]]
    chat_template: str | None

    @property
    def digest(self) -> str:
        """Hex SHA-256 over everything that decides; padding and chat template do not."""
        deciding = [
            sorted(self.vocabulary.items()) if self.vocabulary is not None else None,
            sorted(self.rules.items()),
            sorted(self.opaque.items()) if self.vocabulary is None else None,
            sorted(self.special.items()),
        ]
        return hashlib.sha256(canonical(deciding)).hexdigest()


def canonical(value: Any) -> bytes:
    """The one way to write plain data as bytes.  Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def read(folder: Path) -> Tokenizer:
    """The tokenizer of a folder.  Raises CheckpointError: there is none, or it cannot be read."""
    opaque = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in _MODEL_FILES if (folder / n).is_file()}
    fast = folder / "tokenizer.json"
    slow = folder / "vocab.json"
    vocabulary: dict[str, int] | None = None
    rules: dict[str, str] = {}
    flags: dict[str, dict[str, bool]] = {}
    if fast.is_file():
        vocabulary, rules, flags = _fast(fast)
    elif slow.is_file():
        vocabulary = read_json(slow)
        merges = folder / "merges.txt"
        rules = {"merges": _text(merges)} if merges.is_file() else {}
    elif not opaque:
        raise CheckpointError(
            f"{folder} has no tokenizer: expected tokenizer.json, tokenizer.model or vocab.json; "
            "copy the baseline's, or name one in the policy's checkpoints table"
        )
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    template = folder / "chat_template.jinja"
    return Tokenizer(
        vocabulary=vocabulary,
        rules=rules,
        opaque=opaque,
        special={name: _content(settings.get(name)) for name in _DECIDING_TOKENS},
        padding=_content(settings.get("pad_token")),
        switches={name: settings[name] for name in _SWITCHES if isinstance(settings.get(name), bool)},
        flags=flags,
        chat_template=_text(template) if template.is_file() else _template(settings.get("chat_template")),
    )


def differences(baseline: Tokenizer, candidate: Tokenizer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(differences that make scores incomparable, differences worth a remark), in words."""
    deciding, remarks = [], []
    if baseline.vocabulary is not None and candidate.vocabulary is not None:
        deciding += _vocabularies(baseline.vocabulary, candidate.vocabulary)
        for name in sorted(baseline.rules.keys() | candidate.rules.keys()):
            if baseline.rules.get(name) != candidate.rules.get(name):
                deciding.append(f"its {name} differs")
    else:
        common = baseline.opaque.keys() & candidate.opaque.keys()
        if not common:
            deciding.append("they come in different kinds of files, so that they cannot be compared")
        deciding += [f"{n} differs" for n in sorted(common) if baseline.opaque[n] != candidate.opaque[n]]
    for name in _DECIDING_TOKENS:
        if baseline.special[name] != candidate.special[name]:
            deciding.append(f"{name} is {candidate.special[name]!r} instead of {baseline.special[name]!r}")
    for name in sorted(baseline.switches.keys() & candidate.switches.keys()):
        if baseline.switches[name] != candidate.switches[name]:
            deciding.append(f"{name} is {candidate.switches[name]} instead of {baseline.switches[name]}")
    for token in sorted(baseline.flags.keys() & candidate.flags.keys()):
        ours, theirs = baseline.flags[token], candidate.flags[token]
        changed = [f"{flag} is {theirs[flag]} instead of {ours[flag]}" for flag in _FLAGS if ours[flag] != theirs[flag]]
        if changed:
            remarks.append(f"the candidate's added token {token!r} is matched otherwise: {', '.join(changed)}")
            break  # one version of a library writes all of them otherwise
    if baseline.padding != candidate.padding:
        remarks.append(f"the candidate's pad_token is {candidate.padding!r}, the baseline's {baseline.padding!r}")
    if baseline.chat_template != candidate.chat_template:
        remarks.append(
            "the candidate's chat template differs from the baseline's"
            + _changed_lines(baseline.chat_template, candidate.chat_template)
        )
    return tuple(deciding), tuple(remarks)


def _changed_lines(baseline: str | None, candidate: str | None) -> str:
    """The first lines that only one of two templates has."""
    if baseline is None or candidate is None:
        return f": only the {'candidate' if baseline is None else 'baseline'} has one"
    lines = difflib.unified_diff(baseline.splitlines(), candidate.splitlines(), n=0, lineterm="")
    changed = [line for line in islice(lines, _MAX_DIFF_LINES) if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    if not changed:
        return " in white space"
    more = "; …" if len(changed) > _SHOWN else ""
    return ": " + "; ".join(_cut(line) for line in changed[:_SHOWN]) + more


def _cut(line: str) -> str:
    text = f"{line[0]} {' '.join(line[1:].split())}"
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _vocabularies(baseline: Mapping[str, int], candidate: Mapping[str, int]) -> list[str]:
    found = []
    if len(baseline) != len(candidate):
        found.append(f"it has {len(candidate)} tokens instead of {len(baseline)}")
    by_id = {number: token for token, number in candidate.items()}
    changed = (
        f"id {number} is {by_id.get(number)!r} instead of {token!r}"
        for token, number in sorted(baseline.items(), key=lambda item: item[1])
        if by_id.get(number) != token
    )
    return found + list(islice(changed, _SHOWN))


def _fast(path: Path) -> tuple[dict[str, int], dict[str, str], dict[str, dict[str, bool]]]:
    """(vocabulary, rules, flags of added tokens)"""
    document = read_json(path)
    try:
        model = dict(document["model"])
        listed = model.pop("vocab")
        # Unigram lists [token, score]; the position is the id and the score belongs to the rules.
        vocabulary = (
            dict(listed) if isinstance(listed, dict) else {token: number for number, (token, _) in enumerate(listed)}
        )
        if not isinstance(listed, dict):
            model["scores"] = [score for _, score in listed]
        merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model.pop("merges", [])]
        added = document.get("added_tokens") or []
        vocabulary |= {token["content"]: token["id"] for token in added}
        flags = {token["content"]: {flag: bool(token.get(flag)) for flag in _FLAGS} for token in added}
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise CheckpointError(f"{path} is no tokenizer ({problem!r}): download it again") from problem
    parts = {"merges": merges, "model settings": model} | {name: document.get(name) for name in _PIPELINE}
    rules = {name: canonical(part).decode("utf-8", "surrogatepass") for name, part in parts.items()}
    return vocabulary, rules, flags


def _content(token: Any) -> str | None:
    """A special token, written as text or as an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return None if token is None else str(token)


def _template(found: Any) -> str | None:
    """Inside tokenizer_config.json it is a text, or several with names."""
    return found if found is None or isinstance(found, str) else canonical(found).decode("utf-8", "surrogatepass")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise CheckpointError(f"{path} cannot be read ({problem}): download it again") from problem
