"""Seeded plans of what goes wrong between the gate and GitHub: the same seed, the same misfortunes.

Decides when something fails and how; the server does the failing.
"""

from __future__ import annotations

import random
from collections import Counter

from tests.github.server import Call, Fault

SECONDARY = (
    '{"message": "You have exceeded a secondary rate limit. Please wait a few minutes.", "documentation_url": ""}'
)
PRIMARY = '{"message": "API rate limit exceeded for installation ID 1."}'
SLOW_SECONDS = 1.0

KINDS: dict[str, Fault] = {
    "500": Fault(kind="status", status=500),
    "502": Fault(kind="status", status=502),
    "503": Fault(kind="status", status=503, headers={"Retry-After": "3"}),
    "500 after": Fault(kind="status", status=500, after=True),
    "502 after": Fault(kind="status", status=502, after=True),
    "504 after": Fault(kind="status", status=504, after=True, body=""),
    "reset": Fault(kind="reset"),
    "reset after": Fault(kind="reset", after=True),
    "cut after": Fault(kind="truncated", after=True),
    "429": Fault(kind="status", status=429, body=PRIMARY, headers={"Retry-After": "7"}),
    "429 bare": Fault(kind="status", status=429, body="{}"),
    "secondary": Fault(kind="status", status=403, body=SECONDARY),
    "secondary with time": Fault(kind="status", status=403, body=SECONDARY, headers={"Retry-After": "11"}),
    "primary": Fault(
        kind="status", status=403, body=PRIMARY, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "40"}
    ),
    "slow": Fault(kind="slow", seconds=SLOW_SECONDS),
    "slow after": Fault(kind="slow", seconds=SLOW_SECONDS, after=True),
}
_AT_MOST_ONCE = ("slow", "slow after")  # each costs real time


class Plan:
    """Each request fails with this probability; `happened` counts how."""

    def __init__(self, seed: int, probability: float) -> None:
        self._random = random.Random(seed)
        self._probability = probability
        self.happened: Counter[str] = Counter()

    def __call__(self, call: Call) -> Fault | None:
        kind = self._random.choice(tuple(KINDS))
        fails = self._random.random() < self._probability
        if not fails or (kind in _AT_MOST_ONCE and any(self.happened[k] for k in _AT_MOST_ONCE)):
            return None
        self.happened[kind] += 1
        return KINDS[kind]
