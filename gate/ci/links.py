"""Symbolic links of a commit, followed inside it.

Pure: knows paths and targets as text, and no file system.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

MAX_STEPS = 40


def followed(path: str, links: Mapping[str, str]) -> str | None:
    """Where a path (relative to the root, `..` allowed) leads, links in it followed; the root is `.`.

    None where it leaves the repository, or goes in a circle.
    """
    return _walk(path, links)[0]


def leaves(path: str, links: Mapping[str, str]) -> bool:
    """Whether it leads out of the repository, to what a machine happens to have there."""
    return _walk(path, links)[1]


def _walk(path: str, links: Mapping[str, str]) -> tuple[str | None, bool]:
    """(place, does it leave)."""
    left, reached, steps = deque(path.split("/")), list[str](), 0
    while left:
        part = left.popleft()
        if part == "..":
            if not reached:
                return None, True
            reached.pop()
        elif part not in ("", "."):
            reached.append(part)
            target = links.get("/".join(reached))
            if target is not None:
                steps += 1
                if target.startswith("/"):
                    return None, True
                if steps > MAX_STEPS:
                    return None, False
                reached.pop()
                left.extendleft(reversed(target.split("/")))
    return "/".join(reached) or ".", False
