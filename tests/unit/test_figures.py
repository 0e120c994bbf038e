"""The cells and sentences of a profile stage, the same for every format."""

from __future__ import annotations

from dataclasses import replace

from gate.records import Performance, Role
from gate.reports import figures, html, markdown, text
from tests import profile_factory as made
from tests import records_factory as factory

QUALITY = factory.score(estimate=0.8, low=0.7, high=0.9)
GPU = made.gpu(quality=QUALITY, price_per_hour=3.2, quantization_cost={"amount": 120, "output_tokens": 2e9})
CPU = made.cpu()


def lines(key: str, performance: Performance = GPU) -> dict[str, figures.Line]:
    (group,) = [g for g in figures.groups(performance) if g.key == key]
    return {line.name: line for line in group.lines}


def cells(line: figures.Line) -> tuple[str, str, str]:
    return line.baseline, line.candidate, line.ratio


def test_a_shape_has_both_roles_in_one_unit_and_their_ratio() -> None:
    found = lines("batch=1")
    assert cells(found["TTFT, median ↓"]) == ("21.2 ms", "25.1 ms", "1.18×")
    assert cells(found["Decode ↑"]) == ("123 tok/s", "244 tok/s", "1.98×")
    assert cells(found["Energy ↓"]) == ("3.90 J/tok", "2.20 J/tok", "0.56×")
    assert cells(found["Decode, of bandwidth"]) == ("72%", "45%", "")


def test_cost_stands_beside_what_quality_and_quantization_make_of_it() -> None:
    found = lines("batch=1")
    # 3.20 an hour at 120.4 and 225.8 tokens a second; 1/0.8 of it; 120/2e9 a token more
    assert cells(found["Cost per million tokens ↓"]) == ("7.38", "3.94", "0.53×")
    assert cells(found["… quality-adjusted ↓"]) == ("7.38", "4.92", "0.67×")
    assert cells(found["… with quantization ↓"]) == ("–", "4.00", "")
    assert cells(found["… with both ↓"]) == ("–", "5.00", "")


def test_what_was_not_measured_has_no_row_and_a_role_without_it_a_dash() -> None:
    assert not any("Cost" in name or "Energy" in name for name in lines("batch=1", CPU))
    assert cells(lines("batch=32")["Decode ↑"]) == ("2,712 tok/s", "–", "")
    assert "Decode ↑" not in lines("load=closed:4")


def test_too_few_samples_say_how_many_there_are_and_how_many_it_takes() -> None:
    assert lines("batch=1")["TTFT, p95 ↓"].baseline == "32 of 59 samples"
    (group,) = [g for g in figures.groups(GPU) if g.key == "batch=1"]
    every = {line.name: line for line in group.percentiles}
    assert len(every) == 15
    assert every["TPOT, p99.9 ↓"].candidate == "2016 of 2,995 samples"


def test_saturation_stands_in_the_table_without_latencies() -> None:
    found = lines("load=open:12")
    assert cells(found["Saturated"]) == ("yes", "no", "")
    assert cells(found["TTFT, median ↓"])[0] == "–"
    assert cells(found["Requests offered"])[0] == "15.7 req/s"


def test_memory_adds_up() -> None:
    found = {line.name: line for line in figures.memory_lines(GPU)}
    assert cells(found["Weights"]) == ("15.0 GiB", "5.34 GiB", "0.36×")
    assert cells(found["Together ↓"]) == ("50.3 GiB", "40.8 GiB", "0.81×")
    assert cells(found["Largest batch that fits ↑"]) == ("28", "36", "1.29×")
    assert figures.memory_sentence(GPU) == (
        "Memory for 32 sequences of 8,192 tokens, budget 48.00 GiB: 50.3 GiB → 40.8 GiB (0.81×)"
    )
    assert figures.memory_sentence(replace(GPU, memory=())) == ""


def test_what_an_engine_leaves_idle_stands_beside_the_sum() -> None:
    engines = tuple(
        replace(one, parts={"weights": 3 * 2**30, "kv_cache": 2**30}, peaks={"idle": 2**40, "activations": 2**29})
        for one in GPU.memory
    )
    found = {line.name: line for line in figures.memory_lines(replace(GPU, memory=engines))}
    assert found["Together ↓"].baseline == "4.00 GiB"
    assert found["Reserved by the engine, idle ↓"].baseline == "1,024 GiB"
    assert found["Peak of activations, as measured ↓"].baseline == "512 MiB"
    assert "Reserved, unused" not in found


