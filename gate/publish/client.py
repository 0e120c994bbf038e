"""What publishing asks of GitHub: a handful of calls, and the little of their answers that matters.

Says nothing about how: `api.py` talks to GitHub, `dry_run.py` writes files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Body = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A check run.

    Attributes:
        started_at: ISO time, empty where GitHub gives none.
        annotations: how many it has.
        app: slug of the App that wrote it, empty where GitHub gives none.
    """

    id: int
    name: str
    external_id: str
    status: str
    conclusion: str | None
    started_at: str
    annotations: int
    app: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitStatus:
    """The newest status of one context."""

    state: str
    description: str
    target_url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comment:
    """`author` is a login, empty where the account is gone."""

    id: int
    author: str
    body: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """`head_repository` is empty where the fork is gone."""

    number: int
    open: bool
    head_sha: str
    head_repository: str
    base_ref: str
    base_sha: str


class Client(Protocol):
    """One repository.  Every method raises PublishError; a write whose fate nobody knows raises Unanswered."""

    def default_branch(self) -> str: ...

    def checks(self, ref: str, name: str) -> Sequence[Check]:
        """All check runs of a commit (or of a branch's head) with this name, oldest first."""

    def check(self, number: int) -> Check: ...

    def create_check(self, body: Body) -> Check: ...

    def update_check(self, number: int, body: Body) -> Check: ...

    def find_status(self, sha: str, context: str) -> CommitStatus | None: ...

    def create_status(self, sha: str, body: Body) -> None: ...

    def comments(self, pull: int) -> Sequence[Comment]:
        """All comments of a pull request, oldest first."""

    def create_comment(self, pull: int, body: str) -> None: ...

    def update_comment(self, number: int, body: str) -> None: ...

    def delete_comment(self, number: int) -> None: ...

    def pull(self, number: int) -> Pull: ...

    def pulls_of(self, head_repository: str, head_branch: str) -> Sequence[Pull]:
        """Pull requests of a branch, open and closed ones."""

    def retargeted(self, pull: int) -> bool:
        """Was it ever pointed to another base branch than the one that it was opened to?"""

    def open_pulls(self) -> Sequence[Pull]: ...

    def compared(self, base: str, head: str) -> Sequence[str] | None:
        """Files that `head` changes since it left `base`, renamed ones under both names; None: not all are listed."""

    def pull_files(self, pull: int, head_sha: str) -> Sequence[str] | None:
        """The same of a pull request, None where they are not all listed or are not those of `head_sha`."""

    def run_status(self, run: int) -> str | None:
        """Of a workflow run: `in_progress`, `completed` and so on; None where it is gone.  May be forbidden (403)."""

    def login(self) -> str:
        """Of the person whose token this is."""
