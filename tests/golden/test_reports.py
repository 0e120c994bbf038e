"""Reports against gold files.  QUANTGATE_UPDATE_GOLD=1 writes them anew; read the diff before committing."""

from __future__ import annotations

import importlib
import json
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gate.records import RunRecord
from gate.reports import REPORTS, markdown, text
from tests import records_factory as factory

GOLD = Path(__file__).parent / "reports"
EXTENSIONS = {"html": "html", "junit": "xml", "markdown": "md", "json": "json", "text": "txt"}
RECORDS = factory.everything()
CHART = re.compile(r'<svg class="chart" [^>]*(aria-label="[^"]*")>.*?</svg>', re.DOTALL)
PROFILED = ("profiled", "profiled-cpu")
KEPT = ("pass", "regression", "refused", "hostile", "sequential", *PROFILED, "waived", "policy-changed")


def render(name: str, record: RunRecord) -> str:
    module, attribute = REPORTS[name].split(":")
    rendered: str = getattr(importlib.import_module(module), attribute)(record)
    return rendered


def canonical(name: str, rendered: str) -> str:
    """What must be equal: XML canonicalised, JSON as data, the rest as written.

    Of a chart that is the text that stands for it: what matplotlib draws is its own affair, and `test_charts` looks.
    """
    if name == "junit":
        return ET.canonicalize(rendered)
    rendered = CHART.sub(r"\1", rendered)
    return json.dumps(json.loads(rendered), sort_keys=True, indent=1) if name == "json" else rendered


# the figures in JSON depend on the last bits of the machine's logarithms: `test_artifact` reads them back instead
GOLDS = [(n, r) for n in sorted(REPORTS) for r in KEPT if not (n == "json" and r in PROFILED)]


