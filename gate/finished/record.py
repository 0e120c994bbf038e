"""Judged stages → the record of a decision that ran no model.

Combines what is given; reads no files and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gate.decide import combine, overall
from gate.decide.run_record import Setting, run_record
from gate.decide.terms import Terms
from gate.errors import ExitCode
from gate.pipeline import Outcome
from gate.policy_file import LoadedPolicy
from gate.records import Quality, RunRecord, Status, Verdict
from gate.reports import sentence
from gate.stage_run import StageRun, unmeasured


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
    measurements = {r.result.name: list(r.measurements) for r in runs if r.measurements}
    record = run_record(
        loaded,
        setting,
        stages=[r.result for r in runs],
        measurements=measurements,
        flips=[flip for r in runs for flip in r.flips],
        quality=quality,
        verdict=verdict,
        exit_code=exit_code,
        unnamed="finished",
    )
    return Outcome(record=record, measurements=measurements)
