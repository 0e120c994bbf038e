"""What must end as ERROR, REFUSED or a usage error, with one clear message and nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gate.errors import ArtifactError
from gate.records import Status
from gate.reports import REPORTS
from tests.e2e.world import STAGES, World, make_world

OPERATION = {"sanity": "score", "capability": "generate", "fraud": "generate", "serving": "timed_batch"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def junit_counts(path: Path) -> dict[str, int]:
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    return {kind: sum(c.find(kind) is not None for c in cases) for kind in ("failure", "error", "skipped")}


@pytest.mark.parametrize("stage", list(STAGES))
def test_sigkill_in_a_stage_is_an_error_with_whole_artifacts(world: World, stage: str) -> None:
    world.checkpoint("candidate", seed=2, faults=[{"op": OPERATION[stage], "after": 3, "action": "sigkill"}])
    assert world.run(world.policy([stage])) == 4
    record = world.record()
    assert record.verdict.status is Status.ERROR
    (result,) = record.stages
    assert result.status is Status.ERROR
    assert [f.status for f in result.findings] == [Status.ERROR] * len(STAGES[stage].get("rules", [1]))
    assert all("SIGKILL" in f.reason and "candidate" in f.reason for f in result.findings)
    assert all("last words of the fake" in f.reason for f in result.findings)
    assert "last words" not in (world.root / "out" / "summary.md").read_text()
    assert "last words" in (world.root / "out" / "report.html").read_text()
    blocking = [f for f in result.findings if f.rule.severity == "blocking"]
    counts = junit_counts(world.root / "out" / "junit.xml")
    assert counts["failure"] == 0
    assert counts["error"] == len(blocking) + 1  # and the run's own case


def test_sigkill_of_the_baseline_stores_nothing(world: World) -> None:
    world.checkpoint("baseline", seed=1, faults=[{"op": "generate", "after": 100, "action": "sigkill"}])
    assert world.run(world.policy(["fraud"])) == 4
    assert "baseline" in world.finding("fraud.accuracy.max_drop").reason
    assert not list((world.root / "store").glob("entries/*"))
    assert not list((world.root / "store" / "tmp").iterdir())


def test_keep_going_measures_the_other_stages_after_a_crash(world: World) -> None:
    world.checkpoint("candidate", seed=2, faults=[{"op": "score", "after": 3, "action": "sigkill"}])
    assert world.run(world.policy(["sanity", "fraud"]), "--keep-going") == 4
    assert [s.status for s in world.record().stages] == [Status.ERROR, Status.PASS]


@pytest.mark.parametrize("action", ["raise", "memory_error", "exit", "sigsegv"])
def test_every_other_way_to_fail_is_an_error_too(world: World, action: str) -> None:
    world.checkpoint("candidate", seed=2, faults=[{"op": "score", "action": action}])
    assert world.run(world.policy(["sanity"])) == 4
    assert world.finding("sanity.perplexity.max_increase").status is Status.ERROR


def test_a_model_that_cannot_be_loaded_is_an_error(world: World) -> None:
    world.checkpoint("candidate", seed=2, faults=[{"op": "open", "action": "raise"}])
    assert world.run(world.policy(["fraud"])) == 4
    assert "fault injected in open" in world.finding("fraud.accuracy.max_drop").reason


def test_a_library_that_prints_disturbs_nothing(world: World) -> None:
    policy = world.policy(stop_early=False)
    world.run(policy)
    quiet = world.scores()
    world.checkpoint("candidate", seed=2, nll_shift=0.002, noise_bytes=2000)  # other bytes: it meets the items in
    assert world.run(policy, out="noisy") == 0  # another order, and says the same to each
    assert world.scores("noisy") == quiet
    assert (world.root / "noisy" / "log.txt").stat().st_size > 100_000


def test_a_stage_over_its_time_budget_never_passes(world: World) -> None:
    policy = world.policy([{**STAGES["fraud"], "budget": "12s"}])
    assert world.run(policy, candidate=world.root / "candidate") == 0  # it fits, and the baseline is stored
    world.checkpoint("candidate", seed=2, sleep_seconds=0.2)
    assert world.run(policy, out="late") == 3
    finding = world.finding("fraud.accuracy.max_drop", "late")
    assert finding.status is Status.INCONCLUSIVE
    assert "budget" in finding.reason
    assert 0 < finding.n_paired < 320


def test_a_missing_checkpoint_is_an_error_with_advice(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run(world.policy(), candidate=world.root / "nowhere") == 4
    record = world.record()
    assert record.verdict.status is Status.ERROR
    assert "nowhere" in record.verdict.sentence
    assert {s.status for s in record.stages} == {Status.SKIPPED}
    assert junit_counts(world.root / "out" / "junit.xml")["error"] >= 1
    assert "nowhere" in capsys.readouterr().out


def test_an_empty_corpus_is_an_error(world: World) -> None:
    (world.root / "prose.txt").write_text("\n\n \n")
    assert world.run(world.policy(["sanity", "fraud"])) == 4
    assert "prose.txt" in world.finding("sanity.perplexity.max_increase").reason
    assert [s.status for s in world.record().stages] == [Status.ERROR, Status.SKIPPED]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("broken line", ["questions.jsonl", "3"]),
        ("no file", ["questions.jsonl"]),
        ("unknown task", ["sumz", "sums"]),
        ("unknown stage", ["frod", "fraud"]),
        ("unknown backend", ["vapour", "hf"]),
        ("unknown candidate", ["baselin e"]),
    ],
)
def test_usage_errors_run_nothing_and_leave_nothing(
    world: World, damage: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    questions = world.root / "questions.jsonl"
    extra: list[str] = []
    policy = world.policy()
    candidate = None
    match damage:
        case "broken line":
            lines = questions.read_text().splitlines()
            lines[2] = lines[2][:-5]
            questions.write_text("\n".join(lines))
        case "no file":
            questions.unlink()
        case "unknown task":
            tasks = [{**STAGES["capability"]["tasks"][0], "task": "sumz"}]
            policy = world.policy(["sanity", {**STAGES["capability"], "tasks": tasks}])
        case "unknown stage":
            extra = ["--stage=frod"]
        case "unknown backend":
            extra = ["--backend=vapour"]
        case "unknown candidate":
            candidate = Path("baselin e")
    assert world.run(policy, *extra, candidate=candidate) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in said), message
    assert len(message.strip().splitlines()) <= 3
    assert not (world.root / "out" / "run.json").exists()
    assert not [p for p in (world.root / "store").rglob("*") if p.is_file()]


def test_a_failed_run_leaves_no_stale_verdict(world: World) -> None:
    assert world.run(world.policy(["fraud"])) == 0
    broken = world.root / "broken.yaml"
    broken.write_text("version: 2\n")
    assert world.run(broken) == 2
    names = {p.name for p in (world.root / "out").iterdir()}
    assert names == {"previous"}
    assert (world.root / "out" / "previous" / "run.json").is_file()  # and nothing is lost


def test_a_store_that_cannot_be_written_is_said_before_a_model_is_loaded(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.root / "store").write_text("a file")
    assert world.run(world.policy(["fraud"])) == 2
    captured = capsys.readouterr()
    assert "--store" in captured.err
    assert "fraud" not in captured.out


def test_a_run_that_cannot_be_recorded_is_an_error_that_names_the_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gate.artifact.write_atomic", full)
    assert world.run(world.policy(["fraud"])) == 4
    message = capsys.readouterr().err
    assert "No space left" in message
    assert "accuracy on fraud" in message


def test_a_baseline_that_cannot_be_kept_is_used_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ArtifactError("the disk is full")

    monkeypatch.setattr("gate.store.Slot.commit", full)
    assert world.run(world.policy(["fraud"])) == 0
    assert any("not kept" in note for note in world.record().notes)


def test_sigterm_ends_a_run_with_a_record(world: World) -> None:
    world.checkpoint("candidate", seed=2, sleep_seconds=1.0)
    arguments = ["run", f"--policy={world.policy(['fraud'])}", "--backend=fake", "--device=cpu"]
    arguments += [f"--{role}={world.root / role}" for role in ("baseline", "candidate")]
    arguments += [f"--out={world.root / 'out'}", f"--store={world.root / 'store'}"]
    running = subprocess.Popen([sys.executable, "-m", "gate", *arguments], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert "fraud" in running.stdout.readline()  # the stage has begun
    running.terminate()
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert world.record().verdict.status is Status.ERROR
    assert "interrupted" in world.record().verdict.sentence


def test_six_mistakes_in_a_policy_are_six_lines(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    policy = world.root / "six.yaml"
    policy.write_text(
        "version: 1\n"
        "confidence: 2\n"
        "stages:\n"
        "  - kind: domain\n"
        "    name: fraud\n"
        "    dato: questions.jsonl\n"
        "    match: guess\n"
        "    rules:\n"
        "      - {metric: accuracy, max_drop: 3%}\n"
        "      - {metric: accuracy}\n"
        "      - {metric: acuracy, max_drop: 3pp}\n"
    )
    assert world.run(policy) == 2
    message = capsys.readouterr().err
    for place in ("six.yaml:2:", "six.yaml:6:", "six.yaml:7:", "six.yaml:9:", "six.yaml:10:"):
        assert place in message
    assert not (world.root / "out").exists()


def test_a_bug_in_the_gate_is_never_a_regression(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gate.pipeline.run_gate", broken)
    assert world.run(world.policy()) == 70
    assert "bug in the gate" in capsys.readouterr().err


def test_ctrl_c_leaves_a_partial_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gate.evidence.Collector.of_candidate", interrupted)
    assert world.run(world.policy(["fraud", "serving"])) == 130
    record = world.record()
    assert (record.verdict.status, record.exit_code) == (Status.ERROR, 130)
    assert {s.status for s in record.stages} == {Status.SKIPPED}


def test_a_report_that_fails_to_render_is_loud_and_changes_no_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(REPORTS, "html", "gate.reports:missing")
    assert world.run(world.policy(["fraud"])) == 0
    assert "report.html was not written" in capsys.readouterr().out
    assert world.record().exit_code == 0
