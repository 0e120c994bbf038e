"""Remarks on the policy's own lines: one for each rule that did not simply hold, of all candidates, worst first.

Pure.  Says what the findings say; the severity of a remark follows the rule's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gate.errors import UsageError
from gate.publish import limits
from gate.publish.conclusion import contradiction
from gate.publish.model import Annotation, Candidate
from gate.records import Finding, RunRecord, Severity, StageResult, Status
from gate.reports import allowance, escape, governance
from gate.reports.rows import row

MAX_ANNOTATIONS = 200
"""Four requests; more remarks on one file help nobody, and the table in the summary has all rules."""

_LEVELS = ("failure", "warning")
_MAX_LINE = 1_000_000
_NAMES_SHOWN = 20
_NAME_CHARACTERS = 60
_PATH = re.compile(r"(?!/)(?!.*(?:^|/)\.{1,2}(?:/|$))[^\x00-\x1f\x7f\\\ud800-\udfff\U00010000-\U0010ffff]{1,1000}")


def remarks(candidates: Sequence[Candidate], policy_path: str | None) -> tuple[Annotation, ...]:
    """The remarks, at most MAX_ANNOTATIONS, of all candidates; what a rule says of several of them is one remark.

    None without a path, and none on a policy that the pull request changes: its lines are others than those of the
    base branch's policy that judged.

    Raises:
        UsageError: `policy_path` is no path inside the repository.
    """
    if policy_path is None:
        return ()
    path = checked_path(policy_path)
    alike: dict[tuple[int, str, str, str], list[_Found]] = {}
    for candidate in candidates:
        for one in _ranked(candidate, path):
            alike.setdefault((one.line, one.finding.rule.id, one.level, one.title), []).append(one)
    # sorting is stable: of one level, the first candidate's worst come first
    groups = sorted(alike.values(), key=lambda some: _LEVELS.index(some[0].level))
    return tuple(_annotation(_worst_first(some), len(candidates), path) for some in groups[:MAX_ANNOTATIONS])


def checked_path(path: str) -> str:
    """A path as GitHub's trees have it: relative, with slashes.

    Raises:
        UsageError: it is another one.
    """
    plain = path.removeprefix("./")
    if not _PATH.fullmatch(plain):
        raise UsageError(f"found --policy-path {path[:120]!r}, expected the policy's path inside the repository")
    return plain


def changes_policy(record: RunRecord, path: str) -> bool:
    return record.policy_change is not None and path in record.policy_change.paths


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A finding to be remarked on.  `title` is its status in words, `waived` who answers for it, or empty."""

    name: str
    stage: StageResult
    finding: Finding
    line: int
    level: str
    title: str
    waived: str


def _ranked(candidate: Candidate, path: str) -> list[_Found]:
    """What is to be remarked on, worst first."""
    record = candidate.record
    if record is None or changes_policy(record, path) or contradiction(record) is not None:
        return []
    return [
        _found(candidate.name, record, stage, finding)
        for stage, finding in allowance.ranked(record)
        if finding.status is not Status.PASS and 0 < (finding.rule.line or 0) <= _MAX_LINE
    ]


def _found(name: str, record: RunRecord, stage: StageResult, finding: Finding) -> _Found:
    waiver = governance.waiver_of(record, finding)
    title = row(stage, finding).title
    return _Found(
        name=escape.line(name, _NAME_CHARACTERS),
        stage=stage,
        finding=finding,
        line=finding.rule.line or 0,
        level=_level(record, finding),
        title=title if waiver is None else f"waived {title}",
        waived="" if waiver is None else governance.waived(waiver),
    )


def _worst_first(alike: Sequence[_Found]) -> list[_Found]:
    """The same remark of several candidates, by how far beyond the bound each is."""
    place = {id(finding): k for k, finding in enumerate(allowance.worst_first([one.finding for one in alike]))}
    return sorted(alike, key=lambda one: place[id(one.finding)])


def _annotation(alike: Sequence[_Found], candidates: int, path: str) -> Annotation:
    """One remark: the worst candidate's sentence, and for how many of `candidates` it stands."""
    worst = alike[0]
    title = f"{worst.title}: {worst.finding.rule.id}"
    said = [row(worst.stage, worst.finding).sentence, *([worst.waived] if worst.waived else [])]
    if len(alike) > 1:
        many = f"in {len(alike)} of {candidates} candidates"
        title += f" {many}"
        said = [f"{many}: {_names(alike)}", f"worst {worst.name}: {said[0]}", *said[1:]]
    elif candidates > 1:
        title = f"{worst.name}: {title}"
    return Annotation(
        path=path,
        line=worst.line,
        level=worst.level,
        title=limits.title(title),
        message=limits.bmp(limits.plain("\n".join(escape.line(s) for s in said), limits.ANNOTATION_BYTES)),
    )


def _names(alike: Sequence[_Found]) -> str:
    left = len(alike) - _NAMES_SHOWN
    more = f" and {left:,} more" if left > 0 else ""
    return ", ".join(one.name for one in alike[:_NAMES_SHOWN]) + more


def _level(record: RunRecord, finding: Finding) -> str:
    if finding.rule.severity is Severity.ADVISORY or governance.waiver_of(record, finding) is not None:
        return "warning"
    # a guard rail that saw nothing does not keep a run from passing: no failure on a green check
    return "warning" if record.verdict.status is Status.PASS else "failure"
