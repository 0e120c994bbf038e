"""JUnit XML: what CI systems read must say exactly what the record says."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from gate.records import RunRecord, Severity, Status
from gate.reports import junit
from tests import records_factory as factory

RECORDS = factory.everything()
XSD = Path(os.environ.get("QUANTGATE_JUNIT_XSD", Path(__file__).parents[3] / "shared" / "schemas" / "junit-10.xsd"))
TIME = re.compile(r"\d+\.\d{3}")


def parsed(record: RunRecord) -> ET.Element:
    return ET.fromstring(junit.render(record).encode())


def case(root: ET.Element, name: str) -> ET.Element:
    [found] = [c for c in root.iter("testcase") if c.get("name") == name]
    return found


def outcome(element: ET.Element) -> str:
    return next((tag for tag in ("failure", "error", "skipped") if element.find(tag) is not None), "passed")


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_shape_that_every_consumer_reads(name: str) -> None:
    """The rules of Jenkins' schema and of the other consumers, stated without the schema."""
    record = RECORDS[name]
    root = parsed(record)
    assert root.tag == "testsuites"
    assert {e.tag for e in root.iter()} <= {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "skipped", "system-out"
    }  # fmt: skip
    assert [s.get("name") for s in root] == ["gate", *(f"gate.{s.name}" for s in record.stages)]
    cases = list(root.iter("testcase"))
    assert len({(c.get("classname"), c.get("name")) for c in cases}) == len(cases)
    for suite in root:
        written = Counter(outcome(c) for c in suite.iter("testcase"))
        assert int(suite.get("tests", "")) == written.total() > 0
        assert int(suite.get("failures", "")) == written["failure"]
        assert int(suite.get("errors", "")) == written["error"]
        assert int(suite.get("skipped", "")) == written["skipped"]
        assert suite.get("timestamp") == "2026-11-20T12:00:00"
    for element in (root, *root, *cases):
        assert TIME.fullmatch(element.get("time", "")), element.attrib
        assert element.get("disabled") is None
    for element in cases:
        assert element.get("file") == "thresholds/demo.yaml"
        assert (element.get("classname") or "").startswith("gate")
        story = element[0]
        assert len(element) == 1, "one result or one output per case"
        assert (story.text or "").strip()
        if story.tag != "system-out":
            message = story.get("message", "")
            assert message
            assert "\n" not in message


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_every_finding_is_counted_and_no_failure_is_written_as_passed(name: str) -> None:
    record = RECORDS[name]
    root = parsed(record)
    warns = record.policy["on_inconclusive"] == "warn"
    expected = Counter[str]()
    for finding in (f for s in record.stages for f in s.findings):
        soft = finding.rule.severity is Severity.ADVISORY or (finding.status is Status.INCONCLUSIVE and warns)
        soft = soft or finding.rule.id in {w.rule for w in record.waivers}
        hard = {Status.PASS: "passed", Status.REGRESSION: "failure"}.get(finding.status, "error")
        meant = "skipped" if soft and finding.status is not Status.PASS else hard
        assert outcome(case(root, finding.rule.id)) == meant, finding.rule.id
        expected[meant] += 1
    unasked = {"fraud.accuracy.max_drop", "fraud.accuracy.min_retained"} if name == "sequential" else {"the stage"}
    expected["skipped"] += len(unasked) * sum(s.status is Status.SKIPPED for s in record.stages)
    verdict = {Status.PASS: "passed", Status.REGRESSION: "failure"}.get(record.verdict.status, "error")
    let_pass = (record.verdict.status is Status.INCONCLUSIVE and warns) or (record.waivers and not record.exit_code)
    expected["skipped" if let_pass else verdict] += 1
    assert Counter(outcome(c) for c in root.iter("testcase")) == expected


def test_a_regression_points_at_its_rule_and_tells_the_whole_story() -> None:
    element = case(parsed(RECORDS["regression"]), "fraud.accuracy.max_drop")
    assert (element.get("classname"), element.get("line")) == ("gate.fraud", "15")
    failure = element[0]
    assert failure.get("type") == "REGRESSION"
    assert (failure.get("message") or "").startswith("regression: accuracy on fraud fell by 11.50 pp")
    text = failure.text or ""
    for part in ("drop ≤ 3 pp", "10.33 to 12.78 pp", "tango, each end 95% sure", "lost 231, gained 1", "max_drop: 3pp"):
        assert part in text


