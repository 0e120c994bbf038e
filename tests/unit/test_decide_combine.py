"""Findings → stage → run: precedence, what was planned, and exit codes."""

from __future__ import annotations

import pytest

from gate.decide.combine import Decision, combine, exit_code, stage_status
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
        assert decided(*statuses) == Decision(status=expected, deciding=deciding)

    def test_a_regression_that_stopped_the_run_outranks_an_error_beside_it(self) -> None:
        other = rule("max_drop 3pp", id="a2", stage="stage a")
        first = stage("stage a", ERROR, [finding(A, REGRESSION), finding(other, ERROR)])
        stopped = (first, *results(PASS, SKIPPED)[1:])
        assert combine((A, other, B), stopped, restricted=False) == Decision(status=REGRESSION, deciding=("a",))
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
        assert combine((), (), restricted=False) == Decision(status=ERROR, deciding=())
        advice_only = (stage("stage a", PASS, [finding(ADVISORY, PASS)]),)
        assert combine((ADVISORY,), advice_only, restricted=False).status is ERROR

    def test_a_missing_stage_is_an_error(self) -> None:
        assert decided(PASS, PASS) == Decision(status=ERROR, deciding=("c",))

    def test_a_finding_nobody_planned_still_blocks(self) -> None:
        assert decided(PASS, REGRESSION, planned=(A,)) == Decision(status=REGRESSION, deciding=("b",))

    def test_two_findings_of_one_rule_count_as_the_worse(self) -> None:
        twice = stage("stage a", PASS, [finding(A, PASS), finding(A, REGRESSION), finding(A, PASS)])
        assert combine((A,), (twice,), restricted=False).status is REGRESSION

    @pytest.mark.parametrize("status", [PASS, REGRESSION, INCONCLUSIVE, ERROR])
    def test_advisory_findings_never_decide(self, status: Status) -> None:
        first = stage("stage a", PASS, [finding(A, PASS), finding(ADVISORY, status)])
        assert combine((A, ADVISORY), (first,), restricted=False) == Decision(status=PASS, deciding=("a",))

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

    def test_it_hides_nothing(self) -> None:
        assert self.run(INCONCLUSIVE, other=INCONCLUSIVE) is INCONCLUSIVE


class TestRestricted:
    def test_never_a_pass(self) -> None:
        assert decided(PASS, PASS, PASS, restricted=True) == Decision(status=INCONCLUSIVE, deciding=("a", "b", "c"))
        assert decided(PASS, SKIPPED, SKIPPED, restricted=True).status is INCONCLUSIVE
        assert decided(PASS, restricted=True).status is INCONCLUSIVE

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
            ([finding(ADVISORY, ERROR)], INCONCLUSIVE),
        ],
    )
    def test_table(self, findings: list[Finding], expected: Status) -> None:
        assert stage_status(findings) is expected


def test_worst_first() -> None:
    near, far = finding(B, REGRESSION, estimate=0.05, half=0.01), finding(A, REGRESSION, estimate=0.2, half=0.01)
    stages = (stage("stage b", REGRESSION, [near]), stage("stage a", REGRESSION, [far]))
    assert combine((B, A), stages, restricted=False).deciding == ("a", "b")


@pytest.mark.parametrize(
    ("status", "fail", "warn"),
    [(PASS, 0, 0), (REGRESSION, 1, 1), (INCONCLUSIVE, 3, 0), (ERROR, 4, 4), (REFUSED, 5, 5)],
)
def test_exit_codes(status: Status, fail: int, warn: int) -> None:
    assert exit_code(status, "fail") == fail
    assert exit_code(status, "warn") == warn


def test_exit_codes_know_no_other_words() -> None:
    with pytest.raises(ValueError, match="found SKIPPED for a run"):
        exit_code(SKIPPED, "fail")
    with pytest.raises(ValueError, match="found on_inconclusive 'ignore'"):
        exit_code(PASS, "ignore")
