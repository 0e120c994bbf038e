"""The pictures of a profile stage, each an SVG element with a text that says the same.

Pure: figures → text; no file, no clock, and the same bytes for the same figures on one version of matplotlib, which is
loaded here and nowhere else.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from gate.records import Percentiles, Performance, Quality, Role, Speeds
from gate.reports import escape, figures, numbers
from gate.reports.svg import PALETTE, placed

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "quantgate",  # ids do not change from run to run
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["text"],
    "text.color": PALETTE["text"],
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["text"],
    "ytick.labelcolor": PALETTE["text"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}
_WIDTH_INCHES = 6.4  # of 72 units each: 461 pixels
_STYLES: Mapping[Role, Mapping[str, Any]] = {
    Role.BASELINE: {"color": PALETTE["baseline"], "linestyle": "--", "marker": "o"},
    Role.CANDIDATE: {"color": PALETTE["candidate"], "linestyle": "-", "marker": "s"},
}
"""Told apart without colours too: dashes and circles, lines and squares."""

_BEYOND = 4.0
"""A budget larger than so many times what is held is named, not drawn: the bars would be slivers."""

_MANY, _MERGED = 200, 3
"""With fewer samples than that, so many bins are drawn as one: 24 would show the gaps between samples."""

_POINT_CHARACTERS, _AXIS_CHARACTERS = 16, 32
"""Of a name in a record, that the plot leaves room for."""

_GIB = 2**30
_KEY = (*figures.PARTS.items(), ("budget", "budget"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """`parts` are what its colours mean, by class, where they do not mean roles."""

    title: str
    svg: Markup
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """`latencies` has one for each shape and load with single times, by its group; `overview` are those of them all."""

    overview: tuple[Chart, ...]
    latencies: Mapping[str, Chart]


def pictures(performance: Performance, quality: Quality | None, *, key: str) -> Pictures:
    """All that there is to draw; `key` keeps the ids of one stage apart from those of another."""
    cpu = figures.label(performance)

    def chart(name: str, drawn: _Drawn) -> Chart:
        title, said, svg = drawn
        parts = tuple((part, words) for part, words in _KEY if PALETTE[part] in svg)
        placed_svg = placed(svg, key=f"{key}-{name}", label=f"{title}{cpu}: {said}")
        return Chart(title=title + cpu, svg=Markup(placed_svg), parts=parts)

    overview = [*_trade_offs(performance), *_memory(performance), *_pareto(performance, quality)]
    return Pictures(
        overview=tuple(chart(str(number), drawn) for number, drawn in enumerate(overview)),
        latencies={group: chart(f"l{number}", drawn) for number, (group, drawn) in enumerate(_latencies(performance))},
    )


_Drawn = tuple[str, str, str]
"""Title, text alternative, SVG."""


@contextmanager
def _settings() -> Iterator[None]:
    """Whatever this machine's matplotlibrc says."""
    # asking for the backend would choose one, and load pyplot for it
    plain = {name: matplotlib.rcParamsDefault[name] for name in matplotlib.rcParamsDefault if name != "backend"}
    with matplotlib.rc_context({**plain, **_SETTINGS}):
        yield


def _drawn(height_inches: float, columns: int, draw: Callable[[Sequence[Any]], None]) -> str:
    with _settings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ", UserWarning)  # the page's reader draws text in a font of theirs
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure.subplots(1, columns, squeeze=False)[0])
        written = io.BytesIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(written, metadata=metadata)
    return written.getvalue().decode()


def _latencies(performance: Performance) -> Iterator[tuple[str, _Drawn]]:
    """Distributions of TTFT and TPOT of each shape and load, with its group."""
    for group, roles in figures.by_group(performance).items():
        panels = [what for what in ("ttft", "tpot") if any(figures.times_of(s, what).histogram for s in roles.values())]
        if not panels:
            continue

        def draw(axes: Sequence[Any], panels: Sequence[str] = panels, roles: Mapping[Role, Speeds] = roles) -> None:
            for axis, what in zip(axes, panels, strict=True):
                _distribution(axis, what, {role: figures.times_of(one, what) for role, one in roles.items()})

        said = [_medians(what, roles) for what in panels]
        title = f"Latency at {figures.group_title(next(iter(roles.values())))}{figures.doubt(performance)}"
        yield group, (title, "; ".join(said), _drawn(1.7, len(panels), draw))


