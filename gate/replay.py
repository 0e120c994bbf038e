"""`gate decide`: a finished run judged again under another policy → its outcome, without a model.

Takes only what was measured; a setting that differs from what that run measured is an ERROR, never a near match.
"""

from __future__ import annotations

from datetime import datetime

from gate import policy
from gate.decide.run_record import Setting
from gate.decide.terms import gate_wide
from gate.finished import record
from gate.finished.run_folder import RunFolder
from gate.finished.stage import NoEvidence, SourceEvidence, judged_stage
from gate.pipeline import Outcome
from gate.policy_file import LoadedPolicy
from gate.records import Role, Severity


def replay(run: RunFolder, loaded: LoadedPolicy, *, now: datetime) -> Outcome:
    """The outcome that the run's measurements have under `loaded`.

    The order of the items is that of the run.  A run that was refused, or that ended before anything was measured,
    keeps its verdict.
    """
    asked = {s.name for s in loaded.policy.stages}
    aside = [s.name for s in run.record.stages if s.name not in asked]
    notes = [f"decided again from run {run.record.run_id} of {run.record.created_at}: no model was run"]
    notes += [f"not asked by this policy: {', '.join(aside)}"] if aside else []
    setting = Setting(
        baseline=run.record.baseline,
        candidate=run.record.candidate,
        environment=run.record.environment,
        created=now,
        seconds=run.record.seconds,
        notes=(*notes, *run.record.notes),
    )
    if record.ended_before_measuring(run.record):
        return record.unchanged(loaded, setting, run.record)
    n_blocking = sum(r.severity is Severity.BLOCKING for r in loaded.rules)
    terms = gate_wide(loaded.policy.confidence, n_blocking, run.order_seed)
    runs = []
    for stage in loaded.policy.stages:
        then = run.stage(stage.name)
        runs.append(
            judged_stage(
                stage,
                [r for r in loaded.rules if r.stage == stage.name],
                {
                    source: _evidence(run, source, settings, loaded.policy.seed)
                    for source, settings in policy.split(stage)
                },
                terms,
                stop_early=loaded.policy.stop_early,
                seconds=0.0 if then is None else then.seconds,
                baseline_from="none" if then is None else then.baseline_from,
            )
        )
    return record.outcome(loaded, runs, (), setting, terms)


def _evidence(run: RunFolder, source: str, settings: policy.Stage, seed: int) -> SourceEvidence | NoEvidence:
    different = run.differs(source, settings, seed)
    if different is not None:
        return NoEvidence(reason=different, was_skipped=False)
    candidate = run.measured(settings.name, source, Role.CANDIDATE)
    baseline = run.measured(settings.name, source, Role.BASELINE)
    if isinstance(candidate, NoEvidence):
        return candidate
    if isinstance(baseline, NoEvidence):
        return baseline
    return SourceEvidence(baseline=baseline, candidate=candidate, population_only=None, notes=())
