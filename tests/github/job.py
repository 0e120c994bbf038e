"""A job of GitHub Actions: its variables and its event file, as `gate publish github` reads them.

Data only: nothing is sent.  What the person who runs this has set for GitHub never gets in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.github.server import GITHUB_TOKEN, GitHubMock

BASE = "0f" * 20
BRANCH = "quantize"
FORK = "contributor/models"
_THEIRS = ("GITHUB_", "GH_", "ACTIONS_", "RUNNER_", "INPUT_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """`sha` is GITHUB_SHA, which is not always the commit that was gated."""

    event: str
    payload: Mapping[str, Any]
    sha: str
    token: str = GITHUB_TOKEN

    def environment(self, github: GitHubMock, folder: Path) -> dict[str, str]:
        """All variables of the job; its event file is written to `folder`."""
        event = folder / "event.json"
        event.write_text(json.dumps(self.payload), encoding="utf-8")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_THEIRS) and name.lower() not in _PROXIES
        }
        return kept | {
            "GITHUB_TOKEN": self.token,
            "GITHUB_API_URL": github.public_url,
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": github.repository,
            "GITHUB_EVENT_NAME": self.event,
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_SHA": self.sha,
            "GITHUB_RUN_ID": run_id(self.sha),
            "GITHUB_RUN_ATTEMPT": "1",
        }


def run_id(sha: str) -> str:
    """A workflow run of this commit."""
    return str(1000 + int(sha[:6], 16))


def pull_request(github: GitHubMock, number: int, sha: str, *, token: str = GITHUB_TOKEN) -> Job:
    """Of the repository's own branch.  GITHUB_SHA is a merge commit, which nobody asks about."""
    head = {"sha": sha, "ref": BRANCH, "repo": {"full_name": github.repository}}
    base = {"sha": BASE, "ref": github.default_branch}
    payload = {"action": "synchronize", "pull_request": {"number": number, "head": head, "base": base}}
    return Job(event="pull_request", payload=payload | _repository(github), sha="e" * 40, token=token)


def workflow_run(github: GitHubMock, sha: str, *, token: str = GITHUB_TOKEN) -> Job:
    """The second stage, of a fork's pull request, which GitHub does not list: it is found by its branch."""
    number = int(run_id(sha))
    run = {
        "id": number,
        "run_attempt": 1,
        "event": "pull_request",
        "head_sha": sha,
        "head_branch": BRANCH,
        "head_repository": {"full_name": FORK},
        "pull_requests": [],
        "html_url": f"https://github.com/{github.repository}/actions/runs/{number}",
    }
    payload = {"action": "completed", "workflow_run": run}
    return Job(event="workflow_run", payload=payload | _repository(github), sha=BASE, token=token)


def merge_group(github: GitHubMock, number: int, sha: str, *, token: str = GITHUB_TOKEN) -> Job:
    group = {
        "head_sha": sha,
        "head_ref": f"refs/heads/gh-readonly-queue/{github.default_branch}/pr-{number}-{BASE}",
        "base_sha": BASE,
        "base_ref": f"refs/heads/{github.default_branch}",
    }
    payload = {"action": "checks_requested", "merge_group": group}
    return Job(event="merge_group", payload=payload | _repository(github), sha=sha, token=token)


def _repository(github: GitHubMock) -> dict[str, Any]:
    return {"repository": {"full_name": github.repository, "default_branch": github.default_branch}}
