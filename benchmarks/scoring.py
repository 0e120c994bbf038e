"""What scoring costs: this gate against lm-eval's HFLM on one few-shot multiple-choice test, and against a bare loop.

    python benchmarks/scoring.py [--quick] [--data FOLDER] [--subjects 8] [--questions 40] [--dtypes float32 bfloat16]

One thread, one model of 50 M random parameters, the same prompts in the gate's seeded order in blocks of 32.  Every arm
is a process of its own, so that peaks of memory do not mix; they take turns block by block, and their CPU time is what
counts, so that other work on the machine touches them little.  FOLDER holds MMLU, as `dev/SUBJECT_dev.csv` and
`test/SUBJECT_test.csv`; without it the questions are of random words.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from benchmarks.scoring_questions import Item, Pair, Subjects, blocks_of, by_letter, by_text, make, read, texts

CONTEXT_LENGTH = 2048
VOCABULARY = 24_000
MIB = 2**20

Answers = list[tuple[float, bool]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with MMLU; default: questions of random words")
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument("--questions", type=int, default=40, help="per subject")
    parser.add_argument("--hflm-items", type=int, default=64, help="items that HFLM scores; its time is scaled to all")
    parser.add_argument("--probe-items", type=int, default=6, help="items for finding HFLM's best batch size")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="of HFLM, to choose from")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="a minute or two, for whether it runs")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.subjects, chosen.questions, chosen.hflm_items, chosen.probe_items = 3, 16, 8, 2
        chosen.batch_sizes, chosen.dtypes = [1, 2], ["float32"]
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    subjects = (
        read(chosen.data, chosen.subjects, chosen.questions) if chosen.data else make(chosen.subjects, chosen.questions)
    )
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), subjects)
        print(HEADER)
        for dtype in chosen.dtypes:
            for name, style in (("one-token choices", by_letter), ("full-text choices", by_text)):
                compare(Path(folder), dtype, name, blocks_of(style(subjects)), chosen)
        print(f"\n{PERPLEXITY_HEADER}")
        for dtype in chosen.dtypes:
            with Arm(Path(folder), dtype, "perplexity", 0) as arm:
                for line in arm.ask((2 if chosen.quick else 8, texts(subjects))):
                    print(line)


# --- the model -----------------------------------------------------------------------------------------------------


def build(folder: Path, subjects: Subjects) -> None:
    """A Llama of 50 M random parameters and a tokenizer trained on the questions."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts(subjects).split("\n"), trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=CONTEXT_LENGTH,
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


# --- arms: one process each ----------------------------------------------------------------------------------------


class Arm:
    """A child process that answers one question at a time."""

    def __init__(self, folder: Path, dtype: str, kind: str, batch_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, str(folder), dtype, kind, batch_size))
        self._process.start()
        theirs.close()
        self._pipe.recv()  # ready

    def ask(self, question: Any) -> Any:
        self._pipe.send(question)
        return self._pipe.recv()

    def __enter__(self) -> Arm:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()


def serve(pipe: Any, folder: str, dtype: str, kind: str, batch_size: int) -> None:
    import warnings

    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    answer = {"gate": gate_arm, "hflm": hflm_arm, "perplexity": perplexity_arm}[kind](folder, dtype, batch_size)
    reset_peak()
    pipe.send("ready")
    while (question := pipe.recv()) is not None:
        pipe.send(answer(question))


@dataclass(frozen=True)
class Scored:
    """`computed_tokens` and `peak_bytes` are those of the whole process so far."""

    answers: Answers
    seconds: float
    computed_tokens: int
    peak_bytes: int


def gate_arm(folder: str, dtype: str, _: int) -> Callable[[list[Pair]], Scored]:
    from gate.backends import Checkpoint
    from gate.backends.hf import open_backend

    backend = open_backend(Checkpoint(path=folder, load={}, dtype=dtype, tokenizer=None), "cpu")
    if backend.info.notes:
        raise SystemExit(backend.info.notes)
    lm = backend.harness()
    return lambda pairs: timed(lm, pairs, lambda: backend._requests.computed_tokens)


