"""`gate run --waivers` and `--on-inconclusive`: a red run that may pass, one that may not, and what they leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from gate.records import Status
from tests.e2e.world import STAGES, World, make_world

RULE = "fraud.accuracy.max_drop"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_world(tmp_path)
    made.checkpoint("bad", seed=3, nll_shift=0.002, error_rate=0.3)
    return made


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


def waive(world: World, digest: str, *rules: str, expires: str | None = None) -> str:
    """The option that waives these rules of this checkpoint."""
    entries = [
        {
            "rule": r,
            "checkpoint": digest,
            "owner": "ada@example.com",
            "reason": "known",
            "expires": expires or in_days(2),
        }
        for r in rules or (RULE,)
    ]
    path = world.root / "waivers.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "waivers": entries}), encoding="utf-8")
    return f"--waivers={path}"


def failures(world: World) -> set[str]:
    """Cases of junit.xml that fail; every report is there, and every finding has a case."""
    folder = world.root / "out"
    assert {"run.json", "junit.xml", "summary.md", "report.html", "log.txt"} <= {p.name for p in folder.iterdir()}
    cases = list(ElementTree.parse(folder / "junit.xml").getroot().iter("testcase"))
    assert {f.rule.id for s in world.record().stages for f in s.findings} <= {str(c.get("name")) for c in cases}
    return {str(c.get("name")) for c in cases if c.find("failure") is not None or c.find("error") is not None}


def run_bad(world: World, policy: Path, *extra: str, out: str = "out") -> int:
    return world.run(policy, *extra, candidate=world.root / "bad", out=out)


def digest_of(world: World, policy: Path) -> str:
    """Of the bad candidate, from a run that it fails."""
    assert run_bad(world, policy, out="red") == 1
    ref = world.record("red").candidate
    assert ref is not None
    return ref.digest


def test_a_waived_regression_exits_0_and_is_nowhere_silent(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    policy = world.policy(stages=["sanity", "fraud", "serving"])
    digest = digest_of(world, policy)
    assert world.record("red").stages[2].status is Status.SKIPPED
    capsys.readouterr()
    assert run_bad(world, policy, waive(world, digest)) == 0
    record = world.record()
    assert (record.verdict.status, record.exit_code) == (Status.REGRESSION, 0)
    assert record.verdict.deciding == (RULE,)
    assert [s.status for s in record.stages] == [Status.PASS, Status.REGRESSION, Status.PASS]
    assert record.stages[2].items_scored == 4  # what comes after it was measured
    assert [(w.rule, w.checkpoint, w.owner) for w in record.waivers] == [(RULE, digest, "ada@example.com")]
    opening = f"Passed with waiver: {RULE} is waived by ada@example.com until {in_days(2)} (known). Regression: "
    assert record.verdict.sentence.startswith(opening)
    assert any(n.startswith("waiver: stage fraud stops nothing") for n in record.notes)
    assert failures(world) == set()
    assert "Passed with waiver" in capsys.readouterr().out
    for name in ("summary.md", "report.html", "junit.xml", "log.txt"):
        assert "assed with waiver" in (world.root / "out" / name).read_text(encoding="utf-8"), name


def test_an_expired_waiver_is_ignored_with_a_warning(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    policy = world.policy(stages=["fraud", "serving"])
    option = waive(world, digest_of(world, policy), expires=in_days(-2))
    capsys.readouterr()
    assert run_bad(world, policy, option) == 1
    record = world.record()
    assert record.waivers == ()
    assert [s.status for s in record.stages] == [Status.REGRESSION, Status.SKIPPED]
    warning = f"waiver: that of {RULE} by ada@example.com until {in_days(-2)} is ignored: it expired"
    assert any(n.startswith(warning) for n in record.notes)
    assert warning in capsys.readouterr().out


def test_a_changed_checkpoint_is_another_checkpoint(world: World) -> None:
    policy = world.policy(stages=["fraud"])
    option = waive(world, digest_of(world, policy))
    world.checkpoint("bad", seed=4, nll_shift=0.002, error_rate=0.3)
    assert run_bad(world, policy, option) == 1
    assert world.record().waivers == ()
    assert not any("waiver" in n for n in world.record().notes)


def test_a_second_red_rule_fails_the_run_and_stops_it(world: World) -> None:
    world.checkpoint("bad", seed=3, nll_shift=0.3, error_rate=0.3)
    policy = world.policy(stages=["sanity", "fraud", "serving"])
    option = waive(world, digest_of(world, policy), "sanity.perplexity.max_increase")
    assert run_bad(world, policy, option) == 1
    record = world.record()
    assert [s.status for s in record.stages] == [Status.REGRESSION, Status.REGRESSION, Status.SKIPPED]
    assert record.verdict.deciding == (RULE, "sanity.perplexity.max_increase")
    assert record.verdict.sentence.startswith("Regression: accuracy on fraud fell by ")
    assert "Not what fails this run: sanity.perplexity.max_increase is waived by" in record.verdict.sentence
    assert failures(world) == {RULE, "verdict"}


def test_a_stage_that_breaks_after_a_waived_one_could_not_be_measured(world: World) -> None:
    faults = [{"op": "timed_batch", "after": 0, "action": "sigkill"}]
    world.checkpoint("bad", seed=3, error_rate=0.3, faults=faults)
    policy = world.policy(stages=["fraud", "serving"])
    assert run_bad(world, policy, waive(world, digest_of(world, policy))) == 4
    assert world.record().verdict.status is Status.ERROR
    assert f"Not what fails this run: {RULE} is waived" in world.record().verdict.sentence


def test_a_restricted_run_stays_red(world: World) -> None:
    policy = world.policy(stages=["sanity", "fraud"], on_inconclusive="warn")
    option = waive(world, digest_of(world, policy))
    assert run_bad(world, policy, option, "--stage=fraud") == 1
    assert "the run does not pass for another reason" in world.record().verdict.sentence


def test_load_settings_make_it_another_checkpoint(world: World) -> None:
    policy = world.policy(stages=["fraud"], checkpoints={"half": {"path": "bad", "dtype": "float16"}})

    def run(option: str) -> int:
        return world.run(policy, option, candidate=Path("half"))

    files = digest_of(world, policy)
    assert run(waive(world, files)) == 1
    ref = world.record().candidate
    assert ref is not None
    assert ref.digest == files
    (note,) = (n for n in world.record().notes if "waiver" in n)
    assert note.endswith(f"is loaded with settings of its own, expected its effective digest: {ref.effective_digest}")
    assert run(waive(world, ref.effective_digest)) == 0


def test_a_wrong_waiver_file_is_a_usage_error_before_anything_is_measured(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = world.policy(stages=["fraud"])
    path = world.root / "waivers.yaml"
    path.write_text(
        'version: 1\nwaivers:\n  - {rule: a, checkpoint: abc, owner: x, reason: "::error::", expires: never}\n'
    )
    assert run_bad(world, policy, f"--waivers={path}") == 2
    said = capsys.readouterr().err
    assert "2 mistakes in the waiver file" in said
    assert "waivers.yaml:3:27: waivers[0].checkpoint: found 'abc'" in said
    assert not (world.root / "out" / "run.json").exists()
    assert run_bad(world, policy, f"--waivers={world.root / 'nowhere.yaml'}") == 2


def too_few(world: World) -> dict[str, Any]:
    """A stage that cannot decide between 80 questions."""
    path = world.root / "questions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:80]))
    world.checkpoint("bad", seed=2, error_rate=0.05)
    return {**STAGES["fraud"], "rules": [{"metric": "accuracy", "max_drop": "4pp", "scope": "population"}]}


def test_the_command_line_may_say_what_doubt_does(world: World) -> None:
    stage = too_few(world)
    assert run_bad(world, world.policy([stage]), "--on-inconclusive=warn") == 0
    record = world.record()
    assert (record.verdict.status, record.policy["on_inconclusive"]) == (Status.INCONCLUSIVE, "warn")
    assert record.verdict.sentence.endswith("; on_inconclusive: warn lets this run pass.")
    assert any(n.startswith("on_inconclusive: warn was asked for on the command line") for n in record.notes)
    assert run_bad(world, world.policy([stage], on_inconclusive="warn"), "--on-inconclusive=fail", out="fail") == 3
    assert world.record("fail").policy["on_inconclusive"] == "fail"
    assert run_bad(world, world.policy([stage], on_inconclusive="warn"), out="same") == 0
    assert record.policy_digest == world.record("same").policy_digest != world.record("fail").policy_digest
    assert not any("on_inconclusive" in n for n in world.record("same").notes)
    assert run_bad(world, world.policy([stage]), "--on-inconclusive=pass", out="usage") == 2


def test_doubt_cannot_be_waived(world: World) -> None:
    policy = world.policy([too_few(world)])
    assert run_bad(world, policy, out="plain") == 3
    ref = world.record("plain").candidate
    assert ref is not None
    assert run_bad(world, policy, waive(world, ref.digest)) == 3
    assert world.record().waivers == ()
    assert any("only a REGRESSION can be waived" in n for n in world.record().notes)
