"""Timing blocks and once-per-run readings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gate.decide.judge import judge
from gate.metrics import PROFILE
from gate.records import (
    Measurement,
    Metric,
    Role,
    Status,
)
from tests.decide_factory import (
    BASELINE,
    CANDIDATE,
    TERMS,
    failure,
    judged,
    measurement,
    observation,
    rule,
)


class TestTiming:
    SPEED, WAIT = PROFILE["decode_tokens_per_second"], PROFILE["ttft_p50_seconds"]

    def blocks(self, role: Role, metric: Metric, by_batch: dict[int, list[float]], **changes: Any) -> Measurement:
        found = [
            observation(metric, f"block/{k}", v, group=f"batch={b}")
            for b, values in by_batch.items()
            for k, v in enumerate(values)
        ]
        return measurement(role, found, 8, metric=metric, **changes)

    def speeds(self, factor_1: float, factor_8: float) -> tuple[Measurement, Measurement]:
        base = [100 + math.sin(k) for k in range(8)]
        noise = [1 + 0.004 * math.cos(3 * k) for k in range(8)]
        candidate = {1: [factor_1 * v * e for v, e in zip(base, noise, strict=True)]}
        candidate[8] = [factor_8 * v * e * 5 for v, e in zip(base, noise, strict=True)]
        return (
            self.blocks(BASELINE, self.SPEED, {1: base, 8: [5 * v for v in base]}),
            self.blocks(CANDIDATE, self.SPEED, candidate),
        )

    def test_one_batch_size(self) -> None:
        pair = self.speeds(0.7, 1.5)
        slow = judged(rule("min_retained 95%", metric="decode_tokens_per_second", batch=1), pair)
        assert slow.status is Status.REGRESSION
        assert slow.estimate == pytest.approx(0.7, rel=2e-3)
        assert slow.counts == {"R": 8, "N": 8, "hodges_lehmann_ratio": pytest.approx(0.7, abs=0.001)}
        fast = judged(rule("min_speedup 1.4", metric="decode_tokens_per_second", batch=8), pair)
        assert fast.status is Status.PASS
        assert fast.members == ()

    def test_without_a_batch_the_worst_decides(self) -> None:
        found = judged(rule("min_retained 95%", metric="decode_tokens_per_second"), self.speeds(1.2, 0.8))
        assert found.status is Status.REGRESSION
        assert found.estimate == pytest.approx(0.8, rel=2e-3)
        assert [(m.group, m.status) for m in found.members] == [
            ("batch=8", Status.REGRESSION),
            ("batch=1", Status.PASS),
        ]
        assert found.reason.startswith("batch=8, the worst of 2: ")

    def test_a_shorter_wait_is_a_speed_up(self) -> None:
        pair = (
            self.blocks(BASELINE, self.WAIT, {1: [0.2, 0.21, 0.2, 0.19] * 2}),
            self.blocks(CANDIDATE, self.WAIT, {1: [0.1, 0.105, 0.1, 0.095] * 2}),
        )
        faster = judged(rule("min_speedup 1.5", metric="ttft_p50_seconds"), pair)
        assert faster.status is Status.PASS
        assert faster.estimate == pytest.approx(2.0)
        assert judged(rule("max_increase 0%", metric="ttft_p50_seconds"), pair).estimate == pytest.approx(-0.5)
        assert judged(rule("max 150ms", metric="ttft_p50_seconds"), (None, pair[1])).status is Status.PASS
        slower = (replace(pair[1], role=BASELINE), replace(pair[0], role=CANDIDATE))
        assert judged(rule("max_increase 50%", metric="ttft_p50_seconds"), slower).status is Status.REGRESSION

    def test_equal_blocks_keep_a_resolution(self) -> None:
        pair = tuple(self.blocks(r, self.SPEED, {1: [50.0] * 8}) for r in (BASELINE, CANDIDATE))
        found = judge(rule("min_retained 95%", metric="decode_tokens_per_second"), pair[0], pair[1], TERMS)
        assert found.interval is not None
        assert (found.interval.low, found.interval.high) == pytest.approx((0.999, 1.001), abs=1e-6)
        assert found.status is Status.PASS

    def test_a_batch_that_ran_out_of_memory_is_an_error_of_that_batch(self) -> None:
        baseline = self.blocks(BASELINE, self.SPEED, {1: [50.0] * 8, 8: [200.0] * 8})
        failures = [failure(f"block/{k}/batch=8", "out_of_memory") for k in range(8)]
        candidate = self.blocks(CANDIDATE, self.SPEED, {1: [50.0] * 8}, failures=failures)
        found = judged(rule("min_retained 95%", metric="decode_tokens_per_second"), (baseline, candidate))
        assert found.status is Status.ERROR
        assert "candidate out_of_memory: 8" in found.reason
        assert {m.group: m.status for m in found.members} == {"batch=8": Status.ERROR, "batch=1": Status.PASS}
        one = judged(rule("min_retained 95%", metric="decode_tokens_per_second", batch=1), (baseline, candidate))
        assert one.status is Status.PASS

    def test_a_batch_that_neither_could_run_is_not_forgotten(self) -> None:
        failures = [failure(f"block/{k}/batch=8", "out_of_memory") for k in range(8)]
        pair = tuple(self.blocks(r, self.SPEED, {1: [50.0] * 8}, failures=failures) for r in (BASELINE, CANDIDATE))
        found = judge(rule("min_retained 95%", metric="decode_tokens_per_second"), pair[0], pair[1], TERMS)
        assert found.status is Status.ERROR

    def test_a_missing_block_is_lost(self) -> None:
        pair = (
            self.blocks(BASELINE, self.SPEED, {1: [50.0] * 8}),
            self.blocks(CANDIDATE, self.SPEED, {1: [50.0] * 7}),
        )
        found = judged(rule("min_retained 95%", metric="decode_tokens_per_second"), pair)
        assert (found.status, found.n_lost) == (Status.ERROR, 1)

    def test_no_blocks_at_all(self) -> None:
        pair = self.blocks(BASELINE, self.SPEED, {}), self.blocks(CANDIDATE, self.SPEED, {})
        found = judged(rule("min_retained 95%", metric="decode_tokens_per_second"), pair)
        assert (found.status, "nothing was measured" in found.reason) == (Status.ERROR, True)


class TestScalars:
    def readings(self, role: Role, name: str, values: list[float], **changes: Any) -> Measurement:
        metric = PROFILE[name]
        found = [observation(metric, f"run/{k}", v) for k, v in enumerate(values)]
        return measurement(role, found, 8, metric=metric, **changes)

    @pytest.mark.parametrize(("more", "expected"), [(0, Status.PASS), (1, Status.REGRESSION), (-1, Status.PASS)])
    def test_bytes_are_exact(self, more: int, expected: Status) -> None:
        candidate = self.readings(CANDIDATE, "vram_peak", [24 * 2**30 + more])
        found = judged(rule("max 24GiB", metric="vram_peak"), (None, candidate))
        assert found.status is expected
        assert found.interval is not None
        assert found.interval.low < found.interval.high

    def test_the_same_size_is_no_increase(self) -> None:
        pair = self.readings(BASELINE, "disk_bytes", [4_470_000]), self.readings(CANDIDATE, "disk_bytes", [4_470_000])
        assert judged(rule("max_increase 0%", metric="disk_bytes"), pair).status is Status.PASS
        larger = pair[0], self.readings(CANDIDATE, "disk_bytes", [4_470_001])
        found = judged(rule("max_increase 0%", metric="disk_bytes"), larger)
        assert found.status is Status.REGRESSION
        assert (found.baseline, found.candidate) == (4_470_000, 4_470_001)

    def test_a_running_peak_is_its_largest_reading(self) -> None:
        candidate = self.readings(CANDIDATE, "rss_peak", [1.0e9, 3.0e9, 3.0e9])
        found = judged(rule("max 2GiB", metric="rss_peak"), (None, candidate))
        assert (found.status, found.candidate) == (Status.REGRESSION, 3.0e9)

    def test_repeats_span_the_interval(self) -> None:
        candidate = self.readings(CANDIDATE, "load_seconds", [4.0, 6.0, 5.0])
        found = judged(rule("max 5.5s", metric="load_seconds"), (None, candidate))
        assert found.status is Status.INCONCLUSIVE
        assert found.estimate == 5.0
        assert found.interval is not None
        assert (found.interval.low, found.interval.high) == pytest.approx((4.0, 6.0), rel=1e-5)

    def test_a_peak_cut_short_is_not_known(self) -> None:
        failures = [failure("block/0/batch=8", "out_of_memory")]
        candidate = self.readings(CANDIDATE, "vram_peak", [20 * 2**30], failures=failures)
        found = judged(rule("max 24GiB", metric="vram_peak"), (None, candidate))
        assert found.status is Status.ERROR
        assert "ran out of memory in block/0/batch=8" in found.reason
        size = self.readings(CANDIDATE, "disk_bytes", [1.0], failures=failures)
        assert judged(rule("max 24GiB", metric="disk_bytes"), (None, size)).status is Status.PASS

    def test_a_reading_for_the_whole_run_has_no_batch(self) -> None:
        candidate = self.readings(CANDIDATE, "vram_peak", [20 * 2**30])
        found = judged(rule("max 24GiB", metric="vram_peak", batch=8), (None, candidate))
        assert (found.status, "read once for all batch sizes" in found.reason) == (Status.ERROR, True)

    def test_no_reading(self) -> None:
        candidate = self.readings(CANDIDATE, "load_seconds", [1.0])
        pair = self.readings(BASELINE, "load_seconds", []), candidate
        found = judged(rule("max_increase 5%", metric="load_seconds"), pair)
        assert (found.status, "the baseline has no reading" in found.reason) == (Status.ERROR, True)
