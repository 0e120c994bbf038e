"""Estimators: one per module, each a closed and referenced formula.  `METHODS` names them all.

Pure: numbers in, a frozen result that repeats them out.  No I/O, no clock, no randomness, no verdicts.
"""

from __future__ import annotations

from typing import Protocol

METHODS = {
    "tango": "gate.stats.tango:interval",
    "wald": "gate.stats.wald:interval",
    "nam_blackwelder": "gate.stats.nam_blackwelder:interval",
    "wald_ratio": "gate.stats.wald:retention",
    "wilson": "gate.stats.wilson:interval",
    "bounded": "gate.stats.bounded:mean",
    "bounded_ratio": "gate.stats.bounded:retention",
    "cluster_t": "gate.stats.cluster:mean",
    "cluster_ratio": "gate.stats.cluster:retention",
    "document_t": "gate.stats.document_ratio:interval",
    "mean_ratio": "gate.stats.mean_ratio:interval",
    "jackknife_t": "gate.stats.jackknife:interval",
    "jackknife_ratio": "gate.stats.jackknife:retention",
    "log_ratio_t": "gate.stats.log_ratio:interval",
    "log_mean_t": "gate.stats.log_ratio:geometric_mean",
    "betting": "gate.stats.confidence_sequence:interval",
    "exact_unconditional": "gate.stats.exact_unconditional:interval",
    "exact_finite": "gate.stats.exact_finite:interval",
    "hodges_lehmann": "gate.stats.hodges_lehmann:interval",
    "order_statistics": "gate.stats.order_statistics:value",
    "order_statistics_ratio": "gate.stats.order_statistics:ratio",
    "exact": "gate.stats.exact:value",
    "exact_ratio": "gate.stats.exact:ratio",
}
"""Method name, as it stands in `Interval.method`, → the function that computes it."""


class Limits(Protocol):
    """What every estimator returns: each limit alone holds with (one-sided) `confidence`."""

    @property
    def estimate(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def confidence(self) -> float: ...
