"""What each role says of each source: taken from the baseline store, or measured by that role's worker.

Measures and remembers; judges nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from gate import __version__
from gate.backends import BackendInfo, Checkpoint
from gate.checkpoint import ResolvedCheckpoint
from gate.checkpoint.view import View
from gate.errors import ArtifactError, CouldNotMeasure, GateError
from gate.order import order_seed, sample_seed
from gate.policy import Stage
from gate.records import CheckpointRef, Environment, Estimand, Measurement, Metric, Observation, Role, merge
from gate.stages import VERSIONS
from gate.store import Entry, Store, stage_digest

Progress = Callable[[int, int, str], None]
_BLOCK = re.compile(r"block/\d+")


class Stream(Protocol):
    """A measurement under way: `advance` yields its next part, None after the last one."""

    def advance(self, deadline_seconds: float | None) -> Measurement | None: ...
    def end(self) -> None: ...


class MeasuringWorker(Protocol):
    """The parent's handle on one measuring child; `gate.launch.Worker` is the real one."""

    @property
    def running(self) -> bool: ...
    def check(self, stage: Mapping[str, Any], base: Path) -> tuple[Path, ...]: ...
    def open(self) -> BackendInfo: ...
    def begin(self, *, stage: Mapping[str, Any], context: Mapping[str, Any], on_progress: Progress) -> Stream: ...
    def close(self) -> None: ...


StartWorker = Callable[[Role, Checkpoint], MeasuringWorker]
SecondsLeft = Callable[[], float | None]
"""What is left of the time budget, None without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One role's measurement of one source, and the folder with its bulky by-products."""

    measurement: Measurement
    artifacts: Path
    from_store: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Which timing block: the `number`-th of its role, of the first measurement or of the one that confirms it."""

    role: Role
    number: int
    again: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Again:
    """A stored measurement of the baseline and one made now; `proposal` is where the store keeps it.

    It is None where every score is the same: there is nothing to promote.
    """

    old: Measurement
    new: Measurement
    proposal: Entry | None


class Side:
    """One role: its checkpoint and its worker, which is started, checked and loaded when first needed.

    `ref` is what the checkpoint is, `view` what of it is loaded; `batch_size` goes before the policy's own.
    `starts` counts its workers so far.
    """

    def __init__(
        self, role: Role, ref: CheckpointRef, view: View, start: StartWorker, *, batch_size: int | None = None
    ) -> None:
        self.role = role
        self.ref = ref
        self._view = view
        self._checkpoint = to_load(view.checkpoint, batch_size=batch_size)
        self._start = start
        self._worker: MeasuringWorker | None = None
        self._info: BackendInfo | None = None
        self.known: BackendInfo | None = None
        """What was opened, also when its worker is gone."""
        self.starts = 0

    def started(self) -> MeasuringWorker:
        """The worker process, model not necessarily loaded; a fresh one if the last is gone.  Raises WorkerError."""
        if self._worker is not None and not self._worker.running:
            self.drop()
        if self._worker is None:
            self._worker = self._start(self.role, self._checkpoint)
            self.starts += 1
        return self._worker

    def opened(self) -> tuple[MeasuringWorker, BackendInfo]:
        """The worker with its model loaded.  Raises CheckpointError, Refused, WorkerError."""
        worker = self.started()  # forgets `_info` together with a worker that is gone
        if self._info is None:
            try:
                self._info = self.known = worker.open()
            except GateError as problem:
                raise self._view.explained(problem) from None
        return worker, self._info

    @property
    def runs_own_code(self) -> bool:
        """Whether code of the checkpoint itself is run."""
        return self._checkpoint.trust_remote_code

    def drop(self) -> None:
        """Close the worker, if any; the next use starts a fresh one."""
        worker, self._worker, self._info = self._worker, None, None
        if worker is not None:
            worker.close()


def to_load(resolved: ResolvedCheckpoint, *, batch_size: int | None) -> Checkpoint:
    """What a worker is told to load; `batch_size` goes before the policy's own."""
    engine = resolved.engine.given()
    return Checkpoint(
        path=str(resolved.path),
        load=resolved.load,
        dtype=resolved.dtype,
        tokenizer=resolved.tokenizer,
        batch_size=batch_size or engine.get("batch_size"),
        engine=engine,
        trust_remote_code=resolved.trust_remote_code,
    )


