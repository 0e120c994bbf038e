"""A prediction of the candidate's scores, made before the run, that takes what was foreseeable out of the differences.

Pure: no I/O, no clock, no randomness.  Optional: nothing uses it unless asked to.

With a prediction p in [0, 1] for *all* N items (from the baseline's margins, from earlier candidates), betting on
d − (x − mean of x over the items to come), x = p − baseline, is the same as betting on the residuals candidate − p:
their total is that of d plus Σ(baseline − p), which is known.  So a test of d turns into a test of residuals, still
within [−1, 1], and its error rates hold for every prediction, also for a useless one; a good one saves items.
Benchmark scope only: in population scope the mean of x over the items to come is not known.

References:
    [1] A. Owen, Monte Carlo theory, methods and examples (2013), section 8.9 (control variates).
    [2] P. Stark, Annals of Applied Statistics 17 (2023) 641–679, section 4 (comparison audits: the overstatement is a
        residual of this kind).
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from gate.records import Scope
from gate.stats.betting import Test

Floats = NDArray[np.float64]


def adjusted(test: Test, *, baseline: Floats, predicted: Floats) -> Test:
    """The test of the residuals candidate − `predicted` that decides the same as `test` of candidate − `baseline`.

    Its mean is that of the residuals at the bound; `shift` takes limits back to differences.

    Args:
        baseline: (N,) scores of the baseline, in any order.
        predicted: (N,) predictions in [0, 1] of the candidate's scores, in the same order, made from nothing that the
            candidate's answers have a part in.

    Raises:
        ValueError: population scope, a prediction outside [0, 1], or not one number per item of the sample.
    """
    if test.scope is not Scope.BENCHMARK:
        raise ValueError(f"found scope {test.scope}, expected benchmark: only there all items are known beforehand")
    if not (predicted.shape == baseline.shape == (test.n,)):
        raise ValueError(f"found {baseline.shape} scores and {predicted.shape} predictions, expected {test.n} of each")
    if not (np.abs(predicted - 0.5) <= 0.5).all():
        raise ValueError("found a prediction outside 0..1, expected a score")
    moved = _total(baseline) - _total(predicted)
    fail_total = test.fail_total + moved
    return replace(
        test,
        fail_total=fail_total,
        pass_total=test.pass_total + moved,
        mean=float(fail_total / test.n),
        integral=False,
    )


def shift(*, baseline: Floats, predicted: Floats) -> float:
    """What to add to a mean residual (an estimate, a limit) for the mean difference candidate − baseline."""
    return float((_total(predicted) - _total(baseline)) / len(baseline))


def _total(values: Floats) -> Fraction:
    return Fraction(math.fsum(values))
