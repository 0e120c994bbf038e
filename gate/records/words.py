"""The closed sets of the field: statuses, roles, severities, scopes, bounds, estimands, directions.

Pure data.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What can be said of a rule, a stage or a run."""

    PASS = "PASS"
    REGRESSION = "REGRESSION"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"
    REFUSED = "REFUSED"
    SKIPPED = "SKIPPED"


class Role(StrEnum):
    BASELINE = "baseline"
    CANDIDATE = "candidate"


class Severity(StrEnum):
    BLOCKING = "blocking"
    ADVISORY = "advisory"


class Scope(StrEnum):
    """`benchmark`: what the full run over all N items would say.  `population`: tasks like these."""

    BENCHMARK = "benchmark"
    POPULATION = "population"


class BoundKind(StrEnum):
    MAX_INCREASE = "max_increase"
    MAX_DROP = "max_drop"
    MIN_RETAINED = "min_retained"
    MIN_SPEEDUP = "min_speedup"
    MAX = "max"
    MIN = "min"


class Estimand(StrEnum):
    """What is estimated from a metric's observations; it selects the estimators that apply."""

    ITEM_MEAN = "item_mean"  # mean over items of a value in [0, 1], paired by item
    PERPLEXITY = "perplexity"  # exp of the token-weighted mean NLL, paired by document
    TOKEN_MEAN = "token_mean"  # token-weighted mean of a candidate-only quantity (KL, agreement)
    MEAN_RATIO = "mean_ratio"  # candidate mean over baseline mean of a positive quantity
    CORPUS = "corpus"  # a corpus-level score with its delete-group values (macro-F1, BLEU)
    TIMING = "timing"  # positive durations or rates in interleaved blocks
    QUANTILE = "quantile"  # a percentile of single times, pooled over the blocks of a run
    SCALAR = "scalar"  # one number that is (nearly) deterministic: bytes, seconds to load
    DESCRIPTION = "description"  # recorded beside what is judged, and never judged itself


class Direction(StrEnum):
    HIGHER_IS_BETTER = "higher_is_better"
    LOWER_IS_BETTER = "lower_is_better"
