"""A run folder of this gate, read back: its record, and what each role measured.

Reads; judges nothing.  Says whether a policy asks for what was measured; never takes one setting for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gate import artifact, order, policy
from gate.errors import ArtifactError
from gate.finished import first_items
from gate.finished.stage import NoEvidence
from gate.records import Measurement, Role, RunRecord, StageResult, Status

_NOT_MEASURED = frozenset({"name", "budget", "rules", "text_metrics"})
"""Settings that change no score: a text metric that was not computed is missed by the rule that names it."""

_DRAWN_BY_SEED = ("sample", "documents", "max_tokens", "looks")
"""Settings that leave something out, by the seed: a text that is cut by tokens is cut in documents that are drawn."""

_IN_SEEDED_ORDER = (policy.DomainStage, policy.LmEvalStage)
"""Stages whose items come one after the other, so that an early stop measures the first ones alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """A finished run: its record, the policy it ran under, and its measurements by stage, source and role."""

    path: Path
    record: RunRecord
    ran_under: policy.Policy
    measurements: Mapping[tuple[str, str, Role], Measurement]

    @property
    def order_seed(self) -> str | None:
        """What the candidate's items were ordered by; None where the run ended before it knew its checkpoints."""
        return self.ordered_by(self.ran_under.seed)

    def ordered_by(self, seed: int) -> str | None:
        """What a policy of this seed orders the candidate's items by; None as of `order_seed`."""
        if self.record.baseline is None or self.record.candidate is None:
            return None
        sample = order.sample_seed(seed, self.record.baseline.effective_digest)
        return order.order_seed(sample, self.record.candidate.effective_digest)

    def stage(self, name: str) -> StageResult | None:
        return next((s for s in self.record.stages if s.name == name), None)

    def measured(self, stage: str, source: str, role: Role) -> Measurement | NoEvidence:
        """The measurement, or why there is none in this folder."""
        found = self.measurements.get((stage, source, role))
        if found is not None:
            return found
        ended = self.stage(stage)
        if ended is None:
            return NoEvidence(
                reason=f"the {role} was not measured in that run: it had no such stage", was_skipped=False
            )
        if ended.status is Status.SKIPPED:
            return NoEvidence(reason=ended.skipped_because or "skipped", was_skipped=True)
        said = next((f for f in ended.findings if f.rule.source == source and f.interval is None), None)
        if said is not None and said.status is Status.SKIPPED:
            return NoEvidence(reason=said.reason, was_skipped=True)
        why = f": {said.reason}" if said is not None else ""
        return NoEvidence(reason=f"the {role} was not measured in that run{why}", was_skipped=False)

    def differs(self, source: str, settings: policy.Stage, seed: int) -> str | None:
        """How what was measured differs from what these settings (of one source) ask; None if it does not."""
        then = next((s for s in self.ran_under.stages if s.name == settings.name), None)
        if then is None:
            return None  # there is no measurement either
        if then.kind != settings.kind:
            return f"{settings.name!r} is a stage of kind {then.kind} in that run, this policy asks {settings.kind}"
        measured = dict(policy.split(then)).get(source)
        if measured is None:
            return None
        was, asked = _plain(measured), _plain(settings)
        for key in sorted(was.keys() | asked.keys()):
            if was.get(key) != asked.get(key):
                return (
                    f"that run measured it with {key} {_shown(was.get(key))}, this policy asks {_shown(asked.get(key))}"
                )
        if seed != self.ran_under.seed and any(was.get(key) is not None for key in _DRAWN_BY_SEED):
            return f"that run drew its sample with seed {self.ran_under.seed}, this policy asks {seed}"
        return None

    def began_elsewhere(self, source: str, settings: policy.Stage, seed: int) -> str | None:
        """Why the items of a candidate that was stopped early are not the first of this seed's order; None if they are.

        None as well where all of them were measured: then no order changes what there is to judge.
        """
        baseline, candidate = (self.measurements.get((settings.name, source, role)) for role in Role)
        if baseline is None or candidate is None or not first_items.stopped_early(candidate):
            return None
        if not isinstance(settings, _IN_SEEDED_ORDER):
            return None
        reached = f"that run measured {candidate.n_reached} of {candidate.n_expected} items"
        if seed != self.ran_under.seed:
            return (
                f"{reached}, the first by seed {self.ran_under.seed}, and this policy asks for the first by seed {seed}"
            )
        ordered_by = self.ordered_by(seed)
        if ordered_by is None or not first_items.are_first(baseline, candidate, ordered_by):
            return f"{reached}, which are not the first of its checkpoints and its seed"
        return None


def is_run_folder(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def read_run(folder: Path) -> RunFolder:
    """Read a run's record and observations.

    Raises:
        ArtifactError: a file is damaged, incomplete, of a newer gate, or holds a source twice.
    """
    try:
        record = artifact.loads_record((folder / "run.json").read_bytes())
        files = sorted((folder / "observations").glob("*.parquet"))
    except OSError as problem:
        raise ArtifactError(f"{folder} cannot be read ({problem.strerror}), expected a run's folder") from problem
    measurements: dict[tuple[str, str, Role], Measurement] = {}
    for file in files:
        for one in artifact.read_observations(file):
            key = (one.stage, one.source, one.role)
            if key in measurements:
                raise ArtifactError(f"{file} holds {one.stage}/{one.source} of the {one.role} twice, expected it once")
            measurements[key] = one
    try:
        ran_under = policy.Policy.model_validate(record.policy)
    except ValidationError as problem:
        raise ArtifactError(
            f"the policy in {folder / 'run.json'} is not one that this gate reads ({problem.errors()[0]['msg']}): it "
            "cannot be said what was measured, run the gate again"
        ) from problem
    return RunFolder(path=folder, record=record, ran_under=ran_under, measurements=measurements)


def _plain(settings: policy.Stage) -> dict[str, Any]:
    """The settings of one source as plain data, flat: what is measured, and nothing of how it is judged."""
    data = settings.model_dump(mode="json", exclude_none=True)
    (inner,) = data.pop("corpora", None) or data.pop("tasks", None) or [{}]
    return {k: v for k, v in {**data, **inner}.items() if k not in _NOT_MEASURED}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:120]
