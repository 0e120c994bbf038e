"""`make github-demo` on prepared runs: no model, the real commands, the mock of GitHub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gate.artifact import dumps_record
from tests import records_factory as factory
from tests.github import flow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `gate demo` leaves behind, as far as publishing reads it."""
    folder = tmp_path_factory.mktemp("runs")
    for name, record in {"w8a8": factory.passing(), "w3a16-gptq-prose": factory.regression()}.items():
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(dumps_record(record), encoding="utf-8")
    (folder / "baseline-store").mkdir()
    return folder


@pytest.fixture(scope="module")
def shown(runs: Path) -> str:
    """What the command prints, with the variables of somebody who uses GitHub from this shell."""
    theirs = {"GITHUB_TOKEN": "ghp_" + "x" * 36, "GH_TOKEN": "ghp_" + "y" * 36, "GITHUB_API_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.github.flow", "--runs", str(runs)],
        env=os.environ | theirs,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def part(shown: str, number: int) -> str:
    """What is printed of one step."""
    [_, *found] = re.split(r"(?m)^(?=\d\. )", shown)
    return found[number - 1]


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_every_step_ends_as_it_should(shown: str) -> None:
    assert "quantgate: in_progress" in part(shown, 1)
    assert re.search(r"check +quantgate: failure +title +Regression: ", one_line(part(shown, 2)))
    assert "quantgate: success" in part(shown, 3)
    assert re.search(r"check +quantgate \(unverified\): neutral +title +Unverified: ", one_line(part(shown, 4)))
    assert "success" not in part(shown, 4)
    assert "quantgate: success" in part(shown, 5)


def test_the_calls_are_shown(shown: str) -> None:
    assert re.search(r"POST +/repos/acme/models/check-runs +201", part(shown, 1))
    assert re.search(r"PATCH +/repos/acme/models/check-runs/\d+ +200", part(shown, 2))
    assert re.search(r"POST +/repos/acme/models/issues/7/comments +201", part(shown, 2))
    assert re.search(r"PATCH +/repos/acme/models/issues/comments/\d+ +200", part(shown, 3))
    assert not re.search(r" [45]\d\d$", shown, re.MULTILINE)


def test_the_comment_tells_what_was_and_what_is_now(shown: str) -> None:
    assert "Was regression at" in part(shown, 3)
    assert "now pass at" in part(shown, 3)


def test_it_fits_a_page_and_shows_no_token(shown: str) -> None:
    too_wide = [line for line in shown.splitlines() if len(line) > flow.WIDTH and "─" not in line]
    assert too_wide == []
    assert "ghs_" not in shown
    assert "ghp_" not in shown


def test_raw_comments_are_those_that_were_sent(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flow.main(["--runs", str(runs), "--raw"]) == 0
    assert "<!-- quantgate:sticky v1 {" in capsys.readouterr().out


def test_runs_that_tell_no_story_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no run that ended in PASS nor in REGRESSION"):
        flow.main(["--runs", str(tmp_path)])
