"""Artifacts of untrusted runs: judged by their rows, never greener than these nor than what they said themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from pyarrow import parquet

from gate import artifact
from gate.ci import untrusted_rows, verify
from gate.cli import main
from gate.errors import ArtifactError
from gate.finished.run_folder import read_run
from gate.frames import pack
from gate.order import place
from gate.publish.conclusion import conclude, contradiction
from gate.publish.model import Candidate, CheckConclusion, Conclusion, Trust
from gate.records import Answer, Measurement, RunRecord, Status, Verdict, Waiver
from gate.replay import replay
from gate.reports import shared
from tests import records_factory
from tests.ci_factory import fraud, policy, ran, rows
from tests.decide_factory import finding, rule, stage

AT = datetime(2026, 11, 21, tzinfo=UTC)
PASSED = Verdict(status=Status.PASS, deciding=(), sentence="All is well, trust me.")


def claims(folder: Path, **changes: Any) -> Path:
    """The run's record with other claims."""
    record = artifact.loads_record((folder / "run.json").read_bytes())
    (folder / "run.json").write_text(artifact.dumps_record(replace(record, **changes)))
    return folder


def verified(folder: Path, tmp_path: Path, *rules: Mapping[str, Any], **more: Any) -> RunRecord:
    loaded = policy(tmp_path / "base.yaml", *rules)
    return verify.verify(folder, loaded, more.get("waivers", ()), at=AT).record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return ran(tmp_path / "artifact")


def test_an_honest_artifact_keeps_its_verdict(run: Path, tmp_path: Path) -> None:
    record = verified(run, tmp_path)
    assert (record.verdict.status, record.exit_code) == (Status.REGRESSION, 1)
    assert not any("the artifact" in note or "another policy" in note for note in record.notes)
    assert record.candidate == artifact.loads_record((run / "run.json").read_bytes()).candidate


def test_a_flipped_verdict_is_turned_back(run: Path, tmp_path: Path) -> None:
    record = verified(claims(run, verdict=PASSED, exit_code=0), tmp_path)
    assert (record.verdict.status, record.exit_code) == (Status.REGRESSION, 1)
    assert "trust me" not in record.verdict.sentence
    said = "the artifact said PASS; its rows say REGRESSION under the base branch's policy"
    assert record.notes[0] == said


def test_a_policy_of_its_own_counts_for_nothing(run: Path, tmp_path: Path) -> None:
    easy = policy(tmp_path / "easy.yaml", fraud("50pp"))
    data = easy.policy.model_dump(mode="json", exclude_none=True)
    record = verified(claims(run, policy=data, policy_digest=easy.digest, verdict=PASSED, exit_code=0), tmp_path)
    assert (record.verdict.status, record.exit_code) == (Status.REGRESSION, 1)
    assert record.policy["stages"][0]["rules"][0]["max_drop"] == "3pp"
    assert any("another policy than that of the base branch" in note for note in record.notes)


def test_what_was_not_measured_as_asked_is_no_pass(run: Path, tmp_path: Path) -> None:
    loaded = policy(tmp_path / "b.yaml", fraud("50pp"), domain={**_domain(), "max_new_tokens": 7})
    record = verify.verify(run, loaded, (), at=AT).record
    assert (record.verdict.status, record.exit_code) == (Status.ERROR, 4)


def _domain() -> dict[str, Any]:
    return {"kind": "domain", "name": "fraud", "data": "fraud.jsonl", "match": "exact"}


def test_waivers_of_the_artifact_count_for_nothing(run: Path, tmp_path: Path) -> None:
    mine = Waiver(
        rule="fraud.accuracy.max_drop", checkpoint="a" * 64, owner="me", reason="why not", expires="2099-01-01"
    )
    record = verified(claims(run, waivers=(mine,), exit_code=0), tmp_path)
    assert (record.waivers, record.exit_code) == ((), 1)
    assert any("said exit code 0" in note for note in record.notes)


def test_waivers_of_the_base_branch_count(run: Path, tmp_path: Path) -> None:
    candidate = artifact.loads_record((run / "run.json").read_bytes()).candidate
    assert candidate is not None
    digest = candidate.effective_digest
    theirs = [
        Waiver(rule="fraud.accuracy.max_drop", checkpoint=d, owner="Ada", reason="known", expires="2099-01-01")
        for d in dict.fromkeys((digest, candidate.digest))
    ]
    record = verified(run, tmp_path, waivers=theirs)
    assert (record.verdict.status, record.exit_code) == (Status.REGRESSION, 0)
    assert [w.owner for w in record.waivers] == ["Ada"]


