"""From what was answered to observations: per item, and over the whole set for macro-F1, BLEU and chrF.

Pure.  Decides which metrics a domain stage reports; measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gate.backends import Generation
from gate.errors import DataError
from gate.metrics import DOMAIN
from gate.policy import DomainStage
from gate.records import Metric, Observation
from gate.stages import matchers, text_metrics
from gate.stages.domain_data import Item
from gate.stages.epochs import pass_at_k

_TEXTUAL = ("exact", "contains", "regex", "numeric", "json")
_SIGNALS = ("repetition_rate", "empty_rate", "truncated_rate", "length_ratio")
_FITS = {
    "macro_f1": ("exact", "contains", "choice"),
    **dict.fromkeys(("rouge_l", "bleu", "chrf"), ("exact", "contains", "numeric")),
    **dict.fromkeys((*_SIGNALS, "invalid_json_rate", "pass_at_k"), _TEXTUAL),
}
"""Under which kinds of match a metric means something: there are labels, texts to compare with, or any text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """An item as answered in one epoch.

    `position` is its place in the sample; `generation` is None when a choice was scored.
    """

    item: Item
    item_id: str
    position: int
    prompt: str
    output: str
    is_right: bool
    generation: Generation | None


def declared(settings: DomainStage) -> tuple[Metric, ...]:
    """The metrics that the stage reports: accuracy, text signals, and what the policy asks for.

    Raises:
        DataError: a wanted metric makes no sense with the stage's kind of match.
    """
    wanted = {*settings.text_metrics, *(rule.metric for rule in settings.rules)}
    for name in sorted(wanted):
        if settings.match not in _FITS.get(name, (settings.match,)):
            fits = ", ".join(_FITS[name])
            raise DataError(f"stage {settings.name!r}: {name} cannot be measured with match: {settings.match} ({fits})")
    names = {"accuracy", *(wanted & _FITS.keys())}
    names |= set(_SIGNALS) if settings.match in _TEXTUAL else set()
    names |= {"pass_at_k"} if settings.pass_at is not None else set()
    names |= {"invalid_json_rate"} if settings.match == "json" else set()
    names |= {"judge_score", "judge_agreement"} if settings.judge is not None else set()
    return tuple(metric for name, metric in DOMAIN.items() if name in names)


def item_observations(metrics: Sequence[Metric], outcome: Outcome) -> Iterator[Observation]:
    """The values of one item, for the metrics among `metrics` that are values of items."""
    for metric in metrics:
        value = _value(metric.name, outcome)
        if value is not None:
            yield observation(metric, outcome, value)


def observation(metric: Metric, outcome: Outcome, value: float) -> Observation:
    return Observation(
        metric=metric.observed,
        item_id=outcome.item_id,
        value=float(value),
        weight=1.0,
        cluster=None,
        group=outcome.item.category,
    )


def pass_observation(outcomes: Sequence[Outcome], k: int) -> Observation:
    """`pass_at_k` of one item from its answers, one of each epoch."""
    right = sum(outcome.is_right for outcome in outcomes)
    return observation(DOMAIN["pass_at_k"], outcomes[0], pass_at_k(answers=len(outcomes), right=right, k=k))


def _value(name: str, outcome: Outcome) -> float | None:
    if name == "accuracy":
        return outcome.is_right
    generation = outcome.generation
    if generation is None:
        return None
    match name:
        case "repetition_rate":
            return text_metrics.is_repetitive(generation.text)
        case "empty_rate":
            return not generation.text.strip()
        case "truncated_rate":
            return generation.finish == "length"
        case "length_ratio":
            return generation.n_tokens
        case "invalid_json_rate":
            return matchers.first_object(generation.text) is None
        case "rouge_l":
            return text_metrics.rouge_l(generation.text, matchers.texts(outcome.item))
        case _:
            return None


def corpus_observations(
    settings: DomainStage, metrics: Sequence[Metric], outcomes: Sequence[Outcome]
) -> Iterator[Observation]:
    """Corpus scores of all outcomes and without each delete-group; both roles have the same groups."""
    groups = [outcome.position % text_metrics.N_GROUPS for outcome in outcomes]
    answers = [outcome.output for outcome in outcomes]
    references = [matchers.texts(outcome.item) for outcome in outcomes]
    for metric in metrics:
        match metric.name:
            case "bleu":
                score = text_metrics.bleu(answers, references)
            case "chrf":
                score = text_metrics.chrf(answers, references)
            case "macro_f1":
                score = text_metrics.macro_f1([r[0] for r in references], _labels(settings, outcomes))
            case _:
                continue
        for item_id, value in text_metrics.delete_group_values(score, groups):
            yield Observation(
                metric=metric.observed, item_id=item_id, value=value, weight=1.0, cluster=None, group=None
            )


def _labels(settings: DomainStage, outcomes: Sequence[Outcome]) -> list[str]:
    """What each answer was taken for: its own label when right, else the first other label that it matches."""
    if settings.match == "choice":
        return [outcome.output for outcome in outcomes]
    names = sorted({matchers.texts(outcome.item)[0] for outcome in outcomes})

    def label(outcome: Outcome) -> str:
        if outcome.is_right:
            return matchers.texts(outcome.item)[0]
        hit = matchers.contains if settings.match == "contains" else lambda answer, name: answer.strip() == name.strip()
        return next((name for name in names if hit(outcome.output, name)), "")

    return [label(outcome) for outcome in outcomes]
