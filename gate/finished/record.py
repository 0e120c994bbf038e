"""Judged stages → the record of a decision that ran no model.

Combines what is given; reads no files and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gate import verdict as verdicts
from gate.decide import overall
from gate.decide.run_record import Setting, run_record
from gate.decide.terms import Terms
from gate.decide.waiver import Standing
from gate.errors import ExitCode
from gate.pipeline import Outcome
from gate.policy_file import LoadedPolicy
from gate.records import Quality, RunRecord, Status, Verdict
from gate.stage_run import StageRun, unmeasured
from gate.verdict import Ended


def outcome(
    loaded: LoadedPolicy,
    runs: Sequence[StageRun],
    unasked: Sequence[str],
    setting: Setting,
    terms: Terms,
    standing: Standing,
) -> Outcome:
    """The record of judged stages, in the policy's order.

    `unasked` names stages that this kind of evidence cannot answer: they are in the record, SKIPPED, and the verdict
    covers the others, which its sentence says.  Every other stage of the policy counts.
    """
    planned = tuple(r for r in loaded.rules if r.stage not in unasked)
    results = overall.stepped_down([r.result for r in runs], planned, terms.confidence)
    ended = verdicts.decided(
        loaded.policy,
        planned,
        tuple(r for r in results if r.name not in unasked),
        standing,
        restricted=False,
        unasked=[r for r in results if r.name in unasked],
    )
    setting = replace(setting, notes=(*setting.notes, *ended.notes))
    quality, problem = overall.score(planned, [(r.result.kind, r.measurements) for r in runs], terms)
    if problem is not None:
        setting = replace(setting, notes=(*setting.notes, problem))
    runs = [replace(r, result=result) for r, result in zip(runs, results, strict=True)]
    return _outcome(loaded, runs, setting, ended, quality)


def unchanged(loaded: LoadedPolicy, setting: Setting, before: RunRecord) -> Outcome:
    """The record of a run that had ended before anything was measured: no policy changes its verdict."""
    said = f"run {before.run_id} ended before anything was measured"
    skipped = [unmeasured(s, Status.SKIPPED, (), skipped_because=said) for s in loaded.policy.stages]
    runs = [StageRun(result=r, measurements=(), flips=()) for r in skipped]
    verdict = Verdict(status=before.verdict.status, deciding=(), sentence=before.verdict.sentence)
    code = ExitCode.REFUSED if before.verdict.status is Status.REFUSED else ExitCode.ERROR
    return _outcome(loaded, runs, setting, Ended(verdict=verdict, exit_code=int(code), waivers=(), notes=()), None)


def ended_before_measuring(record: RunRecord) -> bool:
    """Whether the run was refused, or no stage of it was reached for an error."""
    if record.verdict.status is Status.REFUSED:
        return True
    return record.verdict.status is Status.ERROR and all(s.status is Status.SKIPPED for s in record.stages)


def _outcome(
    loaded: LoadedPolicy,
    runs: Sequence[StageRun],
    setting: Setting,
    ended: Ended,
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
        verdict=ended.verdict,
        waivers=ended.waivers,
        exit_code=ended.exit_code,
        unnamed="finished",
    )
    return Outcome(record=record, measurements=measurements)
