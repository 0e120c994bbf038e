"""One stage of a run: both roles' evidence of each source, judged as it comes, and the stage's result.

Decides whose turn it is and when a stage stops; what is measured and how it is judged live below.  Tasks take turns by
planned tokens, never by the clock, so the evidence does not depend on how fast anything runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from gate import policy, timing_run, units
from gate.decide import combine, flips
from gate.decide import source as of_source
from gate.decide.judge import judge
from gate.decide.source import Tracker
from gate.decide.terms import Terms
from gate.decide.unjudged import could_not_measure, skipped
from gate.errors import BudgetExceeded, CouldNotMeasure, DataError, WorkerError
from gate.evidence import Collector, Evidence, SecondsLeft, Stream, items_scored, whole
from gate.records import (
    Finding,
    Flip,
    Measurement,
    Observation,
    Rule,
    Severity,
    StageResult,
    Status,
)

LAST_LINES = 20
"""How much of a broken worker's log a finding carries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRun:
    """A stage's result with what it was decided from."""

    result: StageResult
    measurements: tuple[Measurement, ...]
    flips: tuple[Flip, ...]


def unmeasured(
    stage: policy.Stage, status: Status, findings: Sequence[Finding], *, skipped_because: str | None
) -> StageResult:
    """The result of a stage in which nothing was measured."""
    return StageResult(
        kind=stage.kind,
        name=stage.name,
        status=status,
        findings=tuple(findings),
        seconds=0.0,
        items_scored=0,
        items_available=0,
        baseline_from="none",
        skipped_because=skipped_because,
        notes=(),
    )


def reason_of(problem: CouldNotMeasure | DataError) -> str:
    """Why something was not measured; of a worker that broke, with its last words.

    Only the first line is printed where a report may leave this machine (see `reports.sentence`).
    """
    if not isinstance(problem, WorkerError):
        return str(problem)
    lines = problem.stderr_tail.strip().splitlines()[-LAST_LINES:]
    return "\n".join([str(problem), *(["the last lines of its log:", *lines] if lines else [])])


def run_stage(
    collector: Collector,
    stage: policy.Stage,
    rules: Sequence[Rule],
    *,
    terms: Terms,
    broken: Mapping[str, CouldNotMeasure],
    stop_early: bool,
    keep_going: bool,
    monotonic: Callable[[], float],
    run_seconds_left: Callable[[], float | None],
    process_noise: Sequence[Observation] = (),
    waived: Set[str] = frozenset(),
) -> StageRun:
    """Measure and judge every source of a stage; after a red blocking rule the rest is skipped unless `keep_going`.

    `broken` sources failed their check before, and are not measured.  `process_noise` is what `gate calibrate` found
    of this stage's timing.  Rules of the ids in `waived` may be red and stop nothing.

    Raises:
        UsageError: the baseline store cannot be written.
    """
    begun = monotonic()

    def seconds_left() -> float | None:
        """What is left of the tighter of the stage's and the run's time budget."""
        left = [run_seconds_left()]
        if stage.budget is not None:
            left.append(units.duration_seconds(stage.budget) - (monotonic() - begun))
        return min((s for s in left if s is not None), default=None)

    sources = [
        _Source(name, settings, [r for r in rules if r.source == name], terms, stop_early=stop_early, waived=waived)
        for name, settings in policy.split(stage)
    ]
    for source in sources:
        if source.name in broken:
            source.leave(broken[source.name])
    # tasks of one stage share the model and take turns; corpora grow one after the other
    rounds = [sources] if isinstance(stage, policy.LmEvalStage) else [[s] for s in sources]
    for turn in rounds:
        if isinstance(stage, policy.ProfileStage):
            _profile(collector, turn[0], terms, seconds_left, stop_early=stop_early, noise=process_noise)
        elif keep_going or not any(s.stops for s in sources):
            _take_turns(collector, turn, seconds_left, stop_early=stop_early, keep_going=keep_going)
    for source in sources:
        source.judge()
        source.skip_unless_judged()
    findings = [f for s in sources for f in s.findings]
    measured = [s.candidate for s in sources if s.candidate is not None]
    from_store = [s.from_store for s in sources if s.from_store is not None]
    result = StageResult(
        kind=stage.kind,
        name=stage.name,
        status=combine.stage_status(findings),
        findings=tuple(findings),
        seconds=monotonic() - begun,
        items_scored=sum(map(items_scored, measured)),
        items_available=sum(m.n_expected for m in measured),
        baseline_from=("store" if all(from_store) else "measured") if from_store else "none",
        skipped_because=None,
        notes=tuple(dict.fromkeys(n for s in sources for n in s.notes)),
    )
    measurements = tuple(m for s in sources for m in (s.baseline, s.candidate) if m is not None)
    return StageRun(result=result, measurements=measurements, flips=tuple(f for s in sources for f in s.flips))


