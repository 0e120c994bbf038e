"""What can be said of a policy from its local files alone, before anything is run: counts and the plan.

Loads no model, needs no network; data that is not there yet is simply not counted.
"""

from __future__ import annotations

from pathlib import Path

from gate.decide.plan import Plan, plan
from gate.errors import CouldNotMeasure, DataError, PolicyError
from gate.policy import Corpus, DomainStage, PerplexityStage
from gate.policy_file import LoadedPolicy
from gate.stages import corpus, domain_data


def planned(loaded: LoadedPolicy) -> Plan:
    """The plan of a policy with the local data counted."""
    return plan(loaded.policy, loaded.rules, _sizes(loaded))


def refuse_hopeless(loaded: LoadedPolicy) -> None:
    """Raises PolicyError for blocking rules that no candidate could pass, however good: no surprise after an hour."""
    problems = planned(loaded).problems
    if problems:
        raise PolicyError(loaded.source, problems)


def _sizes(loaded: LoadedPolicy) -> dict[str, int]:
    """Source → items or documents, for the files that are there and readable; the stages' own checks say the rest."""
    sizes: dict[str, int] = {}
    for stage in loaded.policy.stages:
        try:
            if isinstance(stage, DomainStage):
                sizes[stage.name] = len(domain_data.read_items(loaded.base / stage.data, lambda _: None))
            elif isinstance(stage, PerplexityStage):
                sizes |= {c.name: _documents(c, loaded.base) for c in stage.corpora if c.path is not None}
        except (DataError, CouldNotMeasure):
            continue
    return sizes


def _documents(settings: Corpus, base: Path) -> int:
    return len(corpus.read(settings, base))
