"""Following a source part by part: it is settled when the judge would say so, by the same items, and never before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gate.artifact.observations import read_observations, write_observations
from gate.decide.judge import judge
from gate.decide.source import Tracker, findings
from gate.decide.terms import Terms
from gate.records import Measurement, Rule, Scope, Severity, Status, merge
from tests.decide_factory import failure
from tests.sequence_factory import (
    ONE_RULE,
    failed,
    ids,
    of_differences,
    part,
    roles,
    rule,
    shuffled,
    some_lost,
    terms,
)

DROP = rule("max_drop 3pp")
DECIDED = (Status.PASS, Status.REGRESSION, Status.ERROR)


def followed(
    of: Sequence[Rule], pair: tuple[Measurement, Measurement], size: int, on: Terms = ONE_RULE
) -> tuple[int | None, Tracker]:
    """How many items were asked when all governing rules were settled (None: never), and the tracker by then."""
    baseline, candidate = pair
    tracker = Tracker(of, baseline, on)
    for begin in range(0, baseline.n_expected, size):
        tracker.feed(part(candidate, begin, min(begin + size, baseline.n_expected)))
        if tracker.settled:
            return min(begin + size, baseline.n_expected), tracker
    return None, tracker


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("of", [DROP, rule("min_retained 95%"), rule("min 0.9"), rule("max 0.97")], ids=lambda r: r.id)
def test_it_settles_exactly_when_the_judge_does(of: Rule, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([164, 500, 777]))
    share = float(rng.choice([0, 0.02, 0.05, 0.1]))
    d = shuffled(n, round((0.03 + share) * n), round(0.03 * n), rng)
    pair = of_differences(d)
    asked, tracker = followed([of], pair, 32)
    for reached in range(32, n + 32, 32):
        found = judge(of, *of_differences(d, reached=min(reached, n)), ONE_RULE)
        is_settled = asked is not None and reached >= asked
        assert (found.status in DECIDED) == is_settled
    assert tracker.measurement is not None
    assert judge(of, pair[0], tracker.measurement, ONE_RULE) == judge(of, *pair, ONE_RULE)
    assert tracker.failing == (judge(of, *pair, ONE_RULE).status is Status.REGRESSION)


@pytest.mark.parametrize("size", [1, 20, 32, 50, 96, 1000])
def test_a4_the_finding_is_the_same_for_any_parts(size: int) -> None:
    pair = of_differences(shuffled(1000, 40, 40, np.random.default_rng(1)))
    whole = judge(DROP, *pair, ONE_RULE)
    asked, tracker = followed([DROP], pair, size)
    assert asked is not None
    assert asked >= whole.counts["n"]
    assert asked < whole.counts["n"] + size
    assert tracker.measurement is not None
    assert judge(DROP, pair[0], tracker.measurement, ONE_RULE) == whole


def test_a14_a_record_that_was_written_and_read_says_the_same(tmp_path: Path) -> None:
    pair = of_differences(shuffled(500, 25, 12, np.random.default_rng(2)), reached=320)
    write_observations(tmp_path / "observations.parquet", pair)
    again = read_observations(tmp_path / "observations.parquet")
    for of in (DROP, rule("min_retained 97%"), rule("max_drop 3pp", scope=Scope.POPULATION)):
        assert judge(of, again[0], again[1], ONE_RULE) == judge(of, *pair, ONE_RULE)


def test_other_rules_of_the_source_change_nothing() -> None:
    pair = of_differences(shuffled(1000, 60, 60, np.random.default_rng(3)))
    on = terms(4)
    alone = findings([DROP], *pair, on, stop_early=True)
    slow = rule("max_drop 1pp", id="slow")
    by = rule("max_drop 20pp", id="by", by="subject")
    beside = findings([slow, DROP, by], *pair, on, stop_early=True)
    assert beside[1] == alone[0]
    asked_alone, _ = followed([DROP], pair, 32, on)
    asked, tracker = followed([DROP, slow, by], pair, 32, on)
    assert asked_alone is not None
    assert asked is None or asked > asked_alone
    assert tracker.measurement is not None
    assert judge(DROP, pair[0], tracker.measurement, on) == alone[0]


def test_an_advisory_rule_prolongs_nothing_and_by_itself_is_not_corrected() -> None:
    pair = of_differences(shuffled(2000, 120, 20, np.random.default_rng(4)))
    advice = rule("max_drop 4pp", id="advice", severity=Severity.ADVISORY)
    assert followed([DROP, advice], pair, 32, terms(1))[0] == followed([DROP], pair, 32, terms(1))[0]
    asked, tracker = followed([advice], pair, 32, terms(30))
    assert asked == judge(advice, *pair, terms(30)).counts["n"]
    assert asked == followed([advice], pair, 32, terms(1))[0]
    assert not tracker.failing  # advice stops nothing


def test_an_item_whose_prompt_broke_is_the_baselines_item() -> None:
    """Found: the failure's id lacks the prompt hash, so that the tracker did not know what the baseline had scored."""
    d = [-1 if i % 5 == 0 else 0 for i in range(400)]
    baseline, candidate = of_differences(d)
    gone = [ids(400)[i] for i in (3, 7, 40)]
    candidate = replace(
        candidate,
        observations=tuple(o for o in candidate.observations if o.item_id not in gone),
        failures=tuple(map(failed, gone)),
    )
    of = rule("max_drop 3pp", max_lost=some_lost(3))
    found = judge(of, baseline, candidate, ONE_RULE)
    asked, tracker = followed([of], (baseline, candidate), 32)
    assert (found.status, found.counts["n"], asked) == (Status.REGRESSION, asked, asked)
    assert tracker.failing
    assert "candidate template: 3" in found.reason
    assert judge(DROP, baseline, candidate, ONE_RULE).status is Status.ERROR
    early, stopped = followed([DROP], (baseline, candidate), 32)
    assert (early, stopped.failing) == (32, True)


