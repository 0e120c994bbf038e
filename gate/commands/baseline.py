"""`gate baseline`: the baseline store from the command line.

Parses arguments and prints; what is stored, dropped or promoted is decided in `gate.store` and by people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gate.errors import CouldNotMeasure, UsageError

if TYPE_CHECKING:
    from gate.promotion import Replacement
    from gate.store import Entry, Store

app = typer.Typer(
    name="baseline",
    help="The baseline store: what a baseline scored, measured once and used for every candidate.\n\n"
    "A store is a folder or a URL (s3://bucket/prefix, gs://…, az://…): --store or QUANTGATE_STORE. With "
    "QUANTGATE_STORE_KEY set, entries are signed with it and only signed ones are used. QUANTGATE_STORE_READONLY=1 "
    "keeps untrusted jobs from writing.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_KEY = re.compile("[0-9a-f]{4,64}")
_MAX_DAYS = 36_500

StoreUrl = Annotated[str | None, typer.Option("--store", help="Folder or URL; default: the user's cache.")]
Format = Annotated[Literal["text", "json"], typer.Option("--format", "-f", help="text, or json for scripts.")]
Promoter = Annotated[str | None, typer.Option(help="Who promotes.")]
Reason = Annotated[str | None, typer.Option(help="Why: kept with the entry and in the store's log.")]
Runs = Annotated[
    Path | None, typer.Option(help="Folder with earlier runs: lists their verdicts that the promotion would move.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Promote; without it, only say what would change.")]


@app.command()
def measure(
    policy: Annotated[Path, typer.Option("--policy", "-p", help="YAML with the stages to measure.")],
    baseline: Annotated[str, typer.Option(help="Full precision: folder, hub id (or id@revision) or a policy name.")],
    backend: Annotated[str, typer.Option(help="What runs the model.")] = "hf",
    device: Annotated[str | None, typer.Option(help="cuda or cpu; default: cuda where there is one.")] = None,
    python: Annotated[str | None, typer.Option(help="Interpreter of the worker, with gate installed there.")] = None,
    store: StoreUrl = None,
    again: Annotated[bool, typer.Option(help="Also measure what is stored, and propose it if it differs.")] = False,
    promote: Annotated[bool, typer.Option(help="As --again, and promote what differs.")] = False,
    by: Promoter = None,
    why: Reason = None,
    runs: Runs = None,
    yes: Yes = False,
    offline: Annotated[bool, typer.Option(help="Never look for checkpoints outside this machine.")] = False,
    log: Annotated[Path, typer.Option(help="What the worker says.")] = Path("gate-baseline.log"),
    format: Format = "text",
) -> None:
    """Measure a baseline now, without a candidate: every later run finds it stored.

    gate baseline measure -p thresholds/default.yaml --baseline ./model --store s3://team/baselines

    Timing is left out: it is measured side by side in every run.  What is stored stays as it is: --again measures it
    once more and keeps a proposal beside it, which `gate baseline promote` puts in its place.

    Exits 4 when something could not be measured or kept.
    """
    from gate.baselines import Result
    from gate.commands import baseline_tables as tables
    from gate.commands.baseline_measure import measured
    from gate.policy_file import load_policy
    from gate.store import ready_store

    if promote:
        by, why = _accountable(by, why)
    loaded, kept_in = load_policy(policy), ready_store(store)
    kept_in.check_writable()  # a read-only store is of no use here
    kept = measured(
        loaded,
        baseline,
        kept_in,
        backend=backend,
        device=device,
        python=python,
        log=log,
        again=again or promote,
        offline=offline,
    )
    tables.show(tables.of_measured(kept), format)
    for problem in kept_in.problems:
        typer.echo(f"note: {problem}", err=True)
    repeated = [k.again for k in kept if k.again is not None and k.again.proposal is not None]
    proposals = [r.proposal for r in repeated if r.proposal is not None]
    if promote and proposals and by is not None and why is not None:
        from gate.promotion import Replacement

        pairs = [Replacement(old=r.old, new=r.new) for r in repeated]
        _promote(kept_in, proposals, pairs, by=by, why=why, runs=runs, yes=yes, aside=format == "json")
    failed = [f"{k.source}: {k.problem}" for k in kept if k.result is Result.FAILED]
    if failed:
        raise CouldNotMeasure("\n".join(failed))


@app.command("list")
def list_(store: StoreUrl = None, format: Format = "text") -> None:
    """Say what is stored: one line for each baseline and source, oldest first.

    gate baseline list --store s3://team/baselines
    """
    from gate.commands import baseline_tables as tables

    opened = _readable(store)
    entries = _current(opened)
    tables.show(tables.of_entries(entries), format)
    if format == "text":
        typer.echo(tables.summary(opened.place, entries))


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="Of an entry, or its beginning: gate baseline list shows them.")],
    store: StoreUrl = None,
    format: Format = "text",
) -> None:
    """Say everything about one entry: what its key is made of, where it comes from, its files, who promoted it.

    gate baseline show 3fa1b2c4
    """
    from gate.commands import baseline_tables as tables

    opened = _readable(store)
    whole = _found(opened, key)
    lines = [f.line for f in opened.log.lines() if f.line is not None and whole in " ".join(f.line.about)]
    typer.echo(tables.details(opened.shelf.of(whole), lines, format))


@app.command()
def verify(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys or their beginnings; default: everything.")] = None,
    store: StoreUrl = None,
    format: Format = "text",
) -> None:
    """Read every byte and compare it with the checksums, and the signatures with QUANTGATE_STORE_KEY.

    gate baseline verify --store s3://team/baselines

    Exits 4 when something that a run would look for is broken, or is not signed although a key is set.
    """
    from gate.commands import baseline_tables as tables
    from gate.store.verification import verify as verified

    opened = _readable(store)
    wanted = {_found(opened, key) for key in keys} if keys else None
    only = None if wanted is None else [e for e in opened.shelf.all() if e.key in wanted]
    checked = verified(opened, only)
    tables.show(tables.of_checked(checked), format)
    broken = [c for c in checked if c.problem is not None]
    counting = [c for c in broken if c.counts]
    if counting:
        raise CouldNotMeasure(
            "\n".join(f"{c.name} {c.problem}" for c in counting)
            + f"\n{len(counting)} of {len(checked)} cannot be used, and no run will: the next one, or gate baseline "
            "measure, measures such a baseline again and leaves the broken one behind; a broken calibration wants gate "
            "calibrate. If nobody touched the store, check the disk below it."
        )
    if format == "text":
        unused = f", besides {len(broken)} broken that no run would use" if broken else ""
        typer.echo(f"{len(checked) - len(broken)} whole{unused}: {opened.place}")


@app.command()
def prune(
    older_than: Annotated[str | None, typer.Option(help="Drop what was measured longer ago, such as 90d.")] = None,
    keep_last: Annotated[
        int | None, typer.Option(min=1, help="Keep so many of each baseline and source, the newest.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Drop the oldest until no more is left than, say, 10GiB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go.")] = False,
    store: StoreUrl = None,
    format: Format = "text",
) -> None:
    """Drop old entries, and what killed writers left behind; never what a run is reading.

    gate baseline prune --older-than 90d --keep-last 3 --dry-run

    Without a limit only leftovers go.  What is dropped is measured again when it is needed.
    """
    from datetime import UTC, datetime, timedelta

    from gate import units
    from gate.commands import baseline_tables as tables
    from gate.store.pruning import Limits
    from gate.store.pruning import prune as pruned

    try:
        age = None if older_than is None else timedelta(days=_days(older_than))
        limits = Limits(
            older_than=age, keep_last=keep_last, max_bytes=None if max_size is None else units.size_bytes(max_size)
        )
    except ValueError as problem:
        raise UsageError(str(problem)) from problem
    opened = _readable(store)
    if not dry_run:
        opened.check_writable()
    found = pruned(opened, limits, now=datetime.now(UTC), by=_user(), dry_run=dry_run)
    tables.show(tables.of_doomed(found), format)
    if format == "text":
        typer.echo(tables.pruned_line(found, dry_run=dry_run))


@app.command()
def promote(
    keys: Annotated[list[str], typer.Argument(help="Of baselines that have a proposal, or their beginnings.")],
    by: Promoter = None,
    why: Reason = None,
    runs: Runs = None,
    yes: Yes = False,
    store: StoreUrl = None,
) -> None:
    """Put a proposal (gate baseline measure --again) in the place of a stored baseline, and write down who and why.

    gate baseline promote 3fa1b2c4 --by "R. Manager" --why "new driver" --runs ./runs --yes

    Says first which verdicts of earlier runs would move; without --yes it stops there, with exit code 2.
    """
    from gate.promotion import Replacement
    from gate.store.promotion import latest_proposal

    by, why = _accountable(by, why)
    opened = _readable(store)
    opened.check_writable()
    proposals, pairs = [], []
    for key in dict.fromkeys(_found(opened, key) for key in keys):
        proposal, top = latest_proposal(opened, key), opened.shelf.top(key)
        if proposal is None:
            raise UsageError(
                f"found no proposal for {key[:12]}, expected one made by gate baseline measure --again: a stored "
                "baseline is replaced by another measurement, never by hand"
            )
        proposals.append(proposal)
        new = opened.open(proposal, artifacts=False).measurement
        if top is not None and top.problem is None:
            pairs.append(Replacement(old=opened.open(top, artifacts=False).measurement, new=new))
    _promote(opened, proposals, pairs, by=by, why=why, runs=runs, yes=yes, aside=False)


def _promote(
    store: Store,
    proposals: Sequence[Entry],
    pairs: Sequence[Replacement],
    *,
    by: str,
    why: str,
    runs: Path | None,
    yes: bool,
    aside: bool,
) -> None:
    """Say what would move (`aside`: on stderr), then do it if told so."""
    from datetime import UTC, datetime
    from functools import partial

    from gate.commands import baseline_tables as tables
    from gate.promotion import replayed, run_folders
    from gate.store.promotion import promote as promoted

    now = datetime.now(UTC)
    if runs is not None and not runs.is_dir():
        raise UsageError(f"found no folder {str(runs)!r}, expected one with the output folders of earlier runs")
    said = partial(typer.echo, err=aside)
    said(tables.replaced(proposals, pairs))
    if runs is None:
        said("Earlier verdicts were not looked at: --runs DIR lists those that would move.")
    else:
        said(tables.moved(replayed(run_folders(runs), pairs, now=now)))
    if not yes:
        again = " ".join(p.key[:12] for p in proposals)
        raise UsageError(f"nothing was replaced yet: gate baseline promote {again} with --by, --why and --yes does it")
    for proposal in proposals:
        entry = promoted(store, proposal, by=by, why=why, now=now)
        said(f"{entry.key[:12]} is now generation {entry.generation}, promoted by {by}")


def _readable(store: str | None) -> Store:
    from gate.store import existing_store

    return existing_store(store)


def _current(store: Store) -> tuple[Entry, ...]:
    """What counts, whole or not: a broken entry must not be overlooked because it is not listed."""
    from gate.store.store import current

    return tuple(sorted(current(store.shelf.all()), key=lambda e: (e.created_at, e.key)))


def _found(store: Store, beginning: str) -> str:
    """The one key that begins so.  Raises UsageError."""
    if not _KEY.fullmatch(beginning.lower()):
        raise UsageError(
            f"found {beginning!r}, expected a key or its first four or more digits: see gate baseline list"
        )
    keys = sorted({e.key for e in store.shelf.all() if e.key.startswith(beginning.lower())})
    if len(keys) == 1:
        return keys[0]
    found = f"{len(keys)} keys that begin with" if keys else "no key that begins with"
    raise UsageError(f"found {found} {beginning!r} in {store.place}, expected one: see gate baseline list")


def _accountable(by: str | None, why: str | None) -> tuple[str, str]:
    """Who and why.  Raises UsageError where one is missing."""
    if not (by or "").strip() or not (why or "").strip() or by is None or why is None:
        raise UsageError("a promotion is written down: say --by NAME and --why TEXT")
    return by.strip(), why.strip()


def _days(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in ("d", "h") or not number.replace(".", "", 1).isdecimal():
        raise ValueError(f"found --older-than {text!r}, expected days or hours such as 90d or 36h")
    days = float(number) / (1.0 if unit == "d" else 24.0)
    if days > _MAX_DAYS:
        raise ValueError(f"found --older-than {text!r}, expected at most {_MAX_DAYS}d")
    return days


def _user() -> str:
    """For the log of what was pruned."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
