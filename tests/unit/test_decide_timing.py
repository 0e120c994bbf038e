"""Timing rules: which groups they cover, planned looks, confirmation, disturbance, spread between processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide import timing
from gate.decide.combine import REACHED
from gate.decide.control import step_down
from gate.decide.judge import judge
from gate.decide.terms import gate_wide
from gate.metrics import PROFILE
from gate.records import Finding, Measurement, Metric, Observation, Severity, Status
from gate.stats import log_ratio
from gate.stats.quantiles import t
from tests.decide_factory import BASELINE, CANDIDATE, TERMS, failure, judged, lost, observation, rule
from tests.timing_factory import SHAPE, SPEED, WAIT, both, described, drawn, of_speed, out_of_memory, timed

PASS, REGRESSION, INCONCLUSIVE, ERROR = Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE, Status.ERROR
Pair = tuple[Measurement, Measurement]


def with_groups(*ratios: tuple[str, float], again: bool = True, metric: Metric = SPEED) -> Pair:
    """Each group's candidate is its ratio of the baseline, in both measurements."""
    sides: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for group, ratio in ratios:
        for side, blocks in zip(sides, drawn(ratio, seed=3, group=group), strict=True):
            side |= blocks
    b, c = (timed(r, s, s if again else None, metric=metric) for r, s in zip((BASELINE, CANDIDATE), sides, strict=True))
    return b, c


def noisy(pair: Pair, block: int, *, series: str = "block", side: int = 1) -> Pair:
    """The pair, with threads that waited for a CPU during one block of a side."""
    seen = [described("cpu_wait_share", f"{series}/{block}", 0.4), described("cpu_load", f"{series}/{block}", 0.9)]
    changed = list(pair)
    changed[side] = replace(pair[side], observations=(*pair[side].observations, *seen))
    return changed[0], changed[1]


