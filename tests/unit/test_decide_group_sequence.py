"""Guard rails over groups whose items came in a seeded order: e-values, which hold wherever the stage ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide.judge import judge
from gate.records import Measurement, Status
from tests.decide_factory import failure
from tests.sequence_factory import FINISHED, ONE_RULE, ids, of_differences, rule, some_lost

BY = rule("max_drop 5pp", by="subject")


def grouped(d: list[int], n_groups: int, reached: int | None = None) -> tuple[Measurement, Measurement]:
    """Item i of the seeded order belongs to group i mod `n_groups`."""
    names = {item_id: f"g{i % n_groups}" for i, item_id in enumerate(ids(len(d)))}
    baseline, candidate = (
        replace(m, observations=tuple(replace(o, group=names[o.item_id]) for o in m.observations))
        for m in of_differences(d, reached=reached)
    )
    return baseline, candidate


def test_one_bad_group_is_red_wherever_the_stage_ended() -> None:
    d = [-1 if i % 4 == 1 and i % 8 == 1 else 0 for i in range(1200)]  # every second item of g1
    for reached in (320, 321, 900, 1200):
        found = judge(BY, *grouped(d, 4, reached), ONE_RULE)
        assert found.status is Status.REGRESSION
        assert [m.group for m in found.members if m.status is Status.REGRESSION] == ["g1"]
        assert found.interval is not None
        assert (found.interval.method, found.interval.valid) == ("betting", "anytime")
        assert found.p_value is not None
        assert found.p_value < 0.05 / 4


def test_finished_results_are_judged_by_p_values() -> None:
    d = [-1 if i % 8 == 1 else 0 for i in range(1200)]
    found = judge(BY, *grouped(d, 4), FINISHED)
    assert found.status is Status.REGRESSION
    assert found.interval is not None
    assert found.interval.valid == "fixed_n"


def test_lossless_groups_are_not_red() -> None:
    d = [(-1, 1)[i // 25 % 2] if i % 25 == 0 else 0 for i in range(1000)]
    for n_groups in (3, 30):  # Holm, Benjamini and Hochberg
        assert judge(BY, *grouped(d, n_groups), ONE_RULE).status is not Status.REGRESSION


def test_an_item_that_nobody_scored_may_belong_to_any_group() -> None:
    """Found: it belonged to none, so that a group could pass on what was left of it."""
    n = 800
    baseline, candidate = grouped([0] * n, 2)
    gone = set(ids(n)[:40])
    b, c = (
        replace(
            m,
            observations=tuple(o for o in m.observations if o.item_id not in gone),
            failures=tuple(failure(i) for i in sorted(gone)),
        )
        for m in (baseline, candidate)
    )
    of = replace(BY, max_lost=some_lost(40))
    whole, less = judge(of, baseline, candidate, ONE_RULE), judge(of, b, c, ONE_RULE)
    assert whole.status is Status.PASS
    assert less.status is Status.INCONCLUSIVE
    assert whole.interval is not None
    assert less.interval is not None
    assert less.interval.high > 0.05 > whole.interval.high
    assert judge(BY, b, c, ONE_RULE).status is Status.ERROR


@pytest.mark.parametrize("text", ["max_drop 5pp", "min_retained 90%", "min 0.5", "max 0.4"])
def test_every_bound_holds_its_estimate(text: str) -> None:
    d = [-1 if i % 7 == 0 else 0 for i in range(300)]
    found = judge(rule(text, by="subject"), *grouped(d, 3, 200), ONE_RULE)
    for member in found.members:
        assert member.interval is not None
        assert member.estimate is not None
        assert member.interval.low <= member.estimate <= member.interval.high
