"""The noise floors that A/A runs found, kept beside the baseline: what `gate calibrate` writes, plan and judge read.

Keeps and finds; measures nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gate import metrics
from gate.decide.items import ABSOLUTE
from gate.decide.noise import FlipNoise, Noise, TimingNoise, TokenNoise, observed
from gate.decide.outlook import Floors
from gate.policy import DomainStage, LmEvalStage, ProfileStage, Stage, split
from gate.records import Estimand, Observation, Rule, Severity
from gate.stages import VERSIONS
from gate.store import Store, stage_digest

_KINDS: Mapping[str, type[Noise]] = {"flips": FlipNoise, "tokens": TokenNoise, "timing": TimingNoise}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_SCORED_LATER = ("text_metrics", "judge")
"""Settings of what is made of the answers, which change none of them."""
_NOT_TIMED = ("blocks", "looks", "context_tokens", "memory_budget")
"""Settings that change how often something is timed, or nothing that is timed."""


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
        batch_size: of the second run; None where both are timed side by side.
    """

    batch_size: int | None
    noises: tuple[Noise, ...]


def keep(store: Store, place: Place, source: str, settings: Stage, found: Calibrated) -> None:
    """Keep the noise of one source; an earlier one is replaced.

    Args:
        settings: of the stage, cut down to this source (`policy.split`).

    Raises:
        ArtifactError: the store cannot be written.
    """
    noises = [{"kind": _NAMES[type(noise)], **asdict(noise)} for noise in found.noises]
    store.put_calibration(_parts(place, source, settings), {"batch_size": found.batch_size, "noises": noises})


def load(store: Store, place: Place, stages: Sequence[Stage]) -> Mapping[tuple[str, str], Calibrated]:
    """(stage name, source) → its noise, for the sources calibrated at this place with these settings and this data.

    Data of the team's own counts by its content where the file is there; what an lm-eval task reads does not count.
    """
    found = {}
    for stage in stages:
        for source, settings in split(stage):
            data = store.get_calibration(_parts(place, source, settings))
            if data is not None:
                found[stage.name, source] = _calibrated(data)
    return found


def load_floors(store: Store, place: Place, stages: Sequence[Stage], rules: Sequence[Rule]) -> Floors:
    """The share of a source's answers that change when nothing did: the largest of the metrics under a rule.

    Only rules that compare with the baseline count; sources that were not calibrated are absent, and so are corpora
    (their noise is no flip rate).
    """
    floors: dict[tuple[str, str], float] = {}
    for (stage, source), calibrated in load(store, place, stages).items():
        judged = {r.metric for r in rules if (r.stage, r.source) == (stage, source) and r.bound.kind not in ABSOLUTE}
        rates = [n.flip_rate for n in calibrated.noises if isinstance(n, FlipNoise) and n.metric in judged]
        if rates:
            floors[stage, source] = max(rates)
    return floors


def missing(store: Store, place: Place, stages: Sequence[Stage], rules: Sequence[Rule]) -> tuple[str, ...]:
    """Sources that were not calibrated although a blocking rule compares their item scores with the baseline's."""
    there, kinds = load(store, place, stages), {stage.name: stage for stage in stages}
    return tuple(
        dict.fromkeys(
            r.source
            for r in rules
            if r.severity is Severity.BLOCKING
            and r.bound.kind not in ABSOLUTE
            and (r.stage, r.source) not in there
            and _of_items(kinds.get(r.stage), r.metric)
        )
    )


def of_processes(store: Store, place: Place, stages: Sequence[Stage]) -> Mapping[str, tuple[Observation, ...]]:
    """Stage name → how much processes differ, for the baseline's measurement; of calibrated profile stages."""
    timed = [stage for stage in stages if isinstance(stage, ProfileStage)]
    return {stage: observed(found.noises) for (stage, _), found in load(store, place, timed).items()}


def untimed(store: Store, place: Place, stages: Sequence[Stage], rules: Sequence[Rule]) -> tuple[str, ...]:
    """Profile stages of which it is not known how much processes differ, though a blocking rule compares timings."""
    known = of_processes(store, place, stages)
    names = {stage.name for stage in stages if isinstance(stage, ProfileStage)} - known.keys()
    return tuple(
        dict.fromkeys(
            r.stage
            for r in rules
            if r.stage in names
            and r.severity is Severity.BLOCKING
            and r.bound.kind not in ABSOLUTE
            and metrics.PROFILE[r.metric].estimand is Estimand.TIMING
        )
    )


def unknown(store: Store, place: Place, stages: Sequence[Stage], rules: Sequence[Rule]) -> tuple[str, ...]:
    """A sentence for what was not calibrated and is judged all the same."""
    said = []
    if sources := missing(store, place, stages, rules):
        said.append(
            f"the noise floor of {', '.join(sources)} was not measured: even the same model changes some answers when "
            "batch size or kernels change; gate calibrate measures it"
        )
    if timed := untimed(store, place, stages, rules):
        said.append(
            f"how much the timing of {', '.join(timed)} differs between processes was not measured: its intervals "
            "hold for the processes of this run; gate calibrate measures it"
        )
    return tuple(said)


def _of_items(stage: Stage | None, metric: str) -> bool:
    """Whether the metric is a mean over items; of an lm-eval task it is taken to be, which only the task knows."""
    if isinstance(stage, DomainStage):
        return metrics.DOMAIN[metric].estimand is Estimand.ITEM_MEAN
    return isinstance(stage, LmEvalStage)


def _parts(place: Place, source: str, settings: Stage) -> dict[str, str]:
    # Without what changes no answer: floors are of answers.  A plan may come before the data, a judge never does.
    left_out = _NOT_TIMED if isinstance(settings, ProfileStage) else _SCORED_LATER
    asked = settings.model_dump(mode="json", exclude=set(left_out))
    data = [place.base / settings.data] if isinstance(settings, DomainStage) else []
    digest = stage_digest(asked, [path for path in data if path.is_file()], VERSIONS[settings.kind], place.base)
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
        batch_size=data["batch_size"],
        noises=tuple(_KINDS[noise.pop("kind")](**noise) for noise in noises),
    )
