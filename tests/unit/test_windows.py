"""Window arithmetic: every token but the first is scored once, with the context that the definition promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.stages.windows import blocks, spans, tokens_per_document


def _triples(n_tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    return [(s.begin, s.end, s.n_scored) for s in spans(n_tokens, window=window, stride=stride)]


@pytest.mark.parametrize(
    ("n_tokens", "window", "stride", "expected"),
    [
        (0, 4, 2, []),
        (1, 4, 2, []),
        (2, 4, 2, [(0, 2, 1)]),
        (4, 4, 2, [(0, 4, 3)]),
        (5, 4, 2, [(0, 4, 3), (2, 5, 1)]),  # a tail of one token
        (6, 4, 2, [(0, 4, 3), (2, 6, 2)]),
        (9, 4, 2, [(0, 4, 3), (2, 6, 2), (4, 8, 2), (6, 9, 1)]),
        (8, 4, 1, [(0, 4, 3), (1, 5, 1), (2, 6, 1), (3, 7, 1), (4, 8, 1)]),
        (8, 4, 4, [(0, 4, 3), (3, 7, 3), (6, 8, 1)]),  # stride = window advances by window - 1
        (4, 2, 2, [(0, 2, 1), (1, 3, 1), (2, 4, 1)]),
    ],
)
def test_spans_by_table(n_tokens: int, window: int, stride: int, expected: list[tuple[int, int, int]]) -> None:
    assert _triples(n_tokens, window, stride) == expected


@given(n_tokens=st.integers(0, 300), window=st.integers(2, 40), data=st.data())
def test_every_token_but_the_first_is_scored_exactly_once(n_tokens: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    scored: list[int] = []
    for span in spans(n_tokens, window=window, stride=stride):
        assert span.end - span.begin <= window
        assert 1 <= span.n_scored < span.end - span.begin, "a scored token needs a token before it"
        scored += range(span.end - span.n_scored, span.end)
    assert scored == list(range(1, n_tokens))


@given(n_tokens=st.integers(2, 300), window=st.integers(2, 40), data=st.data())
def test_later_windows_keep_window_minus_stride_tokens_of_context(
    n_tokens: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    kept = max(window - stride, 1)
    for span in list(spans(n_tokens, window=window, stride=stride))[1:]:
        assert span.end - span.n_scored - span.begin == kept


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (4, 0), (4, 5)])
def test_impossible_windows_are_refused(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match=f"found window {window}, stride {stride}"):
        list(spans(10, window=window, stride=stride))


@pytest.mark.parametrize(("max_tokens", "n_documents", "expected"), [(1000, 64, 16), (1024, 64, 16), (1025, 64, 17)])
def test_tokens_per_document_rounds_up(max_tokens: int, n_documents: int, expected: int) -> None:
    assert tokens_per_document(max_tokens, n_documents) == expected


def test_blocks_cover_the_scored_tokens_with_a_shorter_last_one() -> None:
    assert [(b.start, b.stop) for b in blocks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(blocks(0, 3)) == []
