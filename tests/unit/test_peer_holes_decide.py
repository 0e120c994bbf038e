"""The holes of the closest products that `decide` must keep shut: each test fails when its hole reopens.

Elsewhere: 7 (a cache keyed without the model) in `test_store`, 9 (nothing was quantized) in `test_intake`, 12 (the
first N instead of a sample) in `test_sampling`; that a bound inside the noise (11) is refused, in `test_plan`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gate import order
from gate.decide.combine import combine
from gate.decide.judge import judge
from gate.decide.lineup import lineup
from gate.decide.noise import FlipNoise, noise
from gate.decide.terms import gate_wide
from gate.metrics import DOMAIN, PROFILE
from gate.records import Measurement, Role, Scope, Status
from tests.decide_factory import (
    ACCURACY,
    BASELINE,
    CANDIDATE,
    TERMS,
    failure,
    finding,
    lost,
    measurement,
    observation,
    pair_of,
    rule,
    scored,
    stage,
)


def test_hole_1_two_empty_folders_are_an_error() -> None:
    found = judge(rule("max_drop 3pp"), measurement(BASELINE, (), 0), measurement(CANDIDATE, (), 0), TERMS)
    assert found.status is Status.ERROR
    assert "0 of 0 items could not be measured" in found.reason
    assert judge(rule("max_drop 3pp"), None, None, TERMS).status is Status.ERROR
    assert judge(rule("min 0.5"), None, measurement(CANDIDATE, (), 0), TERMS).status is Status.ERROR


def test_hole_2_ten_items_without_a_flip_are_inconclusive_at_one_point() -> None:
    found = judge(rule("max_drop 1pp"), *pair_of(7, 0, 0, 3), TERMS)
    assert found.status is Status.INCONCLUSIVE
    assert found.estimate == 0.0
    assert found.interval is not None
    assert found.interval.high > 0.2  # z²/(10 + z²): far from certain
    assert found.n_needed is not None
    assert found.n_needed > 200


def test_hole_3_sixty_of_two_hundred_items_are_an_error() -> None:
    everything, some = scored(BASELINE, [1.0] * 200), scored(CANDIDATE, [1.0] * 60, n_expected=200)
    found = judge(rule("max_drop 3pp"), everything, some, TERMS)
    assert (found.status, found.n_paired, found.n_lost) == (Status.ERROR, 60, 140)
    assert "140 of 200 items could not be measured" in found.reason
    assert "'item 0060', 'item 0061', 'item 0062'" in found.reason
    assert "max_lost allows 0" in found.reason


def test_hole_4_a_failure_is_not_a_wrong_answer() -> None:
    baseline = scored(BASELINE, [1.0] * 20)
    failures = [failure(f"item {i:04d}", "sandbox") for i in range(14, 20)]
    measured = scored(CANDIDATE, [1.0] * 14, n_expected=20, failures=failures)
    found = judge(rule("max_drop 3pp"), baseline, measured, TERMS)
    assert found.status is Status.ERROR
    assert "candidate sandbox: 6" in found.reason
    tolerant = judge(rule("max_drop 3pp", max_lost=lost(6)), baseline, measured, TERMS)
    assert tolerant.status is Status.INCONCLUSIVE
    assert tolerant.estimate == 0.0  # of the fourteen that were measured, none went wrong
    scored_zero = scored(CANDIDATE, [1.0] * 14 + [0.0] * 6)
    assert judge(rule("max_drop 3pp"), baseline, scored_zero, TERMS).status is Status.REGRESSION


def test_hole_5_a_relative_rule_has_an_interval_too() -> None:
    # 4 of 30 → 3 of 30 is "−25 %", and says next to nothing
    found = judge(rule("min_retained 95%"), *pair_of(3, 1, 0, 26), TERMS)
    assert found.estimate == pytest.approx(0.75)
    assert found.interval is not None
    assert found.interval.low < 0.5 < 1.0 < found.interval.high
    assert found.status is Status.INCONCLUSIVE


def test_hole_6_a_continuous_collapse_is_a_regression_without_a_single_flip() -> None:
    metric = DOMAIN["rouge_l"]
    baseline, candidate = scored(BASELINE, [0.8] * 50, metric=metric), scored(CANDIDATE, [0.4] * 50, metric=metric)
    found = judge(rule("max_drop 3pp", metric="rouge_l"), baseline, candidate, TERMS)
    assert found.status is Status.REGRESSION
    assert found.estimate == pytest.approx(0.4)


@pytest.mark.parametrize("candidate", [0.0, 1.0])
def test_hole_8_a_baseline_of_zero_is_never_green(candidate: float) -> None:
    baseline, other = scored(BASELINE, [0.0] * 100), scored(CANDIDATE, [candidate] * 100)
    found = judge(rule("min_retained 97%"), baseline, other, TERMS)
    assert found.status is Status.ERROR
    assert "the baseline scored 0 over all 100 items" in found.reason


@pytest.mark.parametrize(
    ("baseline_right", "bound", "scores"),
    [(0, "3pp", "0%"), (13, "10pp", "4.06%"), (32, "10pp", "10%")],
)
def test_a_drop_that_no_candidate_could_show_is_never_green(baseline_right: int, bound: str, scores: str) -> None:
    baseline = scored(BASELINE, [1.0] * baseline_right + [0.0] * (320 - baseline_right))
    for candidate in (0.0, 1.0):
        found = judge(rule(f"max_drop {bound}"), baseline, scored(CANDIDATE, [candidate] * 320), TERMS)
        assert found.status is Status.ERROR
        assert found.reason == (
            f"no candidate could fail this rule: the baseline scores {scores} and a drop of "
            f"{bound.removesuffix('pp')} pp is allowed; fix the template, the matcher or the task, or use a tighter "
            "bound"
        )
    above = scored(BASELINE, [1.0] * 33 + [0.0] * 287)
    nothing = judge(rule("max_drop 10pp"), above, scored(CANDIDATE, [0.0] * 320), TERMS)
    assert nothing.status is Status.INCONCLUSIVE  # it could fail, and is not a pass


@pytest.mark.parametrize("name", ["macro_f1", "bleu", "chrf"])
def test_a_corpus_score_too_low_to_drop_is_never_green(name: str) -> None:
    def corpus(role: Role, full: float) -> Measurement:
        values = {"all": full} | {f"without/{i}": full for i in range(20)}
        return scored(role, values, metric=DOMAIN[name], n_expected=500)

    of = rule("max_drop 3pp", metric=name)
    found = judge(of, corpus(BASELINE, 0.03), corpus(CANDIDATE, 0.0), TERMS)
    assert found.status is Status.ERROR
    assert "the baseline scores 3% and a drop of 3 pp is allowed" in found.reason
    assert judge(of, corpus(BASELINE, 0.5), corpus(CANDIDATE, 0.5), TERMS).status is Status.PASS


@pytest.mark.parametrize("text", ["max 1", "min 0"])
def test_a_score_bound_that_nothing_breaks_is_never_green(text: str) -> None:
    """lm-eval's metrics are known after measuring only, so the policy cannot refuse `max: 1`."""
    found = judge(rule(text), *pair_of(90, 0, 0, 10), TERMS)
    assert found.status is Status.ERROR
    assert found.reason.startswith("no candidate could fail this rule: ")