class TestGroups:
    def test_one_batch_size(self) -> None:
        pair = with_groups(("batch=1", 0.7), ("batch=8", 1.5))
        slow = judged(of_speed(batch=1), pair)
        assert slow.status is REGRESSION
        assert slow.estimate == pytest.approx(0.7)
        assert slow.counts["R"] == slow.counts["N"] == 8
        assert slow.counts["hodges_lehmann_ratio"] == pytest.approx(0.7, abs=0.005)
        fast = judged(of_speed("min_speedup 1.4", batch=8), pair)
        assert (fast.status, fast.members) == (PASS, ())

    def test_without_a_selection_the_worst_decides(self) -> None:
        found = judged(of_speed(), with_groups(("batch=1", 1.2), ("batch=8", 0.8)))
        assert found.status is REGRESSION
        assert found.estimate == pytest.approx(0.8)
        assert [(m.group, m.status) for m in found.members] == [("batch=8", REGRESSION), ("batch=1", PASS)]
        assert found.reason.startswith("batch=8, the worst of 2: ")

    def test_a_batch_covers_all_its_lengths_and_lengths_all_their_batches(self) -> None:
        pair = with_groups(
            ("batch=1,128+32", 1.0), ("batch=8,128+32", 1.0), ("batch=8,1024+64", 0.8), ("batch=16,1024+64", 1.0)
        )
        assert [m.group for m in judged(of_speed(batch=8), pair).members] == ["batch=8,1024+64", "batch=8,128+32"]
        assert judged(of_speed(lengths="128+32"), pair).status is PASS
        one = judged(of_speed(batch=8, lengths="1024+64"), pair)
        assert (one.status, one.members) == (REGRESSION, ())

    def test_the_lengths_of_a_stage_with_one_pair_are_those_of_every_group(self) -> None:
        assert judged(of_speed(lengths="128+32"), with_groups(("batch=1", 1.0))).status is PASS

    def test_loads_are_for_rules_that_name_them(self) -> None:
        rate = PROFILE["requests_per_second"]
        pair = with_groups(("batch=1", 1.0), ("load=open:4", 0.5), ("load=closed:8", 1.0), metric=rate)
        assert judged(of_speed(metric=rate.name), pair).status is PASS
        assert judged(of_speed(metric=rate.name, load="closed:8"), pair).status is PASS
        assert judged(of_speed(metric=rate.name, load="open:4"), pair).status is REGRESSION

    def test_goodput_covers_every_load(self) -> None:
        good = PROFILE["goodput_requests_per_second"]
        pair = with_groups(("load=open:4", 0.5), ("load=closed:8", 1.0), metric=good)
        found = judged(of_speed(metric=good.name), pair)
        assert [(m.group, m.status) for m in found.members] == [("load=open:4", REGRESSION), ("load=closed:8", PASS)]
        assert judged(of_speed(metric=good.name, load="closed:8"), pair).status is PASS

    def test_what_was_not_measured_is_said_with_what_was(self) -> None:
        pair = with_groups(("batch=1", 1.0), ("batch=8", 1.0))
        found = judged(of_speed(batch=4), pair)
        assert (found.status, found.reason) == (
            ERROR,
            "decode_tokens_per_second was not measured for batch 4, but for batch=1, batch=8",
        )
        assert judged(of_speed(load="open:4"), pair).reason.startswith(
            "decode_tokens_per_second was not measured for load open:4"
        )

    def test_nothing_at_all(self) -> None:
        pair = timed(BASELINE, {SHAPE: []}), timed(CANDIDATE, {SHAPE: []})
        found = judged(of_speed(), pair)
        assert (found.status, "nothing was measured by either role" in found.reason) == (ERROR, True)

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("out_of_memory", "the candidate ran out of memory in 8 of 8 blocks (it took too long)"),
            ("too_long", "the candidate has no room for so many tokens in 8 of 8 blocks (it took too long)"),
            ("no_tokens", "the candidate wrote no token in 8 of 8 blocks (it took too long)"),
            ("weird", "the candidate failed (weird) in 8 of 8 blocks (it took too long)"),
        ],
    )
    def test_a_failed_group_is_an_error_of_its_own_and_the_others_stand(self, kind: str, said: str) -> None:
        b, _ = with_groups(("batch=1", 1.0), ("batch=8,1024+64", 1.0))
        failures = [failure(f"block/{k}/batch=8,1024+64", kind) for k in range(8)]
        c = timed(CANDIDATE, {"batch=1": [100.0] * 8}, failures=failures)
        found = judged(of_speed(), (b, c))
        assert (found.status, found.n_lost) == (ERROR, 8)
        assert found.reason == f"batch=8,1024+64, the worst of 2: {SPEED.name}, batch 8 at 1024+64: {said}"
        assert {m.group: m.status for m in found.members} == {"batch=8,1024+64": ERROR, "batch=1": PASS}
        assert "batch=1" not in found.reason
        assert judged(of_speed(batch=1), (b, c)).status is PASS

    def test_a_failed_group_does_not_hide_a_red_one(self) -> None:
        b, _ = with_groups(("batch=1", 1.0), ("batch=8", 1.0))
        first, again = (drawn(0.5, seed=seed, group="batch=1")[1] for seed in (1, 2))
        found = judged(of_speed(), (b, timed(CANDIDATE, first, again, failures=out_of_memory("batch=8"))))
        assert {m.group: m.status for m in found.members} == {"batch=8": ERROR, "batch=1": REGRESSION}
        assert found.status is ERROR
        assert found.reason.startswith("batch=8, the worst of 2: ")
        assert "; batch=1: REGRESSION, the share retained is beyond the bound 95%" in found.reason

    def test_a_group_that_neither_could_run_is_not_forgotten(self) -> None:
        b, c = (timed(r, {"batch=1": [50.0] * 8}, failures=out_of_memory("batch=8")) for r in (BASELINE, CANDIDATE))
        found = judged(of_speed(), (b, c))
        assert found.status is ERROR
        assert "the baseline ran out of memory" in found.reason
        assert "the candidate ran out of memory" in found.reason

    def test_a_load_that_nobody_serves(self) -> None:
        good = PROFILE["goodput_requests_per_second"]
        failures = [failure(f"block/{k}/load=open:4", "not_served") for k in range(8)]
        b, c = (timed(r, {}, metric=good, failures=failures) for r in (BASELINE, CANDIDATE))
        found = judged(of_speed(metric=good.name), (b, c))
        assert (found.status, "load open:4: the baseline serves no such load" in found.reason) == (ERROR, True)

    GOOD = PROFILE["goodput_requests_per_second"]

    def served(self, baseline: list[float], candidate: list[float], *, again: bool = True) -> Pair:
        b, c = (
            timed(role, {"load=open:4": of}, {"load=open:4": of} if again else None, metric=self.GOOD)
            for role, of in ((BASELINE, baseline), (CANDIDATE, candidate))
        )
        return b, c

    @pytest.mark.parametrize("bound", ["min_retained 95%", "min_speedup 1.0", "min 2"])
    def test_no_good_request_in_any_block_is_beyond_the_bound(self, bound: str) -> None:
        of = of_speed(bound, metric=self.GOOD.name)
        found = judged(of, self.served([4.0] * 8, [0.0] * 8))
        assert (found.status, found.estimate, found.candidate, found.n_paired) == (REGRESSION, 0.0, 0.0, 8)
        assert found.interval is not None
        assert (found.interval.low, found.interval.high) == (0.0, 0.0)
        assert found.counts["confirmed"] == 1
        assert "in none of 8 blocks did any request of the candidate keep both objectives" in found.reason
        once = self.served([4.0] * 8, [0.0] * 8, again=False)
        assert judged(of, once).status is INCONCLUSIVE
        assert timing.unconfirmed([of], *once, TERMS) == (of,)

    def test_a_candidate_without_a_good_request_that_lost_a_block(self) -> None:
        b, c = self.served([4.0] * 8, [0.0] * 8)
        fewer = replace(c, observations=c.observations[1:])
        assert judged(of_speed(metric=self.GOOD.name), (b, fewer)).status is ERROR
        found = judged(of_speed(metric=self.GOOD.name, max_lost=lost(1)), (b, fewer))
        assert (found.status, "could hold any value" in found.reason) == (INCONCLUSIVE, True)

    @pytest.mark.parametrize(
        ("baseline", "candidate", "said"),
        [
            ([4.0] * 8, [4.0] * 5 + [0.0] * 3, "in 3 of 8 blocks no request of the candidate kept both objectives"),
            ([0.0] * 8, [4.0] * 8, "in 8 of 8 blocks no request of the baseline kept both objectives, so there is"),
            ([0.0] * 8, [0.0] * 8, "in 8 of 8 blocks no request of the baseline kept both objectives"),
            ([4.0] * 7 + [0.0], [0.0] * 8, "in 1 of 8 blocks no request of the baseline kept both objectives"),
        ],
    )
    def test_nothing_has_no_ratio(self, baseline: list[float], candidate: list[float], said: str) -> None:
        found = judged(of_speed(metric=self.GOOD.name), self.served(baseline, candidate))
        assert (found.status, said in found.reason) == (ERROR, True), found.reason

    def test_a_bound_on_the_candidate_alone_has_no_use_for_the_baselines_requests(self) -> None:
        pair = self.served([0.0] * 8, [4.0] * 8)
        assert judged(of_speed("min 2", metric=self.GOOD.name), pair).status is PASS

    def test_measurements_of_different_settings_do_not_pair(self) -> None:
        b, c = both(1.0)
        found = judged(of_speed(), (b, replace(c, settings_digest="e" * 64)))
        assert (found.status, "settings_digest" in found.reason) == (ERROR, True)


