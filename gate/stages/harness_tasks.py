"""lm-eval's tasks as the gate finds and loads them: a task, group or tag, local YAML before the bundled ones.

Never runs a model.  Offline, a data set that is not in the local cache is an error that says so; online (only
`gate fetch` is), loading a task downloads what it needs.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from datasets import config as datasets_config
from datasets.exceptions import DatasetsError
from lm_eval.api.samplers import get_sampler
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from gate.errors import CouldNotMeasure, DataError
from gate.hub import download_errors, reason
from gate.policy import Task
from gate.stages import harness_code, harness_data
from gate.stages.harness_index import YAML_ERRORS, all_names, entries
from gate.stages.isolation import ITEM_ERRORS

_SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")
_LENGTH_KEYS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A name that lm-eval knows.

    Attributes:
        configs: task name → (its config, the folder of its YAML), functions not loaded.
        entries: lm-eval's index entries of the name and of everything below it.
    """

    name: str
    manager: Any
    configs: Mapping[str, tuple[Mapping[str, Any], Path | None]]
    entries: tuple[Any, ...]

    def place(self, task: str) -> str:
        """The task's name for a message, with its YAML file where it has one."""
        paths = [e.yaml_path for e in self.entries if e.name == task and e.yaml_path is not None]
        return f"task {task!r}" + (f" ({paths[0]})" if paths else "")


class NotHere(CouldNotMeasure):
    """What a task needs is not in the local cache.  `missing` says what, and why it could not be had."""

    def __init__(self, task: str, what: str, why: str) -> None:
        self.missing = f"{what} of task {task!r}", why
        super().__init__(f"task {task!r}: its {what} is not in the local cache, run `gate fetch`: {why}")


def find(name: str, include_path: Path | None) -> Found:
    """Resolve a task, group or tag; raises DataError with the nearest names when there is none."""
    if include_path is not None and not include_path.is_dir():
        raise DataError(f"found no folder {str(include_path)!r}, expected the local task YAML there (include_path)")
    manager = TaskManager(include_path=None if include_path is None else str(include_path), include_defaults=False)
    index = manager.task_index
    local = dict(index)
    asked: set[str] = set()
    while True:
        reached: set[str] = set()
        try:
            configs, unknown = dict(_leaves(name, index, frozenset(), reached)), None
        except KeyError as missing:
            configs, unknown = {}, str(missing.args[0])
        if reached <= asked | local.keys():
            break
        asked |= reached - local.keys()
        index.update({bundled: entry for bundled, entry in entries(asked).items() if bundled not in local})
    if unknown is None:
        below = tuple(index[n] for n in sorted(reached) if n in index)
        return Found(name=name, manager=manager, configs=configs, entries=below)
    member = "" if unknown == name else f" in the group {name!r}"
    near = difflib.get_close_matches(unknown, [*local, *all_names()], n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    skipped = "".join(f"\n  not read: {path}: {problem}" for path, problem in _unreadable(include_path))
    expected = "expected a task, group or tag of lm-eval or of include_path"
    raise DataError(f"found the task {unknown!r}{member}, {expected}: {hint}{skipped}")


def _unreadable(include_path: Path | None) -> Iterator[tuple[Path, str]]:
    """Local YAML files that lm-eval leaves out of its index without a word."""
    for path in sorted(include_path.rglob("*.yaml")) if include_path is not None else ():
        try:
            TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, {})
        except YAML_ERRORS as error:
            yield path, " ".join(str(error).split())


def _leaves(
    name: str, index: Mapping[str, Any], above: frozenset[str], reached: set[str]
) -> Iterator[tuple[str, tuple[Mapping[str, Any], Path | None]]]:
    """The tasks below a name with their configs; adds every name that was looked up to `reached`.

    Raises:
        KeyError: a name is not in the index.
    """
    reached.add(name)
    entry = index[name]
    if name in above:
        raise DataError(f"found the group {name!r} inside itself, expected a tree of tasks")
    folder = entry.yaml_path.parent if entry.yaml_path else None
    if entry.kind.name == "TAG":
        for child in sorted(entry.tags):
            yield from _leaves(child, index, above | {name}, reached)
    elif entry.kind.name == "GROUP":
        yield from _members(entry.cfg.get("task"), folder, index, above | {name}, reached)
    else:
        yield name, (entry.cfg, folder)