@pytest.mark.parametrize(("status", "expected", "code"), [
    (Status.REFUSED, Status.REFUSED, 5), (Status.ERROR, Status.ERROR, 4), (Status.REGRESSION, Status.ERROR, 4),
    (Status.INCONCLUSIVE, Status.INCONCLUSIVE, 3), (Status.SKIPPED, Status.ERROR, 4),
])  # fmt: skip
def test_never_greener_than_it_said_itself(
    run: Path, tmp_path: Path, status: Status, expected: Status, code: int
) -> None:
    """Its rows would pass under 50 pp; a run that could not go on, or was refused on the way, stays red."""
    claims(run, verdict=Verdict(status=status, deciding=(), sentence="As it was."), exit_code=0)
    record = verified(run, tmp_path, fraud("50pp"))
    assert (record.verdict.status, record.exit_code) == (expected, code)
    if status in (Status.ERROR, Status.INCONCLUSIVE):
        assert "the worse of the two counts" in record.verdict.sentence


CLAIMS = [s for s in Status if s is not Status.SKIPPED]
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "passes": ("50pp", {}),
    "undecided": ("9pp", {}),
    "undecided, which warns": ("9pp", {"on_inconclusive": "warn"}),
    "red": ("3pp", {}),
    "waived": ("3pp", {}),
    "not measured": ("50pp", {"max_new_tokens": 7}),
}
VERIFIED = Trust(verified=True, reason="verified")
WORST_FIRST = (
    CheckConclusion.FAILURE,
    CheckConclusion.ACTION_REQUIRED,
    CheckConclusion.NEUTRAL,
    CheckConclusion.SUCCESS,
)


@pytest.mark.parametrize("setting", ["failure", "action_required", "neutral"])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("claimed", CLAIMS)
def test_what_is_published_of_a_clean_record(
    run: Path, tmp_path: Path, claimed: Status, base: str, setting: str
) -> None:
    """Never greener than the claim, nor than the rows under the base branch's policy; never called a forgery."""

    def colour(record: RunRecord) -> int:
        return WORST_FIRST.index(published(record).check)

    def published(record: RunRecord) -> Conclusion:
        return conclude([Candidate(name="q", record=record, problem="")], inconclusive=setting, trust=VERIFIED)

    bound, changes = BASES[base]
    domain = {**_domain(), **{k: v for k, v in changes.items() if k == "max_new_tokens"}}
    more = {k: v for k, v in changes.items() if k == "on_inconclusive"}
    loaded = policy(tmp_path / "base.yaml", fraud(bound), domain=domain, **more)
    before = artifact.loads_record((run / "run.json").read_bytes())
    waivers = _waivers(before) if base == "waived" else []
    rows_say = replay(read_run(run), loaded, now=AT, waivers=waivers).record
    claims(run, verdict=Verdict(status=claimed, deciding=(), sentence="As it was."), exit_code=_CODES[claimed])
    record = verify.verify(run, loaded, waivers, at=AT).record
    said = published(record)
    assert contradiction(record) is None
    assert "contradicts" not in said.title
    assert colour(record) <= colour(rows_say)
    ours = base == "waived" and claimed is Status.REGRESSION  # what was claimed is what the base branch waives
    of_claim = {Status.PASS: "success", Status.INCONCLUSIVE: setting}.get(claimed, "success" if ours else "failure")
    assert colour(record) <= WORST_FIRST.index(CheckConclusion(of_claim))
    assert shared.redacted(record).verdict == record.verdict  # nothing of the sentence is lost on its way
    if (claimed, base) == (Status.REGRESSION, "passes"):
        assert said.title == (
            "Could not measure: this could not be confirmed. The run itself said REGRESSION under another policy, and "
            "its rows say PASS under the base branch's policy. Run the gate again under the base branch's policy."
        )


_CODES = {Status.PASS: 0, Status.REGRESSION: 1, Status.INCONCLUSIVE: 3, Status.ERROR: 4, Status.REFUSED: 5}