class TestNumbers:
    def test_a_shorter_wait_is_a_speed_up(self) -> None:
        pair = both(0.5, 0.5, metric=WAIT)
        faster = judged(rule("min_speedup 1.5", metric=WAIT.name), pair)
        assert faster.status is PASS
        assert faster.estimate == pytest.approx(2.0)
        assert judged(rule("max_increase 0%", metric=WAIT.name), pair).estimate == pytest.approx(-0.5)
        assert judged(rule("max 60", metric=WAIT.name), (None, pair[1])).status is PASS
        slower = (replace(pair[1], role=BASELINE), replace(pair[0], role=CANDIDATE))
        assert judged(rule("max_increase 50%", metric=WAIT.name), slower).status is REGRESSION

    def test_equal_blocks_keep_a_resolution(self) -> None:
        found = judged(of_speed(), with_groups(("batch=1", 1.0), again=False))
        flat = judged(of_speed(), (timed(BASELINE, {SHAPE: [50.0] * 8}), timed(CANDIDATE, {SHAPE: [50.0] * 8})))
        assert flat.interval is not None
        assert (flat.interval.low, flat.interval.high) == pytest.approx((0.999, 1.001), abs=1e-6)
        assert found.status is flat.status is PASS

    def test_a_missing_block_is_lost(self) -> None:
        b, c = both(1.0)
        fewer = replace(c, observations=c.observations[:-1])
        found = judged(of_speed(), (b, fewer))
        assert (found.status, found.n_lost) == (ERROR, 1)
        allowed = judged(of_speed(max_lost=lost(1)), (b, fewer))
        assert allowed.status is INCONCLUSIVE
        assert "could hold any value" in allowed.reason


