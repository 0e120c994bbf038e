"""The stages: each measures one kind of evidence in the worker and judges nothing.

Adding one: a module with `check`, `fetch` and `measure`, one line in `STAGES` and `VERSIONS`, a settings model in
`policy.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gate.records import Role

STAGES = {
    "perplexity": "gate.stages.perplexity",
    "lm_eval": "gate.stages.lm_eval",
    "domain": "gate.stages.domain",
    "profile": "gate.stages.profile",
}
"""Stage kind → module with three functions.

`check(settings, base) -> tuple[Path, ...]`: everything that can be said without a model (files, lines, task
    names); raises DataError.  Returns the local files that the scores depend on, in an order that does not depend
    on the machine: their content is part of the baseline store's key.  `base` is the folder that the policy's
    paths are relative to.
`fetch(settings, base) -> list[str]`: downloads what `measure` will look for in the local caches, and returns
    a line per thing now at hand (none for local files); raises DataError for unknown names, CouldNotMeasure
    for what could not be downloaded.  Only `gate fetch` calls it, in a worker that is online and has no model.
`measure(backend, settings, context) -> Iterator[Measurement]`: yields parts (see `records.merge`) as the
    work proceeds.  `settings` is the stage's policy model cut down to one source (`policy.split`).
"""

VERSIONS = {"perplexity": 2, "lm_eval": 4, "domain": 3, "profile": 2}
"""Raised when a stage would score the same settings differently: part of every baseline store key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a stage knows besides its settings.

    Attributes:
        role: whose model is loaded.
        base: folder that the policy's paths are relative to.
        settings_digest: content key of the settings, copied into every measurement.
        sample_seed: hex digest that the seeded samples derive from (same for both roles).
        order_seed: hex digest that the order of the sampled items derives from (`gate.order.place`).
        artifacts: folder for bulky by-products of the *baseline* (compact distributions): the baseline
            writes them there, the candidate reads them.
        block: number of the timing block for `profile`, else None.
        again: this block is of the second measurement, which confirms a timing rule that was red.
        progress: call with (done, total, label) as often as convenient.
    """

    role: Role
    base: Path
    settings_digest: str
    sample_seed: str
    order_seed: str
    artifacts: Path
    block: int | None
    progress: Callable[[int, int, str], None]
    again: bool = False
