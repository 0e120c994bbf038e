"""What stands beside the verdict in a record: figures of speed and memory, lengths of answers, and notes where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate.decide import output_length, performance
from gate.decide.run_record import Setting, run_record
from gate.errors import CouldNotMeasure
from gate.policy_file import load_policy
from gate.records import MAX_FLIPS, Measurement, OutputLength, Role, RunRecord, StageResult, Status, Verdict
from tests import records_factory
from tests.decide_factory import pair_of

STAGES: list[dict[str, Any]] = [
    {
        "kind": "domain",
        "name": "fraud",
        "data": "fraud.jsonl",
        "match": "exact",
        "rules": [{"metric": "accuracy", "max_drop": "3pp"}],
    },
    {"kind": "profile", "name": "serving", "rules": [{"metric": "rss_peak", "max": "1GiB"}]},
]


def made(
    folder: Path,
    measurements: Mapping[str, Sequence[Measurement]],
    *,
    stages: Sequence[StageResult] = (),
    notes: tuple[str, ...] = (),
    flips: int = 0,
) -> RunRecord:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "stages": STAGES}))
    then = records_factory.record(Status.PASS, stages, sentence="It holds.", exit_code=0)
    setting = Setting(
        baseline=then.baseline,
        candidate=then.candidate,
        environment=then.environment,
        created=datetime(2026, 11, 21, tzinfo=UTC),
        seconds=1.0,
        notes=notes,
    )
    return run_record(
        load_policy(path),
        setting,
        stages=stages,
        measurements=measurements,
        flips=[records_factory.flip(i) for i in range(flips)],
        quality=None,
        verdict=Verdict(status=Status.PASS, deciding=(), sentence="It holds."),
        waivers=(),
        exit_code=0,
        unnamed="unknown",
    )


def serving() -> list[Measurement]:
    return [replace(m, stage="serving", source="serving") for m in pair_of(1, 0, 0, 0)]


def test_each_profile_stage_that_was_measured_is_described_with_its_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    (figures,) = records_factory.profiled(cpu=True).performance

    def described(stage: Any, baseline: Any, candidate: Any, **known: Any) -> Any:
        seen.append((stage.name, baseline.role, candidate.role, set(known["refs"]), known["findings"]))
        return figures

    monkeypatch.setattr(performance, "describe", described)
    record = made(tmp_path, {"fraud": pair_of(1, 0, 0, 0), "serving": serving()})
    assert seen == [("serving", Role.BASELINE, Role.CANDIDATE, set(Role), ())]
    assert record.performance == (figures,)
    assert made(tmp_path, {"fraud": pair_of(1, 0, 0, 0)}).performance == ()


@pytest.mark.parametrize("problem", [CouldNotMeasure("no room to say it"), ZeroDivisionError("0"), KeyError("batch=8")])
def test_what_cannot_be_described_is_a_note_and_costs_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise problem

    monkeypatch.setattr(performance, "describe", fails)
    monkeypatch.setattr(output_length, "lengths", fails)
    record = made(tmp_path, {"serving": serving()}, notes=("as before",))
    assert (record.verdict.status, record.performance, record.output_lengths) == (Status.PASS, (), ())
    first, figures, lengths = record.notes
    assert first == "as before"
    assert figures.startswith("serving: its figures cannot be given: ")
    assert lengths.startswith("the lengths of the answers cannot be compared: ")
    assert type(problem).__name__ in figures or str(problem) in figures


def length(source: str, ratio: float, *, outside: bool) -> OutputLength:
    return OutputLength(
        stage="fraud",
        source=source,
        baseline_tokens=20.0,
        candidate_tokens=20.0 * ratio,
        ratio=ratio,
        low=ratio - 0.02,
        high=ratio + 0.02,
        n=200,
        outside=outside,
    )


def test_answers_of_another_length_are_named_and_not_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = (length("fraud", 0.5, outside=True), length("other", 1.0, outside=False))
    monkeypatch.setattr(output_length, "lengths", lambda *_: found)
    record = made(tmp_path, {"fraud": pair_of(1, 0, 0, 0)})
    assert record.output_lengths == found
    (note,) = record.notes
    assert note == (
        "fraud: the candidate writes 50% of the baseline's tokens per answer (10.0 against 20.0, n = 200), expected "
        "90% to 110%: this moves both speed and quality"
    )
    again = made(tmp_path, {"fraud": pair_of(1, 0, 0, 0)}, notes=record.notes)  # a replay keeps the notes it read
    assert again.notes == record.notes


def test_the_record_is_known_by_time_candidate_and_policy(tmp_path: Path) -> None:
    record = made(tmp_path, {})
    assert record.candidate is not None
    day, candidate, policy = record.run_id.split("-")
    assert (day, candidate) == ("20261121T000000", record.candidate.effective_digest[:8])
    assert policy == record.policy_digest[:8]


def test_flips_are_cut(tmp_path: Path) -> None:
    assert len(made(tmp_path, {}, flips=MAX_FLIPS + 1).flips) == MAX_FLIPS
