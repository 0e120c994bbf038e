"""Lost items under the sequential rule: both extremes must agree, and none of them is taken for one to come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide.judge import judge
from gate.decide.walk import START, plan, settled, step
from gate.records import Status
from tests.sequence_factory import ONE_RULE, entries, of_differences, roles, rule, some_lost

DROP = rule("max_drop 3pp")


class TestLostItems:
    def test_both_extremes_must_agree(self) -> None:
        b, c = [1.0] * 200, [1.0] * 200
        c_lost: list[float | None] = [None, None, None, *c[3:]]
        strict = judge(rule("max_drop 1pp", max_lost=some_lost(3)), *roles(b, c_lost), ONE_RULE)
        assert strict.status is Status.INCONCLUSIVE  # 3 of 200 may be wrong: more than 2
        assert strict.interval is not None
        assert strict.interval.low <= 0
        assert strict.interval.high == pytest.approx(0.015)
        assert "for instance" in strict.reason
        assert judge(rule("max_drop 2pp", max_lost=some_lost(3)), *roles(b, c_lost), ONE_RULE).status is Status.PASS
        assert judge(rule("max_drop 1pp"), *roles(b, c_lost), ONE_RULE).status is Status.ERROR
        assert judge(rule("max_drop 1pp"), *of_differences([0] * 200), ONE_RULE).status is Status.PASS

    @pytest.mark.parametrize(("gains", "text", "t"), [(8, "max_drop 3pp", 160), (4, "max_drop 1pp", 544)])
    def test_losing_what_was_gained_is_no_way_to_pass_earlier(self, gains: int, text: str, t: int) -> None:
        """Found: without its first gains the sequence looked calmer, bets grew, and a PASS came a block earlier."""
        d = [1] * gains + [0] * (3000 - gains)
        of = rule(text, max_lost=some_lost(gains))
        baseline, candidate = of_differences(d, reached=t)
        less = replace(candidate, observations=candidate.observations[gains:])
        assert judge(of, baseline, candidate, ONE_RULE).status is Status.INCONCLUSIVE
        found = judge(of, baseline, less, ONE_RULE)
        assert (found.status, found.n_lost) == (Status.INCONCLUSIVE, gains)
        whole = of_differences(d)
        later = judge(of, whole[0], replace(whole[1], observations=whole[1].observations[gains:]), ONE_RULE)
        assert later.status is judge(of, *whole, ONE_RULE).status is Status.PASS

    def test_what_an_extreme_said_first_stays_said(self) -> None:
        of = rule("max_drop 3pp", max_lost=some_lost(1))
        tested = plan(of, [1.0] * 32, ONE_RULE, integral=True)
        wrong = replace(START, said=("fail", None))
        state = step(wrong, tested, entries([0] * 32))
        assert state.said == ("fail", "pass")
        assert settled(state, tested) == "cap"  # they will never agree

    def test_an_item_not_yet_asked_is_not_lost(self) -> None:
        found = judge(DROP, *of_differences([0] * 1000, reached=64), ONE_RULE)
        assert (found.n_lost, found.n_paired) == (0, 64)

    def test_an_item_that_nobody_names_is_not_one_to_come(self) -> None:
        baseline, candidate = of_differences([0] * 1000)
        longer = [replace(m, n_expected=1001, n_reached=1001) for m in (baseline, candidate)]
        found = judge(DROP, longer[0], longer[1], ONE_RULE)
        assert (found.status, found.n_lost) == (Status.ERROR, 1)
        allowed = judge(rule("max_drop 3pp", max_lost=some_lost(1)), longer[0], longer[1], ONE_RULE)
        assert (allowed.status, allowed.n_lost) == (Status.PASS, 1)
