"""Laws of the matchers, the data reader and the sample: hold for whatever text, number or seed."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate.errors import CouldNotMeasure, DataError
from gate.stages import matchers, text_metrics
from gate.stages.domain_data import Item, read_items
from gate.stages.sampling import draw

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
"""Times are not what is tested, and the folder of a test may be used again."""

WORD = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


class TestContains:
    @LAW
    @given(WORD, TEXT, TEXT)
    def test_a_word_between_spaces_is_found(self, word: str, before: str, after: str) -> None:
        assert matchers.contains(f"{before} {word} {after}", word)

    @LAW
    @given(WORD, TEXT)
    def test_case_does_not_matter(self, word: str, text: str) -> None:
        assert matchers.contains(text, word) == matchers.contains(text.casefold(), word.casefold())

    @LAW
    @given(TEXT, TEXT)
    def test_nothing_is_found_that_is_not_there(self, text: str, wanted: str) -> None:
        if matchers.contains(text, wanted):
            assert wanted.strip()
            assert len(wanted.strip()) <= 3 * len(text)


class TestNumber:
    @LAW
    @given(
        st.decimals(-(10**9), 10**9, places=2), st.sampled_from(["{:f}", "{:,f}", "${:,f}", "it is {:f}.", "{:f} %"])
    )
    def test_a_written_number_is_read_back(self, value: Decimal, form: str) -> None:
        assert matchers.number(form.format(value)) == value

    @LAW
    @given(TEXT)
    def test_any_text_is_read_or_not(self, text: str) -> None:
        found = matchers.number(text)
        assert found is None or found.is_finite()


class TestJson:
    @LAW
    @given(st.dictionaries(TEXT, JSON, max_size=4), TEXT.filter(lambda t: "{" not in t), TEXT)
    def test_an_object_is_found_wherever_it_stands(self, value: dict[str, object], before: str, after: str) -> None:
        answer = before + json.dumps(value) + after
        assert matchers.first_object(answer) == value
        assert matchers.has_fields(answer, value, None)

    @LAW
    @given(TEXT)
    def test_any_text_is_read_or_not(self, text: str) -> None:
        found = matchers.first_object(text)
        assert found is None or isinstance(found, dict)


class TestSignals:
    @LAW
    @given(TEXT)
    def test_scores_stay_between_zero_and_one(self, text: str) -> None:
        assert 0 <= text_metrics.rouge_l(text, ["the reference", text]) <= 1
        assert isinstance(text_metrics.is_repetitive(text), bool)


def _read(path: Path) -> tuple[str, list[Item]]:
    try:
        return "", read_items(path, lambda item: None)
    except (DataError, CouldNotMeasure) as error:
        return str(error), []


class TestReader:
    @LAW
    @given(data=st.binary(max_size=200))
    def test_any_bytes_are_items_or_a_clear_error(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "d.jsonl"
        path.write_bytes(data)
        said, items = _read(path)
        assert items or str(path) in said

    @LAW
    @given(value=JSON)
    def test_any_json_is_an_item_or_a_clear_error(self, tmp_path: Path, value: object) -> None:
        path = tmp_path / "d.jsonl"
        row = {"id": "a", "input": "x", "expected": value, "category": "c"}
        path.write_text(json.dumps(row) + "\n" + json.dumps(value) + "\n")
        said, items = _read(path)
        assert not items
        assert "line 2" in said


class TestSample:
    @LAW
    @given(st.lists(TEXT, unique=True, min_size=1, max_size=50), TEXT, st.integers(1, 60))
    def test_a_sample_has_its_size_and_no_item_twice(self, keys: list[str], seed: str, size: int) -> None:
        sample = draw(keys, seed=seed, sample=size)
        assert len(sample) == len(set(sample)) == min(size, len(keys))
        assert set(sample) <= set(range(len(keys)))

    @LAW
    @given(st.lists(TEXT, unique=True, min_size=2, max_size=30), TEXT, st.randoms())
    def test_the_order_of_the_file_does_not_matter(self, keys: list[str], seed: str, rng: object) -> None:
        shuffled = list(keys)
        rng.shuffle(shuffled)  # type: ignore[attr-defined]
        size = len(keys) // 2
        sample = [keys[i] for i in draw(keys, seed=seed, sample=size)]
        assert sample == [shuffled[i] for i in draw(shuffled, seed=seed, sample=size)]
