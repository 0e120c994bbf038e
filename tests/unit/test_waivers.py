"""Waivers: the file, which of them count on a day, and what a run comes to with them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate import artifact, checkpoint, verdict
from gate.cli import main
from gate.decide import waiver
from gate.decide.combine import REACHED, stage_status
from gate.decide.source import Tracker
from gate.decide.source import findings as source_findings
from gate.decide.waiver import Ruling, Standing
from gate.errors import CouldNotMeasure, ExitCode, PolicyError
from gate.finished.run_folder import read_run
from gate.policy import Policy
from gate.policy_file import load_policy, with_on_inconclusive
from gate.publish.conclusion import contradiction
from gate.records import CheckpointRef, Finding, Measurement, Role, Rule, Scope, Severity, StageResult, Status, Waiver
from gate.replay import replay
from gate.waivers import load_waivers
from tests import records_factory
from tests.decide_factory import finding, rule, stage
from tests.sequence_factory import ONE_RULE
from tests.unit.test_replay import fraud, items, policy, ran, red, sanity
from tests.unit.test_stage_run import collector_of, never, often, run, stage_of

PASS, REGRESSION, INCONCLUSIVE, ERROR, REFUSED, SKIPPED = Status
DIGEST = "a1" * 32
DAY = "2026-11-20"


def hashed(tensors: str, **load: Any) -> str:
    """As checkpoint.identity does it."""
    settings = {"dtype": "auto", "load": {}, **load}
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(tensors.encode() + b"\n" + canonical).hexdigest()


def candidate(**load: Any) -> CheckpointRef:
    ref = records_factory.checkpoint(Role.CANDIDATE)
    return replace(ref, digest=DIGEST, tensor_digest="b2" * 32, effective_digest=hashed("b2" * 32, **load))


def waived(of: str = "a", day: str = "2026-12-31", digest: str = DIGEST, **changes: str) -> Waiver:
    settings = {"owner": "ada", "reason": "fixed in the next export", **changes}
    return Waiver(rule=of, checkpoint=digest, expires=day, **settings)


# -- the file -----------------------------------------------------------------------------------------------

GOOD = f"""\
# a comment
version: 1
waivers:
  - rule: fraud.accuracy.max_drop
    checkpoint: {DIGEST}
    owner: ada@example.com
    reason: "negated questions: fixed in the next export"
    expires: 2026-12-31
  - {{rule: "code.exact_match,strict-match.max_drop", checkpoint: {DIGEST}, owner: Bó, reason: r, expires: 2027-02-28}}
"""


def load(folder: Path, text: str | bytes) -> tuple[Waiver, ...]:
    path = folder / "waivers.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return load_waivers(path)


def mistakes(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(folder, text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "in the waiver file\n" in str(caught.value)
    assert all("\n" not in p for p in caught.value.problems)
    return [p.removeprefix((folder / "waivers.yaml").as_posix() + ":") for p in caught.value.problems]


class TestFile:
    def test_a_good_one(self, tmp_path: Path) -> None:
        first, second = load(tmp_path, GOOD)
        assert first == Waiver(
            rule="fraud.accuracy.max_drop",
            checkpoint=DIGEST,
            owner="ada@example.com",
            reason="negated questions: fixed in the next export",
            expires="2026-12-31",
        )
        assert (second.rule, second.owner, second.expires) == (
            "code.exact_match,strict-match.max_drop",
            "Bó",
            "2027-02-28",
        )

    def test_none_are_fine_and_the_shipped_file_has_none(self, tmp_path: Path) -> None:
        assert load(tmp_path, "version: 1\nwaivers: []\n") == ()
        assert load_waivers(Path(__file__).parents[2] / "thresholds" / "waivers.yaml") == ()

    def test_the_examples_load(self, tmp_path: Path) -> None:
        root = Path(__file__).parents[2]
        (shown,) = re.findall(r"```yaml\n(.*?)```", (root / "docs" / "waivers.md").read_text(encoding="utf-8"), re.S)
        comment = (root / "thresholds" / "waivers.yaml").read_text(encoding="utf-8").partition("# waivers:\n")[2]
        lines = [line.removeprefix("# ") for line in comment.splitlines() if line.startswith("#  ")]
        assert load(tmp_path, shown) == load(tmp_path, "\n".join(["version: 1", "waivers:", *lines]))

    def test_every_mistake_is_reported_at_once_with_its_line(self, tmp_path: Path) -> None:
        text = f"""\
version: 2
owner: me
waivers:
  - {{rule: a, checkpoint: {DIGEST}, owner: ada, reason: r, expires: 2026-12-31}}
  - rule: a
    checkpoint: {DIGEST}
    ownr: ada
    reason: 7
    expires: 2026-02-30
    expires: 2026-12-31
  - not a mapping