def _members(
    members: Any, folder: Path | None, index: Mapping[str, Any], above: frozenset[str], reached: set[str]
) -> Iterator[tuple[str, tuple[Mapping[str, Any], Path | None]]]:
    for member in [members] if isinstance(members, str) else members or []:
        name = member if isinstance(member, str) else member.get("group") or member["task"]
        reached.add(name)
        if name in index:
            yield from _leaves(name, index, above, reached)
        elif isinstance(member, Mapping) and "group" in member:
            yield from _members(member.get("task"), folder, index, above, reached)
        elif isinstance(member, Mapping) and ("dataset_path" in member or "custom_dataset" in member):
            yield name, (member, folder)
        else:
            raise KeyError(name)


def verify(found: Found, settings: Task) -> None:
    """What can be said before any data is read.  Raises DataError, or CouldNotMeasure for an empty data file."""
    for name, (config, folder) in found.configs.items():
        if config.get("unsafe_code") and not settings.unsafe_code:
            _refuse_unsafe(name)
        if settings.fewshot and config.get("num_fewshot") == 0:
            _refuse_fewshot(name, settings.fewshot)
        if "class" not in config:  # the code of a class says what it asks
            _check_writes(name, config.get("output_type") or "generate_until", settings)
        if folder is not None:
            harness_data.verify(name, harness_data.anchored(config, folder))


def _refuse_unsafe(name: str) -> None:
    raise DataError(
        f"task {name!r} executes the code that the model wrote: set `unsafe_code: true` on the task to allow it (every "
        "program runs in a sandbox of its own)"
    )


def _refuse_own_execution(name: str) -> None:
    raise DataError(
        f"task {name!r} is marked `unsafe_code` and does not execute by evaluate's code_eval, and only that runs in "
        "the gate's sandbox: score by `evaluate.load(\"code_eval\")`, loaded at the top of the task's module; or take "
        "`unsafe_code` out of its YAML if it executes nothing"
    )


def _refuse_fewshot(name: str, fewshot: int) -> None:
    raise DataError(f"found `fewshot: {fewshot}` for {name!r}, which is defined with 0 examples only: remove `fewshot`")


def _check_writes(name: str, output_type: str, settings: Task) -> None:
    if settings.temperature > 0 and output_type != "generate_until":
        raise DataError(
            f"found `temperature: {settings.temperature:g}` for {name!r}, whose output_type is {output_type}: only "
            "generate_until tasks write an answer that can be sampled, remove `temperature` and `epochs`"
        )


def load(found: Found, settings: Task) -> dict[str, Any]:
    """The tasks (name → lm-eval Task) with their documents, set up as the policy asks.

    Raises:
        DataError: a task cannot be built or does not allow what the policy asks.
        NotHere: its data set or metric is not on this machine.
        CouldNotMeasure: its package is not.
    """
    harness_code.install()
    try:
        _anchor_index(found)
        tasks: dict[str, Any] = found.manager.load([found.name])["tasks"]
    except download_errors() as error:
        raise _not_here(found.name, error) from error
    except ImportError as error:
        raise CouldNotMeasure(f"task {found.name!r} needs a Python package that is not installed: {error}") from error
    except (*ITEM_ERRORS, SyntaxError, DatasetsError, jinja2.TemplateError, yaml.YAMLError) as error:
        if "find cache for" in str(error):
            raise _not_here(found.name, error) from error
        raise DataError(_why_not_built(found, error)) from error
    for name, task in tasks.items():
        _set_up(name, task, settings)
    return tasks


def _not_here(name: str, error: Exception) -> NotHere:
    return NotHere(name, "data set or metric", reason(error))


def _why_not_built(found: Found, error: Exception) -> str:
    """The broken line or the missing split where that is it, else what lm-eval or `datasets` said."""
    for name, (config, folder) in found.configs.items():
        line = harness_data.broken_line(harness_data.anchored(config, folder or Path()))
        if line is not None:
            return f"{found.place(name)}: {line}"
        splits = {key: config[key] for key in _SPLITS if config.get(key) is not None}
        if isinstance(error, KeyError) and error.args[0] in splits.values():
            wanted = ", ".join(f"{key}: {split}" for key, split in splits.items())
            return f"{found.place(name)}: its data has no split {error.args[0]!r}, found `{wanted}`"
    reasons = [error, *([error.__cause__] if isinstance(error, DatasetsError) and error.__cause__ else [])]
    said = ": ".join(f"{type(e).__name__}: {e}" for e in reasons)
    return f"{found.place(found.name)} cannot be built: {said}"


