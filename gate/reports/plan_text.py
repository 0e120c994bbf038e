"""A plan as terminal text of at most 100 columns, for someone who has not read the documentation.

Pure: Plan → str.  Computes nothing and decides nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby, zip_longest

from gate.decide.outlook import chance_of, points
from gate.decide.outlook_documents import TYPICAL_INCREASE
from gate.decide.outlook_items import ASSUMED_BASELINE
from gate.decide.plan import Load, Plan, Row
from gate.decide.power import LATE
from gate.decide.profile_time import BANDWIDTH_SHARE, LOAD_BYTES_PER_SECOND, STEP_SECONDS, ProfileTime
from gate.decide.stoppable import FLIP_RATES
from gate.records import Severity
from gate.reports.numbers import MISSING, count, rate
from gate.task_catalog import AXES

WIDTH = 100
_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("", "items", 10),
    ("", "none", 7),
    ("half the", "bound", 9),
    ("twice the", "bound", 10),
    ("sees in", "general", 11),
    ("lossless", "passes", 9),
)
_MINUTES = ("", "minutes", 8)


def render(plan: Plan) -> str:
    """The plan: rules stage by stage, then what is weak, what is impossible, what is not tested at all."""
    lines = ["What this policy can decide, said before anything is run (the words are explained at the end)"]
    lines += _budget(plan)
    for stage, rows in groupby(plan.rows, key=lambda row: (row.rule.stage, row.kind)):
        found = list(rows)
        lines += ["", f"{stage[0]} ({stage[1]})"]
        lines += _table(found) if stage[1] in ("lm_eval", "domain") else _listing(found)
        lines += _times([taken for taken in plan.profile_times if taken.stage == stage[0]])
    lines += ["", "In all", *_together(plan)]
    lines += _section("Weak", plan.warnings, "! ")
    lines += _section("Impossible: the policy will not be run", plan.problems, "x ")
    lines += _section("Not known yet", plan.notes, "- ")
    lines += ["", *_coverage(plan), "", *_legend(plan)]
    return "\n".join(lines)


def _budget(plan: Plan) -> Iterator[str]:
    wrong = rate(round(1 - plan.confidence, 12))
    each = rate(round((1 - plan.confidence) / max(plan.n_blocking, 1), 4))
    rules = count(plan.n_blocking, "blocking rule")
    yield from _wrapped(
        f"  Error budget: a candidate that breaks a bound passes that rule in at most {wrong} of runs. One that keeps "
        f"all bounds is called a regression in at most {wrong} of runs: {rules} share that, {each} each to begin with.",
        "  ",
    )


# -- items ------------------------------------------------------------------------------------------------


def _table(rows: list[Row]) -> Iterator[str]:
    timed = any(row.minutes is not None for row in rows)
    columns = (*_COLUMNS, _MINUTES) if timed else _COLUMNS
    widths = [width for _, _, width in columns]
    rule_width = WIDTH - 2 - 11 - sum(widths)
    before = 2 + rule_width + 11 + widths[0]
    yield f"{'':{before}}{'items needed if the true drop is':>{sum(widths[1:4])}}"
    yield _line(["", ""], [above for above, _, _ in columns], rule_width, widths)
    yield _line(["rule", "scope"], [below for _, below, _ in columns], rule_width, widths)
    for row in rows:
        yield from _row(row, rule_width, widths, timed)


def _row(row: Row, rule_width: int, widths: list[int], timed: bool) -> Iterator[str]:
    rule, outlook, needed = row.rule, row.outlook, row.outlook.expected
    advisory = " (advisory)" if rule.severity is Severity.ADVISORY else ""
    selected = f" by {rule.by}" if rule.by else ""
    source = f"{rule.source} " if rule.source != rule.stage else ""
    names = textwrap.wrap(f"{source}{rule.metric}{selected}", rule_width - 1, break_on_hyphens=False)
    names += textwrap.wrap(f"  {rule.bound.kind} {rule.bound.text}{advisory}", rule_width - 1, subsequent_indent="  ")
    cells = [
        _short(outlook.most),
        *(_short(n) for n in ((needed.lossless, needed.half, needed.twice) if needed else (None, None, None))),
        MISSING if outlook.smallest is None else points(outlook.smallest),
        MISSING if outlook.odds is None else _share(outlook.odds),
        *([_minutes(row.minutes)] if timed else []),
    ]
    part = outlook.n is not None and outlook.available is not None and outlook.n < outlook.available
    below = [f"of {_short(outlook.n)}"] if outlook.cap is not None else []
    below += [f"of {_short(outlook.available)}"] if part else []
    yield _line([names[0], rule.scope], cells, rule_width, widths)
    for name, amount in zip_longest(names[1:], below, fillvalue=""):
        yield _line([name, ""], [amount], rule_width, widths)
    if outlook.says:
        yield from _wrapped(f"      {outlook.says}", "      ")


def _line(left: list[str], cells: list[str], rule_width: int, widths: list[int]) -> str:
    text = f"  {left[0]:<{rule_width}}{left[1]:<11}"
    return (text + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))).rstrip()


def _short(number: int | None) -> str:
    if number is None:
        return MISSING
    if number < 1_000_000:
        return f"{number:,}"
    return f"{number / 1e6:.1f}M" if number < 1_000_000_000 else f"{number:.0e}"


def _share(probability: float) -> str:
    """Whole percent, never rounded to certainty."""
    if probability > 0.995:
        return ">99%"
    return "<1%" if probability < 0.005 else f"{probability:.0%}"


def _minutes(minutes: float | None) -> str:
    if minutes is None:
        return MISSING
    return "<0.1" if minutes < 0.05 else f"{minutes:.1f}" if minutes < 9.95 else _short(round(minutes))


# -- documents, timing, memory ----------------------------------------------------------------------------


def _listing(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        rule = row.rule
        advisory = " (advisory)" if rule.severity is Severity.ADVISORY else ""
        asked = (f"batch {rule.batch}" if rule.batch else None, rule.lengths, rule.load)
        selected = f" at {', '.join(filter(None, asked))}" if any(asked) else ""
        name = f"{rule.source} " if rule.source != rule.stage else ""
        minutes = "" if row.minutes is None else f" · {_minutes(row.minutes)} min"
        wanted = f"{name}{rule.metric}{selected} {rule.bound.kind} {rule.bound.text}{advisory}"
        yield from _wrapped(f"  {wanted} · {_amount(row)}{minutes}", "      ")
        if row.outlook.says:
            yield from _wrapped(f"      {row.outlook.says}", "      ")
        looks = row.outlook.looks
        if looks:
            yield _look("stops at the first of these that decides, tokens", [_short(look.tokens) for look in looks])
            yield _look("  passes by then: lossless", [_share(look.lossless) for look in looks])
            yield _look(f"  passes by then: usual 4-bit (+{TYPICAL_INCREASE:.1%})", [_share(k.typical) for k in looks])


def _times(times: list[ProfileTime]) -> Iterator[str]:
    for taken in times:
        most = _about(taken.most_seconds)
        text = f"about {most}" if len(taken.pairs) == 1 else f"about {_about(taken.first_seconds)} to {most}"
        together = "" if taken.resident else " (the two may not fit together: each is then loaded for its blocks)"
        yield from _wrapped(
            f"  {taken.stage}: {text} for {taken.model} on an {taken.gpu} ({taken.bytes_per_second / 1e9:,.0f} GB/s), "
            f"of which {_about(taken.loading_seconds)} loading{together}; as much again if a red rule has to be "
            "confirmed",
            "      ",
        )


def _about(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 59.5 else f"{seconds / 60:.1f} minutes"


def _look(title: str, cells: list[str]) -> str:
    width = 9 if len(cells) < 5 else 6
    return f"      {title:<44}" + "".join(f"{cell:>{width}}" for cell in cells)


def _amount(row: Row) -> str:
    outlook = row.outlook
    if outlook.n is None:
        return f"{outlook.unit}: {MISSING}"
    noun = outlook.unit.removesuffix("s")
    if outlook.available is not None and outlook.n < outlook.available:
        return f"{count(outlook.n)} of {count(outlook.available, noun)}"
    return count(outlook.n, noun)


# -- the whole --------------------------------------------------------------------------------------------


def _together(plan: Plan) -> Iterator[str]:
    if plan.load is not None:
        yield from _wrapped(f"  {_load_text(plan.load)}", "  ")
    if plan.together is not None:
        together = (
            f"A lossless candidate passes all blocking rules together in {chance_of(plan.together)} of runs; rules "
            "whose odds are not known are left out."
        )
        yield from _wrapped(f"  {together}", "  ")


def _load_text(load: Load) -> str:
    text = f"A lossless candidate answers about {load.lossless:,} of {load.most:,} items"
    if load.minutes is None or load.most_minutes is None:
        return (
            f"{text}. For minutes, say how fast the machine is: `--items-per-second 5` or `--tokens-per-second 20000`."
        )
    return (
        f"{text}: {_minutes(load.minutes)} minutes at the given speed, {_minutes(load.most_minutes)} if it takes them "
        f"all. The baseline is measured once on all of them and kept."
    )


def _section(title: str, texts: tuple[str, ...], mark: str) -> Iterator[str]:
    if texts:
        yield from ("", title)
    for text in texts:
        yield from _wrapped(f"  {mark}{text}", "    ")


def _coverage(plan: Plan) -> Iterator[str]:
    yield "Capabilities"
    yield from _wrapped(f"  tested, can stop a release: {', '.join(plan.covered) or 'none'}", "    ")
    if plan.only_advisory:
        yield from _wrapped(f"  tested, advisory only: {', '.join(plan.only_advisory)}", "    ")
    missing = ", ".join(f"{axis} (add {AXES[axis]})" for axis in plan.uncovered)
    yield from _wrapped(f"  NOT tested: {missing or 'none'}", "    ")


def _legend(plan: Plan) -> Iterator[str]:
    yield "How to read this"
    planned = [row for row in plan.rows if row.outlook.flip_rate is not None]
    if planned:
        yield from _about_items(plan)
    if any(row.outlook.unit in ("documents", "timing blocks", "single times") for row in plan.rows):
        yield from _term(
            "intervals",
            "Perplexity and timing pass when the whole confidence interval keeps the bound, and are a regression when "
            "all of it is beyond; in between the result is inconclusive, which does not pass.",
        )
    if plan.profile_times:
        yield from _term(
            "profile",
            f"Its time is reckoned, not measured: {rate(BANDWIDTH_SHARE)} of the GPU's published bandwidth, no step "
            f"under {STEP_SECONDS * 1000:.0f} ms, {LOAD_BYTES_PER_SECOND / 1e9:g} GB/s from disk.",
        )


def _about_items(plan: Plan) -> Iterator[str]:
    yield from _term(
        "lossless",
        "A candidate as good as the baseline. It still answers some items differently, right to wrong and back, as "
        "every quantized model does: these are flips. `passes` is how often such a candidate passes the rule.",
    )
    yield from _term(
        "benchmark",
        "The verdict is what the full run over these items would say. Items are asked in random order, 32 at a time, "
        "until the answer is sure enough: early when the candidate is clearly good or clearly bad, late when it is "
        "close to the bound. A drop of exactly the bound takes all items.",
    )
    yield from _term(
        "population",
        "The verdict also holds for other questions like these, so the luck of which questions are in the benchmark "
        "counts against it. `sees in general` is the smallest drop that can be told from none for such questions: a "
        "bound below it needs benchmark scope, or more items.",
    )
    yield from _term(
        "items needed",
        f"On average; one run in ten needs {LATE:g} times as many. For a bound of 3pp, half of it is a true drop "
        "of 1.5 points and twice of it one of 6 points.",
    )
    rates = " and ".join(
        (f"{rate(FLIP_RATES['choice'])} flips on multiple choice", f"{rate(FLIP_RATES['generate'])} on written answers")
    )
    yield from _term(
        "assumed",
        f"Where nothing was measured yet: {rates} ({rate(FLIP_RATES['sampled'])} when sampled), and for min_retained a "
        f"baseline that gets {rate(ASSUMED_BASELINE)} of the items right.",
    )


def _term(name: str, text: str) -> Iterator[str]:
    yield from _wrapped(f"  {name:<13}{text}", " " * 15)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=True, break_on_hyphens=False)
