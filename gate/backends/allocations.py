"""What a piece of work allocates on a CPU, by torch's own books: the same number in every run.

What else the process does is not in them.  A kernel's own scratch memory (oneDNN, BLAS) is not in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def highest_bytes(work: Callable[[], object]) -> int:
    """Most bytes that torch held at once of what it allocated during `work`, which runs slower than without."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    inner: Any = seen.profiler
    events = sorted(inner.kineto_results.events(), key=lambda event: event.start_ns())
    held = highest = 0
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest
