"""`report.html`: the whole run on one self-contained page, examples included.

Pure: RunRecord → str.  No script, nothing loaded from anywhere, no verdict computed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gate.records import CheckpointRef, Flip, RunRecord, Status
from gate.reports import basis, escape, figures, governance, numbers, quality
from gate.reports.allowance import Used
from gate.reports.rows import rows
from gate.reports.sentence import PASSED_WITH_WAIVER, TITLES, title
from gate.reports.shared import is_without_texts

_OPEN_FLIPS = 8  # shown at once; the others wait behind one click
_TEXT_LIMIT = 6_000  # characters of one prompt or answer

_WIDTH, _HEIGHT, _PAD = 240.0, 26.0, 7.0
_LEFT, _RIGHT = (-1.0, -0.25), (1.5, 5.0)  # least and most that each end of the axis may be, in shares of the allowance


def render(record: RunRecord) -> str:
    """The page."""
    lost_first = sorted(record.flips, key=lambda f: f.kind != "lost")
    ranked = rows(record)
    values = {
        "record": record,
        "verdict": record.verdict,
        "titles": TITLES,
        "title": title(record),
        "look": "waived" if title(record) == PASSED_WITH_WAIVER else record.verdict.status.lower(),
        "governance": governance,
        "skipped": [s for s in record.stages if s.status is Status.SKIPPED],
        "ran": [s for s in record.stages if s.status is not Status.SKIPPED],
        "facts": _facts(record),
        "rows": ranked,
        "axis": Axis.around([r.used for r in ranked if r.used is not None]),
        "flips": lost_first[:_OPEN_FLIPS],
        "more_flips": lost_first[_OPEN_FLIPS:],
        "flip_counts": _flip_counts(record.flips),
        "is_without_texts": is_without_texts,
        "checkpoints": [c for c in (record.candidate, record.baseline) if c is not None],
        "quantization": _quantization,
        "command": _command(record),
        "policy": json.dumps(record.policy, indent=2, ensure_ascii=False, default=str),
        "numbers": numbers,
        "remarks": basis.remarks,
        "score": quality,
        "figures": figures,
        "pictures": _pictures(record),
        "Status": Status,
    }
    return _environment().get_template("report.html.j2").render(values)


def _pictures(record: RunRecord) -> list[Any]:
    """The charts of each profile stage.  matplotlib takes a second to load: only where there is something to draw."""
    if not record.performance:
        return []
    from gate.reports import charts

    return [charts.pictures(one, record.quality, key=f"p{n}") for n, one in enumerate(record.performance)]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gate.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["sentence"] = _sentence
    environment.filters["block"] = lambda text: escape.block(text, _TEXT_LIMIT)
    return environment


def _finalize(value: Any) -> Any:
    """Every text that reaches the page is cleaned here and escaped by Jinja; absent values print nothing."""
    if value is None:
        return ""
    return escape.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sentence(text: str) -> str:
    """With a capital and a full stop; cleaned as a whole, since half an escape sequence is no longer seen as one."""
    said = escape.line(text)
    return said[:1].upper() + said[1:] + ("" if said.endswith((".", "!", "?")) else ".")


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    ran = [s for s in record.stages if s.status is not Status.SKIPPED]
    facts = []
    if record.candidate is not None:
        facts.append(("Candidate", record.candidate.uri))
    if record.baseline is not None:
        facts.append(("Baseline", record.baseline.uri))
    if record.candidate is not None and record.baseline is not None and record.baseline.weight_bytes:
        ratio = numbers.share(record.candidate.weight_bytes / record.baseline.weight_bytes)
        sizes = f"{numbers.size(record.candidate.weight_bytes)}, {ratio} of the baseline's"
        facts.append(("Weights", sizes))
    facts.append(("Stages run", f"{len(ran)} of {len(record.stages)}"))
    facts.append(("Items scored", numbers.count(sum(s.items_scored for s in ran))))
    facts.append(("Time", numbers.duration(record.seconds)))
    return facts


def _quantization(ref: CheckpointRef) -> str:
    declared = ref.quantization
    if declared is None:
        return "none declared"
    bits = f"{declared.bits:g} bits" if declared.bits is not None else ""
    group = f"group size {declared.group_size}" if declared.group_size is not None else ""
    return ", ".join(part for part in (declared.method, declared.scheme, bits, group) if part)


def _flip_counts(flips: Sequence[Flip]) -> list[tuple[str, int, int]]:
    """(source, lost, gained) of the kept examples, most lost first."""
    sources = dict.fromkeys(f.source for f in flips)
    counted = [
        (
            s,
            sum(f.source == s and f.kind == "lost" for f in flips),
            sum(f.source == s and f.kind != "lost" for f in flips),
        )
        for s in sources
    ]
    return sorted(counted, key=lambda c: -c[1])


def _command(record: RunRecord) -> str:
    if record.baseline is None or record.candidate is None:
        return ""
    words = ["--policy", record.policy_source, "--baseline", record.baseline.uri, "--candidate", record.candidate.uri]
    return "gate run " + " ".join(w if w.startswith("--") else shlex.quote(escape.line(w)) for w in words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One row of the forest plot, in drawing coordinates; `left` and `right` say that the interval goes on there."""

    low: str
    high: str
    estimate: str | None
    left: bool
    right: bool
    exact: bool
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """The axis common to all rows: shares of the allowance from `least` to `most`, 0 and the bound always on it."""

    least: float
    most: float
    width: str = numbers.pixels(_WIDTH)
    height: str = numbers.pixels(_HEIGHT)
    middle: str = numbers.pixels(_HEIGHT / 2)

    @classmethod
    def around(cls, shares: Sequence[Used]) -> Axis:
        """Wide enough for every interval, within limits that keep the bound readable."""
        least = min((u.best for u in shares), default=0.0) * 1.05
        most = max((u.worst for u in shares), default=0.0) * 1.05
        return cls(least=min(max(least, _LEFT[0]), _LEFT[1]), most=max(min(most, _RIGHT[1]), _RIGHT[0]))

    def x(self, share: float) -> float:
        inside = min(max(share, self.least), self.most)
        return _PAD + (inside - self.least) / (self.most - self.least) * (_WIDTH - 2 * _PAD)

    @property
    def zero(self) -> str:
        return numbers.pixels(self.x(0))

    @property
    def bound(self) -> str:
        return numbers.pixels(self.x(1))

    @property
    def beyond(self) -> str:
        """Width of the part that is too much."""
        return numbers.pixels(_WIDTH - self.x(1))

    def plot(self, used: Used) -> Plot:
        """Where an interval lies."""
        return Plot(
            low=numbers.pixels(self.x(used.best)),
            high=numbers.pixels(self.x(used.worst)),
            estimate=numbers.pixels(self.x(used.estimate)) if self.least <= used.estimate <= self.most else None,
            left=used.best < self.least,
            right=used.worst > self.most,
            exact=used.best == used.worst,
            label=_label(used),
        )


def _label(used: Used) -> str:
    said = f"uses {numbers.share(used.estimate)} of the allowance"
    if used.best == used.worst:
        return said
    return f"{said}, interval {numbers.share(used.best)} to {numbers.share(used.worst)}"