def test_a_rule_cut_short_by_the_clock_says_what_was_reached() -> None:
    baseline, candidate = pair_of(95, 0, 0, 5)
    reached = replace(candidate, observations=candidate.observations[:40])
    for by in (None, "category"):
        of = rule("max_drop 20pp", by=by)
        grouped = [
            replace(m, observations=tuple(replace(o, group="a") for o in m.observations)) for m in (baseline, reached)
        ]
        found = judge(of, grouped[0], replace(grouped[1], n_reached=40), TERMS)
        assert (found.counts["reached"], found.counts["N"]) == (40, 100)
        decision = combine((of,), (stage("fraud", Status.INCONCLUSIVE, [found]),), restricted=False)
        assert (decision.status, decision.complete) == (Status.INCONCLUSIVE, False)


def test_hole_10_a_run_again_continues_the_same_evidence() -> None:
    sample = order.sample_seed(7, "b" * 64)
    seed = order.order_seed(sample, "c" * 64)
    assert seed == order.order_seed(order.sample_seed(7, "b" * 64), "c" * 64)  # nothing else goes into it
    assert seed != order.order_seed(sample, "d" * 64)
    on = gate_wide(0.95, 1, seed)
    n = 1000
    b = {f"t/{i:04d}/p": 1.0 for i in range(n)}
    c = {item_id: float(i % 37 != 0) for i, item_id in enumerate(b)}
    of = rule("max_drop 3pp", scope=Scope.BENCHMARK)
    baseline, candidate = scored(BASELINE, b), scored(CANDIDATE, c)
    first = judge(of, baseline, candidate, on)
    for again in (candidate, replace(candidate, observations=candidate.observations[::-1], seconds=9.0)):
        assert judge(of, baseline, again, on) == first
    met = [[e.item_id for e in lineup(baseline, m, ACCURACY, seed).entries] for m in (candidate, candidate)]
    assert met[0] == met[1]
    # stopped and run again: what was seen before is the beginning of what is seen then
    early = set(met[0][:64])
    part = tuple(o for o in candidate.observations if o.item_id in early)
    stopped = lineup(baseline, replace(candidate, observations=part, n_reached=64), ACCURACY, seed)
    assert stopped.reached == 64
    assert stopped.entries[:64] == lineup(baseline, candidate, ACCURACY, seed).entries[:64]


