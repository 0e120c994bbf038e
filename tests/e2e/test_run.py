"""`gate run` from the command line to the folder it leaves, with real workers around a scripted model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gate import launch
from gate.artifact import read_observations
from gate.backends import BackendInfo
from gate.cli import main
from gate.records import Role, Status
from tests.e2e.world import N_QUESTIONS, STAGES, World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def assert_whole(world: World, out: str = "out") -> None:
    """Every artifact is there, and JUnit counts what the record says."""
    record = world.record(out)
    folder = world.root / out
    names = {p.name for p in folder.iterdir()}
    assert {"run.json", "junit.xml", "summary.md", "report.html", "log.txt", "observations"} <= names
    root = ElementTree.parse(folder / "junit.xml").getroot()
    cases = list(root.iter("testcase"))
    findings = [f for s in record.stages for f in s.findings]
    assert {f.rule.id for f in findings} <= {c.get("name") for c in cases}
    failures = [c for c in cases if c.find("failure") is not None]
    red = [f for f in findings if f.status is Status.REGRESSION and f.rule.severity == "blocking"]
    assert {f.rule.id for f in red} <= {c.get("name") for c in failures}
    for suite in root.iter("testsuite"):
        inside = list(suite.iter("testcase"))
        assert int(suite.get("tests", -1)) == len(inside)
        assert int(suite.get("failures", -1)) == sum(c.find("failure") is not None for c in inside)
        assert int(suite.get("errors", -1)) == sum(c.find("error") is not None for c in inside)


def test_a_good_candidate_passes_all_four_stages(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run(world.policy()) == 0
    record = world.record()
    assert record.verdict.status is Status.PASS
    assert record.exit_code == 0
    assert [(s.name, s.status) for s in record.stages] == [
        ("sanity", Status.PASS),
        ("capability", Status.PASS),
        ("fraud", Status.PASS),
        ("serving", Status.PASS),
    ]
    scored = [s.items_scored for s in record.stages]
    assert (scored[0], scored[3]) == (40, 4)
    assert scored[1] in (32, 64, 96)
    assert scored[2] in range(32, N_QUESTIONS, 32)  # settled before the last item
    assert [s.items_available for s in record.stages] == [40, 96, N_QUESTIONS, 4]
    assert_whole(world)
    assert "PASS" in capsys.readouterr().out


def test_observations_let_the_verdict_be_recomputed(world: World) -> None:
    world.run(world.policy(stages=["fraud"]))
    finding = world.finding("fraud.accuracy.max_drop")
    stored = read_observations(world.root / "out" / "observations" / "fraud.parquet")
    right = {m.role: {o.item_id: o.value for o in m.observations if o.metric == "correct"} for m in stored}
    pairs = [(right[Role.BASELINE][i], c) for i, c in right[Role.CANDIDATE].items()]
    assert len(right[Role.BASELINE]) == N_QUESTIONS == finding.counts["N"]
    assert len(pairs) == finding.counts["n"] < N_QUESTIONS
    assert sum(b > c for b, c in pairs) == finding.counts["b"]
    assert sum(b < c for b, c in pairs) == finding.counts["c"]
    assert finding.counts["b"] + finding.counts["c"] > 0
    assert finding.baseline is not None
    drop = (finding.counts["b"] - finding.counts["c"]) / len(pairs)
    assert finding.estimate == pytest.approx(max(drop, finding.baseline - 1))  # no more can be gained than was missing


def test_stopping_early_changes_what_is_paid_for_and_not_what_is_decided(world: World) -> None:
    assert world.run(world.policy(stages=["fraud"])) == 0
    assert world.run(world.policy(stages=["fraud"], stop_early=False), out="all") == 0
    early, late = world.finding("fraud.accuracy.max_drop"), world.finding("fraud.accuracy.max_drop", "all")
    assert early == late
    assert early.interval is not None
    assert (early.interval.scope, early.interval.valid) == ("benchmark", "anytime")
    assert world.record().stages[0].items_scored == early.n_paired < world.record("all").stages[0].items_scored


def test_a_domain_regression_stops_the_run_and_names_the_flips(world: World) -> None:
    bad = world.checkpoint("bad", seed=3, nll_shift=0.002, error_rate=0.3)
    assert world.run(world.policy(stages=["sanity", "fraud", "serving"]), candidate=bad) == 1
    record = world.record()
    assert record.verdict.status is Status.REGRESSION
    assert record.verdict.deciding[0] == "fraud.accuracy.max_drop"
    assert [s.status for s in record.stages] == [Status.PASS, Status.REGRESSION, Status.SKIPPED]
    assert "fraud" in (record.stages[2].skipped_because or "")
    lost = [f for f in record.flips if f.kind == "lost"]
    assert lost
    assert all(f.baseline_output == f.target != f.candidate_output for f in lost)
    assert_whole(world)


def test_keep_going_runs_what_fail_fast_would_skip(world: World) -> None:
    bad = world.checkpoint("bad", seed=3, error_rate=0.3)
    assert world.run(world.policy(stages=["fraud", "serving"]), "--keep-going", candidate=bad) == 1
    assert [s.status for s in world.record().stages] == [Status.REGRESSION, Status.PASS]


def test_a_gross_perplexity_rise_fails_fast_in_stage_one(world: World) -> None:
    bad = world.checkpoint("bad", seed=3, nll_shift=0.3)
    assert world.run(world.policy(), candidate=bad) == 1
    record = world.record()
    assert record.verdict.deciding == ("sanity.perplexity.max_increase",)
    assert [s.status for s in record.stages] == [Status.REGRESSION] + [Status.SKIPPED] * 3


def test_the_baseline_is_measured_once_for_all_candidates(world: World) -> None:
    policy = world.policy()
    world.run(policy)
    assert {s.name: s.baseline_from for s in world.record().stages} == dict.fromkeys(STAGES, "measured")
    other = world.checkpoint("other", seed=5)
    world.run(policy, candidate=other, out="out2")
    assert {s.name: s.baseline_from for s in world.record("out2").stages} == {
        "sanity": "store",
        "capability": "store",
        "fraud": "store",
        "serving": "measured",  # timing is always measured side by side
    }


def test_another_baseline_at_the_same_path_shares_nothing(world: World) -> None:
    """Hole 7 of peers.md: a cache keyed without the model serves one model's answers as another's."""
    policy = world.policy(stages=["fraud"])
    world.run(policy)
    before = world.finding("fraud.accuracy.max_drop").baseline
    world.checkpoint("baseline", seed=1, error_rate=0.2)
    world.run(policy, out="again")
    assert [s.baseline_from for s in world.record("again").stages] == ["measured"]
    after = world.finding("fraud.accuracy.max_drop", "again").baseline
    assert before is not None
    assert after is not None
    assert after < before - 0.1


def test_changing_a_threshold_measures_nothing_again_and_changing_data_does(world: World) -> None:
    world.run(world.policy(stages=["fraud"]))
    looser = [{**STAGES["fraud"], "rules": [{"metric": "accuracy", "max_drop": "9pp"}]}]
    world.run(world.policy(looser), out="looser")
    assert world.record("looser").stages[0].baseline_from == "store"
    path = world.root / "questions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    world.run(world.policy(looser), out="shorter")
    assert world.record("shorter").stages[0].baseline_from == "measured"


def test_a_restricted_run_never_passes(world: World) -> None:
    assert world.run(world.policy(), "--stage=fraud") == 3
    record = world.record()
    assert record.verdict.status is Status.INCONCLUSIVE
    assert [s.status for s in record.stages] == [Status.SKIPPED, Status.SKIPPED, Status.PASS, Status.SKIPPED]
    assert record.verdict.sentence.startswith(
        "Inconclusive: this run was restricted to --stage fraud; what was asked holds: accuracy on fraud "
    )
    assert world.run(world.policy(on_inconclusive="warn"), "--stage=fraud", out="warned") == 3
    assert "warn does not cover what was not measured" in world.record("warned").verdict.sentence


def test_a_baseline_that_scores_nothing_is_never_green(world: World) -> None:
    world.checkpoint("baseline", seed=1, answers={})
    world.checkpoint("candidate", seed=2, answers={})
    assert world.run(world.policy(stages=["fraud"])) == 4
    assert "no candidate could fail this rule: the baseline scores 0%" in world.record().verdict.sentence


def test_an_advisory_stage_that_breaks_is_shown_and_stops_nothing(world: World) -> None:
    world.checkpoint("candidate", seed=2, faults=[{"op": "timed_batch", "after": 0, "action": "sigkill"}])
    soft = [{**r, "severity": "advisory"} for r in STAGES["serving"]["rules"]]
    assert world.run(world.policy(stages=[{**STAGES["serving"], "rules": soft}, "fraud"])) == 0
    record = world.record()
    assert [s.status for s in record.stages] == [Status.ERROR, Status.PASS]
    assert record.verdict.sentence.startswith("The one blocking rule holds in fraud (")
    assert "; 2 advisory rules could not be measured: serving." in record.verdict.sentence


def test_a_set_too_small_for_its_bound_is_refused_before_it_costs_anything(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hole 2: ten items without a flip do not prove a drop below 1 pp, so no run could ever pass."""
    path = world.root / "questions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:10]))
    stage = {**STAGES["fraud"], "rules": [{"metric": "accuracy", "max_drop": "1pp"}]}
    assert world.run(world.policy([stage])) == 2
    assert "fraud.accuracy.max_drop" in capsys.readouterr().err
    assert not (world.root / "out").exists()


