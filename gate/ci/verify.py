"""`gate ci verify`: the artifact of an untrusted run, taken as data and judged again under the base branch's policy.

Believes no verdict and no waiver of it; what comes out is never greener than its rows, and never than it said itself.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from gate import artifact, outputs
from gate.ci import untrusted_rows
from gate.decide import combine
from gate.errors import ArtifactError, GateError
from gate.finished.run_folder import RunFolder
from gate.policy import Policy
from gate.policy_file import LoadedPolicy
from gate.publish.incoming import is_folder, read_file
from gate.records import Measurement, Role, RunRecord, Severity, Status, Verdict, Waiver
from gate.replay import replay
from gate.reports import shared
from gate.reports.sentence import TITLES

MAX_RECORD_BYTES = 16 * 2**20
MAX_FILE_BYTES = 256 * 2**20
MAX_ALL_BYTES = 512 * 2**20
MAX_FILES = 200
_MAX_NOTES = 50
_ROWS = re.compile(r"[\w .-]{1,200}\.parquet", re.ASCII)

_GREENEST_FIRST = (Status.PASS, Status.INCONCLUSIVE, Status.REGRESSION, Status.ERROR, Status.REFUSED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """The record of the rows, as it may be shared, and how it differs from what the artifact said."""

    record: RunRecord
    differences: tuple[str, ...]


def verify(folder: Path, loaded: LoadedPolicy, waivers: Sequence[Waiver], *, at: datetime) -> Verified:
    """Read the artifact strictly and judge its rows under this policy and these waivers.

    Raises:
        ArtifactError: it is not the output folder of a run, or its rows cannot be judged.
    """
    run = read(folder)
    try:
        judged = shared.redacted(replay(run, loaded, now=at, waivers=waivers).record)
    except (GateError, ArithmeticError, LookupError, TypeError, ValueError) as problem:
        raise ArtifactError(f"its rows cannot be judged: {problem}") from problem
    differences = tuple(_differences(run.record, judged))
    record = _never_greener(run.record, judged)
    return Verified(record=replace(record, notes=(*differences, *record.notes)), differences=differences)


def write(out: Path, record: RunRecord) -> list[str]:
    """Write run.json and the reports, no rows: what is published comes from the record alone.

    Returns what could not be written, each as one sentence.

    Raises:
        ArtifactError: run.json itself was not written.
    """
    outputs.prepare(out)
    try:
        artifact.write_atomic(out / "run.json", artifact.dumps_record(record).encode())
    except OSError as problem:
        raise ArtifactError(f"{out / 'run.json'} was not written ({problem.strerror})") from problem
    return outputs.write_reports(out, record)


def read(folder: Path) -> RunFolder:
    """run.json and observations/*.parquet, and nothing else.

    Raises:
        ArtifactError: one is missing, damaged, too large, a link or no plain file.
    """
    if not is_folder(folder):
        raise ArtifactError(f"found no folder {folder.name!r}, expected the output folder of a run")
    record = artifact.loads_record(read_file(folder / "run.json", limit_bytes=MAX_RECORD_BYTES))
    try:
        ran_under = Policy.model_validate(record.policy)
    except (ValidationError, RecursionError) as problem:
        raise ArtifactError("the policy in its run.json is not one that this gate reads") from problem
    measurements: dict[tuple[str, str, Role], Measurement] = {}
    with tempfile.TemporaryDirectory(prefix="quantgate-") as copies:
        for one in untrusted_rows.read(_copied(folder / "observations", Path(copies))):
            key = (one.stage, one.source, one.role)
            if key in measurements:
                raise ArtifactError(f"it holds {one.stage}/{one.source} of the {one.role} twice, expected it once")
            measurements[key] = one
    notes = [f"the run's own note: {text}" for text in record.notes[:_MAX_NOTES]]
    record = replace(record, notes=tuple(notes), waivers=record.waivers, policy_change=None)
    return RunFolder(path=folder, record=record, ran_under=ran_under, measurements=measurements)


def _copied(folder: Path, into: Path) -> list[Path]:
    """Copies of the Parquet files, which nobody can change any more; none where no stage measured anything."""
    if not folder.exists() and not folder.is_symlink():
        return []
    if not is_folder(folder):
        raise ArtifactError("its `observations` is no folder")
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(".parquet"))
    if len(names) > MAX_FILES:
        raise ArtifactError(f"it has {len(names)} files of observations, expected at most {MAX_FILES}")
    copies, left_bytes = [], MAX_ALL_BYTES
    for number, name in enumerate(names):
        if not _ROWS.fullmatch(name):
            raise ArtifactError(f"it has observations of the name {name[:80]!a}, expected that of a stage")
        data = read_file(folder / name, limit_bytes=min(MAX_FILE_BYTES, left_bytes))
        left_bytes -= len(data)
        copies.append(into / f"{number}.parquet")
        copies[-1].write_bytes(data)
    return copies


def _differences(said: RunRecord, judged: RunRecord) -> list[str]:
    """What the artifact said and its rows do not."""
    found = []
    before, after = said.verdict.status, judged.verdict.status
    if before is not after:
        found.append(f"the artifact said {before}; its rows say {after} under the base branch's policy")
    elif said.exit_code != judged.exit_code:
        found.append(
            f"the artifact said exit code {said.exit_code}; under the base branch's policy and waivers it is "
            f"{judged.exit_code}"
        )
    if said.policy_digest != judged.policy_digest:
        found.append("the run was judged by another policy than that of the base branch, which counts here")
    return found


def _never_greener(said: RunRecord, judged: RunRecord) -> RunRecord:
    """The worse of the two: rows tell nothing of a run that could not go on, or that was refused on the way.

    A worse claim that the rows do not bear out is an ERROR: the claim's status beside findings that do not come to it
    would be no more true than the status of the rows.
    """
    before, after = said.verdict.status, judged.verdict.status
    if _borne_out(said, judged):
        return judged
    rows = f"say {after} under the base branch's policy"
    if judged.exit_code == 0 and judged.waivers:
        rows = f"say {after}, which is waived, under the base branch's policy"
    if before in (Status.ERROR, Status.REFUSED) or (before, after) == (Status.INCONCLUSIVE, Status.PASS):
        status = before
        why = (
            f"the run itself ended in {before}. Its rows alone {rows}, and the worse of the two counts, since rows do "
            "not show all that a run can end of"
        )
    else:
        status = Status.ERROR
        under = "" if said.policy_digest == judged.policy_digest else " under another policy"
        why = (
            f"this could not be confirmed. The run itself said {before}{under}, and its rows {rows}. Run the gate "
            "again under the base branch's policy"
        )
    title = TITLES[status]
    verdict = Verdict(status=status, deciding=(), sentence=f"{title[:1].upper()}{title[1:]}: {why}.")
    return replace(judged, verdict=verdict, exit_code=combine.exit_code(status, "fail", complete=False))


def _borne_out(said: RunRecord, judged: RunRecord) -> bool:
    """Whether the rows come to the claim or to something worse.

    A regression that the base branch waives is as green as a pass, unless it is the very one that was claimed.
    """
    before, after = said.verdict.status, judged.verdict.status
    if before not in _GREENEST_FIRST:
        before = Status.ERROR  # no run ends in it
    if after is Status.REGRESSION and judged.exit_code == 0 and before is not Status.PASS:
        claimed = _red(said)
        return before is Status.REGRESSION and bool(claimed) and claimed <= {w.rule for w in judged.waivers}
    return _GREENEST_FIRST.index(before) <= _GREENEST_FIRST.index(after)


def _red(record: RunRecord) -> set[str]:
    findings = [f for s in record.stages for f in s.findings if f.rule.severity is Severity.BLOCKING]
    return {f.rule.id for f in findings if f.status is Status.REGRESSION}
