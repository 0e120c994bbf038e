"""Run records for tests: every status, guard rails, hostile strings, large runs.

Builders only: nothing here measures or judges, the verdicts are written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gate.records import (
    ARTIFACT_VERSION,
    Bound,
    BoundKind,
    CheckpointRef,
    Environment,
    Finding,
    Flip,
    Interval,
    MaxLost,
    Member,
    Move,
    OutputLength,
    Performance,
    PolicyChange,
    Quality,
    Quantization,
    Role,
    Rule,
    RuleChange,
    RunRecord,
    Scope,
    Severity,
    StageResult,
    Status,
    Verdict,
    Waiver,
)

HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07 \ud800 \x00\x08 \u202eevil\u202c"
    " </failure>]]><script>alert(1)</script> <img src=x onerror=alert(1)> ``` `code` | pipe |"
    " **bold** _it_ #12 @octocat [click](javascript:alert(1)) https://evil.example/a\r\n::error file=x::boom"
    "\n##[error]boom {{ 7*7 }} {% raw %} &amp;"
)
POLICY: Mapping[str, Any] = {
    "version": 1,
    "confidence": 0.95,
    "seed": 7,
    "on_inconclusive": "fail",
    "share_examples": "none",
}


def rule(
    stage: str = "fraud",
    metric: str = "accuracy",
    kind: BoundKind = BoundKind.MAX_DROP,
    value: float = 0.03,
    text: str = "3pp",
    *,
    id: str | None = None,
    source: str | None = None,
    by: str | None = None,
    batch: int | None = None,
    severity: Severity = Severity.BLOCKING,
    line: int | None = 12,
) -> Rule:
    return Rule(
        id=id or f"{stage}.{metric}.{kind}",
        stage=stage,
        source=source or stage,
        metric=metric,
        bound=Bound(kind=kind, value=value, text=text),
        by=by,
        batch=batch,
        severity=severity,
        scope=Scope.BENCHMARK,
        max_items=None,
        max_lost=MaxLost(count=0, share=None),
        line=line,
    )


def interval(
    low: float,
    high: float,
    method: str = "tango",
    *,
    confidence: float = 0.95,
    fail_confidence: float = 0.95,
    scope: Scope = Scope.POPULATION,
    valid: str = "fixed_n",
) -> Interval:
    return Interval(
        low=low,
        high=high,
        confidence=confidence,
        fail_confidence=fail_confidence,
        method=method,
        scope=scope,
        valid=valid,
    )


def finding(
    rule: Rule,
    status: Status,
    numbers: tuple[float, float, float] | None = (0.1150, 0.1033, 0.1278),
    *,
    baseline: float | None = 1.0,
    candidate: float | None = 0.885,
    method: str = "tango",
    counts: Mapping[str, float] | None = None,
    n_paired: int = 2000,
    n_lost: int = 0,
    n_needed: int | None = None,
    detectable: float | None = None,
    members: Sequence[Member] = (),
    reason: str = "the interval is compared with the bound",
) -> Finding:
    """A finding; `numbers` is (estimate, low, high), or None for one without evidence."""
    return Finding(
        rule=rule,
        status=status,
        baseline=baseline if numbers else None,
        candidate=candidate if numbers else None,
        estimate=numbers[0] if numbers else None,
        interval=interval(numbers[1], numbers[2], method) if numbers else None,
        p_value=None,
        counts=counts or {},
        n_paired=n_paired if numbers else 0,
        n_lost=n_lost,
        n_needed=n_needed,
        detectable=detectable,
        members=tuple(members),
        reason=reason,
    )


def member(group: str, status: Status, drop: float, low: float, high: float, n: int = 40) -> Member:
    return Member(
        group=group,
        baseline=0.95,
        candidate=0.95 - drop,
        estimate=drop,
        interval=interval(low, high),
        n_paired=n,
        status=status,
    )


def stage(
    kind: str,
    name: str,
    status: Status,
    findings: Sequence[Finding],
    *,
    seconds: float = 12.3456,
    scored: int = 2000,
    available: int = 2000,
    baseline_from: str = "store",
    skipped_because: str | None = None,
    notes: Sequence[str] = (),
) -> StageResult:
    return StageResult(
        kind=kind,
        name=name,
        status=status,
        findings=tuple(findings),
        seconds=seconds,
        items_scored=scored,
        items_available=available,
        baseline_from=baseline_from,
        skipped_because=skipped_because,
        notes=tuple(notes),
    )


def skipped(kind: str, name: str, because: str) -> StageResult:
    return stage(
        kind,
        name,
        Status.SKIPPED,
        (),
        seconds=0.0,
        scored=0,
        available=0,
        baseline_from="none",
        skipped_because=because,
    )


def flip(
    number: int,
    kind: str = "lost",
    *,
    prompt: str = "Account A holds 400. 125 leaves. What remains?",
    candidate_output: str = "265",
) -> Flip:
    return Flip(
        stage="fraud",
        source="fraud",
        metric="accuracy",
        item_id=f"fraud:{number:04d}:9f2c61d07ab3",
        kind=kind,
        group="balance",
        prompt=prompt,
        target="275",
        baseline_output="275",
        candidate_output=candidate_output,
    )


def checkpoint(role: Role, *, uri: str | None = None) -> CheckpointRef:
    quantized = role is Role.CANDIDATE
    digit = "c" if quantized else "b"
    return CheckpointRef(
        role=role,
        uri=uri or ("models/bank-w3-gptq" if quantized else "models/bank-fp32"),
        revision=None,
        digest=digit * 64,
        tensor_digest=digit * 63 + "1",
        effective_digest=digit * 63 + "1",
        tokenizer_digest="e" * 64,
        weight_bytes=1_400_000 if quantized else 4_470_000,
        quantization=Quantization(method="compressed-tensors", bits=3, group_size=None, scheme="W3A16")
        if quantized
        else None,
        architecture="LlamaForCausalLM",
        n_parameters=1_100_000,
    )


ENVIRONMENT = Environment(
    platform="Linux-6.1-x86_64",
    python="3.11.9",
    device="cpu",
    device_names=("Example CPU, 2 cores",),
    driver=None,
    memory_bytes=8 * 2**30,
    packages={"torch": "2.13.0", "transformers": "5.23.0", "lm-eval": "0.4.13"},
    git_commit="0123456789abcdef0123456789abcdef01234567",
    fingerprint="f" * 64,
)


def record(
    status: Status,
    stages: Sequence[StageResult],
    *,
    deciding: Sequence[str] = (),
    sentence: str | None = None,
    exit_code: int = 0,
    flips: Sequence[Flip] = (),
    policy: Mapping[str, Any] = POLICY,
    candidate: CheckpointRef | None = None,
    quality: Quality | None = None,
    performance: Sequence[Performance] = (),
    output_lengths: Sequence[OutputLength] = (),
    waivers: Sequence[Waiver] = (),
    policy_change: PolicyChange | None = None,
    notes: Sequence[str] = (),
) -> RunRecord:
    """A run record; the verdict's sentence is the one that the reports would write unless given."""
    if sentence is None:
        from gate.reports.sentence import sentence as write

        found = {f.rule.id: f for s in stages for f in s.findings}
        sentence = write(status, [found[i] for i in deciding if i in found], stages, policy, complete=True)
    return RunRecord(
        artifact_version=ARTIFACT_VERSION,
        run_id="20261120-120000-4f2a9c",
        created_at="2026-11-20T12:00:00.123456+00:00",
        gate_version="0.1.0",
        policy_source="thresholds/demo.yaml",
        policy_digest="a" * 64,
        policy=policy,
        baseline=checkpoint(Role.BASELINE),
        candidate=candidate or checkpoint(Role.CANDIDATE),
        environment=ENVIRONMENT,
        stages=tuple(stages),
        flips=tuple(flips),
        quality=quality,
        performance=tuple(performance),
        output_lengths=tuple(output_lengths),
        verdict=Verdict(status=status, deciding=tuple(deciding), sentence=sentence),
        waivers=tuple(waivers),
        policy_change=policy_change,
        exit_code=exit_code,
        seconds=sum(s.seconds for s in stages) + 1.5,
        notes=tuple(notes),
    )


