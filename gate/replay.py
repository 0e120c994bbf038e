"""`gate decide`: a finished run judged again under another policy → its outcome, without a model.

Takes only what was measured; a setting that differs from what that run measured is an ERROR, never a near match.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gate import policy, verdict
from gate.decide import waiver
from gate.decide.run_record import Setting
from gate.decide.terms import gate_wide
from gate.finished import record
from gate.finished.run_folder import RunFolder
from gate.finished.stage import NoEvidence, SourceEvidence, judged_stage
from gate.pipeline import Outcome
from gate.policy_file import CHOSEN, LoadedPolicy
from gate.records import Role, Severity, Waiver

_OF_THAT_RUN = (waiver.NOTE, CHOSEN)
"""How notes begin that tell what decided the run beside its measurements: they are not true of another decision."""


def replay(run: RunFolder, loaded: LoadedPolicy, *, now: datetime, waivers: Sequence[Waiver] = ()) -> Outcome:
    """The outcome that the run's measurements have under `loaded`, and under `waivers` of today.

    The order of the items is that of `loaded`, as if it had run; a candidate that was stopped early must have been
    asked the first of them.  A run that was refused, or that ended before anything was measured, keeps its verdict.
    Waivers of the run itself count for nothing.
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
        notes=(*notes, *(n for n in run.record.notes if not n.startswith(_OF_THAT_RUN))),
    )
    if record.ended_before_measuring(run.record):
        return record.unchanged(loaded, setting, run.record)
    n_blocking = sum(r.severity is Severity.BLOCKING for r in loaded.rules)
    terms = gate_wide(loaded.policy.confidence, n_blocking, run.ordered_by(loaded.policy.seed))
    standing = verdict.standing(waivers, setting.candidate, now)
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
                waived=standing.rules,
            )
        )
    return record.outcome(loaded, runs, (), setting, terms, standing)


def _evidence(run: RunFolder, source: str, settings: policy.Stage, seed: int) -> SourceEvidence | NoEvidence:
    different = run.differs(source, settings, seed) or run.began_elsewhere(source, settings, seed)
    if different is not None:
        return NoEvidence(reason=different, was_skipped=False)
    candidate = run.measured(settings.name, source, Role.CANDIDATE)
    baseline = run.measured(settings.name, source, Role.BASELINE)
    if isinstance(candidate, NoEvidence):
        return candidate
    if isinstance(baseline, NoEvidence):
        return baseline
    return SourceEvidence(baseline=baseline, candidate=candidate, population_only=None, notes=())
