"""What a finding rests on, in words: items of how many, how sure, how far it reaches, and the quality score."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gate import console
from gate.records import BoundKind, Finding, Scope, StageResult, Status
from gate.reports import basis, quality
from gate.reports.rows import deciding_rule, row
from tests import records_factory as factory

NUMBERS = (0.01, -0.01, 0.025)


def sequential(
    n: int = 160,
    whole: int = 1319,
    status: Status = Status.PASS,
    method: str = "betting",
    scope: Scope = Scope.BENCHMARK,
    lost: int = 0,
    detectable: float | None = 0.027,
) -> Finding:
    return factory.sequential_finding(
        factory.rule(), status, NUMBERS, n, whole, method=method, scope=scope, lost=lost, detectable=detectable
    )


def stage(*findings: Finding, scored: int = 160, available: int = 1319, notes: tuple[str, ...] = ()) -> StageResult:
    status = findings[0].status
    return factory.stage("domain", "fraud", status, findings, scored=scored, available=available, notes=notes)


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (sequential(), "settled by the first 160 of 1,319 items"),
        (sequential(method="betting+tango"), "decided at the last look, after 160 of 1,319 items"),
        (sequential(n=1319), "counted over all 1,319 items"),
        (sequential(lost=5), "settled by the first 160 of 1,319 items"),
        (sequential(scope=Scope.POPULATION), "settled by the first 160 of 1,319 items"),
        (sequential(n=1319, scope=Scope.POPULATION), ""),
        (sequential(status=Status.INCONCLUSIVE), ""),
        (factory.finding(factory.rule(), Status.PASS, NUMBERS), ""),
        (factory.finding(factory.rule(), Status.ERROR, None), ""),
        (factory.sequential().stages[0].findings[0], "settled at look 2 of 4"),
    ],
)
def test_what_settled_it(finding: Finding, said: str) -> None:
    assert basis.settled(finding, stage(finding)) == said


@pytest.mark.parametrize("method", ["exact", "exact_ratio"])
def test_the_span_of_readings_is_no_statement_of_confidence(method: str) -> None:
    finding = factory.finding(factory.rule(), Status.PASS, NUMBERS, method=method)
    assert basis.sure(finding) == basis.levels(finding) == "as read"


def test_notes_are_joined_without_full_stops() -> None:
    ran = stage(sequential(), scored=9, available=9, notes=("NVML counts no energy.", "it was cold", "it was cold."))
    assert basis.remarks(ran) == "NVML counts no energy; it was cold"


def test_a_guard_rail_settles_nothing_by_a_number_of_items() -> None:
    rail = replace(sequential(), rule=factory.rule(by="category"))
    assert basis.settled(rail, stage(rail)) == ""
    assert basis.items(rail) == "160", "the 1,319 are those of its worst group"
    cut_short = replace(rail, counts={**rail.counts, "reached": 160})
    assert basis.items(cut_short) == "160 of 1,319"


@pytest.mark.parametrize(
    ("notes", "available"),
    [
        (("1319 items sampled from 14042",), 14042),
        (("1,319 items sampled from 14,042",), 14042),
        (("greedy decoding", "1319 items sampled from 14042"), 14042),
        (("500 items sampled from 14042",), None),
        (("1319 items sampled from 14042", "1319 items sampled from 2000"), None),
        ((), None),
    ],
)
def test_the_sample_is_named_where_the_note_is_about_it(notes: tuple[str, ...], available: int | None) -> None:
    found = sequential()
    assert basis.sampled_from(found, stage(found, notes=notes)) == available


def test_of_two_sources_of_one_size_neither_is_said_to_be_the_sample() -> None:
    found, other = sequential(), replace(sequential(), rule=factory.rule(source="other", id="other"))
    both = stage(found, other, notes=("1319 items sampled from 14042",))
    assert basis.sampled_from(found, both) is None
    twice = stage(found, replace(found, rule=factory.rule(id="twice")), notes=("1319 items sampled from 14042",))
    assert basis.sampled_from(found, twice) == 14042, "two rules on one source"


@pytest.mark.parametrize(
    ("finding", "notes", "said"),
    [
        (
            sequential(),
            (),
            "95% sure that the full benchmark says so; "
            "for tasks like these, drops below 2.70 pp cannot be told from none",
        ),
        (
            sequential(status=Status.REGRESSION),
            ("1319 items sampled from 14042",),
            "98.33% sure that the full sample says so; "
            "for tasks like these, drops below 2.70 pp cannot be told from none",
        ),
        (
            sequential(n=1319),
            (),
            "the full benchmark says so; for tasks like these, drops below 2.70 pp cannot be told from none",
        ),
        (
            sequential(status=Status.INCONCLUSIVE),
            (),
            "for tasks like these, drops below 2.70 pp cannot be told from none",
        ),
        (sequential(detectable=None), (), "95% sure that the full benchmark says so"),
        (sequential(scope=Scope.POPULATION), (), ""),
        (factory.finding(factory.rule(), Status.PASS, NUMBERS, detectable=0.02), (), ""),
        (factory.finding(factory.rule(), Status.ERROR, None), (), ""),
    ],
)
def test_how_far_a_benchmark_verdict_reaches(finding: Finding, notes: tuple[str, ...], said: str) -> None:
    assert basis.reach(finding, stage(finding, notes=notes)) == said


def test_a_retained_share_reaches_as_far_as_a_share_of_the_score() -> None:
    retained = replace(sequential(), rule=factory.rule(kind=BoundKind.MIN_RETAINED, value=0.97))
    assert basis.reach(retained, stage(retained)).endswith(
        "for tasks like these, losing less than 2.70% of the score cannot be told from none"
    )


@pytest.mark.parametrize(
    ("finding", "scored", "said"),
    [
        (sequential(), 160, "stopped early: 160 of 1,319 items were enough"),
        (sequential(status=Status.REGRESSION), 160, "stopped early: 160 of 1,319 items were enough"),
        (sequential(status=Status.INCONCLUSIVE), 160, ""),
        (sequential(n=1319, lost=5), 1314, ""),  # lost, not spared
        (sequential(), 1319, ""),  # early stopping was off
    ],
)
def test_a_stage_says_that_it_stopped_early_only_when_it_did(finding: Finding, scored: int, said: str) -> None:
    assert basis.stopped_early(stage(finding, scored=scored)) == said


def test_counts_are_integers_rates_and_words() -> None:
    cells = row(*_of(sequential()))
    assert cells.counts == "items 160, expected 1,319, lost 3, gained 1, both right 80, flips 2.50%"
    at_look = factory.sequential().stages[0]
    assert row(at_look, at_look.findings[0]).counts == (
        "documents 64, tokens 4,096, items 64, expected 64, mean log-ratio 0.00400, standard error 0.000810, "
        "look 2 of 4 planned"
    )
    partial = replace(sequential(), counts={"n": 20, "N": 20, "baseline_total": 13.25, "candidate_total": 12})
    assert row(*_of(partial)).counts == "items 20, expected 20, baseline total 13.250, candidate total 12"


def test_a_p_value_says_of_what_and_zero_is_certain() -> None:
    assert row(*_of(replace(sequential(), p_value=0.0))).p_value.startswith("0, certain (of: the bound is kept")
    assert row(*_of(replace(sequential(), p_value=None))).p_value == ""


def test_mcnemar_is_given_where_it_holds() -> None:
    assert row(*_of(sequential(n=1319))).mcnemar.startswith("p 0.62 (exact, of: nothing changed; reported only")
    for stopped_or_lost in (sequential(), sequential(n=1319, lost=1)):
        assert row(*_of(stopped_or_lost)).mcnemar.startswith("no p-value")
    assert row(*_of(factory.finding(factory.rule(), Status.PASS, NUMBERS))).mcnemar == ""


def _of(finding: Finding) -> tuple[StageResult, Finding]:
    return stage(finding), finding


# the quality score


def test_the_score_warns_counts_its_tasks_and_labels_the_pooled_test() -> None:
    assert quality.line(factory.score(pooled_p_value=0.0431)) == (
        "Quality score: 92.18% of the baseline's accuracy kept, the mean of 3 tasks: mmlu, arc_challenge, gsm8k "
        "(86.11 to 98.23%, each end 95% sure, for these tasks' items). It decides nothing, and an average hides what "
        "happens to single tasks: read their rows. Pooled sign-flip test of no change: p 0.043, reported only."
    )


def test_the_score_of_completed_tasks_is_about_tasks_like_these() -> None:
    score = factory.score()
    general = replace(score, interval=replace(score.interval, scope=Scope.POPULATION), sources=("mmlu",))
    assert "kept, on mmlu (86.11 to 98.23%, each end 95% sure, for tasks like these)." in quality.line(general)
    many = replace(score, sources=tuple(f"t{i}" for i in range(7)))
    assert "the mean of 7 tasks: t0, t1, t2, t3 and 3 more (" in quality.line(many)
    assert "Pooled" not in quality.line(many)


def test_the_console_shows_the_score_below_the_verdict() -> None:
    out = io.StringIO()
    console.verdict(Console(file=out, width=80), factory.sequential(), Path("out"))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("REGRESSION  Regression: exact_match")
    assert lines[1].startswith("Quality score: 92.18% of the baseline's accuracy kept")


def test_the_console_says_that_a_stage_stopped_early() -> None:
    out = io.StringIO()
    console.RunConsole(Console(file=out, width=80), None).finished(factory.sequential().stages[1])
    assert (
        "capability REGRESSION in 212.4 s, stopped early: 1,556 of 5,299 items were enough, baseline" in out.getvalue()
    )
    assert deciding_rule(factory.sequential()).endswith("11.88 pp (3.01 to 20.75 pp), bound 3 pp")