"""
        assert mistakes(tmp_path, text) == [
            "1:10: version: found '2', expected 1: the version of the file's format",
            "2:1: owner: unknown key 'owner', expected one of version, waivers",
            "5:5: waivers[1]: a second waiver of this rule for this checkpoint, first given on line 4: remove one",
            "5:5: waivers[1]: missing key 'owner'",
            "7:5: waivers[1].ownr: unknown key 'ownr': did you mean 'owner'?",
            "8:13: waivers[1].reason: found '7', expected text: YAML reads this as int, write it in quotes",
            "9:14: waivers[1].expires: found '2026-02-30', expected a day of the calendar such as 2026-12-31",
            "10:5: waivers[1].expires: duplicate key, first given on line 9: remove one",
            "11:5: waivers[2]: found 'not a mapping', expected a mapping",
        ]

    @pytest.mark.parametrize(
        ("key", "written", "mistake"),
        [
            ("checkpoint", DIGEST.upper(), "expected the checkpoint's SHA-256: 64 of 0-9 and a-f (lower case)"),
            ("checkpoint", DIGEST[:12], "found 'a1a1a1a1a1a1', expected the checkpoint's SHA-256"),
            ("checkpoint", f"{DIGEST}0", "expected the checkpoint's SHA-256"),
            ("checkpoint", "'" + DIGEST[:-1] + "\N{ARABIC-INDIC DIGIT ONE}'", "expected the checkpoint's SHA-256"),
            ("checkpoint", "1" * 64, "expected text: YAML reads this as int, write it in quotes"),
            ("expires", "never", "found 'never', expected a day of the calendar"),
            ("expires", "2026-12-31T00:00:00Z", "expected a day of the calendar"),
            ("expires", "20261231", "expected text: YAML reads this as int"),
            ("expires", "'20261231'", "expected a day of the calendar"),
            ("expires", "'2026-W53-4'", "expected a day of the calendar"),
            ("expires", "'٢٠٢٦-١٢-٣١'", "expected a day of the calendar"),
            ("expires", "2027-02-29", "expected a day of the calendar"),
            ("expires", "0000-01-01", "expected a day of the calendar"),
            ("expires", "'2026-12-31\\n'", "expected a day of the calendar"),
            ("expires", '"2026-12-31\\n"', "expected a day of the calendar"),
            ("owner", "''", "found nothing, expected text that is not empty"),
            ("owner", "'   '", "found nothing, expected text that is not empty"),
            ("owner", "~", "found '~', expected text"),
            ("owner", '"a\\nb"', "found a line break, expected one line of printable text"),
            ("owner", "x" * 101, "found 101 characters, expected at most 100"),
            ("reason", "|\n      two\n      lines", "found a line break"),
            ("reason", '"\\x1b[31mred"', "found the character U+001B, expected one line of printable text"),
            ("reason", '"\\u202Eevil"', "found the character U+202E"),
            ("reason", '"\\u2028"', "found the character U+2028"),
            ("reason", "x" * 301, "found 301 characters, expected at most 300"),
            ("rule", "''", "found nothing"),
            ("rule", "[a]", "found a list, expected text"),
            ("rule", "!!python/object:os.system a", "found the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ],
    )
    def test_a_wrong_value(self, tmp_path: Path, key: str, written: str, mistake: str) -> None:
        entry = {"rule": "a", "checkpoint": DIGEST, "owner": "ada", "reason": "r", "expires": "2026-12-31"}
        lines = [f"    {k}: {written if k == key else v}" for k, v in entry.items()]
        (only,) = mistakes(tmp_path, "version: 1\nwaivers:\n  -\n" + "\n".join(lines) + "\n")
        line = 4 + list(entry).index(key)
        assert re.match(rf"{line}:\d+: waivers\[0\]\.{key}: ", only), only
        assert mistake in only
        assert len(only) < 250

    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            ("", "1:1: found an empty file, expected a mapping with `version` and `waivers`"),
            ("- a\n", "1:1: found a list, expected a mapping with `version` and `waivers`"),
            ("version: 1\n", "1:1: waiver file: missing key 'waivers'"),
            ("waivers: []\n", "1:1: waiver file: missing key 'version'"),
            ("version: yes\nwaivers: []\n", "1:10: version: found 'True', expected 1"),
            ("version: 1\nwaivers:\n", "2:9: waivers: found nothing, expected a list"),
            ("version: 1\nwaivers: {a: 1}\n", "2:10: waivers: found a mapping, expected a list"),
            ("version: 1\nwaivers: [", "not valid YAML"),
            (b"version: 1\nwaivers: \xff", "found byte 0xff, expected UTF-8 text"),
            ("#" * 1_000_001, "found more than 1,000,000 bytes, expected a waiver file of a few KB"),
            ("version: 1\nwaivers: " + "[" * 99 + "]" * 99, "nested deeper than 50 levels"),
        ],
    )
    def test_what_is_no_waiver_file(self, tmp_path: Path, text: str | bytes, mistake: str) -> None:
        (only,) = mistakes(tmp_path, text)
        assert mistake in only

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError, match=r"found no such file, expected a waiver file: see thresholds/"):
            load_waivers(tmp_path / "none.yaml")

    def test_the_same_rule_of_another_checkpoint_is_no_duplicate(self, tmp_path: Path) -> None:
        entry = {"rule": "a", "checkpoint": DIGEST, "owner": "ada", "reason": "r", "expires": "2026-12-31"}
        both = {"version": 1, "waivers": [entry, {**entry, "checkpoint": "b" * 64}]}
        assert len(load(tmp_path, yaml.safe_dump(both))) == 2


# -- which of them count ------------------------------------------------------------------------------------


class TestStanding:
    @pytest.mark.parametrize(
        ("day", "counts"),
        [
            ("2026-12-30", True),
            ("2026-12-31", True),
            ("2027-01-01", False),
            ("2027-11-01", False),
            ("9999-12-31", False),
        ],
    )
    def test_across_the_day_of_expiry(self, day: str, counts: bool) -> None:
        found = waiver.standing([waived()], candidate(), day)
        assert found.rules == ({"a"} if counts else set())
        expired = f"waiver: that of a by ada until 2026-12-31 is ignored: it expired, today is {day}"
        assert found.notes == (() if counts else (expired,))

    @pytest.mark.parametrize(
        ("created", "counts"),
        [
            (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), True),
            (datetime(2027, 1, 1, 0, 0, 0, tzinfo=UTC), False),
            (datetime(2027, 1, 1, 3, 0, 0, tzinfo=timezone(timedelta(hours=5))), True),
            (datetime(2026, 12, 31, 21, 0, 0, tzinfo=timezone(timedelta(hours=-5))), False),
        ],
    )
    def test_the_day_is_that_of_utc(self, created: datetime, counts: bool) -> None:
        assert bool(verdict.standing([waived()], candidate(), created).in_force) is counts

    def test_of_another_checkpoint_nothing_is_said(self) -> None:
        found = waiver.standing([waived(digest="c" * 64), waived(digest="c" * 64, day="2020-01-01")], candidate(), DAY)
        assert found == Standing(in_force=(), notes=())

    def test_loaded_as_it_is_stored_the_files_are_what_counts(self) -> None:
        stored = candidate()
        assert waiver.identity(stored) == DIGEST
        for other in (stored.effective_digest, stored.tensor_digest):
            found = waiver.standing([waived(digest=other)], stored, DAY)
            assert found.in_force == ()
            (note,) = found.notes
            assert note.endswith(f"expected the digest of these: {DIGEST}")

    @pytest.mark.parametrize(
        "settings", [{"load": {"method": "bitsandbytes-nf4"}}, {"dtype": "float16"}, {"engine": {"attention": "eager"}}]
    )
    def test_loaded_with_settings_the_files_cover_too_much(self, settings: dict[str, Any]) -> None:
        loaded = candidate(**settings)
        assert waiver.standing([waived(digest=loaded.effective_digest)], loaded, DAY).rules == {"a"}
        found = waiver.standing([waived()], loaded, DAY)
        assert found.in_force == ()
        (note,) = found.notes
        assert "is loaded with settings of its own" in note
        assert note.endswith(loaded.effective_digest)

    def test_the_digest_is_that_of_real_checkpoints(self, tmp_path: Path) -> None:
        """Ties `waiver.identity` to what `checkpoint.identity` hashes."""
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "fake.json").write_text('{"kind": "fake"}')

        def described(reference: str) -> CheckpointRef:
            document = {"version": 1, "stages": [fraud("3pp")], "checkpoints": {
                "plain": {"path": str(folder)}, "half": {"path": str(folder), "dtype": "float16"},
            }}  # fmt: skip
            known = Policy.model_validate(document)
            place = checkpoint.resolve(
                reference,
                policy_checkpoints=known.checkpoints,
                base=tmp_path,
                offline=True,
                backend="fake",
                engines=known.engines,
                advice="",
            )
            return checkpoint.describe(place, Role.CANDIDATE)

        for as_stored in (described(str(folder)), described("plain")):
            assert as_stored.effective_digest != as_stored.digest
            assert waiver.identity(as_stored) == as_stored.digest
        assert waiver.identity(described("half")) == described("half").effective_digest

    def test_without_a_checkpoint_none_counts(self) -> None:
        found = waiver.standing([waived()], None, DAY)
        assert found.in_force == ()
        assert "do not say which checkpoint" in found.notes[0]
        assert waiver.standing([], None, DAY) == waiver.NONE


# -- what a run comes to ------------------------------------------------------------------------------------

A, B, C = (rule("max_drop 3pp", id=i, stage=f"stage {i}") for i in "abc")
ADVICE = rule("max_drop 3pp", id="advice", stage="stage a", severity=Severity.ADVISORY)
RAIL = rule("max_drop 10pp", id="rail", stage="stage a", by="category")


def results(*statuses: Status) -> tuple[StageResult, ...]:
    made = []
    for of, status in zip((A, B, C), statuses, strict=False):
        because = "stage a ended in REGRESSION" if status is SKIPPED else None
        found = [] if status is SKIPPED else [finding(of, status)]
        made.append(stage(of.stage, status, found, because))
    return tuple(made)


def ruled(
    stages: Sequence[StageResult],
    *rules: str,
    planned: tuple[Rule, ...] = (A, B, C),
    restricted: bool = False,
    warn: bool = False,
) -> Ruling:
    return waiver.ruling(
        planned,
        tuple(stages),
        [waived(r) for r in rules],
        restricted=restricted,
        on_inconclusive="warn" if warn else "fail",
    )


def got(found: Ruling) -> tuple[Status, tuple[str, ...], int]:
    return found.decision.status, tuple(w.rule for w in found.applied), found.exit_code


class TestRuling:
    @pytest.mark.parametrize(
        ("statuses", "waivers", "expected"),
        [
            ((REGRESSION, PASS, PASS), "", (REGRESSION, "", 1)),
            ((REGRESSION, PASS, PASS), "a", (REGRESSION, "a", 0)),
            ((REGRESSION, PASS, PASS), "b", (REGRESSION, "", 1)),
            ((PASS, PASS, PASS), "a", (PASS, "", 0)),
            ((REGRESSION, REGRESSION, PASS), "a", (REGRESSION, "a", 1)),
            ((REGRESSION, REGRESSION, PASS), "ab", (REGRESSION, "ab", 0)),
            ((REGRESSION, REGRESSION, REGRESSION), "abc", (REGRESSION, "abc", 0)),
            ((REGRESSION, INCONCLUSIVE, PASS), "a", (REGRESSION, "a", 1)),
            ((INCONCLUSIVE, PASS, PASS), "a", (INCONCLUSIVE, "", 3)),
            ((REGRESSION, ERROR, PASS), "a", (ERROR, "a", 4)),
            ((ERROR, PASS, PASS), "a", (ERROR, "", 4)),
            ((REGRESSION, REFUSED, PASS), "a", (REFUSED, "a", 5)),
            ((REFUSED, PASS, PASS), "a", (REFUSED, "", 5)),
            ((REGRESSION, SKIPPED, SKIPPED), "a", (REGRESSION, "a", 1)),
            ((SKIPPED, SKIPPED, SKIPPED), "abc", (INCONCLUSIVE, "", 3)),
            ((REGRESSION, PASS), "a", (ERROR, "a", 4)),  # a stage is missing
        ],
    )
    def test_table(self, statuses: tuple[Status, ...], waivers: str, expected: tuple[Status, str, int]) -> None:
        found = ruled(results(*statuses), *waivers)
        assert got(found) == (expected[0], tuple(expected[1]), expected[2])

    def test_warn_accepts_doubt_beside_it_and_nothing_that_was_not_measured(self) -> None:
        assert got(ruled(results(REGRESSION, INCONCLUSIVE, PASS), "a", warn=True)) == (REGRESSION, ("a",), 0)
        assert got(ruled(results(REGRESSION, SKIPPED, SKIPPED), "a", warn=True)) == (REGRESSION, ("a",), 1)
        reached = replace(finding(B, INCONCLUSIVE), counts={REACHED: 3})
        late = (*results(REGRESSION), stage("stage b", INCONCLUSIVE, [reached]))
        assert got(ruled(late, "a", planned=(A, B), warn=True)) == (REGRESSION, ("a",), 1)

    @pytest.mark.parametrize("warn", [False, True])
    def test_a_restricted_run_never_becomes_green(self, warn: bool) -> None:
        for statuses in ((REGRESSION, SKIPPED, SKIPPED), (REGRESSION, PASS, PASS), (REGRESSION,)):
            found = ruled(results(*statuses), "a", restricted=True, warn=warn)
            assert got(found) == (REGRESSION, ("a",), 1)

    def test_advice_cannot_be_waived_and_decides_nothing(self) -> None:
        first = stage("stage a", PASS, [finding(A, PASS), finding(ADVICE, REGRESSION)])
        assert got(ruled([first], "advice", planned=(A, ADVICE))) == (PASS, (), 0)
        only = stage("stage a", PASS, [finding(ADVICE, REGRESSION)])
        assert got(ruled([only], "advice", planned=(ADVICE,))) == (ERROR, (), 4)  # nothing that blocks was planned

    def test_a_guard_rail_counts_beside_a_waived_rule_as_it_does_beside_one_that_holds(self) -> None:
        def beside(rail: Finding) -> tuple[Status, tuple[str, ...], int]:
            return got(ruled([stage("stage a", REGRESSION, [finding(A, REGRESSION), rail])], "a", planned=(A, RAIL)))

        assert beside(finding(RAIL, INCONCLUSIVE)) == (REGRESSION, ("a",), 0)
        assert beside(finding(RAIL, REGRESSION)) == (REGRESSION, ("a",), 1)
        assert beside(finding(RAIL, ERROR)) == (ERROR, ("a",), 4)
        assert beside(replace(finding(RAIL, INCONCLUSIVE), counts={REACHED: 5}))[2] == 1

    def test_an_error_that_stopped_the_run_is_not_hidden_behind_what_is_waived(self) -> None:
        """Without the waiver it is the regression that ended the run, with it the error beside it is."""
        other = rule("max_drop 3pp", id="a2", stage="stage a")
        stages = [stage("stage a", ERROR, [finding(A, REGRESSION), finding(other, ERROR)]), *results(PASS, SKIPPED)[1:]]
        assert got(ruled(stages, planned=(A, other, B))) == (REGRESSION, (), 1)
        assert got(ruled(stages, "a", planned=(A, other, B))) == (ERROR, ("a",), 4)

    def test_a_rule_that_is_both_red_and_broken_is_broken(self) -> None:
        twice = stage("stage a", ERROR, [finding(A, REGRESSION), finding(A, ERROR)])
        assert got(ruled([twice], "a", planned=(A,))) == (ERROR, ("a",), 4)

    def test_a_rule_that_is_both_red_and_undecided_is_undecided(self) -> None:
        twice = stage("stage a", REGRESSION, [finding(A, REGRESSION), finding(A, INCONCLUSIVE)])
        assert got(ruled([twice], "a", planned=(A,))) == (REGRESSION, ("a",), 1)

    def test_what_decides_comes_before_what_is_waived(self) -> None:
        far = finding(A, REGRESSION, estimate=0.5)
        stages = [stage("stage a", REGRESSION, [far]), stage("stage b", REGRESSION, [finding(B, REGRESSION)])]
        assert ruled(stages, planned=(A, B)).decision.deciding == ("a", "b")
        assert ruled(stages, "a", planned=(A, B)).decision.deciding == ("b", "a")

    def test_no_status_changes(self) -> None:
        stages = results(REGRESSION, PASS, PASS)
        before = [(s.status, [f.status for f in s.findings]) for s in stages]
        ruled(stages, "a")
        assert [(s.status, [f.status for f in s.findings]) for s in stages] == before

    @pytest.mark.parametrize(
        ("findings", "stops"),
        [
            ([finding(A, REGRESSION)], False),
            ([finding(A, REGRESSION), finding(RAIL, REGRESSION)], True),
            ([finding(A, REGRESSION), finding(RAIL, ERROR)], True),
            ([finding(A, REGRESSION), finding(RAIL, PASS)], False),
            ([finding(A, REGRESSION), finding(RAIL, SKIPPED)], False),
            ([finding(A, ERROR)], True),
            ([finding(A, REFUSED)], True),
        ],
    )
    def test_a_stage_stops_the_run_for_what_nobody_waived(self, findings: list[Finding], stops: bool) -> None:
        ended = stage("stage a", stage_status(findings), findings)
        assert waiver.stops(ended, frozenset("a")) is stops
        assert waiver.stops(ended, frozenset()) is True


class TestNotes:
    def test_every_waiver_of_the_checkpoint_is_in_words(self) -> None:
        rules = (A, B, C, ADVICE)
        stages = [*results(REGRESSION, PASS, INCONCLUSIVE), stage("x", PASS, [finding(ADVICE, REGRESSION)])]
        on_file = [waived(r.id) for r in rules] + [waived("gone"), waived("old", day="2020-01-01")]
        standing = waiver.standing(on_file, candidate(), DAY)
        applied = ruled(stages, *standing.rules, planned=rules).applied
        until = "by ada until 2026-12-31"
        assert waiver.notes(standing, applied, stages) == (
            "waiver: that of old by ada until 2020-01-01 is ignored: it expired, today is 2026-11-20",
            f"waiver: that of a {until} was applied, the rule is red: fixed in the next export",
            f"waiver: that of b {until} was not applied: the rule holds",
            f"waiver: that of c {until} was not applied: the rule ended in INCONCLUSIVE, and only a REGRESSION can be "
            "waived",
            f"waiver: that of advice {until} was not applied: the rule is advisory and fails no run",
            f"waiver: that of gone {until} was not applied: this run did not judge a rule of that id",
        )


# -- the sentence -------------------------------------------------------------------------------------------


def policy_of(**changes: Any) -> Policy:
    return Policy.model_validate({"version": 1, "stages": [fraud("3pp")], **changes})


def ended(stages: Sequence[StageResult], *on_file: Waiver, restricted: bool = False, **changes: Any) -> verdict.Ended:
    standing = waiver.standing(on_file, candidate(), DAY)
    return verdict.decided(policy_of(**changes), (A, B, C), tuple(stages), standing, restricted=restricted)


class TestSentence:
    def test_it_begins_with_the_waiver(self) -> None:
        found = ended(results(REGRESSION, PASS, PASS), waived())
        assert found.verdict.status is REGRESSION
        assert (found.exit_code, found.waivers) == (0, (waived(),))
        assert found.verdict.sentence.startswith(
            "Passed with waiver: a is waived by ada until 2026-12-31 (fixed in the next export). "
            "Regression: accuracy on fraud fell by "
        )

    def test_all_of_them_are_named(self) -> None:
        found = ended(results(*[REGRESSION] * 3), *(waived(r) for r in "abc"))
        assert "a is waived by ada until 2026-12-31, and so are b, c (fixed" in found.verdict.sentence
        assert found.exit_code == 0

    def test_doubt_that_is_accepted_is_said_too(self) -> None:
        found = ended(results(REGRESSION, INCONCLUSIVE, PASS), waived(), on_inconclusive="warn")
        assert found.exit_code == 0
        assert found.verdict.sentence.startswith("Passed with waiver: a is waived")
        assert found.verdict.sentence.endswith(" [b]; on_inconclusive: warn lets this run pass.")

    @pytest.mark.parametrize(
        ("second", "start", "code"),
        [(REGRESSION, "Regression: ", 1), (ERROR, "Could not measure: ", 4), (REFUSED, "Refused: ", 5)],
    )
    def test_what_fails_the_run_comes_first(self, second: Status, start: str, code: int) -> None:
        found = ended(results(REGRESSION, second, PASS), waived())
        assert found.verdict.sentence.startswith(start)
        assert " [b]. Not what fails this run: a is waived by ada until 2026-12-31." in found.verdict.sentence
        assert (found.verdict.status, found.exit_code, found.waivers) == (second, code, (waived(),))

    def test_doubt_that_is_not_accepted(self) -> None:
        said = ended(results(REGRESSION, INCONCLUSIVE, PASS), waived()).verdict.sentence
        assert said.startswith(
            "Regression: a is waived by ada until 2026-12-31, and the run does not pass for another "
        )
        assert "reason. Inconclusive: accuracy on fraud" in said
        assert said.endswith(" [b].")

    def test_what_was_not_measured(self) -> None:
        said = ended(results(REGRESSION, SKIPPED, SKIPPED), waived()).verdict.sentence
        assert "for another reason. Inconclusive: not run: stage b (stage a ended in REGRESSION)" in said
        said = ended(results(REGRESSION, PASS, SKIPPED), waived(), restricted=True).verdict.sentence
        assert "for another reason. Inconclusive: this run was restricted to --stage" in said

    def test_without_waivers_nothing_is_another_sentence(self) -> None:
        plain = ended(results(REGRESSION, PASS, PASS))
        assert plain.verdict.sentence.startswith("Regression: accuracy on fraud fell by ")
        assert "waive" not in plain.verdict.sentence
        assert plain.notes == ()

    def test_hostile_text_becomes_one_short_clean_line(self) -> None:
        """The loader refuses such text; a record may come from elsewhere."""
        bad = waived(reason=records_factory.HOSTILE * 100, owner=records_factory.HOSTILE)
        said = ended(results(REGRESSION, PASS, PASS), bad).verdict.sentence
        assert said.isprintable()
        assert len(said) < 900
        assert "\x1b" not in said
        assert "\ud800" not in said

    def test_stages_that_were_not_asked_are_named_last(self) -> None:
        standing = waiver.standing([waived()], candidate(), DAY)
        aside = stage("serving", SKIPPED, because="not asked")
        found = verdict.decided(
            policy_of(), (A, B, C), results(REGRESSION, PASS, PASS), standing, restricted=False, unasked=[aside]
        )
        assert found.verdict.sentence.endswith(" Not judged: serving.")
        assert found.exit_code == 0


# -- while it is measured -----------------------------------------------------------------------------------


def test_a_waived_rule_does_not_end_its_stage() -> None:
    one = stage_of("a", "b", bound="3pp")
    (first, _) = (f.rule.id for f in run(collector_of(a=never, b=never), one).result.findings)
    going = run(collector_of(a=often, b=never), one, waived=frozenset({first}))
    assert [f.status for f in going.result.findings] == [REGRESSION, PASS]
    assert going.result.status is REGRESSION
    stopped = run(collector_of(a=often, b=never), one, waived=frozenset({"another"}))
    assert [f.status for f in stopped.result.findings] == [REGRESSION, INCONCLUSIVE]
    # what is red and not waived ends the stage, whatever is waived beside it
    both = run(collector_of(a=often, b=often), one, waived=frozenset({first}))
    assert [f.status for f in both.result.findings] == [REGRESSION, REGRESSION]


def test_what_breaks_ends_its_stage_although_its_rule_is_waived() -> None:
    one = stage_of("a", "b", bound="3pp")
    rules = frozenset(f.rule.id for f in run(collector_of(a=never, b=never), one).result.findings)
    broken = collector_of(a=never, b=never)
    broken.breaks = {"a": (32, CouldNotMeasure("no such column"))}
    assert [f.status for f in run(broken, one, waived=rules).result.findings] == [ERROR, INCONCLUSIVE]
    lost = collector_of(a=never, b=never)
    some = lost.candidates["a"].observations
    lost.candidates["a"] = replace(lost.candidates["a"], observations=some[1:])
    # more items lost than may be: known after the first block
    assert [f.status for f in run(lost, one, waived=rules).result.findings] == [ERROR, SKIPPED]


def test_a_guard_rail_beside_a_waived_rule_sees_every_item() -> None:
    """The rule fails within a few items, on which no group stands out yet."""

    def grouped(measured: Measurement) -> Measurement:
        some = tuple(replace(o, group=f"g{i % 20}") for i, o in enumerate(measured.observations))
        return replace(measured, observations=some)

    both = collector_of(a=often)
    baseline, measured = grouped(both.baselines["a"]), grouped(both.candidates["a"])
    of_a: dict[str, Any] = {"stage": "capability", "source": "a", "scope": Scope.BENCHMARK}
    main_rule = rule("max_drop 3pp", id="main", **of_a)
    rail = rule("max_drop 40pp", id="rail", by="category", **of_a)
    terms = replace(ONE_RULE, order_seed="f" * 64)
    part = replace(measured, observations=measured.observations[:96], n_reached=96)
    trackers = [
        Tracker(rules, baseline, terms, waived=frozenset(waived))
        for rules, waived in (([main_rule, rail], ()), ([main_rule, rail], ("main",)), ([main_rule], ("main",)))
    ]
    for tracker in trackers:
        tracker.feed(part)
    assert [t.settled for t in trackers] == [True, False, True]
    assert [t.failing for t in trackers] == [True, False, False]
    gaps = Tracker([main_rule], baseline, terms, waived=frozenset({"main"}))
    gaps.feed(replace(part, observations=part.observations[1:]))
    assert gaps.failing  # an item was lost: that is an error and no regression

    def of_rail(measured: Measurement, *waived: str) -> Finding:
        rules = [main_rule, rail]
        found = source_findings(rules, baseline, measured, terms, stop_early=True, waived=frozenset(waived))
        assert found[0].status is REGRESSION
        return found[1]

    assert of_rail(part).status is of_rail(part, "main").status is INCONCLUSIVE
    assert REACHED not in of_rail(part).counts  # it never prolongs anything by itself
    assert REACHED in of_rail(part, "main").counts
    assert of_rail(measured, "main").status is REGRESSION


# -- decided again ------------------------------------------------------------------------------------------


def on_file(of: CheckpointRef | None, **changes: str) -> list[Waiver]:
    assert of is not None
    return [waived("fraud.accuracy.max_drop", digest=waiver.identity(of), **changes)]


def test_a_finished_run_can_be_decided_with_waivers(tmp_path: Path) -> None:
    then = ran(tmp_path, fraud("3pp"), results=[red()], measurements=items())
    loaded = load_policy(policy(tmp_path / "now.yaml", fraud("3pp")))
    day = datetime(2026, 11, 21, tzinfo=UTC)
    outcome = replay(then, loaded, now=day, waivers=on_file(then.record.candidate))
    assert (outcome.record.verdict.status, outcome.record.exit_code) == (REGRESSION, 0)
    assert outcome.record.waivers == tuple(on_file(then.record.candidate))
    assert artifact.loads_record(artifact.dumps_record(outcome.record)) == outcome.record
    assert any("was applied, the rule is red" in n for n in outcome.record.notes)
    late = replay(then, loaded, now=datetime(2027, 1, 1, tzinfo=UTC), waivers=on_file(then.record.candidate))
    assert (late.record.exit_code, late.record.waivers) == (1, ())


def test_what_was_skipped_is_not_passed_by_a_waiver(tmp_path: Path) -> None:
    skipped = stage("sanity", SKIPPED, because="stage fraud ended in REGRESSION")
    then = ran(tmp_path, fraud("3pp"), sanity(), results=[red(), skipped], measurements=items())
    loaded = load_policy(policy(tmp_path / "now.yaml", fraud("3pp"), sanity(), on_inconclusive="warn"))
    outcome = replay(then, loaded, now=datetime(2026, 11, 21, tzinfo=UTC), waivers=on_file(then.record.candidate))
    assert (outcome.record.verdict.status, outcome.record.exit_code) == (REGRESSION, 1)
    assert "for another reason. Inconclusive: not run: sanity" in outcome.record.verdict.sentence


def test_what_was_skipped_is_not_passed_by_a_waiver_although_it_only_advises(tmp_path: Path) -> None:
    advice = sanity()
    advice["rules"][0]["severity"] = "advisory"
    skipped = stage("sanity", SKIPPED, because="stage fraud ended in REGRESSION")
    then = ran(tmp_path, fraud("3pp"), advice, results=[red(), skipped], measurements=items())
    loaded = load_policy(policy(tmp_path / "now.yaml", fraud("3pp"), advice, on_inconclusive="warn"))
    outcome = replay(then, loaded, now=datetime(2026, 11, 21, tzinfo=UTC), waivers=on_file(then.record.candidate))
    assert (outcome.record.verdict.status, outcome.record.exit_code) == (REGRESSION, 1)
    assert "for another reason. Inconclusive: not run: sanity" in outcome.record.verdict.sentence
    assert contradiction(outcome.record) is None


@pytest.mark.parametrize(
    ("day", "said"), [("2020-01-01", "is ignored: it expired, today is "), ("9999-12-31", "was applied, the rule is")]
)
def test_gate_decide_says_what_became_of_every_waiver(
    tmp_path: Path, day: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    then = ran(tmp_path, fraud("3pp"), results=[red()], measurements=items())
    (entry,) = on_file(then.record.candidate, day=day)
    written = {k: getattr(entry, k) for k in ("rule", "checkpoint", "owner", "reason", "expires")}
    (tmp_path / "waivers.yaml").write_text(yaml.safe_dump({"version": 1, "waivers": [written]}))
    now = policy(tmp_path / "now.yaml", fraud("3pp"))
    main(["decide", str(then.path), f"--policy={now}", f"--waivers={tmp_path / 'waivers.yaml'}"])
    shown = capsys.readouterr().out
    assert f"note: waiver: that of fraud.accuracy.max_drop by ada until {day} {said}" in shown


def test_the_waivers_of_a_run_do_not_come_back_by_themselves(tmp_path: Path) -> None:
    then = ran(tmp_path, fraud("3pp"), results=[red()], measurements=items())
    kept = "the server runs vLLM"
    notes = ("waiver: that of fraud.accuracy.max_drop was applied", "on_inconclusive: warn was asked for", kept)
    record = replace(then.record, waivers=tuple(on_file(then.record.candidate)), exit_code=0, notes=notes)
    (then.path / "run.json").write_text(artifact.dumps_record(record))
    loaded = load_policy(policy(tmp_path / "now.yaml", fraud("3pp")))
    again = replay(read_run(then.path), loaded, now=datetime(2026, 11, 21, tzinfo=UTC)).record
    assert (again.exit_code, again.waivers) == (1, ())
    assert again.notes[1:] == (kept,)


@pytest.mark.parametrize("command", ["decide", "compare"])
def test_gate_decide_and_gate_compare_take_them(tmp_path: Path, command: str) -> None:
    then = ran(tmp_path, fraud("3pp"), results=[red()], measurements=items())
    file = tmp_path / "waivers.yaml"
    (entry,) = on_file(then.record.candidate, day="9999-12-31")
    written = {k: getattr(entry, k) for k in ("rule", "checkpoint", "owner", "reason", "expires")}
    file.write_text(yaml.safe_dump({"version": 1, "waivers": [written]}))
    now = policy(tmp_path / "now.yaml", fraud("3pp"))
    folders = [str(then.path)] if command == "decide" else [f"--baseline={then.path}", f"--candidate={then.path}"]
    arguments = [command, *folders, f"--policy={now}", f"--out={tmp_path / 'again'}"]
    assert main(arguments) == 1
    assert main([*arguments, f"--waivers={file}"]) == 0
    record = artifact.loads_record((tmp_path / "again" / "run.json").read_bytes())
    assert (record.verdict.status, record.waivers) == (REGRESSION, (entry,))
    file.write_text("version: 1\n")
    assert main([*arguments, f"--waivers={file}"]) == 2


# -- on_inconclusive on the command line --------------------------------------------------------------------


def test_another_on_inconclusive_is_another_policy_and_says_so(tmp_path: Path) -> None:
    loaded = load_policy(policy(tmp_path / "p.yaml", fraud("3pp")))
    assert with_on_inconclusive(loaded, None) == (loaded, ())
    assert with_on_inconclusive(loaded, "fail") == (loaded, ())
    changed, notes = with_on_inconclusive(loaded, "warn")
    assert changed.policy.on_inconclusive == "warn"
    assert changed.digest == load_policy(policy(tmp_path / "p.yaml", fraud("3pp"), on_inconclusive="warn")).digest
    assert changed.digest != loaded.digest
    assert notes == (f"on_inconclusive: warn was asked for on the command line, {loaded.source} says fail",)
