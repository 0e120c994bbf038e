"""A plan as terminal text of at most 100 columns, for someone who has not read the documentation.

Pure: Plan → str.  Computes nothing and decides nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from gate.decide.outlook import ASSUMED_BASELINE, FLIP_RATES
from gate.decide.plan import Plan, Row
from gate.records import Severity
from gate.reports.numbers import MISSING, count, rate
from gate.task_catalog import AXES

WIDTH = 100


def render(plan: Plan) -> str:
    """The plan: rules stage by stage, then what is weak, what is impossible, what is not tested at all."""
    lines = [f"What this policy can decide ({rate(plan.confidence)} confidence on each side of each rule)"]
    for stage, rows in groupby(plan.rows, key=lambda row: (row.rule.stage, row.kind)):
        lines += ["", f"{stage[0]} ({stage[1]})", *_table(list(rows))]
    lines += _section("Weak", plan.warnings, "! ")
    lines += _section("Impossible: the policy will not be run", plan.problems, "x ")
    if plan.together is not None:
        together = (
            f"All blocking rules together: a lossless candidate passes about {plan.together:.0%} of the time "
            "(rules with unknown odds left out). More items or looser bounds raise it."
        )
        lines += ["", *_wrapped(together, "  ")]
    lines += ["", *_coverage(plan), "", *_legend(plan)]
    return "\n".join(lines)


def _table(rows: list[Row]) -> Iterator[str]:
    for source, group in groupby(rows, key=lambda row: row.rule.source):
        for row in group:
            rule = row.rule
            advisory = " (advisory)" if rule.severity is Severity.ADVISORY else ""
            selected = f" by {rule.by}" if rule.by else f" at batch {rule.batch}" if rule.batch else ""
            name = f"{source}: " if source != rule.stage else ""
            wanted = f"{name}{rule.metric}{selected} {rule.bound.kind} {rule.bound.text}{advisory}"
            yield from _wrapped(f"  {wanted} · {_amount(row)}", "      ")
            if row.outlook.says:
                yield from _wrapped(f"      {row.outlook.says}", "      ")


def _amount(row: Row) -> str:
    outlook = row.outlook
    if outlook.n is None:
        return f"{outlook.unit}: {MISSING}"
    noun = outlook.unit.removesuffix("s")
    if outlook.available is not None and outlook.n < outlook.available:
        return f"{count(outlook.n)} of {count(outlook.available, noun)}"
    return count(outlook.n, noun)


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
    notes = [
        "A rule passes when its whole confidence interval lies on the good side of the bound, and is a regression "
        "when it lies on the bad side; in between it is inconclusive, which does not pass.",
        '"Sees" is the smallest true change told from none in 80% of runs. "Lossless" is a candidate that is as '
        "good as the baseline but answers some items differently, as every quantized model does.",
    ]
    if any(row.outlook.flip_rate is not None for row in plan.rows):
        notes.append(
            f"Nothing was measured yet: assumed are {rate(FLIP_RATES['choice'])} changed answers on multiple choice, "
            f"{rate(FLIP_RATES['generate'])} on written answers and, for min_retained, a baseline that is right on "
            f"{rate(ASSUMED_BASELINE)} of the items."
        )
    for note in notes:
        yield from _wrapped(f"  {note}", "  ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=True, break_on_hyphens=False)
