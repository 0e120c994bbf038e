"""The verdict and each finding in one plain sentence: the deciding rule, its number, interval and bound.

Pure wording: statuses are given, never computed, and every number comes from `numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gate.records import BoundKind, Finding, Rule, RunRecord, Scope, Severity, StageResult, Status
from gate.reports import allowance, basis, escape, numbers

TITLES = {
    Status.PASS: "pass",
    Status.REGRESSION: "regression",
    Status.INCONCLUSIVE: "inconclusive",
    Status.ERROR: "could not measure",
    Status.REFUSED: "refused",
    Status.SKIPPED: "skipped",
}
"""How each status is called in every report."""

PASSED_WITH_WAIVER = "passed with waiver"

_NAME_LIMIT, _REASON_LIMIT = 120, 400  # characters of untrusted text that one sentence carries
_METRICS = {
    "kl_mean_nats": "mean KL divergence",
    "kl_p99_nats": "99th percentile of the KL divergence",
    "kl_p999_nats": "99.9th percentile of the KL divergence",
    "top1_agreement": "top-1 agreement",
    "delta_p_mean": "mean change of the true token's probability",
    "macro_f1": "macro-F1",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "invalid_json_rate": "invalid-JSON rate",
    "load_seconds": "load time",
    "disk_bytes": "size on disk",
    "weights_bytes": "size of the weights in memory",
    "kv_bytes_per_token": "key/value cache per token",
    "kv_cache_bytes": "key/value cache",
    "activation_peak": "peak memory of activations",
    "max_batch_at_context": "largest batch that fits",
    "rss_peak": "peak memory (RSS)",
    "vram_peak": "peak VRAM",
    "vram_reserved": "reserved VRAM",
    "vram_process": "VRAM of the process",
    "vram_context": "VRAM of the CUDA context",
    "vram_unused": "VRAM reserved and not used",
    "load_rss_peak": "peak memory (RSS) while loading",
    "load_vram_peak": "peak VRAM while loading",
    "prefill_tokens_per_second": "prefill speed",
    "decode_tokens_per_second": "decode speed",
    "output_tokens_per_second": "output speed",
    "requests_per_second": "requests per second",
    "goodput_requests_per_second": "requests per second within the objectives",
    "joules_per_output_token": "energy per output token",
    **{
        f"{what}_{percentile}_seconds": f"{place} {time}"
        for what, time in (
            ("ttft", "time to first token"),
            ("tpot", "time per output token"),
            ("e2e", "time from end to end"),
        )
        for percentile, place in (
            ("p50", "median"),
            ("p90", "90th percentile of the"),
            ("p95", "95th percentile of the"),
            ("p99", "99th percentile of the"),
            ("p999", "99.9th percentile of the"),
        )
    },
}
_UNITS = {"perplexity": "document", "profile": "block"}
_SCALES = {
    BoundKind.MAX_DROP: "drop",
    BoundKind.MAX_INCREASE: "increase",
    BoundKind.MIN_RETAINED: "retained",
    BoundKind.MIN_SPEEDUP: "speed-up",
    BoundKind.MAX: "",
    BoundKind.MIN: "",
}


def title(record: RunRecord) -> str:
    """How the run is called in every report: its status, unless waivers made a regression pass."""
    if record.verdict.status is Status.REGRESSION and record.waivers and record.exit_code == 0:
        return PASSED_WITH_WAIVER
    return TITLES[record.verdict.status]


def scale(kind: BoundKind) -> str:
    """What the estimate of such a rule is: `drop`, `retained`, …; empty where it is the value itself."""
    return _SCALES[kind]


def subject(rule: Rule, kind: str, stage: StageResult | None = None) -> str:
    """What a rule is about: `accuracy on fraud`, `decode speed at batch 8 on a CPU`, `acc on mmlu by subject`.

    `stage` knows whether it was measured on a CPU.
    """
    name, _, selected = escape.line(rule.metric, _NAME_LIMIT).partition(",")
    words = _METRICS.get(name, name.replace("_", " ") if kind != "lm_eval" else name)
    words += f" ({selected})" if selected else ""
    words += f" on {escape.line(rule.source, _NAME_LIMIT)}" if kind != "profile" else ""
    words += f" by {rule.by}" if rule.by else ""
    words += f" at batch {rule.batch}" if rule.batch else ""
    words += f" with {rule.lengths} tokens" if rule.lengths else ""
    words += f" under load {escape.line(rule.load, _NAME_LIMIT)}" if rule.load else ""
    return words + (" on a CPU" if stage is not None and basis.timed_on_cpu(rule, stage) else "")


def requirement(rule: Rule, bound: str) -> str:
    """The bound in words: `a drop of at most 3 pp is allowed`."""
    match rule.bound.kind:
        case BoundKind.MAX_DROP:
            return f"a drop of at most {bound} is allowed"
        case BoundKind.MAX_INCREASE:
            return f"an increase of at most {bound} is allowed"
        case BoundKind.MIN_RETAINED:
            return f"at least {bound} must be kept"
        case BoundKind.MIN_SPEEDUP:
            return f"a speed-up of at least {bound} is required"
        case BoundKind.MAX:
            return f"at most {bound} is allowed"
        case BoundKind.MIN:
            return f"at least {bound} is required"


def claim(finding: Finding, kind: str, stage: StageResult | None = None) -> str:
    """What was measured: the subject, its number and the interval.  Needs an estimate."""
    shown = numbers.printed(finding, kind)
    what = subject(finding.rule, kind, stage) + _worst_group(finding)
    both = finding.baseline is not None and finding.candidate is not None
    before_after = f", {shown.change}" if both else ""
    estimate = shown.estimate or numbers.MISSING
    size = estimate.removeprefix("−")
    rises = (finding.estimate or 0.0) > 0
    match finding.rule.bound.kind:
        case BoundKind.MAX_DROP | BoundKind.MAX_INCREASE if finding.estimate == 0:
            said = f"{what} did not change{before_after}"
        case BoundKind.MAX_DROP:
            said = f"{what} {'fell' if rises else 'rose'} by {size}{before_after}"
        case BoundKind.MAX_INCREASE:
            said = f"{what} {'rose' if rises else 'fell'} by {size}{before_after}"
        case BoundKind.MIN_RETAINED:
            said = f"{what} is {estimate} of the baseline's{before_after}"
        case BoundKind.MIN_SPEEDUP:
            said = f"{what} is {estimate} the baseline's{before_after}"
        case BoundKind.MAX | BoundKind.MIN:
            said = f"{what} is {estimate}"
    return said + doubt(finding, kind)


def doubt(finding: Finding, kind: str) -> str:
    """` (drop between 10.33 and 12.78 pp, each end 95% sure)`; nothing for an exact quantity."""
    shown = numbers.printed(finding, kind)
    if finding.interval is None or shown.exact:
        return ""
    name = scale(finding.rule.bound.kind)
    between = f"between {shown.low} and {shown.high}{shown.suffix}"
    return f" ({name + ' ' if name else ''}{between}, {basis.sure(finding)})"


def _worst_group(finding: Finding) -> str:
    """The group whose numbers a guard rail's finding carries."""
    named = next((m.group for m in finding.members if m.estimate == finding.estimate), None)
    return "" if named is None else f" (worst of {len(finding.members)}: {escape.line(named, _NAME_LIMIT)})"


