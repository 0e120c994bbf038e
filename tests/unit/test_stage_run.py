"""The schedule of one stage: whose turn it is, when measuring stops, and what is kept when something breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from gate import policy
from gate.decide.terms import gate_wide
from gate.errors import BudgetExceeded, CouldNotMeasure, WorkerError
from gate.evidence import Collector, Evidence
from gate.order import place
from gate.policy import LmEvalStage, Policy, planned_rules
from gate.records import Measurement, Role, StageResult, Status
from gate.stage_run import StageRun, run_stage
from tests.decide_factory import ACCURACY, BASELINE, CANDIDATE, scored

SEED = "f" * 64
N = 640
BLOCK = 32


def stage_of(*tasks: str, bound: str = "5pp", **rule: Any) -> LmEvalStage:
    rules = [{"metric": "accuracy", "max_drop": bound, **rule}]
    tasks_ = [{"task": name, "rules": rules} for name in tasks]
    loaded = Policy.model_validate(
        {"version": 1, "stages": [{"kind": "lm_eval", "name": "capability", "tasks": tasks_}]}
    )
    (stage,) = loaded.stages
    return cast(LmEvalStage, stage)


def ids(task: str, n: int = N) -> list[str]:
    return [f"{task}/{i:04d}/prompt" for i in range(n)]


def whole(role: Role, task: str, wrong: Callable[[int], bool], n: int = N) -> Measurement:
    """Every item of a task in this run's order; the k-th one is wrong where `wrong(k)`."""
    ordered = sorted(ids(task, n), key=lambda i: place(SEED, i))
    values = {item: float(not wrong(k)) for k, item in enumerate(ordered)}
    return scored(role, values, metric=ACCURACY, stage="capability", source=task)


@dataclass
class FakeStream:
    task: str
    measured: Measurement
    log: list[str]
    breaks_at: int | None = None
    problem: Exception | None = None
    tokens: int = 100
    at: int = 0

    def advance(self, deadline_seconds: float | None) -> Measurement | None:
        if deadline_seconds is not None and deadline_seconds <= 0:
            raise BudgetExceeded("stopped after 9 s: the time budget left was 0 s")
        if self.problem is not None and self.at == self.breaks_at:
            raise self.problem
        begin, self.at = self.at, self.at + BLOCK
        some = self.measured.observations[begin : self.at]
        if not some:
            return None
        self.log.append(self.task)
        return replace(self.measured, observations=some, n_reached=len(some), planned_tokens=self.tokens)

    def end(self) -> None:
        self.log.append(f"end {self.task}")


