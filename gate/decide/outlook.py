"""What one rule can see before anything is run: how many items, the smallest harm, the odds of a good candidate.

Pure: no I/O, no model, no data.  Judges no checkpoint; a number that is not known stays None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gate.decide import power
from gate.policy import Corpus, sample_size
from gate.records import BoundKind, Estimand, Rule
from gate.stats.document_ratio import ENOUGH_UNITS, MIN_UNITS
from gate.stats.quantiles import small_sample, z
from gate.task_catalog import CORPORA

FLIP_RATES = {"choice": 0.06, "generate": 0.10}
"""Share of items on which a usual 4-bit candidate changes right to wrong or back, where nothing was measured yet."""
ASSUMED_BASELINE = 0.6
"""Share of items the baseline gets right, where nothing was measured yet: turns `min_retained` into points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """Numbers are None where they are unknown or make no sense for the rule.

    Attributes:
        unit: what is counted: `items`, `documents`, `timing blocks` or `runs`.
        available: how many there are; `n`: how many the policy uses.
        smallest: smallest harm told from none at 80 % power, as a rate (drop, share of the baseline, increase).
        odds: probability that a candidate as good as the baseline passes.
        needed: how many it takes for that at 80 % power.
        spread: timing: largest sd between block pairs (log scale) with which the rule is decidable.
        says: what the rule can see, in one sentence.
        problem: why it can never pass, or None.
    """

    unit: str
    available: int | None
    n: int | None
    says: str
    flip_rate: float | None = None
    smallest: float | None = None
    odds: float | None = None
    needed: int | None = None
    spread: float | None = None
    warnings: tuple[str, ...] = ()
    problem: str | None = None


def over_items(
    rule: Rule,
    *,
    task_kind: str,
    available: int | None,
    sample: int | str | None,
    estimand: Estimand,
    confidence: float,
) -> Outlook:
    """Benchmarks and domain sets.  `task_kind` is a key of `FLIP_RATES`."""
    n = None if available is None else sample_size(sample, available)

    def plain(says: str) -> Outlook:
        return Outlook(unit="items", available=available, n=n, says=says)

    if n == 0:
        problem = f"found a sample of 0 of {available} items, expected at least 1"
        return Outlook(unit="items", available=available, n=n, says="", problem=problem)
    if rule.by is not None:
        return plain(f"A guard rail over each {rule.by}: with fewer items than the whole it sees large drops only.")
    if estimand is not Estimand.ITEM_MEAN:
        return plain("Judged on the answers as a whole: what it can see is known after the run.")
    if rule.bound.kind in (BoundKind.MAX_DROP, BoundKind.MIN_RETAINED):
        return _paired(rule, FLIP_RATES[task_kind], available, n, confidence)
    if rule.bound.kind in (BoundKind.MAX, BoundKind.MIN) and 0 <= rule.bound.value <= 1:
        return _absolute(rule, available, n, confidence)
    return plain("Compares the candidate's own value: what it can see is known after the run.")


def _paired(rule: Rule, flip_rate: float, available: int | None, n: int | None, confidence: float) -> Outlook:
    drop_rule = rule.bound.kind is BoundKind.MAX_DROP
    baseline = 1.0 if drop_rule else ASSUMED_BASELINE
    allowed = rule.bound.value if drop_rule else (1 - rule.bound.value) * baseline
    needed = power.items_needed(drop=allowed, flip_rate=flip_rate, confidence=confidence) if allowed > 0 else None
    if n is None:
        says = f"Items not counted yet; it takes about {needed:,}." if needed else "Items not counted yet."
        return Outlook(unit="items", available=available, n=n, says=says, needed=needed)
    points = power.smallest_drop(n=n, flip_rate=flip_rate, confidence=confidence)
    level = small_sample(confidence, n)
    odds = power.lossless_pass(n=n, flip_rate=flip_rate, drop=allowed, confidence=level)
    problem = _unreachable(rule, n, confidence)
    warnings: tuple[str, ...] = ()
    if problem is None and points > allowed:
        if drop_rule:
            looser = f"a bound of at least {math.ceil(points * 100)}pp"
        else:
            looser = f"a bound of at most {math.floor((1 - points / baseline) * 100)}%"
        more = f"more items of the same kind (about {needed:,})"
        if available is not None and needed is not None and n < available:
            more = f"a larger sample ({needed:,} items are needed, {available:,} are there)"
        warnings = (
            f"{rule.source} ({n:,} items): at {flip_rate:.0%} flips the smallest drop it can rule out is "
            f"{_points(points)}; with {_written(rule)} a lossless candidate would pass only {_odds(odds)}. "
            f"Choose {looser}, or {more}.",
        )
    return Outlook(
        unit="items",
        available=available,
        n=n,
        flip_rate=flip_rate,
        smallest=points / baseline,
        odds=odds,
        needed=needed,
        says=f"Sees a drop of {_points(points)} or more; a lossless candidate passes {_odds(odds)}.",
        warnings=warnings,
        problem=problem,
    )


def _unreachable(rule: Rule, n: int, confidence: float) -> str | None:
    """Why even a candidate that changes no answer could not pass, or None."""
    reach = power.reach(n=n, level=small_sample(confidence, n))
    drop_rule = rule.bound.kind is BoundKind.MAX_DROP
    # for a share retained, the best case: a baseline that gets everything right
    allowed = rule.bound.value if drop_rule else 1 - rule.bound.value
    if reach <= allowed:
        return None
    fewest = power.items_to_pass(drop=allowed, confidence=confidence)
    advice = f"use at least {fewest:,} items" if fewest else "no number of items is enough"
    tightest = f"max_drop: {_points(reach)}" if drop_rule else f"min_retained: {1 - reach:.1%}"
    return (
        f"{_written(rule)} cannot pass with {n:,} items: even with not one answer changed, a drop of "
        f"{_points(reach)} cannot be ruled out; {advice}, or a looser bound ({tightest} is the tightest)"
    )


