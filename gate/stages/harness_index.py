"""The part of lm-eval's bundled task index that given names need, without parsing all 14,000 YAML files.

Finds the files by their text and lets lm-eval parse those: ten times faster than its whole index, entries equal.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from lm_eval.tasks._index import TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from gate.stages.isolation import ITEM_ERRORS

ROOT = Path(lm_eval.tasks.__file__).parent

YAML_ERRORS = (*ITEM_ERRORS, yaml.YAMLError)
"""What lm-eval raises for a file that it leaves out of its index."""

_NO_YAML = (".py", ".pyc", ".md", ".sh", ".json", ".jsonl", ".tsv", ".txt", ".jpg", ".lark")
_INCLUDE = re.compile(r"^\s*include:[ \t]*(.*(?:\n[ \t]*- .*)*)", re.MULTILINE)
_DEFINITION = re.compile(r"^(?:task|group|tag):[ \t]*(.*(?:\n[ \t]*- .*)*)", re.MULTILINE)
_NAME = re.compile(r"\w[\w.:/-]+")


def entries(names: Collection[str]) -> dict[str, Any]:
    """Index entries of all files that can define one of the names; complete for these names, not for others.

    A file defines a name only if its text, or that of a file it includes, contains it.
    """
    files: set[str] = set()
    for name in names:
        files |= _files_with(name)
    index: dict[str, Any] = {}
    for path in sorted(Path(file) for file in files if file.endswith(".yaml")):  # lm-eval's order: the first one wins
        try:
            TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, index)
        except YAML_ERRORS:
            continue  # as lm-eval does: templates are not tasks
    return index


def all_names() -> list[str]:
    """Nearly all bundled names, for suggestions."""
    definitions = (listed for text in _texts().values() for listed in _DEFINITION.findall(text))
    return sorted({name for listed in definitions for name in _NAME.findall(listed)})


@functools.cache
def _files_with(name: str) -> frozenset[str]:
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    found: set[str] = set()
    new = {file for file, text in _texts().items() if name in text and word.search(text)}
    while new:
        found |= new
        new = {file for included in new for file in _included_by().get(included, ())} - found
    return frozenset(found)


@functools.cache
def _texts() -> Mapping[str, str]:
    texts = {}
    for folder, _, files in os.walk(ROOT):
        for file in files:
            if not file.endswith(_NO_YAML):
                path = Path(folder, file)
                texts[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    return texts


@functools.cache
def _included_by() -> Mapping[str, list[str]]:
    """File → the files that include it."""
    including: dict[str, list[str]] = {}
    for file, text in _texts().items():
        for listed in _INCLUDE.findall(text):
            for name in re.findall(r"[\w./-]+", listed):
                including.setdefault(os.path.normpath(Path(file).parent / name), []).append(file)
    return including