class _Source:
    """One source of the stage on its way: its evidence, how far it is, and what it finds."""

    def __init__(
        self,
        name: str,
        settings: policy.Stage,
        rules: Sequence[Rule],
        terms: Terms,
        *,
        stop_early: bool,
        waived: Set[str],
    ) -> None:
        self.name, self.settings, self.rules, self._terms = name, settings, rules, terms
        self._stop_early, self._waived = stop_early, waived
        self.baseline: Measurement | None = None
        self.candidate: Measurement | None = None
        self.from_store: bool | None = None
        self.findings: list[Finding] = []
        self.planned_tokens = 0
        self.is_active = False
        self._evidence: Evidence | None = None
        self._tracker: Tracker | None = None
        self._stream: Stream | None = None
        self._problem: CouldNotMeasure | DataError | None = None

    def take_baseline(self, collector: Collector, seconds_left: SecondsLeft) -> None:
        """Raises as `Collector.of_baseline`."""
        self._evidence = collector.of_baseline(self.name, self.settings, seconds_left)
        self.baseline, self.from_store = self._evidence.measurement, self._evidence.from_store
        self.start_over()

    def start_over(self) -> None:
        """From the first item, with a worker that holds nothing yet; the order of the items is the same."""
        if self._evidence is not None:
            self._tracker = Tracker(self.rules, self._evidence.measurement, self._terms, waived=self._waived)
            self._stream, self.planned_tokens, self.is_active = None, 0, True

    def advance(self, collector: Collector, seconds_left: SecondsLeft) -> None:
        """Measure and take in the next part.  Raises as `Stream.advance`."""
        assert self._evidence is not None
        assert self._tracker is not None
        if self._stream is None:
            self._stream = collector.of_candidate(self.settings, self._evidence.artifacts)
        part = self._stream.advance(seconds_left())
        if part is None:
            self.is_active = False
            self.candidate = None if self._tracker.measurement is None else whole(self._tracker.measurement)
            return
        self._tracker.feed(part)
        self.planned_tokens += part.planned_tokens

    @property
    def is_broken(self) -> bool:
        """Whether it failed before it could be measured."""
        return self._problem is not None and self._evidence is None

    @property
    def is_settled(self) -> bool:
        return self._tracker is not None and self._tracker.settled

    @property
    def is_failing(self) -> bool:
        """Whether a blocking rule that nobody waived is known to be red, without waiting for the others."""
        return self._tracker is not None and self._tracker.failing

    def leave(self, problem: CouldNotMeasure | DataError | None) -> None:
        """Measure no further, and say why; what was reached is kept."""
        if self._stream is not None and self.is_active and problem is None:
            with contextlib.suppress(WorkerError):  # it is done with anyway; the next stage starts another one
                self._stream.end()
        self.is_active, self._problem = False, problem
        if self.candidate is None and self._tracker is not None:
            self.candidate = self._tracker.measurement

    @property
    def stops(self) -> bool:
        """Whether what it finds ends the stage."""
        self.judge()
        return any(_stops(f, self._waived) for f in self.findings)

    def judge(self) -> None:
        """Find what there is to find, once nothing more is measured."""
        if self.findings or self.is_active:
            return
        late = isinstance(self._problem, BudgetExceeded)
        if self._problem is not None and not (late and self.candidate is not None):
            self.findings = [could_not_measure(r, reason_of(self._problem)) for r in self.rules]
        elif self.candidate is None and self.baseline is None and self.from_store is None:
            return
        elif self.candidate is None:
            self.findings = [skipped(r, _SKIPPED) for r in self.rules]
        else:
            self.findings = of_source.findings(
                self.rules,
                self.baseline,
                self.candidate,
                self._terms,
                stop_early=self._stop_early,
                waived=self._waived,
            )
            if late:
                self.findings = [_late(f, self._problem) for f in self.findings]

    def skip_unless_judged(self) -> None:
        """What was never measured since an earlier rule stopped the stage."""
        if not self.findings:
            self.findings = [skipped(r, _SKIPPED) for r in self.rules]

    def timed(self, found: timing_run.Timed) -> None:
        """Both at once: timing, which is always side by side and never from the store."""
        self.baseline, self.candidate, self.from_store = found.baseline, found.candidate, False
        judged = [judge(r, found.baseline, found.candidate, self._terms) for r in self.rules]
        self.findings = [
            _late(f, found.problem) if f.rule.id in found.left_open and f.status is Status.INCONCLUSIVE else f
            for f in judged
        ]

    @property
    def notes(self) -> list[str]:
        said = [n for m in (self.baseline, self.candidate) if m is not None for n in m.notes]
        return said if self._problem is None else [*said, f"{self.name}: {self._problem}"]

    @property
    def flips(self) -> list[Flip]:
        if self.baseline is None or self.candidate is None:
            return []
        return flips.of_rules(self.baseline, self.candidate, self.rules)


