"""An lm-eval output folder: which results files and sample logs in it belong together, and what they say of a task.

Reads; judges nothing.  Follows the files that lm-eval's `--output_path D --log_samples` writes (`EvaluationTracker`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gate.errors import CouldNotMeasure, DataError, UsageError

_RESULTS = re.compile(r".+_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json")

_NAMED = 12


@dataclass(frozen=True)
class ResultsFile:
    """One evaluation: `results_<date>.json` and, beside it, a log of samples per task."""

    path: Path
    date: str

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The whole file.  Raises DataError when it is no JSON object."""
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as problem:
            raise DataError(
                f"{self.path} is not readable JSON ({problem}): it is damaged or incomplete, run lm-eval again"
            ) from problem
        if not isinstance(found, dict) or not isinstance(found.get("results"), dict):
            raise DataError(f"{self.path} has no `results`, expected a results file of lm-eval")
        return found

    def section(self, name: str) -> Mapping[str, Any]:
        """A part of the file by name, empty where it is missing.  Raises DataError when it is no mapping."""
        found = self.document.get(name) or {}
        if not isinstance(found, dict):
            raise DataError(f"{self.path}: found {type(found).__name__} as {name!r}, expected a mapping")
        return found

    def of(self, section: str, task: str) -> Mapping[str, Any]:
        """What a part of the file says of a task, empty where it says nothing.  Raises DataError as `section`."""
        found = self.section(section).get(task) or {}
        if not isinstance(found, dict):
            raise DataError(f"{self.path}: found {type(found).__name__} in {section!r} for {task}, expected a mapping")
        return found

    def leaves(self, name: str) -> tuple[str, ...]:
        """The tasks that were scored under a task's or a group's name, in the file's order; none if it is unknown."""
        found: dict[str, None] = {}
        waiting, seen = [name], set[str]()
        while waiting:
            current = waiting.pop(0)
            if current in seen:
                continue
            seen.add(current)
            children = self.section("group_subtasks").get(current)
            if children:
                waiting = [*map(str, children), *waiting]
            elif current in self.section("n-samples") or current in self.section("configs"):
                found[current] = None
        return tuple(found)

    def samples(self, task: str) -> Path:
        return self.path.with_name(f"samples_{task}_{self.date}.jsonl")

    @property
    def model(self) -> str:
        return str(self.document.get("model_name") or self.section("config").get("model") or "an unnamed model")

    @property
    def loaded(self) -> tuple[str, str] | None:
        """The kind of model and how it was loaded, as lm-eval was told; None where the file does not say."""
        config = self.section("config")
        arguments = config.get("model_args")
        return (str(config.get("model")), json.dumps(arguments, sort_keys=True, default=str)) if arguments else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A task or group in one evaluation, its samples at hand; `notes` say what was passed over to get there."""

    file: ResultsFile
    leaves: tuple[str, ...]
    notes: tuple[str, ...]


class LmEvalFolder:
    """The evaluations of one model in a folder, newest first."""

    def __init__(self, folder: Path, files: tuple[ResultsFile, ...]) -> None:
        self.folder = folder
        self.files = files

    def find(self, task: str) -> Evaluated:
        """The newest evaluation of a task or group that has all its samples.

        Raises:
            CouldNotMeasure: there is none.
            DataError: a results file is broken.
        """
        without: list[ResultsFile] = []
        for index, file in enumerate(self.files):
            leaves = file.leaves(task)
            if not leaves:
                continue
            if not all(file.samples(leaf).is_file() for leaf in leaves):
                without.append(file)
                continue
            older = [f for f in self.files[index + 1 :] if f.leaves(task)]
            notes = [f"{task}: the results of {f.date} have no sample log and were passed over" for f in without]
            if older:
                notes.append(f"{task}: the newest results are used, {file.date}; there are {len(older)} older ones")
            return Evaluated(file=file, leaves=leaves, notes=tuple(notes))
        if without:
            name = without[0].samples(without[0].leaves(task)[0]).name
            raise CouldNotMeasure(
                f"found results of {task!r} in {self.folder} and no {name}: run lm-eval with --log_samples, the "
                "scores of single items are needed"
            )
        known = sorted({name for f in self.files for name in (*f.section("n-samples"), *f.section("group_subtasks"))})
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        raise CouldNotMeasure(
            f"found no results of {task!r} in {self.folder}, it has {', '.join(known[:_NAMED]) or 'nothing'}{more}: "
            "name tasks in the policy as lm-eval names them (a tag's tasks one by one)"
        )


def find_results(folder: Path) -> tuple[ResultsFile, ...]:
    """The results files in and below a folder, newest first; empty where there are none.

    Raises:
        UsageError: they lie in several folders, which are those of several models.
    """
    found = []
    for path in sorted(folder.rglob("*.json")):
        match = _RESULTS.fullmatch(path.name)
        if match and path.is_file():
            found.append(ResultsFile(path=path, date=match["date"]))
    parents = sorted({str(f.path.parent.relative_to(folder)) for f in found})
    if len(parents) > 1:
        raise UsageError(
            f"{folder} holds results of several models, in {', '.join(parents)}: give the folder of one of them"
        )
    return tuple(sorted(found, key=lambda f: f.date, reverse=True))
