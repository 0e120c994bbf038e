"""The baseline store: nothing is served that is not exactly what was measured, by whom it was measured."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gate import checkpoint
from gate.errors import ArtifactError, DataError, UsageError
from gate.metrics import DOMAIN
from gate.records import Measurement, Observation, Role
from gate.store import REQUIRED, Store, default_root, stage_digest
from tests.checkpoint_factory import full_precision, resolved, write_checkpoint

PARTS = {
    "digest": "d" * 64,
    "effective_digest": "e" * 64,
    "stage": "domain",
    "source": "fraud",
    "settings_digest": "5" * 64,
    "sample_seed": "7",
    "backend": "fake",
    "environment": "f" * 64,
}
PROVENANCE = {"uri": "bank"}
SPAWN = multiprocessing.get_context("spawn")


def measurement(value: float = 1.0, n: int = 2) -> Measurement:
    return Measurement(
        stage="fraud",
        source="fraud",
        role=Role.BASELINE,
        settings_digest=PARTS["settings_digest"],
        n_expected=n,
        n_available=n,
        n_reached=n,
        planned_tokens=0,
        chance=None,
        metrics=(DOMAIN["accuracy"],),
        observations=tuple(
            Observation(metric="correct", item_id=str(i), value=value, weight=1.0, cluster=None, group=None)
            for i in range(n)
        ),
        failures=(),
        answers=(),
        seconds=2.5,
        notes=(),
    )


def keep(store: Store, parts: dict[str, str] = PARTS, value: float = 1.0) -> str:
    key = store.key(parts)
    with store.reserve(key) as slot:
        (slot.artifacts / "sub").mkdir()
        (slot.artifacts / "sub" / "logits.bin").write_bytes(b"x" * 1000)
        slot.commit(measurement(value), PROVENANCE)
    return key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class TestKeys:
    """Hole 7: a cache that does not know the model serves the baseline's answers as the candidate's."""

    @pytest.mark.parametrize("missing", sorted(REQUIRED))
    def test_no_key_without_what_identifies_a_measurement(self, store: Store, missing: str) -> None:
        for parts in ({k: v for k, v in PARTS.items() if k != missing}, PARTS | {missing: ""}):
            with pytest.raises(ValueError, match=f"a store key needs {missing}"):
                store.key(parts)

    @pytest.mark.parametrize("part", [*sorted(PARTS), "anything else"])
    def test_every_part_makes_another_key(self, store: Store, part: str) -> None:
        assert store.key(PARTS | {part: "other"}) != store.key(PARTS)

    def test_the_order_of_parts_does_not(self, store: Store) -> None:
        assert store.key(dict(reversed(PARTS.items()))) == store.key(PARTS)

    def test_two_checkpoints_at_one_path_never_share_an_entry(self, store: Store, tmp_path: Path) -> None:
        keys = []
        for byte in (1, 2):  # same folder, same file names, same sizes, moments apart
            folder = write_checkpoint(tmp_path / "model", full_precision(byte))
            ref = checkpoint.describe(resolved(folder), Role.BASELINE, cache=tmp_path / "cache")
            keys.append(store.key(PARTS | {"effective_digest": ref.effective_digest}))
        assert keys[0] != keys[1]

    def test_reserving_takes_a_key_of_this_store(self, store: Store) -> None:
        with pytest.raises(ValueError, match="expected one made by this store"), store.reserve("0" * 64):
            pass


class TestEntries:
    def test_what_was_kept_comes_back_with_its_digest_and_date(self, store: Store) -> None:
        """Hole 8: a reference is a measurement with a digest and a date, never a number that somebody wrote down."""
        key = keep(store)
        found = Store(store.root).get(key)
        assert found is not None
        assert found.measurement == measurement()
        assert (found.artifacts / "sub" / "logits.bin").read_bytes() == b"x" * 1000
        assert found.parts == PARTS
        assert found.provenance == PROVENANCE
        assert found.created_at.endswith("+00:00")

    def test_nothing_is_there_until_it_is_committed(self, store: Store) -> None:
        key = store.key(PARTS)
        with store.reserve(key) as slot:
            (slot.artifacts / "half").write_bytes(b"x")
            assert store.get(key) is None
            assert store.list() == ()
        assert store.get(key) is None
        assert [p for p in store.root.rglob("*") if p.is_file()] == []

    def test_an_exception_leaves_nothing(self, store: Store) -> None:
        key = store.key(PARTS)

        def dying() -> None:
            with store.reserve(key) as slot:
                (slot.artifacts / "half").write_bytes(b"x")
                raise RuntimeError("the worker died")

        with pytest.raises(RuntimeError, match="the worker died"):
            dying()
        assert store.get(key) is None
        assert [p for p in store.root.rglob("*") if p.is_file()] == []

    def test_only_baselines_are_kept(self, store: Store) -> None:
        with (
            store.reserve(store.key(PARTS)) as slot,
            pytest.raises(ValueError, match="found a measurement of the cand"),
        ):
            slot.commit(dataclasses.replace(measurement(), role=Role.CANDIDATE), PROVENANCE)

    def test_the_first_writer_wins(self, store: Store) -> None:
        key = store.key(PARTS)
        with store.reserve(key) as first, store.reserve(key) as second:
            assert first.artifacts != second.artifacts
            first.commit(measurement(1.0), PROVENANCE)
            kept = second.commit(measurement(0.0), PROVENANCE)
        assert kept.measurement == measurement(1.0)
        assert store.problems == []

    def test_listing(self, store: Store) -> None:
        keys = {keep(store), keep(store, PARTS | {"source": "other"})}
        assert {e.key for e in store.list()} == keys
        assert Store(store.root / "absent").list() == ()


def entry(store: Store, key: str) -> Path:
    return store.root / key[:2] / key


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit_meta(folder: Path, **changes: Any) -> None:
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped bit in the measurement": lambda f: flip(f / "measurement.parquet", 200),
    "flipped bit in an artifact": lambda f: flip(f / "artifacts/sub/logits.bin", 500),
    "flipped bit in the date": lambda f: flip(f / "meta.json", (f / "meta.json").read_bytes().index(b"20")),
    "truncated measurement": lambda f: os.truncate(f / "measurement.parquet", 100),
    "truncated meta": lambda f: os.truncate(f / "meta.json", 20),
    "missing meta": lambda f: (f / "meta.json").unlink(),
    "missing artifact": lambda f: (f / "artifacts/sub/logits.bin").unlink(),
    "added file": lambda f: (f / "artifacts/more").write_bytes(b""),
    "edited key parts": lambda f: edit_meta(f, parts=PARTS | {"effective_digest": "0" * 64}),
    "another version": lambda f: edit_meta(f, version=99),
    "meta is no object": lambda f: (f / "meta.json").write_text("[]"),
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGE)
    def test_a_damaged_entry_is_never_served(self, store: Store, name: str) -> None:
        key = keep(store)
        DAMAGE[name](entry(store, key))
        assert store.get(key) is None
        (problem,) = store.problems
        assert "was not used and moved to" in problem
        (aside,) = (store.root / "corrupt").iterdir()
        assert aside.name.startswith(key)
        keep(store)
        assert store.get(key) is not None
        assert len(store.problems) == 1

    def test_an_entry_of_another_key_is_not_served(self, store: Store) -> None:
        key, other = keep(store), store.key(PARTS | {"effective_digest": "a" * 64})
        entry(store, other).parent.mkdir(exist_ok=True)
        entry(store, key).rename(entry(store, other))
        assert store.get(other) is None
        assert len(store.problems) == 1

    def test_a_damaged_entry_in_the_way_is_replaced(self, store: Store) -> None:
        key = keep(store)
        os.truncate(entry(store, key) / "measurement.parquet", 10)
        with store.reserve(key) as slot:
            kept = slot.commit(measurement(0.5), PROVENANCE)
        assert kept.measurement == measurement(0.5)
        assert len(store.problems) == 1


class TestUnwritable:
    def test_a_store_that_cannot_be_written_is_a_usage_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        store = Store(tmp_path / "file")
        with pytest.raises(UsageError, match=r"cannot be written \(Not a directory\).*QUANTGATE_STORE"):
            store.reserve(store.key(PARTS)).__enter__()

    def test_a_full_disk_is_an_artifact_error(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with store.reserve(store.key(PARTS)) as slot:
            monkeypatch.setattr(os, "fsync", full)
            with pytest.raises(ArtifactError, match=r"cannot write to the baseline store.*No space left"):
                slot.commit(measurement(), PROVENANCE)
        assert store.list() == ()


def write_together(root: Path, barrier: Barrier, value: float) -> None:
    store = Store(root)
    key = store.key(PARTS)
    with store.reserve(key) as slot:
        (slot.artifacts / "who").write_text(str(value))
        barrier.wait(30)
        kept = slot.commit(measurement(value), PROVENANCE)
        # both writers hold the same whole entry afterwards, whoever won
        assert (kept.artifacts / "who").read_text() == str(kept.measurement.observations[0].value)


def write_for_ever(root: Path) -> None:
    store = Store(root)
    with store.reserve(store.key(PARTS)) as slot:
        (slot.artifacts / "half").write_bytes(b"x" * 10_000)
        (slot.artifacts / "ready").touch()
        time.sleep(600)


class TestProcesses:
    def test_two_writers_at_once(self, store: Store) -> None:
        barrier = SPAWN.Barrier(2)
        writers = [SPAWN.Process(target=write_together, args=(store.root, barrier, v)) for v in (0.0, 1.0)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert [w.exitcode for w in writers] == [0, 0]
        (kept,) = store.list()
        assert (kept.artifacts / "who").read_text() == str(kept.measurement.observations[0].value)
        assert store.problems == []
        assert list((store.root / "tmp").iterdir()) == []

    def test_a_writer_killed_in_the_middle(self, store: Store) -> None:
        writer = SPAWN.Process(target=write_for_ever, args=(store.root,))
        writer.start()
        deadline = time.monotonic() + 60
        while not list(store.root.glob("tmp/*/artifacts/ready")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(60)
        key = store.key(PARTS)
        assert store.get(key) is None
        assert store.list() == ()
        assert keep(store) == key
        assert store.get(key) is not None
        assert store.problems == []


class TestStageDigest:
    SETTINGS: ClassVar[dict[str, Any]] = {
        "kind": "lm_eval",
        "name": "capability",
        "budget": "10min",
        "tasks": [{"task": "mmlu", "sample": "20%", "rules": [{"metric": "acc", "max_drop": "3pp"}]}],
    }

    def digest(self, *files: Path, version: int = 1, base: Path = Path("/base"), **changes: Any) -> str:
        return stage_digest(self.SETTINGS | changes, files, version, base)

    def test_rules_budget_and_name_do_not_count(self) -> None:
        """Changing a threshold must not measure the baseline again."""
        other = [{"task": "mmlu", "sample": "20%", "rules": []}]
        assert self.digest(name="x", budget=None, tasks=other, rules=[1]) == self.digest()

    def test_what_is_measured_counts(self) -> None:
        assert self.digest(tasks=[{"task": "mmlu", "sample": "30%", "rules": []}]) != self.digest()
        assert self.digest(version=2) != self.digest()

    def test_the_content_of_files_counts_and_where_the_project_lies_does_not(self, tmp_path: Path) -> None:
        digests = []
        for folder, content in (("a", "one"), ("b", "one"), ("c", "two")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "fraud.jsonl").write_text(content)
            digests.append(self.digest(tmp_path / folder / "fraud.jsonl", base=tmp_path / folder))
        assert digests[0] == digests[1] != digests[2]
        assert digests[0] != self.digest()

    def test_the_place_in_the_project_counts(self, tmp_path: Path) -> None:
        """Two files of one name that swap their contents or folders are not what they were."""
        for folder in "ab":
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "x.yaml").write_text(folder)
        files = [tmp_path / "a" / "x.yaml", tmp_path / "b" / "x.yaml"]
        before = self.digest(*files, base=tmp_path)
        only_a = self.digest(files[0], base=tmp_path)
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "b").rename(tmp_path / "a")
        (tmp_path / "c").rename(tmp_path / "b")
        assert self.digest(*files, base=tmp_path) != before
        files[1].rename(tmp_path / "x.yaml")
        assert self.digest(tmp_path / "x.yaml", base=tmp_path) != only_a

    def test_files_outside_the_project_count_by_name_and_content(self, tmp_path: Path) -> None:
        for folder in "ab":
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "x.yaml").write_text("same")
        first, second = (self.digest(tmp_path / f / "x.yaml", base=tmp_path / "project") for f in "ab")
        assert first == second
        (tmp_path / "b" / "x.yaml").write_text("other")
        assert self.digest(tmp_path / "b" / "x.yaml", base=tmp_path / "project") != second

    def test_a_linked_project_is_the_same_project(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "x.yaml").write_text("x")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        expected = self.digest(tmp_path / "real" / "x.yaml", base=tmp_path / "real")
        assert self.digest(tmp_path / "real" / "x.yaml", base=tmp_path / "link") == expected
        assert self.digest(tmp_path / "link" / "x.yaml", base=tmp_path / "link") == expected

    def test_a_missing_file_is_a_data_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone.jsonl.*No such file"):
            self.digest(tmp_path / "gone.jsonl")


def _nobody(_: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QUANTGATE_STORE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_root() == Path("~/.cache/quantgate/store").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "quantgate" / "store"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", _nobody)
    with pytest.raises(UsageError, match="set XDG_CACHE_HOME"):
        default_root()
    monkeypatch.setenv("QUANTGATE_STORE", str(tmp_path / "shared"))
    assert default_root() == tmp_path / "shared"
