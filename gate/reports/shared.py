"""A record as it may leave the machine: without prompts, answers and targets, as `share_examples` in its policy says.

Pure: RunRecord → RunRecord.  Statuses, numbers, ids of rules and names of groups stay as they are; what it does not
know to be the gate's own words goes (see `own_words`).  Done twice it changes nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from gate.records import Finding, Flip, Performance, RunRecord, StageResult, Status
from gate.reports import numbers
from gate.reports.own_words import CUT, own_words, without_items
from gate.reports.sentence import quoted, sentence

Level = Literal["none", "ids", "full"]

_WHY_LOST = re.compile(r"(could not be measured) \((?!it\b).*\)(?= at )")
_COULD_NOT = "Could not measure: "
_NOTHING_RAN = "a checkpoint cannot be used"
"""Why stages were skipped whose run ended before a text was read: its sentence speaks of the checkpoint's files."""


def level(policy: Mapping[str, Any]) -> Level:
    """What the policy shares; whatever it says that is not known shares nothing."""
    match policy.get("share_examples"):
        case "full":
            return "full"
        case "ids":
            return "ids"
        case _:
            return "none"


def redacted(record: RunRecord) -> RunRecord:
    """The record that may be published: `full` as it is, `ids` without texts, `none` without examples."""
    share = level(record.policy)
    if share == "full":
        return record
    known = names(record)
    stages = tuple(_stage(s, known) for s in record.stages)
    return replace(
        record,
        stages=stages,
        flips=tuple(_without_texts(f) for f in record.flips) if share == "ids" else (),
        performance=tuple(_performance(p) for p in record.performance),
        verdict=replace(record.verdict, sentence=_sentence(record, stages, known)),
        notes=(*(_note(n, known) for n in record.notes), *_left_out(record, share)),
    )


def names(record: RunRecord) -> frozenset[str]:
    """Names that may be read: what the policy says, rules, stages, tasks, groups, checkpoints."""
    refs = [ref for ref in (record.baseline, record.candidate) if ref is not None]
    rules = [f.rule for s in record.stages for f in s.findings]
    return frozenset(
        (
            *_strings(record.policy),
            record.policy_source,
            *(s.name for s in record.stages),
            *(text for r in rules for text in (r.id, r.source, r.metric)),
            *(m.group for s in record.stages for f in s.findings for m in f.members),
            *(text for ref in refs for text in (ref.uri, ref.uri.rstrip("/").rpartition("/")[2])),
        )
    ) - {""}


def _strings(data: Any) -> Iterator[str]:
    match data:
        case str():
            yield data
        case Mapping():
            for key, value in data.items():
                yield str(key)
                yield from _strings(value)
        case list() | tuple():
            for value in data:
                yield from _strings(value)


def is_without_texts(flip: Flip) -> bool:
    """Was this example shared by its id alone?"""
    return not (flip.prompt or flip.target or flip.baseline_output or flip.candidate_output)


def _without_texts(flip: Flip) -> Flip:
    return replace(flip, prompt="", target="", baseline_output="", candidate_output="")


def _left_out(record: RunRecord, share: Level) -> Iterator[str]:
    flips = [f for f in record.flips if not is_without_texts(f)]
    examples = numbers.count(len(record.flips), "example")
    if share == "none" and record.flips:
        yield f"share_examples none leaves out {examples} of answers that flipped"
    elif flips:
        yield f"share_examples ids leaves out the texts of {examples} of answers that flipped"


def _stage(stage: StageResult, known: Collection[str]) -> StageResult:
    because = stage.skipped_because
    return replace(
        stage,
        findings=tuple(_finding(f, known) for f in stage.findings),
        skipped_because=None if because is None else own_words(because, known),
        notes=tuple(_note(n, known) for n in stage.notes),
    )


def _finding(finding: Finding, known: Collection[str]) -> Finding:
    """A PASS or a REGRESSION is explained by numbers alone; a reason for anything else may end in foreign words."""
    if finding.status in (Status.PASS, Status.REGRESSION):
        return replace(finding, reason=without_items(finding.reason))
    return replace(finding, reason=own_words(finding.reason, known))


def _note(note: str, known: Collection[str]) -> str:
    """What is said of waivers comes from the repository."""
    return note if note.startswith("waiver: ") else own_words(note, known)


def _performance(one: Performance) -> Performance:
    """Remarks are made of figures, but for why something could not be measured."""
    return replace(one, remarks=tuple(_WHY_LOST.sub(r"\1", remark) for remark in one.remarks))


def _sentence(record: RunRecord, stages: tuple[StageResult, ...], known: Collection[str]) -> str:
    """The verdict's sentence with what it quotes of reasons and notes replaced as those are."""
    said, verdict = record.verdict.sentence, record.verdict
    for was, now in sorted(_replaced(record.stages, stages), key=lambda pair: -len(pair[0])):
        if quoted(was) and not _only_its_log(was, now):
            said = said.replace(quoted(was), quoted(now))
    if verdict.status is Status.ERROR and not verdict.deciding:
        if all(s.status is Status.SKIPPED and s.skipped_because == _NOTHING_RAN for s in record.stages):
            return said
        return f"{_COULD_NOT}{own_words(said.removeprefix(_COULD_NOT).removesuffix('.'), known)}."
    found = {f.rule.id: f for s in stages for f in s.findings}
    were = {f.rule.id: f.reason for s in record.stages for f in s.findings}
    deciding = [found[i] for i in verdict.deciding if i in found]
    cut = [f for f in deciding if CUT in f.reason and not _only_its_log(were[f.rule.id], f.reason)]
    if cut and CUT not in said:  # it was not quoted as this gate quotes
        return sentence(verdict.status, deciding, stages, record.policy, complete=record.exit_code == 0)
    return said


def _only_its_log(was: str, now: str) -> bool:
    """Whether only lines after the first are missing, which no sentence quotes."""
    return now == f"{was.partition(chr(10))[0].rstrip()} {CUT}"


def _replaced(before: Sequence[StageResult], after: Sequence[StageResult]) -> set[tuple[str, str]]:
    """(text, text instead of it) of everything that a sentence may quote and that is another one now."""
    pairs: set[tuple[str, str]] = set()
    for was, now in zip(before, after, strict=True):
        pairs |= {(b.reason, a.reason) for b, a in zip(was.findings, now.findings, strict=True)}
        pairs |= set(zip(was.notes, now.notes, strict=True))
        pairs.add((was.skipped_because or "", now.skipped_because or ""))
        pairs.add(("; ".join(n.rstrip(".") for n in was.notes), "; ".join(n.rstrip(".") for n in now.notes)))
    return {(was, now) for was, now in pairs if was != now}
