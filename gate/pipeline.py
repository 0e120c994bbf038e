"""One run: describe both checkpoints, measure stage after stage, judge, stop early, and make the record.

The order of things and the reasons for what was skipped live here; all I/O is injected.  Prints nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Protocol

from gate import __version__, metrics, policy, units
from gate.backends import Checkpoint
from gate.decide import combine, flips, judge
from gate.errors import (
    CheckpointError,
    CouldNotMeasure,
    ExitCode,
    Refused,
    UsageError,
    WorkerError,
)
from gate.evidence import Collector, Side, StartWorker, with_scalar
from gate.policy_file import LoadedPolicy
from gate.records import (
    ARTIFACT_VERSION,
    CheckpointRef,
    Environment,
    Estimand,
    Finding,
    Flip,
    Measurement,
    Role,
    Rule,
    RunRecord,
    Severity,
    StageResult,
    Status,
    Verdict,
    merge,
)
from gate.reports import sentence
from gate.stages.profile import block_order
from gate.store import Store

MAX_FLIPS = 200
NOTHING_TO_COMPARE = "the checkpoints could not be compared"


class Reporter(Protocol):
    """Who watches the run; the console is one."""

    def started(self, index: int, total: int, kind: str, name: str) -> None: ...
    def progress(self, done: int, total: int, label: str) -> None: ...
    def finished(self, result: StageResult) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to decide.  `stages` restricts the run (never to a PASS); empty means all."""

    policy: LoadedPolicy
    baseline: str
    candidate: str
    backend: str
    device: str
    python: str | None
    stages: tuple[str, ...]
    keep_going: bool
    allow_identical: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The outside world.

    Attributes:
        describe: (reference, role) → its identity and what to load.
        compare: refuses pairs that cannot be compared; returns remarks for the reader.
    """

    describe: Callable[[str, Role], tuple[CheckpointRef, Checkpoint]]
    compare: Callable[[CheckpointRef, CheckpointRef], Sequence[str]]
    start_worker: StartWorker
    store: Store
    environment: Environment
    reporter: Reporter
    now: Callable[[], datetime]
    monotonic: Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The record, and the measurements it was decided from, by stage name."""

    record: RunRecord
    measurements: dict[str, list[Measurement]]


def run_gate(request: Request, services: Services) -> Outcome:
    """Carry out one run and return its record; whatever goes wrong after the start is in the record.

    Raises:
        UsageError: the request or an evaluation file is wrong; nothing was measured.
    """
    return _Run(request, services).carry_out()


