"""A finished run under another policy: only what was measured is judged, and what was refused stays refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate import artifact
from gate.errors import ArtifactError
from gate.finished.first_items import are_first
from gate.finished.run_folder import RunFolder, read_run
from gate.order import place
from gate.pipeline import Outcome
from gate.policy_file import load_policy
from gate.publish.conclusion import contradiction
from gate.records import Measurement, RunRecord, StageResult, Status, Verdict
from gate.replay import replay
from gate.reports import replay_text
from tests import records_factory
from tests.decide_factory import failure, finding, pair_of, rule, stage

DOMAIN: dict[str, Any] = {"kind": "domain", "name": "fraud", "data": "fraud.jsonl", "match": "exact"}
SANITY: dict[str, Any] = {"kind": "perplexity", "name": "sanity", "corpora": [{"name": "prose", "path": "p.txt"}]}


def policy(path: Path, *stages: Mapping[str, Any], **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({"version": 1, "stages": list(stages), **changes}))
    return path


def fraud(bound: str, metric: str = "accuracy", **settings: Any) -> dict[str, Any]:
    return {**DOMAIN, **settings, "rules": [{"metric": metric, "max_drop": bound, "scope": "population"}]}


def sanity() -> dict[str, Any]:
    return {**SANITY, "rules": [{"metric": "perplexity", "max_increase": "5%"}]}


def ran(
    folder: Path,
    *stages: Mapping[str, Any],
    results: Sequence[StageResult],
    measurements: Sequence[Measurement] = (),
    status: Status = Status.REGRESSION,
    **changes: Any,
) -> RunFolder:
    """A run under a policy of these stages, written and read back."""
    loaded = load_policy(policy(folder / "then.yaml", *stages, **changes))
    record: RunRecord = replace(
        records_factory.record(status, results, sentence="As it was.", exit_code=1),
        policy=loaded.policy.model_dump(mode="json", exclude_none=True),
        policy_source="then.yaml",
    )
    out = folder / "run"
    (out / "observations").mkdir(parents=True)
    (out / "run.json").write_text(artifact.dumps_record(record))
    if measurements:
        artifact.write_observations(out / "observations" / "fraud.parquet", measurements)
    return read_run(out)


def again(run: RunFolder, folder: Path, *stages: Mapping[str, Any], **changes: Any) -> Outcome:
    loaded = load_policy(policy(folder / "now.yaml", *stages, **changes))
    return replay(run, loaded, now=datetime(2026, 11, 21, tzinfo=UTC))


def items() -> list[Measurement]:
    """400 items, of which 40 were lost and 4 gained: a drop of 9 pp."""
    return [
        replace(m, observations=tuple(replace(o, item_id=f"fraud/{o.item_id}/0") for o in m.observations))
        for m in pair_of(300, 40, 4, 56)
    ]


def red() -> StageResult:
    return stage("fraud", Status.REGRESSION, [finding(rule("max_drop 3pp"), Status.REGRESSION, estimate=0.09)])


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return ran(tmp_path, fraud("3pp"), results=[red()], measurements=items())


@pytest.mark.parametrize(
    ("bound", "status", "code"),
    [("3pp", Status.REGRESSION, 1), ("9pp", Status.INCONCLUSIVE, 3), ("20pp", Status.PASS, 0)],
)
def test_the_bound_moves_the_verdict(run: RunFolder, tmp_path: Path, bound: str, status: Status, code: int) -> None:
    outcome = again(run, tmp_path, fraud(bound))
    (found,) = outcome.record.stages[0].findings
    assert (found.status, outcome.record.verdict.status, outcome.record.exit_code) == (status, status, code)
    assert found.counts["N"] == 400
    if status is Status.INCONCLUSIVE:  # the others may be settled by the first items of the run's order
        assert (found.counts["b"], found.counts["c"], found.counts["n"]) == (40, 4, 400)
    assert outcome.record.candidate == run.record.candidate
    assert outcome.record.policy_source.endswith("now.yaml")


def test_the_table_marks_what_moved(run: RunFolder, tmp_path: Path) -> None:
    outcome = again(run, tmp_path, {**DOMAIN, "rules": [
        {"metric": "accuracy", "max_drop": "20pp", "scope": "population"},
        {"metric": "accuracy", "min": 0.1, "scope": "population"},
    ]})  # fmt: skip
    lines = replay_text.render(run.record, outcome.record).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["fraud.accuracy.max_drop", "regression", "pass", "moved"],
        ["fraud.accuracy.min", "–", "pass", "moved"],
    ]
    assert "verdict: regression (exit code 1) → pass (exit code 0)" in lines
    assert "2 of 2 rules moved; policy then: then.yaml, now:" in " ".join(lines)


def test_rules_that_are_no_longer_asked_are_in_the_table(run: RunFolder, tmp_path: Path) -> None:
    outcome = again(run, tmp_path, {**DOMAIN, "rules": [{"metric": "accuracy", "min": 0.1}]})
    assert "fraud.accuracy.max_drop  regression  not asked  moved" in replay_text.render(run.record, outcome.record)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"match": "contains"}, 'measured it with match "exact", this policy asks "contains"'),
        ({"sample": 100}, "measured it with sample null, this policy asks 100"),
        ({"template": "{input}!"}, "template"),
        ({"data": "other.jsonl"}, "data"),
    ],
)
def test_another_measurement_is_never_taken_for_the_one_asked(
    run: RunFolder, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    outcome = again(run, tmp_path, fraud("20pp", **settings))
    (found,) = outcome.record.stages[0].findings
    assert (found.status, outcome.record.exit_code) == (Status.ERROR, 4)
    assert message in found.reason
    assert found.reason in " ".join(replay_text.render(run.record, outcome.record).split())


def test_names_budgets_and_rules_are_no_settings_of_a_measurement(run: RunFolder, tmp_path: Path) -> None:
    assert again(run, tmp_path, fraud("20pp", budget="3min"), confidence=0.9).record.exit_code == 0


def test_another_seed_matters_where_a_sample_was_drawn(tmp_path: Path) -> None:
    sampled = ran(tmp_path, fraud("3pp", sample=400), results=[red()], measurements=items(), seed=1)
    assert again(sampled, tmp_path, fraud("20pp", sample=400), seed=1).record.exit_code == 0
    outcome = again(sampled, tmp_path, fraud("20pp", sample=400), seed=2)
    assert outcome.record.exit_code == 4
    assert "drew its sample with seed 1, this policy asks 2" in outcome.record.stages[0].findings[0].reason


def test_a_metric_that_was_not_measured_is_an_error(run: RunFolder, tmp_path: Path) -> None:
    outcome = again(run, tmp_path, fraud("20pp", metric="rouge_l"))
    assert outcome.record.exit_code == 4
    assert "did not report 'rouge_l'" in outcome.record.stages[0].findings[0].reason


def test_a_stage_that_the_run_did_not_have_is_an_error(run: RunFolder, tmp_path: Path) -> None:
    outcome = again(run, tmp_path, sanity(), fraud("20pp"))
    assert [s.status for s in outcome.record.stages] == [Status.ERROR, Status.PASS]
    assert "it had no such stage" in outcome.record.stages[0].findings[0].reason
    assert outcome.record.exit_code == 4


def test_a_skipped_stage_stays_skipped_and_forbids_a_pass(tmp_path: Path) -> None:
    skipped = stage("sanity", Status.SKIPPED, because="stage fraud ended in REGRESSION")
    both = ran(tmp_path, fraud("3pp"), sanity(), results=[red(), skipped], measurements=items())
    outcome = again(both, tmp_path, fraud("20pp"), sanity(), on_inconclusive="warn")
    assert outcome.record.stages[1].skipped_because == "stage fraud ended in REGRESSION"
    assert (outcome.record.verdict.status, outcome.record.exit_code) == (Status.INCONCLUSIVE, 3)


@pytest.mark.parametrize("changes", [{}, {"on_inconclusive": "warn"}])
@pytest.mark.parametrize("bound", ["9pp", "20pp"])
def test_a_stage_of_advice_that_was_skipped_forbids_a_pass_too(
    tmp_path: Path, bound: str, changes: dict[str, Any]
) -> None:
    """Nothing was measured of it, so nothing can be said of it: what only advises may still be what breaks."""
    advice = {**SANITY, "rules": [{"metric": "perplexity", "max_increase": "5%", "severity": "advisory"}]}
    skipped = stage("sanity", Status.SKIPPED, because="stage fraud ended in REGRESSION")
    both = ran(tmp_path, fraud("3pp"), advice, results=[red(), skipped], measurements=items())
    record = again(both, tmp_path, fraud(bound), advice, **changes).record
    assert (record.verdict.status, record.exit_code) == (Status.INCONCLUSIVE, 3)
    assert contradiction(record) is None
    if bound == "20pp":
        assert record.verdict.sentence.startswith("Inconclusive: not run: sanity (stage fraud ended in REGRESSION)")
    elif changes:
        assert "does not cover what was not measured" in record.verdict.sentence
    alone = again(both, tmp_path, fraud("20pp")).record  # a policy that does not ask for it has nothing to miss
    assert (alone.verdict.status, alone.exit_code) == (Status.PASS, 0)


def test_another_seed_than_that_of_a_run_that_stopped_early(tmp_path: Path) -> None:
    baseline, candidate = items()
    whole = ran(tmp_path, fraud("3pp"), results=[red()], measurements=items(), seed=1)
    for at in ({"seed": 1}, {"seed": 2}):
        assert again(whole, tmp_path, fraud("20pp"), **at).record.exit_code == 0
    ordered_by = whole.order_seed
    assert ordered_by is not None
    first = sorted((o.item_id for o in candidate.observations), key=lambda i: place(ordered_by, i))[:96]
    part = replace(candidate, observations=tuple(o for o in candidate.observations if o.item_id in first), n_reached=96)
    artifact.write_observations(whole.path / "observations" / "fraud.parquet", [baseline, part])
    stopped = read_run(whole.path)
    benchmark = fraud("3pp")
    benchmark["rules"][0]["scope"] = "benchmark"
    (same,) = again(stopped, tmp_path, benchmark, seed=1).record.stages[0].findings
    assert same.status is not Status.ERROR
    (other,) = again(stopped, tmp_path, benchmark, seed=2).record.stages[0].findings
    assert other.status is Status.ERROR
    assert "the first by seed 1, and this policy asks for the first by seed 2" in other.reason
    lost = replace(part, observations=part.observations[2:], failures=(failure(first[0]),))  # some may be lost
    assert are_first(baseline, lost, ordered_by)
    assert not are_first(baseline, replace(part, n_reached=64), ordered_by)


def test_evidence_that_broke_says_why(tmp_path: Path) -> None:
    broken = replace(finding(rule("max_drop 3pp"), Status.ERROR), reason="the worker ran out of memory")
    run = ran(tmp_path, fraud("3pp"), results=[stage("fraud", Status.ERROR, [broken])], status=Status.ERROR)
    outcome = again(run, tmp_path, fraud("20pp"))
    assert outcome.record.exit_code == 4
    assert "not measured in that run: the worker ran out of memory" in outcome.record.stages[0].findings[0].reason


@pytest.mark.parametrize(("status", "code"), [(Status.REFUSED, 5), (Status.ERROR, 4)])
def test_no_policy_changes_what_ended_before_measuring(tmp_path: Path, status: Status, code: int) -> None:
    skipped = stage("fraud", Status.SKIPPED, because="the checkpoint was refused")
    outcome = again(ran(tmp_path, fraud("3pp"), results=[skipped], status=status), tmp_path, fraud("20pp"))
    assert outcome.record.exit_code == code
    assert outcome.record.verdict == Verdict(status=status, deciding=(), sentence="As it was.")


def test_damaged_runs_are_not_read(tmp_path: Path, run: RunFolder) -> None:
    folder = run.path
    again_there = folder / "observations" / "copy.parquet"
    again_there.write_bytes((folder / "observations" / "fraud.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="twice"):
        read_run(folder)
    again_there.write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"copy\.parquet"):
        read_run(folder)
    again_there.unlink()
    (folder / "run.json").write_text((folder / "run.json").read_text().replace('"kind": "domain"', '"kind": "x"'))
    with pytest.raises(ArtifactError, match="not one that this gate reads"):
        read_run(folder)


def test_without_observations_nothing_passes(tmp_path: Path, run: RunFolder) -> None:
    (run.path / "observations" / "fraud.parquet").unlink()
    assert again(read_run(run.path), tmp_path, fraud("20pp")).record.exit_code == 4
