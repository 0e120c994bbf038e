"""run.json, Parquet files and atomic writes: what is written is what is read, and nothing half-written is believed."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gate.artifact import (
    dumps_record,
    loads_record,
    read_observations,
    run_json,
    schema,
    write_atomic,
    write_observations,
)
from gate.errors import ArtifactError
from gate.metrics import DOMAIN
from gate.records import (
    ARTIFACT_VERSION,
    Answer,
    ItemFailure,
    Measurement,
    Observation,
    Role,
    RunRecord,
)
from tests import records_factory

GOLDEN = Path(__file__).parents[1] / "golden" / "run_v1.json"
RECORDS = records_factory.everything()
HALF_PAIR = "\ud800"


def document(record: RunRecord) -> Any:
    return json.loads(dumps_record(record))


def changed(record: RunRecord, place: str, value: Any) -> str:
    """The record's JSON with the value at a dotted place set, or removed when it is `...`."""
    found = document(record)
    *steps, last = (int(s) if s.isdigit() else s for s in place.split("."))
    target = found
    for step in steps:
        target = target[step]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(found)


class TestRunJson:
    @pytest.mark.parametrize("name", [n for n in RECORDS if n != "hostile"])
    def test_what_is_read_is_what_was_written(self, name: str) -> None:
        text = dumps_record(RECORDS[name])
        read = loads_record(text)
        assert read == RECORDS[name]
        again = dumps_record(read)  # integers where the record has floats are floats from now on: 231 → 231.0
        assert loads_record(again) == read
        assert dumps_record(loads_record(again)) == again
        assert loads_record(text.encode()) == read

    def test_hostile_text_survives_but_for_half_surrogates(self) -> None:
        record = RECORDS["hostile"]
        read = loads_record(dumps_record(record).encode())
        assert HALF_PAIR in record.notes[0]
        assert read.notes[0] == record.notes[0].replace(HALF_PAIR, "\ufffd")

    def test_the_documented_fields_are_there(self) -> None:
        found = document(RECORDS["regression"])
        assert found["artifact_version"] == ARTIFACT_VERSION
        assert found["verdict"]["status"] == "REGRESSION"
        assert found["verdict"]["sentence"]
        assert found["exit_code"] == 1
        expected = {"kind", "name", "status", "seconds", "items_scored", "items_available", "findings"}
        assert expected <= found["stages"][1].keys()
        finding = found["stages"][1]["findings"][0]
        assert finding["rule"]["id"] == "fraud.accuracy.max_drop"
        assert finding["rule"]["bound"] == {"kind": "max_drop", "value": 0.03, "text": "3pp"}
        assert finding["counts"] == {"b": 231, "c": 1, "n": 2000, "N": 2000}
        assert finding["interval"] == {
            "low": 0.1033,
            "high": 0.1278,
            "confidence": 0.95,
            "fail_confidence": 0.95,
            "method": "tango",
            "scope": "population",
            "valid": "fixed_n",
        }
        others = {"status", "baseline", "candidate", "estimate", "n_paired", "n_lost", "reason"}
        assert others <= finding.keys()

    @pytest.mark.parametrize("value", [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 2.0**53 + 2])
    def test_floats_are_exact(self, value: float) -> None:
        record = dataclasses.replace(RECORDS["pass"], seconds=value)
        assert loads_record(dumps_record(record)).seconds.hex() == value.hex()

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_no_number_is_not_written(self, value: float) -> None:
        with pytest.raises(ValueError, match="Out of range float"):
            dumps_record(dataclasses.replace(RECORDS["pass"], seconds=value))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not readable JSON"),
            ("not json", "not readable JSON"),
            (dumps_record(RECORDS["pass"])[:-40], "damaged or incomplete"),
            (b"\xff\xfe\x00", "not readable JSON"),
            ("[" * 200_000, "not readable JSON"),
            ("[]", "without an artifact_version"),
            ('{"verdict": "PASS"}', "without an artifact_version"),
            ('{"artifact_version": true}', "without an artifact_version"),
            ('{"artifact_version": 1}', "not a run record of version 1: missing 'stages'"),
            ('{"artifact_version": 4}', "not a run record of version 4: .*required"),
            (changed(RECORDS["pass"], "artifact_version", 5), "version 5, written by a newer gate.*up to 4: upgrade"),
            (changed(RECORDS["pass"], "artifact_version", 0), "version 0, which no gate has written"),
            (changed(RECORDS["pass"], "surprise", 1), "unknown field surprise"),
            (
                changed(RECORDS["pass"], "stages.0.findings.0.rule.weight", 1),
                r"unknown field stages\[0\].findings\[0\].rule.weight",
            ),
            (changed(RECORDS["pass"], "verdict.status", "GREEN"), "verdict.status: .*'GREEN'"),
            (changed(RECORDS["pass"], "verdict.status", ...), "verdict.status"),
            (changed(RECORDS["pass"], "exit_code", "0"), "exit_code: .*'0'"),
            (changed(RECORDS["pass"], "seconds", float("nan")), "Out of range float"),
            (changed(RECORDS["pass"], "stages.0.findings.0.interval.low", 9.0), "is not finite and ordered"),
            (changed(RECORDS["pass"], "stages.0.findings.0.interval", None), "without estimate, interval"),
        ],
    )
    def test_what_is_no_record_is_not_believed(self, text: str | bytes, message: str) -> None:
        with pytest.raises(ArtifactError, match=message):
            loads_record(text)

    def test_huge_files_are_not_even_parsed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_json, "MAX_CHARACTERS", 100)
        with pytest.raises(ArtifactError, match="expected at most 100"):
            loads_record(dumps_record(RECORDS["pass"]))

    def test_older_versions_are_migrated_step_by_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def from_zero(old: dict[str, Any]) -> dict[str, Any]:
            return {k: v for k, v in old.items() if k != "duration"} | {"seconds": old["duration"]}

        monkeypatch.setitem(run_json.MIGRATIONS, 0, from_zero)
        old = document(RECORDS["pass"])
        old |= {"artifact_version": 0, "duration": old.pop("seconds")}
        assert loads_record(json.dumps(old)) == RECORDS["pass"]

    def test_the_fixture_of_version_1_still_loads(self) -> None:
        record = loads_record(GOLDEN.read_text(encoding="utf-8"))
        assert record.artifact_version == ARTIFACT_VERSION
        assert record.verdict.status == "REGRESSION"
        assert record.verdict.deciding == ("fraud.accuracy.max_drop",)
        assert [s.status for s in record.stages] == ["PASS", "REGRESSION", "SKIPPED"]
        worst = record.stages[1].findings[0]
        assert worst.interval is not None
        assert (worst.estimate, worst.interval.low, worst.interval.high) == (0.115, 0.1033, 0.1278)
        assert record.candidate is not None
        assert record.candidate.quantization is not None
        assert record.candidate.quantization.bits == 3
        assert len(record.flips) == 3

    def test_the_fixture_of_version_2_still_loads(self) -> None:
        record = loads_record(GOLDEN.with_name("run_v2.json").read_text(encoding="utf-8"))
        assert record.artifact_version == ARTIFACT_VERSION
        assert (record.performance, record.output_lengths) == ((), ())
        rules = [f.rule for s in record.stages for f in s.findings]
        assert {(r.lengths, r.load) for r in rules} == {(None, None)}
        assert record.verdict.deciding == ("fraud.accuracy.max_drop",)

    def test_the_fixture_of_version_3_still_loads(self) -> None:
        record = loads_record(GOLDEN.with_name("run_v3.json").read_text(encoding="utf-8"))
        assert record.artifact_version == ARTIFACT_VERSION
        assert (record.waivers, record.policy_change) == ((), None)
        assert record.performance

    def test_reading_a_record_imports_nothing_heavy(self) -> None:
        code = (
            "import sys; from gate import artifact\n"
            f"artifact.loads_record(open({str(GOLDEN)!r}).read())\n"
            "print(sorted(set(sys.modules) & {'torch', 'transformers', 'scipy', 'numpy', 'pyarrow'}))"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestSchema:
    @pytest.mark.parametrize("name", RECORDS)
    def test_every_record_conforms(self, name: str) -> None:
        jsonschema.validate(document(RECORDS[name]), schema(), jsonschema.Draft202012Validator)

    def test_it_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(schema())
        assert schema()["properties"]["flips"]["maxItems"] == 200

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("verdict.status", "GREEN"),
            ("exit_code", ...),
            ("stages.0.findings.0.reason", ...),
            ("artifact_version", 5),
            ("extra", 1),
            ("stages.0.findings.0.interval.low", "0"),
        ],
    )
    def test_what_is_no_record_does_not_conform(self, place: str, value: Any) -> None:
        broken = json.loads(changed(RECORDS["pass"], place, value))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema(), jsonschema.Draft202012Validator)


