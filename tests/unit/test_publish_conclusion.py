"""Verdicts mapped to conclusions: what is green, what is red, and records that cannot be what they claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.errors import UsageError
from gate.publish.conclusion import conclude, contradiction, waived
from gate.publish.model import Candidate, CheckConclusion, Conclusion, Trust
from gate.records import Finding, RunRecord, Severity, StageResult, Status
from tests import records_factory as factory
from tests.records_factory import HOSTILE

VERIFIED = Trust(verified=True, reason="made on the default branch")
UNVERIFIED = Trust(verified=False, reason="made by a fork")
RECORDS = factory.everything()


def candidate(record: RunRecord | None, name: str = "bank-w3", problem: str = "") -> Candidate:
    return Candidate(name=name, record=record, problem=problem)


def concluded(*records: RunRecord | Candidate, inconclusive: str = "failure", trust: Trust = VERIFIED) -> Conclusion:
    some = [r if isinstance(r, Candidate) else candidate(r, f"bank-{k}") for k, r in enumerate(records)]
    return conclude(some, inconclusive=inconclusive, trust=trust)


def with_waiver(**changes: Any) -> RunRecord:
    """A regression of one rule that is waived; every stage ran."""
    red = factory.regression()
    stages = tuple(s for s in red.stages if s.status is not Status.SKIPPED)
    values: dict[str, Any] = {"stages": stages, "exit_code": 0, "waivers": (factory.waiver(),), **changes}
    return replace(red, **values)


def undecided(name: str = "answers") -> StageResult:
    open_question = factory.finding(
        factory.rule(name), Status.INCONCLUSIVE, (0.021, 0.004, 0.042), reason="the interval holds the bound"
    )
    return factory.stage("domain", name, Status.INCONCLUSIVE, (open_question,))


def changed(record: RunRecord, status: Status, **changes: Any) -> RunRecord:
    verdict = replace(record.verdict, status=status)
    return replace(record, verdict=verdict, **changes)


TABLE: tuple[tuple[str, RunRecord, str, str, str], ...] = (
    ("pass", factory.passing(), "success", "success", "All 4 blocking rules hold"),
    ("regression", factory.regression(), "failure", "failure", "Regression: accuracy on fraud fell by 11.50 pp"),
    ("inconclusive", factory.inconclusive(), "failure", "failure", "Inconclusive: accuracy on fraud"),
    ("error", factory.error(), "failure", "error", "Could not measure: accuracy on fraud"),
    ("refused", factory.refused(), "failure", "failure", "Refused: models/bank-w3-gptq holds"),
    ("waived", with_waiver(), "success", "success", "Passed with waiver: Regression: accuracy on fraud"),
    (
        "inconclusive, whatever on_inconclusive says",
        factory.inconclusive({**factory.POLICY, "on_inconclusive": "warn"}),
        "failure",
        "failure",
        "Inconclusive: ",
    ),
    (
        "not waived in the end",
        with_waiver(exit_code=1),
        "failure",
        "failure",
        "Regression: accuracy on fraud",
    ),
    ("interrupted", replace(factory.error(), exit_code=130), "failure", "error", "Could not measure: "),
)


@pytest.mark.parametrize(("record", "check", "state", "title"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE])
def test_one_candidate(record: RunRecord, check: str, state: str, title: str) -> None:
    found = concluded(record)
    assert (found.check, found.state) == (check, state)
    assert found.title.startswith(title)
    assert found.status is record.verdict.status


@pytest.mark.parametrize(
    ("inconclusive", "check", "state"),
    [
        ("failure", "failure", "failure"),
        ("action_required", "action_required", "failure"),
        ("neutral", "neutral", "success"),
    ],
)
def test_what_an_inconclusive_check_is_called_is_the_policys_choice(inconclusive: str, check: str, state: str) -> None:
    for record in (factory.inconclusive(), factory.inconclusive({**factory.POLICY, "on_inconclusive": "warn"})):
        found = concluded(record, inconclusive=inconclusive)
        assert (found.check, found.state) == (check, state)
        assert found.title.startswith("Inconclusive: ")
    for name in ("error", "refused", "regression"):
        found = concluded(RECORDS[name], inconclusive=inconclusive)
        assert found.check is CheckConclusion.FAILURE


def test_an_unknown_choice_is_a_mistake() -> None:
    for wrong in ("success", "", "Failure", "skipped"):
        with pytest.raises(UsageError, match="action_required"):
            concluded(factory.passing(), inconclusive=wrong)


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_unverified_is_never_green(name: str) -> None:
    found = concluded(RECORDS[name], inconclusive="neutral", trust=UNVERIFIED)
    assert found.check is CheckConclusion.NEUTRAL
    assert found.state == "pending"
    assert found.title.startswith("Unverified: ")


def test_nothing_to_gate_has_to_be_said() -> None:
    def found(**values: Any) -> Conclusion:
        return conclude([], inconclusive="failure", **{"trust": VERIFIED, **values})

    assert (found().check, found().state, found().status) == (CheckConclusion.FAILURE, "error", Status.ERROR)
    assert found().title.startswith("Could not measure: ")
    none = found(nothing_expected=True)
    assert (none.check, none.state, none.status) == (CheckConclusion.SKIPPED, "success", None)
    assert none.title == "No checkpoint changed: nothing was gated"
    claimed = found(nothing_expected=True, trust=UNVERIFIED)
    assert (claimed.check, claimed.state) == (CheckConclusion.NEUTRAL, "pending")


def test_a_candidate_without_a_record_could_not_be_measured() -> None:
    lost = candidate(None, problem="its job did not end with a record")
    found = concluded(lost)
    assert (found.check, found.state, found.status) == (CheckConclusion.FAILURE, "error", Status.ERROR)
    assert found.title == "Could not measure: its job did not end with a record"
    # also where something else passes, and whatever inconclusive may be
    assert concluded(factory.passing(), lost, inconclusive="neutral").check is CheckConclusion.FAILURE


def test_several_candidates_are_as_good_as_the_worst() -> None:
    passing, red, lost = factory.passing(), factory.regression(), factory.error()
    found = concluded(passing, lost, red, passing)
    assert (found.check, found.state, found.status) == (CheckConclusion.FAILURE, "failure", Status.REGRESSION)
    assert found.title.startswith("Regression: 2 of 4 candidates did not pass, worst bank-2: accuracy on fraud fell")
    assert concluded(passing, lost).state == "error"
    assert concluded(lost, factory.refused()).title.startswith("Refused: 2 of 2 candidates did not pass, worst bank-1")
    open_question = concluded(passing, factory.inconclusive(), inconclusive="neutral")
    assert (open_question.check, open_question.status) == (CheckConclusion.NEUTRAL, Status.INCONCLUSIVE)
    # failure wins over a lenient inconclusive
    assert concluded(lost, factory.inconclusive(), inconclusive="neutral").check is CheckConclusion.FAILURE


def test_several_that_pass() -> None:
    passing = factory.passing()
    assert concluded(passing, passing).title == "All 2 candidates pass: bank-0, bank-1"
    found = concluded(passing, with_waiver(), passing)
    assert found.title == "Passed with waiver: bank-1 (1 of 3 candidates); the others pass without one"
    assert (found.check, found.status) == (CheckConclusion.SUCCESS, Status.REGRESSION)


def test_a_title_names_those_that_pass_with_waiver_and_others_only_where_there_are_some() -> None:
    both = concluded(with_waiver(), with_waiver())
    assert both.title == "Passed with waiver: bank-0, bank-1 (2 of 2 candidates)"
    one = concluded(with_waiver(), factory.passing())
    assert one.title == "Passed with waiver: bank-0 (1 of 2 candidates); the other passes without one"
    many = concluded(*[with_waiver()] * 200, factory.passing())
    assert "bank-0, bank-1, " in many.title
    assert "more (200 of 201 candidates); the other passes without one" in many.title
    assert "(200 of 201 candidates)" in many.title[:128], "a status has 140 characters, `Unverified: ` included"
    long = concluded(candidate(with_waiver(), "w" * 300), candidate(with_waiver(), "v" * 300))
    assert long.title.endswith("… and 1 more (2 of 2 candidates)")


@given(st.permutations(["pass", "regression", "inconclusive", "error", "refused"]), st.sampled_from([1, 3, 5]))
def test_the_order_of_candidates_does_not_matter(names: list[str], count: int) -> None:
    some = [candidate(RECORDS[n], n) for n in names[:count]]
    first = conclude(some, inconclusive="neutral", trust=VERIFIED)
    assert conclude(some[::-1], inconclusive="neutral", trust=VERIFIED) == first
    if {"regression", "error", "refused"} & set(names[:count]):
        assert first.check is CheckConclusion.FAILURE


@pytest.mark.parametrize("name", [n for n in RECORDS if n != "waived"])
def test_sound_records_do_not_contradict_themselves(name: str) -> None:
    assert contradiction(RECORDS[name]) is None


def failing(record: RunRecord, stage: int, **changes: Any) -> RunRecord:
    """The record with one stage's first finding, or the stage, changed."""
    stages = list(record.stages)
    first, *rest = stages[stage].findings
    stages[stage] = replace(stages[stage], findings=(replace(first, **changes), *rest))
    return replace(record, stages=tuple(stages))


