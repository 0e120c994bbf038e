"""`gate ci detect`: which checkpoints does a change touch?

Looks at commits only; a changed checkpoint that cannot be named or looked into is an error, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gate.checkpoint.reference import IGNORED_PATTERNS
from gate.ci import globs, named_checkpoints
from gate.ci.candidates import Wanted, check_reference, named
from gate.ci.git import NOTHING, Repository
from gate.ci.links import followed, leaves
from gate.ci.named_checkpoints import Named
from gate.ci.tree import Tree, above, within
from gate.ci.weight_names import holds_weights, is_configured
from gate.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Detected:
    """What is to be gated, and remarks for the log."""

    wanted: tuple[Wanted, ...]
    notes: tuple[str, ...]


def changed_checkpoints(
    repository: Repository, base: str, head: str, patterns: Sequence[str], policy: str | None = None
) -> Detected:
    """The checkpoints at `head` of which a file differs from where `head` left `base`.

    A checkpoint is a folder with a file that looks like weights (Git LFS pointers count), or one that the table
    `checkpoints:` of the base branch's `policy` names; what has a name is gated under it, since its settings belong to
    it.  A file counts for every checkpoint above it, a tokenizer for those whose table names it, and what a link leads
    to for the link.  `base` of zeros: everything is new.

    Raises:
        UsageError: a commit is missing, a name is not plain, a pattern is of a folder that is not there, a submodule
            or a link out of the repository changed that could hold one, or too many.
    """
    patterns = globs.checked(patterns)
    after = repository.commit(head, "--head")
    now = Tree.of(repository, after)
    if is_nothing(base):
        was, tip = Tree.of(repository, None), now
        changed = {*now.files, *now.links, *now.submodules}
    else:
        target = repository.commit(base, "--base")
        before = repository.merge_base(target, after)
        was = Tree.of(repository, before)
        tip = was if before == target else Tree.of(repository, target)
        changed = set(repository.changed(before, after))
    _check_places(patterns, now, tip, was)
    table, notes = named_checkpoints.read(repository, policy, tip, now) if policy else ((), ())
    _follow_changes(changed, now)
    _refuse_submodules(now.submodules & changed, patterns)
    touched = {folder for path in changed for folder in above(path)}
    here = _checkpoints(now) | {f for f in _checkpoints(was) if _left_over(now.folders.get(f, ()))}
    found = {f for f in here & touched if _taken(f, now.folders[f], patterns)}
    if not is_configured(now.folders.get(".", ())) and not any("/" not in path for path in changed):
        found.discard(".")  # a stray file with a name of weights makes no checkpoint of the whole repository
    _refuse_unseen([link for link in now.links if link in changed and not found & set(above(link))], now, patterns)
    found |= set(_behind_links(here, changed, now, patterns))
    found |= {place for one in table if (place := _changed_place(one, changed, touched, now, patterns)) is not None}
    gone = sorted(f for f in _checkpoints(was) - here if _taken(f, was.folders[f], patterns))
    references = dict(_references(found, table, changed, now))
    return Detected(
        wanted=named(references, folders=references),
        notes=(*notes, *(f"deleted, nothing to gate: {f!a}" for f in gone)),
    )


def is_nothing(base: str) -> bool:
    """Whether GitHub says by it that there was no commit before."""
    return base in (NOTHING, NOTHING + "0" * 24)


def check_not_shadowed(
    repository: Repository, base: str, head: str, wanted: Sequence[Wanted], policy: str | None = None
) -> tuple[str, ...]:
    """Remarks.  A candidate of `--list` that could be of the hub must not become a folder by the change.

    Raises:
        UsageError: the change brings a folder of that name, or a commit or the policy is missing.
    """
    now = Tree.of(repository, repository.commit(head, "--head"))
    if is_nothing(base):
        return ()
    tip = Tree.of(repository, repository.commit(base, "--base"))
    table, notes = named_checkpoints.read(repository, policy, tip, now) if policy else ((), ())
    names = {one.name for one in table}
    for ref in [one.candidate for one in wanted if one.candidate not in names]:
        local = ref.startswith(".") or ref.endswith("/") or (ref.count("/") > 1 and "@" not in ref)
        if not local and (_anything(ref, now) and not _anything(ref, tip)):
            raise UsageError(
                f"--list names {ref!a}, which is no folder on the base branch, and the change brings a folder of this "
                f"name, which would be gated in the place of the checkpoint of the hub: write {'./' + ref!a} if the "
                "folder is meant, otherwise rename the folder"
            )
    return notes


def _anything(ref: str, tree: Tree) -> bool:
    """Whether a folder may be there: a submodule and a link out of the repository may hold one."""
    place = followed(ref, tree.links)
    return leaves(ref, tree.links) or (place is not None and (place in tree.places or bool(tree.submodule(place))))


def _check_places(patterns: Sequence[str], now: Tree, *before: Tree) -> None:
    """Raises UsageError for a pattern of a folder that never was: nothing would be gated, and the check be content."""
    for pattern in patterns:
        place = globs.before_wildcards(pattern)
        if pattern.startswith("!") or not place or any(_anything(place, tree) for tree in (now, *before)):
            continue
        near = sorted(p for p in now.places if p.casefold() == place.casefold())
        advice = (
            f"did you mean {near[0]!a}?" if near else f"correct it, or commit {place!a} first (with a README in it)"
        )
        raise UsageError(
            f"--paths has {pattern!a}, but there is no {place!a}, neither in the change nor on the base branch, so "
            f"that nothing would ever be gated: {advice}"
        )


def _follow_changes(changed: set[str], now: Tree) -> None:
    """Add the links that lead to something that changed: what stands behind them is another thing now."""
    known = 0
    while known < len(changed):
        known = len(changed)
        touched = changed | {folder for path in changed for folder in above(path)}
        for link in now.links:
            place = followed(link, now.links)
            if place is not None and place != "." and (place in touched or now.submodule(place) in changed):
                changed.add(link)


def _checkpoints(tree: Tree) -> set[str]:
    found = {folder for folder, names in tree.folders.items() if holds_weights(names)}
    return {folder for folder in found if not _is_part(folder, tree, found)}


def _is_part(folder: str, tree: Tree, found: set[str]) -> bool:
    """Other formats in a checkpoint of the hub lie in folders of their own, which no loader takes for a checkpoint."""
    parent, _, name = folder.rpartition("/")
    other_format = any(fnmatchcase(f"{name}/", pattern) for pattern in IGNORED_PATTERNS)
    whole = parent in found and is_configured(tree.folders.get(parent, ()))
    return other_format and whole and not is_configured(tree.folders[folder])


def _left_over(names: Sequence[str]) -> bool:
    """Does a former checkpoint still hold a part of one?  Then it is no deleted one, whatever is missing."""
    return is_configured(names) or holds_weights(names)


def _taken(folder: str, names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Do the patterns ask for a file in it?"""
    return any(globs.matches(within(folder, name), patterns) for name in names)


