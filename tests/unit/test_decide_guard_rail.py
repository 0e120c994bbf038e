"""Guard rails over categories and subjects: red only by evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate.decide.judge import judge
from gate.metrics import DOMAIN
from gate.records import (
    Measurement,
    Status,
)
from tests.decide_factory import (
    BASELINE,
    CANDIDATE,
    TERMS,
    judged,
    lost,
    pair_of,
    rule,
    scored,
)


class TestGuardRails:
    def by_category(self, losses: dict[str, tuple[int, int]]) -> tuple[Measurement, Measurement]:
        """Category → (lost, items)."""
        groups = [g for g, (_, n) in losses.items() for _ in range(n)]
        candidate = [0.0 if i < k else 1.0 for k, n in losses.values() for i in range(n)]
        baseline = scored(BASELINE, [1.0] * len(groups), groups=groups)
        return baseline, scored(CANDIDATE, candidate, groups=groups)

    def test_red_only_by_evidence_that_survives_the_correction(self) -> None:
        many = {f"category {k:02d}": (0, 40) for k in range(12)}
        # Alone, 10 of 40 is beyond 10 pp; among twelve it is what chance brings.
        alone = judged(rule("max_drop 10pp", by="category"), self.by_category({"odd": (10, 40)}))
        assert alone.status is Status.REGRESSION
        among = judged(rule("max_drop 10pp", by="category"), self.by_category({**many, "odd": (10, 40)}))
        assert among.status is Status.INCONCLUSIVE
        assert among.members[0].group == "odd"
        assert among.members[0].status is Status.INCONCLUSIVE
        assert among.reason.startswith(
            "guard rail: no evidence, after Holm's correction, that the drop is beyond 10pp in any of 13 groups; "
        )
        assert "worst: odd, category 00, " in among.reason
        clear = judged(rule("max_drop 10pp", by="category"), self.by_category({**many, "odd": (20, 40)}))
        assert clear.status is Status.REGRESSION
        assert [m.status for m in clear.members].count(Status.REGRESSION) == 1
        assert clear.estimate == pytest.approx(0.5)
        assert "1 of 13 groups beyond the bound 10pp after Holm's correction; worst: odd, " in clear.reason

    def test_every_group_within_the_bound_passes(self) -> None:
        found = judged(rule("max_drop 10pp", by="category"), self.by_category({"a": (0, 100), "b": (1, 100)}))
        assert found.status is Status.PASS
        assert [m.status for m in found.members] == [Status.PASS, Status.PASS]
        assert found.n_paired == 200

    def test_above_twenty_groups_false_discoveries_are_counted(self) -> None:
        losses = {f"subject {k:02d}": (0, 40) for k in range(20)} | {f"bad {k}": (11, 40) for k in range(5)}
        found = judged(rule("max_drop 10pp", by="subject"), self.by_category(losses))
        assert found.status is Status.REGRESSION
        assert "5 of 25 groups beyond the bound 10pp after Benjamini and Hochberg's correction" in found.reason
        assert found.reason.count("bad ") == 5

    def test_no_group_at_all(self) -> None:
        found = judged(rule("max_drop 10pp", by="category"), pair_of(10, 0, 0, 0))
        assert (found.status, "no item carries a category" in found.reason) == (Status.ERROR, True)

    def test_a_group_that_cannot_be_judged_forbids_a_pass_and_is_named(self) -> None:
        groups = ["easy"] * 200 + ["hopeless"] * 5
        values = [1.0] * 200 + [0.0] * 5
        pair = scored(BASELINE, values, groups=groups), scored(CANDIDATE, values, groups=groups)
        found = judged(rule("min_retained 90%", by="category"), pair)
        assert found.status is Status.INCONCLUSIVE
        assert found.members[-1].status is Status.ERROR
        assert "; 1 of 2 groups cannot be judged: hopeless (hopeless: accuracy: the baseline scored 0" in found.reason

    def test_a_baseline_that_could_not_fail_is_no_pass(self) -> None:
        groups = ["easy"] * 200 + ["hopeless"] * 100
        baseline, candidate = [1.0] * 200 + [1.0] * 10 + [0.0] * 90, [1.0] * 200 + [0.0] * 100
        pair = scored(BASELINE, baseline, groups=groups), scored(CANDIDATE, candidate, groups=groups)
        found = judged(rule("max_drop 15pp", by="category"), pair)
        assert found.status is Status.INCONCLUSIVE  # not a pass, and not a block: the rule's own bound was too wide
        hopeless = found.members[-1]
        assert (hopeless.group, hopeless.status) == ("hopeless", Status.ERROR)
        assert (hopeless.baseline, hopeless.candidate, hopeless.n_paired) == (0.1, 0.0, 100)
        assert "in any of 1 groups; 1 of 2 groups cannot be judged: hopeless" in found.reason
        assert "the baseline scores 10% and a drop of 15 pp is allowed" in found.reason
        nobody = judged(rule("max_drop 100pp", by="category"), pair)
        assert (nobody.status, nobody.reason.startswith("no category can be judged; ")) == (Status.ERROR, True)

    def test_lost_items_of_unknown_group_count_against_every_group(self) -> None:
        groups = ["a"] * 60 + ["b"] * 60
        pair = tuple(scored(r, [1.0] * 120, groups=groups, n_expected=123) for r in (BASELINE, CANDIDATE))
        of = rule("max_drop 8pp", by="category", max_lost=lost(3))
        found = judge(of, pair[0], pair[1], TERMS)
        assert found.status is Status.INCONCLUSIVE
        assert all(m.interval is not None and m.interval.high > 0.08 for m in found.members)
        whole = tuple(scored(r, [1.0] * 120, groups=groups) for r in (BASELINE, CANDIDATE))
        assert judge(of, whole[0], whole[1], TERMS).status is Status.PASS

    def test_a_group_that_one_role_lost_is_not_forgotten(self) -> None:
        baseline, candidate = self.by_category({"a": (0, 200), "b": (0, 3)})
        without_b = replace(candidate, observations=candidate.observations[:200])
        found = judged(rule("max_drop 10pp", by="category", max_lost=lost(3)), (baseline, without_b))
        assert (found.status, found.n_paired, found.n_lost) == (Status.ERROR, 200, 3)
        assert [(m.group, m.status) for m in found.members] == [("a", Status.PASS), ("b", Status.ERROR)]
        assert "1 of 2 groups cannot be judged: b (1 for lost items; b: " in found.reason

    def test_evidence_against_a_group_outranks_a_lost_one(self) -> None:
        baseline, candidate = self.by_category({"a": (150, 200), "b": (0, 3)})
        without_b = replace(candidate, observations=candidate.observations[:200])
        found = judged(rule("max_drop 10pp", by="category", max_lost=lost(3)), (baseline, without_b))
        assert found.status is Status.REGRESSION
        assert "cannot be judged: b" in found.reason

    def test_guard_rails_are_for_item_means(self) -> None:
        metric = DOMAIN["length_ratio"]
        pair = scored(BASELINE, [3.0, 4.0], metric=metric), scored(CANDIDATE, [3.0, 4.0], metric=metric)
        assert (
            "cannot be judged by category" in judged(rule("max 1.1", metric="length_ratio", by="category"), pair).reason
        )