class TestConfirmation:
    def test_red_twice_is_a_regression_with_both_numbers(self) -> None:
        found = judged(of_speed(), both(0.90, 0.91))
        assert found.status is REGRESSION
        assert found.estimate == pytest.approx(0.90)
        assert found.counts["confirmed"] == 1
        assert found.counts["second_estimate"] == pytest.approx(0.91)
        assert found.counts["second_low"] < 0.91 < found.counts["second_high"] < 0.95
        assert "confirmed: first measurement share retained 90.00%" in found.reason
        assert "second, fresh measurement share retained 91.00%" in found.reason

    def test_the_p_value_is_the_larger_of_the_two(self) -> None:
        alone, other = (judged(of_speed(), both(r, r)).p_value for r in (0.90, 0.925))
        assert alone is not None
        assert other is not None
        assert alone < other
        for pair in (both(0.90, 0.925), both(0.925, 0.90)):
            assert judged(of_speed(), pair).p_value == pytest.approx(other, rel=0.05)

    @pytest.mark.parametrize("again", [0.95, 1.0, 1.2])
    def test_red_once_is_inconclusive_with_both_numbers(self, again: float) -> None:
        found = judged(of_speed(), both(0.90, again))
        assert (found.status, found.p_value) == (INCONCLUSIVE, None)
        assert found.counts["confirmed"] == 0
        assert found.counts["second_estimate"] == pytest.approx(again)
        assert "red once and not confirmed" in found.reason
        assert found.interval is not None
        assert found.interval.low < 0.90 < 0.95 < found.interval.high  # it spans both measurements
        assert REACHED not in found.counts  # all was measured: this is doubt that a policy may waive

    def test_without_a_second_measurement_nothing_turns_red(self) -> None:
        found = judged(of_speed(), both(0.90))
        assert (found.status, found.p_value) == (INCONCLUSIVE, None)
        assert "not confirmed yet" in found.reason
        assert REACHED in found.counts  # so that `on_inconclusive: warn` does not wave it through
        assert "confirmed" not in found.counts

    def test_a_second_measurement_of_fewer_pairs_decides_nothing(self) -> None:
        first, second = drawn(0.9, seed=1), drawn(0.9, seed=2, pairs=5)
        b, c = (timed(r, f, s) for r, f, s in zip((BASELINE, CANDIDATE), first, second, strict=True))
        found = judged(of_speed(), (b, c))
        assert (found.status, REACHED in found.counts, "confirmed" in found.counts) == (INCONCLUSIVE, True, False)
        assert "5 of 8 planned pairs" in found.reason

    def test_a_second_measurement_that_failed_confirms_nothing(self) -> None:
        b, c = both(0.9)
        failures = [failure(f"again/{k}/{SHAPE}", "out_of_memory") for k in range(8)]
        second = [observation(SPEED, f"again/{k}", 100.0, group=SHAPE) for k in range(8)]
        pair = replace(b, observations=(*b.observations, *second)), replace(c, failures=tuple(failures))
        found = judged(of_speed(), pair)
        assert found.status is INCONCLUSIVE
        assert "the candidate ran out of memory in 8 of 8 blocks" in found.reason

    def test_what_was_not_red_needs_no_second(self) -> None:
        assert judged(of_speed(), both(1.0)).status is PASS
        assert judged(of_speed(), both(1.0, 0.5)).status is PASS  # made for another rule

    def test_a_group_is_confirmed_by_itself(self) -> None:
        first: dict[str, list[float]] = {}
        second: dict[str, list[float]] = {}
        for group, ratios in (("batch=1", (0.9, 1.0)), ("batch=8", (1.0, 0.9))):
            for series, ratio, seed in ((first, ratios[0], 1), (second, ratios[1], 2)):
                series[group] = drawn(ratio, seed=seed, group=group)[1][group]
        flat = {group: [100.0] * 8 for group in first}
        found = judged(of_speed(), (timed(BASELINE, flat, flat), timed(CANDIDATE, first, second)))
        assert found.status is INCONCLUSIVE
        assert {m.group: m.status for m in found.members} == {"batch=1": INCONCLUSIVE, "batch=8": PASS}

    def test_an_absolute_bound_is_confirmed_too(self) -> None:
        for again, expected in ((90.0, REGRESSION), (130.0, INCONCLUSIVE)):
            c = timed(CANDIDATE, {SHAPE: [90.0] * 8}, {SHAPE: [again] * 8})
            found = judged(of_speed("min 120"), (None, c))
            assert found.status is expected
            assert found.counts["second_estimate"] == pytest.approx(again)

    def test_advice_is_confirmed_too(self) -> None:
        advice = of_speed(severity=Severity.ADVISORY)
        assert judged(advice, both(0.9)).status is INCONCLUSIVE
        assert judged(advice, both(0.9, 0.9)).status is REGRESSION


