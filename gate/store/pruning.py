"""What of a store is dropped: what is too old, too many or too much, and what writers that died left behind.

Never drops what a living process reads, and never brings an older generation back by dropping a newer one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from gate.store.log import Line
from gate.store.manifest import Entry
from gate.store.store import Store

UNPUBLISHED = timedelta(days=1)
"""Files that no manifest names belong to a writer that is at work, or, after this long, to one that died."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What to keep; None: no limit.

    Attributes:
        older_than: entries measured longer ago go.
        keep_last: of each baseline and source, this many entries stay, the newest.
        max_bytes: of all entries together; the oldest go first.
    """

    older_than: timedelta | None
    keep_last: int | None
    max_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Doomed:
    """An entry that goes, and why."""

    entry: Entry
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What was dropped, or would be.

    Attributes:
        leftovers: content folders that no entry names.
        in_use: entries that would have gone and stay, for somebody reads them.
    """

    doomed: tuple[Doomed, ...]
    in_use: tuple[Entry, ...]
    leftovers: tuple[str, ...]
    kept_bytes: int


def prune(store: Store, limits: Limits, *, now: datetime, by: str, dry_run: bool) -> Pruned:
    """Drop what is beyond the limits, and leftovers.

    Raises:
        Unavailable: the store does not answer.
    """
    entries = store.shelf.all()
    doomed, in_use = chosen(entries, limits, store.workspace.held(), now)
    names = {d.entry.name for d in doomed}
    kept = [e for e in entries if e.name not in names]
    if not dry_run:
        if doomed:
            _write_down(store, doomed, now, by)
        for one in doomed:
            store.shelf.remove(one.entry)
        store.workspace.sweep()
        kept = list(store.shelf.all())  # what was written meanwhile counts
    leftovers = _leftovers(store, kept, [d.entry for d in doomed], now)
    if not dry_run:
        for content in leftovers:
            store.contents.remove(content)
    size = sum(e.manifest.n_bytes for e in kept if e.manifest is not None)
    return Pruned(doomed=doomed, in_use=in_use, leftovers=leftovers, kept_bytes=size)


def chosen(
    entries: Sequence[Entry], limits: Limits, held: Set[str], now: datetime
) -> tuple[tuple[Doomed, ...], tuple[Entry, ...]]:
    """(what goes, what would go were it not in use) of everything there is.  Pure.

    Of one key the older generations go first, and where one of them stays the newer ones do.
    """
    size = sum(e.manifest.n_bytes for e in entries if e.manifest is not None)
    ranks = _ranks(entries)
    doomed: dict[str, Doomed] = {}
    in_use: list[Entry] = []
    of_key: dict[str, list[Entry]] = {}
    for entry in entries:
        of_key.setdefault(entry.key, []).append(entry)
    for entry in sorted(entries, key=lambda e: (e.created_at, e.name)):
        if any(e.name not in doomed for e in of_key[entry.key] if _is_before(e, entry)):
            continue
        if entry.manifest is None:
            superseded = any(_is_before(entry, e) for e in of_key[entry.key])
            why = "cannot be read, and another took its place" if superseded else None
        else:
            why = _too_old(entry, limits, now) or _too_many(entry, limits, ranks) or _too_much(size, limits)
            if why is not None and entry.manifest.content in held:
                in_use.append(entry)
                continue
        if why is not None:
            doomed[entry.name] = Doomed(entry=entry, why=why)
            size -= 0 if entry.manifest is None else entry.manifest.n_bytes
    return tuple(doomed.values()), tuple(in_use)


def _is_before(one: Entry, other: Entry) -> bool:
    """Whether it is an older generation, of two under one key; proposals are none."""
    return one.generation is not None and other.generation is not None and one.generation < other.generation


def _too_old(entry: Entry, limits: Limits, now: datetime) -> str | None:
    if limits.older_than is None or datetime.fromisoformat(entry.created_at) >= now - limits.older_than:
        return None
    return f"measured before {now - limits.older_than:%Y-%m-%d %H:%M}"


def _too_many(entry: Entry, limits: Limits, ranks: Mapping[str, int]) -> str | None:
    if limits.keep_last is None or ranks[entry.name] < limits.keep_last:
        return None
    return f"{limits.keep_last} newer of this baseline and source"


def _too_much(size_bytes: int, limits: Limits) -> str | None:
    if limits.max_bytes is None or size_bytes <= limits.max_bytes:
        return None
    return "oldest of a store that is too large"


def _ranks(entries: Sequence[Entry]) -> dict[str, int]:
    """How many newer entries there are of the same baseline and source."""
    seen: Counter[tuple[str | None, ...]] = Counter()
    ranks = {}
    for entry in sorted(entries, key=lambda e: (e.created_at, e.name), reverse=True):
        parts = {} if entry.manifest is None else entry.manifest.parts
        of = tuple(parts.get(name) for name in ("effective_digest", "stage", "stage_name", "source"))
        ranks[entry.name] = seen[of]
        seen[of] += 1
    return ranks


def _leftovers(store: Store, kept: Sequence[Entry], gone: Sequence[Entry], now: datetime) -> tuple[str, ...]:
    """Content folders that nobody names, of dropped entries and of writers that died; what is read now stays."""
    named = {e.manifest.content for e in kept if e.manifest is not None}
    unreadable = {e.key for e in kept if e.manifest is None}  # whatever it names must not be taken for a leftover
    freed = {e.manifest.content for e in gone if e.manifest is not None}
    held = store.workspace.held()  # looked at after the manifests went: who comes later finds none of them
    found = {name.split("/")[1] for name in store.bucket.names("data")}
    return tuple(
        sorted(
            content
            for content in found - named - held
            if content.partition(".")[0] not in unreadable and (content in freed or _is_abandoned(content, now))
        )
    )


def _is_abandoned(content: str, now: datetime) -> bool:
    """Whether its name says that its writer began too long ago to be at work."""
    try:
        begun = datetime.strptime(content.partition(".")[2].partition("-")[0], "%Y%m%dT%H%M%S%z")
    except ValueError:
        return False  # not ours
    return begun < now - UNPUBLISHED


def _write_down(store: Store, doomed: Sequence[Doomed], now: datetime, by: str) -> None:
    line = Line(
        action="prune",
        at=now.isoformat(timespec="seconds"),
        by=by,
        why="; ".join(dict.fromkeys(d.why for d in doomed)),
        about=[d.entry.name for d in doomed],
        detail={},
    )
    store.log.add(line, now)
