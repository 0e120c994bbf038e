"""The values of one role's profile measurement, by metric and group, as the figures are made from them.

Pure.  Takes the first measurement alone: the second one (`again/…`) confirms a rule and describes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import geometric_mean, median

from gate.records import Measurement

BLOCK, RUN = "block/", "run/"


class Values:
    """`blocks`, `samples` and `readings` are empty where nothing of that name was observed."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self._blocks: dict[tuple[str, str | None], dict[int, float]] = defaultdict(dict)
        self._samples: dict[tuple[str, str | None], list[float]] = defaultdict(list)
        self._readings: dict[str, list[float]] = defaultdict(list)
        for seen in measurement.observations:
            if seen.item_id.startswith(RUN):
                self._readings[seen.metric].append(seen.value)
            elif seen.item_id.startswith(BLOCK):
                number, _, within = seen.item_id.removeprefix(BLOCK).partition("/")
                if within:
                    self._samples[seen.metric, seen.group].append(seen.value)
                else:
                    self._blocks[seen.metric, seen.group][int(number)] = seen.value

    def blocks(self, metric: str, group: str | None) -> dict[int, float]:
        """Number of the block → its value, ascending."""
        return dict(sorted(self._blocks.get((metric, group), {}).items()))

    def samples(self, metric: str, group: str | None) -> tuple[float, ...]:
        """All single times of all blocks, ascending."""
        return tuple(sorted(self._samples.get((metric, group), ())))

    def readings(self, metric: str) -> tuple[float, ...]:
        """Of the whole run, in the order of the blocks."""
        return tuple(self._readings.get(metric, ()))

    def groups(self, metric: str) -> tuple[str, ...]:
        """Groups that the metric has block values in, in the order measured."""
        return tuple(group for name, group in self._blocks if name == metric and group is not None)

    def mean(self, metric: str, group: str) -> float | None:
        """Geometric mean over blocks; None without a block, or where one is not positive."""
        values = list(self.blocks(metric, group).values())
        return geometric_mean(values) if values and min(values) > 0 else None

    def middle(self, metric: str) -> float | None:
        """Median of a run's readings."""
        return median(self.readings(metric)) if self.readings(metric) else None

    def largest(self, metric: str) -> int | None:
        """Of peaks and sizes: the reading that counts."""
        return round(max(self.readings(metric))) if self.readings(metric) else None


def device_rate(roles: Iterable[Values], metric: str) -> float | None:
    """What the device was measured to do: the larger of the roles' medians.

    Both checkpoints ran on it, and what one of them saw it do, it can do.
    """
    return max((rate for values in roles if (rate := values.middle(metric)) is not None), default=None)
