"""One run: describe both checkpoints, measure stage after stage, judge, stop early, and make the record.

The order of things and the reasons for what was skipped live here; all I/O is injected.  Prints nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gate import checkpoint, intake, noise_floor, policy, units, verdict
from gate.checkpoint import view
from gate.decide import combine, overall, waiver
from gate.decide.outlook import Floors
from gate.decide.run_record import Setting, run_record
from gate.decide.terms import Terms, gate_wide
from gate.decide.unjudged import could_not_measure
from gate.errors import CheckpointError, CouldNotMeasure, ExitCode, Refused, UsageError
from gate.evidence import Collector, Side, storing_errors
from gate.order import order_seed, sample_seed
from gate.records import (
    MAX_FLIPS,
    CheckpointRef,
    Flip,
    Measurement,
    Observation,
    Quality,
    Role,
    RunRecord,
    Severity,
    StageResult,
    Status,
)
from gate.request import Request, Services
from gate.stage_run import reason_of, run_stage, unmeasured
from gate.verdict import Ended


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
    with tempfile.TemporaryDirectory(prefix="quantgate-view-", ignore_cleanup_errors=True) as views:
        return _Run(request, services, Path(views)).carry_out()


class _Run:
    """The state of one run: what is known so far."""

    def __init__(self, request: Request, services: Services, views: Path) -> None:
        self.request = request
        self.services = services
        self.views = views
        self.loaded = request.policy
        self.created = services.now()
        self.begun = services.monotonic()
        self.refs: dict[Role, CheckpointRef] = {}
        self.results: list[StageResult] = []
        self.measurements: dict[str, list[Measurement]] = {}
        self.flips: list[Flip] = []
        self.notes: list[str] = []
        self.packages: dict[str, str] = {}
        self.floors: Floors = {}
        self.process_noise: Mapping[str, Sequence[Observation]] = {}
        self.broken: dict[tuple[str, str], CouldNotMeasure] = {}
        self.quality: Quality | None = None
        self.standing = waiver.NONE
        names = [s.name for s in self.loaded.policy.stages]
        unknown = [n for n in request.stages if n not in names]
        if unknown:
            raise UsageError(f"--stage {unknown[0]!r} is not in the policy, expected one of: {', '.join(names)}")

    def carry_out(self) -> Outcome:
        for text in self.request.notes:
            self._note(text)
        try:
            sides = self._describe()
            self._measured_noise()
        except (CheckpointError, Refused) as problem:
            return self._ended_before_measuring(problem)
        except KeyboardInterrupt:
            return self._interrupted()
        collector = Collector(
            baseline=sides[Role.BASELINE],
            candidate=sides[Role.CANDIDATE],
            store=self.services.store,
            environment=self.services.environment,
            base=self.loaded.base,
            seed=self.loaded.policy.seed,
            backend=self.request.backend,
            device=self.request.device,
            progress=self.services.reporter.progress,
        )
        interrupted = False
        self.standing = verdict.standing(self.request.waivers, self.refs[Role.CANDIDATE], self.created)
        try:
            with collector:
                self._check(collector)
                self._stages(collector)
        except Refused as problem:  # found while it was loaded
            return self._ended_before_measuring(problem)
        except KeyboardInterrupt:
            interrupted = True
        for side in sides.values():
            self._opened(side)
        for problem_text in self.services.store.problems:
            self._note(problem_text)
        return self._interrupted() if interrupted else self._decided()

    # -- before measuring ---------------------------------------------------------------------------------

    def _describe(self) -> dict[Role, Side]:
        """Both checkpoints, identified and fit to be compared."""
        places, views = {}, {}
        for role, reference in ((Role.BASELINE, self.request.baseline), (Role.CANDIDATE, self.request.candidate)):
            places[role] = checkpoint.resolve(
                reference,
                policy_checkpoints=self.loaded.policy.checkpoints,
                base=self.loaded.base,
                offline=self.request.offline,
                backend=self.request.backend,
                engines=self.loaded.policy.engines,
                advice=f"`{self.request.fetch_command}`",
            )
            views[role] = view.build(places[role], self.views / role, backend=self.request.backend)
            for remark in views[role].remarks(role):
                self._note(remark)
            self.refs[role] = checkpoint.describe(places[role], role)
        remarks = intake.compare(
            self.refs[Role.BASELINE],
            self.refs[Role.CANDIDATE],
            baseline_at=places[Role.BASELINE],
            candidate_at=places[Role.CANDIDATE],
            allow_identical=self.request.allow_identical,
        )
        for remark in remarks:
            self._note(remark)
        return {role: Side(role, self.refs[role], views[role], self.services.start_worker) for role in views}

    def _measured_noise(self) -> None:
        """Refuse bounds inside the noise floor that `gate calibrate` measured for this baseline on this machine."""
        place = noise_floor.Place(
            effective_digest=self.refs[Role.BASELINE].effective_digest,
            backend=self.request.backend,
            device=self.request.device,
            environment=self.services.environment.fingerprint,
            base=self.loaded.base,
        )
        self.floors = noise_floor.load_floors(self.services.store, place, self.loaded.policy.stages, self.loaded.rules)
        self.process_noise = noise_floor.of_processes(self.services.store, place, self.loaded.policy.stages)
        for text in noise_floor.unknown(self.services.store, place, self.loaded.policy.stages, self.loaded.rules):
            self._note(text)
        if self.floors:
            self.request.refuse_hopeless(floors=self.floors)

    def _opened(self, side: Side) -> None:
        """What the backend said when it loaded the model; its interpreter, and so its packages, may not be ours."""
        if side.known is None:
            return
        self.packages |= {name.replace("_", "-"): version for name, version in side.known.packages.items()}
        for text in side.known.notes:
            self._note(f"{side.role}: {text}")
        for kind, reason in side.known.unserved.items():
            self._note(f"{side.role}: the {side.known.name} backend cannot serve {kind} stages: {reason}")

    def _check(self, collector: Collector) -> None:
        """Everything that can be said of the stages without a model, before anything is paid for.

        A check that cannot be made (an empty corpus, a worker that dies) makes its stage an ERROR.
        """
        for stage in self._selected():
            mine = [r for r in self.loaded.rules if r.stage == stage.name]
            for source, settings in policy.split(stage):
                try:
                    collector.check(settings)
                except CouldNotMeasure as problem:
                    collector.drop_workers()
                    blocks = [r for r in mine if r.source == source and r.severity is Severity.BLOCKING]
                    others = [r for r in mine if r.source != source and r.severity is Severity.BLOCKING]
                    if others and not blocks:  # what only advises must not stop what decides
                        self.broken[stage.name, source] = problem
                        continue
                    findings = [could_not_measure(r, reason_of(problem)) for r in mine]
                    self._add(unmeasured(stage, Status.ERROR, findings, skipped_because=None))
                    break

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
            if waiver.stops(result, self.standing.rules):
                return f"stage {result.name} ended in {result.status} (--keep-going runs the rest)"
        return None

    def _stage(self, collector: Collector, stage: policy.Stage) -> None:
        ended = run_stage(
            collector,
            stage,
            [r for r in self.loaded.rules if r.stage == stage.name],
            terms=self._terms(),
            broken={source: problem for (name, source), problem in self.broken.items() if name == stage.name},
            process_noise=self.process_noise.get(stage.name, ()),
            stop_early=self.loaded.policy.stop_early,
            keep_going=self.request.keep_going,
            monotonic=self.services.monotonic,
            run_seconds_left=self._seconds_left,
            waived=self.standing.rules,
        )
        self.measurements[stage.name] = list(ended.measurements)
        if self.refs[Role.BASELINE].effective_digest == self.refs[Role.CANDIDATE].effective_digest:
            for text in storing_errors(ended.measurements):
                self._note(f"{stage.name}: {text}")
        self.flips += ended.flips[: MAX_FLIPS - len(self.flips)]
        for finding in ended.result.findings:
            flips, floor = finding.counts.get("flip_rate"), self.floors.get((finding.rule.stage, finding.rule.source))
            if flips is not None and floor is not None and floor > flips / 2 > 0:
                self._note(
                    f"{finding.rule.id}: the baseline changes {floor:.1%} of its answers against itself, the candidate "
                    f"{flips:.1%}: the flips are mostly noise"
                )
        self._add(ended.result)
        if combine.stops(ended.result) and not waiver.stops(ended.result, self.standing.rules):
            self._note(f"{waiver.NOTE}stage {stage.name} stops nothing, what is red in it is waived")

    def _terms(self) -> Terms:
        """One error budget over all planned blocking rules; the order of the items is this candidate's."""
        baseline, candidate = self.refs[Role.BASELINE], self.refs[Role.CANDIDATE]
        seed = sample_seed(self.loaded.policy.seed, baseline.effective_digest)
        blocking = sum(r.severity is Severity.BLOCKING for r in self.loaded.rules)
        order = order_seed(seed, candidate.effective_digest)
        return gate_wide(self.loaded.policy.confidence, blocking, order)

    def _seconds_left(self) -> float | None:
        """What is left of the run's time budget, None without one."""
        if self.loaded.policy.budget is None:
            return None
        return units.duration_seconds(self.loaded.policy.budget) - (self.services.monotonic() - self.begun)

    # -- the record ---------------------------------------------------------------------------------------

    def _skip(self, stage: policy.Stage, reason: str) -> None:
        self._add(unmeasured(stage, Status.SKIPPED, (), skipped_because=reason))

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

    def _decided(self) -> Outcome:
        self.results = list(overall.stepped_down(self._in_order(), self.loaded.rules, self.loaded.policy.confidence))
        measured = [(r.kind, self.measurements.get(r.name, ())) for r in self._in_order()]
        self.quality, problem = overall.score(self.loaded.rules, measured, self._terms())
        if problem is not None:
            self._note(problem)
        restricted = bool(self.request.stages)
        ended = verdict.decided(
            self.loaded.policy, self.loaded.rules, self._in_order(), self.standing, restricted=restricted
        )
        for text in ended.notes:
            self._note(text)
        return self._outcome(ended)

    def _interrupted(self) -> Outcome:
        self._skip_rest("interrupted by the user")
        return self._undecided(Status.ERROR, "interrupted", ExitCode.INTERRUPTED)

    def _ended_before_measuring(self, problem: CheckpointError | Refused) -> Outcome:
        refused = isinstance(problem, Refused)
        self._skip_rest("the checkpoint was refused" if refused else "a checkpoint cannot be used")
        status = Status.REFUSED if refused else Status.ERROR
        return self._undecided(status, str(problem), problem.exit_code)

    def _undecided(self, status: Status, reason: str, exit_code: ExitCode) -> Outcome:
        return self._outcome(verdict.undecided(self.loaded.policy, self._in_order(), status, reason, int(exit_code)))

    def _outcome(self, ended: Ended) -> Outcome:
        here = self.services.environment
        setting = Setting(
            baseline=self.refs.get(Role.BASELINE),
            candidate=self.refs.get(Role.CANDIDATE),
            environment=replace(here, packages={**here.packages, **self.packages}),
            created=self.created,
            seconds=self.services.monotonic() - self.begun,
            notes=tuple(self.notes),
        )
        record = run_record(
            self.loaded,
            setting,
            stages=self._in_order(),
            measurements=self.measurements,
            flips=self.flips,
            quality=self.quality,
            verdict=ended.verdict,
            waivers=ended.waivers,
            exit_code=ended.exit_code,
            unnamed="unknown",
        )
        for text in record.notes[len(self.notes) :]:
            self.services.reporter.note(text)
        return Outcome(record=record, measurements=self.measurements)
