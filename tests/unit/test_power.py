"""What n paired items can see: reference numbers of docs/statistics.md, and enumerations by brute force."""

from __future__ import annotations

import pytest
from scipy import stats

from gate.decide import power
from gate.stats import tango, wilson
from gate.stats.quantiles import small_sample


@pytest.mark.parametrize(
    ("n", "by_flip_rate_pp"),
    [
        (164, (2.8, 3.9, 4.8, 6.1)),
        (500, (1.6, 2.2, 2.7, 3.5)),
        (1319, (1.0, 1.4, 1.7, 2.2)),
        (14042, (0.30, 0.42, 0.51, 0.66)),
    ],
)
def test_smallest_drop_reproduces_the_published_table(n: int, by_flip_rate_pp: tuple[float, ...]) -> None:
    printed = 0.0051 if n == 14042 else 0.055  # half a unit of the last digit printed there
    found = [power.smallest_drop(n=n, flip_rate=f, confidence=0.95) * 100 for f in (0.02, 0.04, 0.06, 0.10)]
    assert found == pytest.approx(list(by_flip_rate_pp), abs=printed)


def test_a_lossless_candidate_passes_humaneval_at_3pp_44_percent_of_the_time() -> None:
    assert power.lossless_pass(n=164, flip_rate=0.06, drop=0.03, confidence=0.95) == pytest.approx(0.44, abs=0.005)


def test_lossless_pass_is_the_full_enumeration() -> None:
    n, f, drop = 40, 0.1, 0.12
    critical = stats.norm.ppf(0.95)
    total = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            if tango.z_score(lost=b, gained=c, n=n, difference=-drop) >= critical:
                total += stats.multinomial.pmf([b, c, n - b - c], n, [f / 2, f / 2, 1 - f])
    assert 0.2 < total < 0.9
    assert power.lossless_pass(n=n, flip_rate=f, drop=drop, confidence=0.95) == pytest.approx(total, abs=1e-6)


def test_lossless_pass_at_large_n_joins_the_normal_curve() -> None:
    n, f, drop = 14042, 0.06, 0.005
    expected = stats.norm.cdf(drop / (f / n) ** 0.5 - stats.norm.ppf(0.95))
    assert power.lossless_pass(n=n, flip_rate=f, drop=drop, confidence=0.95) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("drop", [0.005, 0.01, 0.03, 0.1])
def test_items_needed_is_the_inverse_of_smallest_drop(drop: float) -> None:
    n = power.items_needed(drop=drop, flip_rate=0.06, confidence=0.95)
    assert power.smallest_drop(n=n, flip_rate=0.06, confidence=0.95) <= drop
    assert power.smallest_drop(n=n - 1, flip_rate=0.06, confidence=0.95) > drop


@pytest.mark.parametrize("drop", [0.001, 0.0067, 0.0068, 0.0069, 0.01, 0.03, 0.2])
def test_items_to_pass_is_where_the_interval_without_flips_fits(drop: float) -> None:
    n = power.items_to_pass(drop=drop, confidence=0.95)
    assert n is not None
    assert power.reach(n=n, level=small_sample(0.95, n)) <= drop
    assert n == 1 or power.reach(n=n - 1, level=small_sample(0.95, n - 1)) > drop


def test_without_flips_the_reach_is_tangos() -> None:
    reach = power.reach(n=1319, level=0.95)
    assert reach == pytest.approx(-tango.interval(lost=0, gained=0, n=1319, confidence=0.95).low, abs=1e-9)
    assert reach == pytest.approx(1 - wilson.interval(successes=1319, n=1319, confidence=0.95).low, abs=1e-9)
    assert power.items_to_pass(drop=0.0, confidence=0.95) is None


@pytest.mark.parametrize("df", [3, 7, 15, 61])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.975])
def test_student_quantiles(df: int, confidence: float) -> None:
    assert power.student(confidence, df) == pytest.approx(stats.t.ppf(confidence, df), abs=0.02 if df == 3 else 0.001)


def test_a_thousand_tokens_pass_one_percent_and_hesitate_at_a_typical_four_bit() -> None:
    error = power.perplexity_error_nats(documents=16, tokens=1000)
    t = power.student(0.95, 15)
    one_percent, four_bit = (power.normal_cdf((0.04879 - d) / error - t) for d in (0.00995, 0.0276))
    assert one_percent == pytest.approx(0.95, abs=0.03)
    assert 0.5 < four_bit < 0.8


@pytest.mark.parametrize(
    ("n", "lossless_by_flips", "small_drop", "drop_5pp", "drop_10pp"),
    [
        (164, (120, 128, 137), (147, 159), 134, 81),
        (500, (217, 243, 287), (313, 409), 319, 142),
        (1319, (314, 385, 481), (575, 932), 542, 188),
        (2800, (359, 441, 611), (757, 1471), 757, 209),
        (14042, (416, 539, 807), (1055, 3060), 1041, 232),
    ],
)
def test_expected_items_stand_for_the_simulated_table(
    n: int, lossless_by_flips: tuple[int, ...], small_drop: tuple[int, ...], drop_5pp: int, drop_10pp: int
) -> None:
    """Means of docs/statistics.md at 3 pp; the planning formula is meant to be good to a third."""

    def expected(flip_rate: float, drop_rate: float) -> float:
        return power.expected_items(n=n, flip_rate=flip_rate, drop_rate=drop_rate, bound=0.03, alpha=0.05)

    found = [expected(f, 0.0) for f in (0.04, 0.06, 0.10)]
    found += [expected(0.06, 0.01), expected(0.06, 0.02), expected(0.07, 0.05), expected(0.14, 0.10)]
    simulated = (*lossless_by_flips, *small_drop, drop_5pp, drop_10pp)
    ratios = [a / b for a, b in zip(found, simulated, strict=True)]
    assert min(ratios) > 0.75
    assert max(ratios) < 1.36


def test_expected_items_at_the_bound_and_without_flips() -> None:
    def expected(drop_rate: float, flip_rate: float = 0.06) -> float:
        return power.expected_items(n=2000, flip_rate=flip_rate, drop_rate=drop_rate, bound=0.03, alpha=0.05)

    assert expected(0.03) == 2000
    assert expected(0.0) == pytest.approx(expected(0.06))  # by symmetry of the distance from the bound
    assert expected(0.0, 0.0) == expected(0.0, 0.01) < expected(0.0, 0.02)
    assert expected(0.2, 0.01) == expected(0.2, 0.2)  # a drop of 20 points flips 20 % of the items at least


def test_passing_the_full_run_is_the_full_enumeration() -> None:
    n, f = 40, 0.1
    for allowed in (0, 1, 4):
        total = sum(
            float(stats.multinomial.pmf([b, c, n - b - c], n, [f / 2, f / 2, 1 - f]))
            for b in range(n + 1)
            for c in range(n + 1 - b)
            if b - c <= allowed
        )
        assert power.full_run_pass(n=n, flip_rate=f, allowed=allowed) == pytest.approx(total, abs=1e-6)


def test_items_to_keep_a_bound_are_where_four_in_five_lossless_candidates_do() -> None:
    n = power.items_to_keep(drop=0.03, flip_rate=0.1)
    assert power.full_run_pass(n=n, flip_rate=0.1, allowed=int(0.03 * n)) == pytest.approx(0.8, abs=0.06)
    assert power.items_to_keep(drop=0.001, flip_rate=0.01) >= 1000  # below, the bound is finer than one item
