"""What a stored baseline is known by, through the code that runs use: all that can change a score, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate import checkpoint, environment, policy
from gate.backends import BackendInfo, Checkpoint
from gate.checkpoint import view
from gate.evidence import Collector, Progress, Side, Stream
from gate.policy_file import load_policy
from gate.records import Environment, Role
from gate.store import Store, StoredMeasurement
from tests.checkpoint_factory import full_precision, write_checkpoint
from tests.store_factory import measurement

HERE = environment.snapshot("cpu")
FRAUD = {"kind": "domain", "name": "fraud", "data": "fraud.jsonl", "match": "exact"}
RULE = {"metric": "accuracy", "max_drop": "3pp"}
TASK = {
    "kind": "lm_eval",
    "name": "capability",
    "tasks": [{"task": "mmlu", "rules": [{"metric": "acc", "max_drop": "3pp"}]}],
}


class AskedFor(Store):
    """Has everything, and remembers what it was asked for."""

    def get(self, key: str) -> StoredMeasurement:
        self.asked = key
        return StoredMeasurement(
            key=key, parts={}, measurement=measurement(), artifacts=Path(), created_at="", provenance={}
        )


@dataclass
class Idle:
    """A worker that is only asked what it is."""

    packages: Mapping[str, str]
    files: tuple[Path, ...]
    running: bool = True

    def check(self, stage: Mapping[str, Any], base: Path) -> tuple[Path, ...]:
        return self.files

    def open(self) -> BackendInfo:
        return BackendInfo(
            name="hf",
            device="cpu",
            dtype="float32",
            n_parameters=1,
            context_length=8,
            vocabulary_size=8,
            load_seconds=0.0,
            has_logits=True,
            packages=self.packages,
            unserved={},
        )

    def begin(self, *, stage: Mapping[str, Any], context: Mapping[str, Any], on_progress: Progress) -> Stream:
        raise AssertionError("nothing is measured here")

    def close(self) -> None:
        self.running = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One baseline under one policy on one machine."""

    stage: Mapping[str, Any] = field(default_factory=lambda: {**FRAUD, "rules": [RULE]})
    settings: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    weights: int = 1
    data: str = '{"input": "a", "expected": "b"}\n'
    backend: str = "hf"
    device: str = "cpu"
    here: Environment = HERE
    packages: Mapping[str, str] = field(default_factory=lambda: {"torch": "2.13.0"})


_FOLDERS = itertools.count()


def key_of(tmp_path: Path, asked: Asked) -> str:
    """What the store is asked for, the project in one and the same folder."""
    base = tmp_path / "project"
    base.mkdir(exist_ok=True)
    (base / "fraud.jsonl").write_text(asked.data)
    write_checkpoint(base / "model", full_precision(asked.weights))
    (base / "policy.yaml").write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "stages": [asked.stage],
                "checkpoints": {"bank": {"path": "model", **asked.load}},
                **asked.settings,
            }
        )
    )
    loaded = load_policy(base / "policy.yaml")
    found = checkpoint.resolve(
        "bank",
        policy_checkpoints=loaded.policy.checkpoints,
        base=base,
        offline=True,
        backend=asked.backend,
        engines=loaded.policy.engines,
    )
    ref = checkpoint.describe(found, Role.BASELINE, cache=tmp_path / "cache")
    shown = view.build(found, tmp_path / f"view{next(_FOLDERS)}", backend=asked.backend)

    def start(role: Role, chosen: Checkpoint) -> Idle:
        return Idle(packages=asked.packages, files=(base / "fraud.jsonl",))

    store = AskedFor(tmp_path / "store")
    ((source, settings),) = policy.split(loaded.policy.stages[0])
    side = Side(Role.BASELINE, ref, shown, start)
    with Collector(
        baseline=side,
        candidate=side,
        store=store,
        environment=asked.here,
        base=base,
        seed=loaded.policy.seed,
        backend=asked.backend,
        device=asked.device,
        progress=lambda done, total, label: None,
    ) as collector:
        collector.check(settings)
        assert collector.of_baseline(source, settings, lambda: None).from_store
    return store.asked


ANOTHER: dict[str, Asked] = {
    "weights at the same path": Asked(weights=2),
    "dtype": Asked(load={"dtype": "bfloat16"}),
    "load-time quantization": Asked(load={"load": {"method": "bitsandbytes-nf4"}}),
    "backend": Asked(backend="vllm"),
    "engine setting": Asked(settings={"engines": {"hf": {"attention": "eager"}}}),
    "seed": Asked(settings={"seed": 1}),
    "device": Asked(device="cuda:1"),
    "device model or package version here": Asked(here=replace(HERE, fingerprint="0" * 64)),
    "package version of the workers": Asked(packages={"torch": "2.14.0"}),
    "content of a data file": Asked(data='{"input": "a", "expected": "c"}\n'),
    "prompt": Asked(stage={**FRAUD, "rules": [RULE], "template": "{input}?"}),
    "name of the stage": Asked(stage={**FRAUD, "rules": [RULE], "name": "loans"}),
}


@pytest.mark.parametrize("what", ANOTHER)
def test_another_measurement_has_another_key(tmp_path: Path, what: str) -> None:
    assert key_of(tmp_path, ANOTHER[what]) != key_of(tmp_path, Asked())


def test_the_key_value_cache_of_vllm(tmp_path: Path) -> None:
    keys = {
        key_of(tmp_path, Asked(backend="vllm", settings={"engines": {"vllm": engine}}))
        for engine in ({}, {"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "fp8_e5m2"}, {"max_model_len": 64})
    }
    assert len(keys) == 4


def test_the_sample_of_a_task(tmp_path: Path) -> None:
    tasks = [{**TASK["tasks"][0], **changes} for changes in ({}, {"sample": "20%"}, {"sample": "30%"}, {"fewshot": 5})]  # type: ignore[dict-item]
    keys = {key_of(tmp_path, Asked(stage={**TASK, "tasks": [task]})) for task in tasks}
    assert len(keys) == 4


SAME: dict[str, Asked] = {
    "threshold": Asked(stage={**FRAUD, "rules": [{**RULE, "max_drop": "9pp"}]}),
    "scope": Asked(stage={**FRAUD, "rules": [{**RULE, "scope": "population"}]}),
    "more rules": Asked(stage={**FRAUD, "rules": [RULE, {"metric": "accuracy", "by": "category", "max_drop": "9pp"}]}),
    "budget": Asked(stage={**FRAUD, "rules": [RULE], "budget": "10min"}, settings={"budget": "20min"}),
    "confidence": Asked(settings={"confidence": 0.99}),
    "another backend's engine": Asked(settings={"engines": {"vllm": {"kv_cache_dtype": "fp8"}}}),
    "how fast the engine is": Asked(settings={"engines": {"hf": {"batch_size": 4}}}),
    "memory and commit of the machine": Asked(here=replace(HERE, memory_bytes=1, git_commit="0" * 40)),
}


@pytest.mark.parametrize("what", SAME)
def test_what_changes_no_score_keeps_the_key(tmp_path: Path, what: str) -> None:
    assert key_of(tmp_path, SAME[what]) == key_of(tmp_path, Asked())