def unit(kind: str) -> str:
    """What a stage of this kind counts."""
    return _UNITS.get(kind, "item")


def take(finding: Finding, kind: str) -> str:
    """What it would take to decide an inconclusive rule."""
    noun = unit(kind)
    whole = basis.expected(finding)
    if finding.interval is not None and finding.interval.scope is Scope.BENCHMARK:
        # counting decides for certain; what is still open then are items that were lost, which the reason names
        asked = finding.n_paired + finding.n_lost
        return f"all {numbers.count(whole, noun)} decide it for certain, {asked:,} were asked" if asked < whole else ""
    paired = numbers.count(finding.n_paired, f"paired {noun}")
    if finding.n_needed is not None and finding.n_needed > finding.n_paired:
        needed = numbers.count(finding.n_needed, noun)
        return f"about {needed} would decide it if what was seen is the truth, there were {paired}"
    interval, bound = finding.interval, finding.rule.bound.value
    detectable = numbers.printed(finding, kind).detectable
    said = [f"{paired} resolve a difference of {detectable} at best"] if detectable is not None else []
    # a rule may also be undecided for another reason (too few documents), which only its own words give
    if interval is not None and interval.low < bound < interval.high:
        said.append(f"it takes more {noun}s or a wider bound")
    return "; ".join(said)


