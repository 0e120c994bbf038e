"""Timing gates as scripts often have them, on the same measured pairs: what they call slower although nothing is.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import fsum

from benchmarks.timing_pairs import Pair
from benchmarks.timing_rates import runs, value
from gate.records import Measurement

STEPS = "tpot_sample_seconds"
DECODE = "decode_tokens_per_second"
TOLERANCE = 0.95
LEVEL = 0.05

Alarms = Callable[[Sequence[Pair], str, int], list[bool]]
"""(pairs of one condition, group, R) → for each run whether it raises an alarm."""


def one_pair(pairs: Sequence[Pair], group: str, length: int) -> list[bool]:
    """Each pair of blocks by itself."""
    return [_below([p], [p], group) for p in pairs]


def one_after_the_other(pairs: Sequence[Pair], group: str, length: int) -> list[bool]:
    """R blocks of the baseline, then R of the candidate."""
    return [_below(before, after, group) for before, after in _halves(pairs, length)]


def t_of_steps(pairs: Sequence[Pair], group: str, length: int) -> list[bool]:
    """Of R interleaved pairs."""
    return [_slower(run, run, group) for run in _whole(pairs, length)]


def t_of_steps_one_after_the_other(pairs: Sequence[Pair], group: str, length: int) -> list[bool]:
    """R blocks of the baseline, then R of the candidate."""
    return [_slower(before, after, group) for before, after in _halves(pairs, length)]


GATES: Mapping[str, Alarms] = {
    "one block each; alarm below 95% of the tokens per second": one_pair,
    "A A A … B B B, R blocks each; alarm below 95% of the mean tokens per second": one_after_the_other,
    "R pairs A B B A …; Welch's t on single steps, alarm at p < .05": t_of_steps,
    "A A A … B B B, R blocks each; Welch's t on single steps, alarm at p < .05": t_of_steps_one_after_the_other,
}


def _whole(pairs: Sequence[Pair], length: int) -> list[Sequence[Pair]]:
    found = runs([p.session for p in pairs], [False] * len(pairs), length, 0)
    return [[pairs[i] for i in run] for run in found]


def _halves(pairs: Sequence[Pair], length: int) -> list[tuple[Sequence[Pair], Sequence[Pair]]]:
    """Every run of 2 R pairs, cut in the middle: what would have been measured first, and what after it."""
    return [(run[:length], run[length:]) for run in _whole(pairs, 2 * length)]


def _below(before: Sequence[Pair], after: Sequence[Pair], group: str) -> bool:
    baseline = fsum(value(p.baseline, DECODE, group) for p in before) / len(before)
    candidate = fsum(value(p.candidate, DECODE, group) for p in after) / len(after)
    return candidate < TOLERANCE * baseline


def _slower(before: Sequence[Pair], after: Sequence[Pair], group: str) -> bool:
    """Whether the candidate's steps take longer, as if every step were a replicate."""
    from scipy.stats import ttest_ind

    baseline = [s for p in before for s in steps(p.baseline, group)]
    candidate = [s for p in after for s in steps(p.candidate, group)]
    return bool(ttest_ind(candidate, baseline, equal_var=False, alternative="greater").pvalue < LEVEL)


def steps(measurement: Measurement, group: str) -> list[float]:
    """Seconds of each single decoding step.  Raises ValueError where there is none."""
    found = [o.value for o in measurement.observations if (o.metric, o.group) == (STEPS, group)]
    if not found:
        raise ValueError(f"found no {STEPS} of {group}, expected the single steps of every block")
    return found