def _medians(what: str, roles: Mapping[Role, Speeds]) -> str:
    """`TTFT of the baseline 20.1 to 24.2 ms, median 21.2 ms, of the candidate …`."""
    said = []
    for role, one in roles.items():
        times = figures.times_of(one, what)
        if times.histogram:
            edges = _edges(times)
            held = [k for k, (_, count) in enumerate(times.histogram) if count]
            low, high = numbers.figures((edges[held[0]], edges[held[-1] + 1]), "s")
            median = numbers.figures((times.seconds.get("p50"),), "s")[0]
            said.append(f"of the {role} from {low} to {high}, median {median}")
    return f"{what.upper()} " + ", ".join(said)


def _edges(times: Percentiles) -> list[float]:
    """All edges in seconds; the lowest follows from the others, which are evenly spaced in the logarithm."""
    upper = [edge for edge, _ in times.histogram]
    return [upper[0] ** 2 / upper[1] if len(upper) > 1 else upper[0] * 0.98, *upper]


def _distribution(axis: Any, what: str, times: Mapping[Role, Percentiles]) -> None:
    slowest = max(edge for one in times.values() for edge, _ in one.histogram)
    scale, unit = (1.0, "s") if slowest >= 1 else (1000.0, "ms")
    for role, one in times.items():
        if not one.histogram:
            continue
        wide = 1 if one.n >= _MANY else _MERGED
        counts = [count for _, count in one.histogram]
        shares = [sum(counts[k : k + wide]) / one.n for k in range(0, len(counts), wide)]
        own = _edges(one)
        edges = [scale * edge for edge in dict.fromkeys((*own[::wide], own[-1]))]
        colour, line = _STYLES[role]["color"], _STYLES[role]["linestyle"]
        axis.stairs(shares, edges, fill=True, facecolor=colour, alpha=0.22, edgecolor="none")
        axis.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.4)
        if "p50" in one.seconds:
            axis.axvline(scale * one.seconds["p50"], color=colour, linestyle=line, linewidth=0.9)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    _plain_ticks(axis, low, high)
    axis.set_xlabel(f"{what.upper()}, {unit}")
    axis.set_yticks([])
    axis.set_ylim(bottom=0)
    axis.spines["left"].set_visible(False)


def _plain_ticks(axis: Any, low: float, high: float) -> None:
    """A logarithmic axis with a few round numbers written out."""
    ticks = [t for t in MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= t <= high]
    if high / low > 10:
        decades = [10.0**e for e in range(-6, 7)]
        ticks = [d * m for d in decades for m in (1, 3) if low <= d * m <= high]
    axis.set_xticks(ticks)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _trade_offs(performance: Performance) -> Iterator[_Drawn]:
    """Throughput against latency: over batch sizes for each pair of lengths, and over the loads."""
    shapes: dict[tuple[int | None, int | None], list[Speeds]] = {}
    for one in performance.speeds:
        shapes.setdefault((one.prompt_tokens, one.new_tokens), []).append(one)
    for (prompt, new), speeds in shapes.items():
        loads = prompt is None
        what = "served loads" if loads else f"batch sizes, {prompt}+{new} tokens"
        known = [(s, s.e2e if loads else s.tpot) for s in speeds]
        points = {
            role: [
                (s, t.seconds["p50"], s.output_tokens_per_second)
                for s, t in known
                if s.role is role and "p50" in t.seconds
            ]
            for role in Role
        }
        if max(len(p) for p in points.values()) < 2:
            continue
        yield (
            f"Throughput against latency over {what}{figures.doubt(performance)}",
            "; ".join(_points_said(role, found, loads) for role, found in points.items() if found),
            _drawn(2.6, 1, lambda axes, points=points, loads=loads: _trade_off(axes[0], points, loads)),  # type: ignore[misc]
        )


