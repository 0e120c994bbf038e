"""What a task's YAML names besides itself: the YAML it includes, the data files it takes its documents from.

Pure: text → paths as written.  Runs no function that a YAML names, and reads what it does not know as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

FILE_FORMATS = frozenset({"json", "csv", "parquet", "arrow", "text"})
SUFFIXES = (".yaml", ".yml")
_WILD = "*?["


class _Loader(yaml.SafeLoader):
    """Safe, and at ease with tags such as `!function`."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def named_in(text: bytes) -> tuple[str, ...]:
    """Local paths, relative to the YAML's folder; of a pattern, the folder that it starts from."""
    try:
        config = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ()  # whoever loads the task says what is wrong with it
    return tuple(dict.fromkeys(_fixed(place) for place in _places(config) if "://" not in place))


def _places(config: Any) -> Iterator[str]:
    if isinstance(config, list):
        for member in config:
            yield from _places(member)
    if not isinstance(config, dict):
        return
    for value in config.values():
        yield from _places(value)
    yield from _texts(config.get("include"))
    arguments = config.get("dataset_kwargs")
    if isinstance(arguments, dict) and config.get("dataset_path", "json") in FILE_FORMATS:
        yield from _texts([arguments.get("data_files"), arguments.get("data_dir")])


def _texts(places: Any) -> Iterator[str]:
    if isinstance(places, str):
        yield places
    elif isinstance(places, dict | list):
        for value in places.values() if isinstance(places, dict) else places:
            yield from _texts(value)


def _fixed(place: str) -> str:
    parts = place.split("/")
    wild = next((i for i, part in enumerate(parts) if any(c in part for c in _WILD)), None)
    return place if wild is None else "/".join(parts[:wild]) or "."
