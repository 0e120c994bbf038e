"""The whole flow on GitHub, shown on this machine: `make github-demo`, or `python -m tests.github.flow`.

Needs no token and calls nothing outside of 127.0.0.1: the commands are the real ones, GitHub is the tests' mock.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.markup import escape
from rich.panel import Panel
from rich.table import Column, Table

from gate.artifact import loads_record
from gate.records import Status
from tests.github import job as jobs
from tests.github.job import BASE, BRANCH, FORK, Job
from tests.github.server import GitHubMock

WIDTH = 100
DEMO = ("w8a8", "w3a16-gptq-prose")
"""Candidates of the demo: one that passes, one that does not."""

FIRST, SECOND, OUTSIDE, QUEUED = ("1f3a" * 10, "2b7c" * 10, "3d90" * 10, "4e51" * 10)
PULL, FORK_PULL = 7, 8
_NAME = 20
"""Characters of a word that can only be a name."""

REMARKED = ("--policy-path", "thresholds/demo.yaml")
CHANGED = ("models/bank/model.safetensors", "models/bank/config.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One job of a workflow: what happened on GitHub, and the command that it runs for a commit."""

    title: str
    story: str
    job: Job
    sha: str
    arguments: tuple[str, ...]
    pull: int | None
    whole_comment: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was published as it should be."""
    options = _options(arguments)
    console = Console(width=WIDTH, highlight=False)
    with tempfile.TemporaryDirectory(prefix="quantgate-github-") as scratch:
        green, red = _green_and_red(options.runs or _demo(options.out, console))
        with GitHubMock() as github:
            shown = Shown(github=github, console=console, raw=options.raw, scratch=Path(scratch))
            failed = [step.title for step in _story(github, green, red) if not shown.step(step)]
    for title in failed:
        console.print(f"[bold red]did not work:[/] {escape(title)}")
    return 1 if failed else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Runs a step as a job of GitHub Actions would, and prints what came of it."""

    github: GitHubMock
    console: Console
    raw: bool
    scratch: Path

    def step(self, step: Step) -> bool:
        """Did the command succeed?"""
        self.console.rule(f"[bold]{escape(step.title)}[/]", align="left")
        self.console.print(escape(step.story) + "\n")
        self.console.print(f"[bold cyan]$[/] {escape(' '.join(['gate publish github', *map(_near, step.arguments)]))}")
        before = len(self.github.calls)
        done = subprocess.run(
            [sys.executable, "-m", "gate", "publish", "github", *step.arguments],
            env=step.job.environment(self.github, self.scratch),
            capture_output=True,
            text=True,
            check=False,
        )
        self._calls(before)
        self._check(step)
        self._comment(step)
        if done.returncode:
            self.console.print(f"[red]exit code {done.returncode}[/]\n{escape(done.stdout + done.stderr)}")
        return done.returncode == 0

    def _calls(self, before: int) -> None:
        table = Table.grid(padding=(0, 2))
        for call in self.github.calls[before:]:
            colour = "green" if call.status < 400 else "yellow"
            table.add_row(f"  {call.method}", escape(_short(call.path)), f"[{colour}]{call.status}[/]")
        self.console.print(table)

    def _check(self, step: Step) -> None:
        table = Table.grid(padding=(0, 2))
        for check in (c for c in self.github.checks if c["head_sha"] == step.sha):
            said = check["conclusion"] or check["status"]
            colour = {"success": "green", "failure": "red"}.get(said, "yellow")
            table.add_row("\n  check", f"\n[bold]{escape(check['name'])}: [{colour}]{said}[/][/]")
            table.add_row("  title", escape(check["output"]["title"] or ""))
            for one in self.github.annotations(check["id"]):
                said = f"{one['path']}:{one['start_line']}  {one['title']}"
                table.add_row(f"  {one['annotation_level']}", escape(said))
        self.console.print(table)

    def _comment(self, step: Step) -> None:
        for comment in (c for c in self.github.comments if c["issue_url"].endswith(f"/{step.pull}")):
            edited = ", edited" if comment["updated_at"] != comment["created_at"] else ""
            title = f"comment of {comment['user']['login']} on pull request {step.pull}{edited}"
            if self.raw:
                self.console.print(f"\n  {escape(title)}:")
                print(comment["body"])
                continue
            text, heading, rest = comment["body"].partition("\n### ")
            if step.whole_comment:
                text += heading + rest
            elif rest:
                text += "\n… the tables, as above"
            self.console.print()
            self.console.print(Panel(_Page(text), title=escape(title), title_align="left"))
        self.console.print()


