"""Several candidates on one page: an overview, worst first, then each one's rules; one candidate has a page to itself.

Pure: records → Markdown.  Leaves the machine like `summary.md`; what is missing is said, and never looks like a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gate.records import CheckpointRef, PolicyChange, RunRecord, Status
from gate.reports import allowance, escape, fitting, markdown, markdown_governance, numbers
from gate.reports.fitting import Section
from gate.reports.rows import deciding_rule
from gate.reports.sentence import PASSED_WITH_WAIVER, TITLES, quoted, title
from gate.reports.shared import redacted

Named = tuple[str, RunRecord | str]
"""Name of a candidate, and its record or what came back instead."""

Identity = Callable[[CheckpointRef], str]
"""The digest that a waiver of this checkpoint must name."""

_WORST_FIRST = (
    TITLES[Status.REFUSED],
    TITLES[Status.REGRESSION],
    TITLES[Status.ERROR],
    TITLES[Status.INCONCLUSIVE],
    PASSED_WITH_WAIVER,
    TITLES[Status.PASS],
)
_COUNTED = {  # of one, of several
    TITLES[Status.REGRESSION]: ("with a regression", "with a regression"),
    TITLES[Status.ERROR]: ("could not be measured", "could not be measured"),
    TITLES[Status.PASS]: ("passes", "pass"),
}
_NAME, _SENTENCE, _DECIDING, _DIGEST = 120, 500, 240, 100  # characters
_BAR_SHARE, _OVERVIEW_SHARE, _NEXT_SHARE = 8, 3, 2  # a page's n-th part; the next candidate takes half of what is left
_LEAST_BYTES = 600  # a section with less room would not show a rule


def render(named: Sequence[Named], max_bytes: int, identity: Identity | None = None) -> str:
    """The page, within `max_bytes`; the sections of the worst candidates are the longest.

    Without `identity` each candidate is shown with the digest of its files.

    Raises:
        ValueError: no candidate at all, or no room even for the headline.
    """
    if not named:
        raise ValueError("found no candidate to report, expected at least one")
    if len(named) == 1:
        [(name, found)] = named
        return markdown.render(found, max_bytes) if isinstance(found, RunRecord) else _missing_page(name, found)
    ranked = worst_first([(name, redacted(f) if isinstance(f, RunRecord) else f) for name, f in named])
    bars = [markdown_governance.bar(change, max_bytes // _BAR_SHARE) for change in _changes(ranked)]
    page = fitting.sections(
        [
            Section(text=_headline(ranked), rank=0),
            *(Section(text=bar, rank=2) for bar in bars),
            Section(text=_overview(ranked, max_bytes // _OVERVIEW_SHARE), rank=1),
        ],
        max_bytes,
    )
    return _with_details(page, ranked, max_bytes, identity)


def worst_first(named: Sequence[Named]) -> list[Named]:
    """Candidates by how bad they are: what they ended in, then how far beyond its bound, then by name."""
    return sorted(named, key=lambda one: (_WORST_FIRST.index(_title(one[1])), -_harm(one[1]), one[0]))


def _harm(found: RunRecord | str) -> float:
    return allowance.harm(found) if isinstance(found, RunRecord) else 0.0


def _title(found: RunRecord | str) -> str:
    return title(found) if isinstance(found, RunRecord) else TITLES[Status.ERROR]


def _symbol(found: RunRecord | str) -> str:
    return markdown.symbol(found) if isinstance(found, RunRecord) else markdown.SYMBOLS[Status.ERROR]


def _changes(ranked: Sequence[Named]) -> list[PolicyChange]:
    """What the pull request does to its bar: the same for all, but for a run that was judged from another base."""
    found: list[PolicyChange] = []
    for _, record in ranked:
        change = record.policy_change if isinstance(record, RunRecord) else None
        if change is not None and change not in found:
            found.append(change)
    return found


def _headline(ranked: Sequence[Named]) -> str:
    titles = [_title(found) for _, found in ranked]
    counted = ", ".join(_counted(titles.count(one), one) for one in dict.fromkeys(titles))
    worst = f"## {_symbol(ranked[0][1])} quantgate: {titles[0]}"
    return f"{worst}\n\n**{numbers.count(len(ranked), 'candidate')}: {counted}.**"


def _counted(count: int, title: str) -> str:
    """`16 with a regression`, `1 passes`."""
    one, several = _COUNTED.get(title, (title, title))
    return f"{numbers.count(count)} {one if count == 1 else several}"


def _overview(ranked: Sequence[Named], budget_bytes: int) -> str:
    lines = [_overview_line(name, found) for name, found in ranked]
    header = ["| | candidate | quantization | deciding rule | exit |", "|---|---|---|---|---|"]
    where = "in their own summaries"
    return "\n".join([*header, *fitting.lines(lines, budget_bytes, "candidate", where)])


def _overview_line(name: str, found: RunRecord | str) -> str:
    if isinstance(found, RunRecord):
        cells = [_quantization(found), escape.markdown(escape.line(_decided_by(found), _DECIDING))]
        cells.append(str(found.exit_code))
    else:
        cells = ["", f"could not measure: {escape.markdown(escape.line(found, _DECIDING))}", ""]
    return f"| {_symbol(found)} {_title(found)} | {_name(name)} | {' | '.join(cells)} |"


def _decided_by(record: RunRecord) -> str:
    """The deciding rule with its numbers; where there are none, as when a worker died, with the reason."""
    findings = {f.rule.id: f for s in record.stages for f in s.findings}
    first = next((findings[i] for i in record.verdict.deciding if i in findings), None)
    why = quoted(first.reason) if first is not None and first.estimate is None else ""
    return f"{first.rule.id}: {why}" if first is not None and why else deciding_rule(record)


def _quantization(record: RunRecord) -> str:
    if record.candidate is None:
        return ""
    declared = record.candidate.quantization
    parts = ("none declared",) if declared is None else (declared.method, declared.scheme)
    return escape.markdown(escape.line(" ".join(p for p in parts if p), _NAME))


def _name(name: str) -> str:
    return escape.markdown(escape.line(name, _NAME))


def _with_details(page: list[Section], ranked: Sequence[Named], max_bytes: int, identity: Identity | None) -> str:
    """The page with a section for each candidate, worst first, while there is room."""
    for i, (name, found) in enumerate(ranked):
        left = max_bytes - fitting.size(fitting.joined(page)) - 2
        others = len(ranked) - i
        share = max(left // _NEXT_SHARE, left // others)
        ending = Section(text=f"… and {numbers.count(others, 'candidate')} more in their own summaries.", rank=0)
        room = share - fitting.size(ending.text)
        detail = _detail(name, found, room, identity) if share >= _LEAST_BYTES else None
        if detail is None:
            return fitting.joined([*page, ending] if left > fitting.size(ending.text) + 2 else page)
        page = [*page, Section(text=detail, rank=0)]
    return fitting.joined(page)


def _detail(name: str, found: RunRecord | str, budget_bytes: int, identity: Identity | None) -> str | None:
    """One candidate's sentence, waivers, rules and digest; None where there is no room for them."""
    heading = f"### {_symbol(found)} {_name(name)}: {_title(found)}"
    if not isinstance(found, RunRecord):
        said = f"{heading}\n\ncould not measure: {escape.markdown(escape.line(found, _SENTENCE))}"
        return said if fitting.size(said) <= budget_bytes else None
    said = escape.markdown(escape.line(found.verdict.sentence, min(_SENTENCE, budget_bytes // 6)))
    opened = " open" if found.exit_code else ""
    facts = ["", _facts(found, identity), "", "</details>"]
    frame = [f"<details{opened}><summary>Rules, worst first</summary>", "", *facts]
    parts = [heading, "", f"**{said}**"]
    waivers = markdown_governance.waivers(found, budget_bytes // 8).replace("### ", "#### ", 1)
    parts += ["", waivers] if waivers else []
    room = budget_bytes - fitting.size("\n".join([*parts, *frame])) - 250  # the table's head, the reasons' heading
    rules = markdown.rules(found, room * 4 // 5).removeprefix("### Rules\n\n")  # the reasons take a quarter of it more
    whole = "\n".join([*parts, "", *frame[:2], rules, *frame[2:]])
    return whole if room > 0 and fitting.size(whole) <= budget_bytes else None


def _facts(record: RunRecord, identity: Identity | None) -> str:
    """What a waiver has to name, and what the run is called elsewhere."""
    said = f"Run {escape.code(escape.line(record.run_id, _NAME))}"
    ref = record.candidate
    if ref is None:
        return f"{said}."
    digest = ref.digest if identity is None else identity(ref)
    word = "SHA-256" if digest == ref.digest else "as it is loaded, SHA-256"
    return f"{said}, candidate {word} {escape.code(escape.line(digest, _DIGEST))}."


def _missing_page(name: str, said: str) -> str:
    heading = f"## {markdown.SYMBOLS[Status.ERROR]} quantgate: {TITLES[Status.ERROR]}"
    return escape.workflow(
        f"{heading}\n\n**{_name(name)} could not be measured: {escape.markdown(escape.line(said, _SENTENCE))}**\n"
    )
