"""Stores behind a URL: downloaded, checked, and survived when they fail, hang or lose half of what they were given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gate.errors import ArtifactError, UsageError
from gate.store import Store, open_store
from tests.store_factory import PARTS, PROVENANCE, files_of, keep, measurement


class Faulty(MemoryFileSystem):  # type: ignore[misc]
    """Memory in which the operations in `faults` go wrong."""

    protocol = "faulty"
    faults: ClassVar[dict[str, Callable[[], object]]] = {}
    asked: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://"))
        return stripped

    def _go(self, operation: str) -> None:
        self.asked.append(operation)
        if operation in self.faults:
            self.faults[operation]()

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._go("find")
        return super().find(path, *arguments, **options)

    def cat(self, path: Any, *arguments: Any, **options: Any) -> Any:
        self._go("cat")
        return super().cat(path, *arguments, **options)

    def get_file(self, rpath: str, lpath: str, *arguments: Any, **options: Any) -> None:
        self._go("get")
        super().get_file(rpath, lpath, *arguments, **options)

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        if "truncate" in self.faults:
            super().pipe_file(rpath, Path(lpath).read_bytes()[:-1])
            return
        self._go("put")
        super().put_file(lpath, rpath, *arguments, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self._go("pipe")
        super().pipe_file(path, value, mode=mode, **options)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.faults.clear()
    Faulty.asked.clear()
    # one memory for the whole process: other tests may have left something in it
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def raises(problem: BaseException) -> Callable[[], object]:
    def raising() -> None:
        raise problem

    return raising


def stored(suffix: str) -> str:
    (name,) = (name for name in MemoryFileSystem.store if name.endswith(suffix))
    return str(name)


class TestMemory:
    def test_a_machine_finds_what_another_one_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        key = keep(Store("memory://team/baselines"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        store = Store("memory://team/baselines")
        found = store.get(key)
        assert found is not None
        assert found.measurement == measurement()
        assert found.provenance == PROVENANCE
        assert (found.artifacts / "sub" / "logits.bin").read_bytes() == b"x" * 1000
        assert tmp_path / "another" in found.artifacts.parents
        assert [e.key for e in store.list()] == [key]
        assert store.problems == []

    def test_the_first_writer_wins_and_the_other_takes_its_files_away(self) -> None:
        store = Store("memory://team")
        key = store.key(PARTS)
        with store.reserve(key) as first, store.reserve(key) as second:
            first.commit(measurement(1.0), PROVENANCE)
            assert second.commit(measurement(0.0), PROVENANCE).measurement == measurement(1.0)
        assert len([n for n in MemoryFileSystem.store if n.startswith("/team/data/")]) == 1

    def test_a_writer_that_comes_in_between_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The store was empty when it was looked at, and is not when it is written: the conditional write decides."""
        store, other = Store("memory://team"), Store("memory://team")
        create = type(store.bucket).create

        def late(bucket: Any, name: str, data: bytes) -> None:
            monkeypatch.setattr(type(store.bucket), "create", create)
            keep(other, value=0.0)
            create(bucket, name, data)

        monkeypatch.setattr(type(store.bucket), "create", late)
        with store.reserve(store.key(PARTS)) as slot:
            assert slot.commit(measurement(1.0), PROVENANCE).measurement == measurement(0.0)
        assert len(store.list()) == 1

    @pytest.mark.parametrize("suffix", ["/measurement.parquet", "/logits.bin", "/000000.json"])
    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    def test_damage_is_caught_and_measured_again(self, suffix: str, damage: str) -> None:
        key = keep(Store("memory://team"))
        name = stored(suffix)
        data = MemoryFileSystem.store[name].getvalue()
        match damage:
            case "flip":
                fsspec.filesystem("memory").pipe_file(name, data[:50] + bytes([data[50] ^ 1]) + data[51:])
            case "truncate":
                fsspec.filesystem("memory").pipe_file(name, data[:-1])
            case "remove":
                fsspec.filesystem("memory").rm_file(name)
        store = Store("memory://team")
        assert store.get(key) is None
        gone = damage == "remove" and suffix == "/000000.json"  # then there is no entry
        assert len(store.problems) == (0 if gone else 1)
        keep(store, value=0.5)
        found = Store("memory://team").get(key)
        assert found is not None
        assert found.measurement == measurement(0.5)

    def test_a_copy_that_was_damaged_here_is_downloaded_again(self) -> None:
        store = Store("memory://team")
        key = keep(store)
        found = store.get(key)
        assert found is not None
        copy = found.artifacts / "sub" / "logits.bin"
        for damaged in (b"", b"y" * 1000):
            copy.write_bytes(damaged)
            assert store.get(key) == found
            assert copy.read_bytes() == b"x" * 1000
        assert store.problems == []

    def test_artifacts_are_downloaded_when_they_are_wanted(self, tmp_path: Path) -> None:
        store = Store("memory://team")
        keep(store)
        (entry,) = store.list()
        assert files_of(tmp_path / "cache") == []
        assert store.open(entry, artifacts=False).measurement == measurement()
        copies = [p.name for p in files_of(tmp_path / "cache") if "copies" in p.parts]
        assert copies == ["measurement.parquet"]
        store.open(entry, artifacts=True)
        copies = [p.name for p in files_of(tmp_path / "cache") if "copies" in p.parts]
        assert copies == ["logits.bin", "measurement.parquet"]

    def test_calibrations(self) -> None:
        parts = dict.fromkeys(("effective_digest", "stage", "source", "settings", "backend", "device"), "x")
        parts["environment"] = "x"
        store = Store("memory://team")
        assert store.get_calibration(parts) is None
        for rate in (0.1, 0.2):
            store.put_calibration(parts, {"rate": rate})
        assert Store("memory://team").get_calibration(parts) == {"rate": 0.2}


