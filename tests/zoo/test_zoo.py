"""Every animal of the zoo through the whole command: its own message, the right exit code, a whole record, no bite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import pytest
import yaml

from gate import artifact
from gate.checkpoint import describe, view
from gate.cli import main
from gate.errors import CheckpointError
from gate.records import Role, Status
from tests.checkpoint_factory import resolved
from tests.zoo import documents, files, gguf_files, weights
from tests.zoo.cage import ZOO, honest, with_config

POLICY = {
    "version": 1,
    "stages": [
        {
            "kind": "perplexity",
            "name": "sanity",
            "corpora": [{"name": "prose", "path": "prose.txt", "window": 64, "stride": 32}],
            "rules": [{"metric": "perplexity", "max_increase": "5%"}],
        }
    ],
}
KEEPERS = (documents, files, gguf_files, weights)
"""The modules that fill the zoo."""


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is found before a process that could load something is started."""

    def start(**_: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr("gate.launch.start", start)


def run(root: Path, policy: Mapping[str, Any]) -> int:
    """`gate run` on the checkpoint that the policy calls `animal`."""
    (root / "policy.yaml").write_text(yaml.safe_dump(dict(policy)))
    (root / "prose.txt").write_text("\n\n".join(f"the cat sat on mat number {i} ." for i in range(100)))
    return main(
        [
            "run",
            f"--policy={root / 'policy.yaml'}",
            f"--baseline={root / 'baseline'}",
            "--candidate=animal",
            "--device=cpu",
            "--offline",
            "--allow-identical",
            f"--out={root / 'out'}",
            f"--store={root / 'store'}",
        ]
    )


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize("name", ZOO)
def test_it_is_told_apart_before_anything_is_loaded(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    animal, canary = ZOO[name], tmp_path / "canary"
    honest(tmp_path / "baseline")
    animal.spoil(honest(tmp_path / "candidate"), canary)
    checkpoints = {"animal": {"path": "./candidate", "load": dict(animal.load)}}
    assert run(tmp_path, POLICY | {"checkpoints": checkpoints}) == animal.exit_code
    record = artifact.loads_record((tmp_path / "out" / "run.json").read_bytes())
    sentence = record.verdict.sentence
    assert animal.heard(sentence), sentence
    assert [n for n, other in ZOO.items() if other.heard(sentence)] == [name]
    assert record.verdict.status is (Status.REFUSED if animal.exit_code == 5 else Status.ERROR)
    assert [s.status for s in record.stages] == [Status.SKIPPED]
    assert record.exit_code == animal.exit_code
    ElementTree.parse(tmp_path / "out" / "junit.xml")
    for shown in ("summary.md", "report.html", "log.txt"):
        assert "\x1b" not in (tmp_path / "out" / shown).read_text(encoding="utf-8")
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert "\x1b" not in printed
    assert not canary.exists()


def test_the_zoo_is_large_and_every_message_its_own() -> None:
    assert len(ZOO) >= 60
    assert len({animal.said for animal in ZOO.values()}) == len(ZOO)
    assert {animal.exit_code for animal in ZOO.values()} == {4, 5}
    assert all(module.__doc__ for module in KEEPERS)


def test_the_honest_checkpoint_is_admitted(tmp_path: Path) -> None:
    """Else the zoo would prove nothing."""
    folder = honest(tmp_path / "candidate")
    (folder / "README.md").write_text("for people")
    made = view.build(resolved(folder), tmp_path / "view", backend="hf")
    assert (made.left_out, made.code, made.remarks(Role.CANDIDATE)) == ((), (), ())
    assert describe(resolved(folder), Role.CANDIDATE).n_parameters == 176


def test_nothing_of_a_view_is_left_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def interrupt(**settings: Any) -> None:
        seen.extend(p.name for p in Path(settings["checkpoint"].path).iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("gate.launch.start", interrupt)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    honest(tmp_path / "baseline")
    honest(tmp_path / "candidate")
    assert run(tmp_path, POLICY | {"checkpoints": {"animal": {"path": "./candidate"}}}) == 130
    assert sorted(seen) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert list((tmp_path / "tmp").iterdir()) == []


class Unloading:
    """A worker that finds out while it loads."""

    running = True

    def check(self, *_: Any) -> tuple[Path, ...]:
        return ()

    def open(self) -> NoReturn:
        raise CheckpointError("model type `llama9` is not known")

    def close(self) -> None:
        pass


def test_what_only_loading_shows_ends_in_a_whole_record_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.launch.start", lambda **_: Unloading())
    for name in ("baseline", "candidate"):
        with_config(honest(tmp_path / name), auto_map={"AutoConfig": "configuration.LlamaConfig"})
    assert run(tmp_path, POLICY | {"checkpoints": {"animal": {"path": "./candidate"}}}) == 5
    record = artifact.loads_record((tmp_path / "out" / "run.json").read_bytes())
    assert record.verdict.status is Status.REFUSED
    assert "is not known; auto_map of config.json was left out" in record.verdict.sentence
    assert [s.skipped_because for s in record.stages] == ["the checkpoint was refused"]
