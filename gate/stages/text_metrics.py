"""Scores of text answers: ROUGE-L, BLEU, chrF, macro-F1 (all 0..1), and signals such as repetition.

Pure: the maintained libraries compute the scores; nothing here sees a model or judges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

N_GROUPS = 20
"""Delete-groups of a corpus score: its jackknife interval is made from this many leave-one-group-out values."""

REPEATED_SHARE = 0.3
"""An answer repeats itself when more than this share of its 4-grams occurred in it before.  Loops reach 50 % within
two rounds; prose stays below 5 %."""

_NGRAM = 4
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+|[^\w\s]")  # a CJK character, a word, or a sign


def is_repetitive(answer: str) -> bool:
    """Whether the answer goes in circles."""
    tokens = _TOKEN.findall(answer)
    grams = [tuple(tokens[i : i + _NGRAM]) for i in range(len(tokens) - _NGRAM + 1)]
    return len(grams) > _NGRAM and 1 - len(set(grams)) / len(grams) > REPEATED_SHARE


class _Words:
    """Tokenizer for rouge_score: its own drops every letter outside a–z."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.casefold())


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """ROUGE-L F-measure against the nearest reference, 0..1."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return max(float(scorer.score(reference, answer)["rougeL"].fmeasure) for reference in references)


CorpusScore = Callable[[Sequence[int]], float]
"""The score of the corpus made of the answers with these indices."""


def macro_f1(expected: Sequence[str], predicted: Sequence[str]) -> CorpusScore:
    """Mean F1 over the labels that are expected at least once, 0..1; any other prediction is just wrong."""
    from sklearn.metrics import f1_score

    def score(indices: Sequence[int]) -> float:
        right, said = [expected[i] for i in indices], [predicted[i] for i in indices]
        return float(f1_score(right, said, labels=sorted(set(right)), average="macro", zero_division=0))

    return score


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]]) -> CorpusScore:
    """Corpus BLEU (sacrebleu's defaults), 0..1."""
    from sacrebleu.metrics import BLEU

    return _sacrebleu(BLEU(), answers, references)


def chrf(answers: Sequence[str], references: Sequence[Sequence[str]]) -> CorpusScore:
    """Corpus chrF (sacrebleu's defaults), 0..1."""
    from sacrebleu.metrics import CHRF

    return _sacrebleu(CHRF(), answers, references)


def _sacrebleu(metric: Any, answers: Sequence[str], references: Sequence[Sequence[str]]) -> CorpusScore:
    # sacrebleu wants streams: the k-th references of all answers; None where an answer has fewer
    most = max(map(len, references))
    streams = [[r[k] if k < len(r) else None for r in references] for k in range(most)]
    # sentence statistics add up to those of a corpus: 21 corpus scores for the price of one
    statistics = metric._extract_corpus_statistics(list(answers), streams)

    def score(indices: Sequence[int]) -> float:
        return float(metric._aggregate_and_compute([statistics[i] for i in indices]).score) / 100

    return score


def delete_group_values(score: CorpusScore, groups: Sequence[int]) -> list[tuple[str, float]]:
    """The corpus score of all items and without each group in turn: (`all`, v), (`without/0`, v), …

    Args:
        groups: group number of every item; groups whose removal leaves nothing are left out.
    """
    everything = range(len(groups))
    values = [("all", score(list(everything)))]
    for group in sorted(set(groups)):
        rest = [i for i in everything if groups[i] != group]
        if rest:
            values.append((f"without/{group}", score(rest)))
    return values
