"""Judged stages and what was measured → the record of a run, with the figures that stand beside the verdict.

Pure.  Changes no status: a figure that cannot be given is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gate import __version__
from gate.decide import output_length, performance
from gate.errors import CouldNotMeasure
from gate.policy import Policy, ProfileStage
from gate.policy_file import LoadedPolicy
from gate.records import (
    ARTIFACT_VERSION,
    MAX_FLIPS,
    CheckpointRef,
    Environment,
    Flip,
    Measurement,
    OutputLength,
    Performance,
    Quality,
    Role,
    RunRecord,
    StageResult,
    Verdict,
    Waiver,
)

if TYPE_CHECKING:
    from datetime import datetime

_NOT_DESCRIBED = (CouldNotMeasure, ValueError, ArithmeticError, LookupError)
"""What a description may stumble over: a verdict that is there must not be lost for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What the record says besides findings: of whom, where, when and how long."""

    baseline: CheckpointRef | None
    candidate: CheckpointRef | None
    environment: Environment
    created: datetime
    seconds: float
    notes: tuple[str, ...]

    @property
    def refs(self) -> dict[Role, CheckpointRef]:
        """The checkpoints that are known."""
        both = {Role.BASELINE: self.baseline, Role.CANDIDATE: self.candidate}
        return {role: ref for role, ref in both.items() if ref is not None}


def run_record(
    loaded: LoadedPolicy,
    setting: Setting,
    *,
    stages: Sequence[StageResult],
    measurements: Mapping[str, Sequence[Measurement]],
    flips: Sequence[Flip],
    quality: Quality | None,
    verdict: Verdict,
    waivers: Sequence[Waiver],
    exit_code: int,
    unnamed: str,
) -> RunRecord:
    """The record; what it says of speed, memory, cost and lengths of answers is worked out here.

    Args:
        measurements: by stage name.
        waivers: those that were applied.
        unnamed: stands in the run's id for a candidate that is not known.
    """
    identity = unnamed if setting.candidate is None else setting.candidate.effective_digest
    figures, undescribed = _performance(loaded.policy, setting, stages, measurements, quality)
    everything = [m for some in measurements.values() for m in some]
    lengths, uncounted = _lengths(everything, loaded.policy)
    remarks = (*undescribed, *uncounted, *_of_other_length(lengths, loaded.policy))
    return RunRecord(
        artifact_version=ARTIFACT_VERSION,
        run_id=f"{setting.created:%Y%m%dT%H%M%S}-{identity[:8]}-{loaded.digest[:8]}",
        created_at=setting.created.isoformat(timespec="seconds"),
        gate_version=__version__,
        policy_source=loaded.source,
        policy_digest=loaded.digest,
        policy=loaded.policy.model_dump(mode="json", exclude_none=True),
        baseline=setting.baseline,
        candidate=setting.candidate,
        environment=setting.environment,
        stages=tuple(stages),
        flips=tuple(flips)[:MAX_FLIPS],
        quality=quality,
        performance=figures,
        output_lengths=lengths,
        verdict=verdict,
        waivers=tuple(waivers),
        policy_change=None,
        exit_code=exit_code,
        seconds=setting.seconds,
        notes=(*setting.notes, *(r for r in remarks if r not in setting.notes)),
    )


def _performance(
    policy: Policy,
    setting: Setting,
    stages: Sequence[StageResult],
    measurements: Mapping[str, Sequence[Measurement]],
    quality: Quality | None,
) -> tuple[tuple[Performance, ...], list[str]]:
    """Of every profile stage that was measured, and a note for each of which nothing can be said."""
    found: list[Performance] = []
    notes: list[str] = []
    findings = {result.name: result.findings for result in stages}
    for stage in policy.stages:
        by_role = {m.role: m for m in measurements.get(stage.name, ())}
        if not isinstance(stage, ProfileStage) or not by_role:
            continue
        try:
            one = performance.describe(
                stage,
                by_role.get(Role.BASELINE),
                by_role.get(Role.CANDIDATE),
                policy=policy,
                quality=quality,
                environment=setting.environment,
                refs=setting.refs,
                findings=findings.get(stage.name, ()),
            )
        except _NOT_DESCRIBED as problem:
            notes.append(f"{stage.name}: its figures cannot be given: {_said(problem)}")
        else:
            found.append(one)
    return tuple(found), notes


def _lengths(measurements: Sequence[Measurement], policy: Policy) -> tuple[tuple[OutputLength, ...], list[str]]:
    try:
        return output_length.lengths(measurements, policy, policy.confidence), []
    except _NOT_DESCRIBED as problem:
        return (), [f"the lengths of the answers cannot be compared: {_said(problem)}"]


def _of_other_length(lengths: Sequence[OutputLength], policy: Policy) -> Iterator[str]:
    for one in (o for o in lengths if o.outside):
        yield (
            f"{one.source}: the candidate writes {one.ratio:.0%} of the baseline's tokens per answer "
            f"({one.candidate_tokens:.1f} against {one.baseline_tokens:.1f}, n = {one.n}), expected "
            f"{policy.output_length.min} to {policy.output_length.max}: this moves both speed and quality"
        )


def _said(problem: Exception) -> str:
    return str(problem) if isinstance(problem, CouldNotMeasure) else f"{type(problem).__name__}: {problem}"