def perplexity_rule(**changes: Any) -> Rule:
    return rule("sanity", "perplexity", BoundKind.MAX_INCREASE, 0.05, "5%", source="prose", **changes)


def perplexity_finding(status: Status = Status.PASS, **changes: Any) -> Finding:
    return finding(
        perplexity_rule(line=8),
        status,
        (0.0040, 0.0021, 0.0059),
        baseline=2.177,
        candidate=2.1857,
        method="document_t",
        counts={"G": 64, "tokens": 16384, "n": 64, "N": 64},
        n_paired=64,
        detectable=0.0047,
        **changes,
    )


def sanity_stage() -> StageResult:
    agreement = rule(
        "sanity", "top1_agreement", BoundKind.MIN, 0.90, "0.90", source="prose", severity=Severity.ADVISORY, line=9
    )
    return stage(
        "perplexity",
        "sanity",
        Status.PASS,
        (
            perplexity_finding(),
            finding(
                agreement,
                Status.PASS,
                (0.9514, 0.9466, 0.9562),
                baseline=None,
                candidate=0.9514,
                method="document_ratio",
                n_paired=64,
            ),
        ),
        seconds=9.87654,
        scored=64,
        available=64,
    )


def passing() -> RunRecord:
    """Everything passes, in three stages."""
    fraud = finding(
        rule(),
        Status.PASS,
        (0.0025, -0.0012, 0.0061),
        baseline=1.0,
        candidate=0.9975,
        counts={"b": 5, "c": 0, "n": 2000, "N": 2000},
        detectable=0.0028,
    )
    memory = rule("serving", "rss_peak", BoundKind.MAX, 2.0 * 2**30, "2GiB", line=21)
    speed = rule("serving", "decode_tokens_per_second", BoundKind.MIN_RETAINED, 0.5, "50%", batch=8, line=22)
    serving = stage(
        "profile",
        "serving",
        Status.PASS,
        (
            finding(
                memory,
                Status.PASS,
                (655_360_000.0, 655_360_000.0, 655_360_000.0),
                baseline=681_574_400.0,
                candidate=655_360_000.0,
                method="exact",
                n_paired=1,
            ),
            finding(
                speed,
                Status.PASS,
                (0.913, 0.861, 0.968),
                baseline=1510.2,
                candidate=1378.8,
                method="paired_t",
                n_paired=8,
            ),
        ),
        scored=16,
        available=16,
        baseline_from="measured",
    )
    return record(
        Status.PASS,
        (sanity_stage(), stage("domain", "fraud", Status.PASS, (fraud,)), serving),
        deciding=(fraud.rule.id,),
    )


