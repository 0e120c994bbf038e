"""Tokens per answer, candidate over baseline, on every source that counts them.

Pure.  Blocks nothing: a length outside the policy's range is named in the reports, since it moves speed and quality.
The interval is that of `stats.mean_ratio`, for tasks like these at the items that both answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from gate import units
from gate.decide.pairing import Pair, pair
from gate.errors import CouldNotMeasure
from gate.metrics import DOMAIN
from gate.policy import Policy
from gate.records import Measurement, OutputLength, Role
from gate.stats import mean_ratio

_LENGTH = DOMAIN["length_ratio"]
_FEWEST_ITEMS = 2  # for an interval


def lengths(measurements: Sequence[Measurement], policy: Policy, confidence: float) -> tuple[OutputLength, ...]:
    """One per source whose answers both roles wrote, in the order of the candidate's; each limit at `confidence`."""
    baselines = {(m.stage, m.source): m for m in measurements if m.role is Role.BASELINE}
    found = []
    for candidate in measurements:
        baseline = baselines.get((candidate.stage, candidate.source))
        if candidate.role is not Role.CANDIDATE or baseline is None:
            continue
        paired = _paired(baseline, candidate)
        if len(paired) >= _FEWEST_ITEMS and any(p.baseline > 0 for p in paired):
            found.append(_length(candidate, paired, policy, confidence))
    return tuple(found)


def _paired(baseline: Measurement, candidate: Measurement) -> tuple[Pair, ...]:
    """None where the two were not asked the same: the rules of that source then say so."""
    try:
        return pair(baseline, candidate, _LENGTH).paired
    except CouldNotMeasure:
        return ()


def _length(candidate: Measurement, paired: Sequence[Pair], policy: Policy, confidence: float) -> OutputLength:
    ratio = mean_ratio.interval(
        baseline=[p.baseline for p in paired], candidate=[p.candidate for p in paired], confidence=confidence
    )
    least, most = units.percent(policy.output_length.min), units.percent(policy.output_length.max)
    return OutputLength(
        stage=candidate.stage,
        source=candidate.source,
        baseline_tokens=ratio.baseline_total / ratio.n,
        candidate_tokens=ratio.candidate_total / ratio.n,
        ratio=ratio.estimate,
        low=ratio.low,
        high=ratio.high,
        n=ratio.n,
        outside=not least <= ratio.estimate <= most,
    )
