"""Who may change a baseline, and what goes: signatures, promotions, pruning, and a check of everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gate.child import environment
from gate.errors import ArtifactError, UsageError
from gate.store import Entry, Signature, Store, holder, open_store
from gate.store.promotion import latest_proposal, promote
from gate.store.pruning import Doomed, Limits, chosen, prune
from gate.store.seal import seal, signing_key, unseal
from gate.store.verification import verify
from tests.store_factory import PARTS, PROVENANCE, data_folder, files_of, keep, measurement

OURS, THEIRS = b"a key of this team 123", b"a key of somebody else"
NOW = datetime.now(UTC)
NO_LIMITS = Limits(older_than=None, keep_last=None, max_bytes=None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def propose(store: Store, value: float, parts: Mapping[str, str] = PARTS) -> Entry:
    with store.reserve(store.key(parts)) as slot:
        (slot.artifacts / "rows.bin").write_bytes(b"r" * 100)
        return slot.propose(measurement(value), PROVENANCE)


def value_of(store: Store, key: str) -> float | None:
    found = store.get(key)
    return None if found is None else found.measurement.observations[0].value


class TestSignatures:
    """(written with, read with) → is it used."""

    @pytest.mark.parametrize(
        ("written", "read", "signature", "said"),
        [
            (None, None, Signature.NONE, None),
            (OURS, OURS, Signature.OURS, None),
            (OURS, None, Signature.UNKNOWN, None),
            (None, OURS, Signature.NONE, "is not signed, and QUANTGATE_STORE_KEY is set"),
            (
                THEIRS,
                OURS,
                Signature.OTHER,
                "is signed with another key, or was changed, and QUANTGATE_STORE_KEY is set",
            ),
        ],
    )
    def test_who_uses_what(
        self, root: Path, written: bytes | None, read: bytes | None, signature: Signature, said: str | None
    ) -> None:
        key = keep(Store(root, signing_key=written))
        store = Store(root, signing_key=read)
        assert (store.get(key) is not None) is (said is None)
        assert [p.partition(".json ")[2] for p in store.problems] == ([] if said is None else [said])
        (checked,) = verify(store, None)
        assert (checked.signature, checked.problem) == (signature, said)
        assert len(store.list()) == (said is None)

    def test_what_is_not_signed_is_measured_again_and_signed(self, root: Path) -> None:
        key = keep(Store(root), value=0.0)
        store = Store(root, signing_key=OURS)
        keep(store, value=1.0)
        assert value_of(store, key) == 1.0
        assert value_of(Store(root), key) == 1.0  # those without a key follow

    def test_a_signature_covers_everything(self, root: Path) -> None:
        """Whoever can write to the store can make a checksum right, but no signature."""
        key = keep(Store(root, signing_key=OURS))
        (path,) = (root / "entries").rglob("*.json")
        document = unseal(path.read_bytes(), OURS).document
        signature = seal(document, OURS).partition(b'"signature":"')[2][:64].decode()
        document["provenance"] = {"uri": "a better model"}
        forged = {**document, "signature": signature}
        path.write_bytes(seal(document, None)[:-2] + f',"signature":"{signature}"}}\n'.encode())
        assert forged["provenance"] == {"uri": "a better model"}
        store = Store(root, signing_key=OURS)
        assert store.get(key) is None
        assert len(store.problems) == 1

    def test_calibrations_are_signed_too(self, root: Path) -> None:
        names = ("effective_digest", "stage", "source", "settings", "backend", "device", "environment")
        parts = dict.fromkeys(names, "x")
        Store(root).put_calibration(parts, {"rate": 0.1})
        store = Store(root, signing_key=OURS)
        assert store.get_calibration(parts) is None
        assert "is not signed" in store.problems[0]
        store.put_calibration(parts, {"rate": 0.2})
        assert store.get_calibration(parts) == {"rate": 0.2}

    def test_a_key_that_could_be_guessed(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        monkeypatch.setenv("QUANTGATE_STORE_KEY", "secret")
        with pytest.raises(UsageError, match="found 6 characters in QUANTGATE_STORE_KEY, expected at least 16") as said:
            open_store(str(root))
        assert "secret" not in str(said.value)
        assert signing_key("  ") is None
        assert signing_key(" 0123456789abcdef\n") == b"0123456789abcdef"

    def test_the_environment_names_the_key(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        monkeypatch.setenv("QUANTGATE_STORE_KEY", OURS.decode())
        key = keep(open_store(str(root)))
        assert Store(root, signing_key=OURS).get(key) is not None
        assert Store(root, signing_key=THEIRS).get(key) is None
        assert not any(OURS in p.read_bytes() for p in files_of(root))

    def test_a_worker_never_sees_the_key(self) -> None:
        """Code of a checkpoint may run there."""
        parent = {"QUANTGATE_STORE_KEY": "k" * 16, "QUANTGATE_STORE": "s3://team", "PATH": "/bin"}
        seen = environment(parent, keep=(), device="cpu")
        assert "QUANTGATE_STORE_KEY" not in seen
        assert seen["PATH"] == "/bin"


class TestPromotion:
    def test_a_proposal_is_not_used_until_it_is_promoted(self, root: Path) -> None:
        store = Store(root, signing_key=OURS)
        key = keep(store, value=1.0)
        proposal = propose(store, 0.0)
        assert value_of(store, key) == 1.0
        assert latest_proposal(store, key) == proposal
        entry = promote(store, proposal, by=" R. Manager ", why="new driver", now=NOW)
        assert value_of(store, key) == 0.0
        assert entry.generation == 1
        assert entry.manifest is not None
        assert entry.manifest.promotion is not None
        assert (entry.manifest.promotion.by, entry.manifest.promotion.why) == ("R. Manager", "new driver")
        assert latest_proposal(store, key) is None
        old, new = store.shelf.of(key)
        assert old.manifest is not None
        assert entry.manifest.promotion.replaced == old.manifest.content
        assert store.open(old, artifacts=True).measurement == measurement(1.0)  # and the old one is still there
        (found,) = store.log.lines()
        assert found.line is not None
        assert found.problem is None
        assert found.line.model_dump(include={"action", "by", "why", "about"}) == {
            "action": "promote",
            "by": "R. Manager",
            "why": "new driver",
            "about": [key],
        }
        assert found.line.detail["with"] == entry.manifest.content
        assert new == entry

    def test_nothing_else_replaces_a_baseline(self, root: Path) -> None:
        store = Store(root)
        key = keep(store, value=1.0)
        for value in (0.0, 0.5):
            keep(store, value=value)
        propose(store, 0.0)
        assert value_of(store, key) == 1.0
        assert store.log.lines() == ()

    def test_the_latest_proposal_counts_and_older_ones_go(self, root: Path) -> None:
        store = Store(root)
        key = keep(store)
        proposals = sorted((propose(store, v) for v in (0.0, 0.5)), key=lambda e: e.name)
        latest = latest_proposal(store, key)
        assert latest == proposals[-1]
        promote(store, proposals[-1], by="x", why="y", now=NOW)
        assert latest_proposal(store, key) is None

    def test_a_damaged_proposal_is_not_promoted(self, root: Path) -> None:
        store = Store(root)
        key = keep(store)
        proposal = propose(store, 0.0)
        assert proposal.manifest is not None
        (root / "data" / proposal.manifest.content / "artifacts" / "rows.bin").write_bytes(b"s" * 100)
        with pytest.raises(ArtifactError, match=r"rows.bin does not match its checksum"):
            promote(store, proposal, by="x", why="y", now=NOW)
        assert value_of(store, key) == 1.0
        assert store.log.lines() == ()

    @pytest.mark.parametrize(("by", "why"), [("", "y"), ("x", " ")])
    def test_nobody_and_no_reason(self, root: Path, by: str, why: str) -> None:
        store = Store(root)
        keep(store)
        with pytest.raises(ValueError, match="takes a proposal, a name and a reason"):
            promote(store, propose(store, 0.0), by=by, why=why, now=NOW)

    def test_an_entry_is_no_proposal(self, root: Path) -> None:
        store = Store(root)
        keep(store)
        with pytest.raises(ValueError, match="takes a proposal"):
            promote(store, store.list()[0], by="x", why="y", now=NOW)

    def test_two_promotions_at_once_are_two_generations(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store, other = Store(root), Store(root)
        key = keep(store)
        first, second = propose(store, 0.0), propose(store, 0.5)
        add = type(store.shelf).add

        def late(shelf: object, manifest: object) -> Entry:
            monkeypatch.setattr(type(store.shelf), "add", add)
            promote(other, first, by="a", why="b", now=NOW)
            return add(shelf, manifest)  # type: ignore[arg-type]

        monkeypatch.setattr(type(store.shelf), "add", late)
        assert promote(store, second, by="x", why="y", now=NOW).generation == 2
        assert value_of(store, key) == 0.5
        assert len(store.log.lines()) == 2


def at(store: Store, days_ago: float, monkeypatch: pytest.MonkeyPatch, source: str = "fraud", **parts: str) -> str:
    """Keep an entry as if it were measured some days ago."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return NOW - timedelta(days=days_ago)

    with monkeypatch.context() as patched:
        patched.setattr("gate.store.slot.datetime", Then)
        return keep(store, PARTS | {"source": source} | parts)