@pytest.mark.parametrize("silent", [True, False])
def test_an_item_that_vanished_is_lost_at_its_own_place(silent: bool) -> None:
    values: list[float | None] = [1.0] * 300
    values[5] = values[200] = None
    baseline, candidate = roles([1.0] * 300, values)
    if not silent:
        candidate = replace(candidate, failures=(failure(ids(300)[5]), failure(ids(300)[200])))
    of = rule("max_drop 3pp", max_lost=some_lost(2))
    found = judge(of, baseline, candidate, ONE_RULE)
    asked, _ = followed([of], (baseline, candidate), 32)
    assert (found.status, asked) == (Status.PASS, found.counts["n"])


def test_the_last_of_a_block_that_vanished_is_missed_at_once() -> None:
    baseline, candidate = roles([1.0] * 300, [*[1.0] * 31, None, *[1.0] * 268])
    tracker = Tracker([DROP], baseline, ONE_RULE)
    tracker.feed(part(candidate, 0, 32))
    assert (tracker.settled, tracker.failing) == (True, True)
    assert tracker.measurement is not None
    assert judge(DROP, baseline, tracker.measurement, ONE_RULE).n_lost == 1


class TestNothingToWaitFor:
    def test_a_baseline_that_says_nothing_stops_at_once(self) -> None:
        pair = roles([0.0] * 200, [1.0] * 200)
        asked, tracker = followed([DROP], pair, 32)
        assert (asked, tracker.failing) == (32, True)
        assert judge(DROP, *pair, ONE_RULE).status is Status.ERROR

    def test_a_baseline_at_chance_stops_at_once(self) -> None:
        baseline, candidate = roles([1.0, 0.0, 0.0, 0.0] * 50, [1.0] * 200, chance=0.25)
        asked, tracker = followed([DROP], (baseline, candidate), 32)
        assert (asked, tracker.failing) == (32, True)
        assert "guessing" in judge(DROP, baseline, candidate, ONE_RULE).reason

    @pytest.mark.parametrize("value", [1.5, -0.5])
    def test_a_score_out_of_range_is_an_error_and_no_crash(self, value: float) -> None:
        """Found: a ValueError ended the run."""
        baseline, candidate = roles([1.0] * 200, [1.0] * 40 + [value] + [1.0] * 159)
        asked, tracker = followed([DROP], (baseline, candidate), 32)
        assert (asked, tracker.failing) == (64, True)
        asked, tracker = followed([rule("min_retained 90%")], roles([1.5] * 200, [1.0] * 200), 32)
        assert (asked, tracker.failing) == (32, True)

    def test_other_prompts_for_the_same_documents_are_an_error(self) -> None:
        baseline, candidate = of_differences([0] * 200)
        other = tuple(replace(o, item_id=o.item_id[:-1] + "q") for o in candidate.observations)
        parts = (replace(candidate, observations=other[k : k + 32], n_reached=32) for k in range(0, 192, 32))
        tracker = Tracker([DROP], baseline, ONE_RULE)
        tracker.feed(next(parts))
        assert (tracker.settled, tracker.failing) == (True, True)

    def test_items_out_of_turn_wait_for_all_of_them(self) -> None:
        baseline, candidate = of_differences([0] * 400)
        tracker = Tracker([DROP], baseline, ONE_RULE)
        whole = rule("max_drop 3pp", max_lost=some_lost(400))
        lenient = Tracker([whole], baseline, ONE_RULE)
        for follower in (tracker, lenient):
            follower.feed(part(candidate, 32, 64))
        assert (tracker.settled, tracker.failing) == (True, True)  # the first 32 were skipped: lost
        lenient.feed(part(candidate, 0, 32))
        assert not lenient.settled
        assert lenient.measurement is not None
        assert judge(whole, baseline, lenient.measurement, ONE_RULE).n_lost == 0


