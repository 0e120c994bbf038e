"""What a rule on item scores can see before anything is run: benchmarks and the team's own test set.

Pure: no I/O, no model, no data.  Judges no checkpoint.  Mirrors the judge: in benchmark scope the verdict is that of
the full run over the sampled items, compared as integers; in population scope that of an interval for tasks like these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from gate.decide import last_look, power
from gate.decide.outlook import Expected, Outlook, chance_of, points, written
from gate.decide.stoppable import FLIP_RATES, WORTH_LOOKING_EARLY
from gate.order import BLOCK_ITEMS
from gate.records import BoundKind, Rule, Scope, Severity
from gate.stats.quantiles import small_sample, z

ASSUMED_BASELINE = 0.6
"""Share of items the baseline gets right, where nothing was measured yet: turns `min_retained` into points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """The items of one source, as far as they are known.

    Attributes:
        writes: the model writes its answer (epochs can help); else it compares continuations.
        available: how many there are; `n`: the size of the sample; None where they have not been counted.
        grouped: they come in subjects or languages, so that population scope needs all of them.
        flip_rate: share of answers that change, measured or assumed; `floor`: of the baseline against itself, measured.
        chance: share of items that guessing gets right.
    """

    writes: bool
    available: int | None
    n: int | None
    grouped: bool
    flip_rate: float
    floor: float | None
    chance: float | None


def over_items(rule: Rule, items: Items, *, item_mean: bool, confidence: float, n_blocking: int) -> Outlook:
    """Benchmarks and domain sets.

    Args:
        item_mean: the metric is a mean over items; others are judged on the answers as a whole.
        n_blocking: blocking rules of the policy, which share the error of a REGRESSION.
    """

    def plain(says: str) -> Outlook:
        return Outlook(unit="items", available=items.available, n=items.n, says=says)

    if items.n == 0:
        return replace(plain(""), problem=f"found a sample of 0 of {items.available} items, expected at least 1")
    if rule.by is not None:
        return plain(f"A guard rail over each {rule.by}: with fewer items than the whole it sees large drops only.")
    if not item_mean:
        return plain("Judged on the answers as a whole: what it can see is known after the run.")
    if rule.bound.kind in (BoundKind.MAX_DROP, BoundKind.MIN_RETAINED):
        return _paired(rule, items, confidence, n_blocking)
    if rule.bound.kind in (BoundKind.MAX, BoundKind.MIN) and 0 <= rule.bound.value <= 1:
        judged = _in_benchmark if rule.scope is Scope.BENCHMARK else _absolute
        return judged(rule, items, confidence)
    return plain("Compares the candidate's own value: what it can see is known after the run.")


def scores_to_see(rule: Rule, chance: float) -> float | None:
    """Share of items that the baseline must get right for a candidate that only guesses to break the bound."""
    if rule.by is not None:
        return None
    if rule.bound.kind is BoundKind.MAX_DROP:
        return chance + rule.bound.value
    if rule.bound.kind is BoundKind.MIN_RETAINED and rule.bound.value > 0:
        return chance / rule.bound.value
    return None


