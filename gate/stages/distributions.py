"""Compact next-token distributions of the baseline on disk: written once, read for every candidate.

Knows nothing of models, corpora or metrics.  Per scored token one fixed-size row: the k most likely ids with their
log-probabilities, the probability left over (tail mass) and the true token's log-probability.

Precision: log-probabilities are float32, as backends return them, so storing loses nothing and a model compared with
itself has a divergence of exactly 0.  float16 would save a quarter of the space; on 12,700 tokens of the demo model it
gave identical models a mean KL of 1.6e-5 nats (single tokens up to 6e-4), more than an 8-bit copy's true 4.7e-6.
At k = 256 a token takes 2,056 bytes: 64,000 tokens are 132 MB.

Layout: `rows.bin` and `manifest.json` in one folder, which appears under its name only when complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gate.errors import ArtifactError, CouldNotMeasure
from gate.stages.divergence import tail_mass

FORMAT = 1
_ROWS, _MANIFEST = "rows.bin", "manifest.json"


def row_type(k: int) -> np.dtype[np.void]:
    """Little-endian layout of one token's row."""
    fields: list[Any] = [("ids", "<i4", (k,)), ("logprobs", "<f4", (k,)), ("tail", "<f4"), ("true_logprob", "<f4")]
    return np.dtype(fields)


def largest_k(max_bytes: int, n_tokens: int) -> int:
    """How many log-probabilities per token keep the rows of `n_tokens` within `max_bytes`; 0 if not even one does."""
    per_token, fixed = row_type(1).itemsize - row_type(0).itemsize, row_type(0).itemsize
    return max(0, (max_bytes // max(n_tokens, 1) - fixed) // per_token)


class Writer:
    """Streams rows to `folder`.  As a context manager it drops what it wrote unless `finish` was reached."""

    def __init__(self, folder: Path, *, k: int, settings_digest: str) -> None:
        self._folder = folder
        self._partial = folder.with_name(folder.name + ".partial")
        self._settings_digest = settings_digest
        self._type = row_type(k)
        self._k = k
        self._written = 0
        self._max_id = -1
        self._digest = hashlib.sha256()
        self._units: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._file = (self._partial / _ROWS).open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, ids: NDArray[np.int32], logprobs: NDArray[np.float32], true_logprobs: NDArray[np.float64]) -> None:
        """Write the next tokens: ids and logprobs [n, k], true_logprobs [n]."""
        rows = np.empty(len(ids), dtype=self._type)
        rows["ids"], rows["logprobs"] = ids, logprobs
        rows["tail"], rows["true_logprob"] = tail_mass(logprobs), true_logprobs
        data = rows.tobytes()
        try:
            self._file.write(data)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._digest.update(data)
        self._written += len(rows)
        self._max_id = max(self._max_id, int(ids.max(initial=-1)))

    def close_unit(self, key: str, n_tokens: int) -> None:
        """The last `n_tokens` rows are the tokens of `key`.  Rows that no unit claims are never read."""
        self._units[key] = (self._written - n_tokens, n_tokens)

    def finish(self) -> None:
        """Make the folder appear, complete, replacing an earlier one."""
        manifest = {
            "format": FORMAT,
            "settings_digest": self._settings_digest,
            "k": self._k,
            "dtype": "float32",
            "n_rows": self._written,
            "max_id": self._max_id,
            "rows_sha256": self._digest.hexdigest(),
            "units": self._units,
        }
        try:
            self._file.close()
            (self._partial / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
            if self._folder.exists():
                shutil.rmtree(self._folder)
            self._partial.replace(self._folder)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> CouldNotMeasure:
        return CouldNotMeasure(
            f"{self._folder}: the baseline's distributions cannot be written ({error}); free some space or set top_k: 0"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """Rows of a finished folder, memory-mapped.  `max_id` is the largest token id among them."""

    rows: NDArray[np.void]
    units: Mapping[str, tuple[int, int]]
    k: int
    max_id: int

    def unit(self, key: str, n_tokens: int) -> NDArray[np.void] | None:
        """Rows of `key`, or None when the baseline has none of exactly that length."""
        offset, length = self.units.get(key, (0, -1))
        return self.rows[offset : offset + length] if length == n_tokens else None


def read(folder: Path, *, settings_digest: str) -> Reader:
    """Open what a `Writer` finished.

    Raises:
        ArtifactError: nothing there, of other settings, or not what was written.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        found = (manifest["format"], manifest["settings_digest"])
        if found != (FORMAT, settings_digest):
            raise ArtifactError(
                f"{folder}: found format and settings {found!r}, expected {(FORMAT, settings_digest)!r}"
            )
        with (folder / _ROWS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != manifest["rows_sha256"]:
            raise ArtifactError(f"{folder / _ROWS}: found SHA-256 {digest}, expected {manifest['rows_sha256']}")
        layout, n_rows = row_type(manifest["k"]), manifest["n_rows"]
        # copy-on-write, since torch warns of read-only arrays; an empty file cannot be mapped
        rows = np.memmap(folder / _ROWS, dtype=layout, mode="c", shape=(n_rows,)) if n_rows else np.empty(0, layout)
        units = {key: (int(offset), int(length)) for key, (offset, length) in manifest["units"].items()}
        return Reader(rows=rows, units=units, k=int(manifest["k"]), max_id=int(manifest["max_id"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder}: the baseline's distributions cannot be read ({error!r})") from error
