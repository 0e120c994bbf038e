"""Holm's step-down over a run: what one REGRESSION frees, and what it never touches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide.combine import REACHED
from gate.decide.control import step_down
from gate.decide.estimate import decide
from gate.records import Finding, Rule, Severity, Status
from tests.decide_factory import finding, rule

PLANNED = tuple(rule("max_drop 3pp", id=f"r{i}") for i in range(5))


def found(of: Rule, status: Status, p: float | None, **changes: object) -> Finding:
    whole = finding(of, status, estimate=0.03)
    assert whole.interval is None or whole.interval.valid == "fixed_n"
    return replace(whole, p_value=p, **changes)  # type: ignore[arg-type]


def stepped(*findings: Finding) -> list[Status]:
    return [f.status for f in step_down(findings, PLANNED, 0.95)]


INCONCLUSIVE, PASS, REGRESSION, ERROR = Status.INCONCLUSIVE, Status.PASS, Status.REGRESSION, Status.ERROR


def test_without_a_regression_nothing_moves() -> None:
    assert stepped(found(PLANNED[0], INCONCLUSIVE, 0.011)) == [INCONCLUSIVE]


def test_each_rejection_frees_some_for_the_next() -> None:
    red = found(PLANNED[0], REGRESSION, 0.001)
    next_, third, fourth = (found(PLANNED[i], INCONCLUSIVE, p) for i, p in ((1, 0.0124), (2, 0.0166), (3, 0.026)))
    assert stepped(red, fourth, third, next_) == [REGRESSION, INCONCLUSIVE, REGRESSION, REGRESSION]
    assert stepped(red, third) == [REGRESSION, INCONCLUSIVE]  # 0.05/4 < 0.0166: nothing between them was rejected


def test_what_moved_says_at_which_level_and_why() -> None:
    red, other = found(PLANNED[0], REGRESSION, 0.001), found(PLANNED[1], INCONCLUSIVE, 0.012)
    _, moved = step_down([red, other], PLANNED, 0.95)
    assert moved.status is REGRESSION
    assert moved.interval is not None
    assert moved.interval.fail_confidence == pytest.approx(1 - 0.05 / 4)
    assert decide((moved.interval.low, moved.interval.high), moved.rule.bound) is REGRESSION
    assert moved.interval.low <= (moved.estimate or 0) <= moved.interval.high
    assert moved.reason == (
        "beyond the bound 3pp (98.75% sure, which is enough once another rule has failed: Holm's step-down); by "
        "itself, because the test says so"
    )
    lower = rule("min_retained 97%", id="r1")
    of_ratio = replace(other, rule=lower, estimate=0.97, interval=replace(other.interval, low=0.9, high=0.98))  # type: ignore[type-var]
    _, ratio = step_down([red, of_ratio], PLANNED, 0.95)
    assert ratio.interval is not None
    assert ratio.interval.low == 0.9
    assert ratio.interval.high < 0.97


def test_a_pass_an_error_and_a_guard_rail_are_never_touched() -> None:
    red = found(PLANNED[0], REGRESSION, 0.0)
    member = finding(PLANNED[1], PASS)
    rail = found(PLANNED[2], INCONCLUSIVE, 0.0001)
    rail = replace(rail, members=(_member(member),))
    rest = [found(PLANNED[1], PASS, 0.0), rail, found(PLANNED[3], ERROR, None), found(PLANNED[4], INCONCLUSIVE, None)]
    assert list(step_down([red, *rest], PLANNED, 0.95)) == [red, *rest]


def test_an_estimate_on_what_happened_to_be_reached_is_no_test() -> None:
    red = found(PLANNED[0], REGRESSION, 0.0)
    cut = found(PLANNED[1], INCONCLUSIVE, 0.0001, counts={REACHED: 40.0})
    assert stepped(red, cut) == [REGRESSION, INCONCLUSIVE]
    assert cut.interval is not None
    anytime = replace(cut, interval=replace(cut.interval, valid="anytime"))
    assert stepped(red, anytime) == [REGRESSION, REGRESSION]


def test_advice_neither_counts_nor_moves() -> None:
    advice = rule("max_drop 3pp", id="advice", severity=Severity.ADVISORY)
    red, other = found(PLANNED[0], REGRESSION, 0.001), found(PLANNED[1], INCONCLUSIVE, 0.0124)
    bad = found(advice, REGRESSION, 0.0), found(advice, INCONCLUSIVE, 0.0)
    plain = step_down([red, other], PLANNED, 0.95)
    assert step_down([red, other, *bad], [*PLANNED, advice], 0.95) == (*plain, *bad)
    assert step_down([bad[0], other], [*PLANNED, advice], 0.95) == (bad[0], other)


def test_rules_without_a_finding_still_count() -> None:
    red, other = found(PLANNED[0], REGRESSION, 0.001), found(PLANNED[1], INCONCLUSIVE, 0.02)
    assert stepped(red, other) == [REGRESSION, INCONCLUSIVE]
    two = step_down([red, other], PLANNED[:2], 0.95)
    assert two[1].status is REGRESSION
    with pytest.raises(ValueError, match="expected at most 1"):
        step_down([red, replace(red)], PLANNED[:1], 0.95)


def _member(of: Finding):  # type: ignore[no-untyped-def]
    from gate.records import Member

    return Member(
        group="g",
        baseline=of.baseline,
        candidate=of.candidate,
        estimate=of.estimate,
        interval=of.interval,
        n_paired=10,
        status=of.status,
    )
