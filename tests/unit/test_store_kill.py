"""Writers that die at any moment, by `kill -9`: an entry is there and intact, or it is not there.

One process imports everything once and forks a writer for every death, so that hundreds of them take seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gate.store import Store, holder
from gate.store.pruning import Limits, prune
from gate.store.workspace import Workspace
from tests.store_factory import PARTS, PROVENANCE, files_of, keep, measurement

NO_LIMITS = Limits(older_than=None, keep_last=None, max_bytes=None)

NURSERY = '''
import json, os, signal, sys, time
from pathlib import Path
import pyarrow.parquet
pyarrow.Table.from_pylist([{"a": 1}])  # imports what it wants before anything is forked
from gate.store import Store
from tests.store_factory import PARTS, PROVENANCE, keep, measurement

os.fsync = lambda descriptor: None  # what a dead process wrote stays written: that is for power cuts, and slow

def write(order):
    """Keeps an entry, or dies: before the nth operation on files, or when somebody kills it."""
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if event.startswith(("os.", "open", "shutil.")) and event != "os.kill" and order["die_before"] is not None:
            seen += 1
            if seen > order["die_before"]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    keep(Store(Path(order["root"])), PARTS | {"source": order["source"]}, order["value"])

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        write(order)
        os._exit(0)
    if order["die_before"] is None:
        time.sleep(order["die_after_seconds"])
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), child, flush=True)
'''


class Nursery:
    """Raises writers, and says how each of them ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def write(self, root: Path, **order: Any) -> tuple[int, int]:
        """(exit code, process id); -9 for a writer that was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        defaults = {"root": str(root), "source": "fraud", "value": 1.0, "die_before": None, "die_after_seconds": 0.0}
        self._process.stdin.write(json.dumps(defaults | order) + "\n")
        self._process.stdin.flush()
        code, pid = self._process.stdout.readline().split()
        return int(code), int(pid)


@contextmanager
def _nursery() -> Iterator[Nursery]:
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        yield Nursery(process)


@pytest.fixture(autouse=True)
def _no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """See NURSERY."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with _nursery() as made:
        yield made


def assert_sound(root: Path) -> bool:
    """Whatever is listed is intact, whatever is not listed is absent; returns whether the entry is there."""
    store = Store(root)
    key = store.key(PARTS)
    listed, found = store.list(), store.get(key)
    assert store.problems == []
    assert [e.key for e in listed] == ([] if found is None else [key])
    if found is not None:
        assert found.measurement in (measurement(1.0), measurement(0.0))
        assert (found.artifacts / "sub" / "logits.bin").read_bytes() == b"x" * 1000
    return found is not None


def test_a_writer_killed_before_any_operation(nursery: Nursery, tmp_path: Path) -> None:
    """The nth file operation of a writer never happens, for every n until one lives to the end."""
    codes, there = [], []
    for n in range(400):
        root = tmp_path / str(n)
        codes.append(nursery.write(root, die_before=n)[0])
        there.append(assert_sound(root))
        if codes[-1] == 0:
            break
        keep(Store(root), value=0.0)  # a fresh writer is not disturbed by what the dead one left
        assert assert_sound(root)
        Store(root).check_writable()
        assert list((root / "tmp").iterdir()) == []
    deaths = codes.count(-signal.SIGKILL)
    assert codes == [-signal.SIGKILL] * deaths + [0]
    assert deaths >= 50
    assert there == sorted(there)  # absent up to one operation, which is the one that makes it appear
    assert there.count(False) > 40


def test_writers_killed_at_random_moments_in_one_store(nursery: Nursery, tmp_path: Path) -> None:
    draw, there, killed = random.Random(20261120), dict[str, bool](), 0
    while killed < 50:
        source = f"task{len(there)}"
        assert len(there) < 500
        code, _ = nursery.write(tmp_path, source=source, die_after_seconds=draw.uniform(0.0, 0.04))
        killed += code == -signal.SIGKILL
        store = Store(tmp_path)
        there[source] = store.get(store.key(PARTS | {"source": source})) is not None
        assert code != 0 or there[source]
        assert store.problems == []
    store = Store(tmp_path)
    assert {e.manifest.parts["source"] for e in store.list() if e.manifest is not None} == {
        source for source, is_there in there.items() if is_there
    }
    for source in there:
        keep(store, PARTS | {"source": source})  # fresh writers succeed, whatever is lying about
    entries = store.list()
    assert len(entries) == len(there)
    prune(store, NO_LIMITS, now=datetime.now(UTC) + timedelta(days=2), by="test", dry_run=False)
    assert list((tmp_path / "tmp").iterdir()) == []
    named = {e.manifest.content for e in entries if e.manifest is not None}
    assert {p.relative_to(tmp_path / "data").parts[0] for p in files_of(tmp_path / "data")} == named
    assert all(store.get(e.key) is not None for e in entries)


class TestLeftovers:
    """What a killed writer leaves is dropped when its process is surely gone, and not before."""

    def test_a_dead_process_of_this_machine(self, nursery: Nursery, tmp_path: Path) -> None:
        _, pid = nursery.write(tmp_path / "elsewhere", die_before=0)
        machine = holder.me().rpartition("-")[0]
        self.check(tmp_path, f"key@{machine}-{pid}-0badcafe", age_seconds=0.0, is_dropped=True)

    def test_a_living_process(self, tmp_path: Path) -> None:
        self.check(tmp_path, f"key@{holder.me()}-0badcafe", age_seconds=3600.0, is_dropped=False)

    def test_a_process_of_another_machine_may_live(self, tmp_path: Path) -> None:
        self.check(tmp_path, "key@0123456789ab-1-0badcafe", age_seconds=6 * 86400.0, is_dropped=False)

    def test_nobody_measures_for_a_week(self, tmp_path: Path) -> None:
        self.check(tmp_path, "key@0123456789ab-1-0badcafe", age_seconds=8 * 86400.0, is_dropped=True)
        self.check(tmp_path, f"key@{holder.me()}-0badcafe", age_seconds=8 * 86400.0, is_dropped=True)

    def check(self, root: Path, name: str, *, age_seconds: float, is_dropped: bool) -> None:
        folder = root / "tmp" / name
        (folder / "artifacts").mkdir(parents=True)
        then = time.time() - age_seconds
        os.utime(folder, (then, then))
        Store(root).check_writable()
        assert folder.exists() is not is_dropped

    def test_copies_that_nobody_wants(self, tmp_path: Path) -> None:
        workspace = Workspace(tmp_path)
        for name, days in (("old", 31), ("new", 29), ("held", 31)):
            (tmp_path / "copies" / name).mkdir(parents=True)
            then = time.time() - days * 86400
            if name == "held":
                workspace.hold(name)
            os.utime(tmp_path / "copies" / name, (then, then))
        assert workspace.sweep() == 1
        assert {p.name for p in (tmp_path / "copies").iterdir()} == {"new", "held"}


def test_a_writer_that_lives_is_not_disturbed_by_sweeping(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.reserve(store.key(PARTS)) as slot:
        (slot.artifacts / "half").write_bytes(b"x")
        Store(tmp_path).check_writable()
        prune(Store(tmp_path), NO_LIMITS, now=datetime.now(UTC), by="test", dry_run=False)
        slot.commit(measurement(), PROVENANCE)
    assert store.get(store.key(PARTS)) is not None
