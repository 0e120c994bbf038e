"""`gate run --backend vllm --python …` with the real vLLM on a CPU: all stages, and the verdicts of the hf backend.

Runs in the gate's own environment; QUANTGATE_VLLM_PYTHON names the interpreter with vLLM (default: `make vllm-env`'s).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from gate import artifact
from gate.cli import main
from gate.demo.bundle import world
from gate.records import RunRecord, Severity, Status
from tests.vllm.fp8_checkpoint import save_fp8

PYTHON = Path(os.environ.get("QUANTGATE_VLLM_PYTHON", Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"))

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is not None, reason="these run in the gate's environment, not in vLLM's"),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"{PYTHON} is not there: run `make vllm-env`"),
    pytest.mark.timeout(600),
]

POLICY = """\
version: 1
seed: 20261120
engines: {{vllm: {{cpu_kv_cache: 64MiB}}}}
stages:
  - kind: perplexity
    name: sanity
    top_k: 16
    corpora:
      - {{name: prose, path: {data}/prose.txt, window: 128, stride: 64, max_tokens: 2000}}
    rules:
      - {{metric: perplexity, max_increase: 5%}}
      - {{metric: top1_agreement, min: 0.80}}
      - {{metric: kl_mean_nats, max: 0.2}}
  - kind: lm_eval
    name: capability
    include_path: {data}/tasks/
    tasks:
      - task: bank_cloze
        rules:
          - {{metric: acc, max_drop: 5pp}}
  - kind: domain
    name: fraud
    data: {data}/fraud.jsonl
    template: "Question: {{input}}\\nAnswer:"
    match: exact
    max_new_tokens: 24
    stop: ["\\n"]
    rules:
      - {{metric: accuracy, max_drop: 3pp}}
  - kind: profile
    name: serving
    batch_sizes: [1, 4]
    blocks: 3
    prompt_tokens: 32
    new_tokens: 8
    rules:
      - {{metric: rss_peak, max: 16GiB}}
      - {{metric: decode_tokens_per_second, batch: 4, min_retained: 50%, severity: advisory}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vllm-runs")
    (made / "policy.yaml").write_text(POLICY.format(data=world() / "data"), encoding="utf-8")
    save_fp8(world() / "baseline", made / "fp8")
    save_fp8(world() / "baseline", made / "fp8-damaged")
    weights = made / "fp8-damaged" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.down_proj.weight_scale"] *= 4  # what a wrong export does
    save_file(tensors, weights, metadata={"format": "pt"})
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Callable[[Path, str], RunRecord]:
    def once(candidate: Path, backend: str) -> RunRecord:
        out = folder / f"{candidate.name}-{backend}"
        main(
            [
                "run",
                f"--policy={folder / 'policy.yaml'}",
                f"--baseline={world() / 'baseline'}",
                f"--candidate={candidate}",
                "--device=cpu",
                f"--backend={backend}",
                f"--out={out}",
                f"--store={folder / 'store'}",
                *([f"--python={PYTHON}"] if backend == "vllm" else []),
            ]
        )
        return artifact.loads_record((out / "run.json").read_text(encoding="utf-8"))

    return once


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("w4a16-gptq-prose", Status.PASS),
        ("w8a8", Status.PASS),
        ("fp8", Status.PASS),
        ("fp8-damaged", Status.REGRESSION),
    ],
)
def test_vllm_measures_every_stage_and_decides_as_hf_does(
    name: str, status: Status, folder: Path, run: Callable[[Path, str], RunRecord]
) -> None:
    candidate = folder / name if name.startswith("fp8") else world() / "candidates" / name
    by_vllm, by_hf = run(candidate, "vllm"), run(candidate, "hf")
    assert by_vllm.verdict.status is status, by_vllm.verdict.sentence
    assert by_hf.verdict.status is status, by_hf.verdict.sentence
    assert {s.name: s.status for s in by_vllm.stages} == {s.name: s.status for s in by_hf.stages}
    blocking = [
        {f.rule.id: f.status for s in record.stages for f in s.findings if f.rule.severity is Severity.BLOCKING}
        for record in (by_vllm, by_hf)
    ]
    assert blocking[0] == blocking[1]
    if status is Status.PASS:
        assert [s.status for s in by_vllm.stages] == [Status.PASS] * 4
        assert len(blocking[0]) == 6
        assert by_vllm.environment.packages  # what ran it
    else:
        assert by_vllm.verdict.deciding == by_hf.verdict.deciding
