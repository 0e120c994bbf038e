"""What a step says: no value becomes another output, nothing missing looks like a pass, no summary is too large."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gate import artifact
from gate.ci import job
from gate.ci.outputs import NOTHING_GATED, Said, say
from gate.cli import main
from gate.errors import UsageError
from gate.publish import candidates
from gate.publish.incoming import read_file
from gate.records import RunRecord, Status, Verdict
from tests import records_factory


def stored(folder: Path, record: RunRecord) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(artifact.dumps_record(record))
    return folder


def parsed(text: str) -> dict[str, str]:
    """GITHUB_OUTPUT as the runner reads it."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, sign, delimiter = line.partition("<<")
        assert sign, f"found {line!r} outside of a value"
        value = []
        for inner in lines:
            if inner == delimiter:
                break
            value.append(inner)
        found[name] = "\n".join(value)
    return found


class Job:
    """A step of GitHub Actions: its files, and what was written to them."""

    def __init__(self, tmp_path: Path) -> None:
        self.environ = {n: str(tmp_path / n) for n in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}

    @property
    def outputs(self) -> dict[str, str]:
        return parsed(Path(self.environ["GITHUB_OUTPUT"]).read_text())

    @property
    def summary(self) -> str:
        path = Path(self.environ["GITHUB_STEP_SUMMARY"])
        return path.read_text() if path.exists() else ""

    def say(self, *dirs: Path, expect: list[str] | None = None, code: int | None = None) -> Said:
        return say(dirs, expect, code, self.environ)


