"""Candidates, target and trust → the whole publication: check, status and comment of one commit.

Pure: the clock is an argument.  Prompts and answers are in it only as far as the policy shares them.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from gate.decide import waiver as waiving
from gate.errors import UsageError
from gate.publish import limits
from gate.publish.advice import advice
from gate.publish.annotations import changes_policy, checked_path, remarks
from gate.publish.comment import unverified
from gate.publish.conclusion import conclude, contradiction, left_open
from gate.publish.model import Candidate, CheckConclusion, Conclusion, Publication, Target, Trust
from gate.records import RunRecord, Status
from gate.reports import candidates as reports
from gate.reports import escape, governance

COMMENTS = ("on_failure", "always", "never")
_FRAME_BYTES = 4_000  # what stands around the candidates' page: whose code made it, the commit, where to look
_WAIVERS_SHOWN = 50
_NAME_CHARACTERS, _SAID_CHARACTERS = 120, 400


def publication(
    candidates: Sequence[Candidate],
    target: Target,
    trust: Trust,
    *,
    name: str,
    inconclusive: str,
    comment: str,
    policy_path: str | None,
    external_id: str | None,
    now: datetime,
    nothing_expected: bool = False,
    names: Sequence[str] = (),
) -> Publication:
    """Everything that is said about one commit.

    Args:
        name: of the required check; what is unverified is published under another one.
        inconclusive, comment: the policy's `publish` section.
        policy_path: the policy inside the repository, for remarks on its lines; None: no remarks.
        external_id: None: that of the workflow run, or outside of Actions of the newest record.
        now: with its zone.  No record counts as newer: a wrong clock, or a forged time, would be the newest for ever.
        nothing_expected: somebody looked, and no checkpoint was to be gated.
        names: of the candidates that were expected, where somebody said so; part of the identity.

    Raises:
        UsageError: an unknown `comment` or `inconclusive`, or a policy path outside of the repository.
    """
    if comment not in COMMENTS:
        raise UsageError(f"found comment {comment!r}, expected one of {', '.join(COMMENTS)}")
    concluded = conclude(candidates, inconclusive=inconclusive, trust=trust, nothing_expected=nothing_expected)
    wanted = comment != "never" and target.pull is not None
    heard = trust.verified or any(
        c.record is not None for c in candidates
    )  # else every fork would get an empty comment
    return Publication(
        name=limits.title(name if trust.verified else unverified(name)),
        context=limits.title(f"{name}/verdict" if trust.verified else unverified(f"{name}/verdict")),
        external_id=limits.title(external_id) if external_id else identity(candidates, target, name, names),
        target=target,
        conclusion=concluded,
        summary=limits.bmp(
            limits.markdown(_page(candidates, trust, concluded, limits.OUTPUT_BYTES), limits.OUTPUT_BYTES)
        ),
        text=limits.bmp(limits.markdown(_text(candidates, trust, policy_path), limits.OUTPUT_BYTES)),
        annotations=remarks(candidates, policy_path),
        comment=_comment(candidates, target, trust, concluded) if wanted else None,
        create_comment=wanted and heard and (comment == "always" or not _green(concluded)),
        measured_at=_measured_at(candidates, now),
    )


def identity(candidates: Sequence[Candidate], target: Target, name: str, names: Sequence[str]) -> str:
    """`external_id`: of the workflow run and its attempt, or of the newest record, or else of the commit.

    `names` are the candidates that were expected: jobs of one run that publish others are not one publication.
    """
    if target.run_id is not None:
        whose = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]
        return limits.title(f"quantgate/{target.run_id}.{target.run_attempt}/{name}/{whose}")
    records = [c.record for c in candidates if c.record is not None]
    newest = max(
        records, key=lambda r: (_moment(r.created_at) or datetime.min.replace(tzinfo=UTC), r.run_id), default=None
    )
    return limits.title(f"quantgate/{target.head_sha if newest is None else newest.run_id}/{name}")


def _green(concluded: Conclusion) -> bool:
    """Nothing that anybody has to look at; what a waiver lets pass is to be seen."""
    passed = concluded.check is CheckConclusion.SUCCESS and concluded.status is Status.PASS
    return passed or concluded.check is CheckConclusion.SKIPPED


def _page(candidates: Sequence[Candidate], trust: Trust, concluded: Conclusion, max_bytes: int) -> str:
    """The candidates, worst first; what is unverified says so before anything else."""
    before = (
        "" if trust.verified else f"> **Unverified**: {_said(trust.reason)}.\n> It concludes no required check.\n\n"
    )
    if not candidates:
        return f"{before}## quantgate\n\n**{_said(concluded.title)}.**\n"
    return before + reports.render([_named(c) for c in candidates], max_bytes - len(before.encode()), waiving.identity)


def _named(candidate: Candidate) -> tuple[str, RunRecord | str]:
    """A record that contradicts itself is not shown as what it claims to be."""
    if candidate.record is None:
        return candidate.name, candidate.problem
    problem = contradiction(candidate.record)
    return candidate.name, candidate.record if problem is None else f"the record contradicts itself: {problem}"


def _comment(candidates: Sequence[Candidate], target: Target, trust: Trust, concluded: Conclusion) -> str:
    page = _page(candidates, trust, concluded, limits.COMMENT_BYTES - _FRAME_BYTES)
    run = f", [the run]({target.details_url})" if target.details_url else ""
    verified = "" if not trust.verified else f" Verified: {_said(trust.reason)}."
    now = advice(candidates, concluded, trust)
    page += f"\n{now}\n" if now else ""
    return f"{page}\n<sub>Commit `{target.head_sha}`{run}.{verified}</sub>\n"


def _text(candidates: Sequence[Candidate], trust: Trust, policy_path: str | None) -> str:
    """What stands beside the table: whose code made it, who else had a say, how to look closer."""
    word = "Verified" if trust.verified else "Unverified"
    parts = ["### Whose code made this", f"{word}: {_said(trust.reason)}."]
    if not trust.verified:
        parts.append("A result that the pull request's own code made never concludes a required check.")
    records = [(c.name, c.record) for c in candidates if c.record is not None]
    parts += _waivers(records)
    parts += _bar(records)
    parts += _remarks(records, policy_path)
    parts += _reproduce(records, policy_path)
    return "\n\n".join(parts) + "\n"


def _waivers(records: Sequence[tuple[str, RunRecord]]) -> list[str]:
    found = [
        f"- {_code(name)}: {_code(w.rule)} {_said(governance.waived(w))}"
        for name, record in records
        for w in record.waivers
    ]
    if not found:
        return []
    left = len(found) - _WAIVERS_SHOWN
    more = [f"- … and {left:,} more"] if left > 0 else []
    return ["### Waivers", "\n".join([*found[:_WAIVERS_SHOWN], *more])]


def _bar(records: Sequence[tuple[str, RunRecord]]) -> list[str]:
    change = next((record.policy_change for _, record in records if record.policy_change is not None), None)
    if change is None:
        return []
    said = (
        f"{governance.judged_by(change)} {_capital(governance.about_rules(change))}. {governance.about_moves(change)}"
    )
    return [f"### {governance.BAR}", f"{_said(said, 800)} The summary above has the rules."]


def _remarks(records: Sequence[tuple[str, RunRecord]], policy_path: str | None) -> list[str]:
    if policy_path is None or not any(changes_policy(record, checked_path(policy_path)) for _, record in records):
        return []
    said = "has no remarks on its lines: it was judged by that of the base branch, whose lines are others"
    return [f"{_code(policy_path)} {said}."]


def _reproduce(records: Sequence[tuple[str, RunRecord]], policy_path: str | None) -> list[str]:
    if not records:
        return []
    several = "/NAME" if len(records) > 1 else ""
    source = records[0][1].policy_source if policy_path is None else checked_path(policy_path)
    policy = shlex.quote(escape.line(source, _NAME_CHARACTERS))  # people copy commands
    commands = f"gate report RUN{several} --format html\ngate decide RUN{several} --policy {policy}"
    said = "With the run's folder (the artifact that it uploaded), nothing is measured again:"
    undecided = any(left_open(record) for _, record in records)
    note = "The exit code follows `on_inconclusive`, this check follows `publish.inconclusive`."
    return ["### To look closer", *([note] if undecided else []), said, escape.fenced(commands)]


def _measured_at(candidates: Sequence[Candidate], now: datetime) -> str:
    """When the newest was made, in UTC; now, where no record says."""
    moments = [m for c in candidates if c.record is not None and (m := _moment(c.record.created_at)) is not None]
    newest = min(max(moments), now) if moments else now
    return newest.astimezone(UTC).isoformat(timespec="seconds")


def _moment(iso: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(iso)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _said(text: str, limit: int = _SAID_CHARACTERS) -> str:
    return escape.markdown(escape.line(text, limit))


def _code(text: str) -> str:
    return escape.code(escape.line(text, _NAME_CHARACTERS))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
