"""Findings → stage → run: precedence, what was planned, and exit codes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide.combine import REACHED, Decision, combine, exit_code, stage_status, stops
from gate.records import Finding, Rule, Severity, StageResult, Status
from tests.decide_factory import finding, rule, stage

A, B, C = (rule("max_drop 3pp", id=i, stage=f"stage {i}") for i in "abc")
ADVISORY = rule("max_drop 3pp", id="advice", stage="stage a", severity=Severity.ADVISORY)
RAIL = rule("max_drop 10pp", id="rail", stage="stage a", by="category")
PASS, REGRESSION, INCONCLUSIVE, ERROR, REFUSED, SKIPPED = Status


def results(*statuses: Status) -> tuple[StageResult, ...]:
    """Stages a, b, c with one blocking finding each; SKIPPED ones have none."""
    made = []
    for of, status in zip((A, B, C), statuses, strict=False):
        if status is SKIPPED:
            made.append(stage(of.stage, status, because="stage a ended in REGRESSION"))
        else:
            made.append(stage(of.stage, status, [finding(of, status)]))
    return tuple(made)


def decided(*statuses: Status, planned: tuple[Rule, ...] = (A, B, C), restricted: bool = False) -> Decision:
    return combine(planned, results(*statuses), restricted)


class TestPrecedence:
    @pytest.mark.parametrize(
        ("statuses", "expected", "deciding"),
        [
            ((PASS, PASS, PASS), PASS, ("a", "b", "c")),
            ((PASS, INCONCLUSIVE, PASS), INCONCLUSIVE, ("b",)),
            ((REGRESSION, INCONCLUSIVE, PASS), REGRESSION, ("a",)),
            ((REGRESSION, ERROR, PASS), ERROR, ("b",)),
            ((ERROR, SKIPPED, SKIPPED), ERROR, ("a",)),
            ((REGRESSION, SKIPPED, SKIPPED), REGRESSION, ("a",)),
            ((PASS, REGRESSION, SKIPPED), REGRESSION, ("b",)),
            ((REGRESSION, ERROR, SKIPPED), ERROR, ("b",)),
            ((REGRESSION, REFUSED, ERROR), REFUSED, ("b",)),
            ((PASS, PASS, SKIPPED), INCONCLUSIVE, ("c",)),
            ((INCONCLUSIVE, SKIPPED, PASS), INCONCLUSIVE, ("a", "b")),
            ((SKIPPED, SKIPPED, SKIPPED), INCONCLUSIVE, ("a", "b", "c")),
        ],
    )
    def test_table(self, statuses: tuple[Status, ...], expected: Status, deciding: tuple[str, ...]) -> None:
        complete = SKIPPED not in statuses and ERROR not in statuses and REFUSED not in statuses
        assert decided(*statuses) == Decision(status=expected, deciding=deciding, complete=complete)

    def test_a_regression_that_stopped_the_run_outranks_an_error_beside_it(self) -> None:
        other = rule("max_drop 3pp", id="a2", stage="stage a")
        first = stage("stage a", ERROR, [finding(A, REGRESSION), finding(other, ERROR)])
        stopped = (first, *results(PASS, SKIPPED)[1:])
        assert combine((A, other, B), stopped, restricted=False).deciding == ("a",)
        went_on = (first, *results(PASS, PASS)[1:])
        assert combine((A, other, B), went_on, restricted=False).status is ERROR

    def test_a_regression_that_stopped_its_own_stage(self) -> None:
        late = rule("max_drop 3pp", id="late", stage="stage a")
        broken = rule("max_drop 3pp", id="broken", stage="stage a")
        only = stage("stage a", ERROR, [finding(broken, ERROR), finding(A, REGRESSION), finding(late, SKIPPED)])
        assert combine((broken, A, late), (only,), restricted=False).status is REGRESSION

    def test_a_refused_stage_without_findings(self) -> None:
        refused = (stage("intake", REFUSED), *results(PASS, PASS, PASS))
        assert combine((A, B, C), refused, restricted=False).status is REFUSED


class TestPlanned:
    def test_nothing_configured_is_an_error(self) -> None:
        assert combine((), (), restricted=False) == Decision(status=ERROR, deciding=(), complete=False)
        advice_only = (stage("stage a", PASS, [finding(ADVISORY, PASS)]),)
        assert combine((ADVISORY,), advice_only, restricted=False).status is ERROR

    def test_a_missing_stage_is_an_error(self) -> None:
        assert decided(PASS, PASS) == Decision(status=ERROR, deciding=("c",), complete=False)

    def test_a_finding_nobody_planned_still_blocks(self) -> None:
        found = decided(PASS, REGRESSION, planned=(A,))
        assert found == Decision(status=REGRESSION, deciding=("b",), complete=True)

    def test_two_findings_of_one_rule_count_as_the_worse(self) -> None:
        twice = stage("stage a", PASS, [finding(A, PASS), finding(A, REGRESSION), finding(A, PASS)])
        assert combine((A,), (twice,), restricted=False).status is REGRESSION

    @pytest.mark.parametrize("status", [PASS, REGRESSION, INCONCLUSIVE, ERROR])
    def test_advisory_findings_never_decide(self, status: Status) -> None:
        first = stage("stage a", PASS, [finding(A, PASS), finding(ADVISORY, status)])
        found = combine((A, ADVISORY), (first,), restricted=False)
        assert found == Decision(status=PASS, deciding=("a",), complete=True)

    def test_an_advisory_rule_without_a_finding_is_no_error(self) -> None:
        assert combine((A, ADVISORY), results(PASS), restricted=False).status is PASS


class TestGuardRails:
    def run(self, rail: Status, other: Status | None = PASS) -> Status:
        findings = [finding(RAIL, rail)] + ([] if other is None else [finding(A, other)])
        planned = (RAIL,) if other is None else (RAIL, A)
        return combine(planned, (stage("stage a", PASS, findings),), restricted=False).status

    def test_no_evidence_does_not_block(self) -> None:
        assert self.run(INCONCLUSIVE) is PASS

    def test_evidence_does(self) -> None:
        assert self.run(REGRESSION) is REGRESSION
        assert self.run(ERROR) is ERROR

    def test_alone_and_without_evidence_nothing_was_shown(self) -> None:
        assert self.run(INCONCLUSIVE, other=None) is INCONCLUSIVE
        assert self.run(PASS, other=None) is PASS

    def test_alone_it_decides_the_run_that_it_leaves_undecided(self) -> None:
        found = combine((RAIL,), (stage("stage a", INCONCLUSIVE, [finding(RAIL, INCONCLUSIVE)]),), restricted=False)
        assert found == Decision(status=INCONCLUSIVE, deciding=("rail",), complete=True)

    def test_one_that_ran_out_of_time_is_no_absence_of_evidence(self) -> None:
        late = replace(finding(RAIL, INCONCLUSIVE), counts={"N": 400, REACHED: 30})
        found = combine((RAIL, A), (stage("stage a", PASS, [late, finding(A, PASS)]),), restricted=False)
        assert found == Decision(status=INCONCLUSIVE, deciding=("rail",), complete=False)
        assert exit_code(found.status, "warn", complete=found.complete) == 3

    def test_it_hides_nothing(self) -> None:
        assert self.run(INCONCLUSIVE, other=INCONCLUSIVE) is INCONCLUSIVE


class TestRestricted:
    def test_never_a_pass(self) -> None:
        holds = decided(PASS, PASS, PASS, restricted=True)
        assert holds == Decision(status=INCONCLUSIVE, deciding=("a", "b", "c"), complete=False)
        assert decided(PASS, restricted=True).status is INCONCLUSIVE

    def test_what_was_asked_decides_and_what_was_not_only_where_nothing_was(self) -> None:
        for asked in (PASS, INCONCLUSIVE):
            found = decided(asked, SKIPPED, SKIPPED, restricted=True)
            assert found == Decision(status=INCONCLUSIVE, deciding=("a",), complete=False)
        nothing = decided(SKIPPED, SKIPPED, SKIPPED, restricted=True)
        assert nothing == Decision(status=INCONCLUSIVE, deciding=("a", "b", "c"), complete=False)

    @pytest.mark.parametrize("status", [PASS, INCONCLUSIVE])
    def test_warn_does_not_turn_it_green(self, status: Status) -> None:
        found = decided(status, SKIPPED, SKIPPED, restricted=True)
        assert exit_code(found.status, "warn", complete=found.complete) == 3

    @pytest.mark.parametrize("status", [REGRESSION, ERROR])
    def test_but_red(self, status: Status) -> None:
        assert decided(SKIPPED, status, SKIPPED, restricted=True).status is status

    def test_stages_that_were_not_selected_were_not_stopped(self) -> None:
        other = rule("max_drop 3pp", id="a2", stage="stage a")
        first = stage("stage a", ERROR, [finding(A, REGRESSION), finding(other, ERROR)])
        assert combine((A, other, B), (first, *results(PASS, SKIPPED)[1:]), restricted=True).status is ERROR


class TestStage:
    @pytest.mark.parametrize(
        ("findings", "expected"),
        [
            ([], ERROR),
            ([finding(A, PASS)], PASS),
            ([finding(A, PASS), finding(B, INCONCLUSIVE)], INCONCLUSIVE),
            ([finding(A, REGRESSION), finding(B, INCONCLUSIVE)], REGRESSION),
            ([finding(A, REGRESSION), finding(B, ERROR)], ERROR),
            ([finding(A, ERROR), finding(B, REFUSED)], REFUSED),
            ([finding(A, PASS), finding(B, SKIPPED)], INCONCLUSIVE),
            ([finding(A, PASS), finding(RAIL, INCONCLUSIVE)], PASS),
            ([finding(RAIL, INCONCLUSIVE)], INCONCLUSIVE),
            ([finding(A, PASS), finding(ADVISORY, REGRESSION)], PASS),
            ([finding(ADVISORY, REGRESSION)], PASS),
            ([finding(ADVISORY, ERROR)], ERROR),
            ([finding(ADVISORY, ERROR), finding(ADVISORY, PASS)], PASS),
            ([finding(ADVISORY, ERROR), finding(ADVISORY, SKIPPED)], INCONCLUSIVE),
        ],
    )
    def test_table(self, findings: list[Finding], expected: Status) -> None:
        assert stage_status(findings) is expected

    def test_only_a_red_stage_with_a_blocking_rule_stops_the_run(self) -> None:
        for status in (REGRESSION, ERROR, REFUSED):
            assert stops(stage("stage a", status, [finding(A, status), finding(ADVISORY, PASS)]))
            assert stops(stage("stage a", status))
        assert not stops(stage("stage a", ERROR, [finding(ADVISORY, ERROR)]))
        assert not stops(stage("stage a", INCONCLUSIVE, [finding(A, INCONCLUSIVE)]))

    def test_an_advisory_stage_that_broke_leaves_the_verdict_alone(self) -> None:
        broken = stage("stage x", ERROR, [finding(ADVISORY, ERROR)])
        found = combine((ADVISORY, A), (broken, *results(PASS)), restricted=False)
        assert found == Decision(status=PASS, deciding=("a",), complete=True)


def test_worst_first() -> None:
    near, far = finding(B, REGRESSION, estimate=0.05, half=0.01), finding(A, REGRESSION, estimate=0.2, half=0.01)
    stages = (stage("stage b", REGRESSION, [near]), stage("stage a", REGRESSION, [far]))
    assert combine((B, A), stages, restricted=False).deciding == ("a", "b")


@pytest.mark.parametrize(
    ("status", "fail", "warn"),
    [(PASS, 0, 0), (REGRESSION, 1, 1), (INCONCLUSIVE, 3, 0), (ERROR, 4, 4), (REFUSED, 5, 5)],
)
def test_exit_codes(status: Status, fail: int, warn: int) -> None:
    assert exit_code(status, "fail", complete=True) == fail
    assert exit_code(status, "warn", complete=True) == warn
    # `warn` accepts statistical doubt, not evidence that never came to be
    assert exit_code(status, "warn", complete=False) == fail


def test_exit_codes_know_no_other_words() -> None:
    with pytest.raises(ValueError, match="found SKIPPED for a run"):
        exit_code(SKIPPED, "fail", complete=True)
    with pytest.raises(ValueError, match="found on_inconclusive 'ignore'"):
        exit_code(PASS, "ignore", complete=True)