def observation(item: str, metric: str = "correct", value: float = 1.0, **changes: Any) -> Observation:
    fields: dict[str, Any] = {"weight": 1.0, "cluster": None, "group": None}
    return Observation(metric=metric, item_id=item, value=value, **fields | changes)


def measurement(**changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "stage": "fraud",
        "source": "fraud",
        "role": Role.BASELINE,
        "settings_digest": "d" * 64,
        "n_expected": 3,
        "n_available": 4,
        "n_reached": 3,
        "planned_tokens": 120,
        "chance": None,
        "metrics": (DOMAIN["accuracy"], DOMAIN["empty_rate"]),
        "observations": (observation("a"), observation("b", value=0.0, group="x")),
        "failures": (ItemFailure(item_id="c", kind="timeout", message="60 s"),),
        "answers": (Answer(item_id="b", group="x", prompt="p", output="é\n", target="t"),),
        "seconds": 1 / 3,
        "notes": ("one", "two"),
    }
    return Measurement(**fields | changes)


class TestObservations:
    def test_both_roles_in_one_file(self, tmp_path: Path) -> None:
        both = [measurement(), measurement(role=Role.CANDIDATE, observations=(), seconds=0.0, notes=())]
        write_observations(tmp_path / "fraud.parquet", both)
        assert read_observations(tmp_path / "fraud.parquet") == both

    def test_the_table_has_one_row_per_item(self, tmp_path: Path) -> None:
        from pyarrow import parquet

        observations = (observation("a"), observation("a", "empty", 0.0, weight=2.0), observation("b", group="x"))
        write_observations(tmp_path / "fraud.parquet", [measurement(observations=observations)])
        rows = parquet.read_table(tmp_path / "fraud.parquet").to_pylist()
        assert [(r["role"], r["source"], r["item_id"], r["group"]) for r in rows] == [
            ("baseline", "fraud", "a", None),
            ("baseline", "fraud", "b", "x"),
            ("baseline", "fraud", "c", None),
        ]
        assert rows[0]["values"] == [("correct", 1.0), ("empty", 0.0)]
        assert rows[0]["weights"] == [("correct", 1.0), ("empty", 2.0)]
        assert rows[1]["output"] == "é\n"
        assert (rows[2]["failure_kind"], rows[2]["values"]) == ("timeout", [])

    @pytest.mark.parametrize(
        "changes",
        [
            {"observations": (), "failures": (), "answers": ()},
            {"observations": (observation("a", "nll", 2.0), observation("b"), observation("a"))},
            {"observations": (observation("a", cluster="x"), observation("a", "empty", cluster="y"))},
            {"observations": (observation("a"), observation("a"))},
            {"failures": tuple(ItemFailure(item_id="a", kind=k, message="") for k in "xyx")},
            {"answers": tuple(Answer(item_id="a", group=g, prompt="", output="", target="") for g in ("q", None, "q"))},
            {"observations": (observation("", "", -0.0, weight=5e-324, group=""),)},
        ],
        ids=["nothing", "metric by metric", "two clusters", "twice", "failures twice", "answers twice", "empty names"],
    )
    def test_odd_shapes_come_back(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        written = measurement(**changes)
        write_observations(tmp_path / "odd.parquet", [written])
        (read,) = read_observations(tmp_path / "odd.parquet")
        assert read == written

    def test_half_surrogates_in_answers_are_replaced(self, tmp_path: Path) -> None:
        answer = Answer(item_id="a", group=None, prompt=HALF_PAIR, output="ok", target="t")
        write_observations(tmp_path / "x.parquet", [measurement(answers=(answer,))])
        (read,) = read_observations(tmp_path / "x.parquet")
        assert set(read.answers[0].prompt) == {"\ufffd"}

    @pytest.mark.parametrize("keep", [0, 3, 200, -10])
    def test_a_truncated_file_is_an_error(self, tmp_path: Path, keep: int) -> None:
        path = tmp_path / "fraud.parquet"
        write_observations(path, [measurement()])
        os.truncate(path, keep if keep >= 0 else path.stat().st_size + keep)
        with pytest.raises(ArtifactError, match="is not a whole file of observations"):
            read_observations(path)

    def test_missing_and_foreign_files_are_errors(self, tmp_path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        with pytest.raises(ArtifactError, match=r"absent\.parquet is not a whole file"):
            read_observations(tmp_path / "absent.parquet")
        parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "foreign.parquet")
        with pytest.raises(ArtifactError, match="quantgate"):
            read_observations(tmp_path / "foreign.parquet")


class TestAtomicWrites:
    def test_it_replaces_and_leaves_nothing_behind(self, tmp_path: Path) -> None:
        path = tmp_path / "run.json"
        path.write_text("old")
        write_atomic(path, b"new")
        assert path.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_crash_before_the_rename_keeps_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "run.json"
        path.write_text("old")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, b"new")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_file_is_readable_as_the_umask_says(self, tmp_path: Path) -> None:
        old = os.umask(0o027)
        try:
            write_atomic(tmp_path / "run.json", b"")
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o640

    def test_a_missing_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            write_atomic(tmp_path / "absent" / "run.json", b"")
