"""`gate calibrate`: measure a baseline against itself and keep its noise floor beside it.

Wires and shows; what is measured and judged lives in `gate.calibration`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gate.commands.workers import device_for, measuring
from gate.errors import CouldNotMeasure, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from gate.calibration import SourceResult
    from gate.decide.noise import Noise
    from gate.policy_file import LoadedPolicy
    from gate.records import Finding

BATCH_SIZE = 4
"""Of the second measurement: other than every backend's own, and not so small that it takes for ever."""

PROCESSES = 5
"""Pairs of processes that time a profile stage: the variance of fewer is known too badly to be of use."""


def calibrate(
    policy: Annotated[Path, typer.Option("--policy", "-p", help="YAML with stages and acceptance thresholds.")],
    baseline: Annotated[str, typer.Option(help="Full precision: folder, hub id (or id@revision) or a policy name.")],
    out: Annotated[Path, typer.Option(help="Output folder: calibration.json and log.txt.")] = Path("gate-calibration"),
    backend: Annotated[str, typer.Option(help="What runs the model: hf, vllm, openai or fake.")] = "hf",
    device: Annotated[str | None, typer.Option(help="cuda or cpu; default: cuda where there is one.")] = None,
    python: Annotated[str | None, typer.Option(help="Interpreter of the workers, with gate installed there.")] = None,
    store: Annotated[str | None, typer.Option(help="Baseline store: folder or URL; default: the user's cache.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Of the second measurement.")] = BATCH_SIZE,
    processes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Pairs of fresh processes that time each profile stage. Each loads the model twice; the first takes "
            "as long as the stage in a run, the others 4 pairs of blocks each. 0 leaves timing out, else at least 3.",
        ),
    ] = PROCESSES,
    offline: Annotated[bool, typer.Option(help="Never look for checkpoints outside this machine.")] = False,
) -> None:
    """Measure the baseline against itself: how much does it differ?  Run it once per model and machine.

    Scores are measured twice, the second time with another batch size and order, and other seeds where answers are
    sampled.  The share of answers that changes is the noise floor: no bound inside it can be decided.

    Timing is measured in several pairs of fresh processes: how much they differ widens the intervals of later runs.
    Both are stored beside the baseline.

    Exits 0 when no blocking rule finds a regression in the baseline itself, else 4: the measurement is unreliable.
    """
    from rich.console import Console

    from gate import artifact, outputs
    from gate.calibration import failures
    from gate.console import RunConsole
    from gate.decide.noise import MIN_PROCESSES
    from gate.policy_file import load_policy

    if 0 < processes < MIN_PROCESSES:
        raise UsageError(
            f"found --processes {processes}, expected 0 (no timing) or at least {MIN_PROCESSES}: fewer say nothing of "
            "how much they vary"
        )
    loaded = load_policy(policy)
    screen = Console() if sys.stdout.isatty() else Console(width=120)
    outputs.prepare(out)
    results = _measured(
        loaded,
        baseline,
        out / "log.txt",
        backend=backend,
        device=device,
        python=python,
        store=store,
        batch_size=batch_size,
        processes=processes,
        offline=offline,
        progress=RunConsole(screen, None).progress,
    )
    try:
        artifact.write_atomic(out / "calibration.json", _json(results, batch_size))
    except OSError as problem:
        raise UsageError(f"--out {str(out)!r} cannot be written: {problem.strerror}") from problem
    screen.print(table(results))
    problems = failures(results)
    if problems:
        raise CouldNotMeasure("\n".join(problems))
    typer.echo("No rule finds a regression in the baseline itself.  Its noise floor is kept beside it in the store.")


