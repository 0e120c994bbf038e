"""The verdict in one sentence: the deciding rule, its number, interval and bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.metrics import PROFILE
from gate.records import BoundKind, Finding, Severity, Status
from gate.reports.sentence import describe, sentence, subject
from tests import records_factory as factory


def test_regression_names_rule_number_interval_and_bound() -> None:
    assert factory.regression().verdict.sentence == (
        "Regression: accuracy on fraud fell by 11.50 pp, 100.00% → 88.50% (drop between 10.33 and 12.78 pp, "
        "each end 95% sure), but a drop of at most 3 pp is allowed [fraud.accuracy.max_drop]."
    )


def test_pass_says_what_was_tested_how_sure_and_what_came_closest() -> None:
    assert factory.passing().verdict.sentence == (
        "All 4 blocking rules hold in sanity, fraud, serving (2,080 items, each at least 95% sure); "
        "the closest to its bound is serving.rss_peak.max: peak memory (RSS) is 0.61 GiB, and at most 2 GiB is allowed."
    )


def test_pass_does_not_hide_an_advisory_rule_that_did_not_pass() -> None:
    warned = factory.finding(factory.rule(severity=Severity.ADVISORY, id="fraud.soft"), Status.REGRESSION)
    stages = [factory.sanity_stage(), factory.stage("domain", "fraud", Status.PASS, [warned])]
    said = sentence(Status.PASS, [], stages, factory.POLICY, complete=True)
    assert said.startswith("The one blocking rule holds in sanity, fraud (2,064 items")
    assert said.endswith("; 1 advisory rule did not pass: fraud.soft.")


def test_pass_counts_undecided_guard_rails_apart() -> None:
    holds = factory.finding(factory.rule(), Status.PASS, (0.002, -0.004, 0.008))
    rail = factory.finding(factory.rule(by="category", id="fraud.rail"), Status.INCONCLUSIVE, (0.02, -0.1, 0.12))
    stages = [factory.stage("domain", "fraud", Status.PASS, [holds, rail])]
    said = sentence(Status.PASS, [holds], stages, factory.POLICY, complete=True)
    assert said.startswith("1 of 2 blocking rules holds in fraud (")
    assert "; 1 guard rail saw no evidence and stayed undecided: fraud.rail; fraud.accuracy.max_drop: accuracy" in said


def test_pass_tells_what_was_not_measured_from_what_did_not_pass() -> None:
    soft = [
        factory.finding(factory.rule(severity=Severity.ADVISORY, id="red"), Status.REGRESSION),
        factory.finding(factory.rule(severity=Severity.ADVISORY, id="broken"), Status.ERROR, None),
    ]
    stages = [factory.sanity_stage(), factory.stage("domain", "fraud", Status.PASS, soft)]
    said = sentence(Status.PASS, [], stages, factory.POLICY, complete=True)
    assert said.endswith("; 1 advisory rule did not pass: red; 1 advisory rule could not be measured: broken.")


@pytest.mark.parametrize(
    ("on_inconclusive", "end"),
    [("fail", "."), ("warn", "; on_inconclusive: warn does not cover what was not measured.")],
)
def test_a_restricted_run_says_so_and_that_what_was_asked_holds(on_inconclusive: str, end: str) -> None:
    sanity, other = factory.sanity_stage(), factory.skipped("domain", "fraud", "not selected")
    asked = sanity.findings[:1]
    policy = {**factory.POLICY, "on_inconclusive": on_inconclusive}
    said = sentence(Status.INCONCLUSIVE, asked, [sanity, other], policy, complete=False)
    assert said.startswith(
        "Inconclusive: this run was restricted to --stage sanity; what was asked holds: perplexity on prose "
    )
    assert said.endswith(f"[{asked[0].rule.id}]{end}")


def test_inconclusive_says_what_it_would_take() -> None:
    assert factory.inconclusive().verdict.sentence == (
        "Inconclusive: accuracy on fraud fell by 2.10 pp, 95.20% → 93.10% (drop between 0.40 and 4.20 pp, each end 95% "
        "sure), and a drop of at most 3 pp is allowed: not decided, the interval of the drop holds values on both "
        "sides of the bound 3pp; about 1,240 items would decide it if what was seen is the truth, there were 400 "
        "paired items [fraud.accuracy.max_drop]."
    )


@pytest.mark.parametrize(
    ("three", "needed", "detectable", "expected"),
    [
        (
            (0.02, 0.0, 0.04),
            None,
            0.0263,
            "why; 400 paired items resolve a difference of 2.63 pp at best; it takes more items or a wider bound",
        ),
        ((0.02, 0.0, 0.04), None, None, "why; it takes more items or a wider bound"),
        ((0.02, 0.0, 0.04), 300, None, "why; it takes more items or a wider bound"),
        ((0.0, -0.01, 0.01), None, None, "why"),  # undecided for a reason that more items need not change
    ],
)
def test_inconclusive_without_a_count_of_items(
    three: tuple[float, float, float], needed: int | None, detectable: float | None, expected: str
) -> None:
    found = factory.finding(
        factory.rule(),
        Status.INCONCLUSIVE,
        three,
        n_paired=400,
        n_needed=needed,
        detectable=detectable,
        reason="why.",
    )
    assert describe(found, "domain").endswith(f": not decided, {expected}")


def test_a_policy_that_only_warns_is_named() -> None:
    said = factory.inconclusive({**factory.POLICY, "on_inconclusive": "warn"}).verdict.sentence
    assert said.endswith("[fraud.accuracy.max_drop]; on_inconclusive: warn lets this run pass.")


def test_inconclusive_because_stages_were_left_out() -> None:
    stages = [factory.sanity_stage(), factory.skipped("domain", "fraud", "not among --stage")]
    said = sentence(Status.INCONCLUSIVE, [], stages, factory.POLICY, complete=True)
    assert said == "Inconclusive: not run: fraud (not among --stage)."


def test_error_says_could_not_measure_and_why() -> None:
    assert factory.error().verdict.sentence == (
        "Could not measure: accuracy on fraud: candidate worker was killed by SIGKILL after 140 of 2000 items; "
        "last line of its log: 'out of memory' [fraud.accuracy.max_drop]."
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.ERROR, "Could not measure: shard 2 of 3 is missing."),
        (Status.REFUSED, "Refused: shard 2 of 3 is missing."),
        (Status.REGRESSION, "Regression: shard 2 of 3 is missing."),
    ],
)
def test_a_run_that_ended_before_any_stage_gives_the_reason(status: Status, expected: str) -> None:
    assert (
        sentence(status, [], [], factory.POLICY, complete=True, reason="shard 2 of 3 is missing\nlast words")
        == expected
    )


def test_without_any_reason_the_broken_stage_is_blamed() -> None:
    stages = [factory.stage("domain", "fraud", Status.ERROR, [], notes=["no item was measured"])]
    assert (
        sentence(Status.ERROR, [], stages, factory.POLICY, complete=True)
        == "Could not measure: fraud: no item was measured."
    )
    assert sentence(Status.ERROR, [], [], factory.POLICY, complete=True) == (
        "Could not measure: a planned rule was not judged, and no stage says why."
    )


def test_other_deciding_rules_are_counted() -> None:
    three = [factory.finding(factory.rule(id=f"r{i}"), Status.REGRESSION) for i in range(3)]
    stages = [factory.stage("domain", "fraud", Status.REGRESSION, three)]
    assert sentence(Status.REGRESSION, three, stages, factory.POLICY, complete=True).endswith(
        "[r0]; 2 more rules regressed too."
    )


def test_a_skipped_run_does_not_exist() -> None:
    with pytest.raises(ValueError, match="a run cannot be SKIPPED"):
        sentence(Status.SKIPPED, [], [], factory.POLICY, complete=True)


def one(kind: BoundKind, metric: str, bound: float, three: tuple[float, float, float], status: Status) -> Finding:
    batch = 8 if "decode" in metric else None
    return factory.finding(factory.rule("s", metric, kind, bound, "x", batch=batch), status, three, candidate=three[0])


@pytest.mark.parametrize(
    ("finding", "kind", "expected"),
    [
        (
            one(BoundKind.MAX_DROP, "accuracy", 0.03, (-0.005, -0.012, 0.003), Status.PASS),
            "domain",
            "accuracy on s rose by 0.50 pp, 100.00% → −0.50% (drop between −1.20 and 0.30 pp, each end 95% sure), "
            "and a drop of at most 3 pp is allowed",
        ),
        (
            one(BoundKind.MIN_SPEEDUP, "decode_tokens_per_second", 1.2, (0.93, 0.91, 0.95), Status.REGRESSION),
            "profile",
            "decode speed at batch 8 is 0.930× the baseline's, 1.0 tok/s → 0.9 tok/s "
            "(speed-up between 0.910 and 0.950×, each end 95% sure), but a speed-up of at least 1.2× is required",
        ),
        (
            one(BoundKind.MAX, "kl_mean_nats", 0.05, (0.06, 0.055, 0.065), Status.REGRESSION),
            "perplexity",
            "mean KL divergence on s is 0.0600 nats (between 0.0550 and 0.0650 nats, each end 95% sure), "
            "but at most 0.05 nats is allowed",
        ),
        (
            one(BoundKind.MAX_DROP, "accuracy", 0.03, (0.0, -0.01, 0.01), Status.PASS),
            "domain",
            "accuracy on s did not change, 100.00% → 0.00% (drop between −1.00 and 1.00 pp, each end 95% sure), "
            "and a drop of at most 3 pp is allowed",
        ),
    ],
)
def test_each_bound_has_its_words(finding: Finding, kind: str, expected: str) -> None:
    assert describe(finding, kind) == expected


def test_a_guard_rail_names_its_worst_group() -> None:
    rail = factory.regression().stages[1].findings[1]
    assert describe(rail, "domain").startswith("accuracy on fraud by category (worst of 3: balance) fell by 24.10 pp")


def test_a_sequential_regression_says_how_sure_and_by_how_many_items() -> None:
    assert factory.sequential().verdict.sentence == (
        "Regression: exact_match (strict-match) on gsm8k fell by 11.88 pp, 56.80% → 44.92% (drop between 3.01 and "
        "20.75 pp, 98.33% sure that it breaks the bound), but a drop of at most 3 pp is allowed; settled by the first "
        "160 of 1,319 items [capability.gsm8k.max_drop]."
    )


def test_a_pass_is_as_sure_as_its_own_side_and_names_the_sample() -> None:
    capability = factory.sequential().stages[1]
    mmlu, arc, _ = capability.findings
    said = describe(mmlu, "lm_eval", capability)
    assert "(retained between 97.21 and 101.14%, 95% sure that it keeps the bound), and at least 97%" in said
    assert said.endswith("; settled by the first 224 of 2,808 items sampled from 14,042")
    assert describe(arc, "lm_eval", capability) == (
        "acc on arc_challenge is 97.23% of the baseline's, 52.30% → 50.85%, and at least 97% must be kept; "
        "counted over all 1,172 items"
    )


def test_an_undecided_sequential_rule_says_how_sure_either_end_is_and_what_decides_it() -> None:
    found = factory.sequential_finding(
        factory.rule(), Status.INCONCLUSIVE, (0.02, -0.01, 0.05), 160, 1319, reason="why", n_needed=1319
    )
    assert describe(found, "domain") == (
        "accuracy on fraud fell by 2.00 pp, 100.00% → 88.50% (drop between −1.00 and 5.00 pp, low end 98.33% and high "
        "end 95% sure), and a drop of at most 3 pp is allowed: not decided, why; all 1,319 items decide it for "
        "certain, 160 were asked"
    )
    low_must_hold = replace(found, rule=factory.rule(kind=BoundKind.MIN_RETAINED, value=0.97))
    assert "low end 95% and high end 98.33% sure" in describe(low_must_hold, "domain")


def test_an_undecided_benchmark_of_which_items_were_lost_asks_for_no_more_items() -> None:
    found = factory.sequential_finding(
        factory.rule(), Status.INCONCLUSIVE, (0.02, 0.01, 0.05), 1319, 1319, lost=40, reason="40 items were lost"
    )
    assert describe(found, "domain").endswith(": not decided, 40 items were lost")


def test_an_lm_eval_metric_names_its_filter() -> None:
    rule = factory.rule("capability", "exact_match,strict-match", source="gsm8k")
    assert subject(rule, "lm_eval") == "exact_match (strict-match) on gsm8k"


def test_untrusted_names_and_reasons_are_one_clean_short_line() -> None:
    said = factory.hostile().verdict.sentence
    assert "\n" not in said
    assert "\x1b" not in said
    assert len(said) < 600


def test_a_profile_rule_names_lengths_load_and_a_cpu() -> None:
    rule = replace(factory.rule("serving", "ttft_p95_seconds", batch=8), lengths="1024+64")
    assert subject(rule, "profile") == "95th percentile of the time to first token at batch 8 with 1024+64 tokens"
    served = replace(factory.rule("serving", "goodput_requests_per_second"), load="open:4")
    assert subject(served, "profile") == "requests per second within the objectives under load open:4"
    gpu, cpu = (factory.profiled(cpu=on_cpu).stages[-1] for on_cpu in (False, True))
    assert subject(served, "profile", cpu).endswith("under load open:4 on a CPU")
    assert subject(served, "profile", gpu).endswith("under load open:4")
    memory = factory.rule("serving", "rss_peak")
    assert subject(memory, "profile", cpu) == "peak memory (RSS)"  # a size is no speed


def test_every_profile_metric_has_words() -> None:
    for name in PROFILE:
        assert "_" not in subject(factory.rule("serving", name), "profile"), name
        assert "seconds" not in subject(factory.rule("serving", name), "profile"), name
