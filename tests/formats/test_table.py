"""The generated table is what the tests found, and it is whole."""

from __future__ import annotations

import json

import pytest

from gate.formats import LOAD_METHODS, SAVED
from tests.formats import cells, table
from tests.formats.cells import BACKENDS, KEPT, ROWS, UNTESTED, Cell, Outcome


def test_every_cell_is_filled_and_none_is_left_over() -> None:
    found = cells.read()
    assert set(found) == {(row, backend) for row in ROWS for backend in BACKENDS}
    assert len(json.loads(KEPT.read_text(encoding="utf-8"))) == len(found)


def test_what_does_not_simply_work_has_its_reason() -> None:
    for key, cell in cells.read().items():
        assert cell.reason or cell.outcome is Outcome.TESTED, key
        assert (cell.outcome is Outcome.UNTESTED) == (key in UNTESTED), key
        if cell.outcome is Outcome.UNTESTED:
            assert cell.reason == UNTESTED[key]


def test_the_documents_are_what_make_formats_writes() -> None:
    found = cells.read()
    assert table.DOCS.read_text(encoding="utf-8") == table.page(found), "run `make formats`"
    readme = table.README.read_text(encoding="utf-8")
    assert readme == table.with_table(readme, found), "run `make formats`"


def test_a_missing_cell_is_not_rendered() -> None:
    found = cells.read()
    found.pop(("gguf", "hf"))
    with pytest.raises(KeyError):
        table.table(found)


def test_a_readme_without_the_markers_is_not_written() -> None:
    with pytest.raises(ValueError, match="put them where the table belongs"):
        table.with_table("# no table here\n", cells.read())


def test_the_table_shows_outcome_and_reason() -> None:
    found = {(row, backend): Cell(outcome=Outcome.TESTED, reason="") for row in ROWS for backend in BACKENDS}
    found["gptq", "vllm"] = Cell(outcome=Outcome.REFUSED, reason="so it says")
    row = "| GPTQ, 4 bits | GPTQModel; AutoRound | **works (tested)** | refused: so it says |"
    assert row in table.table(found)
    readme = table.with_table(f"a\n{table.BEGIN}\nold\n{table.END}\nb\n", found)
    assert readme == f"a\n{table.BEGIN}\n{table.table(found)}{table.END}\nb\n"
    assert row in readme


def test_every_load_method_and_every_fact_has_its_row() -> None:
    assert {f"load-{method}" for method in LOAD_METHODS} == {row for row in ROWS if row.startswith("load-")}
    named = {row for row in ROWS if row in SAVED}
    assert {"gptq", "awq", "auto-round", "gguf", "fp8", "mxfp4", "hqq", "quanto", "nvfp4", "modelopt"} <= named