def regression(policy: Mapping[str, Any] = POLICY, flips: Sequence[Flip] | None = None) -> RunRecord:
    """Perplexity passes, the domain stage regresses, an advisory guard rail too, the profile is skipped."""
    worst = finding(
        rule(line=15), Status.REGRESSION, counts={"b": 231, "c": 1, "n": 2000, "N": 2000}, detectable=0.0189
    )
    rail = finding(
        rule(
            by="category", severity=Severity.ADVISORY, id="fraud.accuracy.max_drop.by_category", value=0.1, text="10pp"
        ),
        Status.REGRESSION,
        (0.241, 0.187, 0.301),
        candidate=0.759,
        n_paired=640,
        members=(
            member("balance", Status.REGRESSION, 0.241, 0.187, 0.301, 640),
            member("travel time", Status.PASS, 0.061, 0.041, 0.09, 700),
            member("card limit", Status.PASS, 0.004, -0.004, 0.012, 660),
        ),
        reason="balance is beyond the bound after the correction for 3 groups",
    )
    return record(
        Status.REGRESSION,
        (
            sanity_stage(),
            stage("domain", "fraud", Status.REGRESSION, (worst, rail), seconds=61.25),
            skipped("profile", "serving", "fraud regressed (fraud.accuracy.max_drop); --keep-going runs it anyway"),
        ),
        deciding=(worst.rule.id,),
        exit_code=1,
        flips=(flip(1), flip(2, "gained"), flip(3)) if flips is None else flips,
        policy=policy,
    )


