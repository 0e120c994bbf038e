"""The manifests of a store: which measurements there are under which key, and which of them is the baseline.

Writes manifests and never changes one: what takes another's place is the next generation under the same key.
"""

from __future__ import annotations

from collections.abc import Mapping

from gate.store import manifest as manifests
from gate.store.bucket import GuardedBucket
from gate.store.manifest import Entry, Manifest

_ATTEMPTS = 8


class Shelf:
    """Entries by key.  Every method raises Unavailable when the store does not answer."""

    def __init__(self, bucket: GuardedBucket, signing_key: bytes | None) -> None:
        self._bucket = bucket
        self._signing_key = signing_key

    def top(self, key: str) -> Entry | None:
        """The entry that counts, however broken: an older one must not come back unasked.  None: there is none."""
        for _ in range(_ATTEMPTS):
            found = self._names(f"entries/{key}")
            if not found:
                return None
            last = max(found)
            for entry in self._read({last: found[last]}):
                return entry
        return None  # pruned in every moment in which it was looked at

    def of(self, key: str) -> tuple[Entry, ...]:
        """All generations of a key, the first one first, then its proposals, the oldest first."""
        return self._read({**self._names(f"entries/{key}"), **self._names(f"proposed/{key}")})

    def all(self) -> tuple[Entry, ...]:
        """Everything there is, in the order of `of` for every key."""
        found = self._read({**self._names("entries"), **self._names("proposed")})
        return tuple(sorted(found, key=lambda e: e.key))  # a stable sort: the order within a key remains

    def is_there(self, entry: Entry) -> bool:
        return entry.name in self._bucket.names(entry.name.rpartition("/")[0])

    def add(self, manifest: Manifest) -> Entry:
        """Publish under the manifest's own name.  Raises FileExistsError when that is taken."""
        raw = manifests.dumps(manifest, self._signing_key)
        self._bucket.create(manifest.name, raw)
        return manifests.entry(manifest.name, raw, self._signing_key)

    def remove(self, entry: Entry) -> None:
        """Take a manifest away; one that is gone already is no problem."""
        try:
            self._bucket.delete(entry.name)
        except FileNotFoundError:
            return

    def _names(self, under: str) -> dict[str, int]:
        return {name: size for name, size in self._bucket.names(under).items() if manifests.is_name(name)}

    def _read(self, names: Mapping[str, int]) -> tuple[Entry, ...]:
        small = [name for name, size in names.items() if size <= manifests.MAX_BYTES]
        raw = {**dict.fromkeys(names.keys() - set(small), b""), **self._bucket.read_some(small)}
        return tuple(manifests.entry(name, raw[name], self._signing_key) for name in sorted(raw))
