"""Flips: the items that exactly one of the two got right, with what was asked and answered."""

from __future__ import annotations

from dataclasses import replace

from gate.decide.flips import flips
from gate.metrics import DOMAIN
from gate.records import Answer, Direction, Measurement
from tests.decide_factory import ACCURACY, BASELINE, CANDIDATE, item_metric, pair_of, scored


def answered(measurement: Measurement, output: str) -> Measurement:
    answers = tuple(
        Answer(item_id=o.item_id, group="ledgers", prompt=f"ask {o.item_id}", output=output, target="42")
        for o in measurement.observations
    )
    return replace(measurement, answers=answers)


def test_lost_before_gained_with_both_answers() -> None:
    baseline, candidate = pair_of(3, 2, 1, 4)
    found = flips("fraud", answered(baseline, "42"), answered(candidate, "41"), ACCURACY)
    assert [(f.kind, f.item_id) for f in found] == [
        ("lost", "item 0003"),
        ("lost", "item 0004"),
        ("gained", "item 0005"),
    ]
    first = found[0]
    assert (first.stage, first.source, first.metric) == ("fraud", "fraud", "accuracy")
    assert (first.prompt, first.target) == ("ask item 0003", "42")
    assert (first.baseline_output, first.candidate_output) == ("42", "41")


def test_without_answers_the_item_is_still_named() -> None:
    (found,) = flips("fraud", *pair_of(3, 1, 0, 0), ACCURACY)
    assert (found.item_id, found.prompt, found.candidate_output) == ("item 0003", "", "")


def test_lower_is_better() -> None:
    metric = item_metric("empty_rate", Direction.LOWER_IS_BETTER)
    baseline, candidate = scored(BASELINE, [0.0, 1.0], metric=metric), scored(CANDIDATE, [1.0, 0.0], metric=metric)
    assert [(f.item_id, f.kind) for f in flips("fraud", baseline, candidate, metric)] == [
        ("item 0000", "lost"),
        ("item 0001", "gained"),
    ]


def test_partial_credit_and_other_estimands_have_no_flips() -> None:
    metric = DOMAIN["rouge_l"]
    pair = scored(BASELINE, [0.9, 1.0], metric=metric), scored(CANDIDATE, [0.1, 0.5], metric=metric)
    assert flips("fraud", *pair, metric) == ()
    lengths = DOMAIN["length_ratio"]
    pair = scored(BASELINE, [1.0], metric=lengths), scored(CANDIDATE, [0.0], metric=lengths)
    assert flips("fraud", *pair, lengths) == ()


def test_what_does_not_pair_has_none() -> None:
    baseline, candidate = pair_of(3, 1, 0, 0)
    assert flips("fraud", replace(baseline, settings_digest="other"), candidate, ACCURACY) == ()
