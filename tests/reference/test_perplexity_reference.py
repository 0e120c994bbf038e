"""Perplexity on real models against an independent reference: float64, one forward pass per token.

The reference knows the definition only: which tokens precede a scored one.  It shares no code with the stage or the
backend.  Models: a random Llama with and without BOS, and the demo world's baseline.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gate.backends import Backend, Checkpoint
from gate.backends.hf import open_backend
from gate.policy import PerplexityStage
from gate.records import Measurement, Role, merge
from gate.stages import Context, perplexity

WORLD = Path(perplexity.__file__).parent.parent / "demo" / "world"
VOCABULARY = 61


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A model as the gate sees it, the same in float64, and texts to score."""

    folder: Path
    backend: Backend
    exact: Any
    texts: tuple[str, ...]

    def tokens(self, text: str) -> list[int]:
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]


def _subject(folder: Path, texts: Sequence[str]) -> Subject:
    torch.set_num_threads(1)
    backend = open_backend(Checkpoint(path=str(folder), load={}, dtype="float32", tokenizer=None), "cpu")
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    return Subject(folder=folder, backend=backend, exact=exact, texts=tuple(texts))


def _tiny_model() -> Any:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,  # large enough that contexts matter
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def _save(model: Any, folder: Path, *, bos: bool) -> Path:
    words = {"<unk>": 0, "<s>": 1} | {str(n): n for n in range(2, VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    special = {"bos_token": "<s>"} if bos else {}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _numbers(length: int, seed: int) -> str:
    return " ".join(str(t) for t in np.random.default_rng(seed).integers(2, VOCABULARY, length))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = _save(_tiny_model(), tmp_path_factory.mktemp("tiny"), bos=False)
    return _subject(folder, [_numbers(n, seed) for seed, n in enumerate((60, 41, 23))])


@pytest.fixture(scope="module")
def tiny_bos(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = _save(_tiny_model(), tmp_path_factory.mktemp("tiny_bos"), bos=True)
    return _subject(folder, [_numbers(n, seed) for seed, n in enumerate((60, 41, 23))])


@pytest.fixture(scope="module")
def demo() -> Subject:
    return _subject(WORLD / "baseline", (WORLD / "data" / "prose.txt").read_text(encoding="utf-8").split("\n\n")[:3])


def _reference_nll(exact: Any, tokens: list[int], window: int, stride: int) -> list[float]:
    """NLL of tokens[1:], each from its own forward pass.

    Window number w sees tokens [w·a, w·a + window), a = min(stride, window − 1); a token belongs to the first window
    that reaches it.
    """
    advance = min(stride, window - 1)
    nll = []
    for position in range(1, len(tokens)):
        number = 0
        while number * advance + window <= position:
            number += 1
        context = tokens[number * advance : position]
        with torch.inference_mode():
            logits = exact(input_ids=torch.tensor([context])).logits[0, -1]
        nll.append(-float(torch.log_softmax(logits, dim=-1)[tokens[position]]))
    return nll


def _measure(
    base: Path,
    backend: Backend,
    texts: Sequence[str],
    corpus: dict[str, Any],
    *,
    role: Role = Role.BASELINE,
    top_k: int = 0,
) -> Measurement:
    (base / "text.txt").write_text("\n\n".join(texts))
    rule = {"metric": "perplexity", "max_increase": "5%"}
    stage = PerplexityStage.model_validate(
        {
            "kind": "perplexity",
            "name": "sanity",
            "corpora": [{"name": "text", "path": "text.txt"} | corpus],
            "top_k": top_k,
            "rules": [rule],
        }
    )
    context = Context(
        role=role,
        base=base,
        settings_digest="settings",
        sample_seed="seed",
        order_seed="seed",
        artifacts=base / "artifacts",
        block=None,
        progress=lambda done, total, label: None,
    )
    return merge(list(perplexity.measure(backend, stage, context)))


def _mean(measurement: Measurement, metric: str) -> float:
    observed = [o for o in measurement.observations if o.metric == metric]
    return math.fsum(o.value * o.weight for o in observed) / math.fsum(o.weight for o in observed)


@pytest.mark.parametrize("model", ["tiny", "tiny_bos", "demo"])
@pytest.mark.parametrize(
    ("n_tokens", "window", "stride", "case"),
    [
        (50, 16, 16, "stride = window"),
        (50, 16, 6, "stride < window"),
        (16 + 3 * 8 + 1, 16, 8, "a tail of one token"),
        (16 + 2 * 15 + 1, 16, 16, "stride = window, a tail of one token"),
        (9, 16, 8, "a document shorter than a window"),
        (16, 16, 8, "a document as long as a window"),
        (2, 16, 8, "a single scored token"),
    ],
)
def test_perplexity_equals_the_float64_reference(
    tmp_path: Path, request: pytest.FixtureRequest, model: str, n_tokens: int, window: int, stride: int, case: str
) -> None:
    subject: Subject = request.getfixturevalue(model)
    n_bos = int(subject.backend.bos() is not None)
    corpus = {"window": window, "stride": stride, "documents": 3, "max_tokens": 3 * (n_tokens - n_bos)}
    measured = _measure(tmp_path, subject.backend, subject.texts, corpus)
    by_cluster = {o.cluster: o for o in measured.observations}
    assert len(by_cluster) == measured.n_expected == 3
    all_nll: list[float] = []
    for text in subject.texts:
        nll = _reference_nll(subject.exact, subject.tokens(text)[:n_tokens], window, stride)
        observation = by_cluster[hashlib.sha256(text.encode()).hexdigest()[:16]]
        assert observation.weight == len(nll)
        assert observation.value == pytest.approx(math.fsum(nll) / len(nll), rel=1e-4), case
        all_nll += nll
    expected = math.exp(math.fsum(all_nll) / len(all_nll))
    assert math.exp(_mean(measured, "nll_nats")) == pytest.approx(expected, rel=1e-4), case


@pytest.mark.parametrize("model", ["tiny", "demo"])
def test_the_shift_trap_stays_closed(tmp_path: Path, request: pytest.FixtureRequest, model: str) -> None:
    """The usual recipes weigh the library's mean loss by the wrong count; ours equals the reference."""
    subject: Subject = request.getfixturevalue(model)
    text, window, stride = subject.texts[0], 16, 8
    tokens = subject.tokens(text)
    exact = subject.exact
    reference = math.fsum(_reference_nll(exact, tokens, window, stride)) / (len(tokens) - 1)
    losses, targets, previous_end = [], [], 0
    for begin in range(0, len(tokens), stride):
        end = min(begin + window, len(tokens))
        ids = torch.tensor([tokens[begin:end]])
        labels = ids.clone()
        labels[:, : -(end - previous_end)] = -100
        with torch.inference_mode():
            losses.append(float(exact(input_ids=ids, labels=labels).loss))
        targets.append(end - previous_end)  # the first window has one target fewer after the shift
        previous_end = end
        if end == len(tokens):
            break
    mean_of_means = sum(losses) / len(losses)
    unshifted_count = sum(loss * n for loss, n in zip(losses, targets, strict=True)) / len(tokens)
    shifted_count = sum(loss * n for loss, n in zip(losses, [targets[0] - 1, *targets[1:]], strict=True))
    ours = _mean(_measure(tmp_path, subject.backend, [text], {"window": window, "stride": stride}), "nll_nats")
    assert abs(mean_of_means / reference - 1) > 1e-3
    assert abs(unshifted_count / reference - 1) > 1e-3
    assert shifted_count / (len(tokens) - 1) == pytest.approx(reference, rel=1e-6), "the windows, weighed rightly"
    assert ours == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("model", ["tiny_bos", "demo"])
def test_divergence_from_stored_rows_against_full_logits(
    tmp_path: Path, request: pytest.FixtureRequest, model: str
) -> None:
    subject: Subject = request.getfixturevalue(model)
    changed = AutoModelForCausalLM.from_pretrained(subject.folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter += 0.05 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    changed.save_pretrained(tmp_path / "changed")
    AutoTokenizer.from_pretrained(subject.folder).save_pretrained(tmp_path / "changed")
    candidate = _subject(tmp_path / "changed", ())
    top_k = 256 if model == "demo" else 40
    corpus = {"window": 256, "stride": 128}
    _measure(tmp_path, subject.backend, subject.texts, corpus, top_k=top_k)
    measured = _measure(tmp_path, candidate.backend, subject.texts, corpus, role=Role.CANDIDATE, top_k=top_k)
    full_kl: list[float] = []
    agree: list[bool] = []
    change: list[float] = []
    for text in subject.texts:
        ids = torch.tensor([subject.tokens(text)])
        assert ids.shape[1] <= 256, "one window, so that one forward pass is the reference"
        with torch.inference_mode():
            p = torch.log_softmax(subject.exact(input_ids=ids).logits[0, :-1], dim=-1)
            q = torch.log_softmax(candidate.exact(input_ids=ids).logits[0, :-1], dim=-1)
        full_kl += (p.exp() * (p - q)).sum(dim=-1).tolist()
        agree += (p.argmax(dim=-1) == q.argmax(dim=-1)).tolist()
        true = ids[0, 1:, None]
        change += (q.gather(1, true).exp() - p.gather(1, true).exp())[:, 0].tolist()
    assert math.fsum(o.weight for o in measured.observations if o.metric == "kl_nats") == len(full_kl)
    full = float(np.mean(full_kl))
    assert 0.001 < full < 0.5, "the planted change is neither nothing nor everything"
    assert 0.95 * full < _mean(measured, "kl_nats") <= full + 1e-6
    assert _mean(measured, "top1_agreement") == pytest.approx(np.mean(agree), abs=1e-12)
    assert 0.5 < _mean(measured, "top1_agreement") < 1.0
    assert _mean(measured, "delta_p") == pytest.approx(np.mean(change), abs=1e-6)
    (p999,) = (o.value for o in measured.observations if o.metric == "kl_p999_nats")
    assert p999 == pytest.approx(np.quantile(full_kl, 0.999), rel=0.05)
