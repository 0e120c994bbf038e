"""Big and hostile runs through `gate publish github`: everything fits, the worst is there, nothing can be executed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from gate.artifact import dumps_record
from gate.cli import main
from gate.records import MAX_FLIPS, Finding, RunRecord, Severity, Status
from tests import records_factory as factory
from tests.github import job as jobs
from tests.github.server import GitHubMock

SHA = "a" * 40
PULL = 7
SUMMARY = "summary.md"
SECRET = "The account of Mrs Öztürk holds 4,711 €"
LONG = "🦀 a task with a name that nobody would want to type, äöü " * 4
"""Four bytes in one character and characters above U+FFFF: where bytes and characters are mixed up, it shows."""

_FLIPS = 500


def release(share: str, *, red: Sequence[int] = (3, 17, 29, 41, 58), n_tasks: int = 60) -> RunRecord:
    """`n_tasks` tasks with two rules each, of every status; the later a red task, the worse it is."""
    found: list[Finding] = []
    for number in range(n_tasks):
        task = f"task_{number:02d} {LONG}"
        hard = factory.rule("capability", "acc", source=task, id=f"capability.task_{number:02d}.acc.max_drop")
        soft = factory.rule(
            "capability",
            "exact_match",
            source=task,
            id=f"capability.task_{number:02d}.exact_match.max_drop",
            severity=Severity.ADVISORY,
        )
        drop = 0.05 + number / 200
        if number in red:
            numbers = (drop, drop - 0.01, drop + 0.01)
            found.append(factory.finding(hard, Status.REGRESSION, numbers, reason=f"the drop is real. {LONG}" * 20))
        elif number % 5 == 1:
            found.append(factory.finding(hard, Status.INCONCLUSIVE, (0.02, 0.0, 0.04), n_needed=9000, reason=LONG))
        elif number % 11 == 2:
            found.append(factory.finding(hard, Status.ERROR, None, reason=f"out of memory. {LONG}" * 20))
        else:
            found.append(factory.finding(hard, Status.PASS, (0.001, -0.002, 0.004)))
        status = Status.REGRESSION if number % 7 == 0 else Status.PASS
        found.append(factory.finding(soft, status, (0.2, 0.1, 0.3) if number % 7 == 0 else (0.0, -0.01, 0.01)))
    text = f"{SECRET}. {LONG}" * 30
    flips = [factory.flip(n, prompt=text, candidate_output=text) for n in range(_FLIPS)]
    return factory.record(
        Status.REGRESSION,
        (factory.stage("lm_eval", "capability", Status.REGRESSION, found, notes=(LONG * 20,) * 5),),
        deciding=[f"capability.task_{number:02d}.acc.max_drop" for number in sorted(red, reverse=True)],
        exit_code=1,
        flips=flips[:MAX_FLIPS],
        policy={**factory.POLICY, "share_examples": share},
        notes=(LONG * 50,) * 20,
    )


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GitHubMock]:
    """The mock refuses what GitHub refuses; the variables are those of a job for pull request 7."""
    with GitHubMock() as mock:
        mock.add_pull(PULL, SHA)
        job = jobs.pull_request(mock, PULL, SHA)
        for name, value in job.environment(mock, tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / SUMMARY))
        yield mock


def publish(folder: Path, *more: str) -> None:
    assert main(["publish", "github", str(folder), *more]) == 0


def write(record: RunRecord, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(dumps_record(record), encoding="utf-8")
    return folder


def strings(found: Any) -> Iterator[str]:
    """Every string in the body of a request."""
    if isinstance(found, str):
        yield found
    for one in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from strings(one)


def texts(github: GitHubMock) -> list[str]:
    return [text for call in github.writes for text in strings(call.body)]


def within_limits(github: GitHubMock) -> None:
    """GitHub's limits once more, of what was sent; that the mock accepted it is the first half."""
    assert [str(c) for c in github.calls if c.status >= 400] == []
    assert len(github.checks) == len(github.comments) == 1
    for call in github.writes:
        output = call.body.get("output", {})
        for name in ("summary", "text"):
            assert len((output.get(name) or "").encode()) <= 65_535
        assert len(output.get("title", "")) <= 255
        assert len(output.get("annotations", ())) <= 50
        assert len(call.body.get("body", "").encode()) <= 65_536
        if "/check-runs" in call.path:
            assert max(map(ord, "".join(strings(call.body)))) <= 0xFFFF


def in_order(text: str, names: Sequence[str]) -> bool:
    places = [text.find(name) for name in names]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize("share", ["none", "ids", "full"])
def test_60_tasks_and_500_flips_fit_and_the_worst_is_there(share: str, github: GitHubMock, tmp_path: Path) -> None:
    record = release(share)
    publish(write(record, tmp_path / "bank-w4"))
    within_limits(github)
    [check], [comment] = github.checks, github.comments
    red, not_measured, open_question = (58, 41, 29, 17, 3), 2, 1
    worst_first = [f"capability.task_{n:02d}.acc.max_drop" for n in (*red, not_measured, open_question)]
    summary = (tmp_path / SUMMARY).read_text(encoding="utf-8")
    assert len(summary.encode()) < 2**20, "GitHub drops a larger one whole"
    for said in (check["output"]["summary"], comment["body"], summary):
        assert in_order(said, worst_first)
    assert check["conclusion"] == "failure"
    for said in (check["output"]["summary"] + check["output"]["text"], comment["body"]):
        assert re.search(r"… and \d+ more|\bmore\b.*report\.html|not shown", said), "what was cut is said"
    published = "\n".join([*texts(github), summary])
    assert (SECRET.split()[0] + " account of Mrs" in published) == (share == "full")
    assert ("fraud:0001" in published or "fraud:0000" in published) == (share != "none")