_Points = Mapping[Role, Sequence[tuple[Speeds, float, float]]]


def _point_name(one: Speeds) -> str:
    """A name that is longer would leave no room for the points."""
    if one.batch_size is None:
        return escape.line(one.group.removeprefix("load="), _POINT_CHARACTERS)
    return str(one.batch_size)


def _points_said(role: Role, found: Sequence[tuple[Speeds, float, float]], loads: bool) -> str:
    what = "end to end" if loads else "TPOT"
    said = [
        f"{'' if loads else 'batch '}{_point_name(one)} {numbers.figures((rate,), 'tok/s')[0]} at {what} "
        f"{numbers.figures((seconds,), 's')[0]}"
        for one, seconds, rate in found
    ]
    return f"{role} {', '.join(said)}"


def _trade_off(axis: Any, points: _Points, loads: bool) -> None:
    slowest = max(seconds for found in points.values() for _, seconds, _ in found)
    scale, unit = (1.0, "s") if slowest >= 1 else (1000.0, "ms")
    for role, found in points.items():
        style = _STYLES[role]
        line = "" if loads else style["linestyle"]
        x, y = [scale * seconds for _, seconds, _ in found], [rate for _, _, rate in found]
        axis.plot(x, y, color=style["color"], marker=style["marker"], linestyle=line, linewidth=1.4, markersize=5)
        right = role is Role.BASELINE
        for (one, _, _), left, up in zip(found, x, y, strict=True):
            axis.annotate(
                _point_name(one),
                (left, up),
                xytext=(7 if right else -7, -3),
                textcoords="offset points",
                ha="left" if right else "right",
                fontsize=9,
            )
    axis.margins(0.12, 0.18)
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_xlabel(f"{'end to end' if loads else 'TPOT'}, median, {unit}")
    axis.set_ylabel("output tok/s")


def _memory(performance: Performance) -> Iterator[_Drawn]:
    """Stacked bars of what must be held, against the budget."""
    held = {one.role: one for one in performance.memory if figures.total(one)}  # a bar of nothing is none
    if not held:
        return
    first = next(iter(held.values()))
    most = max(figures.total(one) or 0 for one in held.values())
    budget = first.budget_bytes
    drawn_budget = budget if budget is not None and budget <= _BEYOND * most else None
    largest = max(most, drawn_budget or 0)
    unit, over = next(((u, o) for u, o in (("GiB", _GIB), ("MiB", 2**20)) if largest >= o), ("KiB", 2**10))

    def draw(axes: Sequence[Any]) -> None:
        (axis,) = axes
        for row, one in enumerate(held.values()):
            left = 0.0
            for part in figures.PARTS:
                size = one.parts.get(part, 0) / over
                if size:
                    axis.barh(row, size, left=left, height=0.62, color=PALETTE[part])
                    left += size
        axis.set_yticks(range(len(held)), [str(role) for role in held])
        axis.invert_yaxis()
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        if drawn_budget is not None:
            axis.axvline(drawn_budget / over, color=PALETTE["budget"], linewidth=1.6)
        axis.set_xlim(0, 1.06 * largest / over)
        axis.xaxis.set_major_locator(MaxNLocator(6))
        far = budget is not None and drawn_budget is None
        axis.set_xlabel(f"{unit}; the budget of {numbers.size(budget or 0)} is far to the right" if far else unit)

    said = [
        f"{role} {', '.join(f'{figures.PARTS[p]} {numbers.size(size)}' for p, size in one.parts.items())}"
        for role, one in held.items()
    ]
    against = "; no budget given" if budget is None else f"; budget {numbers.size(budget)}"
    yield f"Memory for {figures.memory_caption(performance)}", "; ".join(said) + against, _drawn(1.5, 1, draw)