def _paired(rule: Rule, items: Items, confidence: float, n_blocking: int) -> Outlook:
    drop_rule, in_benchmark = rule.bound.kind is BoundKind.MAX_DROP, rule.scope is Scope.BENCHMARK
    baseline = 1.0 if drop_rule else ASSUMED_BASELINE
    allowed = float(_room(rule)) * baseline
    n, flips = items.n, items.flip_rate
    if allowed <= 0:
        problem = _finer(rule, items) if in_benchmark else f"{written(rule)}: no number of items proves it"
        return Outlook(unit="items", available=items.available, n=n, says="", problem=problem)
    if in_benchmark:
        needed = power.items_to_keep(drop=allowed, flip_rate=flips)
    else:
        needed = power.items_needed(drop=allowed, flip_rate=flips, confidence=confidence)
    if n is None:
        says = f"Items not counted yet: from {needed:,} on a lossless candidate passes in at least 80% of cases."
        return Outlook(unit="items", available=items.available, n=n, says=says, needed=needed)
    early = in_benchmark or _stops_early(items, n, allowed, confidence)
    cap = _cap(rule, n) if early else None
    end = cap or n
    if in_benchmark:
        room = _room(rule) * round(baseline * n)
        full_run = power.full_run_pass(n=n, flip_rate=flips, allowed=math.floor(room)) if room >= 1 else 0.0
        odds = full_run if cap is None else min(full_run, _odds_at_cap(cap, n, flips, room, confidence))
        problem = _finer(rule, items) or _hidden(rule, items, confidence)
    else:
        level = _half(confidence) if early else confidence
        odds = power.lossless_pass(n=end, flip_rate=flips, drop=allowed, confidence=small_sample(level, end))
        problem = _unreachable(rule, end, level, capped=cap is not None)
    found = Outlook(
        unit="items",
        available=items.available,
        n=n,
        expected=_expected(
            rule, items, end, allowed, confidence if in_benchmark and cap is None else _half(confidence), n_blocking
        )
        if early
        else Expected(lossless=n, half=n, twice=n),
        flip_rate=flips,
        smallest=power.smallest_drop(n=n if in_benchmark else end, flip_rate=flips, confidence=confidence),
        odds=odds,
        needed=needed,
        says=_said_of(cap),
        problem=problem or _inside_floor(rule, items, n, confidence),
        cap=cap,
    )
    if found.problem is not None:
        return found
    if in_benchmark:
        weak = tuple(_weak(rule, items, replace(found, odds=full_run), n, allowed))
    else:
        weak = () if cap else tuple(_weak(rule, items, found, n, allowed))
    return replace(found, warnings=(*weak, *_weak_at_cap(rule, found), *_near_chance(rule, items)))


def _odds_at_cap(cap: int, n: int, flip_rate: float, room: Fraction, confidence: float) -> float:
    alpha = 1 - _half(confidence)
    return last_look.lossless_pass(n=cap, population=n, flip_rate=flip_rate, room=room, alpha=alpha)


def _cap(rule: Rule, n: int) -> int | None:
    """Items after which the last look is taken, where that is before the last item."""
    return rule.max_items if rule.max_items is not None and rule.max_items < n else None


def _said_of(cap: int | None) -> str:
    if cap is None:
        return ""
    return (
        f"What is not settled by {cap:,} items (max_items) gets a last look there, for which half of the error is kept."
    )


def _hidden(rule: Rule, items: Items, confidence: float) -> str | None:
    """Why a benchmark cannot be passed at `max_items`, since the items not asked could hide too many losses, or None.

    For a share retained, and an absolute rate, the best case: a baseline that gets everything right.
    """
    n = items.n
    cap = None if n is None else _cap(rule, n)
    if n is None or cap is None:
        return None
    room, alpha = _room(rule) * n, 1 - _half(confidence)
    if last_look.can_pass(n=cap, population=n, room=room, alpha=alpha):
        return None
    fewest = last_look.fewest_items(population=n, room=room, alpha=alpha)
    return (
        f"{written(rule)} cannot pass with max_items: {cap} of {n:,} items: even with not one answer changed among "
        f"them, the others could hide {math.floor(room) + 1:,} lost ones; use max_items: {fewest} or more, leave it "
        "out, or loosen the bound"
    )


def _weak_at_cap(rule: Rule, found: Outlook) -> Iterator[str]:
    """Said where a lossless candidate would too often end inconclusive at `max_items`."""
    odds, flips = found.odds or 0.0, found.flip_rate or 0.0
    if found.cap is None or odds >= power.POWER:
        return
    yield (
        f"{rule.source}: with max_items: {found.cap} of {found.n:,} items a lossless candidate passes {written(rule)} "
        f"by the last look in {chance_of(odds)} of cases only (at {flips:.0%} flips), and is inconclusive else. Raise "
        "max_items, or leave it out."
    )


def _room(rule: Rule) -> Fraction:
    """What the bound leaves, exactly: of all items, or for `min_retained` of those the baseline got right."""
    value = Fraction(rule.bound.value).limit_denominator(10**8)
    return 1 - value if rule.bound.kind in (BoundKind.MIN_RETAINED, BoundKind.MIN) else value


def _half(confidence: float) -> float:
    """Population scope that may stop early keeps the other half of α for the fixed-n test at all items."""
    return 1 - (1 - confidence) / 2


def _stops_early(items: Items, n: int, allowed: float, confidence: float) -> bool:
    """In population scope, as the judge has it: items that are not grouped, and a bound that n would resolve."""
    if items.grouped:
        return False
    flips, level = FLIP_RATES["generate" if items.writes else "choice"], small_sample(_half(confidence), n)
    return power.lossless_pass(n=n, flip_rate=flips, drop=allowed, confidence=level) >= WORTH_LOOKING_EARLY