class TestOldRecords:
    """Measurements of a gate without looks, second measurements and conditions stay decidable."""

    OLD = replace(PROFILE["ttft_p50_seconds"], name="ttft_p95_seconds", observed="ttft_p95_seconds")

    def test_a_percentile_of_blocks_is_judged_as_it_was(self) -> None:
        assert judged(rule("max_increase 10%", metric=self.OLD.name), both(1.0, metric=self.OLD)).status is PASS

    def test_red_is_not_confirmed(self) -> None:
        found = judged(rule("max_increase 10%", metric=self.OLD.name), both(1.3, metric=self.OLD))
        assert (found.status, "not confirmed yet" in found.reason) == (INCONCLUSIVE, True)


class TestLooks:
    LOOKS = (4, 8)

    def pair(self, *ratios: float, again: tuple[float, ...] = (), spread: float = 0.01) -> Pair:
        """One ratio for every four pairs."""

        def values(parts: tuple[float, ...], seed: int) -> list[float]:
            found = []
            for i, ratio in enumerate(parts):
                found += drawn(ratio, seed=seed + i, pairs=4, spread=spread)[1][SHAPE]
            return found

        sides = []
        for role in (BASELINE, CANDIDATE):
            of = [values(r, s) if role is CANDIDATE else [100.0] * 4 * len(r) for r, s in ((ratios, 1), (again, 7))]
            sides.append(timed(role, {SHAPE: of[0]}, {SHAPE: of[1]}, planned=self.LOOKS))
        return sides[0], sides[1]

    def test_the_first_look_that_decides_counts(self) -> None:
        """Eight pairs are there; the four of the first look pass, all eight would not."""
        found = judged(of_speed(), self.pair(1.0, 0.8))
        assert (found.status, found.n_paired) == (PASS, 4)
        assert (found.counts["look"], found.counts["looks"]) == (1, 2)
        assert found.reason.startswith("at look 1 of 2 (4 pairs of blocks): ")

    def test_each_side_of_each_look_has_its_share_of_the_error(self) -> None:
        found = judged(of_speed(), self.pair(0.97, 0.97, spread=0.02))
        assert found.interval is not None
        assert found.interval.valid == "planned_looks"
        assert (found.interval.confidence, found.interval.fail_confidence) == (0.975, 0.975)
        two = judge(of_speed(), *self.pair(0.97, 0.97, spread=0.02), gate_wide(0.95, 5, None))
        assert two.interval is not None
        assert two.interval.fail_confidence == pytest.approx(1 - 0.05 / 5 / 2)
        c = self.pair(0.97, spread=0.02)[1]
        by_hand = log_ratio.interval(
            baseline=[100.0] * 4,
            candidate=[o.value for o in c.observations if o.metric == SPEED.observed],
            confidence=0.975,
        )
        first = judged(of_speed(), self.pair(0.97, spread=0.02))
        assert first.interval is not None
        assert (first.interval.low, first.interval.high) == pytest.approx((by_hand.low, by_hand.high))

    def test_stopped_at_a_look(self) -> None:
        """Fewer blocks than expected were reached, which is what a planned look is for."""
        found = judged(of_speed(), self.pair(1.0))
        assert (found.status, found.n_paired, found.n_lost) == (PASS, 4, 0)
        undecided = judged(of_speed(), self.pair(0.95))
        assert undecided.status is INCONCLUSIVE
        assert undecided.counts[REACHED] == 4
        assert undecided.p_value is None

    def test_a_number_of_pairs_that_was_not_planned_decides_nothing(self) -> None:
        b, c = self.pair(1.0, 1.0)

        def reached(n: int) -> Finding:
            cut = [replace(m, n_reached=n, observations=self.only(m, n)) for m in (b, c)]
            return judged(of_speed(), (cut[0], cut[1]))

        early = reached(3)
        assert early.status is INCONCLUSIVE
        assert early.counts[REACHED] == 3
        assert early.reason.startswith("3 of 4 planned pairs of timing blocks were measured, which decides nothing")
        assert reached(1).status is ERROR
        assert (reached(5).status, reached(5).n_paired) == (PASS, 4)  # the fifth pair is not looked at

    @staticmethod
    def only(m: Measurement, n: int) -> tuple[Observation, ...]:
        gone = {f"block/{k}" for k in range(n, 8)}
        return tuple(o for o in m.observations if o.item_id not in gone)

    def test_interrupted_without_looks(self) -> None:
        b, c = (
            timed(r, s, n_reached=5) for r, s in zip((BASELINE, CANDIDATE), drawn(0.5, seed=1, pairs=5), strict=True)
        )
        found = judged(of_speed(), (b, c))
        assert (found.status, found.p_value) == (INCONCLUSIVE, None)
        assert "5 of 8 planned pairs" in found.reason
        assert found.estimate == pytest.approx(0.5)

    def test_red_at_the_first_look_is_confirmed_at_any(self) -> None:
        at_once = judged(of_speed(), self.pair(0.85, again=(0.85,)))
        assert (at_once.status, at_once.counts["second_R"]) == (REGRESSION, 4)
        later = judged(of_speed(), self.pair(0.85, again=(0.96, 0.80), spread=0.04))
        assert (later.status, later.counts["second_R"]) == (INCONCLUSIVE, 8)
        never = judged(of_speed(), self.pair(0.85, again=(1.0, 0.5)))
        assert (never.status, never.counts["confirmed"]) == (INCONCLUSIVE, 0)

    def test_a_second_measurement_may_decide_earlier_than_the_first(self) -> None:
        late = judged(of_speed(), self.pair(0.95, 0.80, spread=0.02))
        assert (late.counts["look"], REACHED in late.counts) == (2, True)
        red = judged(of_speed(), self.pair(0.95, 0.80, again=(0.80, 0.80), spread=0.02))
        assert (red.status, red.n_paired, red.counts["second_R"]) == (REGRESSION, 8, 4)
        passed = judged(of_speed(), self.pair(0.95, 0.80, again=(1.0, 0.5), spread=0.02))
        assert (passed.status, passed.counts["confirmed"], REACHED in passed.counts) == (INCONCLUSIVE, 0, False)

    def test_a_second_measurement_that_ended_between_looks_decides_nothing(self) -> None:
        """Red at the first look; the second has as many pairs, is undecided there, and had one more look to come."""
        found = judged(of_speed(), self.pair(0.85, again=(0.95,)))
        assert (found.status, found.n_paired, found.counts["second_R"]) == (INCONCLUSIVE, 4, 4)
        assert found.counts[REACHED] == 4  # so that `on_inconclusive: warn` does not wave it through
        assert "confirmed" not in found.counts
        assert "the second decides nothing" in found.reason
        whole = judged(of_speed(), self.pair(0.85, again=(0.95, 0.95)))
        assert (whole.status, REACHED in whole.counts, whole.counts["confirmed"]) == (INCONCLUSIVE, False, 0)

    def test_different_plans_do_not_pair(self) -> None:
        b, c = self.pair(1.0)
        found = judged(of_speed(), (timed(BASELINE, {SHAPE: [100.0] * 8}), c))
        assert found.status is ERROR
        assert "found looks planned at 4, 8 and 8 pairs of blocks" in found.reason
        assert judged(of_speed(), (b, c)).status is PASS

    def test_the_p_value_is_that_of_all_looks(self) -> None:
        once = judged(of_speed(), both(0.93, 0.93, pairs=4, planned=(4,))).p_value
        looked = judged(of_speed(), both(0.93, 0.93, pairs=4, planned=self.LOOKS)).p_value
        assert once is not None
        assert looked == pytest.approx(2 * once, rel=1e-9)


