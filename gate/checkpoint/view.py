"""What of a checkpoint's folder is loaded: a folder beside it that holds what is on the allow list, and nothing else.

Weights are linked after their headers were checked; small files are checked and copied, so that what was checked is
what is loaded.  Executes nothing, and takes no file that a loader could execute unless the policy asks for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gate.checkpoint import folder, gguf_header, shapes, weights
from gate.checkpoint.identity import FAKE
from gate.checkpoint.reference import ResolvedCheckpoint
from gate.checkpoint.strict_json import shown
from gate.errors import CheckpointError, GateError, Refused
from gate.records import Role

CONFIGURATIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "processor_config.json",
    "preprocessor_config.json",
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
)
TOKENIZERS = (
    *("tokenizer.json", "vocab.json", "tekken.json"),
    *("merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("tiktoken.model", "*.tiktoken"),
)
TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")
CODE = ("*.py",)
"""In the view only where the policy says `trust_remote_code: true`."""

MAX_TEMPLATE_BYTES = 2**20

_PATH = re.compile(r"(?:_file|_files|_path|_dir|name_or_path)$")
_SILENTLY = frozenset({"_name_or_path", "name_or_path", "special_tokens_map_file"})
"""Those that loaders write themselves: worth no remark."""

_OVERWRITTEN = frozenset({"model_name_or_path"}) | _SILENTLY
"""Where exporters leave paths of the machine that they ran on; loaders put their own in place."""

_DRAFTS = ("speculators_config", "speculators_model_type")
"""vLLM would load another model, which these name, in the place of this one."""

_PAPERWORK = re.compile(
    r"(?i)(?:^|/)(?:\.|readme|licen[cs]e|notice|use_policy)[^/]*$|\.(?:md|txt|ya?ml|png|jpe?g|gif|svg|pdf|csv|log)$"
)
_CODE_OF = "auto_map of "
_TRUST = (
    "if its architecture needs that code and you trust it, set `trust_remote_code: true` for this checkpoint in the "
    "policy's checkpoints table"
)
_SHOWN_NAMES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A checkpoint as it is loaded.

    Attributes:
        original: as it was resolved; digests, headers and reports are about this one.
        checkpoint: the same with its folders in the view.
        left_out: files, and keys of configurations, that a loader might have used.
        code: files with code that is going to be run, because the policy asks for it.
    """

    original: ResolvedCheckpoint
    checkpoint: ResolvedCheckpoint
    left_out: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    def remarks(self, role: Role) -> tuple[str, ...]:
        """For the reader of every report."""
        said = []
        if self.original.trust_remote_code:
            which = ", ".join(self.code) or "it has none"
            said.append(f"trust_remote_code: the {role}'s own code is run, as the policy asks ({which})")
        if self.left_out:
            more = len(self.left_out) - _SHOWN_NAMES
            names = ", ".join(self.left_out[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
            said.append(f"not loaded with the {role}, because nothing needs it: {names}")
        return tuple(said)

    def explained(self, problem: GateError) -> GateError:
        """What went wrong while this was loaded, told of the original; Refused where its own code may be missing."""
        message = str(problem)
        for seen, meant in (
            (self.checkpoint.tokenizer, self.original.tokenizer),
            (str(self.checkpoint.path), str(self.original.path)),
        ):
            if seen is not None and meant is not None:
                message = message.replace(seen, meant)
        code = [name for name in self.left_out if name.startswith(_CODE_OF)]
        if code and isinstance(problem, CheckpointError):
            return Refused(f"{message}; {code[0]} was left out: {_TRUST}")
        problem.args = (message,)
        return problem


def build(resolved: ResolvedCheckpoint, into: Path, *, backend: str) -> View:
    """Check everything that can be checked without hashing or loading, and fill the folder `into`.

    A checkpoint of the `fake` backend is a script with files beside it, and is loaded from where it lies.

    Raises:
        CheckpointError: something is missing, truncated or unreadable.
        Refused: the files are unsafe or lie about themselves.
    """
    if backend == "fake":
        return View(original=resolved, checkpoint=resolved)
    model = _Admission(resolved.path, into / "model", own_code=resolved.trust_remote_code)
    model.small_files()
    if "gguf_file" in resolved.load:
        model.gguf(str(resolved.load["gguf_file"]))
    else:
        model.weights()
    dropped, code, tokenizer = model.left_out(), model.code, None
    if resolved.tokenizer is not None:
        tokenizer = str(into / "tokenizer")
        other = _Admission(Path(resolved.tokenizer), Path(tokenizer), own_code=resolved.trust_remote_code)
        other.small_files()
        dropped, code = [*dropped, *other.dropped], [*code, *other.code]
    return View(
        original=resolved,
        checkpoint=replace(resolved, path=into / "model", tokenizer=tokenizer),
        left_out=tuple(dict.fromkeys(dropped)),
        code=tuple(dict.fromkeys(code)),
    )


class _Admission:
    """One folder on its way into the view.  `dropped` are keys of configurations, `code` files that will be run."""

    def __init__(self, source: Path, target: Path, *, own_code: bool) -> None:
        self._source = source
        self._target = target
        self._own_code = own_code
        self._taken: set[str] = set()
        self._config: Mapping[str, Any] = {}
        self.dropped: list[str] = []
        self.code: list[str] = []
        self._files = {path.relative_to(source).as_posix(): path for path in folder.regular_files(source)}
        if FAKE in self._files:  # for every other backend it would only hide what is there
            raise CheckpointError(f"{source} holds {FAKE}, a script for the fake backend, expected a model: remove it")
        target.mkdir(parents=True)

    def small_files(self) -> None:
        """Check and copy the configurations, the tokenizer, the templates and, where it was asked for, the code."""
        for name, path in self._files.items():
            if _listed(name, CONFIGURATIONS):
                self._copy(name, self._configuration(name, path))
            elif _listed(name, TEMPLATES):
                self._copy(name, folder.read_bytes(path, limit_bytes=MAX_TEMPLATE_BYTES))
            elif _listed(name, TOKENIZERS):
                raw = folder.read_bytes(path, limit_bytes=weights.MAX_JSON_BYTES)
                if path.suffix == ".json":
                    weights.json_object(raw, path)
                self._copy(name, raw)
            elif self._own_code and _listed(name, CODE):
                self._copy(name, folder.read_bytes(path, limit_bytes=weights.MAX_JSON_BYTES))
                self.code.append(name)

    def weights(self) -> None:
        """Check the headers and link the files.  Raises CheckpointError, Refused."""
        config = self._source / "config.json"
        if config.name not in self._files:
            raise CheckpointError(f"{config} is missing: the checkpoint is incomplete, download it again")
        files = weights.files(self._source)
        shapes.check(self._config, (tensor for _, tensor in weights.tensors(files)), config)
        for file in files:
            self._link(file.relative_to(self._source).as_posix())
        index = self._files.get(weights.INDEX)
        if index is not None:
            self._copy(weights.INDEX, folder.read_bytes(index, limit_bytes=weights.MAX_JSON_BYTES))

    def gguf(self, name: str) -> None:
        """Check the header of one GGUF file and link it.  Raises CheckpointError, Refused."""
        if not folder.stays_inside(name):
            raise Refused(f"`load` names gguf_file {shown(name)}, expected a file inside the checkpoint's folder")
        if name not in self._files:
            raise CheckpointError(f"found no {name!r} in {self._source}, expected the GGUF file that `load` names")
        gguf_header.read(self._files[name])
        self._link(name)

    def left_out(self) -> list[str]:
        """What is not in the view and is not for people alone."""
        return [*self.dropped, *(n for n in self._files if n not in self._taken and not _PAPERWORK.search(n))]

    def _configuration(self, name: str, path: Path) -> bytes:
        """The bytes of a configuration without what would lead a loader away from the checkpoint or to its code."""
        raw = folder.read_bytes(path, limit_bytes=weights.MAX_JSON_BYTES)
        found = weights.json_object(raw, path)
        kept = _without(found, _OVERWRITTEN)
        kept = {k: v for k, v in kept.items() if not k.endswith("_file")}  # files are found by their names
        unlisted = {k: v for k, v in found.items() if k not in kept and k not in _SILENTLY}
        self.dropped += [f"{k} of {name}" for k, v in unlisted.items() if any(map(_leaves, _texts(v)))]
        _check_references(kept, path)
        if self._own_code:
            _check_code(kept, path)
        elif (without := _without(kept, {"auto_map"})) != kept:
            _check_native(kept, path)
            self.dropped.append(f"{_CODE_OF}{name}")
            kept = without
        if name == "config.json":
            self._config = kept
        return raw if kept == found else json.dumps(kept, indent=2).encode()

    def _copy(self, name: str, content: bytes) -> None:
        place = self._place(name)
        place.write_bytes(content)
        place.chmod(0o444)

    def _link(self, name: str) -> None:
        self._place(name).symlink_to(self._files[name].resolve())

    def _place(self, name: str) -> Path:
        self._taken.add(name)
        place = self._target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _listed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_references(config: Mapping[str, Any], path: Path) -> None:
    """Raises Refused for whatever would make a loader look outside the checkpoint."""
    for key, value in _walk(config):
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text:
                continue
            if _PATH.search(key) and _leaves(text):
                raise Refused(f"{path}: {shown(key)} is {shown(text)}, expected names inside the checkpoint's folder")
        for text in _texts(value) if key.endswith("_implementation") else ():
            if "/" in text:
                raise Refused(
                    f"{path}: {shown(key)} is {shown(text)}, code from another place, expected a built-in one"
                )
        if key in _DRAFTS:
            raise Refused(f"{path} has {key}: loaders put the model that it drafts for in its place")


def _check_code(config: Mapping[str, Any], path: Path) -> None:
    """Raises Refused for code that is not part of the checkpoint, and so in no digest."""
    for key, value in _walk(config):
        references = value.values() if isinstance(value, dict) else [value]
        if key == "auto_map" and "--" in str(list(references)):
            raise Refused(
                f"{path}: auto_map takes code from another repository, expected code in the checkpoint itself"
            )


def _check_native(config: Mapping[str, Any], path: Path) -> None:
    """Raises Refused where the code that is left out is of another architecture than the one named by `model_type`."""
    named, kind = config.get("architectures"), config.get("model_type")
    if not (isinstance(named, list) and named and isinstance(named[0], str) and isinstance(kind, str)):
        return
    expected = _letters(kind.removesuffix("_text"))
    if not _letters(named[0]).startswith(expected):
        raise Refused(
            f"{path} has its own code for {shown(named[0])}, which is not the {shown(kind)} that model_type names and "
            f"that would be loaded without that code: {_TRUST}"
        )


def _without(config: Mapping[str, Any], keys: Set[str]) -> dict[str, Any]:
    return {k: _without(v, keys) if isinstance(v, dict) else v for k, v in config.items() if k not in keys}


def _walk(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    for key, value in config.items():
        yield key, value
        yield from _walk_into(value)


def _walk_into(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from _walk(value)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk_into(inner)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _leaves(text: str) -> bool:
    return bool(text) and not folder.stays_inside(text)


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
