"""What a profile stage found, put together for a reader: speed, memory, cost, the limits of the device, the machine.

Pure.  Decides nothing: rules on the same numbers are findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gate import hardware
from gate.decide.conditions import crowded, disturbance, of_blocks
from gate.decide.performance_memory import memory
from gate.decide.performance_speed import speeds
from gate.decide.performance_text import Seen, remarks
from gate.decide.performance_values import BLOCK, Values, device_rate
from gate.metrics import CPU_FLAGS, DTYPES
from gate.policy import Policy, ProfileStage
from gate.records import CheckpointRef, Environment, Finding, Fit, Measurement, Performance, Quality, Role

CONFIRMED = "confirmed"
"""In the counts of a finding that was red at first: 1 where the second measurement found the same."""

_BYTES_OF_FLOAT32 = 3.5
"""A parameter that takes more bytes than this on disk is a 32-bit number; 2 or less is 16 bits and quantized ones."""


class Condition(NamedTuple):
    """How a condition of the machine is shown: divided by `over`, with `decimals` digits."""

    metric: str
    words: str
    unit: str
    over: float
    decimals: int


_CONDITIONS = (
    Condition("cpu_clock_hertz", "CPU clock", " GHz", 1e9, 2),
    Condition("cpu_load", "CPUs used by other processes", "%", 0.01, 0),
    Condition("cpu_wait_share", "timed threads waiting for a CPU", "% of the time", 0.01, 1),
    Condition("cpu_steal_share", "CPU time taken by the host", "%", 0.01, 1),
    Condition("gpu_clock_share", "GPU clock", "% of its highest", 0.01, 0),
    Condition("gpu_temperature_celsius", "GPU temperature", " °C", 1, 0),
    Condition("gpu_power_watts", "GPU power", " W", 1, 0),
    Condition("gpu_foreign_processes", "other processes on the GPU", "", 1, 0),
)


def describe(
    stage: ProfileStage,
    baseline: Measurement | None,
    candidate: Measurement | None,
    *,
    policy: Policy,
    quality: Quality | None,
    environment: Environment,
    refs: Mapping[Role, CheckpointRef],
    findings: Sequence[Finding],
) -> Performance:
    """The figures of `stage`; a role that was not measured has none.  `findings` may be of other stages too."""
    measured = {Role.BASELINE: baseline, Role.CANDIDATE: candidate}
    roles = {role: Values(found) for role, found in measured.items() if found is not None}
    conditions = [of for values in roles.values() for of in _first(values.measurement)]
    disturbed = [said for of in conditions if (said := disturbance(of)) is not None]
    found_speeds, found_memory = speeds(stage, roles, policy, quality), memory(stage, roles)
    found_fits = [_fit(ref, roles, environment.device, policy) for ref in _fitting(refs, environment.device)]
    confirmed = {
        f.rule.id: bool(f.counts[CONFIRMED]) for f in findings if f.rule.stage == stage.name and CONFIRMED in f.counts
    }
    return Performance(
        stage=stage.name,
        device=environment.device,
        device_names=environment.device_names,
        copy_bytes_per_second=device_rate(roles.values(), "copy_bytes_per_second"),
        matmul_flops_per_second=device_rate(roles.values(), "matmul_flops_per_second"),
        speeds=tuple(found_speeds),
        memory=tuple(found_memory),
        fits=tuple(found_fits),
        confirmed=confirmed,
        repeated_blocks=_repeated(roles),
        disturbed_blocks=len(disturbed),
        conditions=tuple(_lines(conditions)),
        remarks=remarks(
            Seen(
                device=environment.device,
                roles=roles,
                refs=refs,
                speeds=found_speeds,
                memory=found_memory,
                fits=found_fits,
                confirmed=confirmed,
                disturbed=disturbed,
                crowded=sum(map(crowded, conditions)),
                policy=policy,
            )
        ),
    )


def _first(measurement: Measurement) -> list[Mapping[str, float]]:
    """Conditions of the blocks that the figures come from."""
    return [conditions for item, conditions in of_blocks(measurement).items() if item.startswith(BLOCK)]


def _lines(blocks: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """`GPU temperature 60 to 62 °C`: over the blocks of both roles."""
    for shown in _CONDITIONS:
        values = [of[shown.metric] / shown.over for of in blocks if shown.metric in of]
        if values:
            low, high = f"{min(values):.{shown.decimals}f}", f"{max(values):.{shown.decimals}f}"
            yield f"{shown.words} {low if low == high else f'{low} to {high}'}{shown.unit}"


def _repeated(roles: Mapping[Role, Values]) -> int:
    """Pairs measured again: the count stands on either role's block, or on both."""
    counts: dict[int, float] = {}
    for values in roles.values():
        for block, times in values.blocks("repeated", None).items():
            counts[block] = max(times, counts.get(block, 0))
    return round(sum(counts.values()))


def _fitting(refs: Mapping[Role, CheckpointRef], device: str) -> list[CheckpointRef]:
    """Nothing is known of what a server runs on."""
    return [] if device == "server" else [refs[role] for role in Role if role in refs]


def _fit(ref: CheckpointRef, roles: Mapping[Role, Values], device: str, policy: Policy) -> Fit:
    format = hardware.format_of(ref, _dtype(ref, roles.get(ref.role), policy))
    capability = next((c for v in roles.values() if (c := v.middle("gpu_compute_capability")) is not None), None)
    flags = [flag for flag in CPU_FLAGS if any(v.middle(f"cpu_has_{flag}") for v in roles.values())]
    entry = hardware.fit(format, device=device, capability=capability, cpu_flags=flags)
    return Fit(role=ref.role, format=format, device=device, runs=entry.runs, why=entry.why, source=entry.source)


def _dtype(ref: CheckpointRef, values: Values | None, policy: Policy) -> str:
    """What it computes in besides its quantized weights: as was seen, else as the policy says, else by its size."""
    seen = [dtype for dtype in DTYPES if values is not None and values.middle(f"computes_in_{dtype}")]
    if seen:
        return seen[0]
    said = policy.checkpoints.get(ref.uri)
    if said is not None and said.dtype != "auto":
        return said.dtype
    wide = ref.n_parameters and ref.weight_bytes / ref.n_parameters > _BYTES_OF_FLOAT32
    return "float32" if wide else "bfloat16"