class Collector:
    """Collects the evidence of one run.  Use as a context manager: it owns the workers and open store slots."""

    def __init__(
        self,
        *,
        baseline: Side,
        candidate: Side,
        store: Store,
        environment: Environment,
        base: Path,
        seed: int,
        backend: str,
        device: str,
        progress: Progress,
    ) -> None:
        self.baseline = baseline
        self.candidate = candidate
        self._store = store
        self._environment = environment
        self._base = base
        self._backend = backend
        self._device = device
        self.progress = progress
        self._stack = ExitStack()
        self._files: dict[str, tuple[Path, ...]] = {}
        # The same sample for every candidate of this baseline; nobody re-rolls it from the command line.
        self.sample_seed = sample_seed(seed, baseline.ref.effective_digest)
        self.order_seed = order_seed(self.sample_seed, candidate.ref.effective_digest)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.drop_workers()

    def drop_workers(self) -> None:
        """Close both workers, also when one of them fails to close; the next use starts fresh ones."""
        try:
            self.baseline.drop()
        finally:
            self.candidate.drop()

    def check(self, settings: Stage) -> None:
        """Check one source without a model, and remember the files that its scores depend on; goes before measuring.

        Raises:
            DataError: a file, a line or a task is wrong.
            CouldNotMeasure: the check could not be made.
        """
        files = self.candidate.started().check(settings.model_dump(mode="json"), self._base)
        self._files[settings.model_dump_json()] = files

    def of_baseline(self, source: str, settings: Stage, seconds_left: SecondsLeft) -> Evidence:
        """The baseline's measurement of the whole sample: paid for once per content key, then read back.

        Raises:
            WorkerError, CouldNotMeasure: it is not stored and could not be measured.
        """
        evidence, unkept = self._taken(self._key(source, settings), settings, seconds_left)
        if unkept is not None and not evidence.measurement.failures:
            self._store.problems.append(f"the baseline's measurement of {source} was used and not kept: {unkept}")
        return evidence

    def stored(self, source: str, settings: Stage) -> tuple[Evidence, str | None]:
        """As `of_baseline`, for the sake of the store: with the reason why it was not kept, None if it is there.

        Raises:
            WorkerError, CouldNotMeasure: it is not stored and could not be measured.
        """
        return self._taken(self._key(source, settings), settings, lambda: None)

    def again(self, source: str, settings: Stage) -> Again | None:
        """Measure once more what is stored, and propose that in its place if it differs; None where nothing is stored.

        Raises:
            WorkerError, CouldNotMeasure: it could not be measured whole, or not be kept.
        """
        key = self._key(source, settings)
        old = self._store.get(key)
        if old is None:
            return None
        with self._store.reserve(key) as slot:
            new = self._whole(settings, slot.artifacts, lambda: None)
            if new.failures:
                raise CouldNotMeasure(f"{lost(new)}: what is stored stays as it is")
            same = new.observations == old.measurement.observations
            proposal = None if same else slot.propose(new, self._provenance(settings))
            return Again(old=old.measurement, new=new, proposal=proposal)

    def _taken(self, key: str, settings: Stage, seconds_left: SecondsLeft) -> tuple[Evidence, str | None]:
        """The baseline's measurement, from the store or made; and why it is not in the store, None if it is."""
        stored = self._store.get(key)
        if stored is not None:
            return Evidence(measurement=stored.measurement, artifacts=stored.artifacts, from_store=True), None
        slot = self._stack.enter_context(self._store.reserve(key))
        measurement = self._whole(settings, slot.artifacts, seconds_left)
        found = Evidence(measurement=measurement, artifacts=slot.artifacts, from_store=False)
        if measurement.failures:
            # An item may be lost by accident; a later run should get the chance to measure it.
            return found, lost(measurement)
        try:
            kept = slot.commit(measurement, self._provenance(settings))
        except ArtifactError as problem:  # a full disk must not cost a measurement that was paid for
            return found, str(problem)
        return Evidence(measurement=kept.measurement, artifacts=kept.artifacts, from_store=False), None

    def _key(self, source: str, settings: Stage) -> str:
        """Of the baseline's measurement: everything that can change it, and nothing that cannot.

        How it is loaded and run (dtype, quantization, engine settings that change scores) is in its effective digest.
        """
        # The workers' interpreter may not be ours, so its own packages are asked for; the candidate is needed anyway.
        _, loaded = self.candidate.opened()
        return self._store.key(
            {
                "digest": self.baseline.ref.digest,
                "effective_digest": self.baseline.ref.effective_digest,
                "tokenizer_digest": self.baseline.ref.tokenizer_digest,
                "trust_remote_code": "yes" if self.baseline.runs_own_code else "no",
                "stage": settings.kind,
                "stage_name": settings.name,
                "source": source,
                "settings_digest": self._settings_digest(settings),
                "sample_seed": self.sample_seed,
                "backend": self._backend,
                "packages": json.dumps(dict(loaded.packages), sort_keys=True),
                "device": self._device,
                "environment": self._environment.fingerprint,
            }
        )

    def _provenance(self, settings: Stage) -> dict[str, Any]:
        """For people: nothing is decided by it."""
        ref, here = self.baseline.ref, self._environment
        return {
            "uri": ref.uri,
            "revision": ref.revision,
            "architecture": ref.architecture,
            "n_parameters": ref.n_parameters,
            "settings": settings.model_dump(mode="json", exclude_none=True, exclude={"rules"}),
            "platform": here.platform,
            "python": here.python,
            "devices": list(here.device_names),
            "driver": here.driver,
            "git_commit": here.git_commit,
            "gate": __version__,
        }

    def _whole(self, settings: Stage, artifacts: Path, seconds_left: SecondsLeft) -> Measurement:
        stream = self._begin(self.baseline, settings, artifacts)
        return whole(merge(list(_parts(stream, seconds_left))))

    def of_candidate(self, settings: Stage, artifacts: Path) -> Stream:
        """The candidate's measurement, part by part; `artifacts` are the baseline's by-products for the same source.

        Raises:
            CheckpointError, WorkerError: the model cannot be loaded.
        """
        return self._begin(self.candidate, settings, artifacts)

    def side(self, role: Role) -> Side:
        return self.baseline if role is Role.BASELINE else self.candidate

    def block(
        self, settings: Stage, block: Block, scratch: Path, seconds_left: SecondsLeft, progress: Progress
    ) -> Measurement:
        """One timing block of one role, with the worker that it has.

        Raises:
            BudgetExceeded, CouldNotMeasure, DataError, WorkerError: as `Side.opened` and `Stream.advance`.
        """
        stream = self._begin(self.side(block.role), settings, scratch, block, progress)
        return merge(list(_parts(stream, seconds_left)))

    def _settings_digest(self, settings: Stage) -> str:
        files = self._files[settings.model_dump_json()]
        return stage_digest(settings.model_dump(mode="json"), files, VERSIONS[settings.kind], self._base)

    def _begin(
        self, side: Side, settings: Stage, artifacts: Path, block: Block | None = None, progress: Progress | None = None
    ) -> Stream:
        worker, _ = side.opened()
        show = progress or self.progress
        return worker.begin(
            stage=settings.model_dump(mode="json"),
            context={
                "base": str(self._base),
                "settings_digest": self._settings_digest(settings),
                "sample_seed": self.sample_seed,
                "order_seed": self.order_seed if side.role is Role.CANDIDATE else self.sample_seed,
                "artifacts": str(artifacts),
                "block": None if block is None else block.number,
                "again": block is not None and block.again,
            },
            on_progress=lambda done, total, label: show(done, total, f"{label}, {side.role}"),
        )