def hflm_arm(folder: str, dtype: str, batch_size: int) -> Callable[[list[Pair]], Scored]:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=CONTEXT_LENGTH)
    return lambda pairs: timed(lm, pairs, lambda: 0)


def timed(lm: Any, pairs: list[Pair], computed_tokens: Callable[[], int]) -> Scored:
    from lm_eval.api.instance import Instance

    asked = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]
    begun = process_time()
    answers = lm.loglikelihood(asked, disable_tqdm=True)
    return Scored(answers, process_time() - begun, computed_tokens(), peak_bytes())


def reset_peak() -> None:
    """Count the peak of memory from here, where the kernel can."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- comparing -----------------------------------------------------------------------------------------------------

HEADER = (
    "| dtype, choices | requests/s: HFLM (batch) | gate | speed-up | ideal by tokens | share of ideal "
    "| tokens computed / fewest | peak memory: HFLM | gate | largest difference (nats): gate | HFLM by batch size "
    "| flips: choice, greedy |\n"
    f"|{'---|' * 12}"
)


def compare(folder: Path, dtype: str, name: str, blocks: list[list[Item]], chosen: argparse.Namespace) -> None:
    items = list(chain.from_iterable(blocks))
    probe = pairs_of(items[: chosen.probe_items])
    by_size: dict[int, Scored] = {}
    for size in chosen.batch_sizes:
        with Arm(folder, dtype, "hflm", size) as arm:
            arm.ask(probe[:2])  # what is slow only once
            by_size[size] = arm.ask(probe)
    best = min(by_size, key=lambda size: by_size[size].seconds)
    step = max(1, len(items) // chosen.hflm_items)
    theirs: list[Scored] = []
    ours: list[Scored] = []
    with Arm(folder, dtype, "hflm", best) as hflm, Arm(folder, dtype, "gate", 0) as gate:
        for block in blocks:
            theirs.append(hflm.ask(pairs_of(block[::step])))  # nothing is shared, so that fewer items tell as much
            ours.append(gate.ask(pairs_of(block)))

    both = items_of(blocks, step)
    found = list(chain.from_iterable(s.answers for s in theirs))
    by_item = dict(
        zip((i.item_id for i in items), split(items, chain.from_iterable(s.answers for s in ours)), strict=True)
    )
    gate_found = list(chain.from_iterable(by_item[item.item_id] for item in both))
    counts = Counts(folder)
    hflm_tokens, fewest = counts.one_by_one(items), counts.shared(items)
    seconds_theirs = sum(s.seconds for s in theirs) * hflm_tokens / counts.one_by_one(both)
    seconds_ours = sum(s.seconds for s in ours)
    n = len(pairs_of(items))
    ideal, speed_up = hflm_tokens / fewest, seconds_theirs / seconds_ours
    noise = max(d for s in by_size.values() for d in differences(s.answers, by_size[best].answers))
    same_items = max(differences(by_size[best].answers, chain.from_iterable(by_item.values())))
    choices, greedy = flipped(both, found, gate_found)
    print(
        f"| {dtype}, {name} | {n / seconds_theirs:.2f} ({best}) | {n / seconds_ours:.2f} | **{speed_up:.1f} ×** "
        f"| {ideal:.1f} × | {speed_up / ideal:.2f} | {ours[-1].computed_tokens / fewest:.2f} "
        f"| {peak(theirs):.0f} MiB | {peak(ours):.0f} MiB "
        f"| {max(differences(found, gate_found)):.2g} ({same_items:.2g} on the items of the next column) | {noise:.2g} "
        f"| {choices}, {greedy} of {len(both)} |",
        flush=True,
    )


def items_of(blocks: list[list[Item]], step: int) -> list[Item]:
    return [item for block in blocks for item in block[::step]]


def split(items: Sequence[Item], answers: Iterable[tuple[float, bool]]) -> list[Answers]:
    left = iter(answers)
    return [list(islice(left, len(item.pairs))) for item in items]


def pairs_of(items: Sequence[Item]) -> list[Pair]:
    return [pair for item in items for pair in item.pairs]


def differences(one: Iterable[tuple[float, bool]], other: Iterable[tuple[float, bool]]) -> Iterator[float]:
    """Of as many as `one` has."""
    return (abs(a - b) for (a, _), (b, _) in zip(one, other, strict=False))


def flipped(items: Sequence[Item], one: Answers, other: Answers) -> tuple[int, int]:
    """Items whose most likely choice differs, and choices whose `is greedy` does."""
    pairs = zip(split(items, one), split(items, other), strict=True)
    return sum(best_choice(a) != best_choice(b) for a, b in pairs), sum(
        a[1] != b[1] for a, b in zip(one, other, strict=True)
    )


def best_choice(answers: Answers) -> int:
    return max(range(len(answers)), key=lambda i: answers[i][0])


def peak(scored: Any) -> float:
    return max(s.peak_bytes for s in scored) / MIB


class Counts:
    """Tokens that go through the model, by lm-eval's encoding."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def one_by_one(self, items: Sequence[Item]) -> int:
        """What HFLM computes: every distinct input in full, padding not counted."""
        return sum(map(len, self._inputs(items)))

    def shared(self, items: Sequence[Item]) -> int:
        """The fewest: every distinct beginning once."""
        from gate.backends.hf_prefix import common

        inputs = [np.array(tokens) for tokens in sorted(self._inputs(items))]
        return sum(map(len, inputs)) - sum(common(one, other) for one, other in pairwise(inputs))

    def _inputs(self, items: Sequence[Item]) -> set[tuple[int, ...]]:
        return {tuple(ids[:-1]) for ids in self._tokenizer([c + k for c, k in pairs_of(items)])["input_ids"]}


