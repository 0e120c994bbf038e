"""What a reader of a comment does next, in one line.

Pure.  Promises nothing: what a verdict leaves open is not known here either.
"""

from __future__ import annotations

from collections.abc import Sequence

from gate.decide import waiver as waiving
from gate.publish.conclusion import contradiction, waived
from gate.publish.model import Candidate, CheckConclusion, Conclusion, Trust
from gate.records import RunRecord, Status
from gate.reports import escape

_CHARACTERS = 120
_MEASURE = "read the job's log, mend what broke, and run it again"


def advice(candidates: Sequence[Candidate], concluded: Conclusion, trust: Trust) -> str:
    """`**What now**: …`, in Markdown, for the worst of the candidates; empty where nobody has to do anything."""
    said = _next(candidates, concluded, trust)
    return f"**What now**: {said}." if said else ""


def _next(candidates: Sequence[Candidate], concluded: Conclusion, trust: Trust) -> str:
    if concluded.check in (CheckConclusion.SUCCESS, CheckConclusion.SKIPPED):
        return ""
    sound = [c.record for c in candidates if c.record is not None and contradiction(c.record) is None]
    match concluded.status:
        case Status.REGRESSION:
            red = [r for r in sound if r.verdict.status is Status.REGRESSION and not waived(r)]
            # without one that fails, what is open beside a waiver made the check so
            return _regression(red) if red else _inconclusive()
        case Status.INCONCLUSIVE:
            return _inconclusive()
        case Status.ERROR:
            return f"{_MEASURE}; what was not measured cannot be waived"
        case Status.REFUSED:
            return "mend what the reason names and run it again; what was refused cannot be waived"
        case _ if not trust.verified:
            return "somebody with the right merges it, or has it measured by the default branch's code (docs/github.md)"
        case _:
            return ""


def _regression(red: Sequence[RunRecord]) -> str:
    look = "see report.html in the run's artifact and mend the checkpoint"
    candidate = red[0].candidate if len(red) == 1 else None
    if candidate is None:
        return f"{look}; or waive each red rule by its id, for the candidate's SHA-256 above (docs/waivers.md)"
    answered = {w.rule for w in red[0].waivers}
    open_now = [rule for rule in red[0].verdict.deciding if rule not in answered]
    rules = _code(open_now[0]) if len(open_now) == 1 else "each red rule by its id"
    return f"{look}; or waive {rules} for checkpoint {_code(waiving.identity(candidate))} (docs/waivers.md)"


def _inconclusive() -> str:
    return "the rule's reason says what would decide it, mostly more items or more time (docs/inconclusive.md)"


def _code(text: str) -> str:
    return escape.code(escape.line(text, _CHARACTERS))
