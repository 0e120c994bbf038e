"""`gate ci outputs`: what a step says of its runs: its outputs, the job summary, one sentence each on stdout.

Judges nothing: a run without a record is an ERROR, and an exit code that a record contradicts is believed if it is red.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gate.ci import job
from gate.decide import waiver as waiving
from gate.errors import ExitCode
from gate.publish import candidates
from gate.publish.model import Candidate
from gate.records import Status
from gate.reports import candidates as pages
from gate.reports import escape

NOTHING_GATED = "No checkpoint changed: nothing was gated."
MAX_SENTENCE_CHARACTERS = 1000
_LEAST_SUMMARY_BYTES = 8_192
"""Less room shows nothing that can be read."""

_ENDED = {
    ExitCode.USAGE: "the request, the policy or its data is wrong, and nothing was run",
    ExitCode.INTERNAL: "a bug in the gate, not a verdict",
    ExitCode.INTERRUPTED: "it was interrupted",
    128 + 9: "it was killed, most often because memory ran out",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the step says: outputs, and a line for every candidate, worst first, cleaned for a terminal.

    Attributes:
        status: the worst; SKIPPED where nothing was to be gated.
        run_json: path of the record of a single run; empty where there is none, or several.
        remarks: what went wrong while saying so.
    """

    status: Status
    exit_code: int
    sentence: str
    run_json: str
    lines: tuple[str, ...]
    remarks: tuple[str, ...]


def say(dirs: Sequence[Path], expect: Sequence[str] | None, code: int | None, environ: Mapping[str, str]) -> Said:
    """Read the folders; write GITHUB_OUTPUT and the job summary.

    `code` is how `gate run` ended, where there is one run.

    Raises:
        UsageError: `expect` is no list of names, or a file of the job cannot be written.
    """
    found = candidates.read(dirs, expect)
    said = _said(found, code if len(found) == 1 else None)
    if len(found) == 1 and found[0].record is not None and os.path.lexists(dirs[0] / "run.json"):
        said = replace(said, run_json=str(dirs[0] / "run.json"))
    job.set_outputs(
        {
            "status": said.status.value,
            "exit-code": str(said.exit_code),
            "sentence": said.sentence,
            "run-json": said.run_json,
        },
        environ,
    )
    shown = [_with_code(one, code) for one in found] if len(found) == 1 else found
    return replace(said, remarks=tuple(_summarise(shown, said, environ)))


def _said(found: Sequence[Candidate], code: int | None) -> Said:
    if not found:
        return _one(Status.SKIPPED, 0, NOTHING_GATED)
    ended = {one.name: _ended(one, code) for one in found}
    order = [name for name, _ in pages.worst_first(_named(found))]
    if len(found) == 1:
        return ended[order[0]]
    order.sort(key=lambda name: ended[name].exit_code == 0)  # what fails the job comes first
    worst = ended[order[0]]
    red = sum(one.exit_code != 0 for one in ended.values())
    how = f"{red} of {len(found)} candidates did not pass" if red else f"all {len(found)} candidates passed"
    sentence = escape.line(f"{how}; {order[0]}: {worst.sentence}", MAX_SENTENCE_CHARACTERS)
    lines = tuple(f"{ended[name].status} {name}: {ended[name].sentence}" for name in order)
    return replace(worst, sentence=sentence, lines=lines)


def _ended(one: Candidate, code: int | None) -> Said:
    """One candidate; where `gate run` and the record disagree, whatever is red."""
    if one.record is None:
        why = f"gate run ended with exit code {code}{_meaning(code)}" if code else one.problem
        return _one(Status.ERROR, code or int(ExitCode.ERROR), f"Could not measure: {why}; no record was written.")
    status, sentence = one.record.verdict.status, one.record.verdict.sentence
    if code and code != one.record.exit_code:
        said = f"Could not measure: gate run ended with exit code {code}{_meaning(code)}, its record says: {sentence}"
        return _one(Status.ERROR, code, said)
    if status is not Status.PASS and one.record.exit_code == 0 and not _may_be_green(one):
        return _one(Status.ERROR, int(ExitCode.ERROR), f"The record contradicts itself: {status} with exit code 0.")
    return _one(status, one.record.exit_code, sentence)


def _with_code(one: Candidate, code: int | None) -> Candidate:
    """The candidate as the job summary shows it: without a record, the exit code is all that is known."""
    if one.record is not None or not code:
        return one
    return replace(one, problem=f"gate run ended with exit code {code}{_meaning(code)}; {one.problem}")


def _may_be_green(one: Candidate) -> bool:
    """A waived REGRESSION, and what is inconclusive where the policy only warns."""
    assert one.record is not None
    if one.record.verdict.status is Status.REGRESSION:
        return bool(one.record.waivers)
    return one.record.verdict.status is Status.INCONCLUSIVE


def _one(status: Status, code: int, sentence: str) -> Said:
    line = escape.line(sentence, MAX_SENTENCE_CHARACTERS)
    return Said(status=status, exit_code=code, sentence=line, run_json="", lines=(f"{status} {line}",), remarks=())


def _meaning(code: int) -> str:
    meaning = next((text for known, text in _ENDED.items() if known == code), None)
    return f" ({meaning}): its log says more" if meaning else ""


def _named(found: Sequence[Candidate]) -> list[pages.Named]:
    return [(one.name, one.problem if one.record is None else one.record) for one in found]


def _summarise(found: Sequence[Candidate], said: Said, environ: Mapping[str, str]) -> list[str]:
    """Append to the job summary; what is missing of it, in a sentence."""
    room = job.summary_room(environ)
    if not environ.get("GITHUB_STEP_SUMMARY"):
        return []
    if room < _LEAST_SUMMARY_BYTES:
        return ["the job summary is full: nothing was added, the report is in the output folder"]
    head = "" if said.status in {one.status for one in found} else f"**{escape.markdown(said.sentence)}**\n\n"
    try:
        page = pages.render(_named(found), room - len(head.encode()) - 1, waiving.identity) if found else ""
    except ValueError as problem:
        return [f"the job summary was not written: {problem}"]
    job.add_to_summary(escape.workflow(f"{head}{page}").rstrip("\n") + "\n", environ)
    return []