# --- perplexity ----------------------------------------------------------------------------------------------------

PERPLEXITY_HEADER = (
    "| dtype, windows | bare torch loop, tokens/s | gate, tokens/s | ratio | with the 256 most likely tokens |\n"
    f"|{'---|' * 5}"
)


def perplexity_arm(folder: str, dtype: str, _: int) -> Callable[[tuple[int, str]], list[str]]:
    import torch
    from torch.nn.functional import cross_entropy

    from gate.backends import Checkpoint, Window
    from gate.backends.hf import open_backend

    backend = open_backend(Checkpoint(path=folder, load={}, dtype=dtype, tokenizer=None), "cpu")
    model = backend._model

    @torch.inference_mode()
    def bare(windows: Sequence[Window]) -> float:
        total = 0.0
        for window in windows:
            ids = torch.tensor([window.tokens])
            logits = model(ids, use_cache=False).logits[0, -window.n_scored - 1 : -1]
            total += float(cross_entropy(logits.float(), ids[0, -window.n_scored :], reduction="sum"))
        return total

    def ours(windows: Sequence[Window], top_k: int = 0) -> float:
        return float(sum(s.nll_nats.sum() for s in backend.score(windows, top_k=top_k, at_ids=None)))

    def answer(question: tuple[int, str]) -> list[str]:
        n_windows, text = question
        ids = backend.encode(text)
        lines = []
        for length, stride in ((512, 512), (1024, 512)):
            windows = [
                Window(tokens=tuple(ids[at : at + length]), n_scored=min(stride, length - 1))
                for at in range(0, min(len(ids) - length, n_windows * stride), stride)
            ]
            clocks: dict[str, list[float]] = {"bare": [], "ours": [], "top": []}
            for _ in range(3):
                for name, run in (("bare", bare), ("ours", ours), ("top", lambda w: ours(w, 256))):
                    begun = process_time()
                    run(windows)
                    clocks[name].append(process_time() - begun)
            if not np.isclose(bare(windows), ours(windows), rtol=1e-5 if dtype == "float32" else 1e-2):
                raise SystemExit("the gate's negative log-likelihood is not that of the bare loop")
            n = sum(len(w.tokens) for w in windows)
            speed = {name: n / min(seconds) for name, seconds in clocks.items()}
            lines.append(
                f"| {dtype}, {length} tokens, {min(stride, length - 1)} scored | {speed['bare']:.0f} "
                f"| {speed['ours']:.0f} | {speed['ours'] / speed['bare']:.2f} | {speed['top']:.0f} |"
            )
        return lines

    return answer


if __name__ == "__main__":
    main()
