"""YAML for people: no text makes the reader fail, run something, or take its time."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from gate.checkpoint import base_model, plain_yaml, recipe

NOTHING = base_model.BaseModel(names=(), digests=())
RECIPE = """
stage:
  modifiers:
    GPTQModifier: {scheme: W4A16, dampening_frac: 0.01, actorder: !!python/object/apply:a.B [static], x: "\\u0041"}
    Other:
      sequential: true
      ignore: ['lm_head', ~]
"""
BOMB = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10))


@pytest.mark.parametrize(
    "text",
    ['a: !!int ""', 'a: !!timestamp "x"', '!!bool "x"', "a: 2001-99-99", 'a: "\\UFFFFFFFF"', "? [a]\n: b", BOMB],
)
def test_what_stops_other_readers_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "README.md").write_text(f"---\n{text}\n---\n")
    assert recipe.read(tmp_path, {}) == ()
    assert base_model.read(tmp_path, {}) == NOTHING


def test_no_text_raises() -> None:
    random = Random(7)
    pieces = [
        *("!!int", "!!python/tuple", "!<x>", "&a", "*a", "<<:", "%YAML 9.9\n---\n", '"\\U00110000"', "? ", "- ", "|\n"),
        *("{", "[", "\n\t", "\x00", "\ud7ff", "...", "1_0:9", "=", "0x", "'"),
    ]
    for _ in range(1500):
        text = list(RECIPE)
        for _ in range(random.randint(1, 4)):
            text.insert(random.randrange(len(text)), random.choice(pieces))
        plain_yaml.parse("".join(text))


def test_everything_is_text() -> None:
    found = plain_yaml.parse("{a: 1, b: 0.50, c: 2020-01-01, d: [yes, ~, '~', ''], e: !!binary x, f: \"\\ud800\"}")
    assert found == {"a": "1", "b": "0.50", "c": "2020-01-01", "d": ["yes", None, "~", ""], "e": "x", "f": "?"}


def test_only_the_beginning_of_a_plain_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert plain_yaml.beginning(tmp_path / "pipe", 9) == b""
    assert plain_yaml.beginning(tmp_path / "nowhere", 9) == b""
    assert plain_yaml.beginning(tmp_path, 9) == b""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert len(recipe.read(tmp_path, {})) == 2
    assert plain_yaml.beginning(tmp_path / "recipe.yaml", 9) == RECIPE[:9].encode()
    os.truncate(tmp_path / "recipe.yaml", 20 * 2**30)  # sparse: it takes no room
    assert recipe.read(tmp_path, {}) == ()
