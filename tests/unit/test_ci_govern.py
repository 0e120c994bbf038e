"""What a pull request does to its own bar: named, replayed on stored runs, and without a say in the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gate import artifact
from gate.ci import history
from gate.ci.govern import Governed, govern
from gate.ci.rule_changes import rule_changes
from gate.errors import UsageError
from gate.policy_file import load_policy
from gate.records import Move, PolicyChange, RuleChange, Status
from gate.reports import governance
from tests import records_factory as factory
from tests.ci_factory import DOMAIN, fraud, policy, ran

AT = datetime(2026, 11, 21, tzinfo=UTC)
COMMIT = "c" * 40
NAME = "thresholds/policy.yaml"


def exported(folder: Path, *theirs: Mapping[str, Any], paths: tuple[str, ...] = (NAME,), **changes: Any) -> Path:
    """What `gate ci policy` writes; their policy has these rules."""
    policy(folder / "base" / NAME)
    policy(folder / "pull-request" / NAME, *theirs, **changes)
    change = {"base_commit": COMMIT, "policy": NAME, "paths": list(paths), "notes": []}
    (folder / "policy-change.json").write_text(json.dumps(change))
    return folder


def governed(tmp_path: Path, *theirs: Mapping[str, Any], stored: Path | None = None, **more: Any) -> PolicyChange:
    run = ran(tmp_path / "run")
    answer = govern(run, exported(tmp_path / "judge", *theirs, **more), stored, at=AT)
    record = artifact.loads_record((run / "run.json").read_bytes())
    assert answer.problems == ()
    assert answer.change is not None
    assert record.policy_change == answer.change
    return answer.change


def test_a_lowered_bar_is_named_and_replayed(tmp_path: Path) -> None:
    change = governed(tmp_path, fraud("20pp"))
    (one,) = change.rules
    assert (one.rule, one.kind) == ("fraud.accuracy.max_drop", "loosened")
    assert one.was == "accuracy max_drop 3pp, blocking, scope population"
    assert one.now == "accuracy max_drop 20pp, blocking, scope population"
    assert change.moves == (
        Move(run_id="run-1", candidate=change.moves[0].candidate, was=Status.REGRESSION, now=Status.PASS),
    )
    assert (change.base_commit, change.paths, change.replayed, change.notes) == (COMMIT, (NAME,), 1, ())


def test_verdict_observations_and_exit_code_stay(tmp_path: Path) -> None:
    run = ran(tmp_path / "run")
    before = artifact.loads_record((run / "run.json").read_bytes())
    rows = (run / "observations" / "fraud.parquet").read_bytes()
    govern(run, exported(tmp_path / "judge", fraud("20pp")), None, at=AT)
    after = artifact.loads_record((run / "run.json").read_bytes())
    assert replace(after, policy_change=None) == before
    assert (run / "observations" / "fraud.parquet").read_bytes() == rows
    assert {p.name for p in run.iterdir()} >= {"report.html", "summary.md", "junit.xml"}
    assert "loosened" in (run / "summary.md").read_text()


def test_nothing_changed_writes_nothing(tmp_path: Path) -> None:
    run = ran(tmp_path / "run")
    before = (run / "run.json").read_bytes()
    assert govern(run, exported(tmp_path / "judge", paths=()), None, at=AT) == Governed(change=None, problems=())
    assert (run / "run.json").read_bytes() == before
    assert not (run / "summary.md").exists()


def test_history_is_replayed_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tmp_path / "stored"
    for day in (1, 2, 3):
        ran(stored / f"deep/{day}", f"run-of-{day}", f"2026-11-0{day}T10:00:00+00:00")
    (stored / "damaged").mkdir()
    (stored / "damaged" / "run.json").write_text("{")
    (stored / "link").symlink_to(stored / "deep", target_is_directory=True)
    monkeypatch.setattr(history, "MAX_RUNS", 3)
    change = governed(tmp_path, fraud("20pp"), stored=stored)
    assert [m.run_id for m in change.moves] == ["run-1", "run-of-3", "run-of-2", "run-of-1"]
    assert change.replayed == 4
    assert change.notes == ("1 older stored runs were not replayed",)
    monkeypatch.undo()
    again = governed(tmp_path / "again", fraud("20pp"), stored=stored)
    assert any("damaged' cannot be replayed: its files are damaged or incomplete" in note for note in again.notes)


def test_another_question_moves_nothing(tmp_path: Path) -> None:
    """Other settings have other answers, which nobody measured: no run turns into an ERROR by that."""
    change = governed(tmp_path, fraud("20pp"), domain={**DOMAIN, "max_new_tokens": 8})
    assert (change.moves, change.replayed) == ((), 0)
    assert [(c.rule, c.kind) for c in change.rules] == [
        ("fraud.accuracy.max_drop", "loosened"),
        ("stage fraud", "changed"),
    ]
    assert "1 of 1 runs cannot be replayed: 'fraud': that run measured it with max_new_tokens 64" in change.notes[0]


def test_data_and_waivers_are_said_not_to_be_replayed(tmp_path: Path) -> None:
    change = governed(tmp_path, fraud(), paths=("thresholds/fraud.jsonl", "thresholds/waivers.yaml"))
    assert (change.rules, change.moves, change.replayed) == ((), (), 0)
    assert change.notes == (
        "waivers changed: those of the base branch held for this run",
        "tasks, prompts or data changed (thresholds/fraud.jsonl): what they would do to a verdict cannot be replayed",
    )


@pytest.mark.parametrize(
    "text", ["version: [", "", "version: 1\nstages: []\n", "\x00", "a: &a [*a, *a]", "x" * 2_000_000]
)
def test_a_policy_that_does_not_load_is_a_remark(tmp_path: Path, text: str) -> None:
    run, judge = ran(tmp_path / "run"), exported(tmp_path / "judge")
    (judge / "pull-request" / NAME).write_text(text)
    change = govern(run, judge, None, at=AT).change
    assert change is not None
    assert change.rules == ()
    assert "policy does not load" in change.notes[0]
    summary = (run / "summary.md").read_text()
    assert "Its policy: it does not load" in summary
    assert "no rule is another one" not in summary
    assert str(tmp_path) not in change.notes[0]


def test_a_policy_that_is_gone_is_a_remark(tmp_path: Path) -> None:
    run, judge = ran(tmp_path / "run"), exported(tmp_path / "judge")
    (judge / "pull-request" / NAME).unlink()
    change = govern(run, judge, None, at=AT).change
    assert change is not None
    assert change.notes == ("the pull request has no such policy any more: nothing to replay",)
    assert "Its policy: it is gone, and with it every rule" in (run / "summary.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"base_commit": 1}',
        '{"base_commit": "c", "policy": "../../etc/x", "paths": ["a"], "notes": []}',
        '{"base_commit": "c", "policy": "p", "paths": [1], "notes": []}',
    ],
)
def test_an_export_that_is_none(tmp_path: Path, text: str) -> None:
    run, judge = ran(tmp_path / "run"), exported(tmp_path / "judge")
    (judge / "policy-change.json").write_text(text)
    with pytest.raises(UsageError):
        govern(run, judge, None, at=AT)
    with pytest.raises(UsageError, match=r"found no run\.json"):
        govern(tmp_path, judge, None, at=AT)


@pytest.mark.parametrize(("was", "now", "kind"), [
    (fraud("3pp"), fraud("4pp"), "loosened"),
    (fraud("3pp"), fraud("2pp"), "tightened"),
    (fraud(), fraud(severity="advisory"), "loosened"),
    (fraud(severity="advisory"), fraud(), "tightened"),
    (fraud("3pp"), fraud("1pp", severity="advisory"), "changed"),
    (fraud("3pp"), fraud("4pp", max_items=64), "loosened"),
    (fraud("3pp"), fraud("2pp", max_items=64), "changed"),
    (fraud(), fraud(max_items=64), "changed"),
    (fraud(), fraud(scope="benchmark"), "changed"),
    (fraud(), fraud(max_lost=3), "loosened"),
    (fraud(max_lost="1%"), fraud(max_lost="2%"), "loosened"),
    (fraud(max_lost="1%"), fraud(max_lost=0), "tightened"),
    (fraud(max_lost="1%"), fraud(max_lost=2), "changed"),
    ({"metric": "accuracy", "min": 0.9, "id": "a"}, {"metric": "accuracy", "min": 0.8, "id": "a"}, "loosened"),
    ({"metric": "accuracy", "max": 0.9, "id": "a"}, {"metric": "accuracy", "max": 0.8, "id": "a"}, "tightened"),
    ({"metric": "accuracy", "min_retained": "97%", "id": "a"}, {"metric": "accuracy", "min_retained": "90%", "id": "a"},
     "loosened"),
    ({"metric": "accuracy", "min_retained": "97%", "id": "a"}, {"metric": "accuracy", "max_drop": "3pp", "id": "a"},
     "changed"),
])  # fmt: skip
def test_kinds_of_change(tmp_path: Path, was: dict[str, Any], now: dict[str, Any], kind: str) -> None:
    other = {"metric": "accuracy", "min": 0.1, "id": "other"}  # a policy needs a blocking rule
    changes = rule_changes(policy(tmp_path / "a", was, other), policy(tmp_path / "b", now, other))
    assert [c.kind for c in changes] == [kind]


def test_rules_that_come_and_go(tmp_path: Path) -> None:
    was = policy(tmp_path / "a", fraud("3pp"), {"metric": "accuracy", "min": 0.5, "id": "floor"})
    now = policy(tmp_path / "b", fraud("3pp", id="renamed"), {"metric": "accuracy", "min": 0.6, "id": "floor"})
    assert [(c.rule, c.kind, c.was is None, c.now is None) for c in rule_changes(was, now)] == [
        ("fraud.accuracy.max_drop", "removed", False, True),
        ("renamed", "added", True, False),
        ("floor", "tightened", False, False),
    ]
    assert rule_changes(was, was) == ()


def test_a_moved_line_is_no_change(tmp_path: Path) -> None:
    was = policy(tmp_path / "a")
    (tmp_path / "b").write_text("# a remark\n\n" + was.text)
    assert rule_changes(was, load_policy(tmp_path / "b")) == ()


@pytest.mark.parametrize(("changes", "rule", "kind"), [
    ({"confidence": 0.9}, "policy.confidence", "loosened"),
    ({"confidence": 0.99}, "policy.confidence", "tightened"),
    ({"on_inconclusive": "warn"}, "policy.on_inconclusive", "loosened"),
    ({"publish": {"inconclusive": "neutral"}}, "policy.publish.inconclusive", "loosened"),
    ({"publish": {"comment": "never"}}, "policy.publish.comment", "changed"),
    ({"share_examples": "full"}, "policy.share_examples", "changed"),
    ({"seed": 4}, "policy.seed", "changed"),
    ({"checkpoints": {"a": {"path": "x"}}}, "policy.checkpoints", "changed"),
])  # fmt: skip
def test_settings_of_the_whole_policy(tmp_path: Path, changes: dict[str, Any], rule: str, kind: str) -> None:
    found = rule_changes(policy(tmp_path / "a"), policy(tmp_path / "b", **changes))
    assert [(c.rule, c.kind) for c in found] == [(rule, kind)]
    back = rule_changes(policy(tmp_path / "b", **changes), policy(tmp_path / "a"))
    opposite = {"loosened": "tightened", "tightened": "loosened", "changed": "changed"}
    assert [(c.rule, c.kind) for c in back] == [(rule, opposite[kind])]


def test_settings_of_the_whole_policy_are_not_counted_as_rules() -> None:
    settings = tuple(
        RuleChange(rule=name, kind="loosened", was="0.95", now="0.9")
        for name in ("policy.confidence", "policy.on_inconclusive")
    )
    one = RuleChange(rule="fraud.accuracy.max_drop", kind="loosened", was="3pp", now="5pp")
    change = replace(factory.policy_change(), rules=(*settings, one), notes=())
    assert governance.about_rules(change) == "1 rule loosened, 2 settings loosened"


def test_a_pull_request_that_changes_waivers_alone_says_so() -> None:
    change = replace(factory.policy_change(), rules=(), notes=(), paths=("thresholds/waivers.yaml",))
    assert governance.about_rules(change) == "no rule is another one: only waivers change"
