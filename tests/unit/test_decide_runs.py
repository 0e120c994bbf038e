"""Once-per-run readings: memory taken apart, sizes, the largest batch, load time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gate.metrics import DESCRIBED, PROFILE
from gate.records import Measurement, Role, Status
from tests.decide_factory import (
    BASELINE,
    CANDIDATE,
    failure,
    judged,
    measurement,
    observation,
    rule,
)

PEAKS = ("activation_peak", "rss_peak", "vram_peak", "vram_reserved", "vram_process", "vram_unused")


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

    @pytest.mark.parametrize("name", PEAKS)
    def test_a_peak_cut_short_is_not_known(self, name: str) -> None:
        failures = [failure("block/0/batch=8", "out_of_memory")]
        candidate = self.readings(CANDIDATE, name, [20 * 2**30], failures=failures)
        found = judged(rule("max 24GiB", metric=name), (None, candidate))
        assert found.status is Status.ERROR
        assert "ran out of memory in block/0/batch=8" in found.reason

    @pytest.mark.parametrize(
        "name", [n for n, m in PROFILE.items() if m.unit == "B" and n not in PEAKS] + ["max_batch_at_context"]
    )
    def test_what_is_no_peak_stands_when_a_batch_ran_out_of_memory(self, name: str) -> None:
        failures = [failure("block/0/batch=8", "out_of_memory")]
        candidate = self.readings(CANDIDATE, name, [1024.0], failures=failures)
        bound = "min 16" if name == "max_batch_at_context" else "max 24GiB"
        assert judged(rule(bound, metric=name), (None, candidate)).status is Status.PASS

    @pytest.mark.parametrize("key", ["batch", "lengths", "load"])
    def test_a_reading_for_the_whole_run_has_no_batch(self, key: str) -> None:
        candidate = self.readings(CANDIDATE, "vram_peak", [20 * 2**30])
        of = rule("max 24GiB", metric="vram_peak", **{key: 8 if key == "batch" else "8"})
        found = judged(of, (None, candidate))
        assert found.status is Status.ERROR
        assert f"read once for all batches and loads: remove `{key}`" in found.reason

    def test_no_reading(self) -> None:
        candidate = self.readings(CANDIDATE, "load_seconds", [1.0])
        pair = self.readings(BASELINE, "load_seconds", []), candidate
        found = judged(rule("max_increase 5%", metric="load_seconds"), pair)
        assert (found.status, "the baseline has no reading" in found.reason) == (Status.ERROR, True)

    def test_nothing_fits_is_a_number(self) -> None:
        name = "max_batch_at_context"
        pair = self.readings(BASELINE, name, [12.0, 12.0]), self.readings(CANDIDATE, name, [0.0, 0.0])
        least = judged(rule("min 1", metric=name), pair)
        assert (least.status, least.candidate) == (Status.REGRESSION, 0)
        kept = judged(rule("min_retained 50%", metric=name), pair)
        assert (kept.status, kept.estimate) == (Status.REGRESSION, 0)
        mirrored = self.readings(BASELINE, name, [0.0]), self.readings(CANDIDATE, name, [12.0])
        compared = judged(rule("min_retained 50%", metric=name), mirrored)
        assert (compared.status, "the baseline reads 0" in compared.reason) == (Status.ERROR, True)
        assert judged(rule("min 1", metric=name), mirrored).status is Status.PASS

    def test_readings_are_no_matter_of_confidence(self) -> None:
        candidate = self.readings(CANDIDATE, "vram_peak", [24 * 2**30])
        assert judged(rule("max 24GiB", metric="vram_peak"), (None, candidate)).reason == (
            "the value keeps the bound 24GiB"
        )
        assert judged(rule("max 1MiB", metric="vram_peak"), (None, candidate)).reason == (
            "the value is beyond the bound 1MiB"
        )
        pair = self.readings(BASELINE, "vram_peak", [20 * 2**30]), candidate
        assert judged(rule("max_increase 5%", metric="vram_peak"), pair).reason == (
            "the increase is beyond the bound 5%"
        )

    def test_the_largest_batch_is_one_number_and_the_smallest_that_was_read(self) -> None:
        name = "max_batch_at_context"
        candidate = self.readings(CANDIDATE, name, [12.0, 11.0, 12.0])
        found = judged(rule("min 12", metric=name), (None, candidate))
        assert (found.status, found.candidate, found.n_paired) == (Status.REGRESSION, 11, 1)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("joules_per_output_token", "nothing counts energy on a CPU"),
            ("vram_peak", "a CPU has no VRAM: use rss_peak"),
            ("load_vram_peak", "a CPU has no VRAM: use load_rss_peak"),
        ],
    )
    def test_what_a_cpu_cannot_have_says_so(self, name: str, said: str) -> None:
        seen = self.readings(CANDIDATE, "rss_peak", [1.0])
        wanted = rule("max 24" if name.startswith("joules") else "max 24GiB", metric=name)
        on_cpu = judged(wanted, (None, replace(seen, notes=("measured on CPU", "x" * 5000))))
        assert on_cpu.status is Status.ERROR
        assert said in on_cpu.reason
        assert len(on_cpu.reason) < 120
        assert said not in judged(wanted, (None, seen)).reason

    def test_what_is_missing_names_what_rules_can_use_and_few_notes(self) -> None:
        described = DESCRIBED["cpu_has_amx_fp16"]
        seen = replace(
            self.readings(CANDIDATE, "rss_peak", [1.0]),
            metrics=(PROFILE["rss_peak"], described),
            notes=("it was cold.", "x" * 5000),
        )
        reason = judged(rule("max 24GiB", metric="disk_bytes"), (None, seen)).reason
        assert "it reported rss_peak; it was cold; xxx" in reason
        assert described.name not in reason
        assert len(reason) < 1000

    @pytest.mark.parametrize("name", ["vram_process", "vram_context"])
    def test_what_the_driver_cannot_see_has_its_own_sentence(self, name: str) -> None:
        """In a container NVML counts nothing for the process, while the allocator still knows what it holds."""
        peak, wanted = PROFILE["vram_peak"], PROFILE[name]
        seen = measurement(CANDIDATE, [observation(peak, "run/0", 2.0**30)], 8, metric=peak, also=[wanted])
        found = judged(rule("max 24GiB", metric=name), (None, seen))
        assert found.status is Status.ERROR
        assert "NVML cannot see it, as in most containers" in found.reason
        undeclared = measurement(CANDIDATE, seen.observations, 8, metric=peak)
        assert judged(rule("max 24GiB", metric=name), (None, undeclared)).reason == found.reason
        on_cpu = measurement(CANDIDATE, [], 8, metric=wanted)
        assert (
            "does this device and backend report it?" in judged(rule("max 24GiB", metric=name), (None, on_cpu)).reason
        )

    def test_a_run_that_stopped_at_a_planned_look_has_its_readings(self) -> None:
        candidate = self.readings(CANDIDATE, "weights_bytes", [7.0] * 4, n_reached=4)
        pair = self.readings(BASELINE, "weights_bytes", [7.0] * 4, n_reached=4), candidate
        found = judged(rule("max_increase 0%", metric="weights_bytes"), pair)
        assert found.status is Status.PASS
        assert "reached" not in found.counts
