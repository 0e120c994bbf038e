"""The only place that rounds: numbers as people read them, with the digits the verdict needs.

Pure: no I/O.  Never compares rounded numbers to decide anything; rates become percent only here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import pairwise

from gate import metrics
from gate.records import BoundKind, Finding, Scope

MISSING = "–"
_SEQUENCES_RATIO = 1e-5  # the interval of a ratio of whole sequences is narrower where all readings agree
_EXACT_DECIMALS = 4  # a bound is printed as written when it needs no more decimals than this


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """How a quantity is shown: multiplied by `times`, divided by `over`, at least `decimals` digits."""

    suffix: str
    decimals: int
    times: int = 1
    over: int = 1

    def of(self, value: float) -> Decimal:
        """The exact decimal that stands for this float, in this unit.

        The shortest decimal that reads back as the float is used, so different floats stay different
        and keep their order.
        """
        with localcontext(prec=400):
            return Decimal(repr(float(value))) * self.times / self.over


POINTS = Unit(suffix=" pp", decimals=2, times=100)
PERCENT = Unit(suffix="%", decimals=2, times=100)
RATIO = Unit(suffix="×", decimals=3)
NATS = Unit(suffix=" nats", decimals=4)
TOKENS_PER_SECOND = Unit(suffix=" tok/s", decimals=1)
REQUESTS_PER_SECOND = Unit(suffix=" req/s", decimals=2)
JOULES_PER_TOKEN = Unit(suffix=" J/tok", decimals=3)
SEQUENCES = Unit(suffix=" seq", decimals=0)
SECONDS = Unit(suffix=" s", decimals=2)
MILLISECONDS = Unit(suffix=" ms", decimals=1, times=1000)
PLAIN = Unit(suffix="", decimals=3)
_BYTES = (
    Unit(suffix=" GiB", decimals=2, over=2**30),
    Unit(suffix=" MiB", decimals=2, over=2**20),
    Unit(suffix=" KiB", decimals=1, over=2**10),
    Unit(suffix=" B", decimals=0),
)
_BY_NAME = {
    "rate": PERCENT,
    "probability": POINTS,
    "ratio": RATIO,
    "nats": NATS,
    "tok/s": TOKENS_PER_SECOND,
    "req/s": REQUESTS_PER_SECOND,
    "J/tok": JOULES_PER_TOKEN,
    "seq": SEQUENCES,
    "": PLAIN,
}
_BY_BOUND = {
    BoundKind.MAX_DROP: POINTS,
    BoundKind.MAX_INCREASE: PERCENT,
    BoundKind.MIN_RETAINED: PERCENT,
    BoundKind.MIN_SPEEDUP: RATIO,
}


def _unit(name: str, largest: float) -> Unit:
    if name == "B":
        return next((u for u in _BYTES if largest >= u.over), _BYTES[-1])
    if name == "s":
        return SECONDS if largest >= 1 else MILLISECONDS
    return _BY_NAME[name]


def _unit_name(kind: str, finding: Finding) -> str:
    """The unit of the metric.  lm-eval declares none: a metric whose values lie in [0, 1] is a rate."""
    known = metrics.BY_KIND.get(kind, {}).get(finding.rule.metric)
    if known is not None:
        return known.unit
    if finding.rule.bound.kind is BoundKind.MAX_DROP or finding.rule.bound.text.endswith("%"):
        return "rate"
    values = [v for v in (finding.baseline, finding.candidate) if v is not None]
    return "rate" if values and all(0 <= v <= 1 for v in values) else ""


def _print(value: Decimal, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text.replace("-", "−")


def _sign(a: Decimal, b: Decimal) -> int:
    return (a > b) - (a < b)


def _bound_at(bound: Decimal, decimals: int) -> Decimal:
    """The bound as it will be printed: exactly as written if that is short, else rounded like the rest."""
    exponent = bound.normalize().as_tuple().exponent
    exact = -exponent if isinstance(exponent, int) else 0
    return bound if exact <= _EXACT_DECIMALS else Decimal(f"{bound:.{decimals}f}")


def _decimals(values: tuple[Decimal, ...], bound: Decimal, at_least: int) -> int:
    """Fewest decimals at which every value lies on the same side of the bound as it does unrounded.

    Values that rise must also rise in print, so an interval is never printed with zero width.
    """
    decimals = at_least
    while True:
        shown = [Decimal(f"{v:.{decimals}f}") for v in values]
        limit = _bound_at(bound, decimals)
        same = all(_sign(s, limit) == _sign(v, bound) for s, v in zip(shown, values, strict=True))
        if same and (values[0] == values[-1] or shown[0] != shown[-1]):
            return decimals
        decimals += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """The numbers of one finding as text: comparing `low`, `estimate`, `high` with `bound` gives the verdict."""

    baseline: str | None
    candidate: str | None
    estimate: str | None
    low: str | None
    high: str | None
    bound: str
    detectable: str | None
    suffix: str
    exact: bool

    @property
    def interval(self) -> str:
        """`10.33 to 12.78 pp`, `exact`, or a dash."""
        if self.exact:
            return "exact"
        return MISSING if self.low is None or self.high is None else f"{self.low} to {self.high}{self.suffix}"

    @property
    def change(self) -> str:
        """`100.00% → 88.50%`; a dash stands for what is not there."""
        if self.baseline is None and self.candidate is None:
            return MISSING
        return f"{self.baseline or MISSING} → {self.candidate or MISSING}"


def to_the_byte(finding: Finding, kind: str) -> bool:
    """Is this a reading that is exact for people: bytes or sequences, or a ratio of them, with an interval no wider
    than one of them?"""
    interval, unit = finding.interval, _unit_name(kind, finding)
    if interval is None or unit not in ("B", "seq"):
        return False
    width = interval.high - interval.low
    if interval.method == "exact_ratio" and finding.baseline:
        return width <= (1 / finding.baseline if unit == "B" else _SEQUENCES_RATIO)
    return interval.method == "exact" and width <= 1


def counted(finding: Finding) -> bool:
    """Was every item of the benchmark counted, so that nothing is left in doubt (but for the last bits of a float)?"""
    interval = finding.interval
    if interval is None or interval.scope is not Scope.BENCHMARK or finding.counts.get("n") != finding.counts.get("N"):
        return False
    return interval.high - interval.low <= 1e-12 * max(1.0, abs(interval.high))


def printed(finding: Finding, kind: str) -> Printed:
    """The numbers of `finding`, measured by a stage of this kind, with digits that reproduce its verdict.

    `estimate` and `bound` carry their unit; `low` and `high` do not (`interval` adds it once).
    """
    bound_kind, limit = finding.rule.bound.kind, finding.rule.bound.value
    interval = finding.interval
    exact = to_the_byte(finding, kind) or counted(finding)
    span = () if interval is None or exact else (interval.low, interval.high)
    numbers = (*span[:1], *(() if finding.estimate is None else (finding.estimate,)), *span[1:])
    values = tuple(v for v in (finding.baseline, finding.candidate) if v is not None)
    name = _unit_name(kind, finding)
    on_own_scale = bound_kind in (BoundKind.MAX, BoundKind.MIN)
    largest = max((abs(v) for v in (*values, *((limit, *numbers) if on_own_scale else ()))), default=0.0)
    own = _unit(name, largest)
    unit = own if on_own_scale else _BY_BOUND[bound_kind]
    bound = unit.of(limit)
    decimals = unit.decimals
    if numbers:
        decimals = _decimals(tuple(unit.of(v) for v in numbers), bound, unit.decimals)
    value_decimals = decimals if on_own_scale else own.decimals

    def shown(value: float | None) -> str | None:
        return None if value is None else _print(own.of(value), value_decimals) + own.suffix

    def scaled(value: float | None, suffix: str) -> str | None:
        return None if value is None else _print(unit.of(value), decimals) + suffix

    return Printed(
        baseline=shown(finding.baseline),
        candidate=shown(finding.candidate),
        estimate=scaled(finding.estimate, unit.suffix),
        low=scaled(span[0] if span else None, ""),
        high=scaled(span[1] if span else None, ""),
        bound=_trimmed(_bound_at(bound, decimals)) + unit.suffix,
        detectable=None
        if finding.detectable is None
        else _print(unit.of(finding.detectable), unit.decimals) + unit.suffix,
        suffix=unit.suffix,
        exact=exact,
    )


def _trimmed(value: Decimal) -> str:
    text = f"{value:,f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def count(number: float, noun: str = "") -> str:
    """`2,000`, `1 item`, `2,000 items`; a count that is not whole keeps three decimals."""
    text = f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3f}"
    return text if not noun else f"{text} {noun}" if number == 1 else f"{text} {noun}s"


def rate(value: float) -> str:
    """A rate such as a confidence, exactly: 0.95 → `95%`, 0.975 → `97.5%`."""
    return _trimmed(PERCENT.of(value)) + "%"


def confidence(value: float) -> str:
    """A confidence in hundredths of a percent, rounded down so that no more is claimed: 1 − 0.05/3 → `98.33%`."""
    hundredths = math.floor(round(value * 10_000, 6))
    return _trimmed(Decimal(hundredths) / 100) + "%"


def percents(values: Sequence[float]) -> list[str]:
    """Rates that rise, as percent without the sign, with enough digits to rise in print too: at least two."""
    exact = [PERCENT.of(v) for v in values]
    decimals = PERCENT.decimals
    while any(a != b and f"{a:.{decimals}f}" == f"{b:.{decimals}f}" for a, b in pairwise(exact)):
        decimals += 1
    return [_print(v, decimals) for v in exact]


def p_value(value: float) -> str:
    """A p-value with two significant digits: `0.0012`; `≤ 0.000001` below that, `0` when it is certain."""
    if value == 0:
        return "0"
    if value <= 1e-6:
        return "≤ 0.000001"
    rounded = f"{Decimal(f'{value:.1e}'):f}"
    return "1" if value == 1 else "> 0.99" if float(rounded) >= 1 else rounded


def significant(value: float) -> str:
    """Three significant digits: `0.00412`, `−1.23`."""
    return f"{Decimal(f'{value:.2e}'):,f}".replace("-", "−")


def figures(values: Sequence[float | None], unit_name: str) -> list[str]:
    """Measured values side by side in one unit, each with three significant digits, or more before the point;
    counts as they are.

    `unit_name` as metrics have it; `""` is a plain number, such as a cost in whatever currency the policy's price is.
    """
    unit = _unit(unit_name, max((abs(v) for v in values if v is not None), default=0.0))
    if unit is SEQUENCES:
        return [MISSING if v is None else count(v) for v in values]
    return [MISSING if v is None else _significant(unit.of(v)) + unit.suffix for v in values]


def times(ratio: float | None) -> str:
    """`0.72×`, `12.3×`: hundredths, or three significant digits where that is fewer or finer."""
    if ratio is None:
        return MISSING
    value = RATIO.of(ratio)
    return (_print(value, 2) if Decimal("0.095") <= value < 10 else _significant(value)) + RATIO.suffix


def _significant(value: Decimal) -> str:
    """Three digits that count, and no exponent: 0.0412, 4.10, 899, 2,712."""
    if value == 0:
        return "0"
    decimals = max(2 - value.adjusted(), 0)
    return _print(value, max(2 - Decimal(f"{value:.{decimals}f}").adjusted(), 0))


def size(value_bytes: float) -> str:
    """`1.34 MiB`, in the largest binary unit that fits."""
    unit = _unit("B", value_bytes)
    return _print(unit.of(value_bytes), unit.decimals) + unit.suffix


def per_second(value: float, noun: str) -> str:
    """A rate of a device, `21.0 GB/s` or `240 GFLOP/s`, with three significant digits and decimal prefixes."""
    exact = Decimal(repr(float(value)))
    prefix, over = next(((p, o) for p, o in (("T", 10**12), ("G", 10**9), ("M", 10**6)) if value >= o), ("", 1))
    return f"{_significant(exact / over)} {prefix}{noun}/s"


def share(value: float) -> str:
    """A share for orientation, in whole percent: `31%`."""
    return f"{value * 100:,.0f}%".replace("-", "−")


def duration(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `4 min 12 s`, `1 h 03 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(iso: str) -> str:
    """An ISO timestamp to the minute, in its own zone: `2026-11-20 12:00 UTC`."""
    day, time, zone = _timestamp(iso)
    return f"{day} {time[:5]} {'UTC' if zone in (None, 'Z', '+00:00') else zone}"


def zoneless(iso: str) -> str:
    """An ISO timestamp to the second, its zone left out as JUnit wants it: `2026-11-20T12:00:00`."""
    day, time, _ = _timestamp(iso)
    return f"{day}T{time}"


def _timestamp(iso: str) -> tuple[str, str, str | None]:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?", iso)
    if match is None:
        raise ValueError(f"found timestamp {iso!r}, expected ISO 8601 such as 2026-11-20T12:00:00+00:00")
    return match[1], match[2], match[3]


def thousandths(seconds: float) -> str:
    """Seconds with exactly three decimals, as JUnit's schema wants them."""
    return f"{seconds:.3f}"


def shares(total_seconds: float, parts: int) -> list[str]:
    """`total_seconds` cut into `parts` equal shares of whole milliseconds that add up to it."""
    total = round(total_seconds * 1000)
    edges = [total * i // parts for i in range(parts + 1)]
    return [thousandths((b - a) / 1000) for a, b in pairwise(edges)]


def pixels(value: float) -> str:
    """A drawing coordinate."""
    return f"{value:.1f}"