def test_the_source_is_part_of_the_class_only_when_it_is_not_the_stage() -> None:
    root = parsed(RECORDS["regression"])
    assert case(root, "sanity.perplexity.max_increase").get("classname") == "gate.sanity.prose"
    assert case(root, "fraud.accuracy.max_drop").get("classname") == "gate.fraud"


def test_names_do_not_depend_on_results() -> None:
    """CI systems follow a test by its name: rules keep it whether they pass or not."""
    names = [c.get("name") for c in parsed(RECORDS["pass"]).iter("testcase")]
    assert set(names) >= {"verdict", "fraud.accuracy.max_drop", "sanity.perplexity.max_increase"}
    assert "fraud.accuracy.max_drop" in [c.get("name") for c in parsed(RECORDS["error"]).iter("testcase")]


def test_an_advisory_regression_is_skipped_with_its_story_and_not_green() -> None:
    skipped = case(parsed(RECORDS["regression"]), "fraud.accuracy.max_drop.by_category")[0]
    assert skipped.tag == "skipped"
    assert (skipped.get("message") or "").startswith("advisory: regression: accuracy on fraud by category")
    assert "balance: regression, drop 24.10 pp" in (skipped.text or "")


def test_a_skipped_stage_is_one_skipped_case_with_the_reason() -> None:
    skipped = case(parsed(RECORDS["regression"]), "serving")[0]
    assert skipped.tag == "skipped"
    assert skipped.get("message") == ("skipped: fraud regressed (fraud.accuracy.max_drop); --keep-going runs it anyway")


def test_a_skipped_stage_has_a_case_for_each_planned_rule_under_the_name_it_has_when_it_runs() -> None:
    root = parsed(RECORDS["sequential"])
    [suite] = [s for s in root if s.get("name") == "gate.fraud"]
    cases = [(c.get("classname"), c.get("name"), outcome(c)) for c in suite.iter("testcase")]
    assert cases == [
        ("gate.fraud", "fraud.accuracy.max_drop", "skipped"),
        ("gate.fraud", "fraud.accuracy.min_retained", "skipped"),
    ]
    ran = factory.finding(factory.rule(), Status.PASS, (0.0, -0.01, 0.01))
    passed = factory.record(Status.PASS, [factory.stage("domain", "fraud", Status.PASS, [ran])])
    assert case(parsed(passed), "fraud.accuracy.max_drop").get("classname") == cases[0][0]
    said = case(root, "fraud.accuracy.max_drop")[0]
    assert said.get("message") == "skipped: stage capability ended in REGRESSION (--keep-going runs the rest)"
    assert "accuracy max_drop: 3pp (blocking)" in (said.text or "")


def test_the_quality_score_is_in_the_verdict_and_is_no_case() -> None:
    root = parsed(RECORDS["sequential"])
    assert "Quality score: 92.18% of the baseline's accuracy kept" in (case(root, "verdict")[0].text or "")
    assert not [c for c in root.iter("testcase") if "quality" in (c.get("name") or "")]


def test_the_story_of_a_sequential_rule() -> None:
    text = case(parsed(RECORDS["sequential"]), "capability.gsm8k.max_drop")[0].text or ""
    for part in (
        "items:      160 of 1,319",
        "95% sure if it keeps the bound, 98.33% if it breaks it, benchmark scope, anytime",
        "counts:     items 160, expected 1,319, lost 22, gained 3, both right 69, flips 15.62%",
        "p-value:    0.0023 (of: the bound is kept; a small one speaks for a regression)",
        "McNemar:    no p-value: it holds only where all items were measured",
        "drops below 2.71 pp cannot be told from none",
    ):
        assert part in text
    counted = case(parsed(RECORDS["sequential"]), "capability.arc_challenge.acc.min_retained")[0].text or ""
    assert "McNemar:    p 0.016 (exact, of: nothing changed; reported only, it knows no bound)" in counted