def inconclusive(policy: Mapping[str, Any] = POLICY) -> RunRecord:
    open_question = finding(
        rule(),
        Status.INCONCLUSIVE,
        (0.021, 0.004, 0.042),
        reason="the interval of the drop holds values on both sides of the bound 3pp",
        baseline=0.952,
        candidate=0.931,
        n_paired=400,
        n_needed=1240,
        detectable=0.0263,
        counts={"b": 14, "c": 6, "n": 400, "N": 400},
    )
    return record(
        Status.INCONCLUSIVE,
        (sanity_stage(), stage("domain", "fraud", Status.INCONCLUSIVE, (open_question,), scored=400, available=400)),
        deciding=(open_question.rule.id,),
        exit_code=0 if policy["on_inconclusive"] == "warn" else 3,
        policy=policy,
    )


def error() -> RunRecord:
    """The worker was killed in the domain stage."""
    lost = finding(
        rule(),
        Status.ERROR,
        None,
        n_lost=140,
        reason="candidate worker was killed by SIGKILL after 140 of 2000 items; last line of its log: 'out of memory'",
    )
    return record(
        Status.ERROR,
        (
            sanity_stage(),
            stage("domain", "fraud", Status.ERROR, (lost,), scored=140),
            skipped("profile", "serving", "fraud could not be measured"),
        ),
        deciding=(lost.rule.id,),
        exit_code=4,
    )


def refused() -> RunRecord:
    """Refused at intake: no stage ran at all."""
    return record(
        Status.REFUSED,
        (),
        sentence="Refused: models/bank-w3-gptq holds the baseline's own tensors: nothing was quantized.",
        exit_code=5,
    )


def large(n_rules: int = 60, n_flips: int = 200, text: str = "word " * 800) -> RunRecord:
    """A release: `n_rules` tasks with several findings each and `n_flips` long flips."""
    results = []
    for number in range(n_rules):
        task = f"task_{number:02d}_with_a_name_of_some_length"
        retained = rule(
            "capability", "acc", BoundKind.MIN_RETAINED, 0.97, "97%", source=task, id=f"capability.{task}.acc"
        )
        dropped = rule(
            "capability", "exact_match,strict-match", source=task, id=f"capability.{task}.exact_match", line=None
        )
        red = number == 41
        results += [
            finding(retained, Status.PASS, (0.991, 0.981, 1.001), baseline=0.64, candidate=0.634, n_paired=14042),
            finding(dropped, Status.REGRESSION)
            if red
            else finding(dropped, Status.PASS, (0.002, -0.004, 0.008), baseline=0.56, candidate=0.558, n_paired=1319),
        ]
    red_id = next(f.rule.id for f in results if f.status is Status.REGRESSION)
    return record(
        Status.REGRESSION,
        (sanity_stage(), stage("lm_eval", "capability", Status.REGRESSION, results, seconds=1234.5, scored=921_660)),
        deciding=(red_id,),
        exit_code=1,
        flips=[flip(n, prompt=text, candidate_output=text) for n in range(n_flips)],
        policy={**POLICY, "share_examples": "full"},
    )


