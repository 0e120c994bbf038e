"""JUnit XML for CI systems: one suite per stage, one case per rule, and one case for the verdict.

Pure: RunRecord → str.  Never writes a failure as passed: the result is parsed again and counted.

How statuses are written: REGRESSION is a `<failure>`; ERROR, REFUSED and, unless the policy warns and that lets the run
pass, INCONCLUSIVE are an `<error>`; everything else that is not a pass is `<skipped>` with its reason: rules of
skipped stages, a warned-about INCONCLUSIVE, what is waived, and advisory rules, which must neither fail a job nor look
green.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass

from junit_xml import TestCase, TestSuite, to_xml_report_string
from pydantic import ValidationError

from gate.policy import Policy, planned_rules
from gate.records import Rule, RunRecord, Severity, StageResult, Status
from gate.reports import escape, figures, governance, numbers, quality
from gate.reports.allowance import ranked
from gate.reports.rows import Row, row, story
from gate.reports.sentence import PASSED_WITH_WAIVER, TITLES, title

_MESSAGE_LIMIT = 400
_COUNTED = {"failure": "failures", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """`outcome` is `passed`, `failure`, `error` or `skipped`."""

    classname: str
    name: str
    outcome: str
    status: Status
    message: str
    text: str
    line: int | None


def outcome(status: Status, *, advisory: bool, on_inconclusive: str, waived: bool = False) -> str:
    """The JUnit outcome of a status: `passed`, `failure`, `error` or `skipped`."""
    if status is Status.PASS:
        return "passed"
    if advisory or waived or status is Status.SKIPPED or (status is Status.INCONCLUSIVE and on_inconclusive == "warn"):
        return "skipped"
    return "failure" if status is Status.REGRESSION else "error"


def render(record: RunRecord) -> str:
    """The JUnit XML of a run.

    Raises:
        ValueError: the XML does not say what the record says.
    """
    suites = [("gate", [_verdict_case(record)], _outside_stages(record))]
    suites += [(f"gate.{s.name}", _stage_cases(record, s), s.seconds) for s in record.stages]
    text = _finished(_library_xml(record, suites), suites)
    _check(text, [case for _, cases, _ in suites for case in cases])
    return text


def _policy_says(record: RunRecord) -> str:
    """`warn` where it lets this run pass: a run of which a part was never measured fails in spite of it."""
    if record.verdict.status is Status.INCONCLUSIVE and record.exit_code:
        return "fail"
    return str(record.policy.get("on_inconclusive", "fail"))


def _outside_stages(record: RunRecord) -> float:
    return max(record.seconds - sum(s.seconds for s in record.stages), 0.0)


def _verdict_case(record: RunRecord) -> _Case:
    status = record.verdict.status
    skipped = [f"not run: {s.name}: {s.skipped_because}" for s in record.stages if s.status is Status.SKIPPED]
    waived = title(record) == PASSED_WITH_WAIVER
    change = record.policy_change
    facts = [
        record.verdict.sentence,
        "",
        *([governance.about_waivers(record)] if record.waivers else []),
        *(f"waiver: {w.rule}: {governance.waived(w)}" for w in record.waivers),
        *([f"{governance.BAR}: {governance.about_rules(change)}. {governance.about_moves(change)}"] if change else []),
        *(f"deciding rule: {rule_id}" for rule_id in record.verdict.deciding),
        *skipped,
        *([quality.line(record.quality)] if record.quality is not None else []),
        *(f"{p.stage}{figures.label(p)}: {said}" for p in record.performance for said in figures.sentences(p)),
        *(f"note: {note}" for note in record.notes),
        f"run {record.run_id}, exit code {record.exit_code}, {numbers.duration(record.seconds)}",
    ]
    how = outcome(status, advisory=False, on_inconclusive=_policy_says(record), waived=waived)
    return _Case(
        classname="gate",
        name="verdict",
        outcome="error" if status is Status.SKIPPED else how,
        status=status,
        message=_titled(record.verdict.sentence) if waived else record.verdict.sentence,
        text="\n".join(facts),
        line=None,
    )


def _titled(sentence: str) -> str:
    """The sentence of a run that passed with waiver; this gate's own begins so already."""
    said = sentence.lower().startswith(PASSED_WITH_WAIVER)
    return sentence if said else f"{PASSED_WITH_WAIVER}: {sentence}"


def _stage_cases(record: RunRecord, stage: StageResult) -> list[_Case]:
    cases = [
        _rule_case(record, row(stage, f, governance.waiver_of(record, f))) for s, f in ranked(record) if s is stage
    ]
    if stage.status is Status.SKIPPED and not cases:
        cases = [_unasked_case(stage, rule) for rule in _planned(record) if rule.stage == stage.name]
    unexplained = stage.status in (Status.ERROR, Status.REFUSED) and all(c.status is not stage.status for c in cases)
    if not cases or unexplained:
        cases.append(_stage_case(record, stage))
    return cases


def _stage_case(record: RunRecord, stage: StageResult) -> _Case:
    """For what no rule of the stage can say: it was skipped, or it broke as a whole."""
    said = (
        stage.skipped_because
        or "; ".join(note.rstrip(".") for note in stage.notes)
        or "the stage has no finding and says no more"
    )
    # a stage that claims a pass without a single finding has measured nothing
    status = Status.ERROR if stage.status is Status.PASS else stage.status
    return _Case(
        classname=f"gate.{stage.name}",
        name=stage.name,
        outcome=outcome(status, advisory=False, on_inconclusive=_policy_says(record)),
        status=status,
        message=f"{TITLES[status]}: {said}",
        text=f"stage {stage.name} ({stage.kind})\n{TITLES[status]}: {said}",
        line=None,
    )