def test_a_waiver_covers_the_regression_that_was_claimed_and_no_other(run: Path, tmp_path: Path) -> None:
    before = artifact.loads_record((run / "run.json").read_bytes())
    other = stage("else", Status.REGRESSION, [finding(rule("max_drop 3pp", id="else.acc"), Status.REGRESSION)])
    claims(run, stages=(*before.stages, other))
    record = verified(run, tmp_path, waivers=_waivers(before))
    assert (record.verdict.status, record.exit_code) == (Status.ERROR, 4)
    assert "its rows say REGRESSION, which is waived, under" in record.verdict.sentence


def _waivers(of: RunRecord, **changes: str) -> list[Waiver]:
    assert of.candidate is not None
    digests = dict.fromkeys((of.candidate.effective_digest, of.candidate.digest))
    fields = {"owner": "Ada", "reason": "known", "expires": "2099-01-01", **changes}
    return [Waiver(rule="fraud.accuracy.max_drop", checkpoint=d, **fields) for d in digests]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_seed_of_the_base_branch_says_which_items_come_first(
    run: Path, tmp_path: Path, seed: int, first: bool
) -> None:
    """Who chooses the seed, or the items, of a run that stops early chooses which answers count."""
    read = read_run(run)
    ordered_by = read.ordered_by(seed)
    assert ordered_by is not None
    baseline, candidate = rows()
    ids = sorted((o.item_id for o in candidate.observations), key=lambda i: place(ordered_by, i))
    kept = set(ids[:96] if first else ids[-96:])
    part = replace(candidate, observations=tuple(o for o in candidate.observations if o.item_id in kept), n_reached=96)
    artifact.write_observations(run / "observations" / "fraud.parquet", [baseline, part])
    data = {**read.record.policy, "seed": seed}
    claims(run, policy=data, verdict=PASSED, exit_code=0)
    record = verified(run, tmp_path, fraud("50pp", scope="benchmark"))
    (found,) = record.stages[0].findings
    if (seed, first) == (0, True):
        assert (record.verdict.status, record.exit_code) == (Status.PASS, 0)
        return
    assert (found.status, record.exit_code) == (Status.ERROR, 4)
    if seed:
        assert "96 of 400 items, the first by seed 5, and this policy asks for the first by seed 0" in found.reason
    else:
        assert "96 of 400 items, which are not the first of its checkpoints and its seed" in found.reason


def test_another_seed_is_fine_where_every_item_was_measured(run: Path, tmp_path: Path) -> None:
    """They are judged in the order of the base branch's seed, whatever the run says its own is."""
    data = artifact.loads_record((run / "run.json").read_bytes()).policy
    counts = []
    for seed in (0, 5, 6):
        record = verified(claims(run, policy={**data, "seed": seed}), tmp_path, fraud("50pp", scope="benchmark"))
        (found,) = record.stages[0].findings
        counts.append(found.counts)
    assert counts[0] == counts[1] == counts[2]
    assert counts[0]["n"] < 400  # settled by the first of them


def test_a_run_that_ended_before_it_measured_stays_red(run: Path, tmp_path: Path) -> None:
    (run / "observations" / "fraud.parquet").unlink()
    (run / "observations").rmdir()
    refused = Verdict(status=Status.REFUSED, deciding=(), sentence="It lies.")
    record = verified(claims(run, verdict=refused, exit_code=0), tmp_path, fraud("50pp"))
    assert (record.verdict.status, record.exit_code) == (Status.REFUSED, 5)


def test_no_rows_are_no_pass(run: Path, tmp_path: Path) -> None:
    (run / "observations" / "fraud.parquet").unlink()
    record = verified(claims(run, verdict=PASSED, exit_code=0), tmp_path)
    assert (record.verdict.status, record.exit_code) == (Status.ERROR, 4)


def test_notes_of_the_run_are_marked_as_its_own(run: Path, tmp_path: Path) -> None:
    claims(run, notes=("Verified by the security team.",) * 60)
    loaded = policy(tmp_path / "base.yaml", share_examples="full")
    notes = verify.verify(run, loaded, (), at=AT).record.notes
    assert "the run's own note: Verified by the security team." in notes
    assert "Verified by the security team." not in notes
    assert len(notes) < 60
    assert not any("security team" in note for note in verified(run, tmp_path).notes)  # by default nothing is quoted


