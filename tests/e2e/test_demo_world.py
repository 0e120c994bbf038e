"""The demo's story on the real backend: four outcomes, real checkpoints, and what happens when they are damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gate import artifact
from gate.cli import main
from gate.demo.bundle import candidates, policy_path, world
from gate.records import RunRecord, Status


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def run(candidate: Path, out: Path, store: Path, *extra: str) -> tuple[int, RunRecord]:
    """`gate run` against the demo's baseline and policy: exit code and record."""
    code = main(
        [
            "run",
            f"--policy={policy_path()}",
            f"--baseline={world() / 'baseline'}",
            f"--candidate={candidate}",
            "--device=cpu",
            f"--out={out}",
            f"--store={store}",
            *extra,
        ]
    )
    return code, artifact.loads_record((out / "run.json").read_text(encoding="utf-8"))


def outcome(record: RunRecord) -> dict[str, Status]:
    return {s.name: s.status for s in record.stages}


PASS, RED, NOT_RUN = Status.PASS, Status.REGRESSION, Status.SKIPPED


@pytest.mark.parametrize(
    ("candidate", "exit_code", "stages", "deciding"),
    [
        ("w2a16-rtn", 1, (RED, NOT_RUN, NOT_RUN, NOT_RUN), "sanity.prose.perplexity.max_increase"),
        ("w3a16-gptq-prose", 1, (PASS, PASS, RED, NOT_RUN), "fraud.accuracy.max_drop"),
        ("unquantized-export", 5, (NOT_RUN, NOT_RUN, NOT_RUN, NOT_RUN), None),
        ("w3a16-gptq-mix", 0, (PASS, PASS, PASS, PASS), None),
    ],
)
def test_the_four_outcomes(
    candidate: str,
    exit_code: int,
    stages: tuple[Status, ...],
    deciding: str | None,
    tmp_path: Path,
    store: Path,
) -> None:
    code, record = run(world() / "candidates" / candidate, tmp_path / "out", store)
    assert code == exit_code
    assert tuple(outcome(record).values()) == stages
    if deciding is not None:
        assert record.verdict.deciding[0] == deciding
    if exit_code == 5:
        assert record.verdict.status is Status.REFUSED
        assert "is not quantized" in record.verdict.sentence


def test_the_story_perplexity_passes_what_the_domain_fails(tmp_path: Path, store: Path) -> None:
    _, record = run(world() / "candidates" / "w3a16-gptq-prose", tmp_path / "out", store)
    found = {f.rule.id: f for s in record.stages for f in s.findings}
    prose = found["sanity.prose.perplexity.max_increase"]
    fraud = found["fraud.accuracy.max_drop"]
    assert prose.interval is not None
    assert prose.interval.high < 0.02  # far inside the 5 % that the policy allows
    assert fraud.interval is not None
    assert fraud.interval.low > 0.03  # beyond the bound, after a part of the items
    assert [s.baseline_from for s in record.stages if s.status is not Status.SKIPPED] == ["store"] * 3


def test_the_bundle_has_what_the_readme_promises() -> None:
    assert len(candidates()) >= 5
    size_bytes = sum(p.stat().st_size for p in world().rglob("*") if p.is_file())
    assert size_bytes <= 25 * 2**20


@pytest.mark.parametrize("damage", ["truncated", "shard missing", "no weights", "other tokenizer", "lfs pointer"])
def test_damaged_checkpoints_are_errors_that_name_what_is_wrong(damage: str, tmp_path: Path, store: Path) -> None:
    candidate = tmp_path / "candidate"
    shutil.copytree(world() / "candidates" / "w8a8", candidate)
    weights = candidate / "model.safetensors"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
            said = "model.safetensors"
        case "shard missing":
            index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
            (candidate / "model.safetensors.index.json").write_text(json.dumps(index))
            weights.unlink()
            said = "model-00002-of-00002.safetensors"
        case "no weights":
            weights.unlink()
            said = "safetensors"
        case "lfs pointer":
            weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
            said = "git"
        case _:
            path = candidate / "tokenizer.json"
            document = json.loads(path.read_text())
            vocabulary = document["model"]["vocab"]
            first, second = list(vocabulary)[300:302]
            vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
            path.write_text(json.dumps(document))
            said = "tokenizer"
    code, record = run(candidate, tmp_path / "out", store)
    assert code == 4
    assert record.verdict.status is Status.ERROR
    assert said in record.verdict.sentence
    assert set(outcome(record).values()) == {Status.SKIPPED}
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"run.json", "junit.xml", "summary.md", "report.html"}