class _Run:
    """The state of one run: what is known so far."""

    def __init__(self, request: Request, services: Services) -> None:
        self.request = request
        self.services = services
        self.loaded = request.policy
        self.created = services.now()
        self.begun = services.monotonic()
        self.refs: dict[Role, CheckpointRef | None] = {Role.BASELINE: None, Role.CANDIDATE: None}
        self.results: list[StageResult] = []
        self.measurements: dict[str, list[Measurement]] = {}
        self.flips: list[Flip] = []
        self.notes: list[str] = []
        names = [s.name for s in self.loaded.policy.stages]
        unknown = [n for n in request.stages if n not in names]
        if unknown:
            raise UsageError(f"--stage {unknown[0]!r} is not in the policy, expected one of: {', '.join(names)}")

    def carry_out(self) -> Outcome:
        try:
            sides = self._describe()
        except (CheckpointError, Refused) as problem:
            return self._ended_before_measuring(problem)
        collector = Collector(
            baseline=sides[Role.BASELINE],
            candidate=sides[Role.CANDIDATE],
            store=self.services.store,
            environment=self.services.environment,
            base=self.loaded.base,
            seed=self.loaded.policy.seed,
            backend=self.request.backend,
            device=self.request.device,
            python=self.request.python,
            progress=self.services.reporter.progress,
        )
        interrupted = False
        with collector:
            try:
                self._check(collector)
                self._stages(collector)
            except KeyboardInterrupt:
                interrupted = True
                self._skip_rest("interrupted by the user")
        for problem_text in self.services.store.problems:
            self._note(problem_text)
        return self._decided(interrupted)

    # -- before measuring ---------------------------------------------------------------------------------

    def _describe(self) -> dict[Role, Side]:
        sides = {}
        for role, text in ((Role.BASELINE, self.request.baseline), (Role.CANDIDATE, self.request.candidate)):
            ref, checkpoint = self.services.describe(text, role)
            self.refs[role] = ref
            sides[role] = Side(role, ref, checkpoint, self.services.start_worker)
        for remark in self.services.compare(sides[Role.BASELINE].ref, sides[Role.CANDIDATE].ref):
            self._note(remark)
        return sides

    def _check(self, collector: Collector) -> None:
        """Everything that can be said of the stages without a model, before anything is paid for.

        A check that cannot be made (an empty corpus, a worker that dies) makes its stage an ERROR.
        """
        for stage in self._selected():
            try:
                collector.candidate.started().check(stage.model_dump(mode="json"), self.loaded.base)
            except CouldNotMeasure as problem:
                self._fail(stage, str(problem))
                collector.drop_workers()

    def _selected(self) -> list[policy.Stage]:
        return [s for s in self.loaded.policy.stages if not self.request.stages or s.name in self.request.stages]

    # -- measuring ----------------------------------------------------------------------------------------

    def _stages(self, collector: Collector) -> None:
        stages = self.loaded.policy.stages
        for index, stage in enumerate(stages):
            if any(r.name == stage.name for r in self.results):
                continue  # failed its check
            if self.request.stages and stage.name not in self.request.stages:
                self._skip(stage, f"not selected: this run was restricted to --stage {' '.join(self.request.stages)}")
                continue
            stopper = None if self.request.keep_going else self._stopper()
            if stopper is not None:
                self._skip(stage, stopper)
                continue
            self.services.reporter.started(index + 1, len(stages), stage.kind, stage.name)
            self._stage(collector, stage)

    def _stopper(self) -> str | None:
        for result in self.results:
            if result.status in (Status.REGRESSION, Status.ERROR, Status.REFUSED):
                return f"stage {result.name} ended in {result.status} (--keep-going runs the rest)"
        return None

    def _stage(self, collector: Collector, stage: policy.Stage) -> None:
        begun = self.services.monotonic()
        findings: list[Finding] = []
        notes: list[str] = []
        from_store: list[bool] = []
        scored = available = 0
        for source, settings in policy.split(stage):
            rules = [r for r in self.loaded.rules if r.stage == stage.name and r.source == source]
            if not self.request.keep_going and any(map(_stops, findings)):
                findings += [judge.skipped(r, "not measured: an earlier rule of this stage stopped it") for r in rules]
                continue
            try:
                pair = self._measure(collector, settings, source, begun, from_store)
            except CouldNotMeasure as problem:
                findings += [judge.could_not_measure(r, str(problem)) for r in rules]
                notes.append(f"{source}: {problem}")
                if isinstance(problem, WorkerError):
                    collector.drop_workers()
                continue
            self.measurements.setdefault(stage.name, []).extend(pair)
            baseline, candidate = pair
            notes += [*baseline.notes, *candidate.notes]
            scored += len({o.item_id for o in candidate.observations})
            available += candidate.n_expected
            findings += [judge.judge(r, baseline, candidate, self.loaded.policy.confidence) for r in rules]
            self._keep_flips(stage.name, baseline, candidate, rules)
        self._add(
            StageResult(
                kind=stage.kind,
                name=stage.name,
                status=combine.stage_status(tuple(findings)),
                findings=tuple(findings),
                seconds=self.services.monotonic() - begun,
                items_scored=scored,
                items_available=available,
                baseline_from=("store" if all(from_store) else "measured") if from_store else "none",
                skipped_because=None,
                notes=tuple(dict.fromkeys(notes)),
            )
        )

    def _measure(
        self, collector: Collector, settings: policy.Stage, source: str, stage_begun: float, from_store: list[bool]
    ) -> tuple[Measurement, Measurement]:
        """Both roles' measurements of one source.  Raises CouldNotMeasure."""
        if isinstance(settings, policy.ProfileStage):
            from_store.append(False)  # timing is always measured side by side, never reused
            return self._profile(collector, settings, self._seconds_left(settings, stage_begun))
        evidence = collector.of_baseline(source, settings, self._seconds_left(settings, stage_begun))
        from_store.append(evidence.from_store)
        candidate = collector.of_candidate(settings, evidence.artifacts, self._seconds_left(settings, stage_begun))
        return evidence.measurement, candidate

    def _profile(
        self, collector: Collector, settings: policy.ProfileStage, deadline: float | None
    ) -> tuple[Measurement, Measurement]:
        with tempfile.TemporaryDirectory(prefix="quantgate-") as scratch:
            done = collector.blocks(
                settings, tuple(chain.from_iterable(block_order(settings.blocks))), Path(scratch), deadline
            )
        disk = metrics.PROFILE["disk_bytes"]
        baseline = with_scalar(merge(done[Role.BASELINE]), disk, collector.baseline.ref.weight_bytes)
        return baseline, with_scalar(merge(done[Role.CANDIDATE]), disk, collector.candidate.ref.weight_bytes)

    def _seconds_left(self, settings: policy.Stage, stage_begun: float) -> float | None:
        """What is left of the tighter of the stage's and the run's time budget; None without either."""
        now = self.services.monotonic()
        left = []
        if settings.budget is not None:
            left.append(units.duration_seconds(settings.budget) - (now - stage_begun))
        if self.loaded.policy.budget is not None:
            left.append(units.duration_seconds(self.loaded.policy.budget) - (now - self.begun))
        return min(left) if left else None

    def _keep_flips(self, stage: str, baseline: Measurement, candidate: Measurement, rules: list[Rule]) -> None:
        for name in dict.fromkeys(r.metric for r in rules):
            metric = next((m for m in candidate.metrics if m.name == name), None)
            if metric is not None and metric.estimand is Estimand.ITEM_MEAN:
                room = MAX_FLIPS - len(self.flips)
                self.flips += flips.flips(stage, baseline, candidate, metric)[:room]

    # -- the record ---------------------------------------------------------------------------------------

    def _fail(self, stage: policy.Stage, reason: str) -> None:
        rules = [r for r in self.loaded.rules if r.stage == stage.name]
        self._add(
            StageResult(
                kind=stage.kind,
                name=stage.name,
                status=Status.ERROR,
                findings=tuple(judge.could_not_measure(r, reason) for r in rules),
                seconds=0.0,
                items_scored=0,
                items_available=0,
                baseline_from="none",
                skipped_because=None,
                notes=(),
            )
        )

    def _skip(self, stage: policy.Stage, reason: str) -> None:
        self._add(
            StageResult(
                kind=stage.kind,
                name=stage.name,
                status=Status.SKIPPED,
                findings=(),
                seconds=0.0,
                items_scored=0,
                items_available=0,
                baseline_from="none",
                skipped_because=reason,
                notes=(),
            )
        )

    def _skip_rest(self, reason: str) -> None:
        for stage in self.loaded.policy.stages:
            if all(r.name != stage.name for r in self.results):
                self._skip(stage, reason)

    def _add(self, result: StageResult) -> None:
        self.results.append(result)
        self.services.reporter.finished(result)

    def _in_order(self) -> tuple[StageResult, ...]:
        order = [s.name for s in self.loaded.policy.stages]
        return tuple(sorted(self.results, key=lambda r: order.index(r.name)))

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.services.reporter.note(text)

    def _decided(self, interrupted: bool) -> Outcome:
        if interrupted:
            verdict = Verdict(status=Status.ERROR, deciding=(), sentence=sentence.could_not_measure("interrupted"))
            return self._outcome(verdict, ExitCode.INTERRUPTED)
        stages = self._in_order()
        decision = combine.combine(self.loaded.rules, stages, restricted=bool(self.request.stages))
        text = sentence.sentence(decision.status, decision.deciding, stages)
        verdict = Verdict(status=decision.status, deciding=decision.deciding, sentence=text)
        return self._outcome(verdict, combine.exit_code(decision.status, self.loaded.policy.on_inconclusive))

    def _ended_before_measuring(self, problem: CheckpointError | Refused) -> Outcome:
        refused = isinstance(problem, Refused)
        text = sentence.refused(str(problem)) if refused else sentence.could_not_measure(str(problem))
        self._note(text)
        self._skip_rest("not measured: " + ("the checkpoint was refused" if refused else "a checkpoint cannot be used"))
        status = Status.REFUSED if refused else Status.ERROR
        return self._outcome(Verdict(status=status, deciding=(), sentence=text), problem.exit_code)

    def _outcome(self, verdict: Verdict, exit_code: int) -> Outcome:
        candidate = self.refs[Role.CANDIDATE]
        identity = (candidate.effective_digest if candidate else "unknown")[:8]
        record = RunRecord(
            artifact_version=ARTIFACT_VERSION,
            run_id=f"{self.created:%Y%m%dT%H%M%S}-{identity}-{self.loaded.digest[:8]}",
            created_at=self.created.isoformat(timespec="seconds"),
            gate_version=__version__,
            policy_source=self.loaded.source,
            policy_digest=self.loaded.digest,
            policy=self.loaded.policy.model_dump(mode="json", exclude_none=True),
            baseline=self.refs[Role.BASELINE],
            candidate=candidate,
            environment=self.services.environment,
            stages=self._in_order(),
            flips=tuple(self.flips),
            verdict=verdict,
            exit_code=int(exit_code),
            seconds=self.services.monotonic() - self.begun,
            notes=tuple(self.notes),
        )
        return Outcome(record=record, measurements=self.measurements)


def _stops(finding: Finding) -> bool:
    """Does this finding end the run?  Guard rails and advisory rules never do."""
    red = finding.status in (Status.REGRESSION, Status.ERROR, Status.REFUSED)
    return red and finding.rule.severity is Severity.BLOCKING