def test_a_budget_of_nothing_is_a_budget() -> None:
    nothing = tuple(replace(one, budget_bytes=0) for one in GPU.memory)
    assert figures.memory_caption(replace(GPU, memory=nothing)).endswith("budget 0 B")
    unknown = tuple(replace(one, budget_bytes=None) for one in GPU.memory)
    assert figures.memory_caption(replace(GPU, memory=unknown)).endswith("no budget given")


def test_figures_of_disturbed_blocks_say_so_beside_every_time() -> None:
    record = factory.profiled(cpu=False)
    disturbed = replace(record, performance=(replace(GPU, disturbed_blocks=2),))
    said = "disturbed, not to be relied on"
    for module in (html, markdown, text):
        assert said in " ".join(module.render(disturbed).split())
        assert said not in " ".join(module.render(record).split())
    captions = [c.partition("</caption>")[0] for c in html.render(disturbed).split("<caption>")[1:]]
    timed = [c for c in captions if c.startswith(("Batch", "Load", "Percentiles"))]
    assert len(timed) == 12
    assert all(said in c for c in timed)
    assert not any(said in c for c in captions if c.startswith("Memory"))


def test_one_unit_is_said_once_in_narrow_tables() -> None:
    first = figures.compact(GPU)[0]
    assert first == (
        "batch 1, 512+64",
        "21.2 → 25.1 ms (1.18×)",
        "8.10 → 4.10 ms (0.51×)",
        "120 → 226 (1.88×)",
        "7.38 → 3.94 (0.53×)",
    )


def test_a_role_that_was_not_measured_is_a_dash() -> None:
    alone = replace(GPU, speeds=tuple(s for s in GPU.speeds if s.role is Role.CANDIDATE), memory=GPU.memory[1:])
    assert figures.compact(alone)[0][1] == "– → 25.1 ms"
    record = replace(factory.profiled(cpu=False), performance=(alone,))
    assert "– → 25.1 ms" in text.render(record)
    assert "<td>–</td><td>25.1 ms</td>" in html.render(record)


def test_figures_of_a_cpu_are_called_so_in_every_format() -> None:
    record = factory.profiled(cpu=True)
    page, summary, log = html.render(record), markdown.render(record), text.render(record)
    assert ">Speed, memory and cost on a CPU</h2>" in page
    captions = [c.partition("</caption>")[0] for c in page.split("<caption>")[1:]]
    assert captions
    assert all("(CPU figures)" in c for c in captions)
    assert "### Speed, memory and cost on a CPU" in summary
    assert "Speed, memory and cost on a CPU, stage serving" in log
    for rendered in (page, summary, log):
        assert "decode speed at batch 1 on a CPU" in " ".join(rendered.split())
    assert "on a CPU" not in html.render(factory.profiled(cpu=False))


def test_lengths_outside_the_policys_range_are_named() -> None:
    record = factory.profiled(cpu=False)
    shorter, same = (figures.length_cells(one, record) for one in record.output_lengths)
    assert (shorter.change, shorter.ratio, shorter.interval) == ("112 → 98.3 tokens", "0.87×", "0.86 to 0.89×")
    assert shorter.remark == "shorter than the range of 90% to 110%"
    assert same.remark == ""
    narrow = replace(record, policy={**record.policy, "output_length": {"min": "95%", "max": "105%"}})
    assert figures.length_cells(record.output_lengths[0], narrow).remark.endswith("95% to 105%")
    assert "shorter than the range of 90% to 110%" in html.render(record)


def test_a_profile_stage_without_any_figure_renders() -> None:
    record = factory.profiled(cpu=False)
    nothing = replace(GPU, speeds=(), memory=(), fits=(), conditions=(), remarks=())
    empty = replace(record, performance=(nothing,))
    assert "Nothing could be measured." in html.render(empty)
    for module in (markdown, text):
        assert "Speed, memory and cost" in module.render(empty)
