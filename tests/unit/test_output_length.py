"""Lengths of answers: paired by item, with the interval of a ratio of means, and named outside the policy's range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from gate.decide.output_length import lengths
from gate.policy import Policy
from gate.records import Measurement, OutputLength, Role
from gate.stats import mean_ratio
from tests import profile_factory as made

POLICY = made.policy(made.stage())


def answered(
    role: Role, tokens: Mapping[str, float], *, source: str = "fraud", metric: str = "output_tokens"
) -> Measurement:
    seen = [made.observation(metric, item, value) for item, value in tokens.items()]
    return replace(made.measurement(role, seen), stage="fraud", source=source, n_expected=5)


def found(
    baseline: Mapping[str, float], candidate: Mapping[str, float], policy: Policy = POLICY
) -> tuple[OutputLength, ...]:
    return lengths([answered(Role.BASELINE, baseline), answered(Role.CANDIDATE, candidate)], policy, 0.95)


def test_the_ratio_of_the_means_has_its_interval() -> None:
    baseline, candidate = {"a": 10, "b": 20, "c": 30}, {"a": 9, "b": 16, "c": 23}
    (one,) = found(baseline, candidate)
    assert (one.stage, one.source, one.n) == ("fraud", "fraud", 3)
    assert (one.baseline_tokens, one.candidate_tokens, one.ratio) == (20.0, 16.0, 0.8)
    expected = mean_ratio.interval(baseline=[10, 20, 30], candidate=[9, 16, 23], confidence=0.95)
    assert (one.low, one.high) == (expected.low, expected.high)
    assert one.low < 0.8 < one.high
    assert one.outside


@pytest.mark.parametrize(("tokens", "outside"), [(89, True), (90, False), (100, False), (110, False), (111, True)])
def test_outside_is_beyond_either_end_of_the_policys_range(tokens: float, outside: bool) -> None:
    (one,) = found({"a": 100, "b": 100}, {"a": tokens, "b": tokens})
    assert one.outside is outside


def test_the_range_is_the_policys() -> None:
    wide = made.policy(made.stage(), output_length={"min": "50%", "max": "200%"})
    (one,) = found({"a": 100, "b": 100}, {"a": 60, "b": 60}, wide)
    assert not one.outside


def test_only_items_that_both_answered_count() -> None:
    (one,) = found({"a": 10, "b": 20, "c": 1000}, {"a": 10, "b": 20, "d": 5})
    assert (one.n, one.ratio) == (2, 1.0)


def test_what_has_no_ratio_is_left_out() -> None:
    assert found({"a": 10}, {"a": 10}) == ()  # one item has no interval
    assert found({"a": 0, "b": 0}, {"a": 1, "b": 2}) == ()  # nothing to compare with
    assert lengths([answered(Role.CANDIDATE, {"a": 1, "b": 2})], POLICY, 0.95) == ()
    other = answered(Role.CANDIDATE, {"a": 1, "b": 2}, metric="correct")
    assert lengths([answered(Role.BASELINE, {"a": 1, "b": 2}), other], POLICY, 0.95) == ()


def test_sources_pair_with_their_own_baseline() -> None:
    some = [
        answered(role, {"a": tokens, "b": tokens}, source=source)
        for source, pair in (("x", (10, 10)), ("y", (10, 20)))
        for role, tokens in zip(Role, pair, strict=True)
    ]
    assert [(one.source, one.ratio) for one in lengths(some, POLICY, 0.95)] == [("x", 1.0), ("y", 2.0)]


def test_measurements_that_do_not_belong_together_have_no_ratio() -> None:
    baseline, candidate = answered(Role.BASELINE, {"a": 1, "b": 1}), answered(Role.CANDIDATE, {"a": 1, "b": 1})
    assert lengths([baseline, replace(candidate, settings_digest="other")], POLICY, 0.95) == ()
