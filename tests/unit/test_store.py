"""The baseline store: nothing is served that is not exactly what was measured, by whom it was measured."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import resource
import shutil
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gate import checkpoint
from gate.errors import ArtifactError, DataError, UsageError
from gate.records import Role
from gate.store import REQUIRED, Store, default_root, open_store, stage_digest
from gate.store.seal import seal
from tests.checkpoint_factory import full_precision, resolved, write_checkpoint
from tests.store_factory import PARTS, PROVENANCE, data_folder, files_of, keep, measurement

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return Store(root)


class TestKeys:
    """Hole 7: a cache that does not know the model serves the baseline's answers as the candidate's."""

    @pytest.mark.parametrize("missing", sorted(REQUIRED))
    def test_no_key_without_what_identifies_a_measurement(self, store: Store, missing: str) -> None:
        for parts in ({k: v for k, v in PARTS.items() if k != missing}, PARTS | {missing: ""}):
            with pytest.raises(ValueError, match=f"a store key needs {missing}"):
                store.key(parts)

    def test_timings_are_never_stored(self, store: Store) -> None:
        with pytest.raises(ValueError, match="timings are never stored"):
            store.key(PARTS | {"stage": "profile"})

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
    def test_what_was_kept_comes_back_with_its_digest_and_date(self, store: Store, root: Path) -> None:
        """Hole 8: a reference is a measurement with a digest and a date, never a number that somebody wrote down."""
        key = keep(store)
        found = Store(root).get(key)
        assert found is not None
        assert found.measurement == measurement()
        assert (found.artifacts / "sub" / "logits.bin").read_bytes() == b"x" * 1000
        assert found.parts == PARTS
        assert found.provenance == PROVENANCE
        assert found.created_at.endswith("+00:00")

    def test_nothing_is_there_until_it_is_committed(self, store: Store, root: Path) -> None:
        key = store.key(PARTS)
        with store.reserve(key) as slot:
            (slot.artifacts / "half").write_bytes(b"x")
            assert store.get(key) is None
            assert store.list() == ()
        assert store.get(key) is None
        assert files_of(root) == []

    def test_an_exception_leaves_nothing(self, store: Store, root: Path) -> None:
        key = store.key(PARTS)

        def dying() -> None:
            with store.reserve(key) as slot:
                (slot.artifacts / "half").write_bytes(b"x")
                raise RuntimeError("the worker died")

        with pytest.raises(RuntimeError, match="the worker died"):
            dying()
        assert store.get(key) is None
        assert files_of(root) == []

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

    def test_listing(self, store: Store, root: Path) -> None:
        keys = {keep(store), keep(store, PARTS | {"source": "other"})}
        assert {e.key for e in store.list()} == keys
        assert Store(root / "absent").list() == ()
        assert Store(f"file://{root}").list() == store.list()


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def manifest(root: Path) -> Path:
    (path,) = (root / "entries").rglob("*.json")
    return path


def edit_manifest(root: Path, **changes: Any) -> None:
    path = manifest(root)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def resealed(root: Path, **changes: Any) -> None:
    """A manifest that somebody else wrote, checksum and all."""
    document = json.loads(manifest(root).read_text()) | changes
    del document["checksum"]
    manifest(root).write_bytes(seal(document, None))


def other_key(root: Path) -> None:
    folder = root / "entries" / ("0" * 64)
    folder.mkdir()
    manifest(root).rename(folder / "000000.json")


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "flipped bit in the measurement": (lambda r, d: flip(d / "measurement.parquet", 200), "parquet does not match its"),
    "flipped bit in an artifact": (lambda r, d: flip(d / "artifacts/sub/logits.bin", 500), "logits.bin does not match"),
    "flipped bit in the date": (lambda r, d: flip(manifest(r), manifest(r).read_bytes().index(b"20")), "checksum"),
    "truncated measurement": (lambda r, d: os.truncate(d / "measurement.parquet", 100), "has 100 bytes, expected"),
    "truncated artifact": (
        lambda r, d: os.truncate(d / "artifacts/sub/logits.bin", 999),
        "has 999 bytes, expected 1,0",
    ),
    "truncated manifest": (lambda r, d: os.truncate(manifest(r), 20), "is not readable"),
    "empty manifest": (lambda r, d: os.truncate(manifest(r), 0), "is not readable"),
    "missing measurement": (lambda r, d: (d / "measurement.parquet").unlink(), "measurement.parquet is missing"),
    "missing artifact": (lambda r, d: (d / "artifacts/sub/logits.bin").unlink(), "logits.bin is missing"),
    "missing folder": (lambda r, d: shutil.rmtree(d), "is missing"),
    "added file": (lambda r, d: (d / "artifacts/more").write_bytes(b""), "artifacts/more does not belong to it"),
    "edited key parts": (lambda r, d: edit_manifest(r, parts=PARTS | {"source": "x"}), "is not as it was written"),
    "another layout of the same": (lambda r, d: edit_manifest(r), "is not as it was written"),
    "manifest is no object": (lambda r, d: manifest(r).write_text("[]"), "is not as it was written"),
    "a number that JSON has not": (lambda r, d: manifest(r).write_text('{"a":NaN}'), "JSON compliant"),
    "another version": (lambda r, d: resealed(r, version=99), "has version 99"),
    "key of other parts": (lambda r, d: resealed(r, parts=PARTS | {"source": "x"}), "under another key"),
    "another generation": (lambda r, d: resealed(r, generation=7), "belongs to"),
    "a file outside": (lambda r, d: resealed(r, files={"artifacts/../../x": {}}), "is no manifest"),
    "no time": (lambda r, d: resealed(r, created_at="yesterday"), "is no manifest"),
    "more than there is": (lambda r, d: resealed(r, surprise=1), "is no manifest"),
    "huge manifest": (lambda r, d: manifest(r).write_bytes(b" " * 5_000_000), "is not readable"),
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGE)
    def test_a_damaged_entry_is_never_served(self, root: Path, name: str) -> None:
        key, (damage, said) = keep(Store(root)), DAMAGE[name]
        damage(root, data_folder(root, key))
        store = Store(root)
        assert store.get(key) is None
        assert store.get(key) is None
        (problem,) = store.problems  # said once
        assert "a stored baseline measurement was not used: entries/" in problem
        assert said in problem
        keep(store, value=0.5)
        found = store.get(key)
        assert found is not None
        assert found.measurement == measurement(0.5)
        assert Store(root).get(key) == found  # and nobody hears of the broken one again
        assert len(store.problems) == 1

    def test_every_flipped_byte_is_caught(self, root: Path) -> None:
        """In each file of an entry: every byte of the manifest, and a sample of the others with both ends."""
        key = keep(Store(root))
        draw, tried = random.Random(4), 0
        for path in [manifest(root), *files_of(data_folder(root, key))]:
            whole = path.read_bytes()
            places = range(len(whole))
            some = places if path.suffix == ".json" else {0, len(whole) - 1, *draw.sample(places, 40)}
            for at in some:
                damaged = bytearray(whole)
                damaged[at] ^= 1 << draw.randrange(8)
                path.write_bytes(damaged)
                store = Store(root)
                assert store.get(key) is None, (path.name, at)
                assert len(store.problems) == 1, (path.name, at)
                tried += 1
            path.write_bytes(whole)
        assert tried > 500
        assert Store(root).get(key) is not None

    def test_an_entry_of_another_key_is_not_served(self, root: Path) -> None:
        key = keep(Store(root))
        other_key(root)
        store = Store(root)
        assert store.get(key) is None
        assert store.get("0" * 64) is None
        (problem,) = store.problems
        assert f"belongs to entries/{key}" in problem

    def test_a_broken_newer_generation_does_not_bring_back_the_older_one(self, root: Path) -> None:
        store = Store(root)
        key = keep(store)
        (root / "entries" / key / "000001.json").write_text("{}")
        assert store.get(key) is None
        assert keep(store, value=0.0) == key
        found = store.get(key)
        assert found is not None
        assert found.measurement == measurement(0.0)
        assert sorted(p.name for p in (root / "entries" / key).iterdir()) == [
            "000000.json",
            "000001.json",
            "000002.json",
        ]

    def test_a_stray_file_is_no_entry(self, root: Path) -> None:
        store = Store(root)
        key = keep(store)
        (root / "entries" / key / "zzz.json").write_text("{}")
        (root / "entries" / "README").write_text("hands off")
        assert store.get(key) is not None
        assert len(store.list()) == 1
        assert store.problems == []


class TestUnwritable:
    def test_a_store_that_cannot_be_written_is_a_usage_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        store = Store(tmp_path / "file")
        with pytest.raises(UsageError, match=r"failed: Not a directory. It cannot be written: .*QUANTGATE_STORE"):
            store.check_writable()

    def test_what_is_measured_all_the_same_is_used_and_not_kept(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        store = Store(tmp_path / "file")
        with store.reserve(store.key(PARTS)) as slot:
            (slot.artifacts / "rows.bin").write_bytes(b"x")
            with pytest.raises(ArtifactError, match="Not a directory"):
                slot.commit(measurement(), PROVENANCE)
            assert (slot.artifacts / "rows.bin").read_bytes() == b"x"
        assert not slot.artifacts.exists()

    def test_a_full_disk_costs_nothing_that_was_measured(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        store = Store(root)
        with store.reserve(store.key(PARTS)) as slot:
            (slot.artifacts / "rows.bin").write_bytes(b"x")
            with monkeypatch.context() as patched:
                patched.setattr(os, "fsync", full)
                with pytest.raises(ArtifactError, match="No space left"):
                    slot.commit(measurement(), PROVENANCE)
            assert (slot.artifacts / "rows.bin").read_bytes() == b"x"
        assert store.list() == ()
        assert files_of(root) == []
        keep(store)
        assert len(store.list()) == 1

    def test_a_file_that_becomes_too_large(self, root: Path) -> None:
        store = Store(root)
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        with store.reserve(store.key(PARTS)) as slot:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, old[1]))
            try:
                with pytest.raises(ArtifactError, match="File too large"):
                    slot.commit(measurement(), PROVENANCE)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert files_of(root) == []

    def test_checking_leaves_nothing(self, root: Path) -> None:
        Store(root).check_writable()
        assert files_of(root) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_permission(self, root: Path) -> None:
        root.mkdir()
        root.chmod(0o500)
        with pytest.raises(UsageError, match="Permission denied"):
            Store(root).check_writable()


class TestReadOnly:
    """What an untrusted job may do: use what is there, and leave no trace."""

    def test_it_reads_and_keeps_nothing(self, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        key = keep(Store(root))
        before = files_of(root)
        store = Store(root, read_only=True)
        store.check_readable()
        assert store.get(key) is not None
        other = store.key(PARTS | {"source": "other"})
        with store.reserve(other) as slot, pytest.raises(ArtifactError, match="is read-only here"):
            slot.commit(measurement(), PROVENANCE)
        with pytest.raises(ArtifactError, match="is read-only here"):
            store.put_calibration({}, {})
        with pytest.raises(UsageError, match=r"read-only here \(--store-read-only"):
            store.check_writable()
        assert files_of(root) == before

    def test_the_environment_says_so_too(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for said, expected in (("1", True), ("0", False), ("", False), ("true", True)):
            monkeypatch.setenv("QUANTGATE_STORE_READONLY", said)
            assert open_store(str(root)).read_only is expected
            assert open_store(str(root), read_only=True).read_only
        monkeypatch.setenv("QUANTGATE_STORE_READONLY", "perhaps")
        with pytest.raises(UsageError, match="found QUANTGATE_STORE_READONLY='perhaps', expected 1 or 0"):
            open_store(str(root))


def write_together(root: Path, barrier: Barrier, value: float) -> None:
    store = Store(root)
    key = store.key(PARTS)
    with store.reserve(key) as slot:
        (slot.artifacts / "who").write_text(str(value))
        barrier.wait(30)
        kept = slot.commit(measurement(value), PROVENANCE)
        # both writers hold the same whole entry afterwards, whoever won
        assert (kept.artifacts / "who").read_text() == str(kept.measurement.observations[0].value)


class TestProcesses:
    def test_two_writers_at_once(self, root: Path) -> None:
        barrier = SPAWN.Barrier(2)
        writers = [SPAWN.Process(target=write_together, args=(root, barrier, v)) for v in (0.0, 1.0)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert [w.exitcode for w in writers] == [0, 0]
        store = Store(root)
        (entry,) = store.list()
        kept = store.get(entry.key)
        assert kept is not None
        assert (kept.artifacts / "who").read_text() == str(kept.measurement.observations[0].value)
        assert store.problems == []
        assert list((root / "tmp").iterdir()) == []
        assert len(list((root / "data").iterdir())) == 1  # the loser took its files away


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
    assert default_root() == str(Path("~/.cache/quantgate/store").expanduser())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == str(tmp_path / "quantgate" / "store")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", _nobody)
    with pytest.raises(UsageError, match="set XDG_CACHE_HOME"):
        default_root()
    monkeypatch.setenv("QUANTGATE_STORE", "s3://team/baselines")
    assert default_root() == "s3://team/baselines"