def _measured(
    loaded: LoadedPolicy,
    baseline: str,
    log: Path,
    *,
    backend: str,
    device: str | None,
    python: str | None,
    store: str | None,
    batch_size: int,
    processes: int,
    offline: bool,
    progress: Callable[[int, int, str], None],
) -> tuple[SourceResult, ...]:
    """Wire a run whose two sides are one checkpoint, and calibrate."""
    import tempfile

    from gate import checkpoint, environment
    from gate.calibration import calibrate as measured_twice
    from gate.calibration import calibrated_sources, timed_by, twice_by
    from gate.checkpoint import view
    from gate.evidence import Collector, Side
    from gate.noise_floor import Place
    from gate.records import Role
    from gate.store import open_store

    place = device_for(backend, device)
    calibrated_sources(loaded, timing=processes > 0)  # nothing to calibrate is said before anything is loaded
    kept = open_store(store)
    kept.check_writable()
    found = checkpoint.resolve(
        baseline,
        policy_checkpoints=loaded.policy.checkpoints,
        base=loaded.base,
        offline=offline,
        backend=backend,
        engines=loaded.policy.engines,
    )
    here = environment.snapshot(place)

    start = measuring(loaded.policy, backend=backend, device=place, python=python, log=log)

    with tempfile.TemporaryDirectory(prefix="quantgate-view-", ignore_cleanup_errors=True) as folder:
        loaded_from = view.build(found, Path(folder), backend=backend)
        for remark in loaded_from.remarks(Role.BASELINE):
            typer.echo(f"note: {remark}", err=True)

        def side(role: Role, size: int | None) -> Side:
            return Side(role, checkpoint.describe(found, role), loaded_from, start, batch_size=size)

        def collector(size: int | None) -> Collector:
            return Collector(
                baseline=side(Role.BASELINE, None),
                candidate=side(Role.CANDIDATE, size),
                store=kept,
                environment=here,
                base=loaded.base,
                seed=loaded.policy.seed,
                backend=backend,
                device=place,
                progress=progress,
            )

        scores, timings = collector(batch_size), collector(None)
        at = Place(
            effective_digest=scores.baseline.ref.effective_digest,
            backend=backend,
            device=place,
            environment=here.fingerprint,
            base=loaded.base,
        )
        with scores, timings:
            timed = timed_by(timings, processes, beside=scores) if processes else None
            results = measured_twice(loaded, twice_by(scores), timed, kept, at, batch_size=batch_size)
    for problem in kept.problems:
        typer.echo(f"note: {problem}", err=True)
    return results


def table(results: Sequence[SourceResult]) -> Table:
    """A line per metric that a rule compares; of a source without such a rule, per metric that has a noise."""
    from rich.table import Table

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading, right in (("source", False), ("metric", False), ("n", True), ("noise", False), ("floor", True)):
        shown.add_column(heading, justify="right" if right else "left", no_wrap=True)
    shown.add_column("against itself", overflow="fold")
    for result in results:
        if result.problem is not None:
            shown.add_row(result.source, "", "", "", "", f"not measured: {result.problem}")
        for row in _rows(result):
            shown.add_row(result.source, *row)
    return shown


def _rows(result: SourceResult) -> Iterator[tuple[str, str, str, str, str]]:
    judged = dict.fromkeys(f.rule.metric for f in result.findings)
    for metric in judged or dict.fromkeys(noise.metric for noise in result.noises):
        findings = [f for f in result.findings if f.rule.metric == metric]
        against = "\n".join(map(_against, findings)) or "no rule compares it"
        found: list[Noise | None] = [n for n in result.noises if n.metric == _observed(n, metric)]
        for noise in found or [None]:
            yield _named(noise, metric), *_numbers(noise), against


def _observed(noise: Noise, metric: str) -> str:
    """What the noise of a rule's metric goes by: timings are kept as they are observed."""
    from gate.decide.noise import TimingNoise
    from gate.metrics import PROFILE

    return PROFILE[metric].observed if isinstance(noise, TimingNoise) and metric in PROFILE else metric


def _named(noise: Noise | None, metric: str) -> str:
    from gate.decide.noise import TimingNoise

    return f"{metric} {noise.group}" if isinstance(noise, TimingNoise) else metric


def _numbers(noise: Noise | None) -> tuple[str, str, str]:
    """n, the noise, and the floor: what a rule at least has to allow."""
    from gate.decide.noise import FlipNoise, TimingNoise

    if noise is None:
        return "", "", ""
    if isinstance(noise, TimingNoise):
        said = f"processes differ by {100 * noise.between_log_sd:.2f}%, blocks by {100 * noise.within_log_sd:.2f}%"
        return f"{noise.processes} ({noise.pairs} pairs)", said, f"{100 * noise.floor:.2f}%"
    if isinstance(noise, FlipNoise):
        return str(noise.n), f"{100 * noise.flip_rate:.2f}% of answers change", f"{100 * noise.floor:.2f}pp"
    return str(noise.documents), f"{noise.token_sd_nats:.4f} nats a token", f"{100 * noise.floor:.3f}%"


def _against(finding: Finding) -> str:
    from gate.records import Severity

    by = f" by {finding.rule.by}" if finding.rule.by else ""
    advisory = " (advisory)" if finding.rule.severity is Severity.ADVISORY else ""
    return f"{finding.rule.bound.kind} {finding.rule.bound.text}{by}: {finding.status}{advisory}"


def _json(results: Sequence[SourceResult], batch_size: int) -> bytes:
    import json
    from dataclasses import asdict

    def rule(finding: Finding) -> dict[str, Any]:
        return {"id": finding.rule.id, "status": finding.status, "reason": finding.reason}

    sources = [
        {
            "stage": r.stage,
            "source": r.source,
            "noise": [asdict(n) for n in r.noises],
            "rules": [rule(f) for f in r.findings],
            "problem": r.problem,
        }
        for r in results
    ]
    return json.dumps({"batch_size": batch_size, "sources": sources}, indent=1).encode()
