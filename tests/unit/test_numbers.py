"""Numbers as printed: units, and digits that reproduce the verdict."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate import metrics
from gate.records import BoundKind, Finding, Scope, Status
from gate.reports import numbers
from tests import records_factory as factory


def parsed(text: str, suffix: str) -> Decimal:
    return Decimal(text.removesuffix(suffix).replace(",", "").replace("−", "-"))


def sign(a: Decimal | float, b: Decimal | float) -> int:
    return (a > b) - (a < b)


KINDS = {
    BoundKind.MAX_DROP: ("domain", "accuracy"),
    BoundKind.MAX_INCREASE: ("perplexity", "perplexity"),
    BoundKind.MIN_RETAINED: ("lm_eval", "acc"),
    BoundKind.MIN_SPEEDUP: ("profile", "decode_tokens_per_second"),
    BoundKind.MAX: ("profile", "vram_peak"),
    BoundKind.MIN: ("perplexity", "top1_agreement"),
}
values = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False) | st.floats(min_value=-0.2, max_value=0.2)


@settings(deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    three=st.tuples(values, values, values),
    bound=values | st.sampled_from([0.0, 0.03, 0.05, 0.97, 24 * 2.0**30, 24e9]),
    near=st.sampled_from([0.0, 1e-15, -1e-15, 1e-9, -1e-9]),
)
def test_printed_numbers_compare_with_the_printed_bound_as_the_unrounded_ones_do(
    kind: BoundKind, three: tuple[float, float, float], bound: float, near: float
) -> None:
    stage_kind, metric = KINDS[kind]
    low, estimate, high = sorted((three[0], bound * (1 + near), three[2]))
    found = factory.finding(
        factory.rule("s", metric, kind, bound, "as written"),
        Status.INCONCLUSIVE,
        (estimate, low, high),
        candidate=estimate,
    )
    shown = numbers.printed(found, stage_kind)
    assert shown.low is not None
    assert shown.high is not None
    assert shown.estimate is not None
    limit = parsed(shown.bound, shown.suffix)
    assert sign(parsed(shown.low, ""), limit) == sign(low, bound)
    assert sign(parsed(shown.high, ""), limit) == sign(high, bound)
    assert sign(parsed(shown.estimate, shown.suffix), limit) == sign(estimate, bound)
    assert (shown.low == shown.high) == (low == high), "an interval is never printed with zero width"


@settings(deadline=None)
@given(
    kind=st.sampled_from([BoundKind.MAX_DROP, BoundKind.MIN_RETAINED]),
    n=st.integers(min_value=1, max_value=20_000),
    lost=st.integers(min_value=0, max_value=600),
    bound=st.sampled_from([0.01, 0.03, 0.95, 0.97]),
)
def test_a_benchmark_counted_in_full_is_printed_as_exact_and_compares_as_it_does(
    kind: BoundKind, n: int, lost: int, bound: float
) -> None:
    value = lost / n if kind is BoundKind.MAX_DROP else 1 - lost / n
    rule = factory.rule("s", "acc", kind, bound, "as written")
    status = Status.PASS if (value <= bound) is (kind is BoundKind.MAX_DROP) else Status.REGRESSION
    shown = numbers.printed(factory.sequential_finding(rule, status, (value, value, value), n, n), "lm_eval")
    assert (shown.interval, shown.low, shown.high) == ("exact", None, None)
    assert shown.estimate is not None
    assert sign(parsed(shown.estimate, shown.suffix), parsed(shown.bound, shown.suffix)) == sign(value, bound)


@pytest.mark.parametrize(
    ("three", "n", "scope"),
    [
        ((0.02, 0.01, 0.03), 1319, Scope.BENCHMARK),  # lost items leave it open
        ((0.02, 0.02, 0.02), 160, Scope.BENCHMARK),  # zero width without counting would be an error, not certainty
        ((0.02, 0.02, 0.02), 1319, Scope.POPULATION),
    ],
)
def test_nothing_else_is_exact(three: tuple[float, float, float], n: int, scope: Scope) -> None:
    found = factory.sequential_finding(factory.rule(), Status.PASS, three, n, 1319, scope=scope)
    assert numbers.printed(found, "domain").interval != "exact"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.95, "95%"),
        (1 - 0.05 / 2, "97.5%"),
        (1 - 0.05 / 3, "98.33%"),  # 98.3333…
        (1 - 0.05 / 60, "99.91%"),  # 99.9166…: rounding up would claim more
        (1 - (1 - 0.95) / 5, "99%"),  # a float a little below
        (0.99999, "99.99%"),
    ],
)
def test_confidences_never_claim_more(value: float, text: str) -> None:
    assert numbers.confidence(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "0"),
        (1e-12, "≤ 0.000001"),
        (1e-6, "≤ 0.000001"),
        (0.0000123, "0.000012"),
        (0.00231, "0.0023"),
        (0.0499, "0.050"),
        (0.625, "0.62"),
        (0.996, "> 0.99"),
        (1.0, "1"),
    ],
)
def test_p_values_have_two_significant_digits(p: float, text: str) -> None:
    assert numbers.p_value(p) == text


def test_percents_rise_where_the_values_do() -> None:
    assert numbers.percents([0.98, 0.98, 0.985]) == ["98.00", "98.00", "98.50"]
    assert numbers.percents([0.98001, 0.98002, 0.98003]) == ["98.001", "98.002", "98.003"]


@pytest.mark.parametrize(("value", "text"), [(0.0041234, "0.00412"), (-1.2345, "−1.23"), (1234.5, "1,230"), (0.0, "0")])
def test_three_significant_digits(value: float, text: str) -> None:
    assert numbers.significant(value).removesuffix(".00") == text


@pytest.mark.parametrize(
    ("kind", "metric", "bound", "three", "baseline", "expected"),
    [
        (
            ("domain", BoundKind.MAX_DROP),
            "accuracy",
            0.03,
            (0.115, 0.1033, 0.1278),
            1.0,
            ("100.00%", "11.50 pp", "10.33 to 12.78 pp", "3 pp"),
        ),
        (
            ("domain", BoundKind.MAX_DROP),
            "accuracy",
            0.03,
            (0.02, 0.01, 0.0299996),
            0.9,
            ("90.00%", "2.00000 pp", "1.00000 to 2.99996 pp", "3 pp"),
        ),
        (
            ("lm_eval", BoundKind.MIN_RETAINED),
            "acc",
            0.97,
            (0.975, 0.97, 0.98),
            0.64,
            ("64.00%", "97.50%", "97.00 to 98.00%", "97%"),
        ),
        (
            ("perplexity", BoundKind.MAX_INCREASE),
            "perplexity",
            0.05,
            (0.004, -0.0012, 0.009),
            2.177,
            ("2.177", "0.40%", "−0.12 to 0.90%", "5%"),
        ),
        (
            ("profile", BoundKind.MIN_SPEEDUP),
            "decode_tokens_per_second",
            1.2,
            (0.93, 0.91, 0.95),
            1510.25,
            ("1,510.2 tok/s", "0.930×", "0.910 to 0.950×", "1.2×"),
        ),
        (
            ("profile", BoundKind.MAX),
            "vram_peak",
            24e9,
            (20 * 2.0**30,) * 3,
            30 * 2.0**30,
            ("30.00 GiB", "20.00 GiB", "20.00 to 20.00 GiB", "22.35 GiB"),
        ),
        (
            ("profile", BoundKind.MAX),
            "ttft_p50_seconds",
            0.2,
            (0.15, 0.14, 0.16),
            0.1,
            ("100.0 ms", "150.0 ms", "140.0 to 160.0 ms", "200 ms"),
        ),
        (
            ("perplexity", BoundKind.MAX),
            "kl_mean_nats",
            0.05,
            (3e-5, 2e-5, 4e-5),
            None,
            (None, "0.00003 nats", "0.00002 to 0.00004 nats", "0.05 nats"),
        ),
        (
            ("perplexity", BoundKind.MIN),
            "top1_agreement",
            0.9,
            (0.9514, 0.9466, 0.9562),
            None,
            (None, "95.14%", "94.66 to 95.62%", "90%"),
        ),
        (
            ("lm_eval", BoundKind.MAX),
            "word_perplexity",
            12.5,
            (11.0, 10.9, 11.1),
            10.7,
            ("10.700", "11.000", "10.900 to 11.100", "12.5"),
        ),
    ],
)
def test_units(
    kind: tuple[str, BoundKind],
    metric: str,
    bound: float,
    three: tuple[float, float, float],
    baseline: float | None,
    expected: tuple[str | None, ...],
) -> None:
    rule = factory.rule("s", metric, kind[1], bound, "as written")
    candidate = three[0] if kind[1] in (BoundKind.MAX, BoundKind.MIN) else 0.885
    shown = numbers.printed(
        factory.finding(rule, Status.INCONCLUSIVE, three, baseline=baseline, candidate=candidate), kind[0]
    )
    assert (shown.baseline, shown.estimate, shown.interval, shown.bound) == expected


@pytest.mark.parametrize("kind", sorted(metrics.BY_KIND))
def test_every_declared_metric_has_a_unit_that_can_be_printed(kind: str) -> None:
    for metric in metrics.BY_KIND[kind].values():
        found = factory.finding(factory.rule("s", metric.name, BoundKind.MAX, 0.5, "x"), Status.PASS, (0.2, 0.1, 0.3))
        assert numbers.printed(found, kind).interval != numbers.MISSING


def test_a_finding_without_evidence_prints_its_bound_and_dashes() -> None:
    shown = numbers.printed(factory.finding(factory.rule(), Status.ERROR, None), "domain")
    assert (shown.estimate, shown.interval, shown.change, shown.bound) == (None, "–", "–", "3 pp")


def test_zero_is_printed_without_a_sign() -> None:
    found = factory.finding(factory.rule(), Status.PASS, (-0.00001, -0.01, 0.01))
    assert numbers.printed(found, "domain").estimate == "0.00 pp"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.999, "1.00 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (252, "4 min 12 s"),
        (3780, "1 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (1_400_000, "1.34 MiB"), (24 * 2**30, "24.00 GiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert numbers.size(size) == text


def test_counts_and_rates() -> None:
    assert [numbers.count(1, "item"), numbers.count(14042, "item"), numbers.count(0.5)] == [
        "1 item",
        "14,042 items",
        "0.500",
    ]
    assert [numbers.rate(0.95), numbers.rate(0.975), numbers.rate(0.9999)] == ["95%", "97.5%", "99.99%"]


def test_moments_keep_their_zone_and_junit_has_none() -> None:
    assert numbers.moment("2026-11-20T12:00:59.123456+00:00") == "2026-11-20 12:00 UTC"
    assert numbers.moment("2026-11-20T12:00:59Z") == "2026-11-20 12:00 UTC"
    assert numbers.moment("2026-11-20T13:00:59+01:00") == "2026-11-20 13:00 +01:00"
    assert numbers.zoneless("2026-11-20T12:00:59.123456+00:00") == "2026-11-20T12:00:59"
    with pytest.raises(ValueError, match="found timestamp 'yesterday', expected ISO 8601"):
        numbers.moment("yesterday")


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=1e6), st.integers(min_value=1, max_value=200))
def test_shares_of_a_time_add_up_to_it(total: float, parts: int) -> None:
    cut = numbers.shares(total, parts)
    assert len(cut) == parts
    assert sum(Decimal(c) for c in cut) == Decimal(numbers.thousandths(round(total * 1000) / 1000))
    assert all(len(c.split(".")[1]) == 3 for c in cut)


def test_bytes_read_to_the_byte_are_exact_and_seconds_never_are() -> None:
    def finding(metric: str, low: float, high: float) -> Finding:
        ruled = factory.rule("serving", metric, BoundKind.MAX, 1e9, "1GB")
        return factory.finding(ruled, Status.PASS, (high, low, high), candidate=high, method="exact")

    assert numbers.to_the_byte(finding("rss_peak", 99_999_999.5, 100_000_000.0), "profile")
    assert not numbers.to_the_byte(finding("rss_peak", 99_000_000.0, 100_000_000.0), "profile")
    assert not numbers.to_the_byte(finding("load_seconds", 2.5, 3.0), "profile")
    assert numbers.to_the_byte(finding("max_batch_at_context", 35.99996, 36.0), "profile"), "sequences are counted"


def test_a_ratio_of_bytes_read_to_the_byte_is_exact() -> None:
    def finding(metric: str, baseline: float, low: float, high: float) -> Finding:
        ruled = factory.rule("serving", metric, BoundKind.MAX_INCREASE, 0.05, "5%")
        span = (high, low, high)
        return factory.finding(ruled, Status.PASS, span, baseline=baseline, candidate=1.0, method="exact_ratio")

    assert numbers.printed(finding("vram_peak", 1e6, 0.0060682, 0.0060687), "profile").interval == "exact"
    assert not numbers.to_the_byte(finding("vram_peak", 1e6, 0.006, 0.0061), "profile")
    assert not numbers.to_the_byte(finding("load_seconds", 10.0, 0.006, 0.006000001), "profile")
    assert numbers.to_the_byte(finding("max_batch_at_context", 28.0, 0.25, 0.250001), "profile")
    assert not numbers.to_the_byte(finding("max_batch_at_context", 28.0, 0.25, 0.285714), "profile")


@pytest.mark.parametrize("metric", sorted(metrics.PROFILE))
def test_every_profile_metric_can_be_printed_with_its_unit(metric: str) -> None:
    found = factory.finding(
        factory.rule("serving", metric, BoundKind.MAX, 40.0, "40"), Status.PASS, (36.0, 36.0, 36.0), candidate=36.0
    )
    shown = numbers.printed(found, "profile")
    unit = metrics.PROFILE[metric].unit
    assert (shown.estimate or "").endswith(unit)
    assert (shown.estimate or "").startswith("36")


def test_figures_side_by_side_have_one_unit_and_three_digits_that_count() -> None:
    assert numbers.figures((1.5, 0.02), "s") == ["1.50 s", "0.0200 s"]
    assert numbers.figures((0.0041, 0.1), "s") == ["4.10 ms", "100 ms"]
    assert numbers.figures((2711.9, 99.96), "tok/s") == ["2,712 tok/s", "100 tok/s"]
    assert numbers.figures((0.4567, None), "J/tok") == ["0.457 J/tok", "–"]
    assert numbers.figures((12.346, 9.9996), "req/s") == ["12.3 req/s", "10.0 req/s"]
    assert numbers.figures((28.0, 1930.0), "seq") == ["28", "1,930"]
    assert numbers.figures((0.8567, 7.38), "") == ["0.857", "7.38"]
    assert numbers.figures((0.0, None), "") == ["0", "–"]


def test_ratios_are_hundredths_where_that_says_enough() -> None:
    assert [numbers.times(r) for r in (0.716, 1.0, 12.34, 123.4, 0.0312, None)] == [
        "0.72×",
        "1.00×",
        "12.3×",
        "123×",
        "0.0312×",
        "–",
    ]


def test_rates_of_a_device_have_decimal_prefixes() -> None:
    assert numbers.per_second(2.1e10, "B") == "21.0 GB/s"
    assert numbers.per_second(6.5e14, "FLOP") == "650 TFLOP/s"
    assert numbers.per_second(123.0, "B") == "123 B/s"