def _absolute(rule: Rule, available: int | None, n: int | None, confidence: float) -> Outlook:
    """An absolute rate by Wilson's interval: the score that passes, and whether even a perfect one would."""
    limit, at_least = rule.bound.value, rule.bound.kind is BoundKind.MIN
    room = 1 - limit if at_least else limit  # what a perfect score leaves: its interval must fit in there
    needed = power.items_within(room=room, level=confidence)
    problem, says = None, "Items not counted yet."
    if needed is None:
        problem = f"{_written(rule)}: no number of items proves it, expected a bound above 0 and below 1"
    elif n is not None:
        margin = z(confidence) * math.sqrt(limit * (1 - limit) / n)
        low, high = max(limit - margin, 0.0), min(limit + margin, 1.0)
        says = f"Passes up to a measured {low:.1%}, fails above {high:.1%}."
        if at_least:
            says = f"Passes from a measured {high:.1%} on, fails below {low:.1%}."
        if power.reach(n=n, level=confidence) > room:
            perfect = "even if every item is right" if at_least else "even if it never happens"
            problem = f"{_written(rule)} cannot pass with {n:,} items, {perfect}: use at least {needed:,} items"
    return Outlook(unit="items", available=available, n=n, says=says, needed=needed, problem=problem)


def over_documents(rule: Rule, corpus: Corpus, counted: int | None, confidence: float) -> Outlook:
    """Perplexity and divergence over the documents of a corpus; `counted` is None for data not there yet."""
    documents, per_document = CORPORA.get(corpus.name, (None, None)) if corpus.path is None else (None, None)
    available = documents if counted is None else counted
    if available is None:
        says = f"Documents not counted yet: {ENOUGH_UNITS} are enough, below {MIN_UNITS} nothing is decided."
        return Outlook(unit="documents", available=None, n=None, says=says)
    n = available if corpus.documents is None else min(corpus.documents, available)
    if corpus.cluster == "block":
        says = f"Judged over blocks of {corpus.block_tokens:,} tokens."
        return Outlook(unit="documents", available=available, n=n, says=says)
    if n < MIN_UNITS:
        problem = f"found {n} documents in {corpus.name}, expected at least {MIN_UNITS}: use a longer corpus"
        return Outlook(unit="documents", available=available, n=n, says="", problem=problem)
    few = f"{corpus.name} has {n} documents: intervals are wide below {ENOUGH_UNITS}."
    warnings: tuple[str, ...] = (few,) if n < ENOUGH_UNITS else ()
    tokens = min(n * per_document if per_document else math.inf, corpus.max_tokens or math.inf)
    if rule.bound.kind is not BoundKind.MAX_INCREASE or math.isinf(tokens):
        return Outlook(
            unit="documents", available=available, n=n, says=f"Judged over {n:,} documents.", warnings=warnings
        )
    smallest = power.smallest_increase(documents=n, tokens=tokens, confidence=confidence)
    error = power.perplexity_error_nats(documents=n, tokens=tokens)
    odds = power.normal_cdf(math.log1p(rule.bound.value) / error - power.student(confidence, n - 1))
    over = f"{tokens:,.0f} tokens of {n:,} documents"
    if smallest > rule.bound.value:
        warnings += (
            f"{corpus.name}: {over} cannot rule out less than {smallest:.1%}; with {_written(rule)} a lossless "
            f"candidate would pass only {_odds(odds)}. Raise max_tokens or documents, or loosen the bound.",
        )
    return Outlook(
        unit="documents",
        available=available,
        n=n,
        smallest=smallest,
        odds=odds,
        says=f"Sees an increase of {smallest:.1%} or more over {over}; a lossless candidate passes {_odds(odds)}.",
        warnings=warnings,
    )


def over_blocks(rule: Rule, *, estimand: Estimand, blocks: int, confidence: float) -> Outlook:
    """Timing in interleaved pairs of blocks; memory, size and load time are single numbers."""
    if estimand is not Estimand.TIMING:
        return Outlook(unit="runs", available=None, n=1, says="Measured once and compared as it is.")
    says, spread = f"{blocks} pairs of timing blocks, baseline and candidate in turn.", None
    ratios = {BoundKind.MIN_RETAINED: rule.bound.value, BoundKind.MAX_INCREASE: 1 + rule.bound.value}
    ratio = ratios.get(rule.bound.kind, 1.0)
    if ratio not in (0.0, 1.0):
        spread = power.largest_timing_spread(ratio=ratio, blocks=blocks, confidence=confidence)
        says = f"Decidable while {blocks} pairs of timing blocks differ by no more than {spread:.1%} (sd)."
    return Outlook(unit="timing blocks", available=None, n=blocks, says=says, spread=spread)


def _written(rule: Rule) -> str:
    return f"{rule.bound.kind}: {rule.bound.text}"


def _points(share: float) -> str:
    return f"{share * 100:.1f} pp"


def _odds(probability: float) -> str:
    if probability > 0.995:
        return "more than 99% of the time"
    return "less than 1% of the time" if probability < 0.005 else f"{probability:.0%} of the time"
