"""Text metrics: numbers of the maintained libraries, on a 0..1 scale, and the edges of the signals."""

from __future__ import annotations

import pytest
import sacrebleu
from sklearn.metrics import f1_score

from gate.stages import text_metrics

ANSWERS = ["the cat sat on the mat today again", "a dog barked at the moon in june", "nothing matches at all"] * 8
REFERENCES = [
    ["the cat sat on a mat today again", "the cat is on the mat"],
    ["the dog barked at the moon in june"],
    ["no match exists here"],
] * 8


@pytest.mark.parametrize(
    ("score", "library"),
    [(text_metrics.bleu, sacrebleu.corpus_bleu), (text_metrics.chrf, sacrebleu.corpus_chrf)],
)
@pytest.mark.parametrize("n", [1, 5, 24])
def test_corpus_scores_are_sacrebleus(score: object, library: object, n: int) -> None:
    streams = [[r[0] for r in REFERENCES[:n]], [r[1] if len(r) > 1 else None for r in REFERENCES[:n]]]
    ours = score(ANSWERS, REFERENCES)(list(range(n)))  # type: ignore[operator]
    assert ours == pytest.approx(library(ANSWERS[:n], streams).score / 100, rel=1e-12)  # type: ignore[operator]
    assert 0 < ours < 1


def test_identical_answers_score_one() -> None:
    references = [[answer] for answer in ANSWERS]
    assert text_metrics.bleu(ANSWERS, references)(range(24)) == pytest.approx(1.0)
    assert text_metrics.chrf(ANSWERS, references)(range(24)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("answer", "references", "value"),
    [
        ("the cat sat", ["the cat sat"], 1.0),
        ("The CAT, sat!", ["the cat sat"], 1.0),
        ("the cat", ["the cat sat on"], 2 / 3),  # precision 1, recall 1/2
        ("Москва столица", ["москва столица"], 1.0),  # rouge_score's own tokenizer would say 0
        ("dog", ["cat", "dog"], 1.0),
        ("", ["cat"], 0.0),
    ],
)
def test_rouge_l(answer: str, references: list[str], value: float) -> None:
    assert text_metrics.rouge_l(answer, references) == pytest.approx(value)


def test_macro_f1_averages_over_the_expected_labels() -> None:
    expected = ["a", "a", "b", "b", "c", "c"]
    predicted = ["a", "b", "b", "b", "", "zebra"]
    score = text_metrics.macro_f1(expected, predicted)
    assert score(range(6)) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert score(range(4)) == pytest.approx(f1_score(expected[:4], predicted[:4], average="macro"))


def test_delete_group_values() -> None:
    values = text_metrics.delete_group_values(lambda indices: float(sum(indices)), [0, 1, 0, 3])
    assert values == [("all", 6.0), ("without/0", 4.0), ("without/1", 5.0), ("without/3", 3.0)]


def test_a_single_group_leaves_no_value_without_it() -> None:
    assert text_metrics.delete_group_values(lambda indices: 1.0, [2, 2]) == [("all", 1.0)]


@pytest.mark.parametrize(
    ("answer", "repetitive"),
    [
        ("yes yes yes yes yes yes yes yes yes", True),
        ("and so on " * 10, True),
        ("!" * 20, True),
        ("银行" * 12, True),
        ("The total is 12 EUR because 5 plus 7 is 12, and the limit of 20 is not reached by that.", False),
        ("yes", False),
        ("ha ha ha ha", False),
        ("", False),
    ],
)
def test_repetition(answer: str, repetitive: bool) -> None:
    assert text_metrics.is_repetitive(answer) is repetitive
