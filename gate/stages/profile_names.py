"""Which metrics a profile stage declares: those that can be observed with these settings on this kind of device.

Pure.  It depends on nothing that a block measures, so every block of both roles declares the same, which is what
`records.merge` and the pairing of the roles rely on.
"""

from __future__ import annotations

from gate.metrics import DESCRIBED, PROFILE
from gate.policy import ProfileStage
from gate.records import Estimand, Metric

_OF_LOADS = ("goodput_requests_per_second", "offered_requests_per_second", "load_lag")
_OF_GPUS = ("vram_", "load_vram_", "joules_", "gpu_")
_OF_CPUS = ("cpu_has_",)
_BY_THE_GATE = ("disk_bytes",)


def declared(settings: ProfileStage, device: str) -> tuple[Metric, ...]:
    """`device` as a backend names it: `cpu`, `cuda:0`, or `server`, whose memory and machine nobody here can see."""
    left_out: tuple[str, ...] = _BY_THE_GATE
    if settings.serving is None:
        left_out += _OF_LOADS
    if not device.startswith("cuda"):
        left_out += _OF_GPUS
    if not device.startswith("cpu"):
        left_out += _OF_CPUS
    return tuple(
        metric
        for metric in (*PROFILE.values(), *DESCRIBED.values())
        if not metric.observed.startswith(left_out) and not (device == "server" and metric.estimand is Estimand.SCALAR)
    )