class TestPruning:
    def test_without_limits_nothing_goes(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(root)
        at(store, 400, monkeypatch)
        found = prune(store, NO_LIMITS, now=NOW, by="x", dry_run=False)
        assert (found.doomed, found.leftovers) == ((), ())
        assert len(store.list()) == 1

    def test_by_age(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(root)
        old, new = at(store, 91, monkeypatch), at(store, 89, monkeypatch, source="other")
        limits = Limits(older_than=timedelta(days=90), keep_last=None, max_bytes=None)
        assert [d.entry.key for d in prune(store, limits, now=NOW, by="x", dry_run=True).doomed] == [old]
        assert len(store.list()) == 2
        found = prune(store, limits, now=NOW, by="cron", dry_run=False)
        assert len(found.leftovers) == 1
        assert [e.key for e in store.list()] == [new]
        assert not list((root / "data").glob(f"{old}.*"))
        (line,) = (f.line for f in store.log.lines())
        assert line is not None
        assert (line.action, line.by, line.about) == ("prune", "cron", [f"entries/{old}/000000.json"])

    def test_the_last_of_each_baseline_and_source(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(root)
        keys = [at(store, days, monkeypatch, environment=f"{days}") for days in (5, 4, 3)]
        other = at(store, 9, monkeypatch, source="other")
        model = at(store, 9, monkeypatch, effective_digest="b" * 64)
        limits = Limits(older_than=None, keep_last=2, max_bytes=None)
        prune(store, limits, now=NOW, by="x", dry_run=False)
        assert {e.key for e in store.list()} == {*keys[1:], other, model}

    def test_by_size_the_oldest_first(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(root)
        keys = [at(store, days, monkeypatch, source=f"{days}") for days in (3, 1, 2)]
        size = sum(e.manifest.n_bytes for e in store.list() if e.manifest is not None)
        limits = Limits(older_than=None, keep_last=None, max_bytes=size - 1)
        assert prune(store, limits, now=NOW, by="x", dry_run=False).kept_bytes <= size - 1
        assert {e.key for e in store.list()} == set(keys[1:])

    def test_an_older_generation_never_comes_back(self, root: Path) -> None:
        """What was promoted must not be undone by dropping it before what it replaced."""
        store = Store(root)
        key = keep(store)
        promote(store, propose(store, 0.0), by="x", why="y", now=NOW)
        old, new = store.shelf.of(key)
        assert old.manifest is not None
        limits = Limits(older_than=timedelta(0), keep_last=None, max_bytes=None)
        later = NOW + timedelta(days=1)
        doomed, in_use = chosen([old, new], limits, frozenset({old.manifest.content}), later)
        assert (doomed, in_use) == ((), (old,))
        doomed, _ = chosen([old, new], limits, frozenset(), later)
        assert [d.entry for d in doomed] == [old, new]
        doomed, _ = chosen([old, new], Limits(older_than=None, keep_last=1, max_bytes=None), frozenset(), later)
        assert doomed == (Doomed(entry=old, why="1 newer of this baseline and source"),)

    def test_what_is_being_read_stays(self, root: Path) -> None:
        key = keep(Store(root))
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(root), key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        with reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            limits = Limits(older_than=timedelta(0), keep_last=None, max_bytes=0)
            later = NOW + timedelta(days=2)
            found = prune(Store(root), limits, now=later, by="x", dry_run=False)
            assert (found.doomed, [e.key for e in found.in_use]) == ((), [key])
            assert data_folder(root, key).is_dir()
            reader.kill()
        found = prune(Store(root), limits, now=later, by="x", dry_run=False)
        assert [d.entry.key for d in found.doomed] == [key]
        assert files_of(root / "data") == []

    def test_files_of_a_writer_at_work_stay(self, root: Path) -> None:
        store = Store(root)
        keep(store)
        (root / "entries").rename(root / "elsewhere")  # as before the manifest is written
        for days, left in ((0.9, 0), (1.1, 1)):
            found = prune(store, NO_LIMITS, now=datetime.now(UTC) + timedelta(days=days), by="x", dry_run=False)
            assert len(found.leftovers) == left
        assert files_of(root / "data") == []

    def test_files_that_an_unreadable_manifest_may_name_stay(self, root: Path) -> None:
        """It may be one of a newer gate."""
        store = Store(root)
        keep(store)
        (path,) = (root / "entries").rglob("*.json")
        path.write_text("{}")
        limits = Limits(older_than=timedelta(0), keep_last=1, max_bytes=0)
        found = prune(store, limits, now=NOW + timedelta(days=9), by="x", dry_run=False)
        assert (found.doomed, found.leftovers) == ((), ())
        keep(store)  # takes its place
        found = prune(store, NO_LIMITS, now=NOW + timedelta(days=9), by="x", dry_run=False)
        assert [d.why for d in found.doomed] == ["cannot be read, and another took its place"]
        assert len(found.leftovers) == 1
        assert len(store.list()) == 1


READER = """
import sys
from pathlib import Path
from gate.store import Store
found = Store(Path(sys.argv[1])).get(sys.argv[2])
assert found is not None
print("reading", flush=True)
sys.stdin.read()
"""


class TestVerification:
    def test_everything_is_looked_at(self, root: Path) -> None:
        store = Store(root, signing_key=OURS)
        key = keep(store)
        promote(store, propose(store, 0.0), by="x", why="y", now=NOW)
        propose(store, 0.5)
        parts = dict.fromkeys(
            ("effective_digest", "stage", "source", "settings", "backend", "device", "environment"), "x"
        )
        store.put_calibration(parts, {})
        checked = verify(store, None)
        assert [(c.name.split("/")[0], c.counts, c.signature, c.problem) for c in checked] == [
            ("entries", False, Signature.OURS, None),
            ("entries", True, Signature.OURS, None),
            ("proposed", False, Signature.OURS, None),
            ("log", True, Signature.OURS, None),
            ("calibration", True, Signature.OURS, None),
        ]
        for path in files_of(root):
            if "tmp" in path.parts or "use" in path.parts:
                continue
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            assert sum(c.problem is not None for c in verify(store, None)) == 1, path
            path.write_bytes(whole)
        assert all(c.problem is None for c in verify(store, store.shelf.of(key)))


def test_a_holder_is_one_process_of_one_machine() -> None:
    assert holder.me() == holder.me()
    assert holder.me().endswith(f"-{os.getpid()}")
    assert not holder.is_gone(holder.me(), 0.0)
    assert not holder.is_gone("0123456789ab-1", 0.0)