class TestDisturbance:
    @pytest.mark.parametrize("ratio", [1.0, 0.9, 0.95])
    @pytest.mark.parametrize("side", [0, 1])
    def test_what_stays_disturbed_decides_nothing(self, ratio: float, side: int) -> None:
        found = judged(of_speed(), noisy(both(ratio, ratio), 3, side=side))
        assert (found.status, found.p_value, found.counts["disturbed"]) == (INCONCLUSIVE, None, 1)
        role = ("baseline", "candidate")[side]
        assert f"1 of 8 pairs of blocks stayed disturbed (block 3 of the {role}: " in found.reason
        assert "waited 40% of the time for a CPU" in found.reason
        assert found.counts[REACHED] == 8  # so that `on_inconclusive: warn` does not wave a slow candidate through

    def test_calm_conditions_change_nothing(self) -> None:
        b, c = both(1.0)
        calm = replace(c, observations=(*c.observations, described("cpu_wait_share", "block/3", 0.001)))
        assert judged(of_speed(), (b, calm)) == judged(of_speed(), (b, c))

    def test_a_disturbed_second_measurement_confirms_nothing(self) -> None:
        found = judged(of_speed(), noisy(both(0.9, 0.9), 2, series="again"))
        assert (found.status, found.p_value, REACHED in found.counts) == (INCONCLUSIVE, None, True)
        assert "the second decides nothing" in found.reason
        assert judged(of_speed(), noisy(both(1.0, 0.9), 2, series="again")).status is PASS

    def test_a_block_behind_the_look_that_decided_does_not_matter(self) -> None:
        pair = noisy(TestLooks().pair(1.0, 1.0), 6)
        assert judged(of_speed(), pair).status is PASS
        assert judged(of_speed(), noisy(TestLooks().pair(1.0, 1.0), 2)).status is INCONCLUSIVE

    def test_a_bound_on_the_candidate_alone_knows_nothing_of_the_baseline(self) -> None:
        of = of_speed("min 50")
        assert judged(of, noisy(both(1.0), 3, side=0)).status is PASS
        assert judged(of, noisy(both(1.0), 3, side=1)).status is INCONCLUSIVE

    def test_memory_does_not_care(self) -> None:
        size = PROFILE["weights_bytes"]
        b, c = both(1.0)
        weighed = [replace(m, metrics=(size,), observations=(observation(size, "run/0", 10.0),)) for m in (b, c)]
        assert judged(rule("max_increase 0%", metric=size.name), noisy((weighed[0], weighed[1]), 3)).status is PASS


