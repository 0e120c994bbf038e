"""The noise floors that A/A runs found, kept beside the baseline: what `gate calibrate` writes, plan and judge read.

Keeps and finds; measures nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gate.decide.items import ABSOLUTE
from gate.decide.noise import FlipNoise, Noise, TokenNoise
from gate.policy import Stage, split
from gate.records import Rule
from gate.stages import VERSIONS
from gate.store import Store, stage_digest

_KINDS: Mapping[str, type[FlipNoise] | type[TokenNoise]] = {"flips": FlipNoise, "tokens": TokenNoise}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Which model is measured where: noise is that of one checkpoint on one machine.

    Attributes:
        effective_digest: of the baseline (`records.CheckpointRef`).
        environment: fingerprint (`records.Environment`).
        base: folder that the policy's paths are relative to.
    """

    effective_digest: str
    backend: str
    device: str
    environment: str
    base: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """The noise of one source.

    Attributes:
        settings_digest: of the measurements behind it: the same settings on the same data (`Measurement`).
        batch_size: of the second run.
    """

    settings_digest: str
    batch_size: int
    noises: tuple[Noise, ...]


def keep(store: Store, place: Place, source: str, settings: Stage, found: Calibrated) -> None:
    """Keep the noise of one source; an earlier one is replaced.

    Args:
        settings: of the stage, cut down to this source (`policy.split`).

    Raises:
        ArtifactError: the store cannot be written.
    """
    noises = [{"kind": _NAMES[type(noise)], **asdict(noise)} for noise in found.noises]
    data = {"settings_digest": found.settings_digest, "batch_size": found.batch_size, "noises": noises}
    store.put_calibration(_parts(place, source, settings), data)


def load(store: Store, place: Place, stages: Sequence[Stage]) -> Mapping[tuple[str, str], Calibrated]:
    """(stage name, source) → its noise, for the sources that were calibrated with the same settings at this place.

    Data files may have changed since: compare `settings_digest` with a measurement's to be sure.
    """
    found = {}
    for stage in stages:
        for source, settings in split(stage):
            data = store.get_calibration(_parts(place, source, settings))
            if data is not None:
                found[stage.name, source] = _calibrated(data)
    return found


def load_floors(store: Store, place: Place, stages: Sequence[Stage], rules: Sequence[Rule]) -> Mapping[str, float]:
    """Source → f_AA, the share of its answers that change when nothing did: the largest of the metrics under a rule.

    Only rules that compare with the baseline count; sources that were not calibrated are absent, and so are corpora
    (their noise is no flip rate).
    """
    floors: dict[str, float] = {}
    for (stage, source), calibrated in load(store, place, stages).items():
        judged = {r.metric for r in rules if (r.stage, r.source) == (stage, source) and r.bound.kind not in ABSOLUTE}
        rates = [n.flip_rate for n in calibrated.noises if isinstance(n, FlipNoise) and n.metric in judged]
        if rates:
            floors[source] = max(floors.get(source, 0.0), *rates)
    return floors


def _parts(place: Place, source: str, settings: Stage) -> dict[str, str]:
    # Without the data files, which a plan may not have yet: their content is in `Calibrated.settings_digest`.
    digest = stage_digest(settings.model_dump(mode="json"), (), VERSIONS[settings.kind], place.base)
    return {
        "effective_digest": place.effective_digest,
        "stage": settings.kind,
        "source": source,
        "settings": digest,
        "backend": place.backend,
        "device": place.device,
        "environment": place.environment,
    }


def _calibrated(data: Mapping[str, Any]) -> Calibrated:
    noises = [dict(noise) for noise in data["noises"]]
    return Calibrated(
        settings_digest=data["settings_digest"],
        batch_size=data["batch_size"],
        noises=tuple(_KINDS[noise.pop("kind")](**noise) for noise in noises),
    )
