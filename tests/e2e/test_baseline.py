"""`gate baseline` from the command line, on the fake backend with real worker processes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gate.cli import main
from gate.records import Measurement, Status
from gate.store import Entry, Store
from gate.store.promotion import promote
from tests.e2e.test_start_up import HEAVY, loaded_by
from tests.e2e.world import STAGES, World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def gate(world: World, *arguments: str) -> int:
    return main(["baseline", *arguments, f"--store={world.root / 'store'}"])


def measure(world: World, policy: Path, *extra: str) -> int:
    arguments = [f"--policy={policy}", f"--baseline={world.root / 'baseline'}", "--backend=fake", "--device=cpu"]
    return gate(world, "measure", *arguments, f"--log={world.root / 'log.txt'}", *extra)


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def entry_of(world: World, source: str) -> Entry:
    (entry,) = (e for e in Store(world.root / "store").list() if e.manifest and e.manifest.parts["source"] == source)
    return entry


def of_worse(measured: Measurement, n: int) -> Measurement:
    """The same with n right answers turned wrong."""
    turned, observations = 0, []
    for o in measured.observations:
        if o.metric == "correct" and o.value == 1.0 and turned < n:
            o, turned = replace(o, value=0.0), turned + 1
        observations.append(o)
    assert turned == n
    return replace(measured, observations=tuple(observations))


def replace_stored(world: World, source: str, n_worse: int) -> None:
    """Somebody promoted a baseline that answers n more questions wrongly."""
    store, entry = Store(world.root / "store"), entry_of(world, source)
    assert entry.manifest is not None
    measured = of_worse(store.open(entry, artifacts=False).measurement, n_worse)
    with store.reserve(store.key(entry.manifest.parts)) as slot:
        promote(store, slot.propose(measured, {}), by="somebody", why="test", now=datetime.now(UTC))


def test_what_is_measured_ahead_is_found_by_a_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    policy = world.policy(["sanity", "fraud", "serving"])
    assert measure(world, policy, "--format=json") == 0
    said = told(capsys)
    assert [(s["stage"], s["source"], s["result"]) for s in said] == [
        ("sanity", "prose", "measured"),
        ("fraud", "fraud", "measured"),
    ]  # and no timing
    assert measure(world, policy, "--format=json") == 0
    assert {s["result"] for s in told(capsys)} == {"already stored"}
    assert world.run(policy) == 0
    assert {s.name: s.baseline_from for s in world.record().stages} == {
        "sanity": "store",
        "fraud": "store",
        "serving": "measured",
    }


@pytest.mark.parametrize("command", ["list", "verify", "--help"])
def test_reading_a_store_imports_no_model_library(tmp_path: Path, command: str) -> None:
    code, packages, out = loaded_by("baseline", command, *([] if command == "--help" else [f"--store={tmp_path}"]))
    assert code == 0
    assert not packages & HEAVY
    assert "store" in out or "whole" in out or "0 entries" in out


def test_reading_commands(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_STORE_KEY", "a key of this team 123")
    long_name = {**STAGES["fraud"], "name": "a-very-long-name-of-a-stage-about-fraud"}
    assert measure(world, world.policy(["sanity", long_name])) == 0
    capsys.readouterr()
    assert gate(world, "list") == 0
    shown = capsys.readouterr().out
    head, *rows, summary = shown.splitlines()
    assert head.split() == ["key", "checkpoint", "stage/source", "items", "measured", "size", "backend", "signed"]
    assert max(map(len, shown.splitlines())) <= 80 or len(summary) > 80  # a path may be longer
    assert [row.split()[-1] for row in rows] == ["yes", "yes"]
    assert summary.startswith("2 entries, ")
    assert gate(world, "list", "--format=json") == 0
    first = told(capsys)[0]
    assert gate(world, "show", first["key"][:8]) == 0
    details = capsys.readouterr().out
    for word in (
        "generation 0",
        "effective_digest: ",
        "uri: ",
        "sha256: ",
        "gate: ",
        "signature: signed",
        "artifacts/",
    ):
        assert word in details
    assert gate(world, "show", first["key"], "--format=json") == 0
    assert told(capsys)["entries"][0]["provenance"]["settings"]["kind"] == first["parts"]["stage"]
    assert gate(world, "verify") == 0
    assert "2 whole: " in capsys.readouterr().out
    assert gate(world, "show", "0000") == 2
    assert "found no key that begins with '0000'" in capsys.readouterr().err


def test_verify_finds_a_flipped_byte_and_the_next_run_measures_again(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = world.policy(["fraud"])
    assert measure(world, policy) == 0
    (path,) = (world.root / "store").rglob("measurement.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert gate(world, "verify") == 4
    captured = capsys.readouterr()
    assert "measurement.parquet does not match its" in captured.out
    assert "measures such a baseline again" in captured.err
    assert world.run(policy) == 0
    assert world.record().stages[0].baseline_from == "measured"
    assert any("was not used: entries/" in note and "checksum" in note for note in world.record().notes)
    assert gate(world, "verify") == 0
    assert "besides 1 broken that no run would use" in capsys.readouterr().out
    monkeypatch.setenv("QUANTGATE_STORE_KEY", "a key of this team 123")
    assert gate(world, "verify") == 4
    assert "is not signed, and QUANTGATE_STORE_KEY is set" in capsys.readouterr().err
    assert world.run(policy, out="signed") == 0
    assert world.record("signed").stages[0].baseline_from == "measured"
    assert gate(world, "verify") == 0


def test_a_promotion_says_which_verdicts_move_and_is_written_down(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = [{"metric": "accuracy", "max_drop": "5pp"}]
    policy = world.policy([{**STAGES["fraud"], "rules": rules}], stop_early=False)
    assert measure(world, policy) == 0
    replace_stored(world, "fraud", 60)
    candidate = world.checkpoint("candidate", seed=2, error_rate=0.2)  # worse than the baseline, but not than that one
    assert world.run(policy, candidate=candidate, out="runs/night") == 0
    assert world.run(policy, candidate=world.checkpoint("bad", error_rate=0.9), out="runs/bad") == 1
    key = entry_of(world, "fraud").key
    capsys.readouterr()

    assert measure(world, policy, "--format=json") == 0
    assert [s["result"] for s in told(capsys)] == ["already stored"]
    assert measure(world, policy, "--again", "--format=json") == 0
    assert [(s["result"], s["proposal"]) for s in told(capsys)] == [("proposed", key)]
    runs = f"--runs={world.root / 'runs'}"
    assert gate(world, "promote", key[:8], "--by=R. Manager", "--why=it was a joke", runs) == 2
    captured = capsys.readouterr()
    assert "60 of " in captured.out
    assert "1 of 2 runs judged against what is stored would move (2 looked at)" in captured.out
    assert "(night): the verdict PASS → REGRESSION" in captured.out
    assert "(night): fraud.accuracy.max_drop PASS → REGRESSION" in captured.out
    assert "nothing was replaced yet" in captured.err
    assert entry_of(world, "fraud").generation == 1
    assert gate(world, "promote", key[:8], "--by=R. Manager", "--why=it was a joke", runs, "--yes") == 0
    assert "is now generation 2, promoted by R. Manager" in capsys.readouterr().out
    assert world.run(policy, candidate=candidate, out="after") == 1
    assert world.record("after").stages[0].baseline_from == "store"
    assert gate(world, "show", key) == 0
    shown = capsys.readouterr().out
    assert "promote by R. Manager: it was a joke" in shown
    assert "promote by somebody: test" in shown


def test_measure_and_promote_in_one_go(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    policy = world.policy(["fraud"])
    who = ("--by=cron", "--why=weekly")
    assert measure(world, policy, "--promote", *who, "--yes") == 0  # nothing is there to be replaced
    assert entry_of(world, "fraud").generation == 0
    assert measure(world, policy, "--promote", *who, "--yes") == 0  # and nothing differs
    assert "same scores" in capsys.readouterr().out
    assert entry_of(world, "fraud").generation == 0
    replace_stored(world, "fraud", 3)
    assert measure(world, policy, "--promote", *who) == 2
    assert "gate baseline promote" in capsys.readouterr().err
    assert entry_of(world, "fraud").generation == 1
    assert measure(world, policy, "--promote", *who, "--yes") == 0
    assert entry_of(world, "fraud").generation == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "ab", "--by=x"], "say --by NAME and --why TEXT"),
        (["promote", "abcd", "--by=x", "--why=y"], "found no key that begins with 'abcd'"),
        (["promote", "", "--by=x", "--why=y"], "found '', expected a key or its first four"),
        (["show", "ab"], "found 'ab', expected a key or its first four"),
        (["verify", ""], "found '', expected a key or its first four"),
        (["prune", "--older-than=90"], "expected days or hours such as 90d"),
        (["prune", "--older-than=999999d"], "expected at most 36500d"),
        (["prune", "--older-than=" + "9" * 400 + "h"], "expected at most 36500d"),
        (["prune", "--max-size=10"], "expected a size such as"),
    ],
)
def test_what_cannot_be_carried_out(
    world: World, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    (world.root / "store").mkdir()
    assert gate(world, *arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["list"], ["verify"], ["show", "abcd"], ["prune"], ["promote", "abcd", "--by=x", "--why=y"]]
)
def test_a_store_that_is_not_there(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    assert gate(world, *arguments) == 2
    assert "found no folder" in capsys.readouterr().err
    assert not (world.root / "store").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(world.root / "cache"))
    assert main(["baseline", "list"]) == 0  # the user's own, before anything was measured


def test_nothing_to_promote(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(world, world.policy(["fraud"])) == 0
    assert gate(world, "promote", entry_of(world, "fraud").key, "--by=x", "--why=y", "--yes") == 2
    assert "found no proposal for" in capsys.readouterr().err


def test_timing_alone_has_nothing_to_store(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(world, world.policy(["serving"])) == 2
    assert "timings are never stored" in capsys.readouterr().err


def test_what_could_not_be_measured_is_said_and_the_rest_is_stored(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.checkpoint("baseline", seed=1, faults=[{"op": "score", "action": "sigkill"}])
    assert measure(world, world.policy(["sanity", "fraud"])) == 4
    captured = capsys.readouterr()
    assert "prose: the baseline worker was killed by SIGKILL" in captured.err
    assert "not stored" in captured.out
    assert entry_of(world, "fraud").generation == 0


def test_pruning(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(world, world.policy(["fraud"])) == 0
    capsys.readouterr()
    assert gate(world, "prune", "--older-than=0h", "--dry-run") == 0
    assert "1 entries (" in capsys.readouterr().out
    assert gate(world, "list", "--format=json") == 0
    assert len(told(capsys)) == 1
    assert gate(world, "prune", "--max-size=0B", "--format=json") == 0
    said = told(capsys)
    mine = [p.name for p in (world.root / "store").rglob("use/*") if p.name.endswith(f"-{os.getpid()}")]
    assert len(said["dropped"]) + len(said["in_use"]) == 1
    assert len(said["in_use"]) == len(mine)  # this process may still hold what it measured


def test_an_untrusted_job_uses_the_store_and_leaves_no_trace(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert measure(world, world.policy(["fraud"])) == 0
    before = sorted(p for p in (world.root / "store").rglob("*") if p.is_file())
    assert world.run(world.policy(["sanity", "fraud"]), "--store-read-only") == 0
    assert {s.name: s.baseline_from for s in world.record().stages} == {"sanity": "measured", "fraud": "store"}
    (note,) = (n for n in world.record().notes if "not kept" in n)
    assert "is read-only here" in note
    assert sorted(p for p in (world.root / "store").rglob("*") if p.is_file()) == before
    monkeypatch.setenv("QUANTGATE_STORE_READONLY", "1")
    capsys.readouterr()
    assert measure(world, world.policy(["fraud"])) == 2
    assert "is read-only here" in capsys.readouterr().err
    assert world.run(world.policy(["sanity"]), out="again") == 0
    assert sorted(p for p in (world.root / "store").rglob("*") if p.is_file()) == before


def test_a_store_behind_a_url(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The distributions of stage one come from the store as well, on a machine that has never seen them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    policy, url = world.policy(["sanity", "fraud"]), "--store=memory://team/baselines"
    assert world.run(policy, url, out="first") == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert world.run(policy, url, out="second") == 0
    assert {s.baseline_from for s in world.record("second").stages} == {"store"}
    notes = world.record("second").stages[0].notes
    assert any("KL is a lower bound" in n for n in notes), notes
    assert world.record("second").stages[0].status is Status.PASS