@dataclass
class FakeCollector:
    """Hands out baselines and streams; counts what was asked of it."""

    baselines: dict[str, Measurement]
    candidates: dict[str, Measurement]
    log: list[str] = field(default_factory=list)
    breaks: dict[str, tuple[int, Exception]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    dropped: int = 0

    def of_baseline(self, source: str, settings: policy.Stage, seconds_left: object) -> Evidence:
        return Evidence(measurement=self.baselines[source], artifacts=Path(), from_store=True)

    def of_candidate(self, settings: policy.Stage, artifacts: Path) -> FakeStream:
        assert isinstance(settings, LmEvalStage)
        task = settings.tasks[0].task
        at, problem = self.breaks.pop(task, (None, None))
        return FakeStream(task, self.candidates[task], self.log, at, problem, self.tokens.get(task, 100))

    def drop_workers(self) -> None:
        self.dropped += 1


def never(k: int) -> bool:
    return False


def often(k: int) -> bool:
    return k % 4 == 0


def run(
    collector: FakeCollector,
    stage: LmEvalStage,
    *,
    keep_going: bool = False,
    stop_early: bool = True,
    seconds: Iterator[float] | None = None,
    waived: frozenset[str] = frozenset(),
) -> StageRun:
    rules = planned_rules(Policy(version=1, stages=[stage]), {})
    return run_stage(
        cast(Collector, collector),
        stage,
        rules,
        terms=gate_wide(0.95, len(rules), SEED),
        broken={},
        stop_early=stop_early,
        keep_going=keep_going,
        monotonic=lambda: 0.0,
        run_seconds_left=lambda: None if seconds is None else next(seconds),
        waived=waived,
    )


def collector_of(**wrong: Callable[[int], bool]) -> FakeCollector:
    return FakeCollector(
        baselines={task: whole(BASELINE, task, never) for task in wrong},
        candidates={task: whole(CANDIDATE, task, w) for task, w in wrong.items()},
    )


def statuses(result: StageResult) -> dict[str, Status]:
    return {f.rule.source: f.status for f in result.findings}


def test_a_settled_task_is_measured_no_further() -> None:
    collector = collector_of(a=never)
    ended = run(collector, stage_of("a"))
    assert statuses(ended.result) == {"a": Status.PASS}
    assert ended.result.items_scored == BLOCK * collector.log.count("a") < N
    assert ended.result.items_available == N
    assert collector.log[-1] == "end a"
    assert ended.result.findings[0].n_paired == ended.result.items_scored


def test_stop_early_false_measures_everything_and_finds_the_same() -> None:
    early, late = (run(collector_of(a=never), stage_of("a"), stop_early=e) for e in (True, False))
    assert late.result.items_scored == N
    assert late.result.findings == early.result.findings


def test_tasks_take_turns_where_the_fewest_tokens_were_planned() -> None:
    collector = collector_of(a=never, b=never)
    collector.tokens = {"a": 300, "b": 100}
    run(collector, stage_of("a", "b"))
    turns = [t for t in collector.log if not t.startswith("end")]
    assert turns[:5] == ["a", "b", "b", "b", "a"]  # ties go to the first; then b is settled


def test_a_regression_stops_the_other_tasks_too() -> None:
    collector = collector_of(a=often, b=never)
    ended = run(collector, stage_of("a", "b", bound="3pp"))
    assert statuses(ended.result) == {"a": Status.REGRESSION, "b": Status.INCONCLUSIVE}
    assert ended.result.status is Status.REGRESSION
    assert collector.log.count("b") <= collector.log.count("a") < N // BLOCK
    going = run(collector_of(a=often, b=never), stage_of("a", "b", bound="3pp"), keep_going=True)
    assert statuses(going.result) == {"a": Status.REGRESSION, "b": Status.PASS}


def test_a_later_task_may_be_skipped_before_its_first_item() -> None:
    collector = collector_of(a=often, b=never)
    collector.tokens = {"a": 1, "b": 10**9}
    collector.breaks = {"b": (0, CouldNotMeasure("no such column"))}
    ended = run(collector, stage_of("b", "a", bound="3pp"))
    assert statuses(ended.result) == {"b": Status.ERROR, "a": Status.SKIPPED}
    assert "an earlier rule" in ended.result.findings[1].reason


def test_the_verdict_does_not_depend_on_who_shares_the_stage() -> None:
    alone = run(collector_of(a=never), stage_of("a"))
    rules = planned_rules(Policy(version=1, stages=[stage_of("a")]), {})
    assert len(rules) == 1
    together = run(collector_of(a=never, b=lambda k: k % 31 == 0), stage_of("a", "b"), keep_going=True)
    one, other = alone.result.findings[0], together.result.findings[0]
    assert (one.counts, one.status) == (other.counts, other.status)


def test_time_running_out_keeps_what_was_settled_and_says_so_of_the_rest() -> None:
    collector = collector_of(a=never, b=lambda k: k % 20 == 0)
    left = iter([1.0] * 12 + [0.0] * 100)
    ended = run(collector, stage_of("a", "b"), seconds=left)
    found = {f.rule.source: f for f in ended.result.findings}
    assert found["a"].status is Status.PASS
    assert found["b"].status is Status.INCONCLUSIVE
    assert found["b"].counts["reached"] == found["b"].n_paired > 0
    assert "time budget" in found["b"].reason


def test_time_running_out_before_the_first_item_is_an_error() -> None:
    ended = run(collector_of(a=never), stage_of("a"), seconds=iter([0.0] * 100))
    assert statuses(ended.result) == {"a": Status.ERROR}
    assert "time budget" in ended.result.findings[0].reason


def test_a_worker_that_dies_is_an_error_and_the_other_task_starts_over() -> None:
    collector = collector_of(a=never, b=never)
    collector.breaks = {"a": (BLOCK, WorkerError("the candidate worker died", kind="crashed", stderr_tail="oops"))}
    ended = run(collector, stage_of("a", "b"), keep_going=True)
    assert statuses(ended.result) == {"a": Status.ERROR, "b": Status.PASS}
    assert collector.dropped == 1
    assert "oops" in ended.result.findings[0].reason
    fresh = run(collector_of(b=never), stage_of("b"))
    assert ended.result.findings[1].counts == fresh.result.findings[0].counts


def test_a_worker_that_dies_ends_the_stage_unless_asked_to_go_on() -> None:
    collector = collector_of(a=never, b=never)
    collector.breaks = {"a": (0, WorkerError("the candidate worker died", kind="crashed", stderr_tail=""))}
    ended = run(collector, stage_of("a", "b"))
    assert statuses(ended.result) == {"a": Status.ERROR, "b": Status.SKIPPED}


def test_lost_items_end_the_task_as_an_error() -> None:
    collector = collector_of(a=never)
    measured = collector.candidates["a"]
    collector.candidates["a"] = replace(measured, observations=measured.observations[:40] + measured.observations[41:])
    ended = run(collector, stage_of("a"), stop_early=False)
    assert statuses(ended.result) == {"a": Status.ERROR}
    assert "1 of 640 items could not be measured" in ended.result.findings[0].reason


def test_a_corpus_after_a_red_one_is_skipped_by_name() -> None:
    corpora = [{"name": n, "path": f"{n}.txt"} for n in ("one", "two")]
    rules = [{"metric": "accuracy", "max_drop": "3pp"}]
    document = {"kind": "perplexity", "name": "sanity", "corpora": corpora, "rules": rules}
    (stage,) = Policy.model_validate({"version": 1, "stages": [document]}).stages
    measured = {
        role: replace(whole(role, "one", often if role is CANDIDATE else never), stage="sanity") for role in Role
    }
    collector = FakeCollector(baselines={"one": measured[BASELINE]}, candidates={"one": measured[CANDIDATE]})
    collector.of_candidate = lambda settings, artifacts: FakeStream("one", measured[CANDIDATE], [])  # type: ignore[method-assign]
    ended = run(collector, cast(LmEvalStage, stage))
    assert statuses(ended.result) == {"one": Status.REGRESSION, "two": Status.SKIPPED}


@pytest.mark.parametrize("severity", ["blocking", "advisory"])
def test_advisory_rules_alone_govern_and_never_stop_anything(severity: str) -> None:
    collector = collector_of(a=often, b=never)
    ended = run(collector, stage_of("a", "b", bound="3pp", severity=severity))
    assert statuses(ended.result)["a"] is Status.REGRESSION
    b_was_finished = statuses(ended.result)["b"] is Status.PASS
    assert b_was_finished is (severity == "advisory")


def test_what_breaks_while_only_advising_leaves_the_rest_alone() -> None:
    collector = collector_of(a=never)
    stage = stage_of("a", "b")
    b = stage.tasks[1].model_copy(
        update={"rules": [stage.tasks[1].rules[0].model_copy(update={"severity": "advisory"})]}
    )
    stage = stage.model_copy(update={"tasks": [stage.tasks[0], b]})
    rules = planned_rules(Policy(version=1, stages=[stage]), {})
    ended = run_stage(
        cast(Collector, collector),
        stage,
        rules,
        terms=gate_wide(0.95, 1, SEED),
        broken={"b": CouldNotMeasure("no documents")},
        stop_early=True,
        keep_going=False,
        monotonic=lambda: 0.0,
        run_seconds_left=lambda: None,
    )
    assert statuses(ended.result) == {"a": Status.PASS, "b": Status.ERROR}
    assert ended.result.status is Status.PASS


def test_a_worker_that_dies_while_it_waits_costs_nothing() -> None:
    collector = collector_of(a=never)
    begin = collector.of_candidate

    def dying(settings: policy.Stage, artifacts: Path) -> FakeStream:
        stream = begin(settings, artifacts)
        problem = WorkerError("the candidate worker died", kind="crashed", stderr_tail="")
        stream.end = lambda: (_ for _ in ()).throw(problem)  # type: ignore[method-assign]
        return stream

    collector.of_candidate = dying  # type: ignore[method-assign]
    assert statuses(run(collector, stage_of("a")).result) == {"a": Status.PASS}


def test_the_other_tasks_keep_their_evidence_when_a_worker_dies() -> None:
    collector = collector_of(a=lambda k: k % 20 == 0, b=never)
    collector.breaks = {"b": (BLOCK, WorkerError("the candidate worker died", kind="crashed", stderr_tail=""))}
    ended = run(collector, stage_of("a", "b"))
    found = {f.rule.source: f for f in ended.result.findings}
    assert (found["b"].status, found["a"].status) == (Status.ERROR, Status.INCONCLUSIVE)
    assert found["a"].n_paired > 0


def grouped(collector: FakeCollector, task: str, names: str) -> None:
    """Items of the task belong to groups by turns."""
    for side in (collector.baselines, collector.candidates):
        observations = tuple(
            replace(o, group=names[int(o.item_id.split("/")[1]) % len(names)]) for o in side[task].observations
        )
        side[task] = replace(side[task], observations=observations)


def rail(*more: dict[str, Any]) -> LmEvalStage:
    by = {"metric": "accuracy", "max_drop": "10pp", "by": "subject"}
    task = {"task": "a", "rules": [by, *more]}
    document = {"version": 1, "stages": [{"kind": "lm_eval", "name": "capability", "tasks": [task]}]}
    (stage,) = Policy.model_validate(document).stages
    return cast(LmEvalStage, stage)


@pytest.mark.parametrize("beside", [(), ({"metric": "accuracy", "max_drop": "30pp", "severity": "advisory"},)])
def test_an_advisory_rule_does_not_switch_off_a_blocking_guard_rail(beside: tuple[dict[str, Any], ...]) -> None:
    collector = collector_of(a=never)
    grouped(collector, "a", "xy")
    wrong = {o.item_id for o in collector.candidates["a"].observations if o.group == "y"}
    spoilt = tuple(
        replace(o, value=0.0) if o.item_id in wrong and int(o.item_id.split("/")[1]) % 3 == 0 else o
        for o in collector.candidates["a"].observations
    )
    collector.candidates["a"] = replace(collector.candidates["a"], observations=spoilt)
    ended = run(collector, rail(*beside))
    assert ended.result.status is Status.REGRESSION
    assert ended.result.items_scored == N


def test_a_guard_rail_that_ran_out_of_time_is_no_pass() -> None:
    collector = collector_of(a=never)
    grouped(collector, "a", "xy")
    ended = run(collector, rail(), seconds=iter([1.0] + [0.0] * 100))
    (finding,) = ended.result.findings
    assert finding.status is Status.INCONCLUSIVE
    assert finding.counts["reached"] > 0
    assert ended.result.status is Status.INCONCLUSIVE


def test_a_guard_rail_cut_short_is_no_pass_beside_a_rule_that_was_settled() -> None:
    """Every item was to be measured, and the clock ended it."""
    collector = collector_of(a=never)
    grouped(collector, "a", "xy")
    beside = {"metric": "accuracy", "max_drop": "30pp"}
    ended = run(collector, rail(beside), stop_early=False, seconds=iter([1.0] + [0.0] * 100))
    by, plain = ended.result.findings
    assert (plain.status, by.status) == (Status.PASS, Status.INCONCLUSIVE)
    assert by.counts["reached"] == BLOCK
    assert ended.result.status is Status.INCONCLUSIVE
