"""All findings → the verdict of a stage and of the run.

Pure.  Starts from what was planned: evidence that is missing is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gate.decide.estimate import margin
from gate.errors import ExitCode
from gate.records import Finding, Rule, Severity, StageResult, Status

_EXIT_CODES = {
    Status.PASS: ExitCode.PASS,
    Status.REGRESSION: ExitCode.REGRESSION,
    Status.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Status.ERROR: ExitCode.ERROR,
    Status.REFUSED: ExitCode.REFUSED,
}


REACHED = "reached"
"""In the counts of a finding: the items measured before time ran out; what was not asked is no doubt to be waived."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The run's status and the ids of the rules that decide it, worst first.

    `complete`: the run was not restricted, no stage was skipped, and every planned blocking rule was judged on all that
    was planned.
    """

    status: Status
    deciding: tuple[str, ...]
    complete: bool


def stage_status(findings: Sequence[Finding]) -> Status:
    """The worst of a stage's blocking findings: REFUSED, ERROR, REGRESSION, INCONCLUSIVE, PASS.

    No findings at all are an ERROR.  A blocking rule that was skipped, or guard rails without any evidence and
    nothing beside them, leave the stage INCONCLUSIVE.  A stage with advisory rules only passes once it learnt
    something and is an ERROR, which decides nothing, if all of them are.
    """
    if not findings:
        return Status.ERROR
    blocking = [f for f in findings if f.rule.severity is Severity.BLOCKING]
    if not blocking:
        if all(f.status is Status.ERROR for f in findings):
            return Status.ERROR
        learnt = any(f.estimate is not None for f in findings)
        return Status.PASS if learnt else Status.INCONCLUSIVE
    return _worst({_counted(f) for f in blocking})


def stops(result: StageResult) -> bool:
    """Does this stage end the run (fail-fast)?  One with advisory rules only never does."""
    advisory = result.findings and all(f.rule.severity is Severity.ADVISORY for f in result.findings)
    return result.status in (Status.REGRESSION, Status.ERROR, Status.REFUSED) and not advisory


def combine(planned: tuple[Rule, ...], stages: tuple[StageResult, ...], restricted: bool) -> Decision:
    """The verdict over all stages.

    REFUSED > REGRESSION that stopped the run > ERROR > REGRESSION > INCONCLUSIVE > PASS.  Every planned blocking
    rule must have a finding unless its stage was skipped.  A skipped rule, a skipped stage (though it only advises: a
    run that fail-fast ended may be judged again, under a policy that it does not fail) and a `restricted` run forbid
    a PASS.
    A restricted run is decided by what was asked: INCONCLUSIVE with deciding rules that PASS says that all of it holds.
    Advisory findings never decide; a guard rail (`by`) counts only when it is red, missing, broken or cut short.
    Nothing blocking planned is an ERROR: a gate that asks nothing must not be green.
    """
    rules = [r for r in planned if r.severity is Severity.BLOCKING]
    verdicts = dict(_verdicts(rules, stages, restricted))
    found = _blocking(stages)
    skipped = any(s.status is Status.SKIPPED for s in stages)
    complete = not restricted and not skipped and all(i in found and _judged_in_full(found[i]) for i in verdicts)
    if restricted:
        # Rules that were not asked decide only where nothing was.
        verdicts = {i: s for i, s in verdicts.items() if i in found or s is not Status.INCONCLUSIVE} or verdicts
    if any(s.status is Status.REFUSED for s in stages) or Status.REFUSED in verdicts.values():
        return _decision(Status.REFUSED, verdicts, found, complete)
    if not rules:
        return Decision(status=Status.ERROR, deciding=(), complete=False)
    if not restricted and _stopped_by_regression(stages):
        return _decision(Status.REGRESSION, verdicts, found, complete)
    status = _worst(set(verdicts.values()))
    if restricted and status is Status.PASS:
        # Only part of the policy was asked: what was asked holds, and that is all that can be said.
        return replace(_decision(status, verdicts, found, complete), status=Status.INCONCLUSIVE)
    if skipped and status is Status.PASS:
        return Decision(status=Status.INCONCLUSIVE, deciding=(), complete=False)
    return _decision(status, verdicts, found, complete)


def exit_code(status: Status, on_inconclusive: str, *, complete: bool) -> int:
    """The process exit code; `on_inconclusive` is the policy's `fail` or `warn`.

    `warn` accepts doubt about what was measured, so it says nothing of a run that is not `complete`.

    Raises:
        ValueError: SKIPPED, which is no verdict, or an unknown `on_inconclusive`.
    """
    if on_inconclusive not in ("fail", "warn"):
        raise ValueError(f"found on_inconclusive {on_inconclusive!r}, expected fail or warn")
    if status not in _EXIT_CODES:
        raise ValueError(f"found {status} for a run, expected a verdict: {', '.join(_EXIT_CODES)}")
    if status is Status.INCONCLUSIVE and on_inconclusive == "warn" and complete:
        return int(ExitCode.PASS)
    return int(_EXIT_CODES[status])


def _counted(finding: Finding) -> Status | None:
    """What a blocking finding counts as; None for a guard rail without evidence, which neither blocks nor passes."""
    if finding.status is Status.SKIPPED:
        return Status.INCONCLUSIVE
    if finding.rule.by is not None and finding.status is Status.INCONCLUSIVE and _judged_in_full(finding):
        return None
    return finding.status


def _judged_in_full(finding: Finding) -> bool:
    """It rests on all that was planned, not on what was reached in time."""
    judged = finding.status in (Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE)
    return judged and REACHED not in finding.counts


def _worst(statuses: set[Status | None]) -> Status:
    for status in (Status.REFUSED, Status.ERROR, Status.REGRESSION, Status.INCONCLUSIVE):
        if status in statuses:
            return status
    return Status.PASS if Status.PASS in statuses else Status.INCONCLUSIVE


def _verdicts(
    rules: Sequence[Rule], stages: Sequence[StageResult], restricted: bool
) -> Iterator[tuple[str, Status | None]]:
    """What every blocking rule counts as, by id: planned ones in order, then found ones that nobody planned."""
    found = _blocking(stages)
    by_name = {s.name: s for s in stages}
    for rule in rules:
        stage = by_name.get(rule.stage)
        if rule.id in found:
            yield rule.id, _counted(found[rule.id])
        elif stage is None:
            yield rule.id, Status.INCONCLUSIVE if restricted else Status.ERROR
        else:
            yield rule.id, Status.INCONCLUSIVE if stage.status is Status.SKIPPED else Status.ERROR
    planned = {rule.id for rule in rules}
    for identifier, finding in found.items():
        if identifier not in planned:
            yield identifier, _counted(finding)


def _blocking(stages: Sequence[StageResult]) -> dict[str, Finding]:
    """The blocking findings by rule id; of two with one id, the worse counts."""
    found: dict[str, Finding] = {}
    for finding in (f for s in stages for f in s.findings if f.rule.severity is Severity.BLOCKING):
        known = found.get(finding.rule.id)
        if known is None or _worst({known.status, finding.status}) is not known.status:
            found[finding.rule.id] = finding
    return found


def _stopped_by_regression(stages: Sequence[StageResult]) -> bool:
    """A blocking REGRESSION is the last thing before something was skipped."""
    last: StageResult | None = None
    for stage in stages:
        if stage.status is not Status.SKIPPED:
            last = stage
        if last is None:
            continue
        statuses = {f.status for f in last.findings if f.rule.severity is Severity.BLOCKING}
        skipped = stage.status is Status.SKIPPED or any(f.status is Status.SKIPPED for f in stage.findings)
        if skipped and Status.REGRESSION in statuses:
            return True
    return False


def _decision(
    status: Status, verdicts: Mapping[str, Status | None], found: Mapping[str, Finding], complete: bool
) -> Decision:
    def beyond(identifier: str) -> float:
        finding = found.get(identifier)
        if finding is None or finding.estimate is None or finding.interval is None:
            return -math.inf  # nothing to rank it by: after those with numbers, in the order planned
        limits = finding.interval.low, finding.interval.high
        return margin(finding.estimate, limits, finding.rule.bound)

    deciding = [i for i, s in verdicts.items() if s is status]
    if status is Status.INCONCLUSIVE and not deciding:  # guard rails without evidence, and nothing beside them
        deciding = [i for i, s in verdicts.items() if s is None]
    return Decision(status=status, deciding=tuple(sorted(deciding, key=beyond, reverse=True)), complete=complete)