def describe(finding: Finding, kind: str, stage: StageResult | None = None) -> str:
    """One finding in one sentence, whatever its status; `stage` knows what its items were sampled from."""
    rule = finding.rule
    settled = basis.settled(finding, stage)
    rests_on = f"; {settled}" if settled else ""
    requires = requirement(rule, numbers.printed(finding, kind).bound)
    match finding.status:
        case Status.PASS:
            return f"{claim(finding, kind, stage)}, and {requires}{rests_on}"
        case Status.REGRESSION:
            return f"{claim(finding, kind, stage)}, but {requires}{rests_on}"
        case Status.INCONCLUSIVE:
            why = "; ".join(said for said in (quoted(finding.reason), take(finding, kind)) if said)
            return f"{claim(finding, kind, stage)}, and {requires}: not decided, {why}"
        case Status.ERROR:
            return f"could not measure {subject(rule, kind, stage)}: {quoted(finding.reason)}"
        case Status.REFUSED | Status.SKIPPED:
            return f"{subject(rule, kind, stage)} was {TITLES[finding.status]}: {quoted(finding.reason)}"


def sentence(
    status: Status,
    deciding: Sequence[Finding],
    stages: Sequence[StageResult],
    policy: Mapping[str, Any],
    *,
    complete: bool,
    reason: str = "",
) -> str:
    """The verdict in one sentence.

    Args:
        status: the verdict, decided elsewhere.
        deciding: the findings that decided it, worst first; may be empty when no stage ran.
        stages: all stage results, in order.
        policy: the policy as plain data.
        complete: the run was not restricted and measured all that was planned, so that `warn` applies.
        reason: why, where no finding can say it (refused at intake, no stage ran).
    """
    reason = quoted(reason)
    first = deciding[0] if deciding else None
    said = _described(first, stages) if first else ""
    name = f" [{first.rule.id}]" if first else ""
    match status:
        case Status.PASS:
            return _capital(_passed(stages)) + "."
        case Status.REGRESSION:
            more = _others(deciding, "regressed too")
            return f"Regression: {said or reason or _blame(stages, status)}{name}{more}."
        case Status.INCONCLUSIVE:
            why = f"{said or reason or _not_run(stages)}{name}{_others(deciding, 'undecided too')}"
            if first and first.status is Status.PASS:  # only a run that was restricted is decided so
                others = _others(deciding, "held too")
                why = f"{_restricted(stages)}; what was asked holds: {said}{name}{others}"
            return f"Inconclusive: {why}{_warned(policy, complete)}."
        case Status.ERROR:
            what = said.removeprefix("could not measure ") or reason or _blame(stages, status)
            return f"Could not measure: {what}{name}{_others(deciding, 'affected too')}."
        case Status.REFUSED:
            why = reason or (quoted(first.reason) if first else _blame(stages, status))
            return f"Refused: {why}{name}."
        case Status.SKIPPED:
            raise ValueError("a run cannot be SKIPPED: a verdict is PASS, REGRESSION, INCONCLUSIVE, ERROR or REFUSED")


