"""docs/statistics.md and inconclusive.md: the tests they name exist, no method is missing, the numbers are real."""

from __future__ import annotations

import ast
import contextlib
import io
import math
import re
from functools import cache
from pathlib import Path

import pytest

from gate import stats
from gate.decide import power
from gate.stats import mcnemar, tango, two_proportions

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
PLAIN = (ROOT / "docs" / "inconclusive.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)((?:::\w+)*)`", TEXT)))
WITHOUT_A_CLAIM = {"bisection", "quantiles", "tango_table"}
"""Modules of `stats` that serve others."""


@cache
def names(file: str) -> frozenset[str]:
    """`test_x`, `TestY` and `TestY::test_z` of a test file."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return frozenset(found)


def rows(page: str, first_cell: str) -> list[list[str]]:
    """The cells of a table's rows, from the one that starts with `first_cell`."""
    lines = page[page.index(f"| {first_cell}") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_it_names_tests() -> None:
    assert len(NAMED) > 50


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part.rpartition("::")[2].rpartition("/")[2])
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert (ROOT / file).is_file()
    assert not name or name.removeprefix("::") in names(file)


def test_every_method_and_every_module_of_stats_is_explained() -> None:
    assert [name for name in stats.METHODS if f"`{name}`" not in TEXT] == []
    explained = {target.split(":")[0].rpartition(".")[2] for target in stats.METHODS.values()}
    others = {path.stem for path in (ROOT / "gate" / "stats").glob("[!_]*.py")} - explained - WITHOUT_A_CLAIM
    assert [
        m for m in sorted(others) if f"gate/stats/{m}.py" not in TEXT and m not in ("fieller", "multiplicity")
    ] == []


@pytest.mark.parametrize("check", range(1, 19))
def test_every_required_check_has_its_line(check: int) -> None:
    section = TEXT[TEXT.index("\n## 9.") : TEXT.index("\n## 10.")]
    assert re.search(rf"\bA{check}\b", section)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    slugs = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in slugs
        elif not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_worked_example_prints_what_it_says() -> None:
    example, printed = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.S).groups()  # type: ignore[union-attr]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example, "docs/statistics.md", "exec"), {})
    assert said.getvalue() == printed


def test_the_recomputed_z_tests() -> None:
    table = rows(TEXT, ".299 against")
    assert len(table) == 3
    for accuracies, _, recomputed in table:
        first, second, n = re.findall(r"[\d.,]*\d", accuracies)
        found = two_proportions.z_test(first_rate=float(first), second_rate=float(second), n=int(n.replace(",", "")))
        z, p = map(float, re.findall(r"[\d.]+", recomputed))
        assert found.z == pytest.approx(z, abs=0.005)
        assert found.p_two_sided == pytest.approx(p, abs=0.005 if p > 0.1 else 0.0005)


def test_what_pairing_changes() -> None:
    assert "97 lost and 35\ngained: z = (97 − 35)/√132 = 5.4" in TEXT
    assert 62 / math.sqrt(132) == pytest.approx(5.4, abs=0.05)
    assert "469 lost and 371 gained: z = 3.4" in TEXT
    assert 98 / math.sqrt(840) == pytest.approx(3.4, abs=0.05)
    assert mcnemar.p_values(lost=469, gained=371).exact_two_sided < 0.001
    limits = tango.interval(lost=469, gained=371, n=14_000, confidence=0.95)
    assert "0.36 to 1.04 pp" in TEXT
    assert (-100 * limits.high, -100 * limits.low) == pytest.approx((0.36, 1.04), abs=0.005)


def test_smallest_drops() -> None:
    assert rows(TEXT, "items | flips 2 %")[0][1:] == ["flips 2 %", "4 %", "6 %", "10 %"]
    for first, *cells in rows(TEXT, "items | flips 2 %")[2:]:
        n = int(first.split(" ")[0].replace(",", ""))
        for flips, cell in zip((0.02, 0.04, 0.06, 0.1), cells, strict=True):
            found = 100 * power.smallest_drop(n=n, flip_rate=flips, confidence=0.95)
            assert found == pytest.approx(float(cell), abs=0.05 if len(cell) == 3 else 0.005)


def test_smallest_losses_for_beginners() -> None:
    (_, *sizes), _, (_, *points) = rows(PLAIN, "questions | 50")
    for size, cell in zip(sizes, points, strict=True):
        found = power.smallest_drop(n=int(size.replace(",", "")), flip_rate=0.06, confidence=0.95)
        assert 100 * found == pytest.approx(float(cell), abs=0.05)


def test_without_flips_tango_keeps_its_width() -> None:
    assert "Tango's limit is then 21 pp; for 164 items 1.6 pp" in TEXT
    for n, points in ((10, 21), (164, 1.6)):
        found = tango.interval(lost=0, gained=0, n=n, confidence=0.95)
        assert -100 * found.low == pytest.approx(points, rel=0.02)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_points_outside_the_repository(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"\.\./shared|/work/|/tmp/|/home/", text) == []
