"""The `gate` command: arguments → calls → exit code.  The composition root, and the only place that exits.

Commands import what they need when they run: `gate --help` loads neither torch nor transformers nor scipy.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gate import __version__, terminal
from gate.commands import baseline as baselines
from gate.commands import ci, publish
from gate.commands.calibrate import calibrate
from gate.commands.compare import compare
from gate.commands.decide import decide
from gate.commands.doctor import doctor
from gate.commands.fetch import fetch, online_worker
from gate.commands.inspect import inspect
from gate.commands.plan import plan
from gate.commands.share import share
from gate.commands.workers import device_for, measuring
from gate.errors import ExitCode, GateError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from gate.policy_file import LoadedPolicy
    from gate.records import RunRecord, Waiver

EXIT_CODES = """\
Exit codes: 0 pass (also with a waiver), 1 regression, 2 usage or policy error (nothing was run), 3 inconclusive,
4 could not measure, 5 refused, 70 a bug in the gate, 130 interrupted.
"""

app = typer.Typer(
    name="gate",
    help="Decides whether a quantized checkpoint may replace its full-precision baseline.\n\n"
    "Start with `gate demo`, then `gate plan` and `gate run` on your own checkpoints.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PolicyPath = Annotated[Path, typer.Option("--policy", "-p", help="YAML with stages and acceptance thresholds.")]
BackendName = Annotated[
    str, typer.Option(help="hf (transformers), vllm, openai (a running server) or fake (for tests).")
]
DeviceName = Annotated[str | None, typer.Option(help="cuda or cpu; default: cuda where there is one.")]
PythonPath = Annotated[str | None, typer.Option(help="Interpreter of the workers, with gate installed there.")]
StorePath = Annotated[
    str | None, typer.Option(help="Baseline store: folder or URL (s3://, gs://, az://); default: the user's cache.")
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(f"quantgate {__version__}")
        raise typer.Exit


@app.command()
def run(
    policy: PolicyPath,
    baseline: Annotated[str, typer.Option(help="Full precision: folder, hub id (or id@revision) or a policy name.")],
    candidate: Annotated[str, typer.Option(help="Quantized: folder, hub id (or id@revision) or a policy name.")],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("gate-out"),
    backend: BackendName = "hf",
    device: DeviceName = None,
    python: PythonPath = None,
    store: StorePath = None,
    store_read_only: Annotated[bool, typer.Option(help="Use stored baselines, keep none: for untrusted jobs.")] = False,
    stage: Annotated[
        list[str] | None, typer.Option(help="Run only this stage (repeatable); such a run never passes.")
    ] = None,
    keep_going: Annotated[bool, typer.Option(help="Run later stages after a red one.")] = False,
    allow_identical: Annotated[bool, typer.Option(help="Compare a checkpoint with itself (A/A).")] = False,
    offline: Annotated[bool, typer.Option(help="Never look for checkpoints outside this machine.")] = False,
    waivers: Annotated[Path | None, typer.Option(help="YAML with waivers of red rules; default: none hold.")] = None,
    on_inconclusive: Annotated[
        Literal["fail", "warn"] | None, typer.Option(help="Instead of the policy's: does an inconclusive run exit 0?")
    ] = None,
    policy_name: Annotated[
        str | None, typer.Option(help="How the record names the policy: its path in the repository.")
    ] = None,
) -> None:
    """Decide: measure the candidate against the baseline, stage by stage, and write the record.

    gate run -p thresholds/default.yaml --baseline ./model --candidate ./model-w4a16
    """
    from rich.console import Console

    from gate import console as shown
    from gate import outputs
    from gate.policy_file import load_policy, renamed, with_on_inconclusive
    from gate.waivers import load_waivers

    screen = Console()
    outputs.set_aside(out)
    loaded, notes = with_on_inconclusive(renamed(load_policy(policy), policy_name), on_inconclusive)
    record = _run(
        screen,
        loaded,
        baseline,
        candidate,
        out,
        backend=backend,
        device=device,
        python=python,
        store=store,
        store_read_only=store_read_only,
        stages=tuple(stage or ()),
        keep_going=keep_going,
        allow_identical=allow_identical,
        offline=offline,
        waivers=() if waivers is None else load_waivers(waivers),
        notes=notes,
    )
    shown.verdict(screen, record, out)
    raise typer.Exit(record.exit_code)


@app.command()
def demo(
    names: Annotated[list[str] | None, typer.Argument(help="Candidates to run; default: all of them.")] = None,
    out: Annotated[Path, typer.Option(help="Output folder; each candidate gets a folder in it.")] = Path("demo-out"),
) -> None:
    """Run the bundled baseline against the bundled candidates and print one table.

    No network, a few minutes on two cores.  Exits 0 when every run completed, whatever the verdicts.
    """
    from rich.console import Console
    from rich.text import Text

    from gate import console as shown
    from gate import outputs
    from gate.demo.bundle import candidates, policy_path, world
    from gate.policy_file import load_policy

    screen = Console() if sys.stdout.isatty() else Console(width=120)
    os.environ.setdefault("QUANTGATE_THREADS", "1")  # a model this small is slower on two threads than on one
    known = candidates()
    unknown = [n for n in names or () if n not in known]
    if unknown:
        raise UsageError(f"no demo candidate {unknown[0]!r}, expected one of: {', '.join(known)}")
    loaded = load_policy(policy_path())
    rows = []
    for name in names or known:
        screen.print(Text(f"\n{name}", style="bold"))
        outputs.set_aside(out / name)
        record = _run(
            screen,
            loaded,
            str(world() / "baseline"),
            str(world() / "candidates" / name),
            out / name,
            backend="hf",
            device="cpu",
            python=None,
            store=str(out / "baseline-store"),
            store_read_only=False,
            stages=(),
            keep_going=False,
            allow_identical=False,
            offline=True,
            waivers=(),
            notes=(),
        )
        shown.verdict(screen, record, out / name)
        rows.append((name, record))
    screen.print()
    screen.print(shown.runs_table(rows))
    screen.print(Text(shown.reuse_line([r for _, r in rows]), style="dim"), soft_wrap=True)


app.command()(fetch)
app.command()(plan)
app.command()(calibrate)
app.command()(compare)
app.command()(decide)
app.command()(share)
app.command()(doctor)
app.add_typer(baselines.app)
app.add_typer(ci.app)
app.add_typer(publish.app)
app.command()(inspect)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's output folder.")],
    format: Annotated[str, typer.Option("--format", "-f", help="html, junit, markdown, json or text.")] = "text",
    out: Annotated[Path | None, typer.Option(help="File to write; default: the terminal.")] = None,
) -> None:
    """Render a finished run again from its run.json; nothing is measured or decided."""
    from gate import artifact, outputs

    path = folder / "run.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UsageError(f"found no run.json at {str(path)!r}, expected the output folder of gate run")
    text = outputs.render(format, artifact.loads_record(path.read_bytes()))
    if out is None:
        typer.echo(text)
    else:
        try:
            artifact.write_atomic(out, text.encode())
        except OSError as problem:
            raise UsageError(f"--out {str(out)!r} cannot be written: {problem.strerror}") from problem


@app.command()
def schema(
    kind: Annotated[Literal["policy", "run"], typer.Argument(help="policy: the YAML; run: run.json.")],
) -> None:
    """Print a JSON Schema, for editors (policy) and for consumers of run.json (run)."""
    from gate import artifact, policy_file

    document = policy_file.schema() if kind == "policy" else artifact.schema()
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


def _run(
    screen: Console,
    loaded: LoadedPolicy,
    baseline: str,
    candidate: str,
    out: Path,
    *,
    backend: str,
    device: str | None,
    python: str | None,
    store: str | None,
    store_read_only: bool,
    stages: tuple[str, ...],
    keep_going: bool,
    allow_identical: bool,
    offline: bool,
    waivers: tuple[Waiver, ...],
    notes: tuple[str, ...],
) -> RunRecord:
    """Wire the services, run the gate, write the folder."""
    import time
    from datetime import datetime
    from functools import partial

    from gate import environment, fetching, outputs, preflight
    from gate.console import RunConsole
    from gate.pipeline import run_gate
    from gate.request import Request, Services
    from gate.store import ready_store

    place = device_for(backend, device)
    preflight.refuse_hopeless(loaded)
    kept = ready_store(store, read_only=store_read_only)
    outputs.prepare(out)

    start = measuring(loaded.policy, backend=backend, device=place, python=python, log=out / "log.txt")

    def shown(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    with (
        (out / "log.txt").open("a", encoding="utf-8") as log,
        fetching.Fetcher(loaded, lambda: online_worker(python, out / "log.txt")) as fetcher,
    ):
        command = fetching.command(loaded, {"baseline": baseline, "candidate": candidate})
        source = fetching.source_of_a_run(None if offline else fetcher, command, shown)
        for line in () if offline else fetching.fetch_missing(fetcher, (baseline, candidate)):
            shown(line)
        outcome = run_gate(
            Request(
                policy=loaded,
                baseline=baseline,
                candidate=candidate,
                backend=backend,
                device=place,
                stages=stages,
                keep_going=keep_going,
                allow_identical=allow_identical,
                offline=offline,
                fetch_command=command,
                refuse_hopeless=partial(preflight.refuse_hopeless, loaded),
                waivers=waivers,
                notes=notes,
            ),
            Services(
                start_worker=lambda role, chosen: fetching.CheckingWorker(start(role, chosen), source),
                store=kept,
                environment=environment.snapshot(place),
                reporter=RunConsole(screen, log),
                now=lambda: datetime.now(UTC),
                monotonic=time.monotonic,
            ),
        )
        log.write(f"{outcome.record.verdict.status} {outcome.record.verdict.sentence}\n")
    for problem in outputs.write(out, outcome):
        screen.print(problem, style="bold red", markup=False)
    return outcome.record


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit code; nothing uncaught may look like a regression."""
    try:
        app(args=sys.argv[1:] if argv is None else argv)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except GateError as problem:
        from gate.reports import escape

        # what a checkpoint or a file says of itself must not command a terminal or a CI job
        typer.echo(escape.workflow(escape.block(f"gate: {problem}")), err=True)
        return int(problem.exit_code)
    except KeyboardInterrupt:
        typer.echo("gate: interrupted", err=True)
        return int(ExitCode.INTERRUPTED)
    except Exception:
        from gate.reports import escape

        # an exception may quote anything, as above
        typer.echo(escape.workflow(escape.block(traceback.format_exc().rstrip("\n"))), err=True)
        typer.echo("gate: this is a bug in the gate, not a verdict; please report it with the lines above", err=True)
        return int(ExitCode.INTERNAL)
    return 0


def entry() -> None:
    """The console script.  A CI's cancel (SIGTERM) ends a run like Ctrl-C does: with a record."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from gate.reports import escape

    terminal.install(escape.workflow)
    sys.exit(main())


if __name__ == "__main__":
    entry()