def test_too_little_evidence_is_inconclusive_and_warn_says_so(world: World) -> None:
    path = world.root / "questions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:80]))
    stage = {**STAGES["fraud"], "rules": [{"metric": "accuracy", "max_drop": "4pp", "scope": "population"}]}
    world.checkpoint("candidate", seed=2, error_rate=0.05)
    assert world.run(world.policy([stage])) == 3
    finding = world.finding("fraud.accuracy.max_drop")
    assert finding.status is Status.INCONCLUSIVE
    assert finding.interval is not None
    assert finding.interval.low < 0.04 < finding.interval.high
    assert finding.n_needed is not None
    assert finding.n_needed > 80
    warned = world.policy([stage], on_inconclusive="warn")
    assert world.run(warned, out="warned") == 0
    assert "warn" in world.record("warned").verdict.sentence


def test_the_same_checkpoint_twice_is_a_usage_error_unless_asked_for(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = world.policy(stages=["fraud"])
    baseline = world.root / "baseline"
    assert world.run(policy, candidate=baseline) == 2
    assert "--allow-identical" in capsys.readouterr().err
    assert not (world.root / "out" / "run.json").exists()
    assert world.run(policy, "--allow-identical", candidate=baseline) == 0
    assert world.finding("fraud.accuracy.max_drop").counts["b"] == 0


def test_every_model_is_loaded_once_for_its_scores_and_once_for_its_timing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    opening = launch.Worker.open

    def counted(self: launch.Worker) -> BackendInfo:
        loaded.append(self._role)
        return opening(self)

    monkeypatch.setattr(launch.Worker, "open", counted)
    assert world.run(world.policy(), "--keep-going") == 0
    assert {s.status for s in world.record().stages} == {Status.PASS}
    assert sorted(loaded) == ["baseline"] * 2 + ["candidate"] * 2
    assert loaded[2:] == ["baseline", "candidate"]


def test_what_a_backend_cannot_serve_is_an_error_that_says_so(world: World) -> None:
    served = world.checkpoint("served", unserved={"domain": "the server writes no text"}, seed=2)
    assert world.run(world.policy(stages=["sanity", "fraud"]), candidate=served) == 4
    finding = world.finding("fraud.accuracy.max_drop")
    assert "the fake backend cannot serve a domain stage here: the server writes no text" in finding.reason
    notes = world.record().notes
    assert "candidate: the fake backend cannot serve domain stages: the server writes no text" in notes
    assert world.finding("sanity.perplexity.max_increase").status is Status.PASS


def test_the_record_has_the_notes_and_packages_of_the_backend(world: World) -> None:
    odd = world.checkpoint("odd", notes=["weights are dequantized when loaded"], packages={"lm_eval": "9.9"}, seed=2)
    assert world.run(world.policy(stages=["fraud"]), candidate=odd) == 0
    record = world.record()
    assert "candidate: weights are dequantized when loaded" in record.notes
    assert record.environment.packages["lm-eval"] == "9.9"  # of the interpreter that measured
    assert "pydantic" in record.environment.packages


def test_an_a_a_run_says_what_storing_distributions_changed(world: World) -> None:
    assert world.run(world.policy(stages=["sanity"]), "--allow-identical", candidate=world.root / "baseline") == 0
    (note,) = (n for n in world.record().notes if "mean KL" in n)
    assert note.startswith("sanity: prose: mean KL 0 nats between two runs of the same model")


def test_a_second_run_into_the_same_folder_replaces_the_first(world: World) -> None:
    policy = world.policy(stages=["fraud"])
    world.run(policy)
    first = world.record().run_id
    (world.root / "out" / "observations" / "gone.parquet").write_bytes(b"old")
    bad = world.checkpoint("bad", seed=3, error_rate=0.3)
    assert world.run(policy, candidate=bad) == 1
    assert world.record().run_id != first
    assert {p.name for p in (world.root / "out" / "observations").iterdir()} == {"fraud.parquet"}


def test_a_foreign_folder_is_left_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.root / "out").mkdir()
    (world.root / "out" / "thesis.docx").write_text("mine")
    assert world.run(world.policy(stages=["fraud"])) == 2
    assert "thesis.docx" in capsys.readouterr().err
    assert (world.root / "out" / "thesis.docx").read_text() == "mine"