def hostile(share_examples: str = "full") -> RunRecord:
    """Every free text is an attack: names, reasons, prompts, answers, notes, checkpoints."""
    bad = rule(source=HOSTILE, metric="acc," + HOSTILE, id="fraud.acc.max_drop", line=15)
    broken = rule(source=HOSTILE, id="fraud.broken.max_drop", line=16)
    return record(
        Status.REGRESSION,
        (
            stage(
                "lm_eval",
                "fraud",
                Status.REGRESSION,
                (
                    finding(
                        bad,
                        Status.REGRESSION,
                        reason=HOSTILE,
                        members=(member(HOSTILE, Status.REGRESSION, 0.1, 0.05, 0.2),),
                    ),
                    finding(broken, Status.ERROR, None, reason=HOSTILE),
                ),
                notes=(HOSTILE,),
            ),
            skipped("profile", "serving", HOSTILE),
        ),
        deciding=("fraud.acc.max_drop",),
        exit_code=1,
        flips=(flip(1, prompt=HOSTILE, candidate_output=HOSTILE),),
        policy={**POLICY, "share_examples": share_examples, "note": HOSTILE},
        candidate=checkpoint(Role.CANDIDATE, uri=HOSTILE),
        notes=(HOSTILE,),
    )


SHARED_FAIL = 1 - 0.05 / 3
"""The confidence of a REGRESSION where three blocking rules share the error."""