def rail(status: Status, **counts: float) -> Finding:
    rule = factory.rule(by="category", id="fraud.rail")
    return factory.finding(rule, status, (0.02, -0.1, 0.2), counts=counts, reason="too few items")


def with_rail(one: Finding, status: Status = Status.PASS) -> RunRecord:
    passing = factory.passing()
    stages = [
        replace(s, findings=(*s.findings, one), status=status) if s.name == "fraud" else s for s in passing.stages
    ]
    return replace(passing, stages=tuple(stages))


def skipped_too(record: RunRecord) -> RunRecord:
    return replace(record, stages=(*record.stages, factory.skipped("profile", "later", "no time")))


def stages_of(record: RunRecord, stages: Sequence[StageResult]) -> RunRecord:
    return replace(record, stages=tuple(stages))


PASSING = factory.passing()
LIES: tuple[tuple[str, RunRecord, str], ...] = (
    ("PASS with an exit code", replace(PASSING, exit_code=1), "exit code 1"),
    ("PASS with that of an interruption", replace(PASSING, exit_code=130), "exit code 130"),
    ("REGRESSION with exit code 0", replace(factory.regression(), exit_code=0), "exit code 0, expected 1"),
    ("REGRESSION with another one", replace(factory.regression(), exit_code=3), "exit code 3"),
    ("ERROR with exit code 0", replace(factory.error(), exit_code=0), "exit code 0"),
    ("REFUSED with exit code 0", replace(factory.refused(), exit_code=0), "exit code 0"),
    ("INCONCLUSIVE with that of an error", replace(factory.inconclusive(), exit_code=4), "exit code 4"),
    ("SKIPPED", changed(PASSING, Status.SKIPPED), "expected a verdict"),
    ("PASS of a regression", changed(factory.regression(), Status.PASS, exit_code=0), "skipped"),
    (
        "PASS of a regression that stopped nothing",
        changed(with_waiver(), Status.PASS, waivers=()),
        "rules make it REGRESSION",
    ),
    ("PASS of an open question", changed(factory.inconclusive(), Status.PASS, exit_code=0), "make it INCONCLUSIVE"),
    ("PASS of a broken rule", failing(PASSING, 1, status=Status.ERROR), "make it ERROR"),
    ("PASS of a skipped rule", failing(PASSING, 1, status=Status.SKIPPED), "make it INCONCLUSIVE"),
    (
        "PASS of a refused stage",
        stages_of(PASSING, [replace(s, status=Status.REFUSED) for s in PASSING.stages]),
        "REFUSED",
    ),
    ("PASS with a skipped stage", skipped_too(PASSING), "later was skipped"),
    (
        "PASS with a stage that learnt nothing",
        stages_of(PASSING, [*PASSING.stages, factory.stage("domain", "later", Status.ERROR, ())]),
        "later has no finding",
    ),
    (
        "PASS with a stage that broke",
        stages_of(PASSING, [replace(s, status=Status.ERROR) for s in PASSING.stages]),
        "could not be measured",
    ),
    ("PASS without a stage", stages_of(PASSING, []), "without a stage"),
    (
        "PASS with advice only",
        stages_of(
            PASSING,
            [
                factory.stage(
                    "domain",
                    "fraud",
                    Status.PASS,
                    (factory.finding(factory.rule(severity=Severity.ADVISORY), Status.PASS),),
                )
            ],
        ),
        "rules make it None",
    ),
    ("PASS with a waiver", replace(PASSING, waivers=(factory.waiver(),)), "PASS with waivers"),
    (
        "PASS with a guard rail cut short",
        with_rail(rail(Status.INCONCLUSIVE, reached=10, N=40)),
        "make it INCONCLUSIVE",
    ),
    ("PASS with a red guard rail", with_rail(rail(Status.REGRESSION)), "make it REGRESSION"),
    (
        "REGRESSION of nothing",
        changed(PASSING, Status.REGRESSION, exit_code=1),
        "without a blocking rule that regressed",
    ),
    (
        "INCONCLUSIVE of a regression",
        changed(with_waiver(), Status.INCONCLUSIVE, waivers=(), exit_code=3),
        "REGRESSION",
    ),
    ("INCONCLUSIVE of an error", changed(factory.error(), Status.INCONCLUSIVE, exit_code=3), "make it ERROR"),
    ("waived, another rule", with_waiver(waivers=(factory.waiver("other.rule"),)), "is not waived"),
    (
        "waived, another checkpoint",
        with_waiver(waivers=(replace(factory.waiver(), checkpoint="d" * 64),)),
        "another checkpoint",
    ),
    (
        "waived, expired",
        with_waiver(waivers=(replace(factory.waiver(), expires="2026-11-19"),)),
        "expired on 2026-11-19",
    ),
    ("waived, no candidate", with_waiver(candidate=None), "which checkpoint"),
    ("waived, no time", with_waiver(created_at="yesterday"), "on no day"),
    ("waived, a stage skipped", with_waiver(stages=factory.regression().stages), "serving was skipped"),
    (
        "waived, a second red rule",
        with_waiver(
            stages=(
                *with_waiver().stages,
                factory.stage(
                    "domain", "x", Status.REGRESSION, (factory.finding(factory.rule("x"), Status.REGRESSION),)
                ),
            )
        ),
        "x.accuracy.max_drop regressed and is not waived",
    ),
    (
        "waived, a broken rule besides",
        with_waiver(
            stages=(
                *with_waiver().stages,
                factory.stage("domain", "x", Status.ERROR, (factory.finding(factory.rule("x"), Status.ERROR, None),)),
            )
        ),
        "could not be measured",
    ),
)


