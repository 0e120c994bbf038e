"""The profile stage on a GPU, checked against `nvidia-smi` and the host's clock; writes a report in Markdown.

    python benchmarks/gpu_profile.py [--baseline FOLDER --candidate FOLDER …] [--python INTERPRETER] [--write FILE]

Without folders it makes a Llama of about 1 B random parameters in BF16, and its W8A8 and W4A16 where compressed-tensors
is installed; nothing is downloaded.  Runs the default policy's stage through `gate run`, on the hf backend, and on vllm
with the interpreter named.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Self, TypeVar

from benchmarks import gpu_report, marked
from benchmarks.profile_run import NotMeasured, run, stage_of
from gate import environment
from gate.demo.bundle import policy_path

T = TypeVar("T")

OUT = Path("gate-out/gpu_profile")
SCHEMES = ("w8a8", "w4a16")
SAMPLE_MILLISECONDS = 100
NO_GPU = (
    "found no NVIDIA GPU (nvidia-smi shows none): this benchmark measures on one; for a CPU there are "
    "benchmarks/profile_minutes.py and benchmarks/timing_aa.py"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="default: a random Llama")
    parser.add_argument("--candidate", type=Path, action="append", default=[], help="repeatable; goes with --baseline")
    parser.add_argument("--python", help="interpreter with vllm and the gate, to measure the vllm backend as well")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for checkpoints, runs and report.md")
    parser.add_argument("--write", type=Path, help="document whose `gpu_profile` block is rewritten")
    chosen = parser.parse_args()
    if environment.default_device() != "cuda":
        sys.exit(f"gpu_profile: {NO_GPU}")
    if (chosen.baseline is None) != (not chosen.candidate):
        parser.error("found one of --baseline and --candidate, expected both or neither")
    chosen.out.mkdir(parents=True, exist_ok=True)
    baseline, candidates = (chosen.baseline, chosen.candidate) if chosen.baseline else made(chosen.out / "checkpoints")
    backends = {"hf": None, **({"vllm": chosen.python} if chosen.python else {})}
    parts = [gpu_report.clocks(in_a_child(clock_times))]
    for backend, python in backends.items():
        for candidate in candidates:
            print(f"{backend}: {candidate.name}", file=sys.stderr, flush=True)
            parts += measured(chosen.out, baseline, candidate, backend, python)
    text = "\n\n".join(parts)
    (chosen.out / "report.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    if chosen.write is not None:
        marked.rewrite(chosen.write, "gpu_profile", text)


def measured(out: Path, baseline: Path, candidate: Path, backend: str, python: str | None) -> Iterator[str]:
    """One run of the gate: what it found, and its peak of memory beside that of `nvidia-smi`."""
    title = f"### {backend}: {candidate.name} against {baseline.name}"
    with Smi() as smi:
        try:
            ran = run(
                stage_of(policy_path().parent / "default.yaml"),
                baseline=baseline,
                candidate=candidate,
                out=out / f"{backend}-{candidate.name}",
                device="cuda",
                backend=backend,
                python=python,
            )
        except NotMeasured as problem:  # the others stand
            yield f"{title}\n\n```\n{str(problem).strip()}\n```"
            return
    yield gpu_report.of_run(title, ran, smi.peak_bytes)


class Smi:
    """While entered, a thread reads `nvidia-smi` every 100 ms; `peak_bytes` is what was used beyond the beginning."""

    def __init__(self) -> None:
        self._samples: list[int] = []

    def __enter__(self) -> Self:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        self._process = subprocess.Popen([*query, f"-lms={SAMPLE_MILLISECONDS}"], stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._samples += gpu_report.used_bytes(self._process.stdout)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    @property
    def peak_bytes(self) -> int | None:
        return max(self._samples) - self._samples[0] if self._samples else None


def in_a_child(what: Callable[[], T]) -> T:
    """Its result, from a process of its own: one that has used the GPU would count as foreign in the runs after it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(what)


def clock_times() -> tuple[float, float]:
    """Seconds of a second or so of matrix products by CUDA events, as the hf backend takes them, and by the host."""
    import torch

    from gate.backends.marks import Marks

    device = torch.device("cuda")
    one = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    for _ in range(10):
        one @ one
    marks = Marks(device)
    begun = perf_counter()
    for _ in range(50):
        marks.add()
        for _ in range(20):
            one @ one
    marks.add()
    by_events = sum(marks.steps_seconds())
    return by_events, perf_counter() - begun


def made(folder: Path) -> tuple[Path, Sequence[Path]]:
    """A random Llama in BF16 and what to compare it with: itself, and its quantized variants if they can be made."""
    from tests.contract import speed_llama

    baseline = folder / "llama-1b-bf16"
    if not (baseline / "config.json").exists():
        random_llama(baseline)
    candidates = [baseline]
    for scheme in SCHEMES if find_spec("compressed_tensors") else ():
        path = folder / f"llama-1b-{scheme}"
        if not (path / "config.json").exists():
            speed_llama.save_quantized(baseline, path, scheme)
        candidates.append(path)
    return baseline, candidates


def random_llama(folder: Path, **changes: Any) -> None:
    """Write about 1 B random parameters, untied, in BF16, with the tiny tokenizer of the tests."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.contract import tiny_llama

    folder.mkdir(parents=True, exist_ok=True)
    tiny_llama.save(folder)
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 32_000,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096,
        **changes,
    }
    config = LlamaConfig(**sizes, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, dtype="bfloat16")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    main()
