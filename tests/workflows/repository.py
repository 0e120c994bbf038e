"""A repository with a pull request, its origin, and checkouts of it as actions/checkout makes them.

Real git on real files; nothing here runs hooks or reads the user's configuration.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ENVIRON = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "t@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **_ENVIRON},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip()


@dataclass(frozen=True)
class Repository:
    """`base` is main's tip, `head` the pull request's, `merge` what GitHub checks out for it."""

    root: Path
    base: str
    head: str
    merge: str

    @property
    def origin(self) -> str:
        return f"file://{self.root}"

    def checkout(self, folder: Path, commit: str, *, depth: int = 1) -> Path:
        """A shallow clone at this commit, detached, as actions/checkout leaves it."""
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "remote", "add", "origin", self.origin)
        git(folder, "fetch", "--quiet", "--no-tags", f"--depth={depth}", "origin", commit)
        git(folder, "checkout", "--quiet", "--detach", commit)
        return folder

    def event(self, name: str, *, fork: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """(github context without the event, payload) of an event of this pull request, or of main."""
        default = {"default_branch": "main", "full_name": "owner/models"}
        head = {
            "sha": self.head,
            "ref": "quantize",
            "repo": {"full_name": "stranger/models" if fork else "owner/models"},
        }
        pull = {"number": 7, "head": head, "base": {"sha": self.base, "ref": "main", "repo": default}}
        payload: dict[str, Any] = {"repository": default}
        ref, sha = "refs/heads/main", self.base
        match name:
            case "pull_request":
                payload["pull_request"] = pull
                ref, sha = "refs/pull/7/merge", self.merge
            case "pull_request_target":
                payload["pull_request"] = pull
            case "merge_group":
                payload["merge_group"] = {"base_sha": self.base, "head_sha": self.merge}
                ref, sha = "refs/heads/gh-readonly-queue/main/pr-7", self.merge
            case "workflow_run":
                payload["workflow_run"] = {"head_sha": self.head, "event": "pull_request"}
        github = {
            "event_name": name,
            "ref": ref,
            "sha": sha,
            "repository": "owner/models",
            "token": "ghs_secret",
            "api_url": "http://127.0.0.1:9",
            "server_url": "https://github.invalid",
            "run_id": "11",
            "run_attempt": "1",
        }
        return github, payload


def make_repository(root: Path, base: Mapping[str, bytes], head: Mapping[str, bytes]) -> Repository:
    """main with a little history and these files, and a branch that adds others; main moves on meanwhile."""
    root.mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    for key in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
        git(root, "config", key, "true")
    for number in range(3):
        _commit(root, {"history.txt": f"{number}\n".encode()})
    parted = _commit(root, base)
    git(root, "checkout", "--quiet", "-b", "quantize")
    for number in range(40):  # farther from where it parted than a first look of depth 16
        _commit(root, {"notes.txt": f"{number}\n".encode()})
    last = _commit(root, head)
    git(root, "checkout", "--quiet", "main")
    tip = _commit(root, {"elsewhere.txt": b"main moves on\n"})
    assert tip != parted
    git(root, "checkout", "--quiet", "--detach")
    git(root, "merge", "--quiet", "--no-edit", "quantize")
    merge = git(root, "rev-parse", "HEAD")
    git(root, "update-ref", "refs/pull/7/head", last)
    git(root, "update-ref", "refs/pull/7/merge", merge)
    return Repository(root, tip, last, merge)


def _commit(root: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--allow-empty", "--message=x")
    return git(root, "rev-parse", "HEAD")