def sequential_finding(
    rule: Rule,
    status: Status,
    numbers: tuple[float, float, float],
    n: int,
    whole: int,
    *,
    method: str = "betting",
    scope: Scope = Scope.BENCHMARK,
    lost: int = 0,
    b: int = 3,
    c: int = 1,
    p_value: float = 1.0,
    counts: Mapping[str, float] | None = None,
    **changes: Any,
) -> Finding:
    """A finding on the first `n` of `whole` items, `lost` of them lost, as the sequential rule makes it."""
    found = finding(
        rule,
        status,
        numbers,
        n_paired=n - lost,
        n_lost=lost,
        counts={"n": n, "N": whole, "b": b, "c": c, "a": n // 2, "mcnemar_p": 0.625, "flip_rate": (b + c) / n}
        | dict(counts or {}),
        **changes,
    )
    judged = interval(numbers[1], numbers[2], method, fail_confidence=SHARED_FAIL, scope=scope, valid="anytime")
    return replace(found, interval=judged, p_value=p_value)


SEQUENTIAL_POLICY: Mapping[str, Any] = {
    **POLICY,
    "budget": None,
    "stop_early": True,
    "checkpoints": {},
    "stages": [
        {
            "kind": "domain",
            "name": "fraud",
            "data": "fraud.jsonl",
            "match": "exact",
            "rules": [
                {"metric": "accuracy", "max_drop": "3pp"},
                {"metric": "accuracy", "min_retained": "95%", "severity": "advisory"},
            ],
        },
    ],
}


def sequential() -> RunRecord:
    """Planned looks, early stops by items, a whole benchmark counted, a quality score; `fraud` was never reached."""
    perplexity = perplexity_finding()
    assert perplexity.interval is not None
    at_look = replace(
        perplexity,
        interval=replace(perplexity.interval, confidence=0.9875, fail_confidence=1 - 0.05 / 12, valid="planned_looks"),
        p_value=1.0,
        counts={"G": 64, "tokens": 4096, "n": 64, "N": 64, "mean": 0.004, "standard_error": 0.00081, "look": 2}
        | {"looks": 4},
        reason="at look 2 of 4 (4,000 tokens): the increase keeps the bound 5% over its whole interval (98.75% sure)",
    )
    retained = ("capability", "acc", BoundKind.MIN_RETAINED, 0.97, "97%")
    mmlu = sequential_finding(
        rule(*retained, source="mmlu", id="capability.mmlu.acc.min_retained"),
        Status.PASS,
        (0.9861, 0.9721, 1.0114),
        224,
        2808,
        baseline=0.6401,
        candidate=0.6312,
        detectable=0.0098,
        counts={"a": 140},
        reason="the share retained keeps the bound 97%, settled by the first 224 of 2,808 items (95% sure)",
    )
    arc = sequential_finding(
        rule(*retained, source="arc_challenge", id="capability.arc_challenge.acc.min_retained"),
        Status.PASS,
        (0.9723, 0.9723, 0.9723),
        1172,
        1172,
        b=31,
        c=14,
        baseline=0.523,
        candidate=0.5085,
        detectable=0.0271,
        counts={"a": 582, "mcnemar_p": 0.0161},
        reason="the share retained keeps the bound 97%, counted over all 1,172 items of the sample",
    )
    gsm8k = sequential_finding(
        rule("capability", "exact_match,strict-match", source="gsm8k", id="capability.gsm8k.max_drop"),
        Status.REGRESSION,
        (0.1188, 0.0301, 0.2075),
        160,
        1319,
        b=22,
        c=3,
        counts={"a": 69},
        p_value=0.00231,
        baseline=0.568,
        candidate=0.4492,
        detectable=0.0271,
        reason="the drop is beyond the bound 3pp, settled by the first 160 of 1,319 items (98.33% sure)",
    )
    capability = stage(
        "lm_eval",
        "capability",
        Status.REGRESSION,
        (mmlu, arc, gsm8k),
        seconds=212.4,
        scored=1556,
        available=5299,
        notes=(
            "2808 items sampled from 14042",
            "greedy decoding (temperature 0): differences in the distribution of answers stay unseen",
        ),
    )
    sanity = stage("perplexity", "sanity", Status.PASS, (at_look,), scored=64, available=64)
    because = "stage capability ended in REGRESSION (--keep-going runs the rest)"
    return record(
        Status.REGRESSION,
        (sanity, capability, skipped("domain", "fraud", because)),
        deciding=(gsm8k.rule.id,),
        exit_code=1,
        policy=SEQUENTIAL_POLICY,
        quality=score(),
    )


def score(
    *, estimate: float = 0.9218, low: float = 0.8611, high: float = 0.9823, pooled_p_value: float | None = None
) -> Quality:
    return Quality(
        estimate=estimate,
        interval=interval(low, high, "mean_retained_sequence", scope=Scope.BENCHMARK, valid="anytime"),
        sources=("mmlu", "arc_challenge", "gsm8k"),
        pooled_p_value=pooled_p_value,
    )


SERVING_NOTE = "measured on CPU"


def profiled(*, cpu: bool) -> RunRecord:
    """A profile stage with all its figures: W4A16 against BF16 on a GPU, or on a CPU; answers that got shorter."""
    from tests import profile_factory as profile  # it builds on this module

    speed = rule("serving", "decode_tokens_per_second", BoundKind.MIN_SPEEDUP, 1.5, "1.5", batch=1, line=22)
    spread = (0.721, 0.702, 0.740) if cpu else (1.976, 1.921, 2.032)
    status = Status.REGRESSION if cpu else Status.PASS
    decided = finding(
        speed,
        status,
        spread,
        baseline=80.6 if cpu else 123.5,
        candidate=58.1 if cpu else 243.9,
        method="log_ratio_t",
        n_paired=8,
        counts={"R": 8, "N": 8, **({"confirmed": 1.0} if cpu else {})},
    )
    fits = finding(
        rule("serving", "max_batch_at_context", BoundKind.MIN, 24, "24", line=23),
        Status.PASS,
        (36.0, 36.0, 36.0),
        baseline=None,
        candidate=36.0,
        method="exact",
        n_paired=1,
    )
    kept = score(estimate=0.9912, low=0.9801, high=1.0021)
    one = (
        profile.cpu(findings=(decided,), quality=kept)
        if cpu
        else profile.gpu(
            findings=(decided,),
            quality=kept,
            price_per_hour=3.2,
            quantization_cost={"amount": 120, "output_tokens": 2_000_000_000},
        )
    )
    serving = stage(
        "profile",
        "serving",
        status,
        (decided,) if cpu else (decided, fits),
        scored=8,
        available=8,
        baseline_from="measured",
        notes=(SERVING_NOTE,) if cpu else (),
    )
    shorter = OutputLength(
        stage="capability",
        source="gsm8k",
        baseline_tokens=112.4,
        candidate_tokens=98.3,
        ratio=98.3 / 112.4,
        low=0.861,
        high=0.889,
        n=1319,
        outside=True,
    )
    same = replace(
        shorter, source="fraud", baseline_tokens=12.4, candidate_tokens=12.3, ratio=0.992, low=0.98, high=1.003
    )
    return record(
        status,
        (sanity_stage(), serving),
        deciding=(speed.id,),
        exit_code=1 if cpu else 0,
        quality=kept,
        performance=(one,),
        output_lengths=(shorter, replace(same, n=2000, outside=False)),
    )


def waiver(rule: str = "fraud.accuracy.max_drop", *, reason: str = "known loss, fixed in the next export") -> Waiver:
    return Waiver(rule=rule, checkpoint="c" * 64, owner="Ada Byron", reason=reason, expires="2026-12-31")


def waived() -> RunRecord:
    """The regression, with a waiver for its one blocking red rule: every stage ran, and it stays a regression."""
    red, one = regression(), waiver()
    said = f"Passed with waiver: {one.rule} is waived by {one.owner} until {one.expires} ({one.reason})."
    return replace(
        red,
        stages=tuple(s for s in red.stages if s.status is not Status.SKIPPED),
        verdict=replace(red.verdict, sentence=f"{said} {red.verdict.sentence}"),
        exit_code=0,
        waivers=(one,),
    )


def policy_change(*, replayed: int = 12) -> PolicyChange:
    return PolicyChange(
        base_commit="89abcdef0123456789abcdef0123456789abcdef",
        paths=("thresholds/demo.yaml", "tasks/fraud.yaml"),
        rules=(
            RuleChange(
                rule="serving.rss_peak.max", kind="added", was=None, now="rss_peak max: 2GiB (blocking, benchmark)"
            ),
            RuleChange(
                rule="fraud.accuracy.max_drop",
                kind="loosened",
                was="accuracy max_drop: 3pp (blocking, benchmark)",
                now="accuracy max_drop: 15pp (blocking, benchmark)",
            ),
            RuleChange(
                rule="sanity.top1_agreement.min",
                kind="removed",
                was="top1_agreement min: 0.90 (advisory, benchmark)",
                now=None,
            ),
        ),
        moves=(
            Move(run_id="20261101-090000-11aa22", candidate="bank-w4", was=Status.PASS, now=Status.INCONCLUSIVE),
            Move(run_id="20261102-090000-33bb44", candidate="bank-w3-gptq", was=Status.REGRESSION, now=Status.PASS),
        ),
        replayed=replayed,
        notes=("run 20261020-090000-55cc66 holds no rows of stage serving: its rules stay as they were",),
    )


def policy_changed() -> RunRecord:
    """The regression, in a pull request that loosens the rule which it breaks."""
    return replace(regression(), policy_change=policy_change())


def everything() -> dict[str, RunRecord]:
    """All the records by name."""
    return {
        "pass": passing(),
        "regression": regression(),
        "inconclusive": inconclusive(),
        "inconclusive-warn": inconclusive({**POLICY, "on_inconclusive": "warn"}),
        "error": error(),
        "refused": refused(),
        "large": large(),
        "hostile": hostile(),
        "sequential": sequential(),
        "profiled": profiled(cpu=False),
        "profiled-cpu": profiled(cpu=True),
        "waived": waived(),
        "policy-changed": policy_changed(),
    }
