"""Nothing that is printed in a CI job is obeyed by it, in however many pieces it comes, unless it is meant to be."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from gate import artifact, console, terminal
from gate.reports import escape
from tests import records_factory as factory

ATTACKS = (
    "::error file=x::boom",
    "   ::set-output name=status::PASS",
    "\t::add-mask::x",
    "said\r::warning::y",
    "said\n\n  ::stop-commands::z",
    "a ##[error]b",
    "##vso[task.setvariable variable=a]b",
    "\x1b[31m::error::red",
    "\u2003::error::blank",
)


def obeyed(output: str) -> list[str]:
    """Lines that a runner would take for commands: as GitHub's and Azure's runners read them, and without colours."""
    lines = re.split(r"[\r\n]", output)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    return [line for line in (*lines, *plain) if line.strip().startswith("::") or "##[" in line or "##vso[" in line]


def stream(*, acting: bool) -> tuple[terminal.Patient, io.BytesIO]:
    written = io.BytesIO()
    made = terminal.patient(io.TextIOWrapper(written, encoding="utf-8"), escape.workflow if acting else None)
    assert made is not None
    return made, written


def shown(made: terminal.Patient, written: io.BytesIO) -> str:
    made.flush()
    return written.getvalue().decode()


def test_the_runners_rules_find_every_attack() -> None:
    assert all(obeyed(attack) for attack in ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_piece_of_a_text_makes_a_command_of_the_next(attack: str) -> None:
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, 12), n) for n in (0, 1, 2)):
        made, written = stream(acting=True)
        places = [0, *cuts, len(attack)]
        for begin, end in itertools.pairwise(places):
            assert made.write(attack[begin:end]) == len(attack[begin:end])
        text = shown(made, written)
        assert obeyed(text) == [], cuts
        assert text.replace("\u200b", "") == attack


def test_character_by_character() -> None:
    for attack in ATTACKS:
        made, written = stream(acting=True)
        for character in attack:
            made.write(character)
        assert obeyed(shown(made, written)) == []


def test_honest_text_stays_as_it_is() -> None:
    made, written = stream(acting=True)
    honest = "fraud: 12 of 30\n  std::vector and a::b, at 12:30\n# title\n: a colon\n[x] ##"
    for piece in (honest[:9], honest[9:]):
        made.write(piece)
    assert shown(made, written) == honest


def test_outside_a_job_nothing_is_touched() -> None:
    made, written = stream(acting=False)
    made.write("::error::boom")
    assert shown(made, written) == "::error::boom"


def test_a_command_that_is_meant_stands_on_a_line_of_its_own() -> None:
    made, written = stream(acting=True)
    made.write("half a line")
    made.command(escape.command("warning", "100% lost,\nreally: ::error::x", title="a, b: c"))
    made.write("::error::boom")
    first, second, third = shown(made, written).split("\n")
    assert first == "half a line"
    assert second == "::warning title=a%2C b%3A c::100%25 lost,%0Areally: ::error::x"
    assert obeyed(third) == []


def test_rich_cannot_wrap_a_command_to_the_start_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made, written = stream(acting=True)
    monkeypatch.setattr(sys, "stdout", made)
    Console(width=20).print(Text("a name that is long ::error::boom ##[error]x"))
    Console(width=20).print(Text("::error::boom"), soft_wrap=True)
    text = shown(made, written)
    assert re.search(r"(?m)^:\u200b:error", text), "it does begin a line, and would have been obeyed"
    assert obeyed(text) == []


def test_the_closing_lines_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made, written = stream(acting=True)
    monkeypatch.setattr(sys, "stdout", made)
    hostile = factory.hostile()
    console.verdict(Console(width=40), hostile, Path("::error::out"))
    Console(width=60).print(console.runs_table([("::error::name", hostile)]))
    reporter = console.RunConsole(Console(width=40), None)
    reporter.note("x\n::error::note")
    reporter.started(1, 1, "domain", "\r::error::stage")
    assert obeyed(shown(made, written)) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_command_line_itself(tmp_path: Path, encoding: str) -> None:
    """Reports and errors, through the console script's own path; with an encoding that libraries write around."""
    (tmp_path / "run.json").write_text(artifact.dumps_record(factory.hostile()), encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if k not in ("GITHUB_ACTIONS", "TF_BUILD", "FORCE_COLOR")}
    environment = {**kept, "PYTHONIOENCODING": encoding, "GITHUB_ACTIONS": "true"}

    def gate(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "gate", *arguments], capture_output=True, env=environment, timeout=60, check=False
        )
        return (ended.stdout + ended.stderr).decode("utf-8")

    reports = [gate("report", str(tmp_path), f"--format={name}") for name in ("text", "json")]
    missing = gate("report", "nowhere\n::error::boom")
    unknown = gate("report", str(tmp_path), "--format=\n::error::boom")
    usage = gate("\n::error::boom")
    for text in (*reports, missing, unknown, usage):
        assert "boom" in text
        assert obeyed(text.replace("\\u200b", "\u200b")) == []
