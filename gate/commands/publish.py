"""`gate publish github`: a finished verdict as a check, a commit status and a comment on GitHub.

Parses arguments, wires the conversation, prints what was done; decides nothing itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gate.errors import UsageError

if TYPE_CHECKING:
    from gate.publish.api import GitHubClient
    from gate.publish.client import Client
    from gate.publish.github import Published
    from gate.publish.model import Candidate, Publication, Target, TokenKind
    from gate.publish.patience import Patience

MAX_PAYLOAD_BYTES = 32 * 2**20

_INCONCLUSIVE = ("failure", "action_required", "neutral")
_COMMENT = ("on_failure", "always", "never")

app = typer.Typer(
    name="publish",
    help="Show a finished verdict where people look: on GitHub.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def github(
    dirs: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR", help="Run folders, or folders of run folders.")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Begin the check; nothing was measured yet.")] = False,
    reap: Annotated[bool, typer.Option("--reap", help="End checks whose run vanished.")] = False,
    older_than: Annotated[str, typer.Option(help="With --reap: how long a check may be in progress.")] = "6h",
    dry_run: Annotated[
        Path | None, typer.Option(help="Write the payloads into this folder; no network, no token.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the check; the one that a branch protection requires.")] = "quantgate",
    expect: Annotated[
        str | None, typer.Option(help='Names of all candidates, as JSON: ["w4", "w8"].  The same at --start.')
    ] = None,
    repository: Annotated[str | None, typer.Option(help="owner/name; default: the event's.")] = None,
    sha: Annotated[str | None, typer.Option(help="The gated commit; default: the event's.")] = None,
    pull: Annotated[int | None, typer.Option(help="Number of the pull request; default: the event's.")] = None,
    event: Annotated[str | None, typer.Option(help="Default: GITHUB_EVENT_NAME.")] = None,
    payload: Annotated[Path | None, typer.Option(help="The event's JSON; default: GITHUB_EVENT_PATH.")] = None,
    policy_path: Annotated[
        str | None, typer.Option(help="The policy's path in the repository: rules are remarked on its lines.")
    ] = None,
    comment: Annotated[
        Literal["on_failure", "always", "never"] | None, typer.Option(help="Default: the policy's publish.comment.")
    ] = None,
    inconclusive: Annotated[
        Literal["failure", "action_required", "neutral"] | None,
        typer.Option(help="Default: the policy's publish.inconclusive; neutral unblocks merging."),
    ] = None,
    required: Annotated[
        bool, typer.Option("--required/--optional", help="Exit 4, or only warn, when publishing fails.")
    ] = True,
    measured_here: Annotated[
        bool, typer.Option("--measured-here", help="This workflow of the default branch has measured it again.")
    ] = False,
    code_path: Annotated[
        list[str] | None, typer.Option(help="Glob of files that are code here, besides .github/** (repeatable).")
    ] = None,
    base_branch: Annotated[
        list[str] | None,
        typer.Option(help="A branch besides the default one whose policy counts, such as release/2 (repeatable)."),
    ] = None,
    author: Annotated[
        str | None, typer.Option(help="Login that our comments have; default: that of the token's App or person.")
    ] = None,
    summary: Annotated[bool, typer.Option(help="Write the job's summary too.")] = True,
) -> None:
    """Publish finished runs on GitHub: a check run, or a commit status with a personal token, and a comment.

    Token in GITHUB_TOKEN or GH_TOKEN, GitHub Enterprise by GITHUB_API_URL.  Exits 0 when all was published, whatever
    the verdict; 4 when not (the check stands even where the comment failed).

    gate publish github --start && gate run … ; gate publish github gate-out
    """
    import time
    from datetime import UTC, datetime, timedelta

    from gate import units
    from gate.publish import event as events
    from gate.publish.patience import Patience
    from gate.publish.problem import PublishError
    from gate.publish.reap import reap as reaped
    from gate.publish.session import token_kind

    environ = os.environ
    _one_of(dirs=bool(dirs) or (expect is not None and not start), start=start, reap=reap)
    target = events.target(
        environ.get("GITHUB_EVENT_NAME", "") if event is None else event,
        _payload(payload, environ),
        environ,
        repository=repository,
        sha=sha,
        pull=pull,
    )
    try:
        span = timedelta(seconds=units.duration_seconds(older_than))
    except (ValueError, OverflowError) as problem:
        raise UsageError(f"--older-than {older_than!r}: {problem}") from problem
    patience = Patience(sleep=time.sleep, monotonic=time.monotonic)
    token = environ.get("GITHUB_TOKEN") or environ.get("GH_TOKEN") or ""
    kind = token_kind(token)
    try:
        client = _client(dry_run, target, token, environ, patience)
        try:
            if reap:
                _say(reaped(client, name=name, older_than=span, now=datetime.now(UTC), patience=patience))
                return
            if start:
                _say(_started(target, client, name, expect, kind, patience).done)
                return
            publication = _publication(
                dirs or [],
                target,
                client,
                name=name,
                expect=expect,
                policy_path=policy_path,
                comment=comment,
                inconclusive=inconclusive,
                measured_here=measured_here,
                code_paths=code_path or [],
                bases=base_branch or [],
            )
            if summary:
                _summarize(publication, environ)
            _published(publication, client, kind, author, name, patience)
        finally:
            _close(client)
    except PublishError as problem:
        _complain(problem, required=required, environ=environ)


def _one_of(**asked: bool) -> None:
    if sum(asked.values()) != 1:
        raise UsageError("expected one of: folders of runs (or --expect), --start, --reap")


def _payload(path: Path | None, environ: Mapping[str, str]) -> Mapping[str, Any]:
    """The event; empty outside of Actions."""
    named = environ.get("GITHUB_EVENT_PATH") or ""
    found = path if path is not None else Path(named) if named else None
    if found is None:
        return {}
    try:
        with found.open("rb") as file:
            text = file.read(MAX_PAYLOAD_BYTES + 1)
        if len(text) > MAX_PAYLOAD_BYTES:
            raise UsageError(f"{str(found)!r} has more than {MAX_PAYLOAD_BYTES:,} bytes: not an event of GitHub")
        data = json.loads(text)
    except OSError as problem:
        raise UsageError(f"the event {str(found)!r} cannot be read: {problem.strerror}") from problem
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"the event {str(found)!r} is not JSON") from problem
    if not isinstance(data, dict):
        raise UsageError(f"the event {str(found)!r} is a {type(data).__name__}, expected a JSON object")
    return data


def _client(dry_run: Path | None, target: Target, token: str, environ: Mapping[str, str], patience: Patience) -> Client:
    import time

    from gate.publish.api import GitHubClient
    from gate.publish.dry_run import DryRun
    from gate.publish.problem import PublishError
    from gate.publish.session import Session

    if dry_run is not None:
        return DryRun(dry_run, target)
    if not token:
        raise PublishError(
            "found no token in GITHUB_TOKEN or GH_TOKEN: nothing was published; pass the job's token "
            "(`env: GITHUB_TOKEN: ${{ github.token }}`), or look at the payloads with --dry-run"
        )
    session = Session(environ.get("GITHUB_API_URL", ""), token, patience=patience, now=time.time)
    return GitHubClient(session, target.repository)


def _close(client: Client | GitHubClient) -> None:
    close = getattr(client, "close", None)
    if close is not None:
        close()


def _started(
    target: Target, client: Client, name: str, expect: str | None, kind: TokenKind, patience: Patience
) -> Published:
    from gate.publish import candidates as results
    from gate.publish import compose, github

    if target.run_id is None:
        raise UsageError("--start belongs into a workflow run: without GITHUB_RUN_ID nothing could complete its check")
    identity = compose.identity((), target, name, results.expected(expect) or ())
    return github.start(target, client, name=name, external_id=identity, kind=kind, patience=patience)


def _publication(
    dirs: Sequence[Path],
    target: Target,
    client: Client,
    *,
    name: str,
    expect: str | None,
    policy_path: str | None,
    comment: str | None,
    inconclusive: str | None,
    measured_here: bool,
    code_paths: Sequence[str],
    bases: Sequence[str],
) -> Publication:
    from datetime import UTC, datetime

    from gate.publish import candidates as results
    from gate.publish import changes, compose
    from gate.publish.trust import DEFAULT_CODE_PATHS, trust

    wanted = results.expected(expect)
    found = results.read(dirs, wanted)
    target = changes.resolved(target, client)
    known = changes.changes(target, client)
    believed = trust(
        target,
        changed=known.files,
        problem=known.problem,
        pull_head=known.pull_head,
        code_paths=(*DEFAULT_CODE_PATHS, *code_paths),
        measured_here=measured_here,
        bases=bases,
    )
    return compose.publication(
        found,
        target,
        believed,
        name=name,
        inconclusive=inconclusive or _of_policy(found, "inconclusive", _INCONCLUSIVE),
        comment=comment or _of_policy(found, "comment", _COMMENT),
        policy_path=policy_path,
        external_id=None,
        now=datetime.now(UTC),
        nothing_expected=wanted == () and not found,
        names=wanted or (),
    )


def _of_policy(found: Sequence[Candidate], key: str, known: Sequence[str]) -> str:
    """What the policies of all records agree on; the first of the known words where they do not."""
    said: set[str] = set()
    for record in (c.record for c in found if c.record is not None):
        publish = record.policy.get("publish")
        value = publish.get(key) if isinstance(publish, Mapping) else None
        said.add(value if isinstance(value, str) and value in known else known[0])
    return said.pop() if len(said) == 1 else known[0]


def _summarize(publication: Publication, environ: Mapping[str, str]) -> None:
    """GitHub drops the summary of a step that is too large, so ours is left out before that."""
    from gate.ci import job

    if len(publication.summary.encode()) < job.summary_room(environ):
        job.add_to_summary(publication.summary + "\n", environ)


def _published(
    publication: Publication, client: Client, kind: TokenKind, author: str | None, name: str, patience: Patience
) -> None:
    from gate.publish import github
    from gate.publish.dry_run import DryRun
    from gate.publish.model import TokenKind
    from gate.publish.problem import PublishError

    kind = TokenKind.INSTALLATION if isinstance(client, DryRun) else kind
    done = github.publish(publication, client, kind=kind, author=author, required_name=name, patience=patience)
    _say(done.done)
    if done.problems:
        raise PublishError("; ".join(done.problems))


def _say(lines: Sequence[str]) -> None:
    from gate.reports import escape

    for line in lines:
        typer.echo(escape.workflow(escape.line(line)))


def _complain(problem: Exception, *, required: bool, environ: Mapping[str, str]) -> None:
    """Loud either way: as a remark of the job, and as an exit code where the check is required."""
    from gate.reports import escape

    level = "error" if required else "warning"
    if environ.get("GITHUB_ACTIONS") == "true" or not required:
        said = escape.line(str(problem), 1_000).replace("%", "%25")
        typer.echo(f"::{level} title=Not published on GitHub::{said}")
    if required:
        raise problem