def _planned(record: RunRecord) -> tuple[Rule, ...]:
    """The rules of the record's policy; none where this version cannot read it, and a stage then speaks for them."""
    try:
        return planned_rules(Policy.model_validate(dict(record.policy)), {})
    except ValidationError:
        return ()


def _unasked_case(stage: StageResult, rule: Rule) -> _Case:
    """A planned rule of a stage that did not run: under the name that it has when it does."""
    said = f"{TITLES[Status.SKIPPED]}: {stage.skipped_because}"
    bound = f"{rule.metric} {rule.bound.kind}: {rule.bound.text} ({rule.severity})"
    return _Case(
        classname=_classname(rule),
        name=rule.id,
        outcome="skipped",
        status=Status.SKIPPED,
        message=said,
        text=f"{bound}\nstage {stage.name} ({stage.kind})\n{said}",
        line=rule.line,
    )


def _classname(rule: Rule) -> str:
    return ".".join(["gate", rule.stage] + ([rule.source] if rule.source != rule.stage else []))


def _rule_case(record: RunRecord, one: Row) -> _Case:
    rule = one.finding.rule
    prefix = "advisory: " if rule.severity is Severity.ADVISORY else ""
    prefix += f"{governance.waived(one.waiver)}: " if one.waiver is not None else ""
    return _Case(
        classname=_classname(rule),
        name=rule.id,
        outcome=outcome(
            one.finding.status,
            advisory=one.advisory,
            on_inconclusive=_policy_says(record),
            waived=one.waiver is not None,
        ),
        status=one.finding.status,
        message=f"{prefix}{TITLES[one.finding.status]}: {one.sentence}",
        text=story(one),
        line=rule.line,
    )


def _library_xml(record: RunRecord, suites: list[tuple[str, list[_Case], float]]) -> str:
    properties = {
        "run_id": record.run_id,
        "gate_version": record.gate_version,
        "policy": record.policy_source,
        "policy_digest": record.policy_digest,
        "baseline_digest": record.baseline.digest if record.baseline else "",
        "candidate_digest": record.candidate.digest if record.candidate else "",
        "device": record.environment.device,
    }
    built = [
        TestSuite(
            escape.line(name),
            [_library_case(case, record.policy_source) for case in cases],
            timestamp=numbers.zoneless(record.created_at),
            properties={k: escape.line(v) for k, v in properties.items()} if name == "gate" else None,
        )
        for name, cases, _ in suites
    ]
    return str(to_xml_report_string(built, prettyprint=False, encoding="utf-8"))


def _library_case(case: _Case, policy_source: str) -> TestCase:
    message = escape.workflow(escape.line(case.message, _MESSAGE_LIMIT))
    text = escape.workflow(escape.block(case.text))
    if not message or not text:
        raise ValueError(f"junit: case {case.name!r} says nothing; junit-xml would write it as passed")
    built = TestCase(
        escape.line(case.name),
        classname=escape.line(case.classname),
        file=escape.line(policy_source),
        line=case.line,
        stdout=text if case.outcome == "passed" else None,
    )
    match case.outcome:
        case "failure":
            built.add_failure_info(message=message, output=text, failure_type=case.status)
        case "error":
            built.add_error_info(message=message, output=text, error_type=case.status)
        case "skipped":
            built.add_skipped_info(message=message, output=text)
    return built


def _finished(library_xml: str, suites: list[tuple[str, list[_Case], float]]) -> str:
    """The library's XML with times of three decimals and without `disabled`, which no schema knows.

    A stage is timed as a whole, so its cases share its time equally: sums over cases stay right.
    """
    root = ET.fromstring(library_xml.encode())
    for suite, (_, cases, seconds) in zip(root, suites, strict=True):
        for element, share in zip(suite.iter("testcase"), numbers.shares(seconds, len(cases)), strict=True):
            element.set("time", share)
        suite.set("time", numbers.thousandths(seconds))
        suite.attrib.pop("disabled", None)
    root.set("time", numbers.thousandths(sum(seconds for _, _, seconds in suites)))
    root.set("name", "quantgate")
    root.attrib.pop("disabled", None)
    ET.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def _check(text: str, cases: list[_Case]) -> None:
    """Parse what will be written and compare it with what was meant."""
    root = ET.fromstring(text.encode())
    meant = Counter(c.outcome for c in cases)
    elements = list(root.iter("testcase"))
    seen = {(e.get("classname"), e.get("name")) for e in elements}
    if len(elements) != len(cases) or len(seen) != len(cases):
        raise ValueError(
            f"junit: {len(cases)} cases were meant, {len(elements)} written, {len(seen)} with unique names"
        )
    for tag, attribute in _COUNTED.items():
        written = sum(1 for e in elements if e.find(tag) is not None)
        counted = sum(int(s.get(attribute, "0")) for s in root.iter("testsuite"))
        if not written == counted == meant[tag]:
            raise ValueError(f"junit: {meant[tag]} {attribute} were meant, {written} written, {counted} counted")
    for case, element in zip(cases, elements, strict=True):
        passed = all(element.find(tag) is None for tag in _COUNTED)
        if passed != (case.status is Status.PASS):
            raise ValueError(f"junit: case {case.name!r} is {case.status} but was written as passed={passed}")
