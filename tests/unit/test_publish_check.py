"""What is sent for a check and a status: within the limits, the worst first, on the policy's own lines."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gate.errors import UsageError
from gate.publish import check, limits
from gate.publish.annotations import MAX_ANNOTATIONS, checked_path, remarks
from gate.publish.compose import publication
from gate.publish.model import Annotation, Candidate, Publication, Target, Trust
from gate.records import RunRecord, Severity, Status
from tests import records_factory as factory
from tests.records_factory import HOSTILE

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = "thresholds/demo.yaml"
TARGET = Target(
    repository="acme/models",
    head_sha="a" * 40,
    event="pull_request",
    second_stage=False,
    pull=12,
    head_repository="acme/models",
    head_branch="w4",
    default_branch="main",
    base_ref="main",
    base_sha="b" * 40,
    run_id=71,
    run_attempt=2,
    details_url="https://github.com/acme/models/actions/runs/71",
)
VERIFIED = Trust(verified=True, reason="the pull request changes no code that measures")
UNVERIFIED = Trust(verified=False, reason="made by code of the fork eve/models, not ours")


def named(record: RunRecord, name: str = "bank-w3") -> Candidate:
    return Candidate(name=name, record=record, problem="")


def published(*records: RunRecord, target: Target = TARGET, trust: Trust = VERIFIED, **changes: Any) -> Publication:
    values: dict[str, Any] = {
        "name": "quantgate",
        "inconclusive": "failure",
        "comment": "on_failure",
        "policy_path": PATH,
        "external_id": None,
        "now": NOW,
        **changes,
    }
    some = [named(r, f"bank-{k}") for k, r in enumerate(records)]
    return publication(some, target, trust, **values)


def many(n: int, status: Status = Status.REGRESSION) -> RunRecord:
    """A run of `n` red rules, each on a line of its own."""
    found = [factory.finding(factory.rule(id=f"rule.{k:04d}", line=k + 1), status) for k in range(n)]
    stage = factory.stage("domain", "fraud", status, found)
    return factory.record(status, (stage,), deciding=[found[0].rule.id], exit_code=1)


def annotated(**changes: Any) -> list[Annotation]:
    """One finding that regressed, changed."""
    rule = {k: changes.pop(k) for k in ("severity", "line") if k in changes}
    one = replace(factory.finding(factory.rule(**rule), Status.REGRESSION), **changes)
    other = factory.finding(factory.rule(id="fraud.other", line=20), Status.REGRESSION)
    stage = factory.stage("domain", "fraud", Status.REGRESSION, (one, other))
    record = factory.record(Status.REGRESSION, (stage,), deciding=["fraud.other"], exit_code=1)
    return [a for a in remarks([named(record)], PATH) if "fraud.other" not in a.title]


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "failure"),
        ({"status": Status.ERROR}, "failure"),
        ({"status": Status.REFUSED}, "failure"),
        ({"status": Status.INCONCLUSIVE}, "failure"),
        ({"status": Status.SKIPPED}, "failure"),
        ({"status": Status.PASS}, None),
        ({"severity": Severity.ADVISORY}, "warning"),
        ({"severity": Severity.ADVISORY, "status": Status.ERROR}, "warning"),
        ({"severity": Severity.ADVISORY, "status": Status.PASS}, None),
        ({"line": None}, None),
        ({"line": 0}, None),
        ({"line": -3}, None),
        ({"line": 10**12}, None),
    ],
)
def test_one_remark_for_each_rule_that_did_not_hold(changes: dict[str, Any], level: str | None) -> None:
    assert [a.level for a in annotated(**changes)] == ([] if level is None else [level])


def test_what_a_remark_says() -> None:
    [one] = annotated()
    assert (one.path, one.line) == (PATH, 12)
    assert one.title == "regression: fraud.accuracy.max_drop"
    assert one.message.startswith("accuracy on fraud fell by 11.50 pp, 100.00% → 88.50%")
    assert "a drop of at most 3 pp is allowed" in one.message


def test_a_waived_rule_is_a_warning_that_names_its_owner() -> None:
    red = factory.regression()
    waived = replace(red, stages=red.stages[:2], waivers=(factory.waiver(),), exit_code=0)
    first, rail = remarks([named(waived)], PATH)
    assert (first.level, first.title) == ("warning", "waived regression: fraud.accuracy.max_drop")
    assert "waived by Ada Byron until 2026-12-31: known loss" in first.message
    assert rail.level == "warning"


def test_a_log_behind_the_first_line_of_a_reason_stays_at_home() -> None:
    [one] = annotated(status=Status.ERROR, reason="the worker died\nSECRET=42")
    assert "the worker died" in one.message
    assert "SECRET" not in one.message


def test_no_path_no_remarks() -> None:
    assert remarks([named(factory.regression())], None) == ()
    assert remarks([Candidate(name="x", record=None, problem="lost")], PATH) == ()


def test_a_policy_that_the_pull_request_changes_has_other_lines() -> None:
    changed = factory.policy_changed()
    assert remarks([named(changed)], PATH) == ()
    assert remarks([named(changed)], f"./{PATH}") == ()
    assert remarks([named(changed)], "thresholds/other.yaml")
    assert "has no remarks on its lines" in published(changed).text


def test_a_record_that_contradicts_itself_makes_no_remarks() -> None:
    assert remarks([named(replace(factory.regression(), exit_code=0))], PATH) == ()


def test_the_worst_of_several_candidates_come_first() -> None:
    advisory = factory.sanity_stage().findings[1]
    stage = factory.stage("perplexity", "sanity", Status.PASS, (replace(advisory, status=Status.REGRESSION),))
    advice = replace(factory.passing(), stages=(*factory.passing().stages[1:], stage))
    found = remarks([named(advice, "a"), named(factory.regression(), "b")], PATH)
    assert [(a.level, a.title.partition(":")[0]) for a in found] == [
        ("failure", "b"),
        ("warning", "a"),
        ("warning", "b"),
    ]


def told(n: int, *, worst: int) -> list[Candidate]:
    """`n` candidates with the same red rule, one of them further beyond its bound."""
    found = []
    for k in range(n):
        red = factory.regression()
        stages = list(red.stages)
        first, *rest = stages[1].findings
        if k == worst:
            first = replace(first, estimate=0.9, interval=factory.interval(0.8, 0.95))
        stages[1] = replace(stages[1], findings=(first, *rest))
        found.append(named(replace(red, stages=tuple(stages)), f"w{k}"))
    return found


def test_the_same_rule_of_many_candidates_is_one_remark() -> None:
    several = remarks([*told(128, worst=77), *[named(factory.passing(), f"good{k}") for k in range(128)]], PATH)
    assert len(several) == 2, "a failure and an advisory warning"
    first = several[0]
    assert (first.level, first.line) == ("failure", 15)
    assert first.title == "regression: fraud.accuracy.max_drop in 128 of 256 candidates"
    head, sentence = first.message.splitlines()
    assert head.startswith("in 128 of 256 candidates: w77, w0, w1, ")
    assert head.endswith(", w18 and 108 more")
    assert sentence.startswith("worst w77: accuracy on fraud fell by 90.00 pp")


def test_remarks_that_differ_are_not_merged() -> None:
    lost = factory.error()
    stages = tuple(replace(s, findings=tuple(replace(f, rule=factory.rule(line=15)) for f in s.findings))
                   if s.name == "fraud" else s for s in lost.stages)  # fmt: skip
    waived = replace(factory.regression(), stages=factory.regression().stages[:2], waivers=(factory.waiver(),))
    records = [factory.regression(), replace(lost, stages=stages), replace(waived, exit_code=0)]
    found = remarks([named(r, f"w{k}") for k, r in enumerate(records)], PATH)
    assert [(a.level, a.title) for a in found if "by_category" not in a.title] == [
        ("failure", "w0: regression: fraud.accuracy.max_drop"),
        ("failure", "w1: could not measure: fraud.accuracy.max_drop"),
        ("warning", "w2: waived regression: fraud.accuracy.max_drop"),
    ]


def test_hostile_names_in_a_merged_remark_are_one_line() -> None:
    some = [Candidate(name=HOSTILE, record=factory.regression(), problem="") for _ in range(3)]
    first = remarks(some, PATH)[0]
    assert len(first.message.splitlines()) == 2
    assert not [line for line in first.message.splitlines() if line.startswith("::") or not line.isprintable()]


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../b", "a/./b", "a\\b", "a\nb", "🙂.yaml", "x" * 2000, ".."])
def test_paths_outside_of_the_repository(path: str) -> None:
    with pytest.raises(UsageError, match="--policy-path"):
        checked_path(path)


def test_paths_inside_of_it() -> None:
    for path in ("a.yaml", ".github/gate.yaml", "a..b/c d.yaml", "thresholds/é.yaml"):
        assert checked_path(path) == path
    assert checked_path("./a.yaml") == "a.yaml"


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 100, 101, MAX_ANNOTATIONS, MAX_ANNOTATIONS + 51])
def test_batches(count: int) -> None:
    one = published(many(count)) if count else published(factory.passing())
    bodies = check.payload(one)
    sizes = [len(b["output"]["annotations"]) for b in bodies]
    assert sum(sizes) == min(count, MAX_ANNOTATIONS)
    assert all(size == 50 for size in sizes[:-1])
    assert sizes[-1] <= 50
    sent = [a["title"] for b in bodies for a in b["output"]["annotations"]]
    assert sent == sorted(set(sent))
    assert ["head_sha" in b for b in bodies] == [True] + [False] * (len(bodies) - 1)
    # whichever arrives last, the check has its verdict and all of its text
    assert {b["conclusion"] for b in bodies} == {"failure" if count else "success"}
    assert {b["output"]["text"] for b in bodies} == {one.text}


@pytest.mark.parametrize("there", [0, 1, 50, 119, 120, 500])
def test_remarks_that_are_there_are_not_sent_again(there: int) -> None:
    one = published(many(120))
    rest = [a["title"] for b in check.payload(one, annotated=there) for a in b["output"]["annotations"]]
    assert rest == [a.title for a in one.annotations[there:]]
    assert check.payload(one, annotated=there)[0]["conclusion"] == "failure"


def test_a_completed_check() -> None:
    [body] = check.payload(published(factory.regression()))
    output = body.pop("output")
    assert body == {
        "name": "quantgate",
        "head_sha": "a" * 40,
        "external_id": published(factory.regression()).external_id,
        "details_url": "https://github.com/acme/models/actions/runs/71",
        "status": "completed",
        "conclusion": "failure",
    }
    assert output["title"].startswith("Regression: accuracy on fraud fell by 11.50 pp")
    assert output["summary"].startswith("## ❌ quantgate: regression")
    first = output["annotations"][0]
    assert (first["start_line"], first["end_line"], first["annotation_level"]) == (15, 15, "failure")


def test_a_check_that_has_begun() -> None:
    body = check.started(name="quantgate", head_sha="a" * 40, external_id="e", details_url=None)
    assert (body["status"], body["head_sha"]) == ("in_progress", "a" * 40)
    assert "conclusion" not in body
    assert "details_url" not in body


def test_an_unverified_result_blocks_the_required_check_that_has_begun() -> None:
    one = published(factory.passing(), trust=UNVERIFIED)
    body = check.blocked(one, name="quantgate")
    assert (body["name"], body["conclusion"]) == ("quantgate", "action_required")
    assert body["output"]["title"].startswith("Unverified: ")
    assert "fork eve/models" in body["output"]["summary"]
    with pytest.raises(ValueError, match="unverified"):
        check.blocked(published(factory.passing()), name="quantgate")


@pytest.mark.parametrize(
    ("trust", "state", "context"),
    [
        (VERIFIED, "success", "quantgate/verdict"),
        (UNVERIFIED, "pending", "quantgate/verdict (unverified)"),
    ],
)
def test_a_status(trust: Trust, state: str, context: str) -> None:
    body = check.status(published(factory.passing(), trust=trust))
    assert (body["state"], body["context"]) == (state, context)
    assert body["target_url"] == TARGET.details_url
    assert len(body["description"]) <= 140
    assert body["description"].startswith("Unverified: All 4" if state == "pending" else "All 4")


BIG = {
    "large": factory.large(),
    "hostile": factory.hostile(),
    "many": many(MAX_ANNOTATIONS + 51),
}


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize("trust", [VERIFIED, UNVERIFIED], ids=["verified", "unverified"])
def test_everything_fits(name: str, trust: Trust) -> None:
    odd = HOSTILE * 40 + "🙂" * 300
    record = replace(BIG[name], verdict=replace(BIG[name].verdict, sentence=odd))
    one = published(*[record] * 4, trust=trust, name="quantgate" + odd, external_id=odd)
    bodies = [
        *check.payload(one),
        check.status(one),
        check.started(name=odd, head_sha="a" * 40, external_id=odd, details_url=None),
    ]
    for body in bodies:
        text = json.dumps(body, ensure_ascii=False)
        text.encode()
        assert all(ord(c) <= 0xFFFF for c in text)
        output = body.get("output", {"title": "", "summary": ""})
        assert len(output["title"]) <= 255
        assert len(output["summary"].encode()) <= 65_535
        assert len(output.get("text", "").encode()) <= 65_535
        assert len(output.get("annotations", ())) <= 50
        assert len(body.get("description", "")) <= 140
        assert len(body.get("external_id", "")) <= 255
        for remark in output.get("annotations", ()):
            assert len(remark["message"].encode()) <= 65_536
            assert len(remark["title"]) <= 255
    assert len(one.annotations) <= MAX_ANNOTATIONS


def test_a_message_of_ten_megabytes() -> None:
    [one] = annotated(status=Status.ERROR, reason=("🙂" + HOSTILE.replace("\n", " ")) * 40_000)
    assert len(one.message.encode()) <= limits.ANNOTATION_BYTES
    assert one.message.isprintable()
