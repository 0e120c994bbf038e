"""The local files that a task's scores depend on: its YAML with all includes, its Python modules, its data files.

Lists them and reads none of the data.  A change in any of them must measure the baseline again.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import yaml
from lm_eval.tasks._yaml_loader import load_yaml

from gate.errors import DataError
from gate.stages import harness_data
from gate.stages.harness_index import YAML_ERRORS
from gate.stages.harness_tasks import Found

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CACHES = frozenset({"__pycache__", ".ipynb_checkpoints"})


def below(folder: Path) -> tuple[Path, ...]:
    """Every file below a folder, caches left out."""
    found = (p for p in sorted(folder.rglob("*")) if not _CACHES & set(p.relative_to(folder).parts))
    return tuple(p for p in found if p.is_file())


def read_for(found: Found) -> tuple[Path, ...]:
    """Every local file that the task, group or tag is made of, in an order that does not depend on the machine.

    Files that Python modules open by themselves are seen only if they lie below `include_path`.
    """
    files: dict[Path, None] = {}
    for entry in found.entries:
        if entry.yaml_path is None:
            continue
        try:
            _add_definition(entry.yaml_path, files)
        except YAML_ERRORS as error:
            raise DataError(f"task {entry.name!r}: {entry.yaml_path} cannot be read: {error}") from error
        files |= dict.fromkeys(p.resolve() for p in harness_data.files(entry.cfg, entry.yaml_path.parent))
    return tuple(files)


def _add_definition(path: Path, files: dict[Path, None]) -> None:
    """Add a YAML file, the modules of its `!function`s, and the same for what it includes."""
    path = path.expanduser().resolve()
    if path in files:
        return
    files[path] = None
    for event in yaml.parse(path.read_bytes(), Loader=_LOADER):
        if isinstance(event, yaml.ScalarEvent) and event.tag == "!function":
            files |= dict.fromkeys(_modules(event.value.rpartition(".")[0], path.parent))
    includes = load_yaml(path, resolve_func=False, recursive=False).get("include") or []
    for included in includes if isinstance(includes, list) else [includes]:
        _add_definition(path.parent / included, files)


def _modules(name: str, folder: Path) -> Iterator[Path]:
    """The module that lm-eval takes a function from, and its neighbours, which it may import."""
    module = (folder / f"{name.replace('.', '/')}.py").resolve()
    if not module.is_file():
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            return  # lm-eval says so when it loads the task
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return
        module = Path(spec.origin).resolve()
    yield module
    yield from sorted(p for p in module.parent.glob("*.py") if p != module)
