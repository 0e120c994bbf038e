"""What a person watching a run sees: live progress on a terminal, plain lines in CI, and the closing tables.

Shows; never decides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from gate.records import RunRecord, StageResult, Status
from gate.reports import basis, quality
from gate.reports.rows import deciding_rule
from gate.reports.sentence import PASSED_WITH_WAIVER, title

STYLES = {
    Status.PASS: "bold green",
    Status.REGRESSION: "bold red",
    Status.INCONCLUSIVE: "bold yellow",
    Status.ERROR: "bold magenta",
    Status.REFUSED: "bold red",
    Status.SKIPPED: "dim",
}
PLAIN_EVERY_SECONDS = 15.0


class RunConsole:
    """Reporter of one run.  On a terminal a progress bar, elsewhere one line per stage and every 15 s.

    Everything shown is also appended to `log` with the time, so that the folder tells the story later.
    """

    def __init__(self, console: Console, log: TextIO | None) -> None:
        self._console = console
        self._log = log
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = time.monotonic()

    def started(self, index: int, total: int, kind: str, name: str) -> None:
        self._say(f"[{index}/{total}] {name} ({kind})")
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("about"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("loading the model", total=None)

    def progress(self, done: int, total: int, label: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=label)
        elif time.monotonic() - self._last_line > PLAIN_EVERY_SECONDS:
            self._say(f"      {label}: {done} of {total}")

    def finished(self, result: StageResult) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        if result.skipped_because is not None:
            self._say(f"      {result.name} SKIPPED: {result.skipped_because}", "dim")
            return
        source = {"store": "baseline from the store", "measured": "baseline measured", "none": "no baseline"}
        whole = f"{result.items_scored:,} of {result.items_available:,}"
        scored = f"{whole} pairs of blocks" if result.kind == "profile" else f"{whole} items"
        scored = basis.stopped_early(result) or scored
        self._say(
            f"      {result.name} {result.status} in {result.seconds:.1f} s, {scored}, {source[result.baseline_from]}",
            STYLES[result.status],
        )

    def note(self, text: str) -> None:
        self._say(f"note: {text}", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._last_line = time.monotonic()
        self._console.print(Text(text, style=style), soft_wrap=True)
        if self._log is not None:
            self._log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._log.flush()


def verdict(console: Console, record: RunRecord, out: Path) -> None:
    """The verdict in one sentence, the quality score beside it and where to read more."""
    console.print(
        Text.assemble(_verdict(record), "  ", record.verdict.sentence),
        soft_wrap=True,
    )
    if record.quality is not None:
        console.print(Text(quality.line(record.quality), style="dim"), soft_wrap=True)
    console.print(Text(f"{out}/report.html   {out}/run.json   exit code {record.exit_code}", style="dim"))


def _verdict(record: RunRecord) -> Text:
    """The status, or in the colour of what is not settled that waivers made a regression pass."""
    if title(record) == PASSED_WITH_WAIVER:
        return Text(PASSED_WITH_WAIVER.upper(), style=STYLES[Status.INCONCLUSIVE])
    return Text(record.verdict.status.value, style=STYLES[record.verdict.status])


def runs_table(rows: Sequence[tuple[str, RunRecord]]) -> Table:
    """One line per run: candidate, verdict, deciding rule with its interval, stages, items, seconds."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, right in (
        ("candidate", False),
        ("verdict", False),
        ("exit", True),
        ("deciding rule", False),
        ("stages", True),
        ("items", True),
        ("seconds", True),
    ):
        wraps = heading == "deciding rule"
        table.add_column(heading, justify="right" if right else "left", no_wrap=not wraps, overflow="fold")
    for name, record in rows:
        ran = [s for s in record.stages if s.status is not Status.SKIPPED]
        table.add_row(
            name,
            _verdict(record),
            str(record.exit_code),
            deciding_rule(record),
            f"{len(ran)} of {len(record.stages)}",
            str(sum(s.items_scored for s in ran)),
            f"{record.seconds:.0f}",
        )
    return table


def reuse_line(records: Sequence[RunRecord]) -> str:
    """How often stages 1-3 took their baseline from the store instead of measuring it."""
    stages = [s for r in records for s in r.stages if s.baseline_from != "none" and s.kind != "profile"]
    reused = sum(s.baseline_from == "store" for s in stages)
    return (
        f"baseline: {reused} of {len(stages)} stage measurements came from the store, "
        f"{len(stages) - reused} were made now (timing is always measured side by side)"
    )
