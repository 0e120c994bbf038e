"""Who else had a say, in words: waivers of red rules, and a pull request that changes what judges it.

Pure: RunRecord → unescaped text; each report escapes it in its own way.  Applies no waiver and replays nothing.
"""

from __future__ import annotations

from collections import Counter

from gate.records import Finding, Move, PolicyChange, RuleChange, RunRecord, Status, Waiver
from gate.reports import numbers
from gate.reports.sentence import TITLES

BAR = "This pull request changes its own bar"
"""Heading of the section."""

NOT_LOADED = "the pull request's policy does not load"
GONE = "the pull request has no such policy any more"
"""How notes begin where nothing is known of its rules."""

WAIVERS = "waivers.yaml"
SETTINGS = ("policy.", "stage ")
"""How changes are named that are not of one rule: of the whole policy, of a stage."""

_LOWERED_FIRST = ("removed", "loosened", "changed", "added", "tightened")
_MOST_SEVERE_FIRST = (
    Status.REFUSED,
    Status.ERROR,
    Status.REGRESSION,
    Status.INCONCLUSIVE,
    Status.SKIPPED,
    Status.PASS,
)


def waiver_of(record: RunRecord, finding: Finding) -> Waiver | None:
    """The applied waiver that covers a finding; only what is red can be waived."""
    if finding.status is not Status.REGRESSION:
        return None
    return next((w for w in record.waivers if w.rule == finding.rule.id), None)


def waived(waiver: Waiver) -> str:
    """`waived by Ada until 2026-12-31: known, fixed in the next export`."""
    return f"waived by {waiver.owner} until {waiver.expires}: {waiver.reason}"


def about_waivers(record: RunRecord) -> str:
    """What the waivers of a run do, and what they do not."""
    are = "1 red rule is" if len(record.waivers) == 1 else f"{numbers.count(len(record.waivers), 'red rule')} are"
    if record.exit_code:
        return f"{are} waived for this checkpoint, which does not make this run pass."
    verdict = TITLES[record.verdict.status]
    return f"{are} waived for this checkpoint: that makes the exit code 0, and the verdict stays {verdict}."


def judged_by(change: PolicyChange) -> str:
    """The policy that this run was judged by, whatever the pull request says."""
    return (
        f"The run was judged by the policy, the tasks and the prompts of the base branch at commit "
        f"{change.base_commit[:12]}; what the pull request makes of them counts after it is merged."
    )


def rules(change: PolicyChange) -> tuple[RuleChange, ...]:
    """What happens to the rules, those first that let more through."""
    return tuple(sorted(change.rules, key=lambda r: (_kind(r), r.rule)))


def _kind(rule: RuleChange) -> int:
    return _LOWERED_FIRST.index(rule.kind) if rule.kind in _LOWERED_FIRST else len(_LOWERED_FIRST)


def about_rules(change: PolicyChange) -> str:
    """`2 rules loosened, 1 rule added`."""
    if any(note.startswith(NOT_LOADED) for note in change.notes):
        return "it does not load, so what it does to the rules is not known, and merged it could judge no run"
    if any(note.startswith(GONE) for note in change.notes):
        return "it is gone, and with it every rule"
    counted = Counter((_noun(r), r.kind) for r in rules(change))
    said = [f"{numbers.count(n, noun)} {kind}" for (noun, kind), n in counted.items()]
    if said:
        return ", ".join(said)
    only_waivers = all(path.rpartition("/")[2] == WAIVERS for path in change.paths)
    what = "waivers" if only_waivers else "tasks, prompts or data"
    return f"no rule is another one: only {what} change"


def _noun(rule: RuleChange) -> str:
    """`confidence` and its like stand for the whole policy, and are counted apart."""
    return "setting" if rule.rule.startswith(SETTINGS) else "rule"


def moves(change: PolicyChange) -> tuple[Move, ...]:
    """Stored verdicts that would be others, those first that would turn green."""
    return tuple(sorted(change.moves, key=_harm))


def _harm(move: Move) -> tuple[int, int]:
    return (-_MOST_SEVERE_FIRST.index(move.now), _MOST_SEVERE_FIRST.index(move.was))


def about_moves(change: PolicyChange) -> str:
    """`3 of 12 runs would have another verdict`; where none was judged again, that nobody knows."""
    if not change.replayed:
        return "No run was judged again, so it is not known what this does to verdicts."
    runs = numbers.count(change.replayed, "run")
    if not change.moves:
        return f"Judged again under it, none of {runs} would have another verdict."
    return f"Judged again under it, {len(change.moves)} of {runs} would have another verdict."