def _behind_links(here: set[str], changed: set[str], now: Tree, patterns: Sequence[str]) -> Iterator[str]:
    """Checkpoints that a changed link leads to, where the patterns ask for what lies behind the link."""
    for link in now.links:
        place = followed(link, now.links) if link in changed else None
        if place in here and _taken(link, now.folders[place], patterns):
            yield place


def _changed_place(one: Named, changed: set[str], touched: set[str], now: Tree, patterns: Sequence[str]) -> str | None:
    """Where an entry of the table lies, if it or its tokenizer changed and the patterns ask for it."""
    place = None if one.folder is None else now.folder(one.folder)
    if one.folder is None or place is None:
        return None
    files = now.below(place)
    behind = [within(one.folder, path if place == "." else path[len(place) + 1 :]) for path in files]
    if not any(globs.matches(path, patterns) for path in (*files, *behind)):
        return None
    for path in filter(None, (one.folder, one.tokenizer)):
        end = followed(path, now.links)
        ways = {path, end, *above(path)} - {None, "."}
        if ways & changed or path in touched or end in touched:
            return place
    return None


def _references(
    found: set[str], table: Sequence[Named], changed: set[str], now: Tree
) -> Iterator[tuple[str, str | None]]:
    """(what `gate run --candidate` is given, the folder if that is not the same)."""
    places: Mapping[str, str | None] = {
        one.name: None if one.folder is None else now.folder(one.folder) for one in table
    }
    for folder in sorted(found):
        entries = [one for one in table if places[one.name] == folder]
        for one in entries:
            yield check_reference(one.name, "the policy's checkpoint"), folder
        files = {one.gguf_file for one in entries}
        # an entry covers the one GGUF file that it names, and no other that lies beside it
        fresh = [
            n for n in now.folders.get(folder, ()) if within(folder, n) in changed and n.casefold().endswith(".gguf")
        ]
        if not entries or (None not in files and set(fresh) - files):
            check_reference(folder, "the checkpoint folder")
            # a name from the table would win over the folder
            yield (f"./{folder}", folder) if folder in places else (folder, None)


def _refuse_submodules(found: set[str] | frozenset[str], patterns: Sequence[str]) -> None:
    for path in sorted(found):
        if globs.may_reach(path, patterns):
            raise UsageError(
                f"the submodule {path!a} changed, and what it holds cannot be seen here: leave it out of "
                "--paths (`!folder/**`), or name its checkpoints in --list"
            )


def _refuse_unseen(links: Sequence[str], now: Tree, patterns: Sequence[str]) -> None:
    for link in links:
        place = followed(link, now.links)
        inside = place is not None and now.submodule(place) is not None
        if (inside or leaves(link, now.links)) and globs.may_reach(link, patterns):
            where = "into a submodule" if inside else "out of the repository"
            raise UsageError(
                f"the link {link!a} changed and leads {where}, and what lies there cannot be seen here: leave it out "
                "of --paths (`!folder/**`), or name its checkpoints in --list"
            )
