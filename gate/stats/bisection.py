"""Where a test turns from rejecting to not rejecting, for limits without a closed form.

Pure.  Not scipy's brentq: score statistics are 0/0 at their own estimate when nothing varies, which a
bracketing root finder takes for the root.  Here only the *answers* of the test are used.
"""

from __future__ import annotations

from collections.abc import Callable

_STEPS = 200


def boundary(rejects: Callable[[float], bool], *, rejected: float, accepted: float, within: float = 0.0) -> float:
    """The last point that `rejects` still rejects, between one that it does and one that it does not.

    `accepted` is never evaluated.  The rejected end is returned, so that a limit errs to the wide side; by no more
    than `within`, or exact to the last bit or so.
    """
    for _ in range(_STEPS):
        middle = rejected + (accepted - rejected) / 2
        if middle in (rejected, accepted) or abs(accepted - rejected) <= within:
            break
        if rejects(middle):
            rejected = middle
        else:
            accepted = middle
    return rejected
