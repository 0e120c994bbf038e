"""What can be said of a policy from its local files alone, before anything is run: counts and the plan.

Loads no model, needs no network; data that is not there yet is simply not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gate.decide.outlook import Floors
from gate.decide.plan import Known, Plan, plan
from gate.decide.profile_time import EXAMPLE, EXAMPLE_GPU, Model
from gate.decide.speed import Speed
from gate.errors import CouldNotMeasure, DataError, PolicyError, UsageError
from gate.policy import Corpus, DomainStage, PerplexityStage
from gate.policy_file import LoadedPolicy
from gate.records import Role
from gate.stages import corpus, domain_data
from gate.stages.sampling import token_estimate


def planned(
    loaded: LoadedPolicy,
    *,
    items_per_second: float | None = None,
    tokens_per_second: float | None = None,
    floors: Floors | None = None,
    flip_rates: Mapping[str, float] | None = None,
    model: Model = EXAMPLE,
    gpu: str = EXAMPLE_GPU,
) -> Plan:
    """The plan of a policy with the local data counted.

    Args:
        items_per_second: speed of the machine in benchmark items, for minutes; or
        tokens_per_second: in tokens of prompts and answers together.
        floors: what `gate calibrate` found; None when it was never run.
        flip_rates: source → share of answers that earlier candidates changed.
        model, gpu: what profile stages are run with and on, for their minutes.

    Raises:
        UsageError: both speeds are given, or one is not above 0.
    """
    try:
        speed = Speed(items_per_second=items_per_second, tokens_per_second=tokens_per_second)
    except ValueError as error:
        raise UsageError(str(error)) from error
    sizes, tokens = _counted(loaded)
    known = Known(floors=floors, flip_rates=flip_rates or {}, tokens=tokens, speed=speed, model=model, gpu=gpu)
    return plan(loaded.policy, loaded.rules, sizes, known)


def refuse_hopeless(loaded: LoadedPolicy, *, floors: Floors | None = None) -> None:
    """Raises PolicyError for blocking rules that no candidate could pass, however good: no surprise after an hour."""
    problems = planned(loaded, floors=floors).problems
    if problems:
        raise PolicyError(loaded.source, problems)


def _counted(loaded: LoadedPolicy) -> tuple[dict[str, int], dict[str, float]]:
    """Source → items or documents, and tokens of one item, for the files that are there and readable.

    The stages' own checks say what is wrong with the others.
    """
    sizes: dict[str, int] = {}
    tokens: dict[str, float] = {}
    for stage in loaded.policy.stages:
        try:
            if isinstance(stage, DomainStage):
                items = domain_data.read_items(loaded.base / stage.data, lambda _: None)
                sizes[stage.name] = len(items)
                tokens[stage.name] = _tokens(stage, items)
            elif isinstance(stage, PerplexityStage):
                sizes |= {c.name: _documents(c, loaded.base) for c in stage.corpora if c.path is not None}
        except (DataError, CouldNotMeasure):
            continue
    return sizes, tokens


def _tokens(stage: DomainStage, items: Sequence[domain_data.Item]) -> float:
    """About how many tokens the candidate's answers to an item take: every choice with its prompt, or the limit."""
    around = token_estimate(stage.template) * len(items)
    if stage.match == "choice":
        asked = sum(token_estimate(item.input, choice) for item in items for choice in item.choices or ())
    else:
        asked = sum(token_estimate(item.input) + stage.max_new_tokens for item in items)
    return (around + asked) / len(items) * stage.epochs.of(Role.CANDIDATE)


def _documents(settings: Corpus, base: Path) -> int:
    return len(corpus.read(settings, base))
