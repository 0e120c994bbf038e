"""The figures of a profile stage as the rows and sentences that every report prints.

Pure: Performance → text cells, unescaped; each format escapes them in its own way.  Never judges: a ratio is the
candidate's figure over the baseline's, and whether that is allowed stands in the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gate.metrics import QUANTILES
from gate.records import Fit, Memory, OutputLength, Percentiles, Performance, Role, RunRecord, Speeds
from gate.reports import escape, numbers
from gate.reports.numbers import MISSING

UP, DOWN, NEITHER = " ↑", " ↓", ""
"""More is better, less is better."""

PERCENTILES = {"p50": "median", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}
PARTS = {
    "weights": "weights",
    "activations": "activations",
    "kv_cache": "key/value cache",
    "context": "CUDA context",
    "unused": "reserved, unused",
}
_PEAKS = {
    "vram": "Peak VRAM (allocator)",
    "vram_reserved": "Peak VRAM (reserved)",
    "vram_process": "VRAM of the process (NVML)",
    "rss": "Peak RSS",
    "loading_vram": "Peak VRAM while loading",
    "loading_rss": "Peak RSS while loading",
    "activations": "Peak of activations, as measured",
    "idle": "Reserved by the engine, idle",
}
_TIMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One figure of both roles; `ratio` is the candidate's over the baseline's."""

    name: str
    baseline: str
    candidate: str
    ratio: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A shape or a load; `percentiles` are all of them, `lines` what a reader asks for first."""

    key: str
    title: str
    lines: tuple[Line, ...]
    percentiles: tuple[Line, ...]


def is_cpu(performance: Performance) -> bool:
    return performance.device.startswith("cpu")


def title(performance: Performance) -> str:
    """Figures of a CPU say so wherever they stand."""
    return "Speed, memory and cost" + (" on a CPU" if is_cpu(performance) else "")


def label(performance: Performance) -> str:
    """What follows a caption: ` (CPU figures)`, or nothing."""
    return " (CPU figures)" if is_cpu(performance) else ""


def doubt(performance: Performance) -> str:
    """What follows a caption of times and rates: `: disturbed, not to be relied on`, or nothing."""
    return ": disturbed, not to be relied on" if performance.disturbed_blocks else ""


def devices(performance: Performance) -> str:
    """`Measured on Example CPU, 2 cores (cpu), which copies 21.0 GB/s and multiplies 240 GFLOP/s`."""
    names = ", ".join(dict.fromkeys(escape.line(name, 80) for name in performance.device_names))
    rates = []
    if performance.copy_bytes_per_second is not None:
        rates.append(f"copies {numbers.per_second(performance.copy_bytes_per_second, 'B')}")
    if performance.matmul_flops_per_second is not None:
        rates.append(f"multiplies {numbers.per_second(performance.matmul_flops_per_second, 'FLOP')}")
    device = escape.line(performance.device, 80)
    where = f"{names} ({device})" if names else device
    return f"Measured on {where}{', which ' + ' and '.join(rates) if rates else ''}"


def group_title(speeds: Speeds, limit: int = 80) -> str:
    """`batch 8, 128+32 tokens`, `load closed:4`: clean, and at most `limit` characters of what a record calls it."""
    if speeds.batch_size is None:
        return escape.line(speeds.group.replace("load=", "load ", 1), limit)
    return f"batch {speeds.batch_size}, {speeds.prompt_tokens}+{speeds.new_tokens} tokens"


def by_group(performance: Performance) -> dict[str, dict[Role, Speeds]]:
    """Group → role → its figures, in the order of the record."""
    found: dict[str, dict[Role, Speeds]] = {}
    for one in performance.speeds:
        found.setdefault(one.group, {})[one.role] = one
    return found


def groups(performance: Performance) -> list[Group]:
    """A table for each shape and load."""
    return [
        Group(
            key=key,
            title=group_title(next(iter(roles.values()))),
            lines=tuple(_speed_lines(roles)),
            percentiles=tuple(_percentile_lines(roles)),
        )
        for key, roles in by_group(performance).items()
    ]


_FIGURES: tuple[tuple[str, str, str, Callable[[Speeds], float | None]], ...] = (
    ("Decode", UP, "tok/s", lambda s: s.decode_tokens_per_second),
    ("Prefill", UP, "tok/s", lambda s: s.prefill_tokens_per_second),
    ("Output", UP, "tok/s", lambda s: s.output_tokens_per_second),
    ("Requests", UP, "req/s", lambda s: s.requests_per_second),
    ("Requests offered", NEITHER, "req/s", lambda s: s.offered_requests_per_second),
    ("Requests within the objectives", UP, "req/s", lambda s: s.goodput_requests_per_second),
    ("Energy", DOWN, "J/tok", lambda s: s.joules_per_output_token),
    ("Cost per million tokens", DOWN, "", lambda s: s.cost_per_million_output_tokens),
    ("… quality-adjusted", DOWN, "", lambda s: s.quality_adjusted_cost),
    ("… with quantization", DOWN, "", lambda s: s.cost_with_quantization),
    ("… with both", DOWN, "", lambda s: s.quality_adjusted_cost_with_quantization),
)
_LIMITS: tuple[tuple[str, Callable[[Speeds], float | None]], ...] = (
    ("Decode, of bandwidth", lambda s: s.decode_limit),
    ("Prefill, of matmul rate", lambda s: s.prefill_limit),
)


def _speed_lines(roles: Mapping[Role, Speeds]) -> Iterator[Line]:
    for what in ("ttft", "tpot"):
        for percentile in ("p50", "p95"):
            yield from _percentile_line(roles, what, percentile)
    for name, better, unit, of in _FIGURES:
        yield from line(name + better, roles, of, unit)
    for name, of in _LIMITS:
        found = {role: of(one) for role, one in roles.items()}
        if any(value is not None for value in found.values()):
            shown = {role: MISSING if v is None else numbers.share(v) for role, v in found.items()}
            yield Line(
                name=name, baseline=_cell(shown, Role.BASELINE), candidate=_cell(shown, Role.CANDIDATE), ratio=""
            )
    if any(s.saturated for s in roles.values()):
        saturated = {role: "yes" if s.saturated else "no" for role, s in roles.items()}
        yield Line(
            name="Saturated",
            baseline=_cell(saturated, Role.BASELINE),
            candidate=_cell(saturated, Role.CANDIDATE),
            ratio="",
        )


def _cell(shown: Mapping[Role, str], role: Role) -> str:
    return shown.get(role, MISSING)


def line(name: str, roles: Mapping[Role, Speeds], of: Callable[[Speeds], float | None], unit: str) -> Iterator[Line]:
    """Of a figure that at least one role has."""
    values = [None if role not in roles else of(roles[role]) for role in (Role.BASELINE, Role.CANDIDATE)]
    if any(value is not None for value in values):
        yield _line(name, values[0], values[1], unit)


def _line(name: str, baseline: float | None, candidate: float | None, unit: str) -> Line:
    ratio = None if baseline is None or candidate is None or not baseline else candidate / baseline
    shown = numbers.figures((baseline, candidate), unit)
    return Line(name=name, baseline=shown[0], candidate=shown[1], ratio="" if ratio is None else numbers.times(ratio))


def _percentile_lines(roles: Mapping[Role, Speeds]) -> Iterator[Line]:
    for what in _TIMES:
        for percentile in PERCENTILES:
            yield from _percentile_line(roles, what, percentile)


def times_of(speeds: Speeds, what: str) -> Percentiles:
    """`ttft`, `tpot` or `e2e`."""
    return {"ttft": speeds.ttft, "tpot": speeds.tpot, "e2e": speeds.e2e}[what]


def _percentile_line(roles: Mapping[Role, Speeds], what: str, percentile: str) -> Iterator[Line]:
    """Where the samples are too few, how many it takes; where there are none at all, nothing."""
    assert percentile in QUANTILES
    times = {role: times_of(one, what) for role, one in roles.items()}
    if not any(one.n for one in times.values()):
        return
    values = [times[r].seconds.get(percentile) if r in times else None for r in (Role.BASELINE, Role.CANDIDATE)]
    said = _line(f"{_TIMES[what]}, {PERCENTILES[percentile]}{DOWN}", values[0], values[1], "s")
    yield Line(
        name=said.name,
        baseline=_few(times.get(Role.BASELINE), percentile) or said.baseline,
        candidate=_few(times.get(Role.CANDIDATE), percentile) or said.candidate,
        ratio=said.ratio,
    )


def _few(times: Percentiles | None, percentile: str) -> str:
    if times is None or percentile not in times.needed:
        return ""
    return f"{times.n} of {numbers.count(times.needed[percentile])} samples"


def memory_lines(performance: Performance) -> list[Line]:
    """Parts, their sum, peaks, and what fits."""
    roles = {one.role: one for one in performance.memory}
    found: list[Line] = []

    def add(name: str, of: Callable[[Memory], float | None], unit: str = "B") -> None:
        values = [of(roles[role]) if role in roles else None for role in (Role.BASELINE, Role.CANDIDATE)]
        if any(value is not None for value in values):
            found.append(_line(name, values[0], values[1], unit))

    for part, words in PARTS.items():
        add(_capital(words), lambda one, part=part: one.parts.get(part))  # type: ignore[misc]
    add("Together" + DOWN, total)
    add("Key/value cache per token", lambda one: one.kv_bytes_per_token)
    add("Key/value cache set aside by the engine", lambda one: one.reserved_kv_bytes)
    add("Largest batch that fits" + UP, lambda one: one.max_batch_at_context, "seq")
    for peak, words in _PEAKS.items():
        add(words + DOWN, lambda one, peak=peak: one.peaks.get(peak))  # type: ignore[misc]
    return found


def total(one: Memory) -> int | None:
    """Bytes that the device must hold; None where no part is known."""
    return sum(one.parts.values()) if one.parts else None


def memory_caption(performance: Performance) -> str:
    """`32 sequences of 8,192 tokens, budget 48.00 GiB`."""
    one = performance.memory[0]
    budget = ", no budget given" if one.budget_bytes is None else f", budget {numbers.size(one.budget_bytes)}"
    return f"{numbers.count(one.batch_size, 'sequence')} of {numbers.count(one.context_tokens, 'token')}{budget}"


def fit_line(fit: Fit) -> str:
    """`candidate INT4 on cpu: dequantized first: … (source)`."""
    how = {"native": "computed natively", "dequantized": "dequantized first"}.get(fit.runs, "not known")
    source = f" ({escape.line(fit.source, 200)})" if fit.source else ""
    return f"{fit.role} {escape.line(fit.format, 40)}: {how}: {escape.line(fit.why, 300)}{source}"


def machine_lines(performance: Performance) -> list[str]:
    """What the machine was like, and how often a block had to be measured again."""
    again = numbers.count(performance.repeated_blocks, "pair")
    repeated = [f"{again} of blocks measured again because something disturbed them"]
    return [*performance.conditions, *(repeated if performance.repeated_blocks else [])]


def compact(performance: Performance) -> list[tuple[str, str, str, str, str]]:
    """(shape or load, TTFT, TPOT, output speed, cost) as `baseline → candidate (ratio)`; for narrow formats."""
    return [
        (
            group_title(next(iter(roles.values()))).removesuffix(" tokens"),
            _change(roles, lambda s: s.ttft.seconds.get("p50"), "s"),
            _change(roles, lambda s: s.tpot.seconds.get("p50"), "s"),
            _change(roles, lambda s: s.output_tokens_per_second, ""),
            _change(roles, lambda s: s.cost_per_million_output_tokens, ""),
        )
        for roles in by_group(performance).values()
    ]


COMPACT = ("TTFT, median", "TPOT, median", "output tok/s", "cost per M tokens")


def _change(roles: Mapping[Role, Speeds], of: Callable[[Speeds], float | None], unit: str) -> str:
    found = next(line("", roles, of, unit), None)
    if found is None:
        return MISSING
    ratio = f" ({found.ratio})" if found.ratio else ""
    bare = found.baseline
    tail = found.candidate.partition(" ")[2]
    if tail and bare.endswith(" " + tail):
        bare = bare.removesuffix(" " + tail)  # one unit for both
    return f"{bare} → {found.candidate}{ratio}"


def memory_sentence(performance: Performance) -> str:
    """`memory for 8 sequences of …: 24.1 → 12.4 GiB`; empty where nothing is known."""
    if all(total(one) is None for one in performance.memory):
        return ""
    sizes = {one.role: total(one) for one in performance.memory}
    said = _line("", sizes.get(Role.BASELINE), sizes.get(Role.CANDIDATE), "B")
    ratio = f" ({said.ratio})" if said.ratio else ""
    return f"Memory for {memory_caption(performance)}: {said.baseline} → {said.candidate}{ratio}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """`remark` is empty where the ratio lies in the policy's range."""

    change: str
    ratio: str
    interval: str
    remark: str


def length_cells(one: OutputLength, record: RunRecord) -> Length:
    baseline, candidate = numbers.figures((one.baseline_tokens, one.candidate_tokens), "")
    ratio, low, high = (numbers.times(value) for value in (one.ratio, one.low, one.high))
    longer = "longer" if one.ratio > 1 else "shorter"
    return Length(
        change=f"{baseline} → {candidate} tokens",
        ratio=ratio,
        interval=f"{low.removesuffix('×')} to {high}",
        remark=f"{longer} than the range of {_range(record)}" if one.outside else "",
    )


def _range(record: RunRecord) -> str:
    given = record.policy.get("output_length")
    least, most = (given.get("min", "90%"), given.get("max", "110%")) if isinstance(given, Mapping) else ("90%", "110%")
    return f"{escape.line(str(least), 20)} to {escape.line(str(most), 20)}"


def sentences(performance: Performance) -> list[str]:
    """What formats without tables of their own say besides the compact table: the remarks, then memory."""
    memory = memory_sentence(performance)
    return [*performance.remarks, *([memory] if memory else [])]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
