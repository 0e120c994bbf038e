"""One commit as folders: its files, its links, and where a path leads.

Reads git's objects only; says nothing about what a folder is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gate.ci.git import Entry, Repository
from gate.ci.links import followed


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """What a commit holds.

    Attributes:
        folders: folder → names of the files and links directly in it; the root is `.`.
        places: every path of the commit, and every folder above one.
    """

    files: Mapping[str, Entry]
    links: Mapping[str, str]
    submodules: frozenset[str]
    folders: Mapping[str, Sequence[str]]
    places: frozenset[str]

    @classmethod
    def of(cls, repository: Repository, commit: str | None) -> Tree:
        """The tree of a commit; None: there is none, and so nothing in it."""
        entries = () if commit is None else repository.entries(commit)
        folders: dict[str, list[str]] = defaultdict(list)
        places = {"."}
        for entry in entries:
            folder, _, name = entry.path.rpartition("/")
            if entry.kind != "submodule":
                folders[folder or "."].append(name)
            places |= {entry.path, *above(entry.path)}
        return cls(
            files={e.path: e for e in entries if e.kind == "file"},
            links=repository.link_targets([e for e in entries if e.kind == "link"]),
            submodules=frozenset(e.path for e in entries if e.kind == "submodule"),
            folders=dict(folders),
            places=frozenset(places),
        )

    def folder(self, path: str) -> str | None:
        """The folder that a path leads to, links followed; None where the commit has no such folder."""
        place = followed(path, self.links)
        known = place in self.places and place not in self.files and place not in self.submodules
        return place if known else None

    def submodule(self, place: str) -> str | None:
        """The submodule that a place is or lies in."""
        return next((p for p in (place, *above(place)) if p in self.submodules), None)

    def below(self, folder: str) -> list[str]:
        """Files and links in a folder, at any depth."""
        start = "" if folder == "." else f"{folder}/"
        return [path for path in (*self.files, *self.links) if path.startswith(start)]


def above(path: str) -> list[str]:
    """The folders that a path lies in, the root as `.`."""
    parts = path.split("/")
    return [*("/".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)), "."]


def within(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"