def test_hole_11_the_noise_of_the_baseline_itself_is_known_and_is_no_regression() -> None:
    values = [1.0] * 300 + [0.0] * 100
    again = [0.0] * 12 + [1.0] * 288 + [1.0] * 12 + [0.0] * 88  # 6 % of the answers differ in another batch size
    pair = scored(BASELINE, values), scored(CANDIDATE, again)
    (found,) = noise(*pair, confidence=0.95)
    assert isinstance(found, FlipNoise)
    assert (found.flip_rate, found.lost, found.gained) == pytest.approx((0.06, 12, 12))
    assert found.floor == pytest.approx(2.486 * (0.06 / 400) ** 0.5, rel=1e-3)  # 3 pp: a bound of 1 pp lies inside
    for scope in Scope:
        assert judge(rule("max_drop 1pp", scope=scope), *pair, TERMS).status is not Status.REGRESSION


def test_hole_14_the_budget_looks_at_what_it_names_and_not_at_what_was_allocated() -> None:
    peak, reserved, process = (PROFILE[name] for name in ("vram_peak", "vram_reserved", "vram_process"))
    assert len({m.observed for m in (peak, reserved, process)}) == 3
    of = rule("max 10GiB", metric="vram_peak")
    gib = 2.0**30

    def found(used: float, allocated: float) -> Status:
        read = [
            observation(metric, "run/0", value, group="batch=1")
            for metric, value in ((peak, used), (reserved, allocated), (process, allocated))
        ]
        candidate = measurement(CANDIDATE, read, 1, metric=peak, also=(reserved, process))
        return judge(of, None, candidate, TERMS).status

    assert found(9 * gib, 70 * gib) is Status.PASS  # an engine that takes all memory there is
    assert found(11 * gib, 11 * gib) is Status.REGRESSION


def test_hole_15_noisy_timings_of_equal_models_are_rarely_red() -> None:
    metric = PROFILE["decode_tokens_per_second"]
    of = rule("min_retained 95%", metric="decode_tokens_per_second", batch=1)
    rng = np.random.default_rng(15)
    red = 0
    for _ in range(40):
        speeds = np.exp(rng.normal(0, 0.04, size=(2, 2, 8))) * 100
        sides = [
            measurement(
                role,
                [
                    observation(metric, f"{series}/{k}", v, group="batch=1")
                    for j, series in enumerate(("block", "again"))
                    for k, v in enumerate(speeds[i, j].tolist())
                ],
                8,
                metric=metric,
            )
            for i, role in enumerate((BASELINE, CANDIDATE))
        ]
        found = judge(of, sides[0], sides[1], TERMS)
        assert found.interval is not None
        assert found.interval.low < found.interval.high
        red += found.status is Status.REGRESSION
    assert red == 0
    slow = [  # and a slower one is seen through the same noise
        replace(m, observations=tuple(replace(o, value=o.value * factor) for o in m.observations))
        for m, factor in zip(sides, (1.0, 0.8), strict=True)
    ]
    assert judge(of, slow[0], slow[1], TERMS).status is Status.REGRESSION


def test_hole_13_a_planned_rule_without_a_finding_is_an_error() -> None:
    kept, vanished = rule("max_drop 3pp", id="a"), rule("max_drop 3pp", id="b", source="renamed_task")
    stages = (stage("fraud", Status.PASS, [finding(kept, Status.PASS)]),)
    decision = combine((kept, vanished), stages, restricted=False)
    assert (decision.status, decision.deciding) == (Status.ERROR, ("b",))


def test_hole_13_a_metric_that_a_task_no_longer_reports_is_an_error() -> None:
    found = judge(rule("max_drop 3pp", metric="exact_match,strict-match"), *pair_of(90, 0, 0, 10), TERMS)
    assert found.status is Status.ERROR
    assert found.reason == "fraud did not report 'exact_match,strict-match', it reported accuracy"