@pytest.fixture
def step(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.mark.parametrize(("record", "status", "code"), [
    (records_factory.passing(), "PASS", 0),
    (records_factory.regression(), "REGRESSION", 1),
    (records_factory.inconclusive(), "INCONCLUSIVE", 3),
    (records_factory.error(), "ERROR", 4),
    (records_factory.refused(), "REFUSED", 5),
    (records_factory.waived(), "REGRESSION", 0),
])  # fmt: skip
def test_one_run(tmp_path: Path, step: Job, record: RunRecord, status: str, code: int) -> None:
    run = stored(tmp_path / "run", record)
    said = step.say(run, code=code)
    assert (said.status, said.exit_code) == (Status(status), code)
    outputs = step.outputs
    assert (outputs["status"], outputs["exit-code"], outputs["run-json"]) == (status, str(code), str(run / "run.json"))
    assert outputs["sentence"] == said.sentence
    assert "\n" not in outputs["sentence"]
    assert step.summary.startswith("## ")


@pytest.mark.parametrize(("code", "meaning"), [
    (2, "nothing was run"), (70, "a bug in the gate"), (130, "interrupted"), (137, "exit code 137"), (1, "exit code 1"),
    (0, "found no run.json"), (None, "found no run.json"),
])  # fmt: skip
def test_no_record_is_an_error(tmp_path: Path, step: Job, code: int | None, meaning: str) -> None:
    (tmp_path / "run" / "observations").mkdir(parents=True)
    said = step.say(tmp_path / "run", code=code)
    assert (said.status, said.exit_code) == (Status.ERROR, code or 4)
    assert said.sentence.startswith("Could not measure: ")
    assert meaning in said.sentence
    assert step.outputs["run-json"] == ""
    assert "could not" in step.summary.lower()
    assert not code or f"exit code {code}" in step.summary


def test_an_exit_code_that_the_record_denies(tmp_path: Path, step: Job) -> None:
    run = stored(tmp_path / "run", records_factory.passing())
    said = step.say(run, code=70)
    assert (said.status, said.exit_code) == (Status.ERROR, 70)
    assert "exit code 70" in step.summary
    red = stored(tmp_path / "red", records_factory.regression())
    assert step.say(red, code=0).exit_code == 1


def test_a_record_that_contradicts_itself(tmp_path: Path, step: Job) -> None:
    run = stored(tmp_path / "run", replace(records_factory.regression(), exit_code=0))
    said = step.say(run)
    assert (said.status, said.exit_code) == (Status.ERROR, 4)


HOSTILE = [
    "x\nstatus=PASS", "x\r\nexit-code<<E\n0\nE", "${{ secrets.GITHUB_TOKEN }}", "::set-output name=status::PASS",
    "x\u2028exit-code=0", records_factory.HOSTILE, "y" * 100_000, "::error::a", "##[group]x", "\x1b]8;;http://x\x07",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_value_becomes_another_output(
    tmp_path: Path, step: Job, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(
        records_factory.regression(), verdict=Verdict(status=Status.REGRESSION, deciding=(), sentence=text)
    )
    run = stored(tmp_path / "run", record)
    for name, value in step.environ.items():
        monkeypatch.setenv(name, value)
    assert main(["ci", "outputs", str(run), "--exit-code", "1", "--exit"]) == 1
    outputs = step.outputs
    assert set(outputs) == {"status", "exit-code", "sentence", "run-json"}
    assert (outputs["status"], outputs["exit-code"]) == ("REGRESSION", "1")
    assert len(outputs["sentence"]) <= 1000
    told = capsys.readouterr().out
    assert not any(line.lstrip().startswith(("::", "##[")) for line in told.splitlines())
    assert "\x1b" not in told + step.summary


def test_delimiters_are_never_the_same_and_never_a_value(tmp_path: Path) -> None:
    environ = {"GITHUB_OUTPUT": str(tmp_path / "out")}
    job.set_outputs({"a": "1", "b": "2"}, environ)
    job.set_outputs({"a": "1"}, environ)
    delimiters = re.findall("<<(.*)", (tmp_path / "out").read_text())
    assert len(set(delimiters)) == 3
    assert all(len(d) > 32 for d in delimiters)
    job.set_outputs({"a": "1"}, {})  # outside of Actions
    with pytest.raises(UsageError, match="GITHUB_OUTPUT"):
        job.set_outputs({"a": "1"}, {"GITHUB_OUTPUT": str(tmp_path / "no" / "such")})


def test_several_candidates(tmp_path: Path, step: Job) -> None:
    runs = tmp_path / "runs"
    stored(runs / "quantgate-run-good", records_factory.passing())
    stored(runs / "quantgate-run-bad", records_factory.regression())
    said = step.say(runs, expect=["good", "bad", "lost"])
    assert (said.status, said.exit_code) == (Status.REGRESSION, 1)
    assert said.sentence.startswith("2 of 3 candidates did not pass; bad: ")
    assert [line.split(":")[0] for line in said.lines] == ["REGRESSION bad", "ERROR lost", "PASS good"]
    assert step.outputs["run-json"] == ""
    assert all(name in step.summary for name in ("good", "bad", "lost"))


def test_a_missing_candidate_fails_the_job(tmp_path: Path, step: Job) -> None:
    runs = tmp_path / "runs"
    stored(runs / "good", records_factory.passing())
    said = step.say(runs, expect=["good", "lost"])
    assert (said.status, said.exit_code) == (Status.ERROR, 4)
    assert "nothing came back" in said.sentence


def test_what_fails_the_job_comes_before_what_is_waived(tmp_path: Path, step: Job) -> None:
    runs = tmp_path / "runs"
    stored(runs / "waived", records_factory.waived())
    stored(runs / "open", records_factory.inconclusive())
    assert step.say(runs).exit_code == 3
    assert step.say(runs / "waived").exit_code == 0


@pytest.mark.parametrize("make", [True, False])
def test_nothing_to_gate(tmp_path: Path, step: Job, make: bool) -> None:
    if make:
        (tmp_path / "runs").mkdir()
    said = step.say(tmp_path / "runs", expect=[])
    assert (said.status, said.exit_code, said.sentence) == (Status.SKIPPED, 0, NOTHING_GATED)
    assert NOTHING_GATED.rstrip(".") in step.summary
    assert step.outputs["status"] == "SKIPPED"


def test_what_nobody_expected_is_no_skip(tmp_path: Path, step: Job) -> None:
    stored(tmp_path / "runs" / "extra", records_factory.passing())
    said = step.say(tmp_path / "runs", expect=[])
    assert (said.status, said.exit_code) == (Status.ERROR, 4)
    assert "not expected" in said.sentence


@pytest.mark.parametrize("used", [0, 2**20 - 20_000, 2**20 - 100, 2**20])
def test_the_summary_is_never_too_large(tmp_path: Path, step: Job, used: int) -> None:
    summary = Path(step.environ["GITHUB_STEP_SUMMARY"])
    summary.write_bytes(b"x" * used)
    for i in range(30):
        stored(tmp_path / "runs" / f"c{i}", records_factory.large())
    said = step.say(tmp_path / "runs")
    assert summary.stat().st_size <= 2**20
    assert bool(said.remarks) == (used > 2**20 - 8_192)
    assert summary.stat().st_size > used or said.remarks


def test_outside_of_actions_nothing_is_written(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", records_factory.passing())
    assert say([run], None, 0, {}).remarks == ()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def names(found: tuple[Any, ...]) -> list[tuple[str, bool]]:
    return [(one.name, one.record is not None) for one in found]


def test_folders_are_read_as_candidates(tmp_path: Path) -> None:
    one = stored(tmp_path / "my run (2)", records_factory.passing())
    assert names(candidates.read([one], None)) == [("my-run-2", True)]
    assert names(candidates.read([one], ["a"])) == [("a", True)]
    assert names(candidates.read([one], ["a", "b"])) == [("a", False), ("b", False), ("my-run-2", False)]
    assert names(candidates.read([tmp_path / "none"], None)) == [("none", False)]
    stored(tmp_path / "x" / "same", records_factory.passing())
    stored(tmp_path / "y" / "same", records_factory.passing())
    assert names(candidates.read([tmp_path / "x", tmp_path / "y"], None)) == [("same", True), ("same-2", True)]
    assert names(candidates.read([tmp_path / "x", tmp_path / "y"], ["same"])) == [("same", True), ("same-2", False)]


def test_hostile_folders(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    stored(runs / "good", records_factory.passing())
    stored(runs / "a\n::error::b", records_factory.passing())
    stored(runs / ("x" * 200), records_factory.passing())
    (runs / "link").symlink_to(runs / "good", target_is_directory=True)
    (runs / "inner").mkdir()
    (runs / "inner" / "run.json").symlink_to(runs / "good" / "run.json")
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / "run.json")
    (runs / "text").mkdir()
    (runs / "text" / "run.json").write_text("[" * 100_000)
    found = candidates.read([runs], None)
    assert {n for n, usable in names(found) if usable} == {"good"}
    assert all(candidates.NAME.match(one.name) for one in found)
    assert len(found) == 7


def test_two_folders_for_one_name_are_never_one_pass(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    stored(runs / "a", records_factory.passing())
    stored(runs / "quantgate-run-a", records_factory.regression())
    assert not all(usable for _, usable in names(candidates.read([runs], ["a"])))


def test_limits_of_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    for i in range(4):
        stored(runs / f"c{i}", records_factory.passing())
    monkeypatch.setattr(candidates, "MAX_CANDIDATES", 3)
    assert names(candidates.read([runs], None))[-1] == ("and-more", False)
    monkeypatch.undo()
    size = (runs / "c0" / "run.json").stat().st_size
    monkeypatch.setattr(candidates, "MAX_ALL_BYTES", int(size * 2.5))
    assert [usable for _, usable in names(candidates.read([runs], None))] == [True, True, False, False]
    monkeypatch.undo()
    assert len(read_file(runs / "c0" / "run.json", limit_bytes=size)) == size


@pytest.mark.parametrize("text", [
    "", "x", "{}", "[1]", '["a", "a"]', '["../a"]', '["a b"]', '[""]', '"a"', '["..", "a"]', "[" * 99_999,
    json.dumps([f"n{i}" for i in range(300)]),
], ids=range(12))  # fmt: skip
def test_expectations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        candidates.expected(text)


def test_expectations() -> None:
    assert candidates.expected(None) is None
    assert candidates.expected("[]") == ()
    assert candidates.expected('["a", "b.c"]') == ("a", "b.c")
    assert candidates.expected('[{"name": "a", "candidate": "x"}]') == ("a",)
    assert candidates.expected('{"include": [{"name": "a", "candidate": "x"}]}') == ("a",)
