"""`gate compare`: two folders of finished results and a policy → the outcome, without a model.

Judges what is there and refuses nothing for being small; what is missing on either side is an ERROR, never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from gate import policy, verdict
from gate.decide.run_record import Setting
from gate.decide.terms import gate_wide
from gate.errors import CouldNotMeasure, Refused, UsageError
from gate.finished import record
from gate.finished.lm_eval_folder import LmEvalFolder, find_results
from gate.finished.lm_eval_pair import read_pair, same_evaluation
from gate.finished.run_folder import RunFolder, is_run_folder, read_run
from gate.finished.stage import NoEvidence, SourceEvidence, judged_stage
from gate.pipeline import Outcome
from gate.policy_file import LoadedPolicy
from gate.records import CheckpointRef, Environment, Measurement, Role, Severity, Status, Waiver
from gate.stage_run import StageRun, unmeasured

NO_MODEL = "decided from finished results: no model was run"
Evidence = SourceEvidence | NoEvidence


def compare(
    loaded: LoadedPolicy,
    baseline: Path,
    candidate: Path,
    *,
    environment: Environment,
    now: datetime,
    waivers: Sequence[Waiver] = (),
) -> Outcome:
    """Decide from two folders, both run folders of this gate (possibly the same one) or both of lm-eval.

    Results of lm-eval name no checkpoint by its content, so no waiver applies to them.

    Raises:
        UsageError: a folder is not there, the two do not go together, or the policy asks nothing that they answer.
        DataError: a results file or a sample log is broken.
        ArtifactError: a run folder is damaged.
        Refused: both sides are the same checkpoint.
    """
    folders = {Role.BASELINE: baseline, Role.CANDIDATE: candidate}
    for role, folder in folders.items():
        if not folder.is_dir():
            raise UsageError(f"found no folder {str(folder)!r}, expected the {role}'s results: a run's or lm-eval's")
    ours = [is_run_folder(folder) for folder in folders.values()]
    logs = {role: () if is_run_folder(f) else find_results(f) for role, f in folders.items()}
    if all(ours):
        return _of_runs(loaded, read_run(baseline), read_run(candidate), environment, now, waivers)
    if any(ours) and all(own or logs[role] for own, role in zip(ours, folders, strict=True)):
        raise UsageError(
            f"found a run of this gate in {str(folders[Role.BASELINE if ours[0] else Role.CANDIDATE])!r} and lm-eval's "
            "results in the other folder, expected two of one kind: prompts are only known to be the same within a kind"
        )
    for role, folder in folders.items():
        if not is_run_folder(folder) and not logs[role]:
            return _nothing_there(loaded, role, folder, environment, now, waivers)
    return _of_logs(
        loaded,
        LmEvalFolder(baseline, logs[Role.BASELINE]),
        LmEvalFolder(candidate, logs[Role.CANDIDATE]),
        environment,
        now,
        waivers,
    )


def _nothing_there(
    loaded: LoadedPolicy, role: Role, folder: Path, environment: Environment, now: datetime, waivers: Sequence[Waiver]
) -> Outcome:
    reason = (
        f"the {role}'s folder {folder.name!r} holds no results, expected run.json of a gate run, or results_*.json and "
        "samples_*.jsonl of lm-eval with --output_path and --log_samples"
    )
    return _decided(
        loaded,
        lambda stage, source, settings: NoEvidence(reason=reason, was_skipped=False),
        unasked={},
        order_seed=None,
        setting=_setting(environment, now, notes=(NO_MODEL, reason)),
        waivers=waivers,
    )


# -- lm-eval ----------------------------------------------------------------------------------------------


def _of_logs(
    loaded: LoadedPolicy,
    baseline: LmEvalFolder,
    candidate: LmEvalFolder,
    environment: Environment,
    now: datetime,
    waivers: Sequence[Waiver],
) -> Outcome:
    stages = loaded.policy.stages
    unasked = {
        s.name: f"lm-eval's results do not answer a stage of kind {s.kind}: use gate run for it"
        for s in stages
        if not isinstance(s, policy.LmEvalStage)
    }
    if len(unasked) == len(stages):
        raise UsageError("the policy has no lm_eval stage, expected one whose tasks are in the results")
    for left in baseline.files:
        for right in candidate.files:
            if same_evaluation(left, right):
                raise UsageError(
                    f"{left.path.name} of {left.model} is on both sides: a model compared with itself always holds; "
                    "give the folders of two models"
                )

    def evidence(stage: str, source: str, settings: policy.Stage) -> Evidence:
        assert isinstance(settings, policy.LmEvalStage)  # the others are not asked
        (task,) = settings.tasks
        try:
            return read_pair(stage, task, baseline, candidate)
        except CouldNotMeasure as problem:
            return NoEvidence(reason=str(problem), was_skipped=False)

    said = [f"{role}: lm-eval's results of {f.files[0].model}" for role, f in _by_role(baseline, candidate).items()]
    notes = (NO_MODEL, *said, *([f"not judged: {', '.join(unasked)} (lm-eval's results alone)"] if unasked else []))
    setting = _setting(environment, now, notes=notes)
    return _decided(loaded, evidence, unasked, order_seed=None, setting=setting, waivers=waivers)


def _by_role(baseline: LmEvalFolder, candidate: LmEvalFolder) -> Mapping[Role, LmEvalFolder]:
    return {Role.BASELINE: baseline, Role.CANDIDATE: candidate}


# -- run folders ------------------------------------------------------------------------------------------


def _of_runs(
    loaded: LoadedPolicy,
    baseline: RunFolder,
    candidate: RunFolder,
    environment: Environment,
    now: datetime,
    waivers: Sequence[Waiver],
) -> Outcome:
    refs = baseline.record.baseline, candidate.record.candidate
    notes = [NO_MODEL]
    for role, folder in ((Role.BASELINE, baseline), (Role.CANDIDATE, candidate)):
        notes.append(f"{role}: from run {folder.record.run_id}, measured with gate {folder.record.gate_version}")
    if refs[0] is not None and refs[1] is not None and refs[0].effective_digest == refs[1].effective_digest:
        raise Refused(
            f"the baseline of {baseline.path} and the candidate of {candidate.path} are the same checkpoint "
            f"({refs[0].effective_digest[:12]}): a checkpoint compared with itself always holds"
        )

    def evidence(stage: str, source: str, settings: policy.Stage) -> Evidence:
        if isinstance(settings, policy.ProfileStage) and baseline.record.run_id != candidate.record.run_id:
            reason = "timings of two runs cannot be compared: the machine was not the same at both times; use gate run"
            return NoEvidence(reason=reason, was_skipped=False)
        for folder in (baseline, candidate):
            different = folder.differs(source, settings, loaded.policy.seed)
            if different is not None:
                return NoEvidence(reason=f"{different} (run {folder.record.run_id})", was_skipped=False)
        left = baseline.measured(stage, source, Role.BASELINE)
        right = candidate.measured(stage, source, Role.CANDIDATE)
        if isinstance(right, NoEvidence):
            return right
        if isinstance(left, NoEvidence):
            return left
        other = _other_prompts(left, right) if isinstance(settings, policy.LmEvalStage) else None
        if other is not None:
            return NoEvidence(reason=other, was_skipped=False)
        return SourceEvidence(baseline=left, candidate=right, population_only=None, notes=())

    setting = _setting(environment, now, notes=tuple(notes), baseline=refs[0], candidate=refs[1])
    for folder in (baseline, candidate):
        if record.ended_before_measuring(folder.record):
            return record.unchanged(loaded, setting, folder.record)
    return _decided(loaded, evidence, unasked={}, order_seed=candidate.order_seed, setting=setting, waivers=waivers)


def _other_prompts(baseline: Measurement, candidate: Measurement) -> str | None:
    """Whether items of an lm-eval task were asked differently: its ids end in the hash of the prompt."""
    of = [dict(map(_document_and_prompt, {o.item_id for o in m.observations})) for m in (baseline, candidate)]
    shared = of[0].keys() & of[1].keys()
    different = sorted(document for document in shared if of[0][document] != of[1][document])
    if not different:
        return None
    return (
        f"{candidate.source}: different prompts for the same document, {len(different)} of {len(shared)} (for instance "
        f"{different[0]}): their scores cannot be paired; measure both with the same settings and tokenizer"
    )


def _document_and_prompt(item_id: str) -> tuple[str, str]:
    document, _, rest = item_id.rpartition("/")
    prompt, mark, occurrence = rest.partition("#")
    return document + mark + occurrence, prompt


# -- both -------------------------------------------------------------------------------------------------


def _setting(
    environment: Environment,
    now: datetime,
    *,
    notes: tuple[str, ...],
    baseline: CheckpointRef | None = None,
    candidate: CheckpointRef | None = None,
) -> Setting:
    return Setting(
        baseline=baseline, candidate=candidate, environment=environment, created=now, seconds=0.0, notes=notes
    )


def _decided(
    loaded: LoadedPolicy,
    evidence: Callable[[str, str, policy.Stage], Evidence],
    unasked: Mapping[str, str],
    *,
    order_seed: str | None,
    setting: Setting,
    waivers: Sequence[Waiver],
) -> Outcome:
    planned = [r for r in loaded.rules if r.stage not in unasked]
    n_blocking = sum(r.severity is Severity.BLOCKING for r in planned)
    terms = gate_wide(loaded.policy.confidence, n_blocking, order_seed)
    standing = verdict.standing(waivers, setting.candidate, setting.created)
    runs = []
    for stage in loaded.policy.stages:
        if stage.name in unasked:
            skipped = unmeasured(stage, Status.SKIPPED, (), skipped_because=unasked[stage.name])
            runs.append(StageRun(result=skipped, measurements=(), flips=()))
            continue
        found = {source: evidence(stage.name, source, settings) for source, settings in policy.split(stage)}
        mine = [r for r in planned if r.stage == stage.name]
        runs.append(
            judged_stage(
                stage,
                mine,
                found,
                terms,
                stop_early=loaded.policy.stop_early,
                seconds=0.0,
                baseline_from="measured",
                waived=standing.rules,
            )
        )
    return record.outcome(loaded, runs, list(unasked), setting, terms, standing)