class TestWaits:
    def test_for_every_item_where_a_rule_needs_them(self) -> None:
        pair = of_differences([0] * 300)
        for of in (
            rule("max_drop 3pp", scope=Scope.POPULATION),
            rule("max_drop 0pp"),
            rule("max_drop 3pp", metric="f1"),
        ):
            assert followed([of], pair, 32)[0] is None

    def test_guard_rails_alone_want_all_of_it(self) -> None:
        assert followed([rule("max_drop 3pp", by="subject")], of_differences([0] * 300), 32)[0] is None

    def test_where_none_blocks_all_govern(self) -> None:
        pair = of_differences([0] * 2000)
        fast, slow = (rule(t, id=t, severity=Severity.ADVISORY) for t in ("max_drop 10pp", "max_drop 1pp"))
        asked, _ = followed([fast, slow], pair, 32)
        assert asked == judge(slow, *pair, ONE_RULE).counts["n"]


def test_a_guard_rail_cut_short_says_so() -> None:
    baseline, candidate = of_differences([0] * 300, reached=32)
    sides = [
        replace(m, observations=tuple(replace(o, group=f"g{k % 2}") for k, o in enumerate(m.observations)))
        for m in (baseline, candidate)
    ]
    by = rule("max_drop 3pp", id="by", by="subject")
    found = findings([DROP, by], sides[0], sides[1], ONE_RULE, stop_early=True)
    assert [f.status for f in found] == [Status.INCONCLUSIVE] * 2
    assert found[1].counts["reached"] == 32


def test_nothing_was_fed() -> None:
    tracker = Tracker([DROP], of_differences([0] * 100)[0], ONE_RULE)
    assert (tracker.measurement, tracker.settled, tracker.failing) == (None, False, False)
    whole = merge([part(of_differences([0] * 100)[1], 0, 64), part(of_differences([0] * 100)[1], 64, 100)])
    assert whole.n_reached == 100
