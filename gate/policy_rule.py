"""One acceptance rule as it is written in the policy: a metric and exactly one bound.

Pure: models and derived values only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gate import units
from gate.order import BLOCK_ITEMS
from gate.policy_values import Duration, Lengths, Lost, Name, Percent, Points, Positive, Quantity, RuleId, Speedup, Text
from gate.records import Bound, BoundKind, MaxLost, Scope, Severity

JUDGE_METRICS = frozenset({"judge_score", "judge_agreement"})


class Strict(BaseModel):
    """No unknown keys, no silent conversion (`fewshot: yes` is not 1); enums are written as their text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StageSettings(Strict):
    name: Name
    budget: Duration | None = Field(None, description="time limit of this stage, which both roles share")


_PARSERS = {
    BoundKind.MAX_INCREASE: units.percent,
    BoundKind.MAX_DROP: units.points,
    BoundKind.MIN_RETAINED: units.percent,
    BoundKind.MIN_SPEEDUP: units.speedup,
    BoundKind.MAX: units.quantity,
    BoundKind.MIN: units.quantity,
}


class RuleSettings(Strict):
    """One acceptance rule: a metric and exactly one bound."""

    id: RuleId | None = Field(None, description="a name that stays; default: stage.source.metric.bound")
    metric: Text
    max_increase: Percent | None = Field(None, description="largest relative increase over the baseline")
    max_drop: Points | None = Field(None, description="largest drop below the baseline, in percentage points")
    min_retained: Percent | None = Field(None, description="smallest share of the baseline's value kept")
    min_speedup: Speedup | None = Field(None, description="smallest speed-up over the baseline")
    max: Quantity | None = Field(None, description="largest value of the candidate itself")
    min: Quantity | None = Field(None, description="smallest value of the candidate itself")
    corpus: str | None = Field(None, description="perplexity: judge this corpus only")
    by: Literal["category", "subject"] | None = Field(None, description="a guard rail over groups of items")
    batch: Positive | None = Field(None, description="profile: judge this batch size only")
    lengths: Lengths | None = Field(None, description="profile: judge these prompt and new tokens only, as 1024+64")
    load: Text | None = Field(None, description="profile: judge this serving load only, as closed:8 or open:4")
    severity: Annotated[Severity, Field(strict=False)] | None = Field(
        None, description="default: blocking; advisory for the judge's metrics"
    )
    scope: Annotated[Scope, Field(strict=False)] = Scope.BENCHMARK
    max_items: Annotated[int, Field(ge=BLOCK_ITEMS)] | None = Field(
        None,
        description="items after which one last look is taken, at least 32, which is one block: half of the error is "
        "kept for it",
    )
    max_lost: Lost = Field(0, description="items that may be lost: a count or a percentage")

    @model_validator(mode="after")
    def _one_bound(self) -> RuleSettings:
        given = [k.value for k in BoundKind if getattr(self, k.value) is not None]
        if len(given) != 1:
            kinds = ", ".join(k.value for k in BoundKind)
            found = " and ".join(given) if given else "no bound"
            raise ValueError(f"found {found}, expected exactly one of {kinds}")
        return self

    def bound(self) -> Bound:
        """The one bound, parsed."""
        kind = next(k for k in BoundKind if getattr(self, k.value) is not None)
        raw = getattr(self, kind.value)
        if isinstance(raw, str):
            return Bound(kind=kind, value=_PARSERS[kind](raw), text=raw)
        return Bound(kind=kind, value=raw, text=f"{raw:g}")

    def effective_severity(self) -> Severity:
        """As written, else blocking; a judge's opinion blocks only where the policy says so."""
        if self.severity is not None:
            return self.severity
        return Severity.ADVISORY if self.metric in JUDGE_METRICS else Severity.BLOCKING

    def lost(self) -> MaxLost:
        if isinstance(self.max_lost, str):
            return MaxLost(count=None, share=units.percent(self.max_lost))
        return MaxLost(count=self.max_lost, share=None)
