"""What a fake checkpoint folder may say: `fake.json` and the answers it knows.

Reads two files; runs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gate.errors import CheckpointError

Rate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fault(Strict):
    """What goes wrong, in which operation, after how many items of it went well."""

    op: Literal["open", "score", "loglikelihood", "generate", "timed_batch", "serve"]
    after: Count = 0
    action: Literal["raise", "memory_error", "out_of_memory", "sigkill", "sigsegv", "exit", "hang", "freeze"] = Field(
        description="hang: sleep for ever, heartbeats go on; freeze: the same with the interpreter lock held"
    )


class FakeSettings(Strict):
    """`fake.json`.  Two fakes that differ in `seed` alone make different mistakes equally often."""

    kind: Literal["fake"]
    seed: int = 0
    answers: str | dict[str, str] = Field(
        default_factory=dict,
        description="{question: answer}, or a JSON Lines file of {input, expected} such as a domain data set",
    )
    error_rate: Rate = Field(0.0, description="share of the known questions that it answers wrongly")
    mistake: str = Field("unknown", description="what it answers then")
    jitter: Rate = Field(
        0.0, description="share of the known questions on which a batch size other than its own flips right and wrong"
    )
    nll_nats: Annotated[float, Field(gt=0)] = Field(2.0, description="mean NLL a token, before `nll_shift`")
    nll_spread: Rate = Field(0.5, description="relative half-range of the NLL over contexts, the same for every seed")
    nll_shift: float = 0.0
    nll_noise: Amount = Field(0.0, description="half-range of what is added for this seed alone")
    has_logits: bool = True
    chat_template: bool = True
    context_length: Annotated[int, Field(ge=2)] = 65536
    n_parameters: Count = 1000
    load_seconds: Amount = 0.5
    rss_peak_bytes: Count | None = Field(100_000_000, description="null: that of the process")
    vram_bytes: Count = 50_000_000
    vram_context_bytes: Count | None = Field(None, description="null: NVML does not show this process")
    activation_peak_bytes: Count | None = 1_000_000
    weights_bytes: Count | None = 2_000_000
    kv_bytes_per_token: Count | None = 1_000
    kv_cache_tokens: Count | None = Field(None, description="of an engine's reserved key/value cache; null: no engine")
    max_sequences: Count | None = Field(None, description="of an engine's scheduler; null: no engine")
    device_memory_bytes: Count | None = 1_000_000_000
    device_uuids: tuple[str, ...] = ()
    copy_bytes_per_second: Positive | None = Field(1e10, description="null: the device cannot be measured")
    matmul_flops_per_second: Positive = 1e11
    prefill_tokens_per_second: Positive = 10_000.0
    decode_tokens_per_second: Positive = 1_000.0
    serves_requests_per_second: Positive | None = Field(None, description="most that it takes up; null: serves no load")
    joules_per_token: Amount | None = Field(None, description="null: nothing counts energy")
    fits_batch: Count | None = Field(None, description="larger batches run out of memory; null: all fit")
    slow_down: Positive = Field(1.0, description="times all times, of the batches from slow_after to slow_until")
    slow_after: Count = Field(0, description="batches and loads, warm-ups included, that this process runs before")
    slow_until: Amount = math.inf
    slow_once: str | None = Field(
        None, description="path of a file: only the process that finds it when it opens, and takes it away, is slow"
    )
    conditions: Annotated[tuple[dict[str, float], ...], Field(min_length=1)] = Field(
        ({"cpu_wait_share": 0.0, "cpu_steal_share": 0.0, "cpu_load": 0.0},),
        description="what the machine is like in each timing block that this process runs; the last for all others",
    )
    timing_noise: Rate = 0.02
    sleep_seconds: Amount = Field(0.0, description="real time spent on each item")
    noise_bytes: Count = Field(0, description="rubbish written to stdout and to stderr for each item")
    unserved: dict[str, str] = Field(default_factory=dict, description="{stage kind: why it cannot be measured}")
    notes: tuple[str, ...] = ()
    packages: dict[str, str] = Field(default_factory=dict, description="{package: version} that it claims to run on")
    faults: tuple[Fault, ...] = ()


def load_settings(folder: Path) -> FakeSettings:
    """Raises CheckpointError naming every mistake."""
    path = folder / "fake.json"
    try:
        return FakeSettings.model_validate_json(path.read_bytes())
    except FileNotFoundError as problem:
        raise CheckpointError(f"{path} is missing: the fake backend loads only folders that have it") from problem
    except ValidationError as problem:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors())
        raise CheckpointError(f"{path} is not a fake checkpoint: {wrong}") from problem


def load_answers(folder: Path, settings: FakeSettings) -> dict[str, str]:
    """Question → answer.  Raises CheckpointError when the file they are in cannot be read."""
    if isinstance(settings.answers, dict):
        return settings.answers
    path = folder / settings.answers
    try:
        return dict(_pairs(path))
    except (OSError, KeyError, ValueError) as problem:
        raise CheckpointError(f"answers {path}: {problem!r}, expected JSON Lines of {{input, expected}}") from problem


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            item = json.loads(line)
            expected = item["expected"]
            yield str(item["input"]), expected if isinstance(expected, str) else json.dumps(expected)