def _described(finding: Finding, stages: Sequence[StageResult]) -> str:
    stage = next((s for s in stages if s.name == finding.rule.stage), None)
    return describe(finding, stage.kind if stage else "", stage)


def _passed(stages: Sequence[StageResult]) -> str:
    """What was tested, how close it came, how sure it is, and what advisory rules say."""
    findings = allowance.worst_first([f for s in stages for f in s.findings])
    blocking = [f for f in findings if f.rule.severity is Severity.BLOCKING]
    holding = [f for f in blocking if f.status is Status.PASS]
    undecided = [f for f in blocking if f.status is not Status.PASS]  # guard rails: others would have decided the run
    warned = [f for f in findings if f.rule.severity is Severity.ADVISORY and f.status is not Status.PASS]
    broken = [f for f in warned if f.status is Status.ERROR]
    ran = [s for s in stages if s.status not in (Status.SKIPPED, Status.ERROR)]  # here ERROR is advice that broke
    scored = numbers.count(sum(s.items_scored for s in ran), "item")
    hold = "the one blocking rule holds" if len(blocking) == 1 else f"all {len(blocking)} blocking rules hold"
    if undecided:
        hold = f"{len(holding)} of {len(blocking)} blocking rules {'holds' if len(holding) == 1 else 'hold'}"
    sure = [f.interval.confidence for f in holding if f.interval is not None]
    said = f"{hold} in {', '.join(s.name for s in ran)} ({scored}"
    said += f", each at least {numbers.confidence(min(sure))} sure)" if sure else ")"
    if undecided:
        rails = numbers.count(len(undecided), "guard rail")
        said += f"; {rails} saw no evidence and stayed undecided: {_ids(undecided)}"
    if holding:
        closest = holding[0]
        opening = "" if len(holding) == 1 else "the closest to its bound is "
        said += f"; {opening}{closest.rule.id}: {_described(closest, stages)}"
    for some, words in (([f for f in warned if f not in broken], "did not pass"), (broken, "could not be measured")):
        if some:
            said += f"; {numbers.count(len(some), 'advisory rule')} {words}: {_ids(some)}"
    return said


def _ids(findings: Sequence[Finding]) -> str:
    return ", ".join(f.rule.id for f in findings[:3]) + (f" and {len(findings) - 3} more" if len(findings) > 3 else "")


def _restricted(stages: Sequence[StageResult]) -> str:
    asked = " ".join(s.name for s in stages if s.status is not Status.SKIPPED)
    return f"this run was restricted to --stage {asked}"


def _warned(policy: Mapping[str, Any], complete: bool) -> str:
    if policy.get("on_inconclusive") != "warn":
        return ""
    if complete:
        return "; on_inconclusive: warn lets this run pass"
    return "; on_inconclusive: warn does not cover what was not measured"


def _others(deciding: Sequence[Finding], words: str) -> str:
    more = len(deciding) - 1
    return f"; {numbers.count(more, 'more rule')} {words}" if more > 0 else ""


def _not_run(stages: Sequence[StageResult]) -> str:
    absent = [
        f"{s.name} ({escape.line(s.skipped_because or '', _NAME_LIMIT)})" for s in stages if s.status is Status.SKIPPED
    ]
    return f"not run: {', '.join(absent)}" if absent else "no rule decided it and no stage says why"


def _blame(stages: Sequence[StageResult], status: Status) -> str:
    """The notes of the first stage with this status, for a run without a deciding finding."""
    stage = next((s for s in stages if s.status is status), None)
    if stage is None:
        return "a planned rule was not judged, and no stage says why"
    return f"{stage.name}: {quoted('; '.join(note.rstrip('.') for note in stage.notes)) or 'the stage says no more'}"


def quoted(text: str) -> str:
    """A reason as a sentence quotes it: the first line, since what follows (a worker's log) is for local reports."""
    return escape.line(text.partition("\n")[0], _REASON_LIMIT).rstrip(".")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
