"""junit.xml read back by junit2json (npm), as dashboards written in JavaScript read it."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gate.reports import junit
from tests.junit_consumers import meant

pytestmark = pytest.mark.github

DEFAULT = Path(__file__).parents[1] / "github" / "node_modules"
NODE_MODULES = Path(os.environ.get("QUANTGATE_NODE_MODULES", DEFAULT))
READER = NODE_MODULES / "junit2json" / "dist" / "esm" / "cli.js"


def read(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "junit.xml"
    path.write_text(junit.render(meant.RECORDS[name]), encoding="utf-8")
    done = subprocess.run(["node", READER, path], capture_output=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def outcome(case: dict[str, Any]) -> str:
    said = [tag for tag in ("failure", "error", "skipped") if case.get(tag)]
    assert len(said) <= 1, case
    return said[0] if said else "passed"


@pytest.mark.parametrize("name", sorted(meant.RECORDS))
def test_counts_and_outcomes_are_those_of_the_record(name: str, tmp_path: Path) -> None:
    record = meant.RECORDS[name]
    suites = read(name, tmp_path)["testsuite"]
    cases = [case for suite in suites for case in suite["testcase"]]
    expected = meant.counts(record)
    assert Counter(outcome(case) for case in cases) == expected
    for key, tag in {"failures": "failure", "errors": "error", "skipped": "skipped"}.items():
        assert sum(suite[key] for suite in suites) == expected[tag]
    assert sum(suite["tests"] for suite in suites) == expected.total()
    found = {case["name"]: case for case in cases}
    assert outcome(found["verdict"]) == meant.of_verdict(record)
    for rule, meant_outcome in meant.findings(record).items():
        assert outcome(found[rule]) == meant_outcome, rule
    for case in cases:
        for tag in ("failure", "error"):
            for told in case.get(tag, ()):
                assert told["message"]
                assert told["inner"].strip()
        for told in case.get("skipped", ()):
            assert told["message"]
