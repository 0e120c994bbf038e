"""What a record means, counted from its statuses: what every reader of its junit.xml has to find there.

Says the rules in its own words and shares no code with the renderer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from gate.decide import waiver
from gate.records import Finding, RunRecord, Severity, Status, Waiver
from tests import records_factory as factory


def waived() -> RunRecord:
    """A red run that passes because somebody answers for its red rule."""
    red = factory.regression()
    assert red.candidate is not None
    answered = Waiver(
        rule=red.verdict.deciding[0],
        checkpoint=waiver.identity(red.candidate),
        owner="ada",
        reason="known, fixed in the next export",
        expires="2026-12-31",
    )
    return replace(red, waivers=(answered,), exit_code=0)


RECORDS = factory.everything() | {"waived": waived()}


def of_finding(record: RunRecord, found: Finding) -> str:
    """`passed`, `failure`, `error` or `skipped`."""
    if found.status is Status.PASS:
        return "passed"
    if found.rule.severity is Severity.ADVISORY or _is_waived(record, found):
        return "skipped"
    return _of(record, found.status)


def of_verdict(record: RunRecord) -> str:
    """A waived run is no failure; nor is it a pass that nobody would look at."""
    if record.verdict.status is Status.REGRESSION and record.waivers and record.exit_code == 0:
        return "skipped"
    return _of(record, record.verdict.status)


def findings(record: RunRecord) -> dict[str, str]:
    """Rule id → outcome."""
    return {f.rule.id: of_finding(record, f) for stage in record.stages for f in stage.findings}


def counts(record: RunRecord) -> Counter[str]:
    """How many cases of each outcome: the verdict, every finding, and one for each planned rule that was not asked.

    The policies of these records name no stages, so that a stage without findings is one case; `sequential` names
    two rules of a stage that was never reached.
    """
    found = Counter([of_verdict(record), *findings(record).values()])
    for stage in record.stages:
        if stage.status is Status.SKIPPED:
            planned = [s for s in record.policy.get("stages", ()) if s["name"] == stage.name]
            found["skipped"] += len(planned[0]["rules"]) if planned else 1
    return found


def _of(record: RunRecord, status: Status) -> str:
    if status is Status.INCONCLUSIVE and record.policy["on_inconclusive"] == "warn" and record.exit_code == 0:
        return "skipped"
    return {Status.PASS: "passed", Status.REGRESSION: "failure", Status.SKIPPED: "skipped"}.get(status, "error")


def _is_waived(record: RunRecord, found: Finding) -> bool:
    return found.status is Status.REGRESSION and any(w.rule == found.rule.id for w in record.waivers)
