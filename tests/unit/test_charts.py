"""Charts: what is drawn, what stands in for it as text, and that it fits into a page without reaching beyond it."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from gate.records import Performance
from gate.reports import charts, figures, html
from gate.reports.svg import PALETTE, placed
from tests import profile_factory as made
from tests import records_factory as factory

QUALITY = factory.score(estimate=0.9912, low=0.9801, high=1.0021)
GPU = made.gpu(quality=QUALITY, price_per_hour=3.2)
CPU = made.cpu(quality=QUALITY)
MAX_CHARACTERS = 25_000


def drawn(performance: Performance) -> list[charts.Chart]:
    found = charts.pictures(performance, QUALITY, key="p0")
    return [*found.overview, *found.latencies.values()]


def titled(performance: Performance, start: str) -> charts.Chart:
    (found,) = [c for c in drawn(performance) if c.title.startswith(start)]
    return found


def words(chart: charts.Chart) -> list[str]:
    return [e.text or "" for e in ET.fromstring(chart.svg).iter("text")]


@pytest.mark.parametrize("performance", [GPU, CPU])
def test_charts_are_small_and_keep_to_themselves(performance: Performance) -> None:
    for chart in drawn(performance):
        svg = str(chart.svg)
        assert len(svg) < MAX_CHARACTERS
        root = ET.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"].startswith(chart.title)
        tags = {e.tag for e in root.iter()}
        assert not tags & {"style", "script", "image", "metadata", "a", "foreignObject"}
        assert "://" not in svg
        assert not [e.tag for e in root.iter() if "style" in e.attrib]
        assert all(e.attrib["id"].startswith("p0-") for e in root.iter() if "id" in e.attrib)


def test_colours_are_left_to_the_page() -> None:
    for chart in drawn(GPU):
        assert not [c for c in PALETTE.values() if c in chart.svg]
        assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', chart.svg)) <= {"none"}
        named = {c.partition("-")[2] for e in ET.fromstring(chart.svg).iter() for c in e.get("class", "").split()}
        assert named - {"chart", ""} <= PALETTE.keys()
    page = html.render(factory.profiled(cpu=False))
    for name in PALETTE:
        assert f".f-{name} {{ fill: var(--" in page, name


def test_ids_are_unique_over_a_page_and_every_reference_has_one() -> None:
    whole = "".join(c.svg for c in drawn(GPU)) + "".join(
        c.svg for c in charts.pictures(CPU, QUALITY, key="p1").overview
    )
    ids = re.findall(r' id="([^"]+)"', whole)
    assert len(ids) == len(set(ids)) > 0
    assert {*re.findall(r'href="#([^"]+)"', whole), *re.findall(r"url\(#([^)]+)\)", whole)} <= set(ids)


def test_the_same_figures_are_the_same_bytes() -> None:
    assert [c.svg for c in drawn(GPU)] == [c.svg for c in drawn(GPU)]


def test_figures_of_a_cpu_say_so_in_every_title() -> None:
    assert all("(CPU figures)" in c.title for c in drawn(CPU))
    assert not any("CPU" in c.title for c in drawn(GPU))


def test_every_shape_and_load_has_its_latencies() -> None:
    found = charts.pictures(GPU, QUALITY, key="p0").latencies
    assert list(found) == ["batch=1", "batch=8", "batch=32", "load=closed:4", "load=closed:16", "load=open:12"]
    label = str(ET.fromstring(found["batch=1"].svg).attrib["aria-label"])
    assert label.startswith("Latency at batch 1, 512+64 tokens: TTFT of the baseline from ")
    assert "median 21.2 ms" in label
    assert "median 25.1 ms" in label
    assert {"TTFT, ms", "TPOT, ms"} <= set(words(found["batch=1"]))
    # what was saturated has no latencies, and is not drawn
    assert "baseline" not in str(ET.fromstring(found["load=open:12"].svg).attrib["aria-label"])
    assert 'class="k-baseline' not in found["load=open:12"].svg


def test_throughput_against_latency_names_each_batch_size() -> None:
    chart = titled(GPU, "Throughput against latency over batch sizes")
    assert sorted(w for w in words(chart) if w in ("1", "8", "32")) == ["1", "1", "32", "8", "8"]
    assert "baseline batch 1 120 tok/s at TPOT 8.10 ms" in str(chart.svg)
    one = replace(GPU, speeds=tuple(s for s in GPU.speeds if s.group == "batch=1"))
    assert not any(c.title.startswith("Throughput") for c in drawn(one)), "one point is no curve"


def bars(chart: charts.Chart) -> dict[str, list[float]]:
    """Part → widths of its bars, baseline first."""
    found: dict[str, list[float]] = {}
    for path in ET.fromstring(chart.svg).iter("path"):
        name = path.get("class", "").removeprefix("f-")
        if name in figures.PARTS:
            xs = [float(x) for x in re.findall(r"[ML] ([\d.]+)", path.attrib["d"])]
            found.setdefault(name, []).append(max(xs) - min(xs))
    return found


def test_memory_is_stacked_in_proportion() -> None:
    widths = bars(titled(GPU, "Memory"))
    assert widths.keys() == figures.PARTS.keys()
    baseline, candidate = (one.parts for one in GPU.memory)
    pixels_per_byte = widths["kv_cache"][0] / baseline["kv_cache"]
    for part, (left, right) in widths.items():
        assert left == pytest.approx(baseline[part] * pixels_per_byte, abs=0.3)
        assert right == pytest.approx(candidate[part] * pixels_per_byte, abs=0.3)
    assert "budget 48.00 GiB" in str(titled(GPU, "Memory").svg)
    assert 'class="k-budget"' in titled(GPU, "Memory").svg


def test_a_budget_far_beyond_is_named_and_not_drawn() -> None:
    chart = titled(CPU, "Memory")
    assert "k-budget" not in chart.svg
    assert any("the budget of 8.00 GiB is far to the right" in w for w in words(chart))


def test_the_pareto_position_needs_a_quality_score() -> None:
    chart = titled(GPU, "Quality against cost and memory")
    assert (
        "cost per million output tokens at batch 8, 512+64 tokens of the baseline 1.18, of the candidate 0.857"
        in chart.svg
    )
    assert "accuracy kept: baseline 100%, candidate 99.12%" in chart.svg
    assert titled(CPU, "Quality").title == "Quality against memory (CPU figures)"  # there is no price
    assert not any("Quality" in c.title for c in charts.pictures(GPU, None, key="p0").overview)


def test_nothing_measured_draws_nothing() -> None:
    nothing = replace(GPU, speeds=(), memory=())
    assert drawn(nothing) == []


def plot_width(chart: charts.Chart) -> float:
    """Between the outermost points, in pixels."""
    xs = [float(e.attrib["x"]) for e in ET.fromstring(chart.svg).iter("use") if "f-" in e.get("class", "")]
    return max(xs) - min(xs)


def test_a_hostile_or_long_name_neither_breaks_nor_narrows_a_plot() -> None:
    def renamed(tail: str) -> Performance:
        loads = (s for s in GPU.speeds if s.group.startswith("load=closed"))
        return replace(GPU, speeds=tuple(replace(s, group=s.group + tail) for s in loads))

    plain = titled(renamed(""), "Throughput against latency over served loads")
    for tail in ("\x1b[31m\x00\x0b$a$<b>", "x" * 400, "日" * 400):
        performance = renamed(tail)
        for chart in drawn(performance):
            assert not re.search(r"[\x00-\x08\x0b-\x1f]", str(chart.svg) + chart.title)
            assert max(map(len, words(chart))) <= 50
        wide = titled(performance, "Throughput against latency over served loads")
        assert plot_width(wide) > 0.6 * plot_width(plain)
        html.render(replace(factory.profiled(cpu=False), performance=(performance,)))


def test_a_budget_of_nothing_is_no_missing_budget() -> None:
    nothing = replace(GPU, memory=tuple(replace(one, budget_bytes=0) for one in GPU.memory))
    assert "budget 0 B" in str(titled(nothing, "Memory").svg)
    assert 'class="k-budget"' in titled(nothing, "Memory").svg


def test_text_in_a_drawing_is_text() -> None:
    hostile = '<svg viewBox="0 0 9 9"><text style="fill: #0000f3">&lt;script&gt;</text></svg>'
    found = placed(hostile, key="k", label='"><script>')
    assert "<script>" not in found
    assert '<text class="f-text">&lt;script&gt;</text>' in found


def test_matplotlib_is_loaded_for_charts_alone() -> None:
    code = (
        "import sys; from tests import records_factory as f; from gate.reports import html, junit, markdown, text\n"
        "import gate.cli\n"
        "for report in (junit, markdown, text): report.render(f.profiled(cpu=True))\n"
        "html.render(f.passing())\n"
        "assert 'matplotlib' not in sys.modules\n"
        "html.render(f.profiled(cpu=True))\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
