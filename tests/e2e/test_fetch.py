"""`gate fetch` from the command line: against files only, a stand-in for the hub, and no network at all."""

from __future__ import annotations

import json
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
    # read once, when another test of this process first imported it
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hugging-face" / "hub"))
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
    with serve(fill_hub(world)) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert main(["fetch", f"--policy={policy}"]) == 0
    assert "sanity: corpus wikitext2: 30 documents\n" in capsys.readouterr().out
    assert world.run(policy, "--offline") == 0
    assert [s.items_scored for s in world.record().stages] == [30]


def fill_hub(world: World) -> Path:
    """A hub with a corpus, a data set, a baseline and a candidate."""
    hub = world.root / "hub"
    corpus = hub / "datasets" / "Salesforce" / "wikitext"
    (corpus / "wikitext-2-raw-v1").mkdir(parents=True)
    (corpus / "README.md").write_text(README)
    rows = [row for k in range(30) for row in ("", f" = Title {k} = \n", "", f"{'some words and more ' * 8}{k}\n")]
    pq.write_table(pa.table({"text": rows}), corpus / "wikitext-2-raw-v1" / "test-00000-of-00001.parquet")
    quiz = hub / "datasets" / "org" / "quiz"
    quiz.mkdir(parents=True)
    questions = [json.loads(line) for line in (world.root / "tasks" / "sums.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(questions), quiz / "test.parquet")
    (quiz / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: test.parquet\n---\n")
    answers = {q["input"]: q["expected"] for q in questions}
    for name, seed in (("base", 1), ("small", 2)):
        folder = hub / "models" / "org" / name
        folder.mkdir(parents=True)
        fake = {"kind": "fake", "seed": seed, "answers": answers, "nll_noise": 0.01}
        (folder / "fake.json").write_text(json.dumps(fake))
    return hub


QUIZ = {
    **STAGES["capability"],
    "tasks": [{"task": "quiz", "rules": [{"metric": "exact_match", "max_drop": "15pp"}]}],
}


def hub_task(world: World) -> None:
    """The task `quiz`: as `sums`, its data on the hub."""
    text = (world.root / "tasks" / "sums.yaml").read_text()
    local = "dataset_path: json\ndataset_kwargs: {data_files: {test: sums.jsonl}}\ntest_split: test\n"
    assert local in text
    (world.root / "tasks" / "quiz.yaml").write_text(
        text.replace(local, "dataset_path: org/quiz\ntest_split: train\n").replace("task: sums", "task: quiz")
    )


def run_hub(world: World, policy: Path, *extra: str) -> int:
    return main(
        [
            *("run", f"--policy={policy}", "--baseline=org/base", "--candidate=org/small", "--backend=fake"),
            *("--device=cpu", f"--out={world.root / 'out'}", f"--store={world.root / 'store'}", *extra),
        ]
    )


def test_a_run_fetches_what_is_missing_and_only_that(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = fill_hub(world)
    hub_task(world)
    policy = world.policy([WIKITEXT, QUIZ])
    wanted = f"gate fetch --policy {policy} --baseline org/base --candidate org/small"

    with serve(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert run_hub(world, policy, "--offline") == 4
        told = " ".join(capsys.readouterr().out.split())
        assert "found no folder 'org/base' and no such checkpoint in the local Hugging Face cache" in told
        assert f"run `{wanted}` on a machine with a network" in told

        assert run_hub(world, policy) == 0
        told = capsys.readouterr().out
        for line in (
            "checkpoint org/base is not on this machine: downloading it\n",
            "checkpoint org/small is not on this machine: downloading it\n",
            "sanity: downloading what is not on this machine\nsanity: corpus wikitext2: 30 documents\n",
            "capability: downloading what is not on this machine\ncapability: task quiz: 96 documents\n",
        ):
            assert line in told
    # everything is here now: nothing is asked of a network that is gone
    monkeypatch.setattr("gate.cli.online_worker", no_child)
    assert run_hub(world, policy) == 0
    assert "downloading" not in capsys.readouterr().out


def no_child(*_: object) -> None:
    raise AssertionError("an online child was started")


def test_an_offline_run_names_the_command(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_task(world)
    monkeypatch.setattr("gate.cli.online_worker", no_child)
    for stage, missing in (
        (WIKITEXT, "corpus 'wikitext2' is not on this machine"),
        (QUIZ, "task 'quiz': its data set or metric is not in the local cache"),
    ):
        policy = world.policy([stage])
        assert world.run(policy, "--offline") == 2
        told = capsys.readouterr().err
        assert missing in told
        assert (
            f"This run is offline. What it needs is fetched by `gate fetch --policy {policy} "
            f"--baseline {world.root / 'baseline'} --candidate {world.root / 'candidate'}`"
        ) in told


def test_a_run_of_local_files_touches_no_network(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.cli.online_worker", no_child)
    assert world.run(world.policy(["sanity", "capability", "fraud"])) == 0


def test_nothing_is_downloaded_by_the_command_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint comes by the child, which has the token."""
    import huggingface_hub

    def download(repository: str, *, local_files_only: bool, **_: object) -> str:
        assert local_files_only, "the parent downloads"
        raise FileNotFoundError(repository)

    with serve(fill_hub(world)) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        assert main(["fetch", f"--policy={world.policy(['fraud'])}", "--baseline=org/base"]) == 0
    found = list((world.root / "hugging-face").rglob("fake.json"))
    assert len(found) == 1


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