@pytest.mark.parametrize(("record", "said"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_record_that_contradicts_itself_is_never_green(record: RunRecord, said: str) -> None:
    problem = contradiction(record)
    assert problem is not None
    assert said in problem
    for inconclusive in ("failure", "neutral"):
        found = concluded(record, inconclusive=inconclusive)
        assert (found.check, found.state, found.status) == (CheckConclusion.FAILURE, "error", Status.ERROR)
        assert found.title.startswith("Could not measure: the record contradicts itself: ")
    assert not waived(record)


def test_a_guard_rail_that_saw_nothing_lets_a_run_pass() -> None:
    assert contradiction(with_rail(rail(Status.INCONCLUSIVE))) is None


def test_a_waiver_holds_on_its_last_day_and_names_what_identifies_the_checkpoint() -> None:
    assert waived(with_waiver())
    assert waived(with_waiver(waivers=(replace(factory.waiver(), expires="2026-11-20"),)))
    stored = with_waiver()
    assert stored.candidate is not None
    settings = replace(stored.candidate, effective_digest="5" * 64)  # other load settings
    assert not waived(replace(stored, candidate=settings))
    assert waived(replace(stored, candidate=settings, waivers=(replace(factory.waiver(), checkpoint="5" * 64),)))
    assert not waived(factory.regression())


def test_rules_left_open_beside_a_waiver_are_inconclusive() -> None:
    record = with_waiver(stages=(*with_waiver().stages, undecided()))
    found = concluded(record)
    assert (found.check, found.status) == (CheckConclusion.FAILURE, Status.REGRESSION)
    assert found.title.startswith("Inconclusive beside a waiver: Regression: ")
    assert concluded(record, inconclusive="neutral").check is CheckConclusion.NEUTRAL


@pytest.mark.parametrize("status", ["REGRESSION", "ERROR", "REFUSED", "INCONCLUSIVE"])
@pytest.mark.parametrize(
    "sentence", ["All 9 rules hold", "Passed with waiver: fine", HOSTILE, "🙂" * 5_000, "\ud800", ""]
)
def test_no_sentence_passes_itself_off_as_another_verdict(status: str, sentence: str) -> None:
    record = RECORDS[status.lower()]
    said = replace(record, verdict=replace(record.verdict, sentence=sentence))
    title = concluded(said).title
    assert title.startswith({"ERROR": "Could not measure: "}.get(status, f"{status.capitalize()}: "))
    assert len(title) <= 255
    assert all(c.isprintable() and ord(c) <= 0xFFFF for c in title)


def test_hostile_names_stay_in_their_place() -> None:
    some = [candidate(factory.regression(), HOSTILE * 1000), candidate(factory.passing(), "\n::error::x")]
    title = conclude(some, inconclusive="failure", trust=VERIFIED).title
    assert title.startswith("Regression: 1 of 2 candidates did not pass, worst red ")
    assert len(title) <= 255
    assert title.isprintable()


def test_of_equals_the_one_that_fell_most_is_the_worst() -> None:
    red = factory.regression()
    [deciding] = [f for s in red.stages for f in s.findings if f.rule.id in red.verdict.deciding]
    less = replace(deciding, estimate=0.05)
    stages = tuple(replace(s, findings=tuple(less if f is deciding else f for f in s.findings)) for s in red.stages)
    mild = replace(red, stages=stages)
    found = conclude(
        [Candidate(name="a", record=mild, problem=""), Candidate(name="b", record=red, problem="")],
        inconclusive="failure",
        trust=VERIFIED,
    )
    assert "worst b: " in found.title
