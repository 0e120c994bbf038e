"""A stored baseline gives way to another measurement: only when somebody says so, and says why.

Decides nothing: which verdicts would move is for `gate.promotion` to say, and for people to accept.
"""

from __future__ import annotations

from datetime import datetime

from gate.errors import ArtifactError
from gate.store.log import Line
from gate.store.manifest import Entry, Promotion
from gate.store.store import ATTEMPTS, Store, following


def promote(store: Store, proposal: Entry, *, by: str, why: str, now: datetime) -> Entry:
    """Make a proposal the baseline of its key; what it replaces stays, as an older generation.

    The log is written first: no baseline is ever replaced without a line in it.

    Raises:
        ArtifactError: the proposal is broken, or the store does not answer.
        ValueError: nobody, or no reason, is named; or it is no proposal.
    """
    if not by.strip() or not why.strip() or proposal.generation is not None:
        raise ValueError("a promotion takes a proposal, a name and a reason")
    if proposal.manifest is None or proposal.problem is not None:
        raise ArtifactError(f"{proposal.name} {proposal.problem}: measure it again")
    store.contents.check(proposal.manifest)
    at = now.isoformat(timespec="seconds")
    replaced = _content(store.shelf.top(proposal.key))
    parts = proposal.manifest.parts
    line = Line(
        action="promote",
        at=at,
        by=by.strip(),
        why=why.strip(),
        about=[proposal.key],
        detail={
            "stage": parts.get("stage_name", parts["stage"]),
            "source": parts["source"],
            "replaced": replaced,
            "with": proposal.manifest.content,
        },
    )
    store.log.add(line, now)
    for _ in range(ATTEMPTS):
        top = store.shelf.top(proposal.key)
        promotion = Promotion(by=line.by, why=line.why, at=at, replaced=_content(top))
        update = {"generation": following(top), "promotion": promotion}
        try:
            promoted = store.shelf.add(proposal.manifest.model_copy(update=update))
        except FileExistsError:
            continue
        for other in store.shelf.of(proposal.key):
            if other.generation is None and other.name <= proposal.name:
                store.shelf.remove(other)
        return promoted
    raise ArtifactError(f"{store.place}: others kept writing under {proposal.key}: try again")


def latest_proposal(store: Store, key: str) -> Entry | None:
    """What a promotion of this key would take.  Raises Unavailable."""
    proposals = [entry for entry in store.shelf.of(key) if entry.generation is None]
    return proposals[-1] if proposals else None


def _content(top: Entry | None) -> str:
    """What a promotion replaces, in words where it cannot be read."""
    if top is None:
        return "nothing"
    return f"{top.name}, which cannot be read" if top.manifest is None else top.manifest.content