def test_reports_can_be_rendered_again_from_the_folder(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.run(world.policy(stages=["fraud"]))
    capsys.readouterr()
    assert main(["report", str(world.root / "out"), "--format", "junit"]) == 0
    assert capsys.readouterr().out.strip() == (world.root / "out" / "junit.xml").read_text().strip()
    assert main(["report", str(world.root / "out"), "--format", "poem"]) == 2
    assert "html" in capsys.readouterr().err
    assert main(["report", str(world.root), "--format", "text"]) == 2


def test_what_leaves_the_folder_names_no_prompt_by_default(world: World) -> None:
    bad = world.checkpoint("bad", seed=3, error_rate=0.3)
    world.run(world.policy(stages=["fraud"]), candidate=bad)
    summary = (world.root / "out" / "summary.md").read_text()
    assert "what is" not in summary
    assert re.search(r"what is \d+ plus", (world.root / "out" / "run.json").read_text())


def test_run_json_is_plain_json_with_the_promised_fields(world: World) -> None:
    world.run(world.policy(stages=["fraud"]))
    document = json.loads((world.root / "out" / "run.json").read_text())
    assert document["artifact_version"] == 4
    assert document["verdict"]["status"] == "PASS"
    (stage,) = document["stages"]
    finding = stage["findings"][0]
    assert {"kind", "name", "status", "seconds", "items_scored", "items_available", "findings"} <= stage.keys()
    assert {"id", "metric", "bound"} <= finding["rule"].keys()
    assert {"low", "high", "confidence", "method", "valid"} <= finding["interval"].keys()
    assert {"b", "c", "n", "N"} <= finding["counts"].keys()
