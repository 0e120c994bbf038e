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

from gate.checkpoint import tokenizer_rules
from gate.checkpoint.folder import read_bytes
from gate.checkpoint.strict_json import shown
from gate.checkpoint.tokenizer_rules import DECODER, SPACES
from gate.checkpoint.weights import MAX_JSON_BYTES, read_json
from gate.errors import CheckpointError

_DECIDING_TOKENS = ("bos_token", "eos_token", "unk_token")
_SWITCHES = ("add_bos_token", "add_eos_token")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
_MODEL_FILES = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt"),
    *("tekken.json", "tiktoken.model", "*.tiktoken"),
)
_BOS_BY_KIND = {
    "gpt2": "<|endoftext|>",
    "gptneox": "<|endoftext|>",
    "llama": "<s>",
    "codellama": "<s>",
    "gemma": "<bos>",
}
"""What transformers begins texts with where the files name no token, by the tokenizer's class."""

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
        special: beginning, end and unknown token, as far as the files say anything of them.
        kind: its class, or else the model's type, such as `gpt2`: what is not said follows from it.
        padding: the padding token; quantizers add one, and it changes no score.
        switches: whether beginning and end are added to a text, as far as it is said.
        flags: how added tokens are matched in a text, by token.
        chat_template: as text, or None.
        other_templates: those with a name or a file of their own.
    """

    vocabulary: Mapping[str, int] | None
    rules: Mapping[str, str]
    opaque: Mapping[str, str]
    special: Mapping[str, str | None]
    kind: str
    padding: str | None
    switches: Mapping[str, bool]
    flags: Mapping[str, Mapping[str, bool]]
    chat_template: str | None
    other_templates: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Hex SHA-256 over everything that decides, and the decoder; padding and chat template do not."""
        deciding = [
            sorted(self.vocabulary.items()) if self.vocabulary is not None else None,
            sorted(self.rules.items()),
            sorted(self.opaque.items()) if self.vocabulary is None else None,
            sorted((name, self.special.get(name)) for name in _DECIDING_TOKENS),
        ]
        return hashlib.sha256(canonical(deciding)).hexdigest()


def canonical(value: Any) -> bytes:
    """The one way to write plain data as bytes.  Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def read(folder: Path) -> Tokenizer:
    """The tokenizer of a folder.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        Refused: a file is far too large for what it is, or no plain file.
    """
    held = [path for pattern in _MODEL_FILES for path in sorted(folder.glob(pattern)) if path.is_file()]
    opaque = {p.name: hashlib.sha256(read_bytes(p, limit_bytes=MAX_JSON_BYTES)).hexdigest() for p in held}
    fast = folder / "tokenizer.json"
    slow = folder / "vocab.json"
    vocabulary: dict[str, int] | None = None
    rules: dict[str, str] = {}
    flags: dict[str, dict[str, bool]] = {}
    if fast.is_file():
        vocabulary, rules, flags = _fast(fast)
    elif slow.is_file():
        vocabulary = read_json(slow)
        _check_ids(vocabulary, slow)
        merges = folder / "merges.txt"
        rules = {"merges": _text(merges)} if merges.is_file() else {}
    elif not opaque:
        raise CheckpointError(
            f"{folder} has no tokenizer: expected tokenizer.json, tokenizer.model, vocab.json, tekken.json or a "
            "tiktoken file; "
            "copy the baseline's, or name one in the policy's checkpoints table"
        )
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    template, others = _templates(folder, settings.get("chat_template"))
    return Tokenizer(
        vocabulary=vocabulary,
        rules=rules,
        opaque=opaque,
        special={name: _content(settings[name]) for name in _DECIDING_TOKENS if name in settings},
        kind=_kind(folder, settings),
        padding=_content(settings.get("pad_token")),
        switches={name: settings[name] for name in _SWITCHES if isinstance(settings.get(name), bool)},
        flags=flags,
        chat_template=template,
        other_templates=others,
    )


def differences(baseline: Tokenizer, candidate: Tokenizer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(differences that make scores incomparable, differences worth a remark), in words."""
    deciding, remarks = [], []
    if baseline.vocabulary is not None and candidate.vocabulary is not None:
        deciding += _vocabularies(baseline.vocabulary, candidate.vocabulary)
        for name in sorted(baseline.rules.keys() | candidate.rules.keys()):
            if baseline.rules.get(name) != candidate.rules.get(name):
                if name in (DECODER, SPACES):
                    remarks.append(f"the candidate's {name} differs from the baseline's")
                else:
                    deciding.append(f"its {name} differs")
    else:
        common = baseline.opaque.keys() & candidate.opaque.keys()
        if not common:
            deciding.append("they come in different kinds of files, so that they cannot be compared")
        deciding += [f"{n} differs" for n in sorted(common) if baseline.opaque[n] != candidate.opaque[n]]
    for name in _DECIDING_TOKENS:
        one, two = baseline.special.get(name), candidate.special.get(name)
        if one == two:
            continue
        if name not in baseline.special and _may_be_left_out(name, two, baseline):
            remarks.append(f"only the candidate's files name its {name} ({two!r})")
        elif name not in candidate.special and _may_be_left_out(name, one, candidate):
            remarks.append(f"only the baseline's files name its {name} ({one!r})")
        else:
            deciding.append(f"{name} is {two!r} instead of {one!r}")
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
    for name in sorted(baseline.other_templates.keys() | candidate.other_templates.keys()):
        old, new = baseline.other_templates.get(name), candidate.other_templates.get(name)
        if old != new:
            remarks.append(
                f"the candidate's chat template {shown(name)} differs from the baseline's{_changed_lines(old, new)}"
            )
    return tuple(deciding), tuple(remarks)


