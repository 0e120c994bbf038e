"""What a run will look for on this machine, downloaded beforehand by a child that is online and loads no model.

Downloads nothing in this process and measures nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from gate import checkpoint, policy
from gate.backends import BackendInfo
from gate.errors import CheckpointError, CouldNotMeasure, GateError, NotFetched, UsageError, WorkerError
from gate.evidence import MeasuringWorker, Progress, Stream
from gate.policy_file import LoadedPolicy

SILENCE_SECONDS = 600.0
"""A download may stall longer than a model does."""


class FetchingWorker(Protocol):
    """A child that may use the network; `gate.launch.Worker` is the real one."""

    @property
    def alive(self) -> bool: ...
    def fetch(self, stage: Mapping[str, Any], base: Path) -> list[str]: ...
    def fetch_checkpoint(self, reference: str, checkpoints: Mapping[str, Any], base: Path) -> str: ...
    def close(self) -> None: ...


StartWorker = Callable[[], FetchingWorker]


class Fetcher:
    """Downloads by a child, started when it is first needed.  Use as a context manager: it owns the child."""

    def __init__(self, loaded: LoadedPolicy, start_worker: StartWorker) -> None:
        self.loaded = loaded
        self._start = start_worker
        self._worker: FetchingWorker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; what is fetched afterwards starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def checkpoint(self, reference: str) -> str:
        """The folder of a checkpoint, once it is there.  A folder is not asked for on any network.

        Raises:
            CheckpointError, UsageError: there is no such folder or name, or it could not be downloaded.
            WorkerError: the child ended.
        """
        named = self.loaded.policy.checkpoints
        if checkpoint.is_local(reference, policy_checkpoints=named, base=self.loaded.base):
            found = checkpoint.resolve(reference, policy_checkpoints=named, base=self.loaded.base, offline=False)
            return str(found.path)
        table = {name: settings.model_dump(mode="json", exclude_none=True) for name, settings in named.items()}
        return self._running().fetch_checkpoint(reference, table, self.loaded.base)

    def source(self, settings: Mapping[str, Any]) -> list[str]:
        """A line for everything that a source of a stage needs and that is now at hand.

        Raises:
            DataError: a name is unknown or a file is broken.
            CouldNotMeasure: it could not be downloaded, or the child ended.
        """
        return self._running().fetch(settings, self.loaded.base)

    def _running(self) -> FetchingWorker:
        if self._worker is None or not self._worker.alive:
            self._worker = self._start()
        return self._worker


def fetch_all(loaded: LoadedPolicy, references: Sequence[str], start_worker: StartWorker) -> Iterator[str]:
    """Fetch the checkpoints and every source of the policy; yields a line for each thing that is now at hand.

    Everything is attempted before the failures are reported together.

    Raises:
        UsageError: a name is unknown or a file is broken; the message has every other failure too.
        CouldNotMeasure: something could not be downloaded.
    """
    failures: list[GateError] = []
    with Fetcher(loaded, start_worker) as fetcher:
        for reference in references:
            try:
                folder = fetcher.checkpoint(reference)
            except (UsageError, CouldNotMeasure) as problem:
                failures.append(problem)
            else:
                yield f"checkpoint {reference}: {folder}"
        for stage in loaded.policy.stages:
            for _, settings in policy.split(stage):
                try:
                    lines = fetcher.source(settings.model_dump(mode="json"))
                except (UsageError, CouldNotMeasure) as problem:
                    failures.append(problem)
                else:
                    yield from (f"{stage.name}: {line}" for line in lines)
    if failures:
        raise _all(failures)


def fetch_missing(fetcher: Fetcher, references: Sequence[str]) -> Iterator[str]:
    """Before a run: download the checkpoints of the hub that are not on this machine, and only those.

    Yields a line before and after each.  One that cannot be had is told, and left for the run to stop at.
    """
    for reference in dict.fromkeys(references):
        if not _is_missing(fetcher.loaded, reference):
            continue
        yield f"checkpoint {reference} is not on this machine: downloading it"
        try:
            yield f"checkpoint {reference}: {fetcher.checkpoint(reference)}"
        except (UsageError, CouldNotMeasure) as problem:
            yield _told(problem)
    fetcher.close()


FetchSource = Callable[[Mapping[str, Any], NotFetched], None]
"""(settings of a source, what it lacks) → it is there; raises NotFetched where it could not be had."""


def source_of_a_run(fetcher: Fetcher | None, command: str, say: Callable[[str], None]) -> FetchSource:
    """What a run does about a source that is not on this machine: it is fetched, or the user is told how to.

    Args:
        fetcher: None where the run stays offline.
        command: line that fetches everything this run needs.
    """

    def fetched(settings: Mapping[str, Any], problem: NotFetched) -> None:
        if fetcher is None:
            raise NotFetched(f"{problem}\nThis run is offline. What it needs is fetched by `{command}`") from problem
        say(f"{settings['name']}: downloading what is not on this machine")
        try:
            for line in fetcher.source(settings):
                say(f"{settings['name']}: {line}")
        except CouldNotMeasure as failure:
            raise NotFetched(f"{problem}\n{_told(failure)}\nTo try again: `{command}`") from failure
        finally:
            fetcher.close()  # nothing stays online while the run measures

    return fetched


class CheckingWorker:
    """A measuring worker whose `check` fetches what is missing, once; it is offline itself."""

    def __init__(self, worker: MeasuringWorker, fetch_source: FetchSource) -> None:
        self._worker = worker
        self._fetch_source = fetch_source

    @property
    def running(self) -> bool:
        return self._worker.running

    def check(self, stage: Mapping[str, Any], base: Path) -> tuple[Path, ...]:
        """As the worker's own.  Raises NotFetched for what could not be had."""
        try:
            return self._worker.check(stage, base)
        except NotFetched as problem:
            self._fetch_source(stage, problem)
        return self._worker.check(stage, base)

    def open(self) -> BackendInfo:
        return self._worker.open()

    def begin(self, *, stage: Mapping[str, Any], context: Mapping[str, Any], on_progress: Progress) -> Stream:
        return self._worker.begin(stage=stage, context=context, on_progress=on_progress)

    def close(self) -> None:
        self._worker.close()


