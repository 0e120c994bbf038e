"""The client that sends nothing: every payload becomes a JSON file, the comment and the summary become Markdown.

Knows nothing of GitHub's state: there is no check yet, no comment, and the pull request is open at the gated commit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gate import artifact
from gate.errors import UsageError
from gate.publish.client import Body, Check, Comment, CommitStatus, Pull
from gate.publish.model import Target

APP = "github-actions"


class DryRun:
    """A repository as the target describes it."""

    def __init__(self, out: Path, target: Target) -> None:
        self._out, self._target = out, target
        self._checks: list[Check] = []
        self._count = 0

    def default_branch(self) -> str:
        return self._target.default_branch or "main"

    def retargeted(self, pull: int) -> bool:
        return False

    def checks(self, ref: str, name: str) -> Sequence[Check]:
        return [one for one in self._checks if one.name == name]

    def check(self, number: int) -> Check:
        return self._checks[number - 1]

    def create_check(self, body: Body) -> Check:
        self._payload("create-check", body)
        made = Check(
            id=len(self._checks) + 1,
            name=body["name"],
            external_id=body["external_id"],
            status=body["status"],
            conclusion=None,
            started_at="",
            annotations=0,
            app=APP,
        )
        self._checks.append(made)
        return made

    def update_check(self, number: int, body: Body) -> Check:
        self._payload("update-check", body)
        was, output = self._checks[number - 1], body.get("output", {})
        if "summary" in output:
            self._write("summary.md", output["summary"])
        now = Check(
            id=was.id,
            name=body.get("name", was.name),
            external_id=body.get("external_id", was.external_id),
            status=body.get("status", was.status),
            conclusion=body.get("conclusion", was.conclusion),
            started_at=was.started_at,
            annotations=was.annotations + len(output.get("annotations", ())),
            app=was.app,
        )
        self._checks[number - 1] = now
        return now

    def find_status(self, sha: str, context: str) -> CommitStatus | None:
        return None

    def create_status(self, sha: str, body: Body) -> None:
        self._payload("create-status", body)

    def comments(self, pull: int) -> Sequence[Comment]:
        return ()

    def create_comment(self, pull: int, body: str) -> None:
        self._payload("create-comment", {"body": body})
        self._write("comment.md", body)

    def update_comment(self, number: int, body: str) -> None:
        raise AssertionError("a dry run finds no comment")

    def delete_comment(self, number: int) -> None:
        raise AssertionError("a dry run finds no comment")

    def pull(self, number: int) -> Pull:
        target = self._target
        return Pull(
            number=number,
            open=True,
            head_sha=target.head_sha,
            head_repository=target.head_repository,
            base_ref=target.base_ref or self.default_branch(),
            base_sha=target.base_sha or "0" * 40,
        )

    def pulls_of(self, head_repository: str, head_branch: str) -> Sequence[Pull]:
        return ()

    def open_pulls(self) -> Sequence[Pull]:
        return ()

    def compared(self, base: str, head: str) -> Sequence[str] | None:
        """Nothing that measures: a dry run shows what is said of a result that may be believed."""
        return ()

    def pull_files(self, pull: int, head_sha: str) -> Sequence[str] | None:
        return ()

    def run_status(self, run: int) -> str | None:
        return None

    def login(self) -> str:
        return f"{APP}[bot]"

    def _payload(self, call: str, body: Body) -> None:
        self._count += 1
        self._write(f"{self._count:02}-{call}.json", json.dumps(body, indent=2, ensure_ascii=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            artifact.write_atomic(self._out / name, text.encode("utf-8", "replace"))
        except OSError as problem:
            raise UsageError(f"--dry-run {str(self._out)!r} cannot be written: {problem.strerror}") from problem
