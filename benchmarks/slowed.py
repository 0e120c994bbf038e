"""The hf backend with a sleep in the forward pass: a slowdown of known size, for `benchmarks/timing_aa.py`.

Runs in the measuring child: `gate.backends.BACKENDS` names `open_backend` below.  For CPUs, where a forward pass ends
when its call returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gate.backends import Backend, Checkpoint

NAME = "slowed-hf"
WHERE = "benchmarks.slowed:open_backend"
SHARE = "slowdown"
"""Engine setting: 0.05 makes every step last 1.05 times as long."""


def open_backend(checkpoint: Checkpoint, device: str) -> Backend:
    """Load as the hf backend does, then plant the sleep."""
    from gate.backends import hf  # the parent reads the names above, and loads no torch

    engine = dict(checkpoint.engine)
    sleep = Sleep(float(engine.pop(SHARE)))
    backend = hf.open_backend(replace(checkpoint, engine=engine), device)
    model = backend._model

    def before(_: Any, positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        ids = positional[0] if positional else named["input_ids"]
        sleep.before(begins=ids.shape[-1] > 1)  # steps after the first have one token for each sequence

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.register_forward_hook(sleep.after)
    return backend


class Sleep:
    """Sleeps at the end of each forward pass, for `share` of the step that it ends.

    A step begins where the one before it ended, so what `generate` does in between is slowed as well; the first one of
    a batch begins with its forward pass, for before that the process was idle.  A sleep lasts longer than was asked
    for; what it was too long is taken off the next ones.
    """

    def __init__(
        self,
        share: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._share, self._clock, self._sleep = share, clock, sleep
        self._begun = 0.0
        self._owed_seconds = 0.0

    def before(self, *, begins: bool) -> None:
        if begins:
            self._begun = self._clock()

    def after(self, *_: Any) -> None:
        ended = self._clock()
        self._owed_seconds += self._share * (ended - self._begun)
        self._begun = ended
        if self._owed_seconds > 0:
            self._sleep(self._owed_seconds)
            self._begun = self._clock()
            self._owed_seconds -= self._begun - ended