def command(loaded: LoadedPolicy, references: Mapping[str, str]) -> str:
    """The command line that fetches what a run with these checkpoints (`baseline`, `candidate`) needs."""
    options = [word for role, reference in references.items() for word in (f"--{role}", reference)]
    return shlex.join(["gate", "fetch", "--policy", loaded.source, *options])


def _is_missing(loaded: LoadedPolicy, reference: str) -> bool:
    named = loaded.policy.checkpoints
    try:
        if checkpoint.is_local(reference, policy_checkpoints=named, base=loaded.base):
            return False
    except (CheckpointError, UsageError):
        return False  # no network helps; the run says what is wrong
    try:
        checkpoint.resolve(reference, policy_checkpoints=named, base=loaded.base, offline=True)
    except CheckpointError:
        return True
    return False


def _all(failures: Sequence[GateError]) -> GateError:
    """One error for all of them: a wrong name decides, since no network repairs it."""
    text = "\n".join(
        [
            f"{len(failures)} {'thing' if len(failures) == 1 else 'things'} could not be fetched:",
            *(f"  {_told(problem)}" for problem in failures),
        ]
    )
    if all(isinstance(problem, UsageError) for problem in failures):
        return UsageError(text)
    text += (
        "\nIs there a network, and does HF_TOKEN hold a token where one is needed (gated repositories)? "
        "What was downloaded stays; run the same command again."
    )
    return UsageError(text) if any(isinstance(problem, UsageError) for problem in failures) else CouldNotMeasure(text)


def _told(problem: GateError) -> str:
    tail = problem.stderr_tail.splitlines() if isinstance(problem, WorkerError) else []
    return f"{problem} (its log ends with {tail[-1]!r})" if tail else str(problem)
