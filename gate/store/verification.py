"""Everything in a store compared with its checksums and signatures.

Reads every byte; changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gate.errors import ArtifactError
from gate.store.bucket import Unavailable
from gate.store.manifest import Entry
from gate.store.seal import Signature
from gate.store.store import Store, current


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One document of the store.

    Attributes:
        entry: None for calibrations and lines of the log.
        counts: whether a run would use it; not so an older generation or a proposal.
        problem: None if it is whole and may be used.
    """

    name: str
    entry: Entry | None
    signature: Signature | None
    counts: bool
    problem: str | None


def verify(store: Store, only: Sequence[Entry] | None) -> tuple[Checked, ...]:
    """Check entries with all their files (all of them, the log and the calibrations, or `only` some).

    Raises:
        Unavailable: the store does not answer.
    """
    entries = store.shelf.all() if only is None else only
    counting = {entry.name for entry in current(entries)}
    checked = [
        Checked(
            name=entry.name,
            entry=entry,
            signature=entry.signature,
            counts=entry.name in counting,
            problem=_problem(store, entry),
        )
        for entry in entries
    ]
    if only is not None:
        return tuple(checked)
    for found in store.log.lines():
        checked.append(
            Checked(name=found.name, entry=None, signature=found.signature, counts=True, problem=found.problem)
        )
    for name, (signature, problem) in store.calibrations.check().items():
        checked.append(Checked(name=name, entry=None, signature=signature, counts=True, problem=problem))
    return tuple(checked)


def _problem(store: Store, entry: Entry) -> str | None:
    if entry.manifest is None:
        return entry.problem
    try:
        store.contents.check(entry.manifest)
    except Unavailable:
        raise
    except ArtifactError as problem:
        return str(problem)
    return entry.problem
