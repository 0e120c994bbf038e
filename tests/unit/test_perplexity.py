"""The perplexity stage on a bigram model in numpy: units, weights, draws, divergence, and what goes wrong."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from gate.backends import Backend, BackendInfo, OutOfMemory, Window, WindowScores
from gate.errors import CouldNotMeasure, DataError
from gate.policy import PerplexityStage
from gate.records import Measurement, Role, merge
from gate.stages import Context, perplexity

VOCABULARY = 30
INFO = BackendInfo(
    name="bigram",
    device="cpu",
    dtype="float32",
    n_parameters=VOCABULARY**2,
    context_length=64,
    vocabulary_size=VOCABULARY,
    load_seconds=0.0,
    has_logits=True,
    packages={},
    unserved={},
)


class Bigram:
    """Scores a token by the one before it.  Texts are numbers separated by spaces."""

    def __init__(self, seed: int = 0, *, info: BackendInfo = INFO, bos: int | None = 0, noise: float = 0.0) -> None:
        logits = np.random.default_rng(seed).normal(0.0, 2.0, (VOCABULARY, VOCABULARY))
        logits += np.random.default_rng(99).normal(0.0, noise, logits.shape)
        self.logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        self.info = info
        self._bos = bos
        self.windows: list[Window] = []

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def bos(self) -> int | None:
        return self._bos

    def score(
        self, windows: Sequence[Window], *, top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        assert at_ids is None or len(at_ids) == len(windows)
        self.windows += windows
        for i, window in enumerate(windows):
            assert 1 <= window.n_scored < len(window.tokens)
            tokens = np.array(window.tokens)
            rows = self.logprobs[tokens[-window.n_scored - 1 : -1]]
            true = rows[np.arange(len(rows)), tokens[-window.n_scored :]]
            ids = np.argsort(-rows, axis=1)[:, :top_k].astype(np.int32)
            yield WindowScores(
                nll_nats=-true,
                top_ids=ids if top_k else None,
                top_logprobs=np.take_along_axis(rows, ids, axis=1).astype(np.float32) if top_k else None,
                at_logprobs=None if at_ids is None else np.take_along_axis(rows, at_ids[i], axis=1).astype(np.float32),
            )

    def nll_nats(self, tokens: Sequence[int]) -> list[float]:
        return [-float(self.logprobs[a, b]) for a, b in pairwise(tokens)]


def _document(length: int, seed: int) -> str:
    return " ".join(str(t) for t in np.random.default_rng(seed).integers(1, VOCABULARY, length))


def _stage(top_k: int = 5, **corpus: Any) -> PerplexityStage:
    corpus = {"name": "notes", "path": "notes.txt", "window": 16, "stride": 8} | corpus
    rule = {"metric": "perplexity", "max_increase": "5%"}
    return PerplexityStage.model_validate(
        {"kind": "perplexity", "name": "sanity", "corpora": [corpus], "top_k": top_k, "rules": [rule]}
    )


def _parts(
    base: Path, backend: Bigram, stage: PerplexityStage, role: Role = Role.BASELINE, seed: str = "seed"
) -> list[Measurement]:
    context = Context(
        role=role,
        base=base,
        settings_digest="settings",
        sample_seed=seed,
        order_seed=seed,
        artifacts=base / "artifacts",
        block=None,
        progress=lambda done, total, label: None,
    )
    return list(perplexity.measure(cast(Backend, backend), stage, context))


def _measure(base: Path, backend: Bigram, stage: PerplexityStage, role: Role = Role.BASELINE) -> Measurement:
    return merge(_parts(base, backend, stage, role))


def _values(measurement: Measurement, metric: str) -> Mapping[str, float]:
    return {o.item_id: o.value for o in measurement.observations if o.metric == metric}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    lengths = [40, 17, 16, 15, 1, 5, 33, 64, 2]
    (tmp_path / "notes.txt").write_text("\n\n".join(_document(n, seed) for seed, n in enumerate(lengths)))
    return tmp_path


def test_each_document_is_the_mean_over_its_scored_tokens(base: Path) -> None:
    backend = Bigram()
    measured = _measure(base, backend, _stage())
    texts = (base / "notes.txt").read_text().split("\n\n")
    found = {o.cluster: (o.value, o.weight) for o in measured.observations}
    assert len(found) == len(texts)
    for text in texts:
        nll = backend.nll_nats([0, *backend.encode(text)])
        value, weight = found[hashlib.sha256(text.encode()).hexdigest()[:16]]
        assert value == pytest.approx(math.fsum(nll) / len(nll), rel=1e-12)
        assert weight == len(nll)
    assert measured.n_expected == len(texts) == len(measured.observations)
    assert all(o.item_id.startswith(f"notes/{o.cluster}/") for o in measured.observations)
    assert [m.name for m in measured.metrics] == ["perplexity"]
    assert measured.failures == ()
    assert measured.seconds > 0


def test_without_bos_the_first_token_is_not_scored_and_a_lone_token_is_left_out(base: Path) -> None:
    measured = _measure(base, Bigram(bos=None), _stage())
    assert sorted(o.weight for o in measured.observations) == [1, 4, 14, 15, 16, 32, 39, 63]
    assert measured.n_expected == 8
    assert "documents left out since no token of them can be scored: 1" in measured.notes


def test_windows_and_contexts_stay_inside_a_document(base: Path) -> None:
    backend = Bigram()
    _measure(base, backend, _stage())
    assert max(len(w.tokens) for w in backend.windows) == 16
    documents = [" ".join(["0", text]) for text in (base / "notes.txt").read_text().split("\n\n")]
    for window in backend.windows:
        assert sum(" ".join(map(str, window.tokens)) in document for document in documents) >= 1


def test_parts_say_the_same_and_progress_reaches_the_end(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\n\n".join(_document(5, seed) for seed in range(40)))
    seen: list[tuple[int, int, str]] = []
    context = Context(
        role=Role.BASELINE,
        base=tmp_path,
        settings_digest="settings",
        sample_seed="seed",
        order_seed="seed",
        artifacts=tmp_path / "artifacts",
        block=None,
        progress=lambda done, total, label: seen.append((done, total, label)),
    )
    parts = list(perplexity.measure(cast(Backend, Bigram()), _stage(), context))
    assert [len(p.observations) for p in parts] == [32, 8]
    assert {p.n_expected for p in parts} == {40}
    assert seen == [(i, 40, "notes") for i in range(1, 41)]


def test_max_tokens_is_spread_over_documents_drawn_by_the_seed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\n\n".join(_document(30, seed) for seed in range(100)))
    measured = _measure(tmp_path, Bigram(), _stage(max_tokens=1000))
    assert [o.weight for o in measured.observations] == [16.0] * 64  # ceil(1000 / 64)
    assert "64 of 100 documents, drawn by the seed" in measured.notes
    again = _measure(tmp_path, Bigram(), _stage(max_tokens=1000))
    assert again.observations == measured.observations
    other = merge(_parts(tmp_path, Bigram(), _stage(max_tokens=1000), seed="other"))
    assert {o.item_id for o in other.observations} != {o.item_id for o in measured.observations}


def test_documents_limits_the_draw_and_a_short_corpus_says_so(base: Path) -> None:
    measured = _measure(base, Bigram(), _stage(documents=3))
    assert measured.n_expected == 3
    measured = _measure(base, Bigram(), _stage(documents=50, max_tokens=5000))
    assert measured.n_expected == 9
    assert "the corpus has 9 documents, fewer than the 50 asked for" in measured.notes
    assert "the corpus is too short: 193 tokens can be scored of max_tokens 5000" in measured.notes


def test_a_permuted_corpus_gives_the_same_observations(base: Path) -> None:
    measured = _measure(base, Bigram(), _stage(documents=5))
    texts = (base / "notes.txt").read_text().split("\n\n")
    (base / "notes.txt").write_text("\n\n".join(texts[::-1]))
    assert _measure(base, Bigram(), _stage(documents=5)).observations == measured.observations


def test_identical_documents_are_items_of_one_cluster(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("1 2 3\n\n4 5 6\n\n1 2 3")
    measured = _measure(tmp_path, Bigram(), _stage())
    twins = [o for o in measured.observations if o.cluster == hashlib.sha256(b"1 2 3").hexdigest()[:16]]
    assert len({o.item_id for o in twins}) == 2
    assert sum("#2/" in o.item_id for o in twins) == 1
    assert twins[0].value == twins[1].value


def test_blocks_cut_the_scored_tokens_and_are_clusters(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(_document(25, 1))
    backend = Bigram()
    measured = _measure(tmp_path, backend, _stage(cluster="block", block_tokens=10))
    nll = backend.nll_nats([0, *backend.encode((tmp_path / "notes.txt").read_text())])
    expected = [math.fsum(cut) / len(cut) for cut in (nll[:10], nll[10:20], nll[20:])]
    assert [o.value for o in measured.observations] == pytest.approx(expected, rel=1e-12)
    assert [o.weight for o in measured.observations] == [10, 10, 5]
    assert [o.item_id.rsplit("/", 1)[1] for o in measured.observations] == ["block0", "block1", "block2"]
    assert len({o.cluster for o in measured.observations}) == measured.n_expected == 3
    assert any("blocks of one document are taken as independent" in note for note in measured.notes)


def test_other_tokens_or_other_contexts_give_other_items(base: Path) -> None:
    ids = set(_values(_measure(base, Bigram(), _stage()), "nll_nats"))
    without_bos = set(_values(_measure(base, Bigram(bos=None), _stage()), "nll_nats"))
    short_context = Bigram(info=replace(INFO, context_length=12))
    clamped = _measure(base, short_context, _stage())
    assert ids.isdisjoint(without_bos)
    assert ids.isdisjoint(_values(clamped, "nll_nats"))
    assert "window 16 is longer than the model's context: scored with 12 tokens" in clamped.notes
    assert max(len(w.tokens) for w in short_context.windows) == 12


def test_the_candidate_is_compared_with_the_stored_distributions(base: Path) -> None:
    baseline, candidate = Bigram(), Bigram(noise=0.3)
    _measure(base, baseline, _stage())
    measured = _measure(base, candidate, _stage(), Role.CANDIDATE)
    assert [m.name for m in measured.metrics] == [
        "perplexity",
        "kl_mean_nats",
        "top1_agreement",
        "delta_p_mean",
        "kl_p99_nats",
        "kl_p999_nats",
    ]
    p, q = baseline.logprobs, candidate.logprobs
    full_kl = (np.exp(p) * (p - q)).sum(axis=1)
    agree = p.argmax(axis=1) == q.argmax(axis=1)
    weights, clusters = {}, {}
    for text in (base / "notes.txt").read_text().split("\n\n"):
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        clusters[digest] = [0, *baseline.encode(text)]
    kl_sum = full_sum = n_tokens = 0.0
    for o in measured.observations:
        if o.cluster is None:
            continue
        tokens = clusters[o.cluster]
        weights[o.item_id] = o.weight
        assert o.weight == len(tokens) - 1
        if o.metric == "top1_agreement":
            assert o.value == pytest.approx(agree[tokens[:-1]].mean(), abs=1e-12)
        if o.metric == "delta_p":
            change = np.exp(q[tokens[:-1], tokens[1:]]) - np.exp(p[tokens[:-1], tokens[1:]])
            assert o.value == pytest.approx(change.mean(), abs=1e-6)
        if o.metric == "kl_nats":
            full = full_kl[tokens[:-1]]
            assert 0 < o.value <= full.mean() + 1e-6
            kl_sum, full_sum, n_tokens = kl_sum + o.value * o.weight, full_sum + full.sum(), n_tokens + o.weight
    assert n_tokens == sum(weights.values()) == 193
    assert 0.5 < kl_sum / full_sum < 1.0  # 5 of 30 tokens are kept
    assert any(note.startswith("KL is a lower bound, from the baseline's 5 most likely") for note in measured.notes)


def test_what_is_kept_of_the_distributions_fits_the_largest_size(base: Path) -> None:
    stage = _stage(top_k=20).model_copy(update={"max_store": "10KB"})  # 193 tokens: 51 bytes each
    assert "max_store 10KB: 5 of 20 log-probabilities a token kept" in _measure(base, Bigram(), stage).notes
    (rows,) = (base / "artifacts").glob("*/rows.bin")
    assert rows.stat().st_size == 193 * (8 * 5 + 8) <= 10_000
    measured = _measure(base, Bigram(noise=0.3), stage, Role.CANDIDATE)
    assert any("baseline's 5 most likely" in note and "float32 (0.0 MiB)" in note for note in measured.notes)


def test_a_largest_size_without_room_for_one_token_each_is_said(base: Path) -> None:
    stage = _stage().model_copy(update={"max_store": "3KB"})
    measured = _measure(base, Bigram(), stage)
    assert "perplexity only: max_store 3KB has no room for 193 tokens' distributions" in measured.notes
    assert [m.name for m in _measure(base, Bigram(), stage, Role.CANDIDATE).metrics] == ["perplexity"]


def test_with_the_whole_vocabulary_kept_kl_and_its_percentiles_are_exact(base: Path) -> None:
    baseline, candidate = Bigram(), Bigram(noise=0.3)
    _measure(base, baseline, _stage(top_k=4096))
    measured = _measure(base, candidate, _stage(top_k=4096), Role.CANDIDATE)
    kl = (np.exp(baseline.logprobs) * (baseline.logprobs - candidate.logprobs)).sum(axis=1)
    tokens = np.concatenate(
        [kl[[0, *baseline.encode(text)][:-1]] for text in (base / "notes.txt").read_text().split("\n\n")]
    )
    items = [o for o in measured.observations if o.metric == "kl_nats"]
    mean = sum(o.value * o.weight for o in items) / sum(o.weight for o in items)
    assert mean == pytest.approx(tokens.mean(), rel=1e-4)
    assert _values(measured, "kl_p99_nats")["run/0"] == pytest.approx(np.quantile(tokens, 0.99), rel=1e-4)
    assert _values(measured, "kl_p999_nats")["run/0"] == pytest.approx(np.quantile(tokens, 0.999), rel=1e-4)


def test_a_model_compared_with_itself_differs_by_exactly_nothing(base: Path) -> None:
    baseline = _measure(base, Bigram(), _stage())
    measured = _measure(base, Bigram(), _stage(), Role.CANDIDATE)
    assert _values(measured, "nll_nats") == _values(baseline, "nll_nats")
    assert set(_values(measured, "kl_nats").values()) == {0.0}
    assert set(_values(measured, "top1_agreement").values()) == {1.0}
    assert max(abs(v) for v in _values(measured, "delta_p").values()) < 1e-7


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        ("absent", "perplexity only: .*cannot be read"),
        ("corrupt", "perplexity only: .*found SHA-256"),
        ("no logits", "perplexity only: the bigram backend gives no logits"),
        ("vocabulary", r"perplexity only: .*name token \d+, beyond the candidate's vocabulary of 12"),
        ("top_k 0", None),
    ],
)
def test_without_distributions_the_candidate_reports_nll_and_why(base: Path, damage: str, note: str | None) -> None:
    _measure(base, Bigram(), _stage())
    (rows,) = (base / "artifacts").glob("*/rows.bin")
    info = INFO
    match damage:
        case "absent":
            rows.with_name("manifest.json").unlink()
        case "corrupt":
            rows.write_bytes(rows.read_bytes()[:-1] + b"?")
        case "no logits":
            info = replace(INFO, has_logits=False)
        case "vocabulary":
            info = replace(INFO, vocabulary_size=12)
    stage = _stage(top_k=0) if damage == "top_k 0" else _stage()
    measured = _measure(base, Bigram(info=info), stage, Role.CANDIDATE)
    assert [m.name for m in measured.metrics] == ["perplexity"]
    assert {o.metric for o in measured.observations} == {"nll_nats"}
    assert len(measured.observations) == measured.n_expected == 9
    if note is None:
        assert measured.notes == ()
    else:
        assert len(measured.notes) == 1
        assert re.search(note, measured.notes[0])


def test_a_document_the_baseline_lacks_has_no_divergence(base: Path) -> None:
    _measure(base, Bigram(), _stage())
    with (base / "notes.txt").open("a") as file:
        file.write("\n\n1 2 3 4")
    measured = _measure(base, Bigram(), _stage(), Role.CANDIDATE)
    new = hashlib.sha256(b"1 2 3 4").hexdigest()[:16]
    assert [o.metric for o in measured.observations if o.cluster == new] == ["nll_nats"]
    assert len(_values(measured, "kl_nats")) == 9


class Broken(Bigram):
    """Puts a NaN where token 7 follows token 6."""

    def __init__(self) -> None:
        super().__init__()
        self.logprobs[6] = np.nan


def test_a_nan_is_a_failed_item_and_never_a_number(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("1 2 3\n\n5 6 7 8\n\n4 5")
    baseline = _measure(tmp_path, Broken(), _stage())
    (failure,) = baseline.failures
    assert failure.kind == "not_finite"
    assert failure.message == "found NaN or infinity in nll_nats of 1 tokens"
    assert baseline.n_expected == 3
    assert len(baseline.observations) == 2
    candidate = _measure(tmp_path, Bigram(), _stage(), Role.CANDIDATE)
    assert len(_values(candidate, "nll_nats")) == 3
    assert set(_values(candidate, "kl_nats")) == set(_values(baseline, "nll_nats")), "no row of a NaN is compared"


class Full(Bigram):
    def score(self, windows: Sequence[Window], **_: Any) -> Iterator[WindowScores]:
        raise OutOfMemory("tried to allocate 3 GiB")


class Short(Bigram):
    def score(self, windows: Sequence[Window], **_: Any) -> Iterator[WindowScores]:
        for window in windows:
            nll = np.zeros(max(window.n_scored - 1, 1))
            yield WindowScores(nll_nats=nll, top_ids=None, top_logprobs=None, at_logprobs=None)


def test_out_of_memory_says_which_window_did_not_fit(base: Path) -> None:
    with pytest.raises(CouldNotMeasure, match=r"windows of up to 16 tokens \(tried to allocate 3 GiB\); use a smaller"):
        _measure(base, Full(), _stage())
    assert list((base / "artifacts").iterdir()) == []


def test_a_backend_that_loses_scores_is_caught(base: Path) -> None:
    with pytest.raises(CouldNotMeasure, match=r"returned \d+ scores for the \d+ tokens"):
        _measure(base, Short(), _stage())


def test_a_cut_to_one_token_without_bos_could_not_be_measured(base: Path) -> None:
    with pytest.raises(CouldNotMeasure, match="none of 9 documents has a token that can be scored at max_tokens 9"):
        _measure(base, Bigram(bos=None), _stage(max_tokens=9))


def test_an_empty_or_missing_corpus_is_said_by_check_and_by_measure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing, expected a corpus file"):
        perplexity.check(_stage(), tmp_path)
    (tmp_path / "notes.txt").write_text("\n \n")
    with pytest.raises(CouldNotMeasure, match=r"notes\.txt\) has no text"):
        perplexity.check(_stage(), tmp_path)
    with pytest.raises(CouldNotMeasure, match=r"notes\.txt\) has no text"):
        _measure(tmp_path, Bigram(), _stage())
    (tmp_path / "notes.txt").write_text("1 2")
    perplexity.check(_stage(), tmp_path)


# -- planned looks ----------------------------------------------------------------------------------------


class Remembering(Bigram):
    """Scores a token by everything before it in its window, so that another layout gives other numbers."""

    def score(
        self, windows: Sequence[Window], *, top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        for window, plain in zip(windows, super().score(windows, top_k=top_k, at_ids=at_ids), strict=True):
            seen = np.cumsum(np.array(window.tokens) * np.sqrt(np.arange(1, len(window.tokens) + 1)))
            yield replace(plain, nll_nats=plain.nll_nats + np.sin(seen[-window.n_scored - 1 : -1]))


def _corpus(folder: Path, lengths: Sequence[int]) -> Path:
    (folder / "notes.txt").write_text("\n\n".join(_document(n, seed) for seed, n in enumerate(lengths)))
    return folder


def _at(measurement: Measurement, metric: str, look: int) -> dict[str, tuple[float, float]]:
    """Cluster → (value, weight) of one look."""
    chosen = [o for o in measurement.observations if o.metric == metric and o.group == f"look={look}"]
    assert all(o.item_id.endswith(f"/look={look}") for o in chosen)
    return {str(o.cluster): (o.value, o.weight) for o in chosen}


LENGTHS = [40, 17, 16, 15, 1, 5, 33, 64, 50, 2]


@pytest.mark.parametrize("bos", [0, None])
@pytest.mark.parametrize("stride", [8, 16, 5])
@pytest.mark.parametrize("look", [30, 90, 200, 600])
def test_a_look_is_what_scoring_the_first_tokens_alone_would_give(
    tmp_path: Path, bos: int | None, stride: int, look: int
) -> None:
    base = _corpus(tmp_path, LENGTHS)
    grown = _measure(base, Remembering(bos=bos), _stage(looks=[30, 90, 200, 600], stride=stride))
    per_document = look // 10
    max_tokens = look if bos is not None else look + 10  # the first token is context there
    alone = _measure(base, Remembering(bos=bos), _stage(max_tokens=max_tokens, stride=stride))
    found = _at(grown, "nll_nats", look)
    assert len(found) == grown.n_expected == (10 if bos is not None else 9)
    for o in alone.observations:
        value, weight = found[str(o.cluster)]
        assert weight == o.weight <= per_document
        assert value == pytest.approx(o.value, rel=1e-12)


def test_looks_score_every_token_once_and_in_the_context_it_has_in_the_whole_text(tmp_path: Path) -> None:
    base = _corpus(tmp_path, [60, 47, 9])
    backend = Remembering()
    stage = _stage(looks=[15, 60, 180])
    _measure(base, backend, stage)
    whole = Remembering()
    _measure(base, whole, _stage())
    scored = sorted((w.tokens[: i + 1]) for w in backend.windows for i in range(len(w.tokens))[-w.n_scored :])
    expected = sorted((w.tokens[: i + 1]) for w in whole.windows for i in range(len(w.tokens))[-w.n_scored :])
    assert scored == expected
    assert len(scored) == 60 + 47 + 9


def test_parts_of_looks(tmp_path: Path) -> None:
    base = _corpus(tmp_path, [30] * 40)
    parts = _parts(base, Bigram(), _stage(looks=[80, 400, 800]))
    assert [len(p.observations) for p in parts] == [32, 8] * 3
    assert [{o.group for o in p.observations} for p in parts] == [
        {look} for look in ("look=80", "look=400", "look=800") for _ in range(2)
    ]
    assert [p.n_reached for p in parts] == [32, 8, 0, 0, 0, 0]
    assert [p.planned_tokens for p in parts] == [32 * 2, 8 * 2, 32 * 8, 8 * 8, 32 * 10, 8 * 10]
    merged = merge(parts)
    assert merged.n_expected == merged.n_reached == merged.n_available == 40
    assert merged.planned_tokens == 800
    assert {o.weight for o in merged.observations if o.group == "look=400"} == {10.0}


def test_progress_counts_documents_of_all_looks(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    context = Context(
        role=Role.BASELINE,
        base=_corpus(tmp_path, [30] * 33),
        settings_digest="settings",
        sample_seed="seed",
        order_seed="seed",
        artifacts=tmp_path / "artifacts",
        block=None,
        progress=lambda done, total, label: seen.append((done, total, label)),
    )
    list(perplexity.measure(cast(Backend, Bigram()), _stage(looks=[66, 330]), context))
    assert seen == [(i, 66, "notes") for i in range(1, 67)]


def test_looks_draw_64_documents_unless_told(tmp_path: Path) -> None:
    base = _corpus(tmp_path, [30] * 100)
    assert _measure(base, Bigram(), _stage(looks=[1000])).n_expected == 64
    assert _measure(base, Bigram(), _stage(looks=[1000], documents=20)).n_expected == 20


def test_a_look_at_a_corpus_that_is_too_short_says_so(tmp_path: Path) -> None:
    base = _corpus(tmp_path, [10, 20, 5])
    measured = _measure(base, Bigram(), _stage(looks=[9, 45, 90, 300]))
    assert sorted(o.weight for o in measured.observations if o.group == "look=45") == [5, 10, 15]
    assert sorted(o.weight for o in measured.observations if o.group == "look=90") == [5, 10, 20]
    assert {o.group for o in measured.observations} == {"look=9", "look=45", "look=90"}
    assert measured.notes == (
        "planned looks at the first 3, 15, 30, 100 scored tokens of each document",
        "the corpus is too short for look 45: 30 tokens can be scored",
        "the corpus is too short for look 90: 35 tokens can be scored",
        "the corpus is too short for look 300: 35 tokens can be scored",
        "look 300 is left out: it adds no token to look 90",
    )


def test_looks_of_a_single_token_without_bos_could_not_be_measured(tmp_path: Path) -> None:
    with pytest.raises(CouldNotMeasure, match="none of 2 documents has a token that can be scored; expected at least"):
        _measure(_corpus(tmp_path, [1, 1]), Bigram(bos=None), _stage(looks=[9]))


def test_divergence_at_every_look_is_that_of_its_tokens(tmp_path: Path) -> None:
    base = _corpus(tmp_path, LENGTHS)
    stage = _stage(top_k=4096, looks=[30, 90, 600])
    baseline, candidate = Bigram(), Bigram(noise=0.3)
    _measure(base, baseline, stage)
    (manifest,) = (base / "artifacts").glob("*/manifest.json")
    assert '/look=90": ' in manifest.read_text()
    measured = _measure(base, candidate, stage, Role.CANDIDATE)
    p, q = baseline.logprobs, candidate.logprobs
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    agree = p.argmax(axis=1) == q.argmax(axis=1)
    texts = (base / "notes.txt").read_text().split("\n\n")
    for look in (30, 90, 600):
        every = []
        for text in texts:
            before = np.array([0, *baseline.encode(text)][:-1][: look // 10])
            every.append(before)
            cluster = hashlib.sha256(text.encode()).hexdigest()[:16]
            value, weight = _at(measured, "kl_nats", look)[cluster]
            assert weight == len(before)
            assert value == pytest.approx(kl[before].mean(), rel=1e-4, abs=1e-7)
            assert _at(measured, "top1_agreement", look)[cluster][0] == pytest.approx(agree[before].mean(), abs=1e-12)
        (p99,) = [o for o in measured.observations if o.metric == "kl_p99_nats" and o.item_id == f"run/0/look={look}"]
        assert p99.group == f"look={look}"
        assert p99.value == pytest.approx(np.quantile(kl[np.concatenate(every)], 0.99), rel=1e-4)


def test_percentiles_of_a_look_count_every_token_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(_document(150, 1))
    stage = _stage(top_k=4096, looks=[1, 150])
    _measure(tmp_path, Bigram(), stage)
    candidate = Bigram()
    candidate.logprobs[0] = Bigram(seed=5).logprobs[0]  # differs after BOS alone: one token of 150 is beyond the 99th
    measured = _values(_measure(tmp_path, candidate, stage, Role.CANDIDATE), "kl_p99_nats")
    assert measured["run/0/look=1"] > 0.1
    assert measured["run/0/look=150"] < 1e-6


def test_a_model_compared_with_itself_differs_by_nothing_at_any_look(tmp_path: Path) -> None:
    base = _corpus(tmp_path, LENGTHS)
    stage = _stage(looks=[30, 90, 600])
    baseline = _measure(base, Remembering(), stage)
    measured = _measure(base, Remembering(), stage, Role.CANDIDATE)
    assert _values(measured, "nll_nats") == _values(baseline, "nll_nats")
    assert len(_values(measured, "nll_nats")) == 30
    assert set(_values(measured, "kl_nats").values()) == {0.0}


def test_a_candidate_that_stops_early_says_the_same_up_to_there(tmp_path: Path) -> None:
    base = _corpus(tmp_path, [30] * 40)
    stage = _stage(looks=[80, 400, 800])
    _measure(base, Bigram(), stage)
    whole = _parts(base, Bigram(noise=0.3), stage, Role.CANDIDATE)
    backend = Bigram(noise=0.3)
    context = Context(
        role=Role.CANDIDATE,
        base=base,
        settings_digest="settings",
        sample_seed="seed",
        order_seed="seed",
        artifacts=base / "artifacts",
        block=None,
        progress=lambda done, total, label: None,
    )
    growing = perplexity.measure(cast(Backend, backend), stage, context)
    first = [next(growing), next(growing)]
    assert [p.observations for p in first] == [p.observations for p in whole[:2]]
    assert sum(w.n_scored for w in backend.windows) == 80, "nothing is scored ahead"


def test_a_nan_loses_its_document_from_that_look_on(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("1 2 3 4\n\n1 5 6 7\n\n8 9 10 11")
    stage = _stage(looks=[6, 12])
    baseline = _measure(tmp_path, Broken(), stage)
    assert len(_at(baseline, "nll_nats", 6)) == 3
    assert len(_at(baseline, "nll_nats", 12)) == 2
    (failure,) = baseline.failures
    assert failure.item_id.endswith("/look=12")
    candidate = _measure(tmp_path, Bigram(), stage, Role.CANDIDATE)
    assert candidate.failures == ()
    assert len(_at(candidate, "kl_nats", 6)) == 3
    assert set(_at(candidate, "kl_nats", 12)) == set(_at(baseline, "nll_nats", 12)), "no row of a NaN is compared"
    assert len(_at(candidate, "nll_nats", 12)) == 3


class Early(Bigram):
    """Puts a NaN where a text starts with token 1."""

    def __init__(self) -> None:
        super().__init__()
        self.logprobs[0, 1] = np.nan


def test_a_nan_at_the_first_look_loses_the_document_at_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("1 2 3 4\n\n5 6 7 8\n\n8 9 10 11")
    stage = _stage(looks=[3, 6, 12])
    baseline = _measure(tmp_path, Early(), stage)
    assert [f.item_id.rpartition("/")[2] for f in baseline.failures] == ["look=3", "look=6", "look=12"]
    candidate = _measure(tmp_path, Bigram(), stage, Role.CANDIDATE)
    for look in (3, 6, 12):
        assert set(_at(candidate, "kl_nats", look)) == set(_at(baseline, "nll_nats", look))
        assert len(_at(candidate, "kl_nats", look)) == 2


def test_other_contexts_give_other_items_at_every_look(tmp_path: Path) -> None:
    base = _corpus(tmp_path, LENGTHS)
    ids = set(_values(_measure(base, Bigram(), _stage(looks=[30, 90])), "nll_nats"))
    short_context = Bigram(info=replace(INFO, context_length=12))
    assert ids.isdisjoint(_values(_measure(base, short_context, _stage(looks=[30, 90])), "nll_nats"))


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"looks": []}, "at least 1 item"),
        ({"looks": list(range(100, 1000, 100))}, "at most 8 items"),
        ({"looks": [0, 100]}, "greater than or equal to 1"),
        ({"looks": [100, 100]}, r"looks \[100, 100\] do not grow, expected each larger than the one before"),
        ({"looks": [400, 100]}, r"looks \[400, 100\] do not grow"),
        ({"looks": [100], "max_tokens": 100}, "found looks and max_tokens, expected one of them"),
        ({"looks": [100], "cluster": "block"}, "looks do not go with cluster: block"),
    ],
)
def test_looks_that_make_no_plan_are_refused(corpus: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _stage(**corpus)
