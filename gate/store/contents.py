"""The files of an entry on this machine: in place or downloaded, and compared with their checksums before every use.

Trusts nothing that it did not hash itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from gate.errors import ArtifactError
from gate.store.bucket import GuardedBucket
from gate.store.key import sha256
from gate.store.manifest import ARTIFACTS, FileFacts, Manifest
from gate.store.workspace import Workspace


class Contents:
    """Brings an entry's files here.  Raises Unavailable when the store does not answer."""

    def __init__(self, bucket: GuardedBucket, workspace: Workspace) -> None:
        self._bucket = bucket
        self._workspace = workspace

    def folder(self, manifest: Manifest) -> Path:
        """Where its files are, or will be."""
        if self._bucket.folder is not None:
            return self._bucket.folder / "data" / manifest.content
        return self._workspace.copies / manifest.content

    def bring(self, manifest: Manifest, *, artifacts: bool) -> Path:
        """Its folder, every file in it as it was written; without artifacts only the measurement counts.

        Raises:
            ArtifactError: a file is missing, was changed, or is one too many; or there is no room for a copy.
        """
        wanted = {n: f for n, f in manifest.files.items() if artifacts or not n.startswith(f"{ARTIFACTS}/")}
        folder = self.folder(manifest)
        if self._bucket.folder is not None:
            self._check(manifest, wanted)
            return folder
        try:
            for name, facts in wanted.items():
                self._copy(manifest.content, name, facts, folder / PurePosixPath(name))
        except FileNotFoundError as problem:
            raise ArtifactError("a file is missing") from problem
        except OSError as problem:
            raise ArtifactError(f"cannot be copied to {folder}: {problem.strerror}") from problem
        return folder

    def check(self, manifest: Manifest) -> None:
        """Compare every file in the store itself with its checksum.  Raises as `bring`."""
        self._check(manifest, manifest.files)

    def add(self, manifest: Manifest, source: Path) -> None:
        """Copy its files in from a local folder; nobody sees them before the manifest is published.

        Raises:
            ArtifactError: what has arrived is not of the same size.
        """
        for name, facts in manifest.files.items():
            self._bucket.put(source / PurePosixPath(name), f"data/{manifest.content}/{name}", facts.n_bytes)
        self._sizes(manifest, manifest.files)

    def remove(self, content: str) -> None:
        """Take files away; those that are gone already are no problem."""
        for name in self._bucket.names(f"data/{content}"):
            try:
                self._bucket.delete(name)
            except FileNotFoundError:
                continue

    def _check(self, manifest: Manifest, wanted: Mapping[str, FileFacts]) -> None:
        self._sizes(manifest, wanted)
        for name, facts in wanted.items():
            try:
                found = self._bucket.sha256(f"data/{manifest.content}/{name}", facts.n_bytes)
            except FileNotFoundError as problem:
                raise ArtifactError(f"{name} is missing") from problem
            if found != facts.sha256:
                raise ArtifactError(f"{name} does not match its checksum")

    def _sizes(self, manifest: Manifest, wanted: Mapping[str, FileFacts]) -> None:
        start = f"data/{manifest.content}/"
        found = {name.removeprefix(start): size for name, size in self._bucket.names(start.rstrip("/")).items()}
        strange = sorted(found.keys() - manifest.files.keys())
        if strange:
            raise ArtifactError(f"{strange[0]} does not belong to it")
        for name, facts in wanted.items():
            if name not in found:
                raise ArtifactError(f"{name} is missing")
            if found[name] != facts.n_bytes:
                raise ArtifactError(f"{name} has {found[name]:,} bytes, expected {facts.n_bytes:,}")

    def _copy(self, content: str, name: str, facts: FileFacts, target: Path) -> None:
        """Download unless a good copy is there."""
        if target.is_file() and target.stat().st_size == facts.n_bytes and sha256(target) == facts.sha256:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._workspace.slot("copy") as scratch:
            self._bucket.fetch(f"data/{content}/{name}", scratch / "file", facts.n_bytes)
            if sha256(scratch / "file") != facts.sha256:
                raise ArtifactError(f"{name} does not match its checksum")
            (scratch / "file").replace(target)
