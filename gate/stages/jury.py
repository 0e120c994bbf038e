"""What an LLM judge thinks of a stage's answers, as observations; what it fails to say, as notes.

An answer without an opinion is still measured: the judge's failures never count against the other metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gate.metrics import DOMAIN
from gate.policy import Judge
from gate.records import Observation
from gate.stages import judge_endpoint, matchers
from gate.stages.domain_scores import Outcome, observation
from gate.stages.isolation import Failed


class Jury:
    """Asks the judge, if there is one, about one block of answers after the other."""

    def __init__(self, judge: Judge | None, key: str | None) -> None:
        self._judge = judge
        self._key = key
        self._failures: list[Failed] = []
        self._silent = False

    def hear(self, outcomes: Sequence[Outcome]) -> list[Observation]:
        """Scores and agreements for the answers that the judge gave an opinion on."""
        if self._judge is None or self._silent or not outcomes:
            return []
        parts = [(o.item.input, matchers.texts(o.item)[0], o.output) for o in outcomes]
        opinions = judge_endpoint.opinions(self._judge, self._key, parts)
        failures = [opinion for opinion in opinions if isinstance(opinion, Failed)]
        self._failures += failures
        self._silent = len(failures) == len(opinions)  # the endpoint is down: do not wait for it item by item
        return [
            observation(DOMAIN[name], outcome, value)
            for outcome, opinion in zip(outcomes, opinions, strict=True)
            if not isinstance(opinion, Failed)
            for name, value in (("judge_score", opinion.score), ("judge_agreement", float(opinion.agreed)))
        ]

    def notes(self) -> Iterator[str]:
        """How often the judge failed, and on what first."""
        if self._failures:
            given_up = "; not asked again after a block without any reply" if self._silent else ""
            first = self._failures[0].message
            yield f"judge: no usable scores for {len(self._failures)} answers, first {first}{given_up}"
