"""Small entries for tests of the baseline store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gate.metrics import DOMAIN
from gate.records import Measurement, Observation, Role
from gate.store import Store

PARTS = {
    "digest": "d" * 64,
    "effective_digest": "e" * 64,
    "stage": "domain",
    "source": "fraud",
    "settings_digest": "5" * 64,
    "sample_seed": "7",
    "backend": "fake",
    "environment": "f" * 64,
}
PROVENANCE = {"uri": "bank"}


def measurement(value: float = 1.0, n: int = 2) -> Measurement:
    return Measurement(
        stage="fraud",
        source="fraud",
        role=Role.BASELINE,
        settings_digest=PARTS["settings_digest"],
        n_expected=n,
        n_available=n,
        n_reached=n,
        planned_tokens=0,
        chance=None,
        metrics=(DOMAIN["accuracy"],),
        observations=tuple(
            Observation(metric="correct", item_id=str(i), value=value, weight=1.0, cluster=None, group=None)
            for i in range(n)
        ),
        failures=(),
        answers=(),
        seconds=2.5,
        notes=(),
    )


def keep(store: Store, parts: Mapping[str, str] = PARTS, value: float = 1.0) -> str:
    """Measure and keep; returns the key."""
    key = store.key(parts)
    with store.reserve(key) as slot:
        (slot.artifacts / "sub").mkdir()
        (slot.artifacts / "sub" / "logits.bin").write_bytes(b"x" * 1000)
        slot.commit(measurement(value), PROVENANCE)
    return key


def data_folder(root: Path, key: str) -> Path:
    """Of the only entry under a key."""
    (folder,) = (root / "data").glob(f"{key}.*")
    return folder


def files_of(root: Path) -> list[Path]:
    """Every file of a store."""
    return sorted(p for p in root.rglob("*") if p.is_file())
