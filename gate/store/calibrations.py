"""What A/A runs found, kept beside the baselines; the latest one counts.

Knows nothing of noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gate.errors import ArtifactError
from gate.store.bucket import GuardedBucket
from gate.store.key import calibration_key
from gate.store.seal import Signature, seal, unseal

_VERSION = 2


class Calibrations:
    """Raises Unavailable when the store does not answer."""

    def __init__(self, bucket: GuardedBucket, signing_key: bytes | None) -> None:
        self._bucket = bucket
        self._signing_key = signing_key

    def put(self, parts: Mapping[str, str], data: Mapping[str, Any]) -> None:
        """Raises ValueError: a part is missing."""
        kept = {"version": _VERSION, "parts": dict(parts), "data": dict(data)}
        self._bucket.replace(_name(calibration_key(parts)), seal(kept, self._signing_key))

    def get(self, parts: Mapping[str, str]) -> Mapping[str, Any] | None:
        """None where there is none.

        Raises:
            ArtifactError: it must not be used, or the store does not answer.
            ValueError: a part is missing.
        """
        name = _name(calibration_key(parts))
        try:
            raw = self._bucket.read(name)
        except FileNotFoundError:
            return None
        try:
            return self._opened(name, raw)
        except ValueError as problem:
            raise ArtifactError(f"{name} {problem}: run gate calibrate again") from problem

    def check(self) -> Mapping[str, tuple[Signature | None, str | None]]:
        """Name → (signature, why it must not be used, None if it may); of all of them."""
        raw = self._bucket.read_some(sorted(self._bucket.names("calibration")))
        return {name: self._checked(name, raw[name]) for name in sorted(raw)}

    def _checked(self, name: str, raw: bytes) -> tuple[Signature | None, str | None]:
        try:
            self._opened(name, raw)
        except ValueError as problem:
            return None, str(problem)
        return unseal(raw, self._signing_key).signature, None

    def _opened(self, name: str, raw: bytes) -> Mapping[str, Any]:
        """Its data.  Raises ValueError if it must not be used."""
        sealed = unseal(raw, self._signing_key)
        found, unusable = sealed.document, sealed.unusable(self._signing_key)
        if unusable is not None:
            raise ValueError(unusable)
        if found.get("version") != _VERSION:
            raise ValueError(f"has version {found.get('version')!r}, expected {_VERSION}")
        parts, data = found.get("parts"), found.get("data")
        if not isinstance(parts, dict) or not isinstance(data, dict) or _name(calibration_key(parts)) != name:
            raise ValueError("is that of another model or machine")
        return data


def _name(key: str) -> str:
    return f"calibration/{key}.json"
