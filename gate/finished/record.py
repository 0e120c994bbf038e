"""Judged stages → the record of a decision that ran no model.

Combines what is given; reads no files and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gate import __version__
from gate.decide import combine, overall
from gate.decide.terms import Terms
from gate.errors import ExitCode
from gate.pipeline import MAX_FLIPS, Outcome
from gate.policy_file import LoadedPolicy
from gate.records import (
    ARTIFACT_VERSION,
    CheckpointRef,
    Environment,
    Quality,
    RunRecord,
    Status,
    Verdict,
)
from gate.reports import sentence
from gate.stage_run import StageRun, unmeasured


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What the record says besides findings: of whom, where, when and how long."""

    baseline: CheckpointRef | None
    candidate: CheckpointRef | None
    environment: Environment
    created: datetime
    seconds: float
    notes: tuple[str, ...]


def outcome(
    loaded: LoadedPolicy, runs: Sequence[StageRun], unasked: Sequence[str], setting: Setting, terms: Terms
) -> Outcome:
    """The record of judged stages, in the policy's order.

    `unasked` names stages that this kind of evidence cannot answer: they are in the record, SKIPPED, and the verdict
    covers the others, which its sentence says.  Every other stage of the policy counts.
    """
    planned = tuple(r for r in loaded.rules if r.stage not in unasked)
    results = overall.stepped_down([r.result for r in runs], planned, terms.confidence)
    counted = tuple(r for r in results if r.name not in unasked)
    decision = combine.combine(planned, counted, restricted=False)
    found = {f.rule.id: f for s in counted for f in s.findings}
    policy_data = loaded.policy.model_dump(mode="json", exclude_none=True)
    said = sentence.sentence(
        decision.status,
        [found[i] for i in decision.deciding if i in found],
        results,
        policy_data,
        complete=decision.complete,
    )
    if unasked:
        said += f" Not judged: {', '.join(unasked)}."
    exit_code = combine.exit_code(decision.status, loaded.policy.on_inconclusive, complete=decision.complete)
    verdict = Verdict(status=decision.status, deciding=decision.deciding, sentence=said)
    quality, problem = overall.score(planned, [(r.result.kind, r.measurements) for r in runs], terms)
    if problem is not None:
        setting = replace(setting, notes=(*setting.notes, problem))
    runs = [replace(r, result=result) for r, result in zip(runs, results, strict=True)]
    return _outcome(loaded, runs, setting, verdict, exit_code, quality)


def unchanged(loaded: LoadedPolicy, setting: Setting, before: RunRecord) -> Outcome:
    """The record of a run that had ended before anything was measured: no policy changes its verdict."""
    said = f"run {before.run_id} ended before anything was measured"
    skipped = [unmeasured(s, Status.SKIPPED, (), skipped_because=said) for s in loaded.policy.stages]
    runs = [StageRun(result=r, measurements=(), flips=()) for r in skipped]
    verdict = Verdict(status=before.verdict.status, deciding=(), sentence=before.verdict.sentence)
    code = ExitCode.REFUSED if before.verdict.status is Status.REFUSED else ExitCode.ERROR
    return _outcome(loaded, runs, setting, verdict, int(code), None)


def ended_before_measuring(record: RunRecord) -> bool:
    """Whether the run was refused, or no stage of it was reached for an error."""
    if record.verdict.status is Status.REFUSED:
        return True
    return record.verdict.status is Status.ERROR and all(s.status is Status.SKIPPED for s in record.stages)


def _outcome(
    loaded: LoadedPolicy,
    runs: Sequence[StageRun],
    setting: Setting,
    verdict: Verdict,
    exit_code: int,
    quality: Quality | None,
) -> Outcome:
    identity = setting.candidate.effective_digest if setting.candidate is not None else "finished"
    record = RunRecord(
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
        stages=tuple(r.result for r in runs),
        flips=tuple(flip for r in runs for flip in r.flips)[:MAX_FLIPS],
        quality=quality,
        verdict=verdict,
        exit_code=exit_code,
        seconds=setting.seconds,
        notes=setting.notes,
    )
    return Outcome(record=record, measurements={r.result.name: list(r.measurements) for r in runs if r.measurements})