def test_a_refused_run_without_stages_is_not_an_empty_green_file() -> None:
    root = parsed(RECORDS["refused"])
    assert [(c.get("name"), outcome(c)) for c in root.iter("testcase")] == [("verdict", "error")]
    assert root.get("errors") == "1"


def test_a_stage_that_passed_without_a_finding_is_an_error() -> None:
    record = factory.record(Status.ERROR, [factory.stage("domain", "fraud", Status.PASS, [])], exit_code=4)
    assert outcome(case(parsed(record), "fraud")) == "error"


def test_a_stage_that_broke_beside_its_findings_gets_a_case_of_its_own() -> None:
    passed = factory.finding(factory.rule(), Status.PASS, (0.0, -0.01, 0.01))
    broken = factory.stage("domain", "fraud", Status.ERROR, [passed], notes=["worker was killed"])
    root = parsed(factory.record(Status.ERROR, [broken], exit_code=4))
    assert outcome(case(root, "fraud.accuracy.max_drop")) == "passed"
    assert case(root, "fraud")[0].get("message") == "could not measure: worker was killed"


def test_times_add_up() -> None:
    root = parsed(RECORDS["regression"])
    cases = sum(round(float(c.get("time", "")) * 1000) for c in root.iter("testcase"))
    assert cases == sum(round(float(s.get("time", "")) * 1000) for s in root)
    assert abs(cases / 1000 - RECORDS["regression"].seconds) < 0.005


def test_hostile_text_reaches_the_reader_as_text() -> None:
    xml = junit.render(RECORDS["hostile"])
    root = ET.fromstring(xml.encode())
    failure = case(root, "fraud.acc.max_drop")[0]
    assert "</failure>]]><script>alert(1)</script>" in (failure.text or "")
    assert "\n##\u200b[error]boom" in (failure.text or ""), "line breaks stay, and no line is a command"
    assert "\x1b" not in xml
    assert not re.search(r"(?m)^\s*::", xml)


def test_two_cases_of_one_name_are_refused() -> None:
    twice = [factory.finding(factory.rule(), Status.PASS, (0.0, -0.01, 0.01))] * 2
    record = factory.record(Status.PASS, [factory.stage("domain", "fraud", Status.PASS, twice)])
    with pytest.raises(ValueError, match="3 cases were meant, 3 written, 2 with unique names"):
        junit.render(record)


def test_a_finding_that_says_nothing_cannot_be_written_as_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """junit-xml writes a failure without message and text as a passed test."""
    monkeypatch.setattr(junit, "story", lambda row: "\x1b[0m")
    with pytest.raises(ValueError, match="says nothing"):
        junit.render(RECORDS["regression"])


def test_the_written_file_is_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library loses is noticed: here it drops every failure."""
    monkeypatch.setattr("junit_xml.TestCase.add_failure_info", lambda self, **said: None)
    with pytest.raises(ValueError, match="2 failures were meant, 0 written, 0 counted"):
        junit.render(RECORDS["regression"])


@pytest.mark.skipif(not XSD.exists(), reason="Jenkins' junit-10.xsd is not here; set QUANTGATE_JUNIT_XSD")
@pytest.mark.parametrize("name", sorted(RECORDS))
def test_jenkins_schema(name: str) -> None:
    """Valid but for `file` and `line`, which GitLab and others read and Jenkins' schema does not list."""
    from lxml import etree

    tree = etree.fromstring(junit.render(RECORDS[name]).encode())
    for element in tree.iter("testcase"):
        element.attrib.pop("file", None)
        element.attrib.pop("line", None)
    etree.XMLSchema(etree.parse(str(XSD))).assertValid(tree)


def test_a_run_that_warn_does_not_let_pass_is_no_green_case() -> None:
    warned = factory.inconclusive({**factory.POLICY, "on_inconclusive": "warn"})
    assert outcome(case(parsed(warned), "verdict")) == "skipped"
    assert outcome(case(parsed(replace(warned, exit_code=3)), "verdict")) == "error"
