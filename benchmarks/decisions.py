"""Simulated error rates and costs of the sequential rule, beside other rules, as markdown tables.

    python benchmarks/decisions.py [--runs 2000] [--seed 1]
        [--part items|blocks|errors|speed|rules|coverage|together|prediction]

It draws everything from the seed and measures nothing on this machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from benchmarks.foresight import Foresight, latent
from benchmarks.rules import RULES
from benchmarks.simulate import (
    ALPHA,
    MARGIN,
    World,
    at_most_drop,
    covers,
    decided,
    fails_first,
    rate,
    repeat,
    with_drop,
    world,
)
from gate.order import BLOCK_ITEMS
from gate.stats.control_variate import adjusted

LARGEST_TOGETHER = 0.065
"""Check A17 of docs/statistics.md."""

Part = Callable[[int, np.random.Generator], Iterator[str]]

CANDIDATES = {  # heading → (drop in pp, share of flips)
    "lossless, flips 4 %": (0, 0.04),
    "6 %": (0, 0.06),
    "10 %": (0, 0.10),
    "drop 1 pp (6 %)": (1, 0.06),
    "2 pp (6 %)": (2, 0.06),
    "5 pp (7 %)": (5, 0.07),
    "10 pp (14 %)": (10, 0.14),
}
TARGETS = {  # N → mean items, looking after every one; statistics.md §2
    164: (120, 128, 137, 147, 159, 134, 81),
    500: (217, 243, 287, 313, 409, 319, 142),
    1319: (314, 385, 481, 575, 932, 542, 188),
    2800: (359, 441, 611, 757, 1471, 757, 209),
    14042: (416, 539, 807, 1055, 3060, 1041, 232),
}
BLOCKS = {1: 441, 8: 444, 32: 456, 64: 473, 128: 503, 280: 577}


def items(runs: int, rng: np.random.Generator) -> Iterator[str]:
    yield f"### Mean items until the decision (benchmark scope, at most 3 pp, α {ALPHA} a side)\n"
    yield "Looking after every item / after blocks of 32; in brackets the target for every item and the ratio to it.\n"
    yield _row("N", *CANDIDATES)
    yield _rule(1 + len(CANDIDATES))
    worst = 0.0
    for n, targets in TARGETS.items():
        cells = []
        for (drop_pp, flips), target in zip(CANDIDATES.values(), targets, strict=True):
            simulated = with_drop(n=n, drop_pp=drop_pp, flips=flips)
            found = repeat(at_most_drop(n), simulated.differences, runs=runs, rng=rng)
            mean = found.items.mean()
            worst = max(worst, mean / target)
            cells.append(f"{mean:.0f} / {found.in_blocks(32).mean():.0f} ({target}, {mean / target:.2f})")
        yield _row(n, *cells)
    yield f"\nLargest ratio to a target: {worst:.2f}.\n"


def blocks(runs: int, rng: np.random.Generator) -> Iterator[str]:
    n = 2800
    yield f"### Mean items by how often one looks (N = {n}, lossless, flips 6 %)\n"
    found = repeat(at_most_drop(n), with_drop(n=n, drop_pp=0, flips=0.06).differences, runs=runs, rng=rng)
    yield _row("items in a block", *BLOCKS)
    yield _rule(1 + len(BLOCKS))
    yield _row("mean items", *(f"{found.in_blocks(block).mean():.0f}" for block in BLOCKS))
    yield _row("target", *BLOCKS.values())
    yield ""


def errors(runs: int, rng: np.random.Generator) -> Iterator[str]:
    limit = ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / runs)
    yield "### Wrong verdicts in the worst case\n"
    yield f"False PASS one item beyond 3 pp / false FAIL exactly at 3 pp; at most {limit:.4f} at {runs} runs.\n"
    flips = (0.035, 0.06, 0.10)
    yield _row("N", *(f"flips {100 * share:g} %" for share in flips))
    yield _rule(1 + len(flips))
    worst = 0.0
    for n in (164, 500, 1319, 2800):
        test, cells = at_most_drop(n), []
        for share in flips:
            smallest = int(test.fail_total)
            beyond = repeat(test, world(n=n, total=smallest - 1, flips=share).differences, runs=runs, rng=rng)
            within = repeat(test, world(n=n, total=smallest, flips=share).differences, runs=runs, rng=rng)
            rates = rate(beyond.passed), rate(~within.passed)
            worst = max(worst, *rates)
            cells.append(f"{rates[0]:.4f} / {rates[1]:.4f}")
        yield _row(n, *cells)
    yield f"\nLargest: {worst:.4f}.\n"


def speed(runs: int, rng: np.random.Generator) -> Iterator[str]:
    yield "### Clear cases: mean items, and how often the verdict is that of the full run\n"
    yield _row(
        "N", "lossless, flips 6 %: items (at most)", "same verdict", "drop 10 pp, flips 14 %: items", "same verdict"
    )
    yield _rule(5)
    for n, most in ((1319, 420), (2800, 490), (14042, 600)):
        green = repeat(at_most_drop(n), with_drop(n=n, drop_pp=0, flips=0.06).differences, runs=runs, rng=rng)
        red = repeat(at_most_drop(n), with_drop(n=n, drop_pp=10, flips=0.14).differences, runs=runs, rng=rng)
        yield _row(
            n,
            f"{green.items.mean():.0f} ({most})",
            f"{100 * rate(green.passed):.2f} %",
            f"{red.items.mean():.0f} (270)",
            f"{100 * rate(~red.passed):.2f} %",
        )
    yield ""


def rules(runs: int, rng: np.random.Generator) -> Iterator[str]:
    n, flips = 2800, 0.06
    boundary = int(at_most_drop(n).fail_total)
    tight = Fraction(1, 100)
    worlds = {
        "lossless": (MARGIN, with_drop(n=n, drop_pp=0, flips=flips)),
        "exactly 3 pp (keeps the bound)": (MARGIN, world(n=n, total=boundary, flips=flips)),
        "3 pp and one item (breaks it)": (MARGIN, world(n=n, total=boundary - 1, flips=flips)),
        "drop 5 pp": (MARGIN, with_drop(n=n, drop_pp=5, flips=0.07)),
        "bound 1 pp: 1 pp and one item, only losses (breaks it)": (tight, World(n=n, lost=29, gained=0)),
    }
    yield f"### Rules compared (N = {n}, bound 3 pp, flips 6 % unless said)\n"
    yield "PASS % / FAIL % / mean items; what is missing to 100 % is inconclusive.  The truth is the full run.\n"
    yield _row("rule", *worlds)
    yield _rule(1 + len(worlds))
    orders = {
        name: rng.permuted(np.tile(simulated.differences, (runs, 1)), axis=1) for name, (_, simulated) in worlds.items()
    }
    for title, apply in RULES.items():
        cells = []
        for name, (margin, _) in worlds.items():
            found = apply(orders[name], float(margin))
            cells.append(_outcome(rate(found.passed), rate(found.failed), float(found.items.mean())))
        yield _row(title, *cells)
    cells = []
    for name, (margin, _) in worlds.items():
        stops = [decided(at_most_drop(n, margin), order) for order in orders[name]]
        green = rate([passed for _, passed in stops])
        cells.append(_outcome(green, 1 - green, float(np.mean([-(-t // 32) * 32 for t, _ in stops]))))
    yield _row("**this gate**, blocks of 32", *cells)
    yield ""


def coverage(runs: int, rng: np.random.Generator) -> Iterator[str]:
    yield "### Confidence sequence: paths on which both limits hold from the first item to the last (at least 90 %)\n"
    yield _row("N", "lossless", "drop 1 pp", "3 pp", "10 pp")
    yield _rule(5)
    for n in (164, 1319):
        cells = []
        for drop_pp in (0, 1, 3, 10):
            simulated = with_drop(n=n, drop_pp=drop_pp, flips=0.14)
            hits = [covers(at_most_drop(n), rng.permutation(simulated.differences)) for _ in range(runs)]
            cells.append(f"{100 * rate(hits):.1f} %")
        yield _row(n, *cells)
    yield ""


def together(runs: int, rng: np.random.Generator) -> Iterator[str]:
    yield "### Several rules, each exactly at its bound: a run that keeps them all is failed by any of them\n"
    yield f"N = 164, flips 6 %, at most 3 pp, blocks of 32; at most {LARGEST_TOGETHER} with the gate-wide control.\n"
    yield _row("rules K", "each at α", "each at α/K (the gate)")
    yield _rule(3)
    simulated = with_drop(n=164, drop_pp=100 * 4 / 164, flips=0.06).differences
    for k in (1, 2, 5, 10):
        cells = []
        for alpha in (ALPHA, ALPHA / k):
            failed = [
                any(
                    fails_first(
                        at_most_drop(164),
                        rng.permutation(simulated),
                        pass_alpha=ALPHA,
                        fail_alpha=alpha,
                        block=BLOCK_ITEMS,
                    )
                    for _ in range(k)
                )
                for _ in range(runs)
            ]
            cells.append(f"{rate(failed):.4f}")
        yield _row(k, *cells)
    yield ""


def prediction(runs: int, rng: np.random.Generator) -> Iterator[str]:
    yield "### Items saved by predicting the candidate's scores (control variate; lossless on average, bound 3 pp)\n"
    yield "Baselines with 70 % right, margins normal, the candidate's margin is the baseline's plus noise.\n"
    yield _row("N", "flips", "no prediction", "margins", "margins and an earlier candidate")
    yield _rule(5)
    for n in (500, 2800):
        for noise in (0.15, 0.35):
            used: dict[Foresight, list[int]] = {kind: [] for kind in Foresight}
            flips = []
            for _ in range(max(1, runs // 4)):
                drawn = latent(n=n, noise=noise, rng=rng)
                order = rng.permutation(n)
                flips.append(np.abs(drawn.candidate - drawn.baseline).mean())
                for kind in Foresight:
                    predicted = drawn.predicted(kind)
                    test = adjusted(at_most_drop(n), baseline=drawn.baseline, predicted=predicted)
                    used[kind].append(decided(test, (drawn.candidate - predicted)[order])[0])
            plain = np.mean(used[Foresight.NONE])
            means = [np.mean(used[kind]) for kind in Foresight]
            shown = [f"{mean:.0f} ({100 * (mean / plain - 1):+.0f} %)" for mean in means[1:]]
            yield _row(n, f"{100 * np.mean(flips):.1f} %", f"{plain:.0f}", *shown)
    yield ""


PARTS: dict[str, Part] = {
    "items": items,
    "blocks": blocks,
    "errors": errors,
    "speed": speed,
    "rules": rules,
    "coverage": coverage,
    "together": together,
    "prediction": prediction,
}


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def _outcome(passed: float, failed: float, mean_items: float) -> str:
    return f"{100 * passed:.1f} / {100 * failed:.1f} / {mean_items:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates and costs of the sequential rule, simulated.")
    parser.add_argument("--runs", type=int, default=2000, help="repetitions a cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", choices=PARTS, help="only this table")
    arguments = parser.parse_args()
    for name, part in PARTS.items():
        if arguments.part in (None, name):
            for line in part(arguments.runs, np.random.default_rng(arguments.seed)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
