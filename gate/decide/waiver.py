"""Waivers: which of them count for a checkpoint on a day, and what a run comes to with them.

Pure: the day is an argument.  Changes no status: a waived rule stays red, and nothing but a REGRESSION can be waived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from gate.decide import combine
from gate.decide.combine import Decision
from gate.records import CheckpointRef, Finding, Rule, Severity, StageResult, Status, Waiver

NOTE = "waiver: "
"""How every note about waivers begins; a run that is judged again makes its own."""

_AS_STORED = b'{"dtype":"auto","load":{}}'
"""What `checkpoint.identity` hashes beside the tensors of a checkpoint that is loaded as its files are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The waivers that count for one run, known before it measures, and what is to be said of the others."""

    in_force: tuple[Waiver, ...]
    notes: tuple[str, ...]

    @property
    def rules(self) -> frozenset[str]:
        return frozenset(w.rule for w in self.in_force)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """What a run comes to.

    Attributes:
        decision: what the record says; REGRESSION where nothing worse than waived rules was found.
        rest: the decision if the waived rules had held; the same where none was applied.
        applied: the waivers of blocking rules that are red, whatever the exit code.
        exit_code: 0 for a REGRESSION only where `rest` lets the run pass.
    """

    decision: Decision
    rest: Decision
    applied: tuple[Waiver, ...]
    exit_code: int


NONE = Standing(in_force=(), notes=())


def identity(ref: CheckpointRef) -> str:
    """The digest that a waiver must name: of the files, or, where load settings change them, the effective one.

    A checkpoint quantized when it is loaded has the files of its baseline: they say nothing of how it is loaded.
    """
    as_stored = hashlib.sha256(ref.tensor_digest.encode() + b"\n" + _AS_STORED).hexdigest()
    return ref.digest if ref.effective_digest in (as_stored, ref.tensor_digest) else ref.effective_digest


def standing(waivers: Sequence[Waiver], candidate: CheckpointRef | None, day: str) -> Standing:
    """The waivers of this candidate on this day (ISO, UTC); one holds up to and including the day it names.

    Those of other checkpoints are left out without a word.
    """
    if candidate is None:
        unknown = f"{NOTE}none was applied, since these results do not say which checkpoint they are of"
        return Standing(in_force=(), notes=(unknown,) if waivers else ())
    mine = identity(candidate)
    others = {candidate.digest, candidate.tensor_digest, candidate.effective_digest} - {mine}
    in_force, notes = [], []
    for one in waivers:
        if one.checkpoint in others:
            notes.append(f"{_of(one)} is ignored: {one.checkpoint[:12]}… {_not_enough(candidate)} {mine}")
        elif one.checkpoint == mine and one.expires < day:
            notes.append(f"{_of(one)} is ignored: it expired, today is {day}")
        elif one.checkpoint == mine:
            in_force.append(one)
    return Standing(in_force=tuple(in_force), notes=tuple(notes))


def _not_enough(candidate: CheckpointRef) -> str:
    if identity(candidate) == candidate.digest:
        return "are this checkpoint's tensors and not all of its files, expected the digest of these:"
    return "are this checkpoint's files, and it is loaded with settings of its own, expected its effective digest:"


def granted(stages: Sequence[StageResult], rules: Set[str]) -> tuple[StageResult, ...]:
    """The stages as if these blocking rules had held where they are red; everything else is as it was."""
    return tuple(_granted(s, rules) for s in stages)


def _granted(stage: StageResult, rules: Set[str]) -> StageResult:
    findings = tuple(replace(f, status=Status.PASS) if _red(f) and f.rule.id in rules else f for f in stage.findings)
    if findings == stage.findings:
        return stage
    return replace(stage, findings=findings, status=combine.stage_status(findings))


def _red(finding: Finding) -> bool:
    return finding.status is Status.REGRESSION and finding.rule.severity is Severity.BLOCKING


def stops(stage: StageResult, rules: Set[str]) -> bool:
    """Does this stage end the run?  Not for what is waived: what was never measured could not pass."""
    return combine.stops(_granted(stage, rules))


def ruling(
    planned: tuple[Rule, ...],
    stages: tuple[StageResult, ...],
    in_force: Sequence[Waiver],
    *,
    restricted: bool,
    on_inconclusive: str,
) -> Ruling:
    """The decision over all stages, with waivers.

    What is red, broken or refused besides decides as if the waived rules had held; where that is nothing, the run is
    a REGRESSION for its waived rules, and its exit code that of the rest if this is 0.

    Raises:
        ValueError: as `combine.exit_code`.
    """
    plain = combine.combine(planned, stages, restricted)
    red = {f.rule.id for s in stages for f in s.findings if _red(f)}
    applied = tuple(w for w in in_force if w.rule in red)
    if not applied:
        code = combine.exit_code(plain.status, on_inconclusive, complete=plain.complete)
        return Ruling(decision=plain, rest=plain, applied=(), exit_code=code)
    waived = {w.rule for w in applied}
    rest = combine.combine(planned, granted(stages, waived), restricted)
    code = combine.exit_code(rest.status, on_inconclusive, complete=rest.complete)
    if rest.status in (Status.PASS, Status.INCONCLUSIVE):
        if code or plain.status is not Status.REGRESSION:
            code = combine.exit_code(plain.status, on_inconclusive, complete=plain.complete)
        return Ruling(decision=plain, rest=rest, applied=applied, exit_code=code)
    red_too = tuple(i for i in plain.deciding if i in waived) if rest.status is Status.REGRESSION else ()
    return Ruling(
        decision=replace(rest, deciding=(*rest.deciding, *red_too)), rest=rest, applied=applied, exit_code=code
    )


def notes(standing: Standing, applied: Sequence[Waiver], stages: Sequence[StageResult]) -> tuple[str, ...]:
    """What every waiver of this checkpoint did, the ignored ones included."""
    return tuple(_notes(standing, applied, stages))


def _notes(standing: Standing, applied: Sequence[Waiver], stages: Sequence[StageResult]) -> Iterator[str]:
    yield from standing.notes
    for one in standing.in_force:
        if one in applied:
            yield f"{_of(one)} was applied, the rule is red: {one.reason}"
        else:
            yield f"{_of(one)} was not applied: {_unused(one, stages)}"


def _unused(waiver: Waiver, stages: Sequence[StageResult]) -> str:
    found = [f for s in stages for f in s.findings if f.rule.id == waiver.rule]
    if not found:
        return "this run did not judge a rule of that id"
    if found[0].rule.severity is Severity.ADVISORY:
        return "the rule is advisory and fails no run"
    if found[0].status is Status.PASS:
        return "the rule holds"
    return f"the rule ended in {found[0].status}, and only a REGRESSION can be waived"


def _of(waiver: Waiver) -> str:
    return f"{NOTE}that of {waiver.rule} by {waiver.owner} until {waiver.expires}"