def is_local(found: Found) -> bool:
    """Whether every document comes from a file on this machine."""
    return all(harness_data.is_local(config) for config, _ in found.configs.values())


def lacks_data(found: Found) -> bool:
    """Whether this process is offline and `datasets` keeps nothing of a hub data set that a task names."""
    names = [str(config.get("dataset_path") or "") for config, _ in found.configs.values()]
    kept = Path(datasets_config.HF_DATASETS_CACHE)
    hub = [name for name in names if name not in ("", *harness_data.FILE_FORMATS) and not Path(name).exists()]
    return datasets_config.HF_HUB_OFFLINE and not all((kept / name.replace("/", "___")).is_dir() for name in hub)


def picks_hub_files(found: Found) -> bool:
    """Whether a task names files inside a hub data set: `datasets` caches those under a name it cannot find offline."""
    return any(
        config.get("dataset_path") not in harness_data.FILE_FORMATS and any(harness_data.named_files(config))
        for config, _ in found.configs.values()
    )


def _anchor_index(found: Found) -> None:
    """Replace the index entries that name local files by ones with absolute paths (lm-eval reads no others)."""
    index = found.manager.task_index
    for name, entry in list(index.items()):
        if entry.yaml_path is None or not (name in found.configs or entry.kind.name == "GROUP"):
            continue
        folder = entry.yaml_path.parent
        if harness_data.anchored(entry.cfg, folder) != entry.cfg:
            config = harness_data.anchored(load_yaml(entry.yaml_path, resolve_func=True), folder)
            index[name] = dataclasses.replace(entry, yaml_path=None, cfg=config)


def _set_up(name: str, task: Any, settings: Task) -> None:
    marked, executes = getattr(task, "UNSAFE_CODE", False), harness_code.executes(task)
    if (marked or executes) and not settings.unsafe_code:
        _refuse_unsafe(name)
    if marked and not executes:
        _refuse_own_execution(name)
    if executes:
        harness_code.proven_sandbox()
    if getattr(task, "MULTIMODAL", False):
        raise DataError(f"task {name!r} needs images or audio, expected a task on text")
    _check_writes(name, task.OUTPUT_TYPE, settings)
    if task.OUTPUT_TYPE == "generate_until" and not callable(task.get_config("process_results")):
        unknown = [metric for metric, function in getattr(task, "_metric_fn_list", {}).items() if function is None]
        if unknown:
            raise NotHere(name, f"metric {unknown[0]!r}", "lm-eval has no such metric, and evaluate could not load it")
    if settings.fewshot and task.get_config("num_fewshot") == 0:
        _refuse_fewshot(name, settings.fewshot)
    if settings.fewshot is not None or task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", settings.fewshot or 0)
    if settings.fewshot_sampler == "first_n" and hasattr(task, "sampler"):
        task.sampler = get_sampler("first_n")(task.sampler.df)
    if settings.max_new_tokens is not None and task.OUTPUT_TYPE == "generate_until":
        kept = {k: v for k, v in (task.get_config("generation_kwargs") or {}).items() if k not in _LENGTH_KEYS}
        task.set_config("generation_kwargs", {**kept, "max_gen_toks": settings.max_new_tokens})
    if settings.temperature > 0:
        own = task.get_config("generation_kwargs") or {}
        sampled = {"do_sample": True, "temperature": settings.temperature}
        # the whole distribution unless the task cuts it, never what one checkpoint's generation_config says
        task.set_config("generation_kwargs", {"top_k": 0, "top_p": 1.0, **own, **sampled})


def examples_from_evaluated_split(task: Any) -> bool:
    """Whether few-shot examples come from the documents that are scored, without leaving out the one asked."""
    few = getattr(task, "fewshot_cfg", None)
    return bool(
        task.get_config("num_fewshot")
        and few is not None
        and few.split is None
        and few.samples is None
        and not task.has_training_docs()
        and not (task.has_validation_docs() and task.has_test_docs())
    )
