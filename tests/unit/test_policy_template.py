"""Prompt templates: plain replacement that executes nothing and reaches nothing."""

from __future__ import annotations

import pytest

from gate.template import render_template, template_problem


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{input}", "Q?"),
        ("{input}\nAnswer:", "Q?\nAnswer:"),
        ("[{id}/{category}] {input} {input}", "[7/fraud] Q? Q?"),
        ('{{"q": "{input}"}}', '{"q": "Q?"}'),
        ("{{{input}}}", "{Q?}"),
        ("{{input}} {input}", "{input} Q?"),
    ],
)
def test_renders(template: str, rendered: str) -> None:
    assert template_problem(template) is None
    assert render_template(template, {"input": "Q?", "id": "7", "category": "fraud"}) == rendered


def test_values_are_inserted_once_and_as_they_are() -> None:
    hostile = "{id} {{x}} {input.__class__} %s $HOME \\1"
    assert render_template("<{input}>", {"input": hostile, "id": "secret"}) == f"<{hostile}>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{input.__class__}", "found '{input.__class__}' in the template, expected only {input}, {id}, {category}"),
        ("{input[0]}", "found '{input[0]}' in the template"),
        ("{input!r}", "found '{input!r}' in the template"),
        ("{input:>10}", "found '{input:>10}' in the template"),
        ("{0} {input}", "found '{0}' in the template"),
        ("{} {input}", "found '{}' in the template"),
        ("{expected} {input}", "found '{expected}' in the template"),
        ("{ input }", "found '{ input }' in the template"),
        ("{input} {", "found a lone '{'"),
        ("{input} }", "found a lone '}'"),
        ("Question?", "expected a template that contains {input}"),
        ("{{input}}", "expected a template that contains {input}"),
    ],
)
def test_rejects(template: str, message: str) -> None:
    assert message in (template_problem(template) or "")
    with pytest.raises(ValueError, match="found"):
        render_template(template, {"input": "Q?", "id": "7", "category": "fraud"})


def test_a_field_that_an_item_lacks() -> None:
    with pytest.raises(ValueError, match=r"uses '\{category\}', which this item lacks: it has input"):
        render_template("{category}: {input}", {"input": "Q?"})
