"""Several candidates on one page, and titles that never hide a waiver."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gate import console
from gate.records import RunRecord, Status
from gate.reports import candidates, governance, html, junit, markdown, replay_text, text
from gate.reports.sentence import PASSED_WITH_WAIVER, TITLES, title
from tests import records_factory as factory

NAMED: list[candidates.Named] = [
    ("good", factory.passing()),
    ("waived", factory.waived()),
    ("open", factory.inconclusive()),
    ("gone", "no artifact quantgate-run-gone"),
    ("broken", factory.error()),
    ("red", factory.regression()),
    ("refused", factory.refused()),
]
ROW = re.compile(r"(?m)^\| (?:\S+ )?([a-z ]+) \| (\S+) \|")


def overview(page: str) -> list[tuple[str, str]]:
    """(title, name) of the rows of the first table, in order."""
    head, _, _ = page.partition("\n### ")
    return [(said, name) for said, name in ROW.findall(head) if said != "candidate"]


def test_the_worst_comes_first_and_nobody_is_left_out() -> None:
    page = candidates.render(NAMED, 60_000)
    assert page.startswith("## ⛔ quantgate: refused\n")
    assert overview(page) == [
        ("refused", "refused"),
        ("regression", "red"),
        ("could not measure", "broken"),
        ("could not measure", "gone"),
        ("inconclusive", "open"),
        ("passed with waiver", "waived"),
        ("pass", "good"),
    ]
    assert (
        "7 candidates: 1 refused, 1 with a regression, 2 could not be measured, 1 inconclusive, 1 passed with waiver, "
        "1 passes" in page
    )
    sections = re.findall(r"(?m)^### \S+ (\w+): ", page)
    assert sections == ["refused", "red", "broken", "gone", "open", "waived", "good"]
    assert "could not measure: no artifact quantgate-run-gone" in page
    assert "fraud.accuracy.max\\_drop: 11.50 pp (10.33 to 12.78 pp), bound 3 pp | 1 |" in page


def test_the_headline_reads_like_a_sentence() -> None:
    many = [(f"w{n}", factory.regression() if n < 16 else factory.passing()) for n in range(256)]
    assert "**256 candidates: 16 with a regression, 240 pass.**" in candidates.render(many, 20_000)


def test_without_an_estimate_the_overview_says_why() -> None:
    secret = factory.error()
    for policy, seen in (({**factory.POLICY, "share_examples": "full"}, True), (factory.POLICY, False)):
        page = candidates.render([("died", replace(secret, policy=policy)), ("good", factory.passing())], 20_000)
        [row] = [line for line in page.splitlines() if "| died |" in line]
        assert "fraud.accuracy.max\\_drop: candidate worker was killed by SIGKILL after 140 of 2000 items" in row
        assert ("out of memory" in row) == seen, "the last words of a log may be a customer's"
        assert "bound 3 pp" not in row


def test_each_candidate_shows_its_run_and_its_digest() -> None:
    red = factory.regression()
    assert red.candidate is not None
    known: list[candidates.Named] = [("a", red), ("b", replace(red, run_id="other", candidate=None))]
    page = candidates.render(known, 20_000)
    assert f"Run `{red.run_id}`, candidate SHA-256 `{red.candidate.digest}`.\n\n</details>" in page
    assert "Run `other`.\n\n</details>" in page
    page = candidates.render(known, 20_000, lambda ref: "e" * 64)
    assert f"candidate as it is loaded, SHA-256 `{'e' * 64}`." in page


def test_the_headline_is_never_better_than_the_worst() -> None:
    for worst in range(len(NAMED)):
        _, found = NAMED[worst]
        page = candidates.render([("good", factory.passing()), NAMED[worst]], 20_000)
        meant = title(found) if isinstance(found, RunRecord) else TITLES[Status.ERROR]
        assert re.fullmatch(rf"## \S+ quantgate: {meant}", page.splitlines()[0])


@pytest.mark.parametrize("name", sorted(factory.everything()))
def test_one_candidate_has_the_page_of_its_run(name: str) -> None:
    record = factory.everything()[name]
    for room in (60_000, 5_000):
        assert candidates.render([("it", record)], room) == markdown.render(record, room)


def test_one_candidate_that_is_missing() -> None:
    page = candidates.render([("<b>w3</b>", "it was @octocat's fault")], 60_000)
    assert page.startswith("## ⚠️ quantgate: could not measure\n")
    assert "&lt;b&gt;w3&lt;/b&gt; could not be measured: it was @\u200boctocat's fault" in page


def test_no_candidate_is_no_page() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        candidates.render([], 60_000)


@pytest.mark.parametrize("room", [65_535, 60_000, 30_000, 8_000, 3_000, 1_500])
def test_the_page_fits_and_says_what_it_leaves_out(room: int) -> None:
    named: list[candidates.Named] = [
        (f"candidate-{n:02}", factory.large() if n % 3 else factory.hostile("none")) for n in range(80)
    ]
    page = candidates.render([*named, ("gone", factory.HOSTILE)], room)
    assert len(page.encode()) <= room
    assert "81 candidates: 80 with a regression, 1 could not be measured" in page
    assert page.count("<details") == page.count("</details>")
    assert re.search(r"… and \d+ candidates more in their own summaries\.", page) or room < 2_000
    assert not re.search(r"(?m)^\s*::", page)


def test_sections_shrink_from_the_worst_on() -> None:
    named: list[candidates.Named] = [(f"c{n}", factory.large()) for n in range(4)]
    sections = re.split(r"(?m)^### ❌ c\d", candidates.render(named, 30_000))[1:]
    sizes = [len(s) for s in sections]
    assert len(sizes) == 4
    assert max(sizes) == sizes[0] > 2 * sizes[-1]
    assert all("task_41" in s for s in sections), "the worst rule of each is there"


def test_what_the_pull_request_does_to_its_bar_is_said_once() -> None:
    change = factory.policy_change()
    both = [replace(factory.regression(), policy_change=change), replace(factory.passing(), policy_change=change)]
    for room in (60_000, 4_000):
        page = candidates.render([("a", both[0]), ("b", both[1])], room)
        assert page.count(governance.BAR) == 1
        assert page.index(governance.BAR) < page.index("| candidate |")
        assert "89abcdef0123" in page
        assert "2 of 12 runs would have another verdict" in page


# a run's own page in little room


@pytest.mark.parametrize("room", [60_000, 20_000, 8_000, 4_000, 2_000, 1_200])
@pytest.mark.parametrize("name", sorted(factory.everything()))
def test_a_run_fits_into_any_room(name: str, room: int) -> None:
    page = markdown.render(factory.everything()[name], room)
    assert len(page.encode()) <= room
    assert page.startswith("## ")
    if name == "policy-changed":
        assert governance.BAR in page
    if name == "waived":
        assert "Ada Byron" in page


def test_without_room_for_the_verdict_there_is_no_page() -> None:
    with pytest.raises(ValueError, match="expected at most 100"):
        markdown.render(factory.regression(), 100)


# titles


def test_a_title_needs_waivers_a_regression_and_exit_code_0() -> None:
    assert title(factory.waived()) == PASSED_WITH_WAIVER
    assert title(replace(factory.waived(), exit_code=1)) == "regression"
    assert title(replace(factory.waived(), waivers=())) == "regression"
    for name, record in factory.everything().items():
        if name != "waived":
            assert title(record) == TITLES[record.verdict.status]


def shown(record: RunRecord) -> dict[str, str]:
    screen = io.StringIO()
    console.verdict(Console(file=screen, width=300), record, Path("out"))
    table = io.StringIO()
    Console(file=table, width=300).print(console.runs_table([("it", record)]))
    return {
        "markdown": markdown.render(record).splitlines()[0],
        "text": text.render(record).splitlines()[0],
        "html title": re.search(r"<title>.*</title>", html.render(record))[0],  # type: ignore[index]
        "html badge": re.search(r'<header>\s*<span class="badge [^>]*>[^<]*', html.render(record))[0],  # type: ignore[index]
        "console": screen.getvalue().splitlines()[0],
        "table": table.getvalue().splitlines()[1],
        "replay": replay_text.render(factory.passing(), record).partition("verdict:")[2],
        "junit": ET.fromstring(junit.render(record).encode())[0][-1][0].get("message") or "",
    }


def test_every_title_says_that_a_waiver_made_it_pass() -> None:
    for where, said in shown(factory.waived()).items():
        assert PASSED_WITH_WAIVER in said.lower(), where
    for where, said in shown(factory.regression()).items():
        assert PASSED_WITH_WAIVER not in said.lower(), where
        assert "regression" in said.lower(), where


def test_a_waived_rule_is_skipped_with_the_reason_and_neither_failed_nor_passed() -> None:
    root = ET.fromstring(junit.render(factory.waived()).encode())
    results = {case.get("name"): case[0] for case in root.iter("testcase")}
    for name in ("verdict", "fraud.accuracy.max_drop"):
        assert results[name].tag == "skipped"
        assert "known loss, fixed in the next export" in (results[name].text or "")
    assert (root.get("failures"), root.get("errors")) == ("0", "0")


def test_a_waiver_that_does_not_make_the_run_pass_hides_nothing() -> None:
    record = replace(factory.waived(), exit_code=1)
    root = ET.fromstring(junit.render(record).encode())
    results = {case.get("name"): case[0] for case in root.iter("testcase")}
    assert results["verdict"].tag == "failure"
    assert results["fraud.accuracy.max_drop"].tag == "skipped"
    assert "which does not make this run pass" in markdown.render(record)


def test_rows_and_sections_name_the_waiver() -> None:
    record = factory.waived()
    for rendered in (markdown.render(record), text.render(record), html.render(record)):
        assert "regression (waived)" in rendered
        assert "Ada Byron" in rendered
        assert "2026-12-31" in rendered
        assert "the verdict stays regression" in " ".join(rendered.split())


def test_the_change_of_the_bar_is_told_in_every_report() -> None:
    record = factory.policy_changed()
    for rendered in (markdown.render(record), text.render(record), html.render(record)):
        said = " ".join(rendered.replace("\\", "").split())
        assert governance.BAR in said
        assert "of the base branch at commit 89abcdef0123" in said
        assert "2 of 12 runs would have another verdict" in said
        assert "tasks/fraud.yaml" in said
        assert "holds no rows of stage serving" in said
        assert said.index("removed") < said.index("loosened") < said.index("added"), "what lets more through is first"
    assert governance.BAR in junit.render(record)
    unknown = replace(record, policy_change=factory.policy_change(replayed=0))
    assert "No run was judged again" in markdown.render(unknown)


def test_untrusted_words_in_waivers_and_changes_stay_text() -> None:
    bad = factory.HOSTILE
    change = factory.policy_change()
    hostile = replace(
        factory.waived(),
        waivers=(replace(factory.waiver(reason=bad), owner=bad),),
        policy_change=replace(
            change,
            base_commit=bad,
            paths=(bad,),
            rules=(replace(change.rules[0], rule=bad, now=bad),),
            moves=(replace(change.moves[0], run_id=bad, candidate=bad),),
            notes=(bad,),
        ),
    )
    summary = re.sub(r"(`+)[^\n]*?\1(?!`)", "", markdown.render(hostile))  # in a code span everything is literal
    assert "<script" not in summary
    assert "@octocat" not in summary
    assert not re.search(r"(?m)^\s*::", summary)
    assert "<script" not in html.render(hostile)
    assert not re.search(r"(?m)^\s*::", text.render(hostile))
    junit.render(hostile)
