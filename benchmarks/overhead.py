"""What deciding costs by itself, on this machine: seconds for one judgement, and memory that does not grow with items.

    python benchmarks/overhead.py [--items 14042] [--long 1000000]

No model runs; the values are drawn from a seed.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from time import perf_counter

import numpy as np

from gate.decide.judge import judge
from gate.decide.source import Tracker
from gate.decide.terms import Terms, gate_wide
from gate.metrics import DOMAIN
from gate.order import place
from gate.records import (
    Bound,
    BoundKind,
    MaxLost,
    Measurement,
    Observation,
    Role,
    Rule,
    Scope,
    Severity,
)
from gate.stats import betting

SEED = "overhead"
METRIC = DOMAIN["accuracy"]
BOUNDS = {
    "max_drop 3pp": Bound(kind=BoundKind.MAX_DROP, value=0.03, text="3pp"),
    "min_retained 97%": Bound(kind=BoundKind.MIN_RETAINED, value=0.97, text="97%"),
    "min 0.6": Bound(kind=BoundKind.MIN, value=0.6, text="0.6"),
}
DROPS = {"lossless": 0.0, "at the bound": 0.03, "10 pp down": 0.1}
CHUNK = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=14042, help="paired items of one judgement")
    parser.add_argument("--long", type=int, default=1_000_000, help="items of the wealth alone")
    chosen = parser.parse_args()
    judged(chosen.items)
    followed(chosen.items)
    long(chosen.long)


def judged(n: int) -> None:
    """One line per rule, scope and candidate: pairing, order, wealth, confidence sequence and sentence."""
    print(f"| judging {n:,} paired items | seconds | evidence | status |\n|---|---|---|---|")
    for name, drop in DROPS.items():
        pair = measurements(n, drop)
        for text, bound in BOUNDS.items():
            for scope in Scope:
                of = rule(bound, scope)
                judge(of, *pair, gate_wide(0.95, 1, SEED))  # imports
                begun = perf_counter()
                found = judge(of, *pair, gate_wide(0.95, 1, SEED))
                seconds = perf_counter() - begun
                print(f"| {text}, {scope}, {name} | {seconds:.3f} | {found.counts['n']:,.0f} | {found.status} |")


def followed(n: int) -> None:
    """All blocks of a source, as the scheduler sees them, for a candidate at the bound."""
    baseline, candidate = measurements(n, 0.03)
    observations = sorted(candidate.observations, key=lambda o: place(SEED, o.item_id))
    terms: Terms = gate_wide(0.95, 1, SEED)
    begun = perf_counter()
    tracker = Tracker([rule(bound, Scope.BENCHMARK) for bound in BOUNDS.values()], baseline, terms)
    blocks = 0
    for at in range(0, n, CHUNK):
        some = tuple(observations[at : at + CHUNK])
        tracker.feed(replace(candidate, observations=some, n_reached=len(some)))
        blocks += 1
        if tracker.settled:
            break
    seconds = perf_counter() - begun
    print(
        f"\nFollowing {len(BOUNDS)} rules over {blocks} blocks: {seconds:.3f} s, {1000 * seconds / blocks:.2f} ms each"
    )


def long(n: int) -> None:
    """The wealth of n items, drawn and forgotten chunk by chunk."""
    rng = np.random.default_rng(1)
    test = betting.drop(scope=Scope.BENCHMARK, n=n, bound=Fraction(3, 100), integral=True)
    wealth = betting.start()
    before, begun = peak_mib(), perf_counter()
    for at in range(0, n, 4096):
        size = min(4096, n - at)
        wealth = betting.advance(wealth, test, rng.choice([-1.0, 0.0, 1.0], size=size, p=[0.045, 0.94, 0.015]))
    seconds = perf_counter() - begun
    print(f"\nWealth of {wealth.t:,} items: {seconds:.2f} s, peak memory +{peak_mib() - before:.0f} MiB")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measurements(n: int, drop: float) -> tuple[Measurement, Measurement]:
    rng = np.random.default_rng(n)
    right = rng.random(n) < 0.7
    flips = rng.random(n) < 0.06
    candidate = (right ^ flips) & ~(right & (rng.random(n) < drop / 0.7))
    rebalance = (right & flips) & (rng.random(n) < 4 / 7)  # as many gained as lost
    candidate |= rebalance
    return measurement(Role.BASELINE, right.tolist()), measurement(Role.CANDIDATE, candidate.tolist())


def measurement(role: Role, values: Sequence[bool]) -> Measurement:
    n = len(values)
    return Measurement(
        stage="task",
        source="task",
        role=role,
        settings_digest="0" * 64,
        n_expected=n,
        n_available=n,
        n_reached=n,
        planned_tokens=n,
        chance=None,
        metrics=(METRIC,),
        observations=tuple(
            Observation(
                metric=METRIC.observed, item_id=f"task/{i:06d}/p", value=float(v), weight=1.0, cluster=None, group=None
            )
            for i, v in enumerate(values)
        ),
        failures=(),
        answers=(),
        seconds=0.0,
        notes=(),
    )


def rule(bound: Bound, scope: Scope) -> Rule:
    return Rule(
        id=f"task.{bound.kind}",
        stage="task",
        source="task",
        metric=METRIC.name,
        bound=bound,
        by=None,
        batch=None,
        severity=Severity.BLOCKING,
        scope=scope,
        max_items=None,
        max_lost=MaxLost(count=0, share=None),
        line=None,
    )


if __name__ == "__main__":
    main()
