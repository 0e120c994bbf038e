"""The command's outermost layer: what `run` is given, and that what is not caught is a bug that commands no CI job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gate import cli
from gate.demo.bundle import policy_path
from gate.errors import ExitCode, UsageError
from gate.policy_file import LoadedPolicy
from tests.records_factory import HOSTILE


def test_an_uncaught_exception_is_a_bug_that_commands_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(args: list[str]) -> None:
        raise RuntimeError(f"found\n::add-mask::x\n  ::error::y\n##[error]z\n{HOSTILE}")

    monkeypatch.setattr(cli, "app", broken)
    assert cli.main([]) == ExitCode.INTERNAL
    out, said = capsys.readouterr()
    assert out == ""
    assert "Traceback" in said
    assert "in broken" in said, "a report of a bug needs its place"
    assert "RuntimeError: found" in said
    assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]
    assert "##[" not in said
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert said.splitlines()[-1].startswith("gate: this is a bug in the gate, not a verdict")


def test_a_bug_is_no_regression_even_if_nobody_can_print_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError("no")

    def broken(args: list[str]) -> None:
        raise Unprintable

    monkeypatch.setattr(cli, "app", broken)
    assert cli.main([]) == ExitCode.INTERNAL
    assert "Unprintable" in capsys.readouterr().err


def test_a_run_is_told_what_the_policy_is_called_in_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[LoadedPolicy] = []

    def stopped(screen: object, loaded: LoadedPolicy, *rest: Any, **more: Any) -> None:
        seen.append(loaded)
        raise UsageError("far enough")

    monkeypatch.setattr(cli, "_run", stopped)
    words = ["run", f"--policy={policy_path()}", "--baseline=a", "--candidate=b", f"--out={tmp_path / 'out'}"]
    assert cli.main([*words, "--policy-name=./thresholds/demo.yaml"]) == ExitCode.USAGE
    assert cli.main(words) == ExitCode.USAGE
    assert cli.main([*words, "--policy-name=../demo.yaml"]) == ExitCode.USAGE
    assert [one.source for one in seen] == ["thresholds/demo.yaml", policy_path().as_posix()]
    assert {one.base for one in seen} == {policy_path().resolve().parent}
