"""junit.xml read back by junitparser, which many CI scripts use to merge and count results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from junitparser import JUnitXml, TestCase, TestSuite

from gate.records import RunRecord, Severity, Status
from gate.reports import junit
from tests.junit_consumers import meant


def read(record: RunRecord, folder: Path) -> JUnitXml:
    path = folder / "junit.xml"
    path.write_text(junit.render(record), encoding="utf-8")
    found = JUnitXml.fromfile(str(path))
    assert isinstance(found, JUnitXml)
    return found


def cases(xml: JUnitXml) -> Iterator[TestCase]:
    for suite in xml:
        assert isinstance(suite, TestSuite)
        yield from suite


def outcome(case: TestCase) -> str:
    said = {
        "passed": case.is_passed,
        "failure": case.is_failure,
        "error": case.is_error,
        "skipped": case.is_skipped,
    }
    [one] = [name for name, is_so in said.items() if is_so]
    return one


@pytest.mark.parametrize("name", sorted(meant.RECORDS))
def test_counts_are_those_of_the_record(name: str, tmp_path: Path) -> None:
    record = meant.RECORDS[name]
    xml = read(record, tmp_path)
    expected = meant.counts(record)
    assert Counter(outcome(case) for case in cases(xml)) == expected
    written = [(s.tests, s.failures, s.errors, s.skipped) for s in xml]
    totals = [sum(column) for column in zip(*written, strict=True)]
    assert totals == [expected.total(), expected["failure"], expected["error"], expected["skipped"]]
    xml.update_statistics()  # type: ignore[no-untyped-call]
    counted = [(s.tests, s.failures, s.errors, s.skipped) for s in xml]
    assert counted == written, "what the suites say of themselves is what is in them"


@pytest.mark.parametrize("name", sorted(meant.RECORDS))
def test_every_rule_has_the_outcome_of_its_finding(name: str, tmp_path: Path) -> None:
    record = meant.RECORDS[name]
    found = {case.name: case for case in cases(read(record, tmp_path))}
    assert outcome(found["verdict"]) == meant.of_verdict(record)
    for rule, expected in meant.findings(record).items():
        case = found[rule]
        assert outcome(case) == expected, rule
        if expected != "passed":
            [result] = case.result
            assert result.message
            assert result.text
            assert "\x1b" not in result.text


def test_a_waived_run_is_neither_failed_nor_passed(tmp_path: Path) -> None:
    record = meant.RECORDS["waived"]
    xml = read(record, tmp_path)
    assert sum(s.failures + s.errors for s in xml) == 0
    [waiver] = record.waivers
    for name in ("verdict", waiver.rule):
        [case] = [c for c in cases(xml) if c.name == name]
        [result] = case.result
        assert outcome(case) == "skipped"
        assert "waive" in f"{result.message} {result.text}"
    [rule] = [c for c in cases(xml) if c.name == waiver.rule]
    assert waiver.owner in (rule.result[0].text or "")
    assert waiver.expires in (rule.result[0].text or "")


def test_the_records_hold_every_outcome() -> None:
    """What is compared above is not always the same."""
    seen = Counter[str]()
    for record in meant.RECORDS.values():
        seen += meant.counts(record)
    assert all(seen[name] for name in ("passed", "failure", "error", "skipped"))
    statuses = {f.status for r in meant.RECORDS.values() for s in r.stages for f in s.findings}
    assert statuses >= {Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE, Status.ERROR}
    assert any(
        f.rule.severity is Severity.ADVISORY and f.status is Status.REGRESSION
        for r in meant.RECORDS.values()
        for s in r.stages
        for f in s.findings
    )
