"""Every figure of the profile stage that applies on a CPU is in run.json: of the demo's models and of one of 50 M."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from gate.artifact import loads_record
from gate.cli import main
from gate.demo.bundle import world
from gate.records import Memory, Performance, Role, RunRecord, Speeds
from tests.contract import speed_llama

STAGE: dict[str, Any] = {
    "kind": "profile",
    "name": "serving",
    "batch_sizes": [2],
    "lengths": ["24+8", "8+4"],
    "blocks": 3,
    "context_tokens": 128,
    "memory_budget": "4GiB",
    "rules": [
        {"metric": "weights_bytes", "max": "4GiB"},
        {"metric": "max_batch_at_context", "min": 1},
        {"metric": "ttft_p99_seconds", "max": "1h", "severity": "advisory"},
    ],
}
GROUPS = {"batch=2,24+8", "batch=2,8+4"}
ON_A_GPU_OR_UNDER_A_LOAD = {
    "joules_per_output_token",
    "offered_requests_per_second",
    "goodput_requests_per_second",
    "saturated",
}
OF_A_QUALITY_SCORE = {"quality_adjusted_cost", "quality_adjusted_cost_with_quantization"}  # there is no other stage


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    bf16 = speed_llama.save(root / "bf16")
    made = {name: speed_llama.save_quantized(bf16, root / name, name) for name in ("w8a8", "w4a16")}
    demo = {"demo": world() / "baseline", "demo-nf4": world() / "candidates" / "nf4"}
    return {"bf16": bf16, **made, **demo}


def ran(out: Path, baseline: Path, candidate: Path) -> RunRecord:
    out.mkdir()
    top = {"version": 1, "price_per_hour": 3.6, "quantization_cost": {"amount": 2, "output_tokens": 1e6}}
    (out / "policy.yaml").write_text(yaml.safe_dump({**top, "stages": [STAGE]}), encoding="utf-8")
    arguments = ["-p", out / "policy.yaml", "--baseline", baseline, "--candidate", candidate, "--out", out / "run"]
    code = main(["run", *map(str, arguments), "--store", str(out / "store"), "--device", "cpu", "--offline"])
    record = loads_record((out / "run" / "run.json").read_bytes())
    assert code == record.exit_code
    return record


def stored_bytes(folder: Path) -> int:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("pair", [("demo", "demo-nf4"), ("bf16", "w8a8"), ("bf16", "w4a16")], ids="-".join)
def test_every_figure_that_applies_is_in_the_record(
    pair: tuple[str, str], folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_THREADS", "1")
    record = ran(tmp_path / "out", *(folders[name] for name in pair))
    (found,) = record.performance
    _check_stage(found)
    assert {(s.role, s.group) for s in found.speeds} == {(role, group) for role in Role for group in GROUPS}
    for speeds in found.speeds:
        _check_speeds(speeds)
    assert [m.role for m in found.memory] == list(Role)
    for memory in found.memory:
        _check_memory(memory)
    config = json.loads((folders[pair[0]] / "config.json").read_text(encoding="utf-8"))
    itemsize = 4 if pair[0] == "demo" else 2
    baseline = found.memory[0]
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_size * itemsize
    assert baseline.kv_bytes_per_token == per_token
    assert baseline.parts["kv_cache"] == per_token * 128 * 2
    assert baseline.parts["weights"] == pytest.approx(stored_bytes(folders[pair[0]]), rel=0.01)
    (p99,) = [f for s in record.stages for f in s.findings if f.rule.metric == "ttft_p99_seconds"]
    assert "299 single times" in p99.reason, "which so few blocks do not have"


def _check_stage(found: Performance) -> None:
    assert found.device == "cpu"
    assert found.device_names
    assert found.copy_bytes_per_second is not None
    assert found.matmul_flops_per_second is not None
    assert {fit.role for fit in found.fits} == set(Role)
    assert all(fit.source for fit in found.fits)
    assert found.conditions
    assert any("figures of a CPU" in remark for remark in found.remarks)


def _check_speeds(speeds: Speeds) -> None:
    absent = {name for name in Speeds.__dataclass_fields__ if getattr(speeds, name) is None}
    once = {"cost_with_quantization"} if speeds.role is Role.BASELINE else set()
    assert absent <= ON_A_GPU_OR_UNDER_A_LOAD | OF_A_QUALITY_SCORE | once
    assert speeds.blocks == 3
    for times, n in ((speeds.ttft, 3 * 7), (speeds.e2e, 3 * 7), (speeds.tpot, 3 * 7 * ((speeds.new_tokens or 0) - 1))):
        assert times.n == n, "seven batches of a shape in a block: twenty over all"
        assert sum(count for _, count in times.histogram) == n
        assert times.seconds.keys() | times.needed.keys() == {"p50", "p90", "p95", "p99", "p999"}
        assert ("p90" in times.seconds) == (n >= 29)
        assert 0 < times.seconds["p50"] < speeds.e2e.seconds["p50"] * 1.01
    assert speeds.decode_limit is not None
    assert speeds.prefill_limit is not None
    assert 0 < speeds.decode_limit < 2
    assert 0 < speeds.prefill_limit < 2
    # 3.6 an hour is a thousandth a second
    cost = 0.001 / speeds.output_tokens_per_second * 1e6
    assert speeds.cost_per_million_output_tokens == pytest.approx(cost)
    if speeds.role is Role.CANDIDATE:
        assert speeds.cost_with_quantization == pytest.approx(cost + 2)


def _check_memory(memory: Memory) -> None:
    assert memory.parts.keys() == {"weights", "activations", "kv_cache"}
    assert all(value > 0 for value in memory.parts.values())
    assert {"rss", "loading_rss", "activations"} <= memory.peaks.keys()
    assert memory.peaks["rss"] > memory.parts["weights"]
    assert (memory.context_tokens, memory.batch_size, memory.budget_bytes) == (128, 2, 4 * 2**30)
    assert memory.max_batch_at_context is not None
    assert memory.max_batch_at_context > 0
