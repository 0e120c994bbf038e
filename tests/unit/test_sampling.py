"""The seeded sample (hole 12: never the first N of the file) and the isolation of bad items (hole 4)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gate.errors import CouldNotMeasure
from gate.order import BLOCK_ITEMS
from gate.stages.isolation import Failed, each
from gate.stages.sampling import blocks, digest, draw

KEYS = [f"item-{i}" for i in range(1000)]


def test_a_sample_is_not_the_first_n() -> None:
    sample = draw(KEYS, seed="s", sample="20%")
    assert len(sample) == len(set(sample)) == 200
    assert 70 < sum(i >= 500 for i in sample) < 130  # both halves of the file; 5 sd wide
    assert sample != sorted(sample)


def test_the_sample_follows_from_seed_and_content_alone() -> None:
    assert draw(KEYS, seed="s", sample=50) == draw(KEYS, seed="s", sample=50)
    assert draw(KEYS, seed="t", sample=50) != draw(KEYS, seed="s", sample=50)
    shuffled = KEYS[::-1]
    assert [shuffled[i] for i in draw(shuffled, seed="s", sample=50)] == [
        KEYS[i] for i in draw(KEYS, seed="s", sample=50)
    ]


def test_a_smaller_sample_is_a_prefix_of_a_larger_one() -> None:
    assert draw(KEYS, seed="s", sample=300)[:50] == draw(KEYS, seed="s", sample=50)


@pytest.mark.parametrize(
    ("available", "sample", "size"),
    [(14042, "20%", 2808), (10, None, 10), (10, 3, 3), (10, 99, 10), (10, "100%", 10), (10, "150%", 10), (3, "50%", 2)],
)
def test_sample_sizes(available: int, sample: str | int | None, size: int) -> None:
    assert len(draw([str(i) for i in range(available)], seed="s", sample=sample)) == size


@pytest.mark.parametrize(("available", "sample"), [(0, None), (10, "1%"), (10, "0%")])
def test_an_empty_sample_is_an_error(available: int, sample: str | None) -> None:
    with pytest.raises(CouldNotMeasure, match=f"of {available} items\\), expected at least one"):
        draw([str(i) for i in range(available)], seed="s", sample=sample)


def test_equal_items_are_all_kept() -> None:
    assert sorted(draw(["same", "same", "other"], seed="s", sample=None)) == [0, 1, 2]


def test_digest_keeps_its_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")


def test_blocks() -> None:
    assert [len(b) for b in blocks(range(70))] == [BLOCK_ITEMS, BLOCK_ITEMS, 6]


def test_one_bad_item_does_not_take_the_others_with_it() -> None:
    calls: list[list[int]] = []

    def call(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        if 3 in items:
            raise ValueError("three is too long\nsecond line")
        return [i * 10 for i in items]

    assert each(call, [1, 2, 3]) == [10, 20, Failed(kind="model_error", message="ValueError: three is too long")]
    assert calls == [[1, 2, 3], [1], [2], [3]]


def test_running_out_of_memory_is_named() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    def call(items: Sequence[int]) -> list[int]:
        raise OutOfMemoryError("20 GiB")

    assert each(call, [1]) == [Failed(kind="out_of_memory", message="OutOfMemoryError: 20 GiB")]


def test_fewer_answers_than_items_is_an_error() -> None:
    with pytest.raises(CouldNotMeasure, match="found 1 results for 2 items"):
        each(lambda items: [0], [1, 2])


def test_what_no_item_causes_is_not_swallowed() -> None:
    def call(items: Sequence[int]) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        each(call, [1])