class TestBetweenProcesses:
    def widened(self, pair: Pair, sd: float, processes: int, *, group: str = SHAPE) -> Pair:
        noise = described(
            "between_process_log_sd", f"calibrated/{SPEED.observed}", sd, group=group, weight=float(processes)
        )
        return replace(pair[0], observations=(*pair[0].observations, noise)), pair[1]

    def test_it_widens_the_interval(self) -> None:
        plain, wide = both(0.97), self.widened(both(0.97), 0.02, 5)
        before, after = judged(of_speed(), plain), judged(of_speed(), wide)
        assert (before.status, after.status) == (PASS, INCONCLUSIVE)
        assert after.estimate == before.estimate
        assert after.counts["between_process_log_sd"] == 0.02
        assert after.counts["process_pairs"] == 5
        assert "2.00% (sd of 5 pairs of processes)" in after.reason

    def test_by_the_formula(self) -> None:
        found = judged(of_speed(), self.widened(both(0.97), 0.02, 5))
        within, between = 0.01**2 / 8, 0.02**2
        freedom = (within + between) ** 2 / (within**2 / 7 + between**2 / 4)
        half = t(0.95, freedom) * (within + between) ** 0.5
        assert found.interval is not None
        expected = (0.97 * 2.718281828459045**-half, 0.97 * 2.718281828459045**half)
        assert (found.interval.low, found.interval.high) == pytest.approx(expected)

    def test_of_one_process_half_the_variance(self) -> None:
        found = judged(of_speed("min 90"), self.widened(both(0.97), 0.02, 5))
        within, between = 0.01**2 / 8, 0.02**2 / 2
        freedom = (within + between) ** 2 / (within**2 / 7 + between**2 / 4)
        half = t(0.95, freedom) * (within + between) ** 0.5
        assert found.interval is not None
        assert found.interval.low == pytest.approx(97 * 2.718281828459045**-half)

    def test_of_this_metric_and_group_only(self) -> None:
        plain = judged(of_speed(), both(0.97))
        assert judged(of_speed(), self.widened(both(0.97), 0.02, 5, group="batch=1")) == plain

    def test_more_blocks_do_not_help_against_it(self) -> None:
        assert judged(of_speed(), self.widened(both(0.97), 0.02, 5)).n_needed is None
        assert judged(of_speed(), both(0.97, spread=0.05)).n_needed is not None

    def test_one_pair_of_processes_has_no_spread(self) -> None:
        found = judged(of_speed(), self.widened(both(0.97), 0.02, 1))
        assert (found.status, "run gate calibrate again" in found.reason) == (ERROR, True)


class TestStepDown:
    """Holm's step-down frees error for rules that are still open; no timing rule may turn red by it."""

    @pytest.mark.parametrize(
        "pair",
        [
            both(0.90),
            both(0.90, 1.0),
            both(0.9409, 0.9409),
            noisy(both(0.8, 0.8), 1),
            noisy(both(0.8, 0.8), 1, series="again"),
        ],
        ids=["unconfirmed", "contradicted", "open at its own level", "disturbed", "second disturbed"],
    )
    def test_nothing_that_was_not_confirmed_turns_red(self, pair: Pair) -> None:
        planned = [of_speed(id=f"r{i}") for i in range(4)]
        terms = gate_wide(0.95, len(planned), None)
        red = judge(planned[0], *both(0.5, 0.5), terms)
        open_ = judge(planned[1], *pair, terms)
        assert (red.status, open_.status, open_.p_value) == (REGRESSION, INCONCLUSIVE, None)
        assert step_down([red, open_], planned, 0.95)[1] == open_

    def test_it_would_have(self) -> None:
        """The third case above is beyond the bound at the level that the step-down frees, though not at its own."""
        alone = judged(of_speed(), both(0.9409, 0.9409))
        assert alone.status is REGRESSION
        assert alone.p_value is not None
        assert 0.05 / 4 < alone.p_value < 0.05 / 3