def test_texts_of_the_artifact_stay_out(run: Path, tmp_path: Path) -> None:
    """The base branch's policy says what is shared, whatever the artifact holds."""
    secret = "a prompt of a customer"
    answered = [replace(m, answers=tuple(_answers(m, secret))) for m in rows()]
    artifact.write_observations(run / "observations" / "fraud.parquet", answered)
    flips = tuple(replace(f, prompt=secret) for f in records_factory.regression().flips)
    claims(run, flips=flips)
    policy(tmp_path / "base.yaml")
    clean = tmp_path / "clean"
    assert main(["ci", "verify", str(run), "-p", str(tmp_path / "base.yaml"), "--out", str(clean)]) == 0
    assert {p.name for p in clean.rglob("*")} == {"run.json", "report.html", "summary.md", "junit.xml"}
    assert not any(secret in p.read_text() for p in clean.iterdir())


def _answers(measurement: Measurement, text: str) -> Iterator[Answer]:
    for o in measurement.observations:
        yield Answer(item_id=o.item_id, group=o.group, prompt=text, output=text, target=text)


def test_what_the_artifact_says_of_its_bar_is_dropped(run: Path, tmp_path: Path) -> None:
    change = records_factory.policy_change()
    assert verified(claims(run, policy_change=change), tmp_path).policy_change is None


def test_other_files_are_not_read(run: Path, tmp_path: Path) -> None:
    (run / "report.html").write_text("<script>")
    (run / "observations" / "notes.txt").write_text("x")
    (run / "previous").symlink_to("/")
    os.mkfifo(run / "log.txt")
    assert verified(run, tmp_path).verdict.status is Status.REGRESSION


def spoiled(how: str) -> Callable[[Path], object]:
    def remove(path: Path) -> None:
        path.unlink()

    def record(run: Path) -> Path:
        return run / "run.json"

    def observations(run: Path) -> Path:
        return run / "observations" / "fraud.parquet"

    def linked(path: Path) -> None:
        path.rename(path.with_suffix(".away"))
        path.symlink_to(path.with_suffix(".away"))

    def hard(path: Path) -> None:
        os.link(path, path.parent.parent / "other-name")

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def changed(path: Path, column: str, value: object) -> None:
        table = parquet.read_table(path)
        index = table.schema.get_field_index(column)
        field = table.schema.field(index)
        column_values = pyarrow.array([value] * table.num_rows, type=field.type)
        parquet.write_table(table.set_column(index, field, column_values), path)

    def head(path: Path, old: bytes, new: bytes) -> None:
        table = parquet.read_table(path)
        text = table.schema.metadata[b"quantgate"]
        assert old in text
        parquet.write_table(table.replace_schema_metadata({b"quantgate": text.replace(old, new)}), path)

    deep = '{"artifact_version": 4, "policy": ' + "[" * 900 + "]" * 900 + "}"
    nan = '"seconds": NaN, "x": '
    return {
        "no record": lambda run: remove(record(run)),
        "an empty record": lambda run: record(run).write_text(""),
        "no JSON": lambda run: record(run).write_text("{" * 100_000),
        "a deep record": lambda run: record(run).write_text(deep),
        "a newer record": lambda run: record(run).write_text('{"artifact_version": 99}'),
        "a large record": lambda run: record(run).write_bytes(b" " * (verify.MAX_RECORD_BYTES + 1)),
        "NaN": lambda run: record(run).write_text(record(run).read_text().replace('"seconds": ', nan, 1)),
        "a linked record": lambda run: linked(record(run)),
        "a hard link": lambda run: hard(record(run)),
        "a pipe": lambda run: pipe(record(run)),
        "a folder": lambda run: folder(record(run)),
        "another policy": lambda run: claims(run, policy={"version": 1}),
        "truncated rows": lambda run: observations(run).write_bytes(observations(run).read_bytes()[:-100]),
        "no Parquet": lambda run: observations(run).write_bytes(b"PAR1" + b"\xff" * 1000 + b"PAR1"),
        "linked rows": lambda run: linked(observations(run)),
        "piped rows": lambda run: pipe(observations(run)),
        "hard-linked rows": lambda run: hard(observations(run)),
        "rows twice": lambda run: (run / "observations" / "more.parquet").write_bytes(observations(run).read_bytes()),
        "an odd name": lambda run: (run / "observations" / "a\n::error::.parquet").write_bytes(b""),
        "NaN rows": lambda run: changed(observations(run), "values", [("correct", float("nan"))]),
        "rows without weight": lambda run: changed(observations(run), "weights", [("correct", 0.0)]),
        "rows without names": lambda run: changed(observations(run), "item_id", None),
        "rows out of order": lambda run: changed(observations(run), "order", [0]),
        "counts below zero": lambda run: head(observations(run), b'"n_expected": 400', b'"n_expected": -1'),
        "counts as text": lambda run: head(observations(run), b'"n_expected": 400', b'"n_expected": "400"'),
        "endless seconds": lambda run: head(observations(run), b'"seconds": ', b'"seconds": Infinity, "x": '),
    }[how]  # fmt: skip