def _expected(rule: Rule, items: Items, most: int, allowed: float, confidence: float, n_blocking: int) -> Expected:
    """In whole blocks, `most` at most.  A REGRESSION of a blocking rule is proven at α over the number of these."""
    there = float(items.n or most) if rule.scope is Scope.BENCHMARK else math.inf
    alpha = 1 - confidence
    fail_alpha = alpha / (n_blocking if rule.severity is Severity.BLOCKING else 1)

    def at(multiple: float, level: float) -> int:
        count = power.expected_items(
            n=there, flip_rate=items.flip_rate, drop_rate=multiple * allowed, bound=allowed, alpha=level
        )
        return min(most, math.ceil(count / BLOCK_ITEMS) * BLOCK_ITEMS)

    return Expected(lossless=at(0, alpha), half=at(0.5, alpha), twice=at(2, fail_alpha))


def _weak(rule: Rule, items: Items, found: Outlook, n: int, allowed: float) -> Iterator[str]:
    """Said where a lossless candidate would be held up too often."""
    smallest, odds, flips = found.smallest or 0.0, found.odds or 0.0, items.flip_rate
    drop_rule = rule.bound.kind is BoundKind.MAX_DROP
    if rule.scope is Scope.BENCHMARK:
        if odds >= power.POWER:
            return
        looser = _looser(rule, n, flips)
        start = (
            f"{rule.source} ({n:,} items): at {flips:.0%} flips the full run itself puts a lossless candidate beyond "
            f"{written(rule)} in {chance_of(1 - odds)} of cases, by luck. Choose"
        )
        if odds == 0.0:
            start = (
                f"{rule.source} ({n:,} items): a baseline that gets {ASSUMED_BASELINE:.0%} right leaves no room for a "
                f"single item under {written(rule)}, which would then never be passed. Choose"
            )
        choices = [looser] if looser else []
    else:
        if smallest <= allowed:
            return
        start = (
            f"{rule.source} ({n:,} items): at {flips:.0%} flips the smallest drop it can rule out is "
            f"{points(smallest)}; with {rule.bound.text} {_kind(rule)}a lossless candidate would pass only "
            f"{chance_of(odds)} of the time in population scope. Choose"
        )
        choices = ["scope: benchmark"]
        if drop_rule:
            choices.append(f"a bound of at least {math.ceil(smallest * 100)}pp")
        elif smallest < ASSUMED_BASELINE:
            choices.append(f"a bound of at most {math.floor((1 - smallest / ASSUMED_BASELINE) * 100)}%")
    needed = found.needed or 0
    if items.available is not None and n < items.available >= needed:
        choices.append(f"a larger sample ({needed:,} items are needed, {items.available:,} are there)")
    else:
        choices.append(f"more items of the same kind (about {needed:,})")
    if items.writes and rule.scope is Scope.POPULATION:
        choices.append("k epochs (several sampled answers to each item)")
    yield f"{start} {', '.join(choices[:-1])}{', or ' if choices[:-1] else ''}{choices[-1]}."


def _kind(rule: Rule) -> str:
    return "" if rule.bound.kind is BoundKind.MAX_DROP else "retained "


