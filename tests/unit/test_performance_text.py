"""What stands out in the figures: each remark where it belongs, and only there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gate.decide.performance import describe
from gate.decide.performance_text import named
from gate.records import ItemFailure, Measurement, Observation, Role
from tests import profile_factory as made

STAGE = made.stage(batch_sizes=[1, 8], prompt_tokens=100, new_tokens=20, blocks=3)


def role(read_bytes: float, *decode: float, weights_bytes: float | None = None) -> list[Observation]:
    """Decoding speeds at batch 1 and 8, and the bytes that a step reads."""
    seen = made.scalars(
        cpu_has_avx2=1.0,
        weights_read_bytes=read_bytes,
        weights_bytes=read_bytes if weights_bytes is None else weights_bytes,
        kv_bytes_per_token=1.0,
        copy_bytes_per_second=1e9,
    )
    for group, rate in zip(("batch=1", "batch=8"), decode, strict=True):
        for name, value in (
            ("output_tokens_per_second", rate),
            ("requests_per_second", 1.0),
            ("decode_tokens_per_second", rate),
        ):
            seen += made.blocks(name, group, value)
    return seen


def remarks(
    baseline: list[Observation], candidate: list[Observation], *, on_disk: int = 300_000, cpu: bool = True
) -> list[str]:
    found = describe(
        STAGE,
        made.measurement(Role.BASELINE, baseline),
        made.measurement(Role.CANDIDATE, candidate),
        policy=made.policy(STAGE, price_per_hour=1.0),
        quality=None,
        environment=made.CPU if cpu else made.GPU,
        refs=made.refs(parameters=500_000, baseline_bytes=1_000_000, candidate_bytes=on_disk),
        findings=(),
    )
    return [r for r in found.remarks if "is not what this device computes in" not in r]


def test_slower_with_fewer_bytes_is_bound_by_dequantization() -> None:
    said = remarks(role(1e6, 1000, 8000), role(3.1e5, 720, 8800))
    assert said[0] == (
        "The candidate decodes 0.72× as fast as the baseline at batch 1, although it reads 0.31× the bytes of weights: "
        "it is bound by dequantization, not by memory."
    )
    assert not any("as fast as the baseline, although" in r for r in said)


def why_slower(baseline: list[Observation], candidate: list[Observation]) -> str:
    (said,) = [r for r in remarks(baseline, candidate) if "decodes 0." in r]
    return said.rpartition(": ")[2]


def test_dequantization_is_blamed_on_evidence_alone() -> None:
    blamed = "it is bound by dequantization, not by memory."
    kernels = "its kernels cost more than the fewer bytes save."
    assert why_slower(role(1e6, 1000, 8000), role(3.1e5, 720, 8800)) == blamed
    # 0.30 and 0.09 of the bandwidth: launching kernels takes the time
    assert why_slower(role(1e6, 300, 8000), role(3.1e5, 200, 8800)) == kernels
    # how this device runs the format is not known
    unknown = [[o for o in role(1e6, *rates) if o.metric != "cpu_has_avx2"] for rates in ((1000, 8000), (720, 8800))]
    fewer = [replace(o, value=3.1e5) if o.metric == "weights_read_bytes" else o for o in unknown[1]]
    assert why_slower(unknown[0], fewer) == kernels
    disturbed = [made.observation("gpu_foreign_processes", "block/0", 1.0)]
    said = why_slower(role(1e6, 1000, 8000), [*role(3.1e5, 720, 8800), *disturbed])
    assert said == "blocks stayed disturbed, so no cause is named."


def test_as_fast_with_fewer_bytes_is_not_bound_by_memory() -> None:
    said = remarks(role(1e6, 1000, 8000), role(3.1e5, 1020, 8100))
    assert said[0] == (
        "At batch 1 and batch 8 the candidate decodes as fast as the baseline, although it reads 0.31× the bytes of "
        "weights: there, memory is not what decoding waits for."
    )


def test_a_speed_up_or_as_many_bytes_need_no_remark() -> None:
    assert not any("although" in r for r in remarks(role(1e6, 1000, 8000), role(3.1e5, 1800, 9000)))
    assert not any("although" in r for r in remarks(role(1e6, 1000, 8000), role(9e5, 700, 7000)))


def test_weights_that_are_unpacked_when_loaded_are_named() -> None:
    said = remarks(role(1e6, 1000, 8000), role(1e6, 990, 8000))
    assert said[0] == (
        "The kernel does not use the candidate's quantized format: its weights take 293 KiB on disk and 977 KiB "
        "(16 bits a parameter) once loaded, so they were unpacked, at least in part."
    )
    assert not any("kernel" in r for r in remarks(role(1e6, 1000, 8000), role(3.1e5, 990, 8000, weights_bytes=3.1e5)))


def test_little_of_the_bandwidth_is_named_once_for_all_shapes() -> None:
    # 1 MB at 1 GB/s takes 1 ms: 100 and 80 steps a second use 10 and 8 percent of it
    said = remarks(role(1e6, 100, 640), role(3.1e5, 300, 2400))
    (found,) = [r for r in said if "memory bandwidth" in r]
    assert found.startswith("Decoding uses at most 10% of the memory bandwidth at batch 1 and batch 8")
    assert not any("memory bandwidth" in r for r in remarks(role(1e6, 900, 6400), role(3.1e5, 1500, 9000)))


def test_more_than_the_bandwidth_is_a_cache() -> None:
    said = remarks(role(1e6, 2000, 8000), role(9e5, 2200, 9000))
    assert any("up to 2.0× as many bytes a second" in r and "caches" in r for r in said)


def test_figures_of_a_cpu_say_so_and_those_of_a_gpu_say_what_nvml_does_not_see() -> None:
    both = role(1e6, 900, 6400), role(9e5, 950, 6500)
    assert remarks(*both)[-1].startswith("These are figures of a CPU")
    said = remarks(*both, cpu=False)
    assert not any("CPU" in r for r in said)
    assert any(r.startswith("NVML cannot see the memory of these processes") for r in said)
    assert any(r.startswith("NVML counts no energy") for r in said)
    seen = [*made.gpu().remarks]
    assert not any("NVML" in r for r in seen)
    nothing_timed = made.scalars(weights_bytes=1e6)
    assert not any("joules" in r for r in remarks(nothing_timed, nothing_timed, cpu=False))


def test_nvml_that_could_not_be_asked_did_not_count_nothing() -> None:
    note = "NVML could not be asked about the GPU (nvidia-ml-py is missing): no energy"
    found = describe(
        STAGE,
        replace(made.measurement(Role.BASELINE, role(1e6, 900, 6400)), notes=(note,)),
        made.measurement(Role.CANDIDATE, role(9e5, 950, 6500)),
        policy=made.policy(STAGE),
        quality=None,
        environment=made.GPU,
        refs={},
        findings=(),
    )
    (said,) = [r for r in found.remarks if "joules" in r]
    assert said == "NVML could not be asked: there are no joules per token."


def test_what_could_not_be_measured_is_said_once_for_all_that_it_happened_to() -> None:
    def failed(role: Role, groups: Sequence[str]) -> Measurement:
        lost = [
            ItemFailure(item_id=f"block/{k}/{group}", kind="not_served", message="it serves no load.")
            for group in groups
            for k in range(3)
        ]
        return made.measurement(role, (), lost)

    found = describe(
        STAGE,
        failed(Role.BASELINE, ["load=open:4", "load=closed:2"]),
        failed(Role.CANDIDATE, ["load=open:4", "load=closed:2", "batch=8"]),
        policy=made.policy(STAGE),
        quality=None,
        environment=made.CPU,
        refs={},
        findings=(),
    )
    assert found.remarks[:2] == (
        "Both checkpoints could not be measured (it serves no load) at served load open:4 and served load closed:2 in "
        "3 blocks: there are no figures for it.",
        "The candidate could not be measured (it serves no load) at batch 8 in 3 blocks: there are no figures for it.",
    )


def test_the_worst_comes_first() -> None:
    said = made.gpu().remarks
    assert "ran out of memory" in said[0]
    assert "saturated" in said[1]
    assert "no price_per_hour" in said[-1]


def test_groups_are_named_as_people_do() -> None:
    assert named("batch=8") == "batch 8"
    assert named("batch=8,1024+64") == "batch 8 (1024+64 tokens)"
    assert named("load=open:4") == "served load open:4"