_SKIPPED = "not measured: an earlier rule of this stage stopped it"


def _take_turns(
    collector: Collector, sources: Sequence[_Source], seconds_left: SecondsLeft, *, stop_early: bool, keep_going: bool
) -> None:
    """The baseline of every source, then the candidate block by block, always where the fewest tokens were planned."""
    for source in sources:
        if source.is_broken:
            continue
        try:
            source.take_baseline(collector, seconds_left)
        except (CouldNotMeasure, DataError) as problem:
            _ended(collector, source, problem, sources, keep_going=keep_going)
        if not keep_going and source.stops:
            return _leave_all(sources)
    while active := [s for s in sources if s.is_active]:
        source = min(active, key=lambda s: s.planned_tokens)
        try:
            source.advance(collector, seconds_left)
        except BudgetExceeded as late:
            for other in active:
                other.leave(late)
            return None
        except (CouldNotMeasure, DataError) as problem:  # what was measured before is kept
            _ended(collector, source, problem, sources, keep_going=keep_going)
        if source.is_settled and stop_early:
            source.leave(None)
        red = source.is_failing or source.stops
        if red and not keep_going:
            return _leave_all(sources)
    return None


def _ended(
    collector: Collector,
    source: _Source,
    problem: CouldNotMeasure | DataError,
    sources: Sequence[_Source],
    *,
    keep_going: bool,
) -> None:
    """A source that broke; where its worker went with it, the others start over with the next one, if they go on."""
    source.leave(problem)
    if isinstance(problem, WorkerError):
        collector.drop_workers()
        if source.stops and not keep_going:
            return
        for other in sources:
            if other.is_active:
                other.start_over()


def _leave_all(sources: Sequence[_Source]) -> None:
    for source in sources:
        if source.is_active:
            source.leave(None)


def _late(finding: Finding, problem: CouldNotMeasure | DataError | None) -> Finding:
    """Time ran out: said where the rule was not settled before."""
    if finding.status in (Status.PASS, Status.REGRESSION):
        return finding
    return replace(finding, reason=f"{problem}: {finding.reason}")


def _profile(
    collector: Collector,
    source: _Source,
    terms: Terms,
    seconds_left: SecondsLeft,
    *,
    stop_early: bool,
    noise: Sequence[Observation],
) -> None:
    assert isinstance(source.settings, policy.ProfileStage)
    try:
        found = timing_run.timed(
            collector, source.settings, source.rules, terms, seconds_left, stop_early=stop_early, noise=noise
        )
    except (CouldNotMeasure, DataError) as problem:
        _ended(collector, source, problem, [source], keep_going=True)
        return
    source.timed(found)


def _stops(finding: Finding, waived: Set[str]) -> bool:
    """Does this finding end the stage?  Advisory rules never do, and neither does a REGRESSION that is waived."""
    if finding.status is Status.REGRESSION and finding.rule.id in waived:
        return False
    red = finding.status in (Status.REGRESSION, Status.ERROR, Status.REFUSED)
    return red and finding.rule.severity is Severity.BLOCKING
