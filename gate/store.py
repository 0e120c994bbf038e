"""The baseline store: measurements by content key, so that a baseline is measured once; and what is known of its noise.

Never trusts an entry: one that does not match its checksums is moved aside and measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gate.artifact import read_observations, sync_folder, write_atomic, write_observations
from gate.checkpoint.digests import cache_root
from gate.errors import ArtifactError, DataError, UsageError
from gate.records import Measurement, Role

ENTRY_VERSION = 1
REQUIRED = frozenset(
    {"digest", "effective_digest", "stage", "source", "settings_digest", "sample_seed", "backend", "environment"}
)
"""Without one of these, two different measurements could share a key."""

CALIBRATION_REQUIRED = frozenset(
    {"effective_digest", "stage", "source", "settings", "backend", "device", "environment"}
)
"""Noise is that of one model on one machine, asked one thing in one way."""

META, DATA, ARTIFACTS = "meta.json", "measurement.parquet", "artifacts"
_IGNORED_SETTINGS = frozenset({"name", "budget"})


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMeasurement:
    """One entry: the measurement, the folder of its bulky by-products, what its key was made of, and its origin."""

    key: str
    parts: Mapping[str, str]
    measurement: Measurement
    artifacts: Path
    created_at: str
    provenance: Mapping[str, Any]


def default_root() -> Path:
    """`$QUANTGATE_STORE`, else in the user's cache.  Raises as `cache_root`."""
    named = os.environ.get("QUANTGATE_STORE")
    if named:
        return Path(named)
    return cache_root() / "store"


