"""`gate fetch` from the command line: against files only, a stand-in for the hub, and no network at all."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gate.cli import main
from tests.e2e.world import STAGES, World, make_world
from tests.hub_server import serve

WIKITEXT = {**STAGES["sanity"], "corpora": [{"name": "wikitext2", "window": 64, "stride": 32}]}
README = """\
---
configs:
- config_name: wikitext-2-raw-v1
  data_files: [{split: test, path: wikitext-2-raw-v1/test-*}]
---
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
    return make_world(tmp_path)


def test_a_policy_of_local_files_needs_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = world.root / "baseline"
    assert main(["fetch", f"--policy={world.policy()}", f"--baseline={baseline}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"checkpoint {baseline}: {baseline}",
        "All of it is on this machine: gate run needs no network for it.",
    ]


def test_what_was_fetched_is_measured_offline(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = world.policy([WIKITEXT])
    assert world.run(policy) == 2
    assert "corpus 'wikitext2' is not on this machine: run `gate fetch` first" in capsys.readouterr().err
    repository = world.root / "hub" / "datasets" / "Salesforce" / "wikitext"
    (repository / "wikitext-2-raw-v1").mkdir(parents=True)
    (repository / "README.md").write_text(README)
    rows = [row for k in range(30) for row in ("", f" = Title {k} = \n", "", f"{'some words and more ' * 8}{k}\n")]
    pq.write_table(pa.table({"text": rows}), repository / "wikitext-2-raw-v1" / "test-00000-of-00001.parquet")
    with serve(world.root / "hub") as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert main(["fetch", f"--policy={policy}"]) == 0
    assert "sanity: corpus wikitext2: 30 documents\n" in capsys.readouterr().out
    assert world.run(policy) == 0
    assert [s.items_scored for s in world.record().stages] == [30]


def test_without_a_network_it_says_what_is_missing(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # the hub's client waits 23 s between its attempts; nothing listens on port 9
    (world.root / "site").mkdir()
    (world.root / "site" / "sitecustomize.py").write_text(
        "import time\nsleep = time.sleep\ntime.sleep = lambda seconds: sleep(min(seconds, 0.01))\n"
    )
    for name, value in (
        ("PYTHONPATH", str(world.root / "site")),
        ("HF_ENDPOINT", "http://127.0.0.1:9"),
        ("HF_HUB_ETAG_TIMEOUT", "1"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1"),
    ):
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    assert main(["fetch", f"--policy={world.policy(['fraud', WIKITEXT])}"]) == 4
    assert time.monotonic() - begun < 60
    shown = capsys.readouterr()
    assert shown.out == ""
    first, reason, advice = shown.err.strip().splitlines()
    assert first == "gate: 1 thing could not be fetched:"
    assert re.match(r"  corpus 'wikitext2' \(Salesforce/wikitext\) could not be downloaded: ConnectionError: ", reason)
    assert "Is there a network" in advice
    assert "HF_TOKEN" in advice
