"""How long a publication waits, altogether: tries, pauses between them, one deadline over all.

No clock of its own: `monotonic` and `sleep` are arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from gate.publish.problem import PublishError

DEADLINE_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 60.0
TRIES = 7
"""Of one call: after pauses of 1, 2, 4, 8, 16 and 32 seconds it is given up."""


class Patience:
    """One for a whole publication."""

    def __init__(
        self,
        *,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._sleep, self._monotonic = sleep, monotonic
        self._end = monotonic() + deadline_seconds
        self._deadline_seconds = deadline_seconds

    @property
    def left_seconds(self) -> float:
        return self._end - self._monotonic()

    def check(self, call: str) -> None:
        """
        Raises:
            PublishError: the deadline has passed.
        """
        if self.left_seconds <= 0:
            raise PublishError(f"publishing takes longer than {self._deadline_seconds:.0f} seconds: given up at {call}")

    def again(self, tried: int, problem: PublishError, *, seconds: float | None = None) -> None:
        """Pause before the next try; `tried` is how often it was tried, `seconds` what GitHub asked for.

        Raises:
            PublishError: `problem` itself, where it was tried often enough or the deadline would pass.
        """
        if tried >= TRIES:
            raise type(problem)(f"{problem} (given up after {tried} tries)", status=problem.status) from problem
        pause = min(2.0 ** (tried - 1), LONGEST_PAUSE_SECONDS) if seconds is None else max(seconds, 1.0)
        if pause >= self.left_seconds:
            allowed = f"{self._deadline_seconds:.0f} seconds that publishing may take"
            told = f"{problem} (given up: a pause of {pause:.0f} seconds would pass the {allowed})"
            raise type(problem)(told, status=problem.status) from problem
        self._sleep(pause)
