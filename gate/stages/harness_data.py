"""The local data files that a task's config names: where they are, whether they are there, which line is broken.

Reads them only to say what is wrong; `datasets` loads them.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gate.errors import CouldNotMeasure, DataError

FILE_FORMATS = frozenset({"json", "csv", "parquet", "arrow", "text"})
_GLOB = "*?["


def named_files(config: Mapping[str, Any]) -> Iterator[str]:
    """The entries of `data_files`, as written."""
    return _flat((config.get("dataset_kwargs") or {}).get("data_files"))


def is_local(config: Mapping[str, Any]) -> bool:
    """Whether every document comes from a file on this machine."""
    return config.get("dataset_path") in FILE_FORMATS and not any("://" in path for path in named_files(config))


def verify(name: str, config: Mapping[str, Any]) -> None:
    """Raises DataError for a missing file of an anchored config, CouldNotMeasure for an empty one."""
    if config.get("dataset_path") not in FILE_FORMATS:
        return
    for path in named_files(config):
        if "://" in path or any(c in path for c in _GLOB):
            continue
        if not Path(path).is_file():
            raise DataError(f"task {name!r}: found no data file {path!r}; paths are relative to the task's YAML")
        if Path(path).stat().st_size == 0:
            raise CouldNotMeasure(f"task {name!r}: the data file {path!r} is empty: there is nothing to measure")


def anchored(config: Any, folder: Path) -> Any:
    """The config with `data_files`, `data_dir` and folders (`./…`) of local data made absolute, beside its YAML."""
    if isinstance(config, list):
        return [anchored(member, folder) for member in config]
    if not isinstance(config, Mapping):
        return config
    result = {key: anchored(value, folder) for key, value in config.items()}
    data_set = config.get("dataset_path")
    if isinstance(data_set, str) and data_set.startswith(("./", "../")):
        result["dataset_path"] = _absolute(data_set, folder)
    arguments = result.get("dataset_kwargs")
    # the data files of a hub data set are relative to its repository: leave them alone
    if isinstance(arguments, dict) and config.get("dataset_path", "json") in FILE_FORMATS:
        for key in {"data_files", "data_dir"} & arguments.keys():
            arguments[key] = _absolute(arguments[key], folder)
    return result


def files(config: Any, folder: Path) -> Iterator[Path]:
    """Every local file that the config, or a config inside it (a group's members), takes documents or prompts from.

    Too many rather than too few: a name of a hub data set counts as a folder beside the YAML.
    """
    if isinstance(config, list):
        for member in config:
            yield from files(member, folder)
    if not isinstance(config, Mapping):
        return
    for value in config.values():
        yield from files(value, folder)
    arguments = config.get("dataset_kwargs")
    places = [*_flat(arguments.get("data_files")), *_flat(arguments.get("data_dir"))] if arguments else []
    for place in places:
        yield from _below(folder / place)
    data_set, prompts = config.get("dataset_path"), config.get("use_prompt")
    if isinstance(data_set, str) and data_set not in FILE_FORMATS:
        yield from _below(folder / data_set)
    if isinstance(prompts, str) and ".yaml" in prompts:
        yield from _below(folder / prompts.partition(":")[0])


def broken_line(config: Mapping[str, Any]) -> str | None:
    """`file:line: what is wrong` for the first broken line in an anchored config's JSON files, None without one."""
    if config.get("dataset_path") != "json" or "field" in (config.get("dataset_kwargs") or {}):
        return None
    paths = (path for place in named_files(config) for path in _below(Path(place)))
    return next(filter(None, map(_broken_json, paths)), None)


def _broken_json(path: Path) -> str | None:
    data = path.read_bytes()
    if data.lstrip().startswith(b"["):
        return _problem(path, 1, data, list)
    lines = enumerate(data.split(b"\n"), start=1)
    return next(filter(None, (_problem(path, n, line, dict) for n, line in lines if line.strip())), None)


def _problem(path: Path, number: int, data: bytes, expected: type) -> str | None:
    what = "an array of objects" if expected is list else "one object per line"
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        return f"{path}:{number + error.lineno - 1}: not JSON ({error.msg}, column {error.colno}), expected {what}"
    except UnicodeDecodeError as error:
        line = number + data[: error.start].count(b"\n")
        return f"{path}:{line}: found byte 0x{data[error.start]:02x}, expected UTF-8"
    return None if isinstance(value, expected) else f"{path}:{number}: found {type(value).__name__}, expected {what}"


def _below(path: Path) -> list[Path]:
    """The file, the files of the folder, or those that the pattern matches; none of anything else."""
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    if any(c in str(path) for c in _GLOB):
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207  `Path.glob` takes no absolute patterns
        return [Path(p) for p in sorted(found) if Path(p).is_file()]
    return []


def _flat(places: Any) -> Iterator[str]:
    if isinstance(places, str):
        yield places
    elif isinstance(places, Mapping):
        for value in places.values():
            yield from _flat(value)
    elif isinstance(places, list):
        for value in places:
            yield from _flat(value)


def _absolute(places: Any, folder: Path) -> Any:
    if isinstance(places, Mapping):
        return {split: _absolute(value, folder) for split, value in places.items()}
    if isinstance(places, list):
        return [_absolute(value, folder) for value in places]
    return places if "://" in str(places) else str(folder / str(places))
