"""Tables of an A/A experiment: what the gate's timing rules, and simpler gates, said of the measured pairs.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log, sqrt
from statistics import fmean, median, variance
from typing import Any

from benchmarks.timing_naive import DECODE, GATES
from benchmarks.timing_pairs import CONDITIONS, Pair
from benchmarks.timing_rates import (
    Rates,
    Run,
    Said,
    Watch,
    apart,
    conditions_of,
    counted,
    disturbances,
    interval,
    judged,
    kept,
    runs,
    value,
)
from benchmarks.timing_rates import ratio as ratio_of
from gate.records import Rule, Status

LENGTH = 8
"""Pairs of a run, as the default policy has it."""

OTHER_LENGTHS = (5, 12)

GROUPS = ("batch=1", "batch=8")
_LEAST_REPEATS = 2

ByCondition = Mapping[str, Sequence[Pair]]


def report(about: Mapping[str, Any], pairs: Sequence[Pair], rules: Sequence[Rule]) -> str:
    """The whole report, in Markdown."""
    by_condition = {name: [p for p in pairs if p.condition == name] for name in CONDITIONS}
    by_condition = {name: found for name, found in by_condition.items() if found}
    return "\n\n".join(
        (
            introduction(about, by_condition),
            "\n".join(measured(by_condition)),
            headline(by_condition, rules),
            f"**What the gate says of runs of {LENGTH} pairs.** A run starts at every pair where it finds enough "
            "consecutive ones of the same two processes; disturbed pairs are passed over, as if measured again, as "
            f"often as the gate would ({repeats(LENGTH)} times in a run). Red at first is confirmed by a run of other "
            "processes. Runs that overlap are not independent: an interval (Wilson, 95%) is given for those that share "
            "no pair, and even they share a machine and an hour.",
            "\n".join(rates(by_condition, rules)),
            "**By the number of pairs in a run**: PASS / INCONCLUSIVE / REGRESSION, in brackets red at first.",
            "\n".join(by_length(by_condition, rules)),
            f"**What looking at the machine does** (tokens per second at 95%, both batch sizes together, {LENGTH} "
            "pairs): as in the table before.",
            "\n".join(watching(by_condition, [r for r in rules if _is_usual(r)])),
            f"**Simpler gates on the same pairs** (R = {LENGTH}): share of runs with an alarm. The rows of this gate "
            "are without its look at the machine, so that all see the same pairs.",
            "\n".join(simpler(by_condition, rules)),
        )
    )


def introduction(about: Mapping[str, Any], by_condition: ByCondition) -> str:
    settings = about["settings"]
    counts = {len(pairs) for pairs in by_condition.values()}
    sessions = {len({p.session for p in pairs}) for pairs in by_condition.values()}
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    other = "another process keeps one of them busy" if about["other_process"] else "nothing else was started on them"
    return (
        f"CPU figures. {about['cpus']} cores, of which {other}; {_range(counts)} pairs of blocks of each kind, in "
        f"{_range(sessions)} pairs of worker processes; batches of {settings['batch_sizes']}, "
        f"{settings['prompt_tokens']}+{settings['new_tokens']} tokens, {about['runs_a_block']} batches of each size in "
        f"a block; one thread; {versions}."
    )


def measured(by_condition: ByCondition) -> Iterator[str]:
    """The slowdown that was planted beside the one that was measured, the noise, and what disturbed the pairs."""
    yield _row(
        (
            "candidate",
            "tokens per second kept: planted",
            *(f"measured, {group}" for group in GROUPS),
            *(f"sd of the log ratio, {group}: of pairs; of processes" for group in GROUPS),
            "pairs disturbed",
            "time that timed threads waited for a CPU: median block; worst",
        )
    )
    yield f"|{'---|' * 8}"
    for name, pairs in by_condition.items():
        found = [ratio_of(pairs, DECODE, group) for group in GROUPS]
        waits = sorted(c.get("cpu_wait_share", 0.0) for p in pairs for c in conditions_of(p))
        yield _row(
            (
                name,
                f"{1 / (1 + CONDITIONS[name]):.1%}",
                *(f"{r.estimate:.1%} ({r.low:.1%} to {r.high:.1%})" for r in found),
                *("{:.3f}; {:.3f}".format(*noise(pairs, group)) for group in GROUPS),
                f"{sum(bool(disturbances(p)) for p in pairs)} of {len(pairs)}",
                f"{median(waits):.1%}; {waits[-1]:.0%}" if waits else "not known",
            )
        )


def noise(pairs: Sequence[Pair], group: str) -> tuple[float, float]:
    """Standard deviations of log(candidate / baseline): of pairs of the same processes, and between pairs of processes.

    The second is what is left of the variance of the sessions' means once the pairs' part is taken off, or 0.
    """
    sessions: dict[int, list[float]] = {}
    for p in pairs:
        ratio = value(p.candidate, DECODE, group) / value(p.baseline, DECODE, group)
        sessions.setdefault(p.session, []).append(log(ratio))
    within = fmean(variance(logs) for logs in sessions.values())
    if len(sessions) < 2:
        return sqrt(within), 0.0
    each = fmean(len(logs) for logs in sessions.values())
    between = variance([fmean(logs) for logs in sessions.values()]) - within / each
    return sqrt(within), sqrt(max(between, 0.0))


def headline(by_condition: ByCondition, rules: Sequence[Rule]) -> str:
    """How often two copies of one checkpoint raised an alarm under the rules that leave some room."""
    pairs = by_condition.get("A/A", ())
    roomy = [rule for rule in rules if kept(rule, 0.0) == "kept"]
    found = taken(pairs, LENGTH, Watch.GATE)
    said = [judged(rule, pairs, found, Watch.GATE) for rule in roomy]
    if not found:
        return f"No A/A run of {LENGTH} pairs could be taken from them: measure more pairs in a session."
    red = sum(any(s.red for s in of_run) for of_run in zip(*said, strict=True))
    alarms = sum(any(s.status is Status.REGRESSION for s in of_run) for of_run in zip(*said, strict=True))
    return (
        f"**False alarms**: of {len(found)} A/A runs of {LENGTH} pairs ({len(apart(found))} that share no pair), "
        f"{red} ({red / len(found):.1%}) were red at first and {alarms} ({alarms / len(found):.1%}) ended in "
        f"REGRESSION, under any of the {len(roomy)} rules that two copies of one checkpoint keep."
    )


def rates(by_condition: ByCondition, rules: Sequence[Rule]) -> Iterator[str]:
    """A line per candidate and rule, with the runs that share no pair beside all of them."""
    yield (
        "| candidate | rule | its bound is | runs | PASS | INCONCLUSIVE | red at first | REGRESSION "
        "| runs that share no pair | red at first | REGRESSION |"
    )
    yield f"|{'---|' * 11}"
    for name, pairs in by_condition.items():
        found = taken(pairs, LENGTH, Watch.GATE)
        for rule in rules:
            if not found:
                yield _row((name, label(rule), kept(rule, CONDITIONS[name]), "0", *["–"] * 7))
                continue
            every = counted(judged(rule, pairs, found, Watch.GATE))
            own = counted(judged(rule, pairs, apart(found), Watch.GATE, among=found))
            shares = (every.statuses[Status.PASS], every.statuses[Status.INCONCLUSIVE], every.red, every.confirmed)
            yield _row(
                (
                    name,
                    label(rule),
                    kept(rule, CONDITIONS[name]),
                    str(every.runs),
                    *(f"{count / every.runs:.0%}" for count in shares),
                    str(own.runs),
                    _counted(own.red, own.runs),
                    _counted(own.confirmed, own.runs),
                )
            )


def by_length(by_condition: ByCondition, rules: Sequence[Rule]) -> Iterator[str]:
    """A cell per R."""
    yield _row(("candidate", "rule", "its bound is", *(f"R = {length}" for length in OTHER_LENGTHS)))
    yield f"|{'---|' * (3 + len(OTHER_LENGTHS))}"
    for name, pairs in by_condition.items():
        for rule in rules:
            cells = []
            for length in OTHER_LENGTHS:
                found = taken(pairs, length, Watch.GATE)
                cells.append(_cell(counted(judged(rule, pairs, found, Watch.GATE))) if found else "no such run")
            yield _row((name, label(rule), kept(rule, CONDITIONS[name]), *cells))


def watching(by_condition: ByCondition, rules: Sequence[Rule]) -> Iterator[str]:
    yield "| candidate | disturbed pairs | runs | PASS / INCONCLUSIVE / REGRESSION (red at first) |\n|---|---|---|---|"
    for name, pairs in by_condition.items():
        for watch in Watch:
            found = taken(pairs, LENGTH, watch)
            said: list[Said] = [s for rule in rules for s in judged(rule, pairs, found, watch)]
            yield _row((name, watch.value, str(len(found)), _cell(counted(said)) if said else "no such run"))


def simpler(by_condition: ByCondition, rules: Sequence[Rule]) -> Iterator[str]:
    """Alarms of simpler gates, and below them what this gate says of the same pairs, the machine not looked at."""
    yield _row(("gate", *(f"{name}, {group}" for name in by_condition for group in GROUPS)))
    yield f"|{'---|' * (1 + len(by_condition) * len(GROUPS))}"
    for text, alarms in GATES.items():
        found = [alarms(pairs, group, LENGTH) for pairs in by_condition.values() for group in GROUPS]
        yield _row((text, *(f"{sum(a) / len(a):.0%}" if a else "–" for a in found)))
    for percent in ("100%", "95%"):
        at_first, in_the_end = [], []
        for pairs in by_condition.values():
            found_runs = taken(pairs, LENGTH, Watch.BLIND)
            for group in GROUPS:
                (rule,) = (r for r in rules if (r.metric, r.bound.text, f"batch={r.batch}") == (DECODE, percent, group))
                counts = counted(judged(rule, pairs, found_runs, Watch.BLIND)) if found_runs else None
                at_first.append(f"{counts.red / counts.runs:.0%}" if counts else "–")
                in_the_end.append(f"{counts.confirmed / counts.runs:.0%}" if counts else "–")
        yield _row((f"this gate's min_retained {percent}, red at first", *at_first))
        yield _row((f"this gate's min_retained {percent}, REGRESSION (confirmed)", *in_the_end))


def taken(pairs: Sequence[Pair], length: int, watch: Watch) -> list[Run]:
    """The runs that there are, disturbed pairs measured again as often as the gate does or not at all."""
    disturbed = [bool(disturbances(p)) for p in pairs]
    return runs([p.session for p in pairs], disturbed, length, repeats(length) if watch is Watch.GATE else 0)


def repeats(length: int) -> int:
    """Pairs that a run measures again at most (`gate.timing_run`)."""
    return max(_LEAST_REPEATS, length // 2)


def label(rule: Rule) -> str:
    return f"{rule.metric}, batch {rule.batch}, {rule.bound.kind} {rule.bound.text}"


def _is_usual(rule: Rule) -> bool:
    return (rule.metric, rule.bound.text) == (DECODE, "95%")


def _cell(found: Rates) -> str:
    shares = " / ".join(f"{found.statuses[s] / found.runs:.0%}" for s in _ORDER)
    return f"{shares} ({found.red / found.runs:.0%})"


_ORDER = (Status.PASS, Status.INCONCLUSIVE, Status.REGRESSION)


def _counted(count: int, n: int) -> str:
    low, high = interval(count, n)
    return f"{count} of {n} ({low:.0%} to {high:.0%})"


def _range(counts: set[int]) -> str:
    return str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
