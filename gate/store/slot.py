"""A place to measure into: a private folder whose content becomes an entry of the store, whole, or vanishes.

Decides nothing about what is kept; `Store` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gate.artifact import write_observations
from gate.errors import ArtifactError
from gate.records import Measurement, Role
from gate.store.key import sha256
from gate.store.log import stamp
from gate.store.manifest import ARTIFACTS, DATA, VERSION, Entry, FileFacts, Manifest

if TYPE_CHECKING:
    from gate.store.store import Store, StoredMeasurement


class Slot:
    """Fill `artifacts`, then `commit` or `propose` once.  They stay where they are until the slot is left.

    Attributes:
        unkept: why nothing can be kept from here, None if it can.
    """

    def __init__(self, store: Store, key: str, parts: Mapping[str, str], folder: Path, unkept: str | None) -> None:
        self._store = store
        self._key = key
        self._parts = parts
        self._folder = folder
        self.unkept = unkept
        self.artifacts = folder / ARTIFACTS

    def commit(self, measurement: Measurement, provenance: Mapping[str, Any]) -> StoredMeasurement:
        """Make the measurement and its artifacts the baseline of their key, unless there is one: the first one stays.

        Returns what is kept, ours or the other.

        Raises:
            ValueError: not a baseline's measurement.
            ArtifactError: it cannot be written, or what was written cannot be read back.
        """
        manifest = self._written(measurement, provenance)
        return self._store.publish(manifest, self._folder)

    def propose(self, measurement: Measurement, provenance: Mapping[str, Any]) -> Entry:
        """Keep the measurement beside the baseline of its key, for somebody to promote.  Raises as `commit`."""
        manifest = self._written(measurement, provenance)
        return self._store.propose(manifest, self._folder)

    def _written(self, measurement: Measurement, provenance: Mapping[str, Any]) -> Manifest:
        if measurement.role is not Role.BASELINE:
            raise ValueError(f"the store keeps baselines, found a measurement of the {measurement.role}")
        if self.unkept is not None:
            raise ArtifactError(self.unkept)
        now = datetime.now(UTC)
        try:
            write_observations(self._folder / DATA, [measurement])
            files = {name: _facts(path) for name, path in _files(self._folder)}
        except OSError as problem:
            raise ArtifactError(f"cannot write to {self._folder}: {problem.strerror}") from problem
        return Manifest(
            version=VERSION,
            key=self._key,
            generation=None,
            parts=dict(self._parts),
            content=f"{self._key}.{stamp(now)}",
            files=files,
            items=measurement.n_expected,
            seconds=measurement.seconds,
            created_at=now.isoformat(timespec="seconds"),
            provenance=dict(provenance),
            promotion=None,
        )


def _files(folder: Path) -> list[tuple[str, Path]]:
    """(name in the entry, path) of everything measured."""
    return [(p.relative_to(folder).as_posix(), p) for p in sorted(folder.rglob("*")) if p.is_file()]


def _facts(path: Path) -> FileFacts:
    return FileFacts(sha256=sha256(path), n_bytes=path.stat().st_size)