def _may_be_left_out(name: str, token: str | None, without: Tokenizer) -> bool:
    """Whether a tokenizer whose files do not name a special token may still have this one.

    Only the beginning of a text becomes part of a prompt, so that one must follow from the tokenizer's class.
    """
    if name == "bos_token":
        return token is not None and _BOS_BY_KIND.get(without.kind) == token
    return without.vocabulary is None or token in without.vocabulary


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
            model["scores"] = [float(score) for _, score in listed]
            model.setdefault("type", "Unigram")
        merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model.pop("merges", [])]
        added = document.get("added_tokens") or []
        _check_ids(vocabulary, path)
        vocabulary |= {token["content"]: token["id"] for token in added}
        flags = {token["content"]: {flag: bool(token.get(flag)) for flag in _FLAGS} for token in added}
        _check_ids(vocabulary, path)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise CheckpointError(f"{path} is no tokenizer ({problem!r}): download it again") from problem
    parts = {"merges": merges, "model settings": tokenizer_rules.model_settings(model, vocabulary.keys())}
    parts |= tokenizer_rules.pipeline(document)
    rules = {name: canonical(part).decode("utf-8", "surrogatepass") for name, part in parts.items()}
    return vocabulary, rules, flags


def _content(token: Any) -> str | None:
    """A special token, written as text or as an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return None if token is None else str(token)


def _check_ids(vocabulary: Mapping[Any, Any], path: Path) -> None:
    """Raises CheckpointError where a token is no text, or its id no whole number."""
    for token, number in vocabulary.items():
        if not isinstance(token, str) or type(number) is not int:
            raise CheckpointError(
                f"{path} gives token {shown(token)} the id {shown(number)}, expected a whole number: download it again"
            )


def _kind(folder: Path, settings: Mapping[str, Any]) -> str:
    """`gpt2` of GPT2TokenizerFast; where no class is named, of the model's type."""
    named = settings.get("tokenizer_class")
    if not isinstance(named, str) and (folder / "config.json").is_file():
        named = read_json(folder / "config.json").get("model_type")
    if not isinstance(named, str):
        return ""
    return named.removesuffix("Fast").removesuffix("Tokenizer").replace("_", "").lower()


def _templates(folder: Path, setting: Any) -> tuple[str | None, dict[str, str]]:
    """(the template, others by name): inside tokenizer_config.json it is a text or several with names, or has files."""
    others: dict[str, str] = {}
    found = setting
    if isinstance(setting, list) and all(isinstance(t, dict) and {"name", "template"} <= t.keys() for t in setting):
        others = {str(t["name"]): str(t["template"]) for t in setting}
        found = others.pop("default", None)
    elif setting is not None and not isinstance(setting, str):
        found = canonical(setting).decode("utf-8", "surrogatepass")
    single = folder / "chat_template.jinja"
    if single.is_file():
        found = _text(single)
    others |= {p.stem: _text(p) for p in sorted(folder.glob("additional_chat_templates/*.jinja")) if p.is_file()}
    processor = folder / "chat_template.json"
    if processor.is_file():
        text = read_json(processor).get("chat_template")
        if text is not None and text != found:
            others[processor.name] = text if isinstance(text, str) else canonical(text).decode("utf-8", "surrogatepass")
    return found, others


def _text(path: Path) -> str:
    try:
        return read_bytes(path, limit_bytes=MAX_JSON_BYTES).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path} cannot be read ({problem}): download it again") from problem