class TestWhileItGoes:
    LOOKS = TestLooks.LOOKS

    def test_red_rules_are_to_be_confirmed(self) -> None:
        slow, fine, memory = of_speed(), of_speed("min_retained 50%"), rule("max 1GiB", metric="vram_peak")
        rules = (slow, fine, memory)
        assert timing.unconfirmed(rules, *both(0.9), TERMS) == (slow,)
        assert timing.unconfirmed(rules, *both(1.0), TERMS) == ()
        assert timing.unconfirmed(rules, *both(0.9, 0.9), TERMS) == ()
        assert timing.unconfirmed(rules, *noisy(both(0.9), 1), TERMS) == ()
        advice = of_speed(severity=Severity.ADVISORY)
        assert timing.unconfirmed([advice], *both(0.9), TERMS) == (advice,)

    def test_red_at_the_level_of_the_whole_gate(self) -> None:
        pair = both(0.9435)
        assert timing.unconfirmed([of_speed()], *pair, TERMS)
        assert not timing.unconfirmed([of_speed()], *pair, gate_wide(0.95, 20, None))
        assert timing.unconfirmed([of_speed(severity=Severity.ADVISORY)], *pair, gate_wide(0.95, 20, None))

    def test_a_red_group_beside_a_failed_one(self) -> None:
        b, _ = with_groups(("batch=1", 1.0), ("batch=8", 1.0), again=False)
        first = drawn(0.9, seed=1, group="batch=1")[1]
        c = timed(CANDIDATE, first, failures=out_of_memory("batch=8"))
        assert len(timing.unconfirmed([of_speed()], b, c, TERMS)) == 1

    def test_settled_at_a_look(self) -> None:
        looks = TestLooks()
        assert timing.settled([of_speed()], *looks.pair(1.0), TERMS)
        assert timing.settled([of_speed()], *looks.pair(0.8), TERMS)  # red: the second measurement is another matter
        assert not timing.settled([of_speed()], *looks.pair(0.95), TERMS)
        assert timing.settled([of_speed()], *looks.pair(0.95, 0.95), TERMS)  # that was the last look
        assert timing.settled([of_speed()], *noisy(looks.pair(0.95), 1), TERMS)  # no later look can help

    def test_advice_prolongs_nothing(self) -> None:
        advice, blocking = of_speed(severity=Severity.ADVISORY), of_speed("min_retained 50%")
        pair = TestLooks().pair(0.95)
        assert timing.settled([advice, blocking], *pair, TERMS)
        assert not timing.settled([advice], *pair, TERMS)

    def test_the_second_measurement_is_for_what_is_red(self) -> None:
        looks = TestLooks()
        slow, undecided = of_speed(), of_speed("min_retained 85%")
        pair = looks.pair(0.85, again=(0.95,))
        assert judged(undecided, pair).status is INCONCLUSIVE
        assert not timing.settled([slow, undecided], *pair, TERMS)
        assert timing.settled([slow, undecided], *looks.pair(0.85, again=(0.85,)), TERMS)
        assert timing.settled([slow, undecided], *looks.pair(0.85, again=(1.0,)), TERMS)
        assert timing.settled([slow], *looks.pair(0.85, again=(0.95, 0.95)), TERMS)

    def test_the_second_measurement_is_for_advice_too(self) -> None:
        looks = TestLooks()
        advice, blocking = of_speed(severity=Severity.ADVISORY), of_speed("min_retained 50%", id="blocking")
        once = looks.pair(0.85)
        assert timing.settled([advice, blocking], *once, TERMS)
        assert timing.unconfirmed([advice, blocking], *once, TERMS) == (advice,)
        assert not timing.settled([advice, blocking], *looks.pair(0.85, again=(0.95,)), TERMS)
        assert timing.settled([advice, blocking], *looks.pair(0.85, again=(0.85,)), TERMS)
        assert timing.settled([advice, blocking], *looks.pair(0.85, again=(0.95, 0.95)), TERMS)

    def test_what_cannot_be_judged_waits_for_nothing(self) -> None:
        pair = TestLooks().pair(0.95)
        assert timing.settled([of_speed(batch=64)], *pair, TERMS)
        assert timing.settled([rule("max 1GiB", metric="vram_peak")], *pair, TERMS)
        assert timing.unconfirmed([of_speed(batch=64)], *pair, TERMS) == ()