def stage_digest(settings: Mapping[str, Any], files: Sequence[Path], version: int, base: Path) -> str:
    """Hex SHA-256 of what a stage measures.

    Args:
        settings: the single-source settings as plain data; names, budgets and rules do not count.
        files: every local file that the scores depend on, in an order that does not depend on the machine.
        version: of the stage's way of scoring.
        base: files below it count with their place, others with their name: a project may move as a whole.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        contents = [(_place(path, base), _sha256(path)) for path in files]
    except OSError as problem:
        raise DataError(f"cannot read {problem.filename!r}, which a stage depends on: {problem.strerror}") from problem
    measured = {name: value for name, value in settings.items() if name not in _IGNORED_SETTINGS}
    return _digest({"settings": _without_rules(measured), "files": contents, "version": version})


class Store:
    """A folder of entries `<root>/<first two digits>/<key>/`.  `problems` says what was found broken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self._parts: dict[str, dict[str, str]] = {}

    def key(self, parts: Mapping[str, str]) -> str:
        """Hex SHA-256 over everything that can change the measurement.  Raises ValueError if a part is missing."""
        missing = sorted(name for name in REQUIRED if not parts.get(name))
        if missing:
            raise ValueError(f"a store key needs {', '.join(missing)}: without it, measurements would be mixed up")
        key = _digest(dict(parts))
        self._parts[key] = dict(parts)
        return key

    def get(self, key: str) -> StoredMeasurement | None:
        """The entry if it is there and intact; a broken one is moved to `<root>/corrupt` and noted."""
        folder = self._folder(key)
        if not folder.is_dir():
            return None
        try:
            return _read(key, folder)
        except ArtifactError as problem:
            self._set_aside(key, folder, str(problem))
            return None

    @contextmanager
    def reserve(self, key: str) -> Iterator[Slot]:
        """A private folder to measure into; it vanishes at the end, whatever was not committed with it.

        Raises:
            UsageError: the store's folder cannot be written.
        """
        if key not in self._parts:
            raise ValueError(f"found key {key!r}, expected one made by this store's key()")
        with self._temporary(key) as temporary:
            (temporary / ARTIFACTS).mkdir()
            yield Slot(self, key, self._parts[key], temporary)

    def check_writable(self) -> None:
        """Raises UsageError now rather than after a model was loaded."""
        with self._temporary("probe") as temporary:
            (temporary / "probe").write_bytes(b"")

    @contextmanager
    def _temporary(self, name: str) -> Iterator[Path]:
        folder = self.root / "tmp" / f"{name}.{os.getpid()}-{secrets.token_hex(4)}"
        try:
            folder.mkdir(parents=True)
        except OSError as problem:
            raise UsageError(
                f"the baseline store {self.root} cannot be written ({problem.strerror}): "
                "name another folder with --store or QUANTGATE_STORE"
            ) from problem
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def list(self) -> tuple[StoredMeasurement, ...]:
        """All intact entries, oldest first."""
        keys = (path.name for path in self.root.glob("[0-9a-f][0-9a-f]/*") if path.is_dir())
        found = (self.get(key) for key in sorted(keys))
        return tuple(sorted((e for e in found if e is not None), key=lambda e: (e.created_at, e.key)))

    def put_calibration(self, parts: Mapping[str, str], data: Mapping[str, Any]) -> None:
        """Keep what an A/A run found; the latest one counts.

        Args:
            parts: everything that can change it, `CALIBRATION_REQUIRED` at least.
            data: plain JSON data.

        Raises:
            ValueError: a part is missing.
            ArtifactError: it cannot be written.
        """
        path = self._calibration(parts)
        kept = {"version": ENTRY_VERSION, "parts": dict(parts), "data": dict(data)}
        kept["checksum"] = _digest(kept)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(kept, indent=1, sort_keys=True).encode())
        except OSError as problem:
            raise ArtifactError(f"cannot write to the baseline store {self.root}: {problem}") from problem

    def get_calibration(self, parts: Mapping[str, str]) -> Mapping[str, Any] | None:
        """What was kept under the same parts, if it is there and intact; a broken one is noted and not used.

        Raises:
            ValueError: a part is missing.
        """
        path = self._calibration(parts)
        try:
            kept = json.loads(path.read_bytes())
            checksum = kept.pop("checksum")
            if checksum == _digest(kept) and kept["version"] == ENTRY_VERSION and kept["parts"] == dict(parts):
                data: Mapping[str, Any] = kept["data"]
                return data
            why = "it does not match its checksum, its key or this version"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            why = repr(problem)
        self.problems.append(f"a stored calibration was not used ({path}: {why}): run gate calibrate again")
        return None

    def _calibration(self, parts: Mapping[str, str]) -> Path:
        missing = sorted(name for name in CALIBRATION_REQUIRED if not parts.get(name))
        if missing:
            raise ValueError(f"a calibration's key needs {', '.join(missing)}: without it, noise would be mixed up")
        return self.root / "calibration" / f"{_digest(dict(parts))}.json"

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key

    def _set_aside(self, key: str, folder: Path, why: str) -> None:
        target = self.root / "corrupt" / f"{key}.{secrets.token_hex(4)}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            where = f"moved to {target}"
        except FileNotFoundError:
            where = "has been moved aside by another process"
        except OSError as problem:
            where = f"could not be moved aside ({problem.strerror})"
        self.problems.append(f"a stored baseline measurement was not used and {where}: {why}")

    def _publish(self, key: str, temporary: Path) -> StoredMeasurement:
        """Give a finished folder its final name; the first writer wins and the others read its entry."""
        folder = self._folder(key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            try:
                temporary.rename(folder)
                sync_folder(folder.parent)
            except OSError:
                if not folder.is_dir():
                    raise
            kept = self.get(key)  # a corrupt entry in the way has been moved aside by now: try again
            if kept is not None:
                return kept
        raise ArtifactError(f"could not store a measurement at {folder}: check the disk that holds the baseline store")


class Slot:
    """A reserved place: fill `artifacts`, then `commit` once."""

    def __init__(self, store: Store, key: str, parts: Mapping[str, str], folder: Path) -> None:
        self._store = store
        self._key = key
        self._parts = parts
        self._folder = folder
        self.artifacts = folder / ARTIFACTS

    def commit(self, measurement: Measurement, provenance: Mapping[str, Any]) -> StoredMeasurement:
        """Make the measurement and its artifacts visible, whole, and return them as they are kept.

        Raises:
            ValueError: not a baseline's measurement.
            ArtifactError: it cannot be written, or what was written cannot be read back.
        """
        if measurement.role is not Role.BASELINE:
            raise ValueError(f"the store keeps baselines, found a measurement of the {measurement.role}")
        try:
            self._write(measurement, provenance)
            return self._store._publish(self._key, self._folder)
        except OSError as problem:
            raise ArtifactError(f"cannot write to the baseline store {self._store.root}: {problem}") from problem

    def _write(self, measurement: Measurement, provenance: Mapping[str, Any]) -> None:
        write_observations(self._folder / DATA, [measurement])
        for path in _contents(self._folder):
            _sync(path)
        meta = {
            "version": ENTRY_VERSION,
            "parts": dict(self._parts),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {p.relative_to(self._folder).as_posix(): _sha256(p) for p in _contents(self._folder)},
            "provenance": dict(provenance),
        }
        meta["checksum"] = _digest(meta)
        write_atomic(self._folder / META, json.dumps(meta, indent=1, sort_keys=True).encode())


def _read(key: str, folder: Path) -> StoredMeasurement:
    try:
        meta = json.loads((folder / META).read_bytes())
        expected = meta["files"]
        if meta.pop("checksum") != _digest(meta):
            raise ArtifactError(f"{META} does not match its checksum")
        if meta["version"] != ENTRY_VERSION or _digest(meta["parts"]) != key:
            raise ArtifactError(
                f"version {meta['version']!r} of {meta['parts']!r}, expected version {ENTRY_VERSION} of {key}"
            )
        found = {p.relative_to(folder).as_posix(): _sha256(p) for p in _contents(folder)}
        if found != expected:
            wrong = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
            raise ArtifactError(f"{wrong[0]} does not match its checksum")
        (measurement,) = read_observations(folder / DATA)
        return StoredMeasurement(
            key=key,
            parts=meta["parts"],
            measurement=measurement,
            artifacts=folder / ARTIFACTS,
            created_at=meta["created_at"],
            provenance=meta["provenance"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ArtifactError(f"{folder.name} is incomplete or unreadable ({problem!r})") from problem


def _contents(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != META)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(path: Path, base: Path) -> str:
    """The path from `base` as written, or else with links followed; the name of a file that is not below it."""
    for file, folder in ((path, base), (path.resolve(), base.resolve())):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return path.name


def _digest(value: Any) -> str:
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def _without_rules(value: Any) -> Any:
    """Plain data without any `rules`, at whatever depth (a task carries its own)."""
    if isinstance(value, Mapping):
        return {k: _without_rules(v) for k, v in value.items() if k != "rules"}
    if isinstance(value, list | tuple):
        return [_without_rules(v) for v in value]
    return value