class _Table(TableElement):
    """Room for the names of rules, which have no blanks: rich would cut them, and break short words instead."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                words = [_longest_word(column) for column in table.columns]
                named = max(words) > _NAME
                for place, (column, longest) in enumerate(zip(table.columns, words, strict=True)):
                    column.overflow = "fold"
                    if named and longest <= _NAME:
                        column.width = longest + (3 if place == 0 else 1)  # the first one begins with a symbol
            yield table


def _longest_word(column: Column) -> int:
    cells = (str(cell) for cell in (column.header, *column.cells))
    return max((len(word) for cell in cells for word in cell.split()), default=1)


class _Page(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "table_open": _Table}


def _story(github: GitHubMock, green: Path, red: Path) -> Iterator[Step]:
    """The steps, in order; what happens on GitHub in between happens between them."""
    github.add_pull(PULL, FIRST, head_branch=BRANCH, base_sha=BASE, files=CHANGED)
    opened = jobs.pull_request(github, PULL, FIRST)
    yield Step(
        title="1. A pull request quantizes a checkpoint",
        story="The job begins: the check is there at once, so nobody merges meanwhile.",
        job=opened,
        sha=FIRST,
        arguments=("--start",),
        pull=PULL,
    )
    yield Step(
        title="2. The gate has measured: a regression",
        story="The same check is completed; remarks stand on the policy's lines; one comment says what broke.",
        job=opened,
        sha=FIRST,
        arguments=(str(red), *REMARKED),
        pull=PULL,
        whole_comment=True,
    )
    github.push(PULL, SECOND)
    yield Step(
        title="3. A second commit repairs it",
        story="A new commit, a new check.  The comment is the old one, edited: it says what was and what is now.",
        job=jobs.pull_request(github, PULL, SECOND),
        sha=SECOND,
        arguments=(str(green), *REMARKED),
        pull=PULL,
    )
    github.add_pull(FORK_PULL, OUTSIDE, head_repository=FORK, head_branch=BRANCH, base_sha=BASE, files=CHANGED)
    yield Step(
        title="4. A fork, published by the second workflow (workflow_run)",
        story="Its result was made by code of the fork: it is shown, and cannot satisfy the required check.",
        job=jobs.workflow_run(github, OUTSIDE),
        sha=OUTSIDE,
        arguments=(str(green), *REMARKED),
        pull=FORK_PULL,
    )
    github.add_commit(QUEUED)
    github.compare(github.default_branch, QUEUED, CHANGED)
    yield Step(
        title="5. The merge queue",
        story="What would be merged is gated as well, on the commit that the queue made.",
        job=jobs.merge_group(github, PULL, QUEUED),
        sha=QUEUED,
        arguments=(str(green), *REMARKED),
        pull=None,
    )


def _near(argument: str) -> str:
    """A path as one would type it here."""
    return argument.removeprefix(f"{Path.cwd()}/")


def _short(path: str) -> str:
    """Commits by their first seven digits: the line stays within the page."""
    for sha in (BASE, FIRST, SECOND, OUTSIDE, QUEUED):
        path = path.replace(sha, sha[:7])
    return path


def _green_and_red(folder: Path) -> tuple[Path, Path]:
    """A run that passes and one that does not, of the run folders in `folder`.

    Raises:
        SystemExit: one of them is not there.
    """
    found: dict[Status, Path] = {}
    for path in sorted(folder.glob("*/run.json")):
        found.setdefault(loads_record(path.read_bytes()).verdict.status, path.parent)
    missing = [status for status in (Status.PASS, Status.REGRESSION) if status not in found]
    if missing:
        raise SystemExit(f"{folder} holds no run that ended in {' nor in '.join(missing)}: expected one of each")
    return found[Status.PASS], found[Status.REGRESSION]


def _demo(out: Path, console: Console) -> Path:
    """Measures two candidates of the bundled demo, unless a run before has."""
    if not all((out / name / "run.json").exists() for name in DEMO):
        console.print(f"[bold cyan]$[/] gate demo {' '.join(DEMO)} --out {escape(str(out))}   (one to two minutes)\n")
        subprocess.run([sys.executable, "-m", "gate", "demo", *DEMO, "--out", out], check=True)
    return out


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.github.flow", description=__doc__)
    parser.add_argument("--runs", type=Path, help="folder of run folders, instead of measuring the demo")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where the demo's runs are kept")
    parser.add_argument("--raw", action="store_true", help="comments as Markdown text")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