@pytest.mark.parametrize(("name", "record"), GOLDS)
def test_gold(name: str, record: str) -> None:
    rendered = render(name, RECORDS[record])
    path = GOLD / f"{record}.{EXTENSIONS[name]}"
    if os.environ.get("QUANTGATE_UPDATE_GOLD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(CHART.sub(r"\1", rendered), encoding="utf-8", newline="\n")
    assert canonical(name, rendered) == canonical(name, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("record", sorted(RECORDS))
@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_record_renders_the_same_twice_and_names_its_verdict(name: str, record: str) -> None:
    rendered = render(name, RECORDS[record])
    assert rendered == render(name, RECORDS[record])
    rendered.encode("utf-8")
    deciding = RECORDS[record].verdict.deciding
    assert all(rule_id in re.sub(r"\s+", "", rendered) for rule_id in deciding)


# text


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_text_fits_a_terminal(record: str) -> None:
    for line in render("text", RECORDS[record]).splitlines():
        assert text._columns(line) <= text.WIDTH, line


def test_text_wraps_what_is_wide_without_losing_a_character() -> None:
    raw = "capability.日本語日本語日本語.exact_match and_a_word_that_is_longer_than_the_line"
    lines = text.wrapped(raw, 12)
    assert "".join(lines).replace(" ", "") == raw.replace(" ", "")
    assert max(text._columns(line) for line in lines) <= 12


def test_text_shows_no_examples() -> None:
    assert "Account A holds" not in render("text", RECORDS["regression"])


@pytest.mark.parametrize("name", ["html", "junit", "markdown", "text"])
def test_the_quality_score_stands_beside_the_rows_of_its_tasks(name: str) -> None:
    rendered = " ".join(render(name, RECORDS["sequential"]).replace("\\", "").split())
    assert "92.18% of the baseline's accuracy kept, the mean of 3 tasks" in rendered.replace("&#39;", "'")
    assert "an average hides what happens to single tasks: read their rows" in rendered
    assert all(f"capability.{task}" in rendered.replace(" ", "") for task in ("mmlu", "arc_challenge", "gsm8k"))
    assert "Quality score" not in render(name, RECORDS["pass"])


@pytest.mark.parametrize("name", ["html", "markdown", "text"])
def test_what_a_stage_remarks_is_said_once(name: str) -> None:
    rendered = " ".join(render(name, RECORDS["sequential"]).split())
    assert len(re.findall("greedy", rendered)) == 1
    assert len(re.findall("stopped early: 1,556 of 5,299", rendered)) == 1


def test_text_says_under_each_row_what_it_rests_on() -> None:
    lines = render("text", RECORDS["sequential"]).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("regression  capability.gsm8k"))
    assert " ".join(line.strip() for line in lines[at + 1 : at + 3]) == (
        "settled by the first 160 of 1,319 items; 98.33% sure that the full benchmark says so; for tasks like these, "
        "drops below 2.71 pp cannot be told from none"
    )


# markdown


def test_markdown_gives_the_smallest_drop_seen_in_general_for_benchmark_rows_only() -> None:
    summary = render("markdown", RECORDS["sequential"])
    cells = {
        row.split(" | ")[1]: row.removesuffix(" |").split(" | ")[-1] for row in summary.splitlines() if "` |" in row
    }
    assert cells["`capability.gsm8k.max_drop`"].replace("\\", "") == "2.71 pp"
    assert cells["`sanity.perplexity.max_increase`"].strip() == ""
    assert "224 of 2,808 sampled from 14,042 |" in summary
    assert "*Sees in general*" in summary
    assert "*Sees in general*" not in render("markdown", RECORDS["pass"])


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_markdown_fits_in_a_comment(record: str) -> None:
    assert len(render("markdown", RECORDS[record]).encode()) <= markdown.MAX_BYTES


def test_markdown_keeps_the_worst_rows_when_it_must_drop_some() -> None:
    record = factory.large(n_rules=300, text="日本" * 2000)
    summary = render("markdown", record)
    size = len(summary.encode())
    assert 0.6 * markdown.MAX_BYTES < size <= markdown.MAX_BYTES
    rows = [line for line in summary.splitlines() if line.startswith(("| ✅", "| ❌"))]
    assert "task_41" in rows[0]
    assert rows[0].startswith("| ❌ regression")
    assert re.search(r"… and \d+ rules more in report\.html\.", summary)
    assert "### Stages" in summary
    assert "Reproduce" in summary


@pytest.mark.parametrize(
    ("share", "ids", "texts"),
    [("none", False, False), ("ids", True, False), ("full", True, True), (None, False, False)],
)
def test_markdown_shares_only_what_the_policy_allows(share: str | None, ids: bool, texts: bool) -> None:
    policy = {k: v for k, v in factory.POLICY.items() if k != "share_examples"}
    summary = render("markdown", factory.regression(policy if share is None else {**policy, "share_examples": share}))
    assert ("fraud:0001:9f2c61d07ab3" in summary) is ids
    assert ("Account A holds 400" in summary) is texts
    assert ("265" in summary) is texts


# html


class Page(HTMLParser):
    """Tags and attributes of a page; void and SVG elements need no end tag."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("record", sorted(RECORDS))
def test_html_is_well_formed_and_self_contained(record: str) -> None:
    page = Page()
    page.feed(render("html", RECORDS[record]))
    page.close()
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base", "video", "audio"}
    for tag, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on") or a in ("src", "style", "srcdoc", "xlink:href")]
        assert (attributes.get("href") or "#").startswith(("#", "data:,")), (tag, attributes)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for t, a in page.tags if t == "a"} <= {f"#{i}" for i in ids}


def test_html_draws_every_interval_with_a_text_for_those_who_cannot_see_it() -> None:
    rendered = render("html", RECORDS["regression"])
    labels = re.findall(r'aria-label="(uses [^"]*)"', rendered)
    assert labels == [
        "uses 383% of the allowance, interval 344% to 426%",
        "uses 241% of the allowance, interval 187% to 301%",
        "uses 8% of the allowance, interval 4% to 12%",
        "uses 49% of the allowance, interval 44% to 53%",
    ]


def test_html_draws_a_regression_wholly_on_the_tinted_side() -> None:
    rendered = render("html", RECORDS["regression"])
    beyond = [float(x) for x in re.findall(r'<rect class="beyond" x="([\d.]+)"', rendered)]
    spans = [float(x) for x in re.findall(r'<line class="span" x1="([\d.]+)" x2="(?!\1)', rendered)]
    assert [low > edge for low, edge in zip(spans, beyond, strict=True)] == [True, True, False, False]


def test_html_names_what_was_not_tested() -> None:
    rendered = render("html", RECORDS["regression"])
    assert "Not tested" in rendered
    assert "<strong>serving</strong> (profile): fraud regressed (fraud.accuracy.max_drop)" in rendered


def test_html_treats_hostile_text_as_text() -> None:
    rendered = render("html", RECORDS["hostile"])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in rendered
    assert "{{ 7*7 }}" in rendered
    assert "\x1b" not in rendered
    assert not re.search(r"(?<!\\u001b)\[31m", rendered), (
        "terminal sequences go as a whole, wherever a text is taken apart"
    )