def _parts(stream: Stream, seconds_left: SecondsLeft) -> Iterator[Measurement]:
    while (part := stream.advance(seconds_left())) is not None:
        yield part


def whole(measurement: Measurement) -> Measurement:
    """The measurement of a stage that came to its end: whatever it did not yield is lost, not left to be asked."""
    return replace(measurement, n_reached=measurement.n_expected)


def lost(measurement: Measurement) -> str:
    """How much of it could not be measured, and why the first item could not."""
    first = measurement.failures[0]
    return f"{len(measurement.failures)} of {measurement.n_expected} items were lost ({first.kind}: {first.message})"


def with_scalar(measurement: Measurement, metric: Metric, value: float) -> Measurement:
    """The measurement plus one number that is known without a model (bytes on disk)."""
    observation = Observation(
        metric=metric.observed, item_id="run/0", value=value, weight=1.0, cluster=None, group=None
    )
    metrics = measurement.metrics if metric in measurement.metrics else (*measurement.metrics, metric)
    return replace(measurement, metrics=metrics, observations=(*measurement.observations, observation))


def storing_errors(measurements: Sequence[Measurement]) -> Iterator[str]:
    """What storing a baseline's distributions and running it again changed, where both roles are the same model."""
    for measurement in measurements:
        found = [o for o in measurement.observations if o.metric == "kl_nats" and measurement.role is Role.CANDIDATE]
        if found:
            found = [o for o in found if o.group == found[-1].group]  # looks are cumulative: the last has all
            mean = math.fsum(o.value * o.weight for o in found) / math.fsum(o.weight for o in found)
            yield (
                f"{measurement.source}: mean KL {mean:.2g} nats between two runs of the same model, the error of "
                "storing its distributions and of the kernels"
            )


def items_scored(measurement: Measurement) -> int:
    """Number of items with a value, or of timing blocks; corpus-level and one-off numbers are not items.

    Blocks count once, whatever was timed in them; those that only confirm do not count.
    """
    if any(m.estimand is Estimand.TIMING for m in measurement.metrics):
        timed = {m.observed for m in measurement.metrics if m.estimand is Estimand.TIMING}
        return len({o.item_id for o in measurement.observations if o.metric in timed and _BLOCK.fullmatch(o.item_id)})
    whole = {m.observed for m in measurement.metrics if m.estimand in (Estimand.SCALAR, Estimand.CORPUS)}
    ids = (o.item_id for o in measurement.observations if o.metric not in whole)
    return len({item_id.partition("/look=")[0] for item_id in ids})  # the same documents at every look
