"""Stored distributions: what is written comes back exactly, and nothing else is accepted; divergence laws."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gate.errors import ArtifactError, CouldNotMeasure
from gate.stages import distributions, divergence

K, VOCABULARY = 8, 40


def _logprobs(n: int, seed: int, vocabulary: int = VOCABULARY, scale: float = 2.0) -> NDArray[np.float64]:
    logits = np.random.default_rng(seed).normal(0.0, scale, (n, vocabulary))
    shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.asarray(shifted, dtype=np.float64)


def _top(logprobs: NDArray[np.float64], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids = np.argsort(-logprobs, axis=1)[:, :k].astype(np.int32)
    return ids, np.take_along_axis(logprobs, ids, axis=1).astype(np.float32)


def _write(folder: Path, lengths: dict[str, int], digest: str = "settings") -> dict[str, NDArray[np.float64]]:
    written = {}
    with distributions.Writer(folder, k=K, settings_digest=digest) as writer:
        for seed, (key, n) in enumerate(lengths.items()):
            written[key] = _logprobs(n, seed)
            ids, top = _top(written[key], K)
            for begin in range(0, n, 3):  # several windows per unit
                part = slice(begin, begin + 3)
                writer.append(ids[part], top[part], written[key][part, 0])
            writer.close_unit(key, n)
        writer.finish()
    return written


def test_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    written = _write(tmp_path / "d", {"a": 7, "b": 1, "c": 4})
    reader = distributions.read(tmp_path / "d", settings_digest="settings")
    assert reader.k == K
    for key, logprobs in written.items():
        rows = reader.unit(key, len(logprobs))
        assert rows is not None
        ids, top = _top(logprobs, K)
        np.testing.assert_array_equal(rows["ids"], ids)
        np.testing.assert_array_equal(rows["logprobs"], top)
        np.testing.assert_array_equal(rows["true_logprob"], logprobs[:, 0].astype(np.float32))
        np.testing.assert_allclose(rows["tail"], 1 - np.exp(np.sort(logprobs)[:, -K:]).sum(axis=1), atol=1e-6)


def test_a_row_takes_eight_bytes_per_kept_token_and_eight_more(tmp_path: Path) -> None:
    _write(tmp_path / "d", {"a": 10})
    assert (tmp_path / "d" / "rows.bin").stat().st_size == 10 * (8 * K + 8)
    assert distributions.row_type(256).itemsize == 2056


@pytest.mark.parametrize("n_tokens", [1, 193, 64_000])
@pytest.mark.parametrize("max_bytes", [0, 16, 40, 200_000, 2**28])
def test_the_largest_k_is_the_last_that_fits(max_bytes: int, n_tokens: int) -> None:
    k = distributions.largest_k(max_bytes, n_tokens)
    assert k == 0 or distributions.row_type(k).itemsize * n_tokens <= max_bytes
    assert distributions.row_type(k + 1).itemsize * n_tokens > max_bytes


def test_a_unit_is_found_by_key_and_length_only(tmp_path: Path) -> None:
    _write(tmp_path / "d", {"a": 7})
    reader = distributions.read(tmp_path / "d", settings_digest="settings")
    assert reader.unit("b", 7) is None
    assert reader.unit("a", 6) is None
    assert reader.max_id <= VOCABULARY - 1


def test_rows_that_no_unit_claims_are_not_read(tmp_path: Path) -> None:
    ids, top = _top(_logprobs(5, 1), K)
    with distributions.Writer(tmp_path / "d", k=K, settings_digest="s") as writer:
        writer.append(ids, top, np.zeros(5))
        writer.append(ids[:2], top[:2], np.array([-1.0, -2.0]))
        writer.close_unit("kept", 2)
        writer.finish()
    rows = distributions.read(tmp_path / "d", settings_digest="s").unit("kept", 2)
    assert rows is not None
    assert rows["true_logprob"].tolist() == [-1.0, -2.0]


def test_an_unfinished_folder_never_appears_and_an_older_one_stays(tmp_path: Path) -> None:
    _write(tmp_path / "d", {"old": 2})
    with distributions.Writer(tmp_path / "d", k=K, settings_digest="settings") as writer:
        writer.append(*_top(_logprobs(5, 1), K), np.zeros(5))
        assert (tmp_path / "d.partial").is_dir()
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert distributions.read(tmp_path / "d", settings_digest="settings").unit("old", 2) is not None
    _write(tmp_path / "d", {"new": 2})
    assert distributions.read(tmp_path / "d", settings_digest="settings").unit("old", 2) is None


def test_a_full_disk_could_not_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, top = _top(_logprobs(5, 1), K)
    with distributions.Writer(tmp_path / "d", k=K, settings_digest="s") as writer:
        writer.append(ids, top, np.zeros(5))

        def replace(self: Path, target: Path) -> Path:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(CouldNotMeasure, match=r"No space left on device.*set top_k: 0"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["absent", "no manifest", "flipped", "truncated", "not json", "no units", "settings"]
)
def test_what_was_not_written_is_refused(tmp_path: Path, damage: str) -> None:
    folder, digest = tmp_path / "d", "settings"
    if damage != "absent":
        _write(folder, {"a": 7})
    rows, manifest = folder / "rows.bin", folder / "manifest.json"
    expected = "cannot be read"
    match damage:
        case "no manifest":
            manifest.unlink()
        case "flipped":
            data = bytearray(rows.read_bytes())
            data[100] ^= 1
            rows.write_bytes(data)
            expected = "found SHA-256"
        case "truncated":
            rows.write_bytes(rows.read_bytes()[:-1])
            expected = "found SHA-256"
        case "not json":
            manifest.write_text("{")
        case "no units":
            content = json.loads(manifest.read_text())
            del content["units"]
            manifest.write_text(json.dumps(content))
        case "settings":
            digest, expected = "other", r"found format and settings \(1, 'settings'\), expected \(1, 'other'\)"
    with pytest.raises(ArtifactError, match=expected):
        distributions.read(folder, settings_digest=digest)


def _full_kl(p_log: NDArray[np.float64], q_log: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((np.exp(p_log) * (p_log - q_log)).sum(axis=1), dtype=np.float64)


def _bound(p_log: NDArray[np.float64], q_log: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    ids, top = _top(p_log, k)
    at = np.take_along_axis(q_log, ids, axis=1).astype(np.float32)
    return divergence.kl_lower_bound_nats(top, divergence.tail_mass(top), at)


@given(seed=st.integers(0, 10_000), k=st.integers(1, VOCABULARY), scale=st.floats(0.1, 8.0))
def test_the_bound_lies_between_zero_and_the_divergence(seed: int, k: int, scale: float) -> None:
    p_log, q_log = _logprobs(5, seed, scale=scale), _logprobs(5, seed + 1, scale=scale)
    bound = _bound(p_log, q_log, k)
    assert (bound >= 0).all()
    assert (bound <= _full_kl(p_log, q_log) + 5e-6).all()


@given(seed=st.integers(0, 1_000))
def test_the_bound_grows_with_k_and_ends_at_the_divergence(seed: int) -> None:
    p_log, q_log = _logprobs(5, seed), _logprobs(5, seed + 1)
    bounds = [_bound(p_log, q_log, k) for k in (1, 8, 20, VOCABULARY)]
    for smaller, larger in pairwise(bounds):
        assert (smaller <= larger + 2e-6).all()
    np.testing.assert_allclose(bounds[-1], _full_kl(p_log, q_log), atol=1e-5)


def test_a_planted_perturbation_is_seen_almost_whole_from_the_top_tokens() -> None:
    p_log = _logprobs(200, 3, vocabulary=2000, scale=3.0)
    noisy = p_log + np.random.default_rng(4).normal(0.0, 0.1, p_log.shape)
    q_log = noisy - np.log(np.exp(noisy).sum(axis=1, keepdims=True))
    bound, full = _bound(p_log, q_log, 256).mean(), _full_kl(p_log, q_log).mean()
    assert 0.003 < full < 0.006  # about sd²/2
    assert 0.9 * full < bound <= full


def test_a_distribution_compared_with_itself_has_a_divergence_of_exactly_zero() -> None:
    p_log = _logprobs(50, 5)
    _, top = _top(p_log, K)
    stored_tail = divergence.tail_mass(top)
    assert divergence.kl_lower_bound_nats(top, stored_tail, top.copy()).tolist() == [0.0] * 50


def test_impossible_tokens_leave_the_bound_finite() -> None:
    top = np.log(np.array([[0.5, 0.5]], dtype=np.float32))
    with np.errstate(divide="ignore"):
        none = np.log(np.array([[1.0, 0.0]], dtype=np.float32))
    bound = divergence.kl_lower_bound_nats(top, divergence.tail_mass(top), none)
    assert bound[0] == pytest.approx(0.5 * np.log(0.5) + 0.5 * (np.log(0.5) + 700), rel=1e-6)
    assert divergence.kl_lower_bound_nats(none, divergence.tail_mass(none), top)[0] == pytest.approx(
        np.log(2), rel=1e-6
    )


def test_tokens_that_share_the_highest_probability_are_all_the_most_likely() -> None:
    ids = np.array([[7, 3, 5], [1, 2, 4]], dtype=np.int32)
    logprobs = np.array([[-1.0, -1.0, -2.0], [-0.5, -1.5, -1.5]], dtype=np.float32)
    for candidate, expected in (([7, 1], [1, 1]), ([3, 1], [1, 1]), ([5, 2], [0, 0]), ([9, 4], [0, 0])):
        found = divergence.top1_agreement(ids, logprobs, np.array(candidate, dtype=np.int32))
        assert found.tolist() == expected


def test_delta_p_is_candidate_minus_baseline() -> None:
    change = divergence.delta_p(np.log(np.array([0.5, 0.25], dtype=np.float32)), -np.log(np.array([0.4, 0.75])))
    np.testing.assert_allclose(change, [-0.1, 0.5], atol=1e-7)
