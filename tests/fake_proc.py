"""A /proc of made-up processes, written into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Proc:
    """Processes with threads, ticks and waiting times, all changeable between two looks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def process(
        self,
        pid: int,
        *,
        parent: int = 0,
        ticks: tuple[int, int, int, int] = (0, 0, 0, 0),
        threads: Mapping[int, tuple[int, int]] | None = None,
        children: tuple[int, ...] = (),
        name: str = "python",
    ) -> None:
        """`ticks`: user, system, and those of ended children; `threads`: id → (ran, waited) in ns."""
        folder = self.root / str(pid)
        fields = ["S", str(parent), *["0"] * 9, *map(str, ticks), *["0"] * 30]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        for tid, (ran, waited) in (threads or {pid: (0, 0)}).items():
            thread = folder / "task" / str(tid)
            thread.mkdir(parents=True, exist_ok=True)
            (thread / "schedstat").write_text(f"{ran} {waited} 7\n")
            (thread / "children").write_text("")
        (folder / "task" / str(pid) / "children").write_text(" ".join(map(str, children)))

    def cpus(self, *, busy: int, idle: int, stolen: int = 0) -> None:
        (self.root / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 {stolen} 0 0\ncpu0 1 1 1\n")

    def info(self, text: str) -> None:
        (self.root / "cpuinfo").write_text(text)