def _pareto(performance: Performance, quality: Quality | None) -> Iterator[_Drawn]:
    """Quality against cost and against memory."""
    if quality is None:
        return
    panels = [panel for panel in (_costs(performance), _held(performance)) if panel is not None]
    if not panels:
        return

    def draw(axes: Sequence[Any]) -> None:
        for axis, (name, _, at) in zip(axes, panels, strict=True):
            _position(axis, name, at, quality)
        axes[0].set_ylabel("accuracy kept")

    said = [
        f"{what} of the baseline {figures_of[0]}, of the candidate {figures_of[1]}"
        for _, (what, figures_of), _ in panels
    ]
    kept = f"accuracy kept: baseline 100%, candidate {numbers.percents((quality.estimate,))[0]}%"
    against = " and ".join(name.split(",")[0].split(" ")[0] for name, _, _ in panels)
    yield f"Quality against {against}", "; ".join([kept, *said]), _drawn(2.3, len(panels), draw)


_Panel = tuple[str, tuple[str, list[str]], tuple[float, float]]
"""Axis label, (name, both values in words), both values as drawn: baseline first."""


def _costs(performance: Performance) -> _Panel | None:
    """At the shape or load where the baseline is cheapest, and both have a price."""
    found = [
        (
            roles[Role.BASELINE].cost_per_million_output_tokens,
            roles[Role.CANDIDATE].cost_per_million_output_tokens,
            roles,
        )
        for roles in figures.by_group(performance).values()
        if Role.BASELINE in roles and Role.CANDIDATE in roles
    ]
    priced = [(b, c, k) for k, (b, c, _) in enumerate(found) if b is not None and c is not None]
    if not priced:
        return None
    baseline, candidate, number = min(priced)
    cheapest = found[number][2][Role.BASELINE]
    said = f"cost per million output tokens at {figures.group_title(cheapest)}"
    where = figures.group_title(cheapest, _AXIS_CHARACTERS)
    return f"cost per M tokens\n{where}", (said, numbers.figures((baseline, candidate), "")), (baseline, candidate)


def _held(performance: Performance) -> _Panel | None:
    sizes = {one.role: figures.total(one) for one in performance.memory}
    baseline, candidate = sizes.get(Role.BASELINE), sizes.get(Role.CANDIDATE)
    if baseline is None or candidate is None:
        return None
    unit, over = next(((u, o) for u, o in (("GiB", _GIB), ("MiB", 2**20)) if baseline >= o), ("KiB", 2**10))
    one = performance.memory[0]
    where = f"{numbers.count(one.batch_size, 'sequence')} of {numbers.count(one.context_tokens, 'token')}"
    said = numbers.figures((baseline, candidate), "B")
    return f"memory, {unit}\n{where}", (f"memory for {where}", said), (baseline / over, candidate / over)


def _position(axis: Any, name: str, at: tuple[float, float], quality: Quality) -> None:
    baseline, candidate = at
    kept = 100 * quality.estimate
    low, high = 100 * quality.interval.low, 100 * quality.interval.high
    axis.plot([baseline], [100], color=PALETTE["baseline"], marker="o", markersize=7, linestyle="")
    axis.plot([candidate, candidate], [low, high], color=PALETTE["candidate"], linewidth=1.6)
    axis.plot([candidate], [kept], color=PALETTE["candidate"], marker="s", markersize=7, linestyle="")
    axis.annotate("baseline", (baseline, 100), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)
    away, side = (-8, "right") if candidate <= baseline else (8, "left")  # from the baseline
    axis.annotate("candidate", (candidate, kept), xytext=(away, -3), textcoords="offset points", ha=side, fontsize=9)
    axis.set_xlim(0, 1.35 * max(at))
    span = max(high, 100.0) - min(low, 100.0)
    axis.set_ylim(min(low, 100.0) - max(0.15 * span, 0.5), max(high, 100.0) + max(0.35 * span, 0.8))
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    axis.set_xlabel(name)
