"""About how long a profile stage takes on a GPU, from its settings and what is published of the device.

Pure arithmetic for planning; measures nothing.  A step of decoding reads the weights and the key/value caches once, a
prompt is computed at the rate of the device's matrix units, and no step is quicker than Python can queue it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gate import units
from gate.hardware import GPUS, Gpu
from gate.policy_profile import Load, ProfileStage, Shape

BANDWIDTH_SHARE = 0.7
"""Of the published bandwidth that decoding reaches, and …"""

FLOPS_SHARE = 0.4
"""… of the published flops that a prompt does."""

STEP_SECONDS = 0.03
"""The least of a step where transformers queues one operation after another: some 30 layers of them."""

LOAD_BYTES_PER_SECOND = 1e9
"""From disk to the device."""

WARM_UPS_FIRST, WARM_UPS_LATER = 5, 2
"""Runs thrown away when a process first runs a shape, and in each later block, where nothing is unsteady."""

_KV_BYTES_PER_TOKEN = 131_072 / 8e9  # per parameter: Llama 3 8B, whose 32 layers have 8 key and value heads of 128
_USABLE_MEMORY = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What is known of it, and whether that is a real checkpoint or an example.

    Attributes:
        name: for the sentence that says what was assumed.
        weight_bytes: of the baseline and of the candidate.
    """

    name: str
    n_parameters: float
    weight_bytes: tuple[float, float]


EXAMPLE = Model(name="an 8 B model in BF16 and its 8-bit candidate", n_parameters=8e9, weight_bytes=(16e9, 8e9))
EXAMPLE_GPU = "L40S"


def model(n_parameters: float, weight_bytes: float) -> Model:
    """A baseline that is there, and a candidate of half its size: nothing is known of it yet."""
    size = f"{weight_bytes / 1e9:.3g} GB" if weight_bytes >= 1e9 else f"{weight_bytes / 1e6:.3g} MB"
    n = f"{n_parameters / 1e9:.3g} B" if n_parameters >= 1e9 else f"{n_parameters / 1e6:.3g} M"
    name = f"a baseline of {n} parameters ({size}) and a candidate of half the size"
    return Model(name=name, n_parameters=n_parameters, weight_bytes=(weight_bytes, weight_bytes / 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileTime:
    """Seconds of a stage on a device; a second measurement, which confirms what is red, takes `most_seconds` again.

    Attributes:
        first_seconds: until the first planned look, loading included; `most_seconds`: until the last.
        loading_seconds: of `most_seconds`, what loading takes.
        resident: both models fit together; otherwise each is loaded for its blocks.
    """

    stage: str
    model: str
    gpu: str
    bytes_per_second: float
    pairs: tuple[int, ...]
    first_seconds: float
    most_seconds: float
    loading_seconds: float
    resident: bool


def estimate(stage: ProfileStage, model: Model = EXAMPLE, gpu: str = EXAMPLE_GPU) -> ProfileTime:
    """`gpu` is a name of `hardware.GPUS`.  Raises KeyError for another one."""
    device, pairs = GPUS[gpu], stage.planned_pairs
    resident = sum(model.weight_bytes) <= _USABLE_MEMORY * device.memory_bytes
    first, most = (_timed_seconds(stage, model, device, n) for n in (pairs[0], pairs[-1]))
    loading_first, loading_most = (_loading_seconds(model, n, resident) for n in (pairs[0], pairs[-1]))
    return ProfileTime(
        stage=stage.name,
        model=model.name,
        gpu=gpu,
        bytes_per_second=device.bytes_per_second,
        pairs=pairs,
        first_seconds=first + loading_first,
        most_seconds=most + loading_most,
        loading_seconds=loading_most,
        resident=resident,
    )


def _loading_seconds(model: Model, pairs: int, resident: bool) -> float:
    """Where only one fits, blocks of a role follow each other in twos (A, B B, A A, …): one load more than pairs."""
    once = sum(model.weight_bytes) / LOAD_BYTES_PER_SECOND
    return once if resident else once / 2 * (pairs + 1)


def _timed_seconds(stage: ProfileStage, model: Model, gpu: Gpu, pairs: int) -> float:
    warm_ups = WARM_UPS_FIRST + WARM_UPS_LATER * (pairs - 1)
    total = 0.0
    for weight_bytes in model.weight_bytes:
        for shape in stage.shapes:
            batch = _batch_seconds(shape, model.n_parameters, weight_bytes, gpu)
            total += (warm_ups + pairs * stage.runs_a_block) * batch
        mix = [] if stage.serving is None else list(dict.fromkeys(units.lengths(text) for text in stage.serving.mix))
        for load in () if stage.serving is None else stage.serving.loads:
            alone = sum(_batch_seconds(Shape(1, p, n), model.n_parameters, weight_bytes, gpu) for p, n in mix)
            total += warm_ups * alone + pairs * _load_seconds(load, mix, model.n_parameters, weight_bytes, gpu)
    return total


def _load_seconds(load: Load, mix: list[tuple[int, int]], n_parameters: float, weight_bytes: float, gpu: Gpu) -> float:
    """Open: until the last has come and is answered.  Closed: groups of as many as are under way, the average kind."""
    prompt, new = (round(sum(kind) / len(mix)) for kind in zip(*mix, strict=True))
    at_once = load.concurrency or 1
    batch = _batch_seconds(Shape(at_once, prompt, max(2, new)), n_parameters, weight_bytes, gpu)
    return load.requests / load.rate + batch if load.rate is not None else load.requests / at_once * batch


def _batch_seconds(shape: Shape, n_parameters: float, weight_bytes: float, gpu: Gpu) -> float:
    flops, speed = 2 * n_parameters * shape.batch_size, FLOPS_SHARE * gpu.flops_per_second
    cached_bytes = _KV_BYTES_PER_TOKEN * n_parameters * shape.batch_size * (shape.prompt_tokens + shape.new_tokens / 2)
    reading = weight_bytes / (BANDWIDTH_SHARE * gpu.bytes_per_second)
    step = reading + cached_bytes / (BANDWIDTH_SHARE * gpu.bytes_per_second)
    prefill = max(reading, flops * shape.prompt_tokens / speed, STEP_SECONDS)
    return prefill + (shape.new_tokens - 1) * max(step, flops / speed, STEP_SECONDS)