def _looser(rule: Rule, n: int, flip_rate: float) -> str | None:
    """The tightest bound in whole points (percent) that 80 % of lossless candidates keep over the full run."""
    drop_rule = rule.bound.kind is BoundKind.MAX_DROP
    right = n if drop_rule else round(ASSUMED_BASELINE * n)
    for percent in range(1, 100):
        if power.full_run_pass(n=n, flip_rate=flip_rate, allowed=percent * right // 100) >= power.POWER:
            return f"a bound of at least {percent}pp" if drop_rule else f"a bound of at most {100 - percent}%"
    return None


def _near_chance(rule: Rule, items: Items) -> Iterator[str]:
    above = None if items.chance is None else scores_to_see(rule, items.chance)
    if above is not None and above >= ASSUMED_BASELINE:
        yield (
            f"{rule.source}: guessing gets {items.chance:.0%} right, so with {written(rule)} a baseline that gets "
            f"{above:.1%} or less can never show a regression. Tighten the bound."
        )


def _inside_floor(rule: Rule, items: Items, n: int, confidence: float) -> str | None:
    """Why a bound cannot be told from the baseline's own noise, or None; a perfect baseline for `min_retained`."""
    if items.floor is None:
        return None
    floor, room = power.smallest_drop(n=n, flip_rate=items.floor, confidence=confidence), float(_room(rule))
    if floor <= room:
        return None
    needed = power.items_needed(drop=room, flip_rate=items.floor, confidence=confidence)
    return (
        f"{written(rule)} lies inside the noise floor of {rule.source}: against itself the baseline changed "
        f"{items.floor:.1%} of its answers (gate calibrate), so {n:,} items cannot tell a drop below {points(floor)} "
        f"from noise; expected a bound above that, or about {needed:,} items"
    )


def _finer(rule: Rule, items: Items) -> str | None:
    """Why a bound of benchmark scope leaves no room for one item, or None.

    For `min_retained` with a baseline that gets every item right: with any other there is less room.
    """
    room, n = _room(rule), items.n
    if room <= 0:
        return f"{written(rule)} leaves no room for a single item and can never pass: loosen the bound"
    if n is None or room * n >= 1:
        return None
    return (
        f"{written(rule)} is finer than one item of {n:,} ({points(1 / n)}), and such a bound is never passed: use at "
        f"least {math.ceil(1 / room):,} items, or a looser bound"
    )


def _unreachable(rule: Rule, n: int, confidence: float, *, capped: bool) -> str | None:
    """Why in population scope even a candidate that changes no answer could not pass, or None.

    `capped`: the n items are those up to `max_items`.
    """
    reach = power.reach(n=n, level=small_sample(confidence, n))
    drop_rule = rule.bound.kind is BoundKind.MAX_DROP
    # for a share retained, the best case: a baseline that gets everything right
    allowed = float(_room(rule))
    if reach <= allowed:
        return None
    fewest = power.items_to_pass(drop=allowed, confidence=confidence)
    given = f"max_items: {n}" if capped else f"{n:,} items"
    more = f"max_items: {fewest} or more" if capped else f"at least {fewest or 0:,} items"
    advice = f"use {more}" if fewest else "no number of items is enough"
    tightest = f"max_drop: {points(reach)}" if drop_rule else f"min_retained: {1 - reach:.1%}"
    return (
        f"{written(rule)} cannot pass with {given} in population scope: even with not one answer changed, a drop "
        f"of {points(reach)} cannot be ruled out; {advice}, scope: benchmark, or a looser bound ({tightest} is the "
        "tightest)"
    )


def _in_benchmark(rule: Rule, items: Items, confidence: float) -> Outlook:
    """An absolute rate over the sample: a count of items."""
    says, problem, cap = "Items not counted yet.", _finer(rule, items) or _hidden(rule, items, confidence), None
    if items.n is not None:
        cap = _cap(rule, items.n)
        allowed = math.floor(_room(rule) * items.n)
        says = f"Passes with at most {allowed:,} of {items.n:,}, over all of them."
        if rule.bound.kind is BoundKind.MIN:
            says = f"Passes with at least {items.n - allowed:,} of {items.n:,}, over all of them."
        says = f"{says} {_said_of(cap)}".rstrip()
    return Outlook(unit="items", available=items.available, n=items.n, says=says, problem=problem, cap=cap)


def _absolute(rule: Rule, items: Items, confidence: float) -> Outlook:
    """An absolute rate by Wilson's interval: the score that passes, and whether even a perfect one would."""
    limit, at_least, n = rule.bound.value, rule.bound.kind is BoundKind.MIN, items.n
    room = float(_room(rule))  # what a perfect score leaves: its interval must fit in there
    needed = power.items_within(room=room, level=confidence)
    problem, says = None, "Items not counted yet."
    if needed is None:
        problem = f"{written(rule)}: no number of items proves it, expected a bound above 0 and below 1"
    elif n is not None:
        margin = z(confidence) * math.sqrt(limit * (1 - limit) / n)
        low, high = max(limit - margin, 0.0), min(limit + margin, 1.0)
        says = f"Passes up to a measured {low:.1%}, fails above {high:.1%}."
        if at_least:
            says = f"Passes from a measured {high:.1%} on, fails below {low:.1%}."
        if power.reach(n=n, level=confidence) > room:
            perfect = "even if every item is right" if at_least else "even if it never happens"
            problem = (
                f"{written(rule)} cannot pass with {n:,} items in population scope, {perfect}: use at least "
                f"{needed:,} items, or scope: benchmark"
            )
    return Outlook(unit="items", available=items.available, n=n, says=says, needed=needed, problem=problem)