def test_a_record_with_more_flips_than_the_gate_keeps_fits_too(github: GitHubMock, tmp_path: Path) -> None:
    """Nobody but somebody else's hand writes one."""
    record = release("full")
    publish(write(replace(record, flips=record.flips * 3), tmp_path / "bank-w4"))
    within_limits(github)


def test_30_candidates_with_60_rules_each(github: GitHubMock, tmp_path: Path) -> None:
    """Every red candidate is named in the check and in the comment, and none of them alone fills the page."""
    runs = tmp_path / "runs"
    red = [f"candidate-{n:02d}" for n in range(0, 30, 4)]
    for n in range(30):
        name = f"candidate-{n:02d}"
        one = release("full", red=(n,), n_tasks=30) if name in red else factory.passing()
        write(one, runs / name)
    publish(runs)
    within_limits(github)
    [check], [comment] = github.checks, github.comments
    assert check["conclusion"] == "failure"
    assert f"{len(red)} of 30" in check["output"]["title"]
    for name in red:
        assert name in check["output"]["summary"]
        assert name in comment["body"]
    last_red = max(comment["body"].find(name) for name in red)
    first_green = min(comment["body"].find(f"candidate-{n:02d}") for n in (1, 2, 3))
    assert 0 <= last_red < first_green, "worst first"


HARMLESS_HTML = re.compile(r"(</?(details|summary|sub)>|<!-- quantgate:[^<>]*-->)", re.MULTILINE)
COMMAND = re.compile(r"(?m)^\s*::\w|##\[")
MENTION = re.compile(r"@\w|(?<!\w)#\d|(?i:gh-\d)")
ADDRESS = re.compile(r"(?i)\w+://|\bwww\.|mailto:")


def harmless(text: str, *, rendered: bool) -> None:
    """What GitHub makes of it: no command, no element but ours, no mention, no link but to the repository.

    `rendered`: it is Markdown.  Titles and remarks are shown as they stand.
    """
    assert not any(0xD800 <= ord(c) <= 0xDFFF or c in "\0\x08\x1b\u202e" for c in text)
    assert not re.search(r"(?m)^\s*(::\w|##\[)", text)
    if not rendered:
        return
    for token in flat(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)):
        assert token.type != "image", token.attrs
        if token.type in ("html_block", "html_inline"):
            assert not re.search("[<>]", HARMLESS_HTML.sub("", token.content)), token.content
        if token.type == "text":
            assert not MENTION.search(token.content), token.content
            assert not ADDRESS.search(token.content), token.content
        if token.type == "link_open":
            assert str(token.attrs["href"]).startswith("https://github.com/acme/models/"), token.attrs


def flat(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from flat(token.children or [])


def enormous(n_findings: int) -> RunRecord:
    """Ten million characters of attack in every place that a checkpoint, a task or a worker can write to."""
    attack = factory.HOSTILE * (10_000_000 // len(factory.HOSTILE))
    one = factory.hostile()
    [stage, *others] = one.stages
    [first, _] = stage.findings
    red = [
        replace(first, reason=attack, rule=replace(first.rule, id=f"fraud.{n}", source=attack))
        for n in range(n_findings)
    ]
    assert one.candidate is not None
    return replace(
        one,
        stages=(replace(stage, findings=tuple(red), notes=()), *others),
        candidate=replace(one.candidate, uri=attack),
        verdict=replace(one.verdict, sentence="Failed: " + attack, deciding=("fraud.0",)),
    )


@pytest.mark.parametrize("name", ["hostile", "enormous"])
def test_nothing_that_a_hostile_run_says_is_obeyed(
    name: str, github: GitHubMock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = factory.hostile() if name == "hostile" else enormous(1)
    publish(write(record, tmp_path / "bank"), "--policy-path", "thresholds/demo.yaml")
    within_limits(github)
    [check], [comment] = github.checks, github.comments
    assert check["conclusion"] == "failure"
    assert github.annotations(check["id"])
    summary = (tmp_path / SUMMARY).read_text(encoding="utf-8")
    for text in (check["output"]["summary"], check["output"]["text"], comment["body"], summary):
        harmless(text, rendered=True)
    for text in texts(github):
        harmless(text, rendered=False)
    said = capsys.readouterr()
    for line in (said.out + said.err).splitlines():
        assert not COMMAND.search(line), line
        assert "\x1b" not in line


def test_a_record_that_is_too_large_is_not_read_and_not_a_pass(github: GitHubMock, tmp_path: Path) -> None:
    publish(write(enormous(3), tmp_path / "bank"))
    within_limits(github)
    [check] = github.checks
    assert check["conclusion"] == "failure"
    assert check["output"]["title"].startswith("Could not measure: run.json has more than 67,108,864 bytes")


def test_the_reader_of_markdown_sees_what_is_dangerous() -> None:
    """The check above can fail: each of these is something that GitHub would obey or link."""
    for text in (
        "hello @octocat",
        "see #12",
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "[click](javascript:alert(1)) [x](https://evil.example/)",
        "![x](https://evil.example/x.png)",
        "https://evil.example",
        "fine\n::error file=x::boom",
        "##[error]boom",
        "red \x1b[31m",
    ):
        with pytest.raises(AssertionError):
            harmless(text, rendered=True)
    for text in (
        "`@octocat <script> #12`",
        "```text\n@octocat\n```",
        "<!-- quantgate:sticky v1 {} -->",
        "@\u200boctocat",
    ):
        harmless(text, rendered=True)
