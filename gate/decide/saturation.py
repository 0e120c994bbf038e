"""Whether a serving load brought more requests than a checkpoint could serve: once, from all blocks of it.

Pure.  Each block of an open loop has its lag (`gate.stages.profile_load.lag`): how late its last answer came, over
W/√n, which is what the end of n Poisson arrivals in W seconds varies by.  A single block says little: an engine that is
busy for 90 % of the time falls behind in many of them by chance, and catches up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from gate.decide.items import ABSOLUTE
from gate.decide.timing_blocks import FIRST
from gate.records import Measurement, Metric, Role, Rule

AT_CAPACITY = math.sqrt(2 / math.pi)
"""Mean lag under a load of exactly what can be served: the backlog is a random walk that is reflected at zero, so
its lag is |Z| for a standard normal Z, …"""

_SD_AT_CAPACITY = math.sqrt(1 - 2 / math.pi)
"""… which has this standard deviation."""

_LATENCIES = ("ttft_", "tpot_", "e2e_")


def limit(blocks: int) -> float:
    """Mean lag of so many blocks above which a load is saturated: one standard error above that at capacity."""
    return AT_CAPACITY + _SD_AT_CAPACITY / math.sqrt(blocks)


def is_saturated(lags: Sequence[float]) -> bool:
    """Of the lags of all blocks of one checkpoint's load; a closed loop has none, and never is.

    With one server (M/D/1), 8 blocks and 32 requests in each: 1 % of loads are called saturated at 90 % of capacity and
    99 % at 125 %; with 8 requests, 2 % at 80 % of capacity (tests/unit/test_decide_saturation.py).
    """
    return bool(lags) and fmean(lags) > limit(len(lags))


def lags(measurement: Measurement, group: str | None) -> tuple[float, ...]:
    """Of the blocks of the first measurement, whatever the look: the second one confirms a rule, no more."""
    return tuple(
        o.value
        for o in measurement.observations
        if o.metric == "load_lag" and o.group == group and o.item_id.startswith(f"{FIRST}/")
    )


def no_latency(
    rule: Rule, metric: Metric, group: str | None, baseline: Measurement | None, candidate: Measurement
) -> str | None:
    """Why a rule on a latency cannot be judged under this load; None where it can, and for rates and goodput.

    A rule about the candidate alone does not ask for the baseline to keep up.
    """
    if not metric.observed.startswith(_LATENCIES):
        return None
    found = {m.role: lags(m, group) for m in (baseline, candidate) if m is not None}
    saturated = [role for role, of in found.items() if is_saturated(of)]
    if not saturated or (rule.bound.kind in ABSOLUTE and candidate.role not in saturated):
        return None
    behind = " and ".join(
        f"the {role} fell behind by {fmean(found[role]):.3g} times what chance in the arrivals explains, on average "
        f"over {len(found[role])} blocks, and {limit(len(found[role])):.3g} is the most for one that keeps up"
        for role in saturated
    )
    lost_capacity = ""
    if saturated == [candidate.role] and found.get(Role.BASELINE):
        lost_capacity = "the baseline keeps up with this load and the candidate does not, which is a loss of capacity; "
    return (
        f"{metric.name}: the load {(group or '').removeprefix('load=')} was saturated ({behind}), so latencies under "
        f"it grow for as long as it lasts: {lost_capacity}lower its rate, or put a rule on goodput or throughput"
    )