@pytest.mark.parametrize("how", [
    "no record", "an empty record", "no JSON", "a deep record", "a newer record", "a large record", "NaN",
    "a linked record", "a hard link", "a pipe", "a folder", "another policy", "truncated rows", "no Parquet",
    "linked rows", "piped rows", "hard-linked rows", "rows twice", "an odd name", "NaN rows", "rows without weight",
    "rows without names", "rows out of order", "counts below zero", "counts as text", "endless seconds",
])  # fmt: skip
def test_an_unusable_artifact_leaves_nothing(
    run: Path, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy(tmp_path / "base.yaml")
    spoiled(how)(run)
    assert main(["ci", "verify", str(run), "-p", str(tmp_path / "base.yaml"), "--out", str(tmp_path / "clean")]) == 4
    assert not (tmp_path / "clean").exists()
    told = capsys.readouterr().err
    assert told.startswith("gate: ")
    assert "bug" not in told
    assert not any(line.lstrip().startswith("::") for line in told.splitlines())


def test_a_linked_folder_is_no_artifact(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run, target_is_directory=True)
    with pytest.raises(ArtifactError, match="found no folder"):
        verify.read(tmp_path / "link")
    away = tmp_path / "away"
    (run / "observations").rename(away)
    (run / "observations").symlink_to(away, target_is_directory=True)
    with pytest.raises(ArtifactError, match="no folder"):
        verify.read(run)


def test_files_that_are_too_large(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_FILE_BYTES", 100)
    with pytest.raises(ArtifactError, match="more than 100 bytes"):
        verify.read(run)
    monkeypatch.undo()
    monkeypatch.setattr(verify, "MAX_FILES", 0)
    with pytest.raises(ArtifactError, match="expected at most 0"):
        verify.read(run)


def test_ignored_waivers_are_on_the_console(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(tmp_path / "base.yaml")
    (one, *_) = _waivers(artifact.loads_record((run / "run.json").read_bytes()), expires="2020-01-01")
    entry = {k: getattr(one, k) for k in ("rule", "checkpoint", "owner", "reason", "expires")}
    file = tmp_path / "waivers.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "waivers": [entry]}))
    arguments = ["ci", "verify", str(run), "-p", str(tmp_path / "base.yaml"), "--out", str(tmp_path / "clean")]
    assert main([*arguments, f"--waivers={file}"]) == 0
    assert (
        "note: waiver: that of fraud.accuracy.max_drop by Ada until 2020-01-01 is ignored: " in capsys.readouterr().out
    )


def test_the_command_writes_a_clean_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(tmp_path / "base.yaml")
    claims(run, verdict=PASSED, exit_code=0)
    arguments = ["ci", "verify", str(run), "-p", str(tmp_path / "base.yaml"), "--out", str(tmp_path / "clean")]
    assert main(arguments) == 0
    record = artifact.loads_record((tmp_path / "clean" / "run.json").read_bytes())
    assert record.verdict.status is Status.REGRESSION
    assert "the artifact said PASS; its rows say REGRESSION" in capsys.readouterr().out
    assert main(arguments) == 2  # the folder is not empty any more


def test_the_child_holds_no_secret_and_writes_no_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What opens the Parquet files: its environment, and what it may do."""
    seen: dict[str, Any] = {}
    real = subprocess.Popen

    def spy(command: list[str], **options: Any) -> Any:
        seen.update(options, command=command)
        return real(command, **options)

    monkeypatch.setenv("GITHUB_TOKEN", "ghs_secret")
    monkeypatch.setenv("ACTIONS_RUNTIME_TOKEN", "secret")
    monkeypatch.setattr("gate.ci.untrusted_rows.subprocess.Popen", spy)
    assert untrusted_rows.read([run / "observations" / "fraud.parquet"]) == rows()
    assert not {"GITHUB_TOKEN", "ACTIONS_RUNTIME_TOKEN"} & set(seen["env"])
    assert seen["command"][:4] == [sys.executable, "-P", "-m", "gate.ci.reader"]
    assert seen["start_new_session"]


def said(monkeypatch: pytest.MonkeyPatch, text: bytes, then: str = "") -> None:
    """A child that says this, as one would that was taken over."""
    real = subprocess.Popen
    program = f"import sys, time; sys.stdout.buffer.write({text!r}); sys.stdout.buffer.flush(); {then}"

    def other(command: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", program], **options)

    monkeypatch.setattr("gate.ci.untrusted_rows.subprocess.Popen", other)


PART = {
    "stage": "s", "source": "s", "role": "baseline", "settings_digest": "d", "n_expected": 1, "n_available": 1,
    "n_reached": 1, "planned_tokens": 0, "chance": None, "metrics": [], "seconds": 0.0, "notes": [], "failures": [],
    "observations": [["m"], ["i"], [1.0], [1.0], [None], [None]], "answers": [],
}  # fmt: skip


def sent(**changes: Any) -> bytes:
    """All that a child says of one measurement."""
    frames = ({"op": "part", "measurement": {**PART, **changes}}, {"op": "end"}, {"op": "done"})
    return b"".join(pack(frame) for frame in frames)


def test_what_an_honest_child_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, sent())
    assert [m.n_expected for m in untrusted_rows.read([])] == [1]


@pytest.mark.parametrize("text", [
    b"", b"not frames at all, but text", b"\xff\xff\xff\xff", pack({"op": "end"}), pack({"op": "else"}),
    pack({"op": "part", "measurement": {}}), pack({"op": "part", "measurement": []}), sent()[:-1], sent()[:30],
    pack({"op": "part", "measurement": PART}) + pack({"op": "done"}),
    sent(observations=[["m"], [5], [1.0], [1.0], [None], [None]]),
    sent(observations=[["m"], ["i"], ["1"], [1.0], [None], [None]]),
    sent(observations=[["m"], ["i"], [1.0], [1.0], [None], [7]]),
    sent(observations=[[], ["i"], [1.0], [1.0], [None], [None]]),
    sent(n_expected=1.0), sent(n_expected=-1), sent(n_available=10**12), sent(chance="x"), sent(chance=2),
    sent(notes=[1]),
    sent(stage=None), sent(seconds=-1), sent(role="judge"), sent(answers=[["i", None, 1, "", ""]]),
    pack({"op": "error", "message": "\x1b[31m" + "x" * 100}),
], ids=range(25))  # fmt: skip
def test_a_child_that_was_taken_over(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    said(monkeypatch, text)
    with pytest.raises(ArtifactError) as raised:
        untrusted_rows.read([])
    assert "\x1b" not in str(raised.value)


def test_a_child_that_says_too_much_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    good = pack({"op": "part", "measurement": PART})
    said(monkeypatch, good * 10)
    monkeypatch.setattr(untrusted_rows, "MAX_SAID_BYTES", len(good) * 3)
    with pytest.raises(ArtifactError, match="hold more than"):
        untrusted_rows.read([])
    said(monkeypatch, b"", then="time.sleep(60)")
    with pytest.raises(ArtifactError, match="not read within 0 s"):
        untrusted_rows.read([], wait_seconds=0.0)


def test_a_stage_named_like_a_path(run: Path, tmp_path: Path) -> None:
    """Names inside of the files lead nowhere: what is written is named by the base branch's policy."""
    record = artifact.loads_record((run / "run.json").read_bytes())
    claims(run, stages=(*record.stages, stage("../../evil", Status.PASS)))
    found = verify.verify(run, policy(tmp_path / "b.yaml"), (), at=AT)
    assert [s.name for s in found.record.stages] == ["fraud"]