OUTAGES: dict[str, tuple[dict[str, Callable[[], object]], str]] = {
    "a refused connection": ({"put": raises(ConnectionRefusedError(111, "Connection refused"))}, "Connection refused"),
    "an exception of its own": ({"put": raises(RuntimeError("credentials expired"))}, "credentials expired"),
    "a full store": ({"put": raises(OSError(28, "No space left on device"))}, "No space left"),
    "no permission": ({"pipe": raises(PermissionError(13, "Forbidden"))}, "Forbidden"),
    "the bucket vanished": ({"pipe": raises(FileNotFoundError(2, "NoSuchBucket"))}, "NoSuchBucket"),
    "half of it arrives": ({"truncate": lambda: None}, "bytes, expected"),
    "a secret in the message": (
        {"put": raises(OSError("cannot reach https://me:hunter2@host/x"))},
        "cannot reach https://…@host/x",
    ),
}


class TestOutages:
    @pytest.mark.parametrize("name", OUTAGES)
    def test_what_cannot_be_kept_is_not_lost_and_not_half_there(self, name: str) -> None:
        faults, said = OUTAGES[name]
        store = Store("faulty://team")
        with store.reserve(store.key(PARTS)) as slot:
            (slot.artifacts / "rows.bin").write_bytes(b"x")
            Faulty.faults.update(faults)
            with pytest.raises(ArtifactError, match=said):
                slot.commit(measurement(), PROVENANCE)
            assert (slot.artifacts / "rows.bin").read_bytes() == b"x"
        Faulty.faults.clear()
        assert Store("faulty://team").list() == ()
        keep(Store("faulty://team"))
        assert len(Store("faulty://team").list()) == 1

    @pytest.mark.parametrize("operation", ["find", "cat", "get"])
    def test_what_cannot_be_read_is_measured(self, operation: str) -> None:
        key = keep(Store("faulty://team"))
        Faulty.faults[operation] = raises(ConnectionResetError(104, "Connection reset by peer"))
        store = Store("faulty://team")
        assert store.get(key) is None
        assert store.get_calibration(dict.fromkeys(_CALIBRATION, "x")) is None
        assert store.problems[0].startswith("stored baseline measurements were not used: the baseline store faulty://")
        assert "Connection reset by peer" in store.problems[0]

    def test_a_store_that_hangs_is_asked_once(self) -> None:
        key = keep(Store("faulty://team"))
        release = threading.Event()
        Faulty.faults["find"] = lambda: release.wait(60)
        store = Store("faulty://team", answer_seconds=0.05)
        Faulty.asked.clear()
        for _ in range(3):
            assert store.get(key) is None
        assert Faulty.asked == ["find"]
        with (
            store.reserve(store.key(PARTS)) as slot,
            pytest.raises(ArtifactError, match="did not answer before, and is not asked again"),
        ):
            slot.commit(measurement(), PROVENANCE)
        release.set()
        first, *others = store.problems
        assert first.endswith("the baseline store faulty://team did not answer within 0 s")
        assert all("not asked again" in other for other in others)

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (raises(PermissionError(13, "Forbidden")), "Forbidden"),
            (lambda: threading.Event().wait(1), "did not answer within"),
        ],
    )
    def test_at_the_start_it_is_a_usage_error(self, fault: Callable[[], object], said: str) -> None:
        Faulty.faults["pipe"] = fault
        with pytest.raises(UsageError, match=rf"{said}.*It cannot be written: .* --store-read-only"):
            Store("faulty://team", answer_seconds=0.05).check_writable()
        Faulty.faults.clear()
        Faulty.faults["find"] = fault
        with pytest.raises(UsageError, match=rf"{said}.*It cannot be read"):
            Store("faulty://team", answer_seconds=0.05).check_readable()

    def test_checking_leaves_nothing(self) -> None:
        Store("faulty://team").check_writable()
        assert MemoryFileSystem.store == {}


_CALIBRATION = ("effective_digest", "stage", "source", "settings", "backend", "device", "environment")


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "extra"),
        [("s3://team/b", "s3"), ("gs://team/b", "gcs"), ("az://team/b", "azure"), ("abfs://t", "azure")],
    )
    def test_a_package_that_is_missing(self, url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: object, **__: object) -> None:
            raise ImportError("Install it")

        monkeypatch.setattr("fsspec.core.url_to_fs", missing)
        with pytest.raises(
            UsageError, match=rf"--store '{url}' needs the package .*: pip install 'quantgate\[{extra}\]'"
        ):
            open_store(url)

    def test_an_unknown_protocol(self) -> None:
        with pytest.raises(
            UsageError, match=r"'ss3://team' cannot be opened \(Protocol not known: ss3\): expected a fol"
        ):
            open_store("ss3://team")

    def test_a_password_is_not_shown(self) -> None:
        with pytest.raises(UsageError) as raised:
            open_store("ss3://me:hunter2@team/x")
        assert "hunter2" not in str(raised.value)

    def test_half_a_file_url(self) -> None:
        with pytest.raises(UsageError, match="expected a whole path after the scheme, such as file:///srv/baselines"):
            open_store("file://srv/baselines")
