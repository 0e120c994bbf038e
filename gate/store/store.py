"""The baseline store: measurements by content key, so that a baseline is measured once; and what is known of its noise.

Never trusts an entry: one that does not match its checksums, or its signature, is reported and measured again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.artifact import read_observations
from gate.checkpoint.digests import cache_root
from gate.errors import ArtifactError, UsageError
from gate.records import Measurement
from gate.store.bucket import ANSWER_SECONDS, Unavailable, open_bucket
from gate.store.calibrations import Calibrations
from gate.store.contents import Contents
from gate.store.key import measurement_key
from gate.store.log import Log
from gate.store.manifest import ARTIFACTS, DATA, Entry, Manifest
from gate.store.shelf import Shelf
from gate.store.slot import Slot
from gate.store.workspace import Workspace

ATTEMPTS = 8
"""How often a writer tries to be the next under a key; each failure is another writer's success."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMeasurement:
    """One entry: the measurement, the folder of its bulky by-products, what its key was made of, and its origin.

    `artifacts` is on this machine, checked; there may be no such folder where there are no by-products.
    """

    key: str
    parts: Mapping[str, str]
    measurement: Measurement
    artifacts: Path
    created_at: str
    provenance: Mapping[str, Any]


class Store:
    """Baselines in a folder or behind a URL.  `problems` says what was found broken, each thing once."""

    def __init__(
        self,
        root: Path | str,
        *,
        read_only: bool = False,
        signing_key: bytes | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Open it; nothing is written or read yet.

        Args:
            root: folder or URL.
            read_only: use what is there, keep nothing.
            signing_key: sign what is written, and use nothing that is not signed with it.
            answer_seconds: how long to wait for one answer of the store.

        Raises:
            UsageError: not a folder or URL that can be a store.
            Unavailable: the URL cannot be opened.
        """
        self.problems: list[str] = []
        self.read_only = read_only
        self._parts: dict[str, dict[str, str]] = {}
        self.bucket = open_bucket(root, answer_seconds=answer_seconds)
        self.place = self.bucket.place
        self.workspace = Workspace(self._scratch())
        self.shelf = Shelf(self.bucket, signing_key)
        self.contents = Contents(self.bucket, self.workspace)
        self.log = Log(self.bucket, signing_key)
        self.calibrations = Calibrations(self.bucket, signing_key)

    def _scratch(self) -> Path:
        """What is measured in a folder's own `tmp` need not be copied into it."""
        if self.bucket.folder is not None and not self.read_only:
            return self.bucket.folder
        return cache_root() / "stores" / hashlib.sha256(self.place.encode()).hexdigest()[:16]

    # -- before anything is paid for --------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raises UsageError now rather than after a model was loaded; drops what killed processes left behind."""
        if self.read_only:
            raise UsageError(
                f"{self._only_read()} (--store-read-only or QUANTGATE_STORE_READONLY), and this command writes to it"
            )
        try:
            self.bucket.probe()
        except (Unavailable, OSError) as problem:
            raise UsageError(
                f"{self._failed(problem)}. It cannot be written: name another one with --store or QUANTGATE_STORE, or "
                "use it as it is with --store-read-only"
            ) from problem
        self.workspace.sweep()

    def check_readable(self) -> None:
        """Raises UsageError when it does not answer."""
        try:
            self.bucket.names("entries/none")
        except (Unavailable, OSError) as problem:
            raise UsageError(
                f"{self._failed(problem)}. It cannot be read: name another one with --store or QUANTGATE_STORE"
            ) from problem

    # -- measurements -------------------------------------------------------------------------------------------

    def key(self, parts: Mapping[str, str]) -> str:
        """Hex SHA-256 over everything that can change the measurement.

        Raises:
            ValueError: a part is missing, or it is a timing.
        """
        key = measurement_key(parts)
        self._parts[key] = dict(parts)
        return key

    def get(self, key: str) -> StoredMeasurement | None:
        """The entry if it is there and intact, its artifacts included; one that must not be used is noted."""
        try:
            entry = self.shelf.top(key)
            return None if entry is None else self._intact(entry)
        except Unavailable as problem:
            self._note(f"stored baseline measurements were not used: {problem}")
            return None

    def open(self, entry: Entry, *, artifacts: bool) -> StoredMeasurement:
        """Read one entry; without artifacts, these are not looked at.

        Raises:
            ArtifactError: it must not be used, or the store does not answer.
        """
        if entry.manifest is None or entry.problem is not None:
            raise ArtifactError(str(entry.problem))
        self.workspace.hold(entry.manifest.content)  # before looking, so that what is seen cannot be pruned
        return _stored(entry.manifest, self.contents.bring(entry.manifest, artifacts=artifacts))

    @contextmanager
    def reserve(self, key: str) -> Iterator[Slot]:
        """A private folder to measure into; it vanishes at the end, whatever was not committed with it.

        Where the store cannot be written the folder is elsewhere, and nothing can be kept.
        """
        if key not in self._parts:
            raise ValueError(f"found key {key!r}, expected one made by this store's key()")
        unkept = self._only_read() if self.read_only else None
        with ExitStack() as stack:
            try:
                self.bucket.answers()
                folder = stack.enter_context(self.workspace.slot(key))
                (folder / ARTIFACTS).mkdir()
            except (Unavailable, OSError) as problem:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantgate-")))
                (folder / ARTIFACTS).mkdir()
                if self.workspace.folder == self.bucket.folder:
                    unkept = self._failed(problem)
            yield Slot(self, key, self._parts[key], folder, unkept)

    def list(self) -> tuple[Entry, ...]:
        """The baselines that may be used, oldest first; their files are not looked at.  Raises Unavailable."""
        usable = (entry for entry in current(self.shelf.all()) if entry.problem is None)
        return tuple(sorted(usable, key=lambda e: (e.created_at, e.key)))

    def publish(self, manifest: Manifest, folder: Path) -> StoredMeasurement:
        """Make the files of a slot the baseline of their key unless an intact one is there; see `Slot.commit`."""
        self._upload(manifest, folder)
        for _ in range(ATTEMPTS):
            top = self.shelf.top(manifest.key)
            kept = None if top is None else self._intact(top)
            if kept is not None:
                self.contents.remove(manifest.content)
                return kept
            if self._added(manifest.model_copy(update={"generation": following(top)})) is not None:
                return _stored(manifest, folder)
        raise ArtifactError(f"{self.place}: others kept writing {manifest.name}: try again")

    def propose(self, manifest: Manifest, folder: Path) -> Entry:
        """Keep the files of a slot as a proposal; see `Slot.propose`."""
        self._upload(manifest, folder)
        entry = self._added(manifest)
        if entry is None:
            raise ArtifactError(f"{self.place}: {manifest.name} is there already: try again")
        return entry

    def _intact(self, entry: Entry) -> StoredMeasurement | None:
        """None, and a note, if it must not be used; None alone if it was pruned in this moment."""
        try:
            found = self.open(entry, artifacts=True)
            if self.shelf.is_there(entry):
                return found
        except Unavailable:
            raise
        except ArtifactError as problem:
            if self.shelf.is_there(entry):
                self._note(f"a stored baseline measurement was not used: {entry.name} {problem}")
        return None

    def _upload(self, manifest: Manifest, folder: Path) -> None:
        try:
            self.contents.add(manifest, folder)
        except (ArtifactError, OSError) as problem:
            with suppress(ArtifactError, OSError):
                self.contents.remove(manifest.content)
            raise ArtifactError(self._failed(problem)) from problem

    def _added(self, manifest: Manifest) -> Entry | None:
        """None where another writer was first.  What cannot be published is pruned one day."""
        try:
            return self.shelf.add(manifest)
        except FileExistsError:
            return None
        except OSError as problem:
            raise ArtifactError(self._failed(problem)) from problem

    # -- noise --------------------------------------------------------------------------------------------------

    def put_calibration(self, parts: Mapping[str, str], data: Mapping[str, Any]) -> None:
        """Keep what an A/A run found; the latest one counts.

        Args:
            parts: everything that can change it, `CALIBRATION_REQUIRED` at least.
            data: plain JSON data.

        Raises:
            ValueError: a part is missing.
            ArtifactError: it cannot be written.
        """
        if self.read_only:
            raise ArtifactError(self._only_read())
        try:
            self.calibrations.put(parts, data)
        except OSError as problem:
            raise ArtifactError(self._failed(problem)) from problem

    def get_calibration(self, parts: Mapping[str, str]) -> Mapping[str, Any] | None:
        """What was kept under the same parts, if it is there and intact; a broken one is noted and not used.

        Raises:
            ValueError: a part is missing.
        """
        try:
            return self.calibrations.get(parts)
        except ArtifactError as problem:
            self._note(f"a stored calibration was not used: {problem}")
            return None

    # -- what is said -------------------------------------------------------------------------------------------

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _only_read(self) -> str:
        return f"the baseline store {self.place} is read-only here"

    def _failed(self, problem: ArtifactError | OSError) -> str:
        if isinstance(problem, Unavailable):
            return str(problem)
        return f"the baseline store {self.place} failed: {getattr(problem, 'strerror', None) or problem}"


def current(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Those that count, one a key, of entries in the order of `Shelf.all`."""
    return tuple({entry.key: entry for entry in entries if entry.generation is not None}.values())


def following(top: Entry | None) -> int:
    """The generation after it."""
    return 0 if top is None or top.generation is None else top.generation + 1


def _stored(manifest: Manifest, folder: Path) -> StoredMeasurement:
    """Raises ArtifactError: the measurement cannot be read."""
    (measurement,) = read_observations(folder / DATA)
    return StoredMeasurement(
        key=manifest.key,
        parts=manifest.parts,
        measurement=measurement,
        artifacts=folder / ARTIFACTS,
        created_at=manifest.created_at,
        provenance=manifest.provenance,
    )
