"""The profile stage: one timing block of one model, and its memory.

Measures, never compares.  The pipeline keeps both models resident and runs the blocks in `block_order`, since drift of
the machine then hits both alike.  One call measures one block of one role: per shape and load, in an order that the
seed shuffles for each block, runs until the model is steady, whose times are thrown away, and then the measured ones.
Their median is the block's value (runs inside a block are not independent).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol, cast
from weakref import WeakKeyDictionary

from gate import units
from gate.backends import Arrival, Backend, BackendInfo, OutOfMemory, Served, Timing
from gate.errors import BudgetExceeded, CouldNotMeasure
from gate.machine import facts
from gate.machine.conditions import Watch
from gate.policy import ProfileStage
from gate.policy_profile import Load, Shape
from gate.records import ItemFailure, Measurement, Observation, Role
from gate.stages import Context, profile_load, profile_shape
from gate.stages.profile_memory import sizes
from gate.stages.profile_names import declared
from gate.stages.profile_warm_up import FIRST, LATER, WarmedUp, WarmUp

_RAN: WeakKeyDictionary[Backend, set[Hashable]] = WeakKeyDictionary()
"""Which shapes and loads each model has run in this process: what was compiled or cached for them is there."""


class Watching(Protocol):
    """Looks at the machine while a block is timed (`gate.machine.conditions.Watch`)."""

    def start(self) -> None: ...
    def finish(self) -> Mapping[str, float]: ...


def check(settings: ProfileStage, base: Path) -> tuple[Path, ...]:
    """Nothing to check without a model: prompts are random tokens."""
    return ()


def fetch(settings: ProfileStage, base: Path) -> list[str]:
    """Nothing to download."""
    return []


def block_order(blocks: int) -> tuple[tuple[Role, ...], ...]:
    """Who is measured first in each block: A B, B A, A B, … (so A B B A in every two blocks)."""
    forth = (Role.BASELINE, Role.CANDIDATE)
    return tuple(forth if block % 2 == 0 else forth[::-1] for block in range(blocks))


def measure(backend: Backend, settings: ProfileStage, context: Context) -> Iterator[Measurement]:
    """Measure block `context.block` of the first measurement, or of the second one (`context.again`).

    A shape or load that cannot be measured is an ItemFailure of its group, and the others stand: `out_of_memory`,
    `too_long` for the model's context, `no_tokens`, `not_served`.

    Raises:
        ValueError: no block number.
        BudgetExceeded: the time ran out on the way.
        CouldNotMeasure: prompt and new tokens of every shape and load exceed the model's context, or the backend says
            that timing this model makes no sense.
    """
    if context.block is None:
        raise ValueError("the profile stage measures one block at a time: context.block is None")
    _check_lengths(settings, backend.info.context_length)
    yield _Block(backend, settings, context, context.block).measured()


class _Block:
    """One block of one role on its way."""

    def __init__(self, backend: Backend, settings: ProfileStage, context: Context, number: int) -> None:
        self._backend, self._settings, self._context = backend, settings, context
        self._number = number
        self._is_first = number == 0 and not context.again
        self._item = f"{'again' if context.again else 'block'}/{number}"
        self._metrics = declared(settings, backend.info.device)
        self._observed = frozenset(m.observed for m in self._metrics)
        self._observations: list[Observation] = []
        self._failures: list[ItemFailure] = []
        self._notes: list[str] = []
        self._largest_tokens: int | None = None
        self._progress = (0, "")

    def measured(self) -> Measurement:
        started = perf_counter()
        info, settings = self._backend.info, self._settings
        if info.device.startswith("cpu"):
            self._notes.append("measured on CPU")
        if self._is_first:  # before anything is timed: what it takes is no part of the model's peaks
            self._describe_device()
        self._time_all()
        if not self._context.again:
            self._describe_model()
        return Measurement(
            stage=settings.name,
            source=settings.name,
            role=self._context.role,
            settings_digest=self._context.settings_digest,
            n_expected=settings.planned_pairs[-1],
            n_available=settings.planned_pairs[-1],
            n_reached=0 if self._context.again else 1,
            planned_tokens=0,
            chance=None,
            metrics=self._metrics,
            observations=tuple(self._observations),
            failures=tuple(self._failures),
            answers=(),
            seconds=perf_counter() - started,
            notes=tuple(dict.fromkeys(self._notes)),
        )

    # -- what is timed -------------------------------------------------------------------------------------

    def _time_all(self) -> None:
        shapes: dict[str, Shape | Load] = {self._settings.group(shape): shape for shape in self._settings.shapes}
        serving = self._settings.serving
        loads: dict[str, Shape | Load] = {} if serving is None else {f"load={x.name}": x for x in serving.loads}
        todo = shapes | loads
        watch = _watch(self._backend)
        watch.start()
        for done, group in enumerate(sorted(todo, key=lambda group: self._seed("order", group))):
            self._progress = (done, group)
            what = todo[group]
            try:
                if isinstance(what, Load):
                    self._time_load(group, what)
                else:
                    self._time_shape(group, what)
            except OutOfMemory as problem:
                self._fail(group, "out_of_memory", str(problem))
        self._progress = (len(todo), "")
        self._report()
        self._add(self._item, None, watch.finish())

    def _time_shape(self, group: str, shape: Shape) -> None:
        tokens = shape.prompt_tokens + shape.new_tokens
        if not self._fits_context(group, tokens):
            return

        def timed(number: int) -> Timing:
            timing = self._backend.timed_batch(
                batch_size=shape.batch_size,
                prompt_tokens=shape.prompt_tokens,
                new_tokens=shape.new_tokens,
                seed=self._seed(group, number),
            )
            self._report()
            return timing

        settings = self._settings
        try:
            found = profile_shape.runs(timed, count=settings.runs_a_block, warm_up_plan=self._warm_up_plan(shape))
        except profile_shape.NoTokens as problem:
            self._fail(group, "no_tokens", str(problem))
            return
        self._largest_tokens = max(shape.batch_size * tokens, self._largest_tokens or 0)
        self._note_warm_up(group, found.warmed_up)
        self._add(self._item, group, profile_shape.values(found.timings))
        kept = profile_shape.steps_kept(len(settings.shapes) * settings.planned_pairs[-1] * settings.runs_a_block)
        steps = max(len(t.step_seconds) for t in found.timings)
        if kept < steps:
            self._notes.append(
                f"{group}: the single times of {kept} of {steps} steps of each run are kept, evenly spread"
            )
        for name, place, seconds in profile_shape.samples(found.timings, kept):
            self._add(f"{self._item}/{place}", group, {name: seconds})

    def _time_load(self, group: str, load: Load) -> None:
        serving = self._settings.serving
        assert serving is not None  # it is the stage's
        mix = tuple(units.lengths(text) for text in serving.mix)
        longest = max(map(sum, mix))
        if longest > self._backend.info.context_length and (why := self._why_no_load()) is not None:
            self._fail(group, "not_served", why)
            return
        if not self._fits_context(group, longest):
            return

        def served(number: int, arrivals: Sequence[Arrival], concurrency: int | None) -> list[Served]:
            answers = self._backend.serve(arrivals, concurrency=concurrency, seed=self._seed(group, number))
            self._report()
            return answers

        seed, plan = self._seed(group, "plan"), self._warm_up_plan((load.name, mix))
        try:
            found = profile_load.answered(served, load, mix, seed=seed, warm_up_plan=plan)
        except BudgetExceeded:
            raise
        except CouldNotMeasure as problem:
            self._fail(group, "not_served", str(problem))
            return
        except profile_load.Unanswered as problem:
            self._fail(group, "no_tokens", str(problem))
            return
        self._note_warm_up(group, found.warmed_up)
        figures = profile_load.figures(load, found.served, self._settings.objectives, found.alone_seconds)
        self._add(self._item, group, figures.values)
        for i in range(len(found.served)):
            single = {name: times[i] for name, times in figures.samples.items()}
            self._add(f"{self._item}/request/{i}", group, {name: t for name, t in single.items() if t is not None})
        if figures.too_short:
            self._notes.append(
                f"{group}: its requests come for less than {profile_load.SHORT} times what one of them takes alone, "
                "too short a load to be steady: raise its `requests`"
            )

    def _why_no_load(self) -> str | None:
        """What a backend says that serves no load at all; nothing is served for it."""
        try:
            self._backend.serve((), concurrency=1, seed=0)
        except CouldNotMeasure as problem:
            return str(problem)
        return None

    def _warm_up_plan(self, what: Hashable) -> WarmUp:
        """A long one where this process has not run the shape, or the load with its mix, before.

        Not by the name of the group: in another stage, `batch=8` has other lengths.
        """
        ran = _RAN.setdefault(self._backend, set())
        plan = LATER if what in ran else FIRST
        ran.add(what)
        return plan

    def _fits_context(self, group: str, tokens: int) -> bool:
        longest = self._backend.info.context_length
        if tokens > longest:
            self._fail(group, "too_long", _too_long(tokens, longest))
        return tokens <= longest

    # -- what is known without timing ----------------------------------------------------------------------

    def _describe_device(self) -> None:
        info = self._backend.info
        rates = self._backend.rates()
        if rates is not None:
            self._add(
                f"run/{self._number}",
                None,
                {
                    "copy_bytes_per_second": rates.copy_bytes_per_second,
                    "matmul_flops_per_second": rates.matmul_flops_per_second,
                },
            )
        for i, pairs in enumerate(self._settings.planned_pairs):
            self._add(f"look/{i}", None, {"look_pairs": pairs})
        self._notes += facts.notes(info.device, info.device_uuids)

    def _describe_model(self) -> None:
        info = self._backend.info
        found = sizes(
            self._settings,
            self._backend.footprint(),
            self._backend.memory_bytes(),
            largest_tokens=self._largest_tokens,
            context_length=info.context_length,
            is_cuda=info.device.startswith("cuda"),
        )
        self._notes += found.notes
        self._add(f"run/{self._number}", None, {"load_seconds": info.load_seconds, **found.values})
        self._add(f"run/{self._number}", None, _facts(info))

    # -- how it is written down ----------------------------------------------------------------------------

    def _add(self, item_id: str, group: str | None, values: Mapping[str, float]) -> None:
        """One observation for each value that this stage declares."""
        self._observations += [
            Observation(metric=name, item_id=item_id, value=float(value), weight=1.0, cluster=None, group=group)
            for name, value in values.items()
            if name in self._observed
        ]

    def _fail(self, group: str, kind: str, message: str) -> None:
        self._failures.append(ItemFailure(item_id=f"{self._item}/{group}", kind=kind, message=message))

    def _note_warm_up(self, group: str, warmed_up: WarmedUp) -> None:
        if not warmed_up.became_steady:
            self._notes.append(f"{group} did not become steady in {warmed_up.runs} warm-up runs: its times may drift")

    def _report(self) -> None:
        done, label = self._progress
        total = len(self._settings.shapes) + len(self._settings.serving.loads if self._settings.serving else ())
        self._context.progress(done, total, f"{self._item}, {label}".removesuffix(", "))

    def _seed(self, *parts: object) -> int:
        """The same for both roles; another for each block, group and run."""
        name = "/".join(map(str, (self._context.sample_seed, self._item, *parts)))
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def _watch(backend: Backend) -> Watching:
    """On this machine; of a backend whose clock is not this machine's, what it has in place (the fake one)."""
    own = getattr(backend, "watch", None)
    if own is not None:
        return cast(Watching, own())
    return Watch(backend.info.device, backend.info.device_uuids)


def _facts(info: BackendInfo) -> dict[str, float]:
    """Of the device and of what the model computes in; the backend knows the GPU where NVML is missing."""
    found = {f"computes_in_{info.dtype}": 1.0, **facts.facts(info.device, info.device_uuids)}
    if info.compute_capability is not None:
        found.setdefault("gpu_compute_capability", info.compute_capability)
    return found


def _check_lengths(settings: ProfileStage, longest: int) -> None:
    """Raises CouldNotMeasure when nothing at all fits into the model's context."""
    shapes = [shape.prompt_tokens + shape.new_tokens for shape in settings.shapes]
    mix = () if settings.serving is None else settings.serving.mix
    loads = [max(sum(units.lengths(text)) for text in mix)] if mix else []
    if min(shapes + loads) > longest:
        raise CouldNotMeasure(_too_long(max(shapes + loads), longest))


def _too_long(tokens: int, longest: int) -> str:
    return f"prompt_tokens + new_tokens is {tokens}, expected at most the model's context of {longest} tokens"
