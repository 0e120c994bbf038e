"""A/A runs: what the noise is, that it is kept and found again, and what makes a measurement unreliable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gate import policy
from gate.calibration import SourceResult, calibrate, compares, failures
from gate.commands.calibrate import table
from gate.decide.judge import judge
from gate.decide.noise import FlipNoise, TokenNoise, noise
from gate.decide.terms import gate_wide
from gate.errors import BudgetExceeded, CouldNotMeasure, UsageError, WorkerError
from gate.metrics import DOMAIN, PERPLEXITY
from gate.noise_floor import Calibrated, Place, keep, load, load_floors, missing
from gate.policy_file import LoadedPolicy, load_policy
from gate.records import Bound, BoundKind, Measurement, Role, Scope, Status
from gate.store import Store
from tests.decide_factory import BASELINE, CANDIDATE, failure, measurement, observation, pair_of, rule, scored

CONFIDENCE = 0.95
ACCURACY, NLL = DOMAIN["accuracy"], PERPLEXITY["perplexity"]


def flips(*runs: Measurement) -> FlipNoise:
    baseline, again = runs
    (found,) = noise(baseline, again, CONFIDENCE)
    assert isinstance(found, FlipNoise)
    return found


def corpus(role: Role, nats: Sequence[float], tokens: Sequence[int], **changes: Any) -> Measurement:
    return scored(role, nats, metric=NLL, weights=[float(t) for t in tokens], **changes)


class TestFlips:
    def test_the_share_of_answers_that_changed(self) -> None:
        found = flips(*pair_of(both=150, lost=2, gained=4, neither=44))
        assert (found.metric, found.n, found.lost, found.gained) == ("accuracy", 200, 2, 4)
        assert found.flip_rate == 6 / 200
        assert found.floor == pytest.approx(2.4865 * math.sqrt(0.03 / 200), rel=1e-4)

    def test_nothing_changed(self) -> None:
        found = flips(*pair_of(both=150, lost=0, gained=0, neither=50))
        assert (found.flip_rate, found.floor) == (0.0, 0.0)

    def test_partial_credit_changes_by_its_square(self) -> None:
        found = flips(scored(BASELINE, [0.5, 1.0, 0.25, 0.75]), scored(CANDIDATE, [0.5, 0.5, 0.25, 1.0]))
        assert found.flip_rate == pytest.approx((0.25 + 0.0625) / 4)
        assert (found.lost, found.gained) == (1, 1)

    def test_every_item_mean_is_looked_at_and_nothing_else(self) -> None:
        also = [DOMAIN["macro_f1"], DOMAIN["empty_rate"]]
        runs = [
            measurement(
                role,
                [o for i in range(9) for o in (observation(ACCURACY, f"{i}", 1.0), observation(also[1], f"{i}", 0.0))],
                9,
                also=also,
            )
            for role in (BASELINE, CANDIDATE)
        ]
        assert [n.metric for n in noise(runs[0], runs[1], CONFIDENCE)] == ["accuracy", "empty_rate"]

    def test_nothing_in_common_is_no_noise_of_zero(self) -> None:
        baseline, again = scored(BASELINE, {"a": 1.0}, n_expected=2), scored(CANDIDATE, {"b": 1.0}, n_expected=2)
        with pytest.raises(CouldNotMeasure, match="no item was scored for accuracy in both runs"):
            noise(baseline, again, CONFIDENCE)


class TestTokens:
    def test_the_spread_of_one_token(self) -> None:
        generator, documents, tokens = np.random.default_rng(2), 400, 64
        differences = generator.normal(0, 0.03, (documents, tokens)).mean(axis=1)
        (found,) = noise(
            corpus(BASELINE, [2.0] * documents, [tokens] * documents),
            corpus(CANDIDATE, (2.0 + differences).tolist(), [tokens] * documents),
            CONFIDENCE,
        )
        assert isinstance(found, TokenNoise)
        assert found.token_sd_nats == pytest.approx(0.03, rel=0.1)
        assert (found.documents, found.tokens) == (documents, documents * tokens)
        assert found.low < 1 < found.high
        assert found.floor == pytest.approx(2.4865 * 0.03 / math.sqrt(documents * tokens), rel=0.1)

    def test_documents_of_other_lengths(self) -> None:
        differences, tokens = [0.1, -0.1, 0.2, -0.2, 0.0, 0.1, 0.0, -0.1], [10, 20, 30, 40, 50, 60, 70, 80]
        (found,) = noise(
            corpus(BASELINE, [1.0] * 8, tokens), corpus(CANDIDATE, [1 + d for d in differences], tokens), CONFIDENCE
        )
        mean = sum(d * n for d, n in zip(differences, tokens, strict=True)) / sum(tokens)
        variance = sum(n * (d - mean) ** 2 for d, n in zip(differences, tokens, strict=True)) / 7
        assert isinstance(found, TokenNoise)
        assert found.token_sd_nats == pytest.approx(math.sqrt(variance))
        assert math.sqrt(found.low * found.high) == pytest.approx(math.exp(mean))

    def test_the_same_bits_are_no_noise(self) -> None:
        (found,) = noise(corpus(BASELINE, [1.0] * 9, [10] * 9), corpus(CANDIDATE, [1.0] * 9, [10] * 9), CONFIDENCE)
        assert isinstance(found, TokenNoise)
        assert (found.token_sd_nats, found.floor) == (0.0, 0.0)
        assert found.low < 1 < found.high

    def test_the_last_planned_look_counts(self) -> None:
        def looked(role: Role, nats: float) -> Measurement:
            seen = [(f"d{i}/look={t}", f"look={t}", w) for t, w in ((80, 10.0), (160, 20.0)) for i in range(8)]
            return measurement(role, [observation(NLL, i, nats, weight=w, group=g) for i, g, w in seen], 8, metric=NLL)

        (found,) = noise(looked(BASELINE, 1.0), looked(CANDIDATE, 1.1), CONFIDENCE)
        assert isinstance(found, TokenNoise)
        assert (found.documents, found.tokens) == (8, 160)
        assert math.sqrt(found.low * found.high) == pytest.approx(math.exp(0.1))

    def test_a_few_documents_say_nothing(self) -> None:
        with pytest.raises(CouldNotMeasure, match="found 7 documents, expected at least 8"):
            noise(corpus(BASELINE, [1.0] * 7, [10] * 7), corpus(CANDIDATE, [1.0] * 7, [10] * 7), CONFIDENCE)


# -- kept and found again ---------------------------------------------------------------------------------

DOMAIN_STAGE: dict[str, Any] = {
    "kind": "domain",
    "name": "fraud",
    "data": "fraud.jsonl",
    "match": "exact",
    "rules": [{"metric": "accuracy", "max_drop": "3pp"}],
}
PROFILE_STAGE = {"kind": "profile", "name": "serving", "rules": [{"metric": "vram_peak", "max": "1GiB"}]}


def loaded(folder: Path, *stages: dict[str, Any]) -> LoadedPolicy:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "stages": list(stages) or [DOMAIN_STAGE]}))
    return load_policy(path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(effective_digest="e" * 64, backend="fake", device="cpu", environment="f" * 64, base=tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def flip_noise(rate: float, metric: str = "accuracy") -> FlipNoise:
    return FlipNoise(metric=metric, flip_rate=rate, n=100, lost=1, gained=1, floor=0.01)


def calibrated(*noises: FlipNoise | TokenNoise) -> Calibrated:
    return Calibrated(batch_size=4, noises=noises)


class TestKept:
    def test_it_comes_back_as_it_was(self, tmp_path: Path, store: Store, place: Place) -> None:
        tokens = TokenNoise(
            metric="perplexity", token_sd_nats=0.1 + 0.2, documents=9, tokens=90, low=0.9, high=1.1, floor=0.01
        )
        (stage,) = loaded(tmp_path).policy.stages
        keep(store, place, "fraud", stage, calibrated(flip_noise(0.03), tokens))
        assert load(store, place, [stage]) == {("fraud", "fraud"): calibrated(flip_noise(0.03), tokens)}

    def test_the_latest_counts(self, tmp_path: Path, store: Store, place: Place) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        for rate in (0.03, 0.01):
            keep(store, place, "fraud", stage, calibrated(flip_noise(rate)))
        assert load(store, place, [stage])["fraud", "fraud"].noises == (flip_noise(0.01),)

    @pytest.mark.parametrize(
        "other",
        [{"effective_digest": "a" * 64}, {"backend": "hf"}, {"device": "cuda"}, {"environment": "a" * 64}],
    )
    def test_another_model_or_machine_has_its_own(
        self, tmp_path: Path, store: Store, place: Place, other: Mapping[str, Any]
    ) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        keep(store, place, "fraud", stage, calibrated(flip_noise(0.03)))
        assert load(store, replace(place, **other), [stage]) == {}

    def test_so_has_another_way_to_ask_but_not_another_rule_or_name(
        self, tmp_path: Path, store: Store, place: Place
    ) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        keep(store, place, "fraud", stage, calibrated(flip_noise(0.03)))
        stricter = {**DOMAIN_STAGE, "rules": [{"metric": "accuracy", "max_drop": "1pp"}]}
        assert load(store, place, loaded(tmp_path, stricter).policy.stages)
        assert not load(store, place, loaded(tmp_path, {**DOMAIN_STAGE, "match": "contains"}).policy.stages)

    def test_what_changes_no_answer_does_not_count(self, tmp_path: Path, store: Store, place: Place) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        keep(store, place, "fraud", stage, calibrated(flip_noise(0.03)))
        rouge = {"metric": "rouge_l", "min_retained": "90%", "severity": "advisory"}
        asks_more = loaded(tmp_path, {**DOMAIN_STAGE, "rules": [*DOMAIN_STAGE["rules"], rouge]})
        assert load_floors(store, place, asks_more.policy.stages, asks_more.rules) == {("fraud", "fraud"): 0.03}
        judge_of = {"url": "http://localhost:1", "model": "m", "rubric": "r"}
        assert load(store, place, loaded(tmp_path, {**DOMAIN_STAGE, "judge": judge_of}).policy.stages)

    def test_other_data_has_its_own(self, tmp_path: Path, store: Store, place: Place) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        data = tmp_path / "fraud.jsonl"
        data.write_text("first\n")
        keep(store, place, "fraud", stage, calibrated(flip_noise(0.03)))
        assert load(store, place, [stage])
        data.write_text("second\n")
        assert load(store, place, [stage]) == {}

    def test_a_broken_one_is_noted_and_not_used(self, tmp_path: Path, store: Store, place: Place) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        keep(store, place, "fraud", stage, calibrated(flip_noise(0.03)))
        (path,) = (tmp_path / "store" / "calibration").iterdir()
        for broken in (path.read_text().replace("0.03", "0.00"), "{", "[]"):
            path.write_text(broken)
            assert load(store, place, [stage]) == {}
            assert "a stored calibration was not used" in store.problems.pop()

    def test_a_key_needs_all_its_parts(self, store: Store) -> None:
        with pytest.raises(ValueError, match="a calibration's key needs backend"):
            store.get_calibration({"effective_digest": "e", "stage": "domain"})

    def test_it_is_no_measurement(self, tmp_path: Path, store: Store, place: Place) -> None:
        (stage,) = loaded(tmp_path).policy.stages
        keep(store, place, "fraud", stage, calibrated(flip_noise(0.03)))
        assert store.list() == ()


class TestFloors:
    def test_the_largest_of_the_metrics_that_a_rule_compares(self, tmp_path: Path, store: Store, place: Place) -> None:
        rules = [
            {"metric": "accuracy", "max_drop": "3pp"},
            {"metric": "rouge_l", "min_retained": "97%"},
            {"metric": "empty_rate", "max": "0.1"},
        ]
        found = loaded(tmp_path, {**DOMAIN_STAGE, "rules": rules})
        (stage,) = found.policy.stages
        noises = flip_noise(0.01), flip_noise(0.02, "rouge_l"), flip_noise(0.5, "empty_rate")
        keep(store, place, "fraud", stage, calibrated(*noises))
        assert load_floors(store, place, found.policy.stages, found.rules) == {("fraud", "fraud"): 0.02}

    def test_what_was_not_calibrated_has_none(self, tmp_path: Path, store: Store, place: Place) -> None:
        found = loaded(tmp_path, DOMAIN_STAGE, {**DOMAIN_STAGE, "name": "other", "match": "numeric"})
        keep(store, place, "other", found.policy.stages[1], calibrated(flip_noise(0.0)))
        assert load_floors(store, place, found.policy.stages, found.rules) == {("other", "other"): 0.0}

    def test_the_same_task_in_two_stages(self, tmp_path: Path, store: Store, place: Place) -> None:
        tasks = [{"task": "quiz", "fewshot": n, "rules": [{"metric": "acc", "max_drop": "3pp"}]} for n in (0, 5)]
        found = loaded(tmp_path, *({"kind": "lm_eval", "name": f"s{i}", "tasks": [t]} for i, t in enumerate(tasks)))
        for stage, rate in zip(found.policy.stages, (0.01, 0.2), strict=True):
            keep(store, place, "quiz", stage, calibrated(flip_noise(rate, "acc")))
        floors = load_floors(store, place, found.policy.stages, found.rules)
        assert floors == {("s0", "quiz"): 0.01, ("s1", "quiz"): 0.2}

    def test_missing_are_sources_that_a_blocking_rule_compares(
        self, tmp_path: Path, store: Store, place: Place
    ) -> None:
        drop = {"metric": "accuracy", "max_drop": "3pp"}
        of = {
            "plain": drop,
            "advisory": {**drop, "severity": "advisory"},
            "absolute": {"metric": "accuracy", "min": 0.5},
            "whole": {"metric": "macro_f1", "max_drop": "3pp"},
        }
        task = {"task": "quiz", "rules": [{"metric": "acc", "max_drop": "3pp"}]}
        stages = [{**DOMAIN_STAGE, "name": name, "rules": [r]} for name, r in of.items()]
        found = loaded(tmp_path, *stages, {"kind": "lm_eval", "name": "cap", "tasks": [task]}, PROFILE_STAGE)
        assert missing(store, place, found.policy.stages, found.rules) == ("plain", "quiz")
        keep(store, place, "quiz", found.policy.stages[4], calibrated(flip_noise(0.0, "acc")))
        assert missing(store, place, found.policy.stages, found.rules) == ("plain",)


# -- the A/A run ------------------------------------------------------------------------------------------


def scripted(*runs: tuple[Measurement, Measurement] | Exception) -> Any:
    """`Twice` that gives these in turn."""
    left = list(runs)

    def twice(source: str, settings: policy.Stage) -> tuple[Measurement, Measurement]:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return twice


def mixed(both: int, lost: int, gained: int, neither: int) -> tuple[Measurement, Measurement]:
    """Two measurements with these counts, in an order that says nothing."""
    kinds = [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(0.0, 0.0)] * neither
    rows = [kinds[i] for i in np.random.default_rng(1).permutation(len(kinds))]
    return scored(BASELINE, [b for b, _ in rows]), scored(CANDIDATE, [c for _, c in rows])


class TestRun:
    def run(self, store: Store, place: Place, twice: Any, *stages: dict[str, Any]) -> tuple[SourceResult, ...]:
        return calibrate(loaded(place.base, *stages), twice, None, store, place, batch_size=4)

    def test_a_quiet_measurement_is_reliable(self, store: Store, place: Place) -> None:
        results = self.run(store, place, scripted(mixed(both=900, lost=4, gained=5, neither=91)))
        assert failures(results) == ()
        (result,) = results
        assert [str(f.status) for f in result.findings] == ["PASS"]
        found = loaded(place.base)
        assert load_floors(store, place, found.policy.stages, found.rules) == {("fraud", "fraud"): 0.009}

    def test_a_regression_against_itself_is_said_and_its_noise_is_kept(self, store: Store, place: Place) -> None:
        results = self.run(store, place, scripted(mixed(both=700, lost=200, gained=10, neither=90)))
        (said,) = failures(results)
        assert said.startswith("the baseline is a REGRESSION against itself under fraud.accuracy.max_drop: ")
        assert "too noisy" in said
        found = loaded(place.base)
        assert load_floors(store, place, found.policy.stages, found.rules) == {("fraud", "fraud"): 0.21}

    def test_an_advisory_rule_changes_nothing(self, store: Store, place: Place) -> None:
        rules = [{"metric": "accuracy", "max_drop": drop} for drop in ("3pp", "50pp")]
        stage = {**DOMAIN_STAGE, "rules": [{**rules[0], "id": "strict", "severity": "advisory"}, rules[1]]}
        results = self.run(store, place, scripted(mixed(both=700, lost=200, gained=10, neither=90)), stage)
        assert [str(f.status) for f in results[0].findings] == ["REGRESSION", "PASS"]
        assert failures(results) == ()

    def test_lost_items_are_no_calibration(self, store: Store, place: Place) -> None:
        runs = (
            scored(BASELINE, [1.0] * 99, n_expected=100, failures=[failure("a lost one")]),
            scored(CANDIDATE, [1.0] * 99, n_expected=100, failures=[failure("a lost one")]),
        )
        (said,) = failures(self.run(store, place, scripted(runs)))
        assert said.startswith("fraud.accuracy.max_drop could not be judged on the baseline itself: ")

    @pytest.mark.parametrize(
        "problem",
        [
            CouldNotMeasure("no luck"),
            BudgetExceeded("no luck"),
            WorkerError("no luck", kind="crashed", stderr_tail="last words"),
        ],
    )
    def test_a_source_that_cannot_be_measured_does_not_end_the_others(
        self, store: Store, place: Place, problem: Exception
    ) -> None:
        other = {**DOMAIN_STAGE, "name": "other", "match": "numeric"}
        first, second = mixed(both=9, lost=0, gained=0, neither=1)
        again = replace(first, stage="other", source="other"), replace(second, stage="other", source="other")
        results = self.run(store, place, scripted(problem, again), DOMAIN_STAGE, other)
        assert [r.source for r in results] == ["fraud", "other"]
        (said,) = failures(results)
        assert said.startswith("fraud could not be measured twice: no luck")
        assert results[1].noises

    def test_timing_may_be_left_out(self, store: Store, place: Place) -> None:
        with pytest.raises(UsageError, match="found only profile stages"):
            self.run(store, place, scripted(), PROFILE_STAGE)
        results = self.run(
            store, place, scripted(mixed(both=9, lost=0, gained=0, neither=1)), PROFILE_STAGE, DOMAIN_STAGE
        )
        assert [r.source for r in results] == ["fraud"]

    def test_what_is_shown(self, store: Store, place: Place) -> None:
        results = self.run(
            store,
            place,
            scripted(mixed(both=900, lost=4, gained=5, neither=91), CouldNotMeasure("no luck")),
            DOMAIN_STAGE,
            {**DOMAIN_STAGE, "name": "other"},
        )
        cells = [list(column.cells) for column in table(results).columns]
        assert [row[0] for row in cells] == [
            "fraud",
            "accuracy",
            "1000",
            "0.90% of answers change",
            "0.75pp",
            "max_drop 3pp: PASS",
        ]
        assert cells[5][1] == "not measured: no luck"


def test_noise_below_its_floor_is_no_regression() -> None:
    """A12: with a bound at the floor of the noise, A/A runs fail at most as often as a lossless candidate may."""
    generator, n, rate, runs = np.random.default_rng(12), 320, 0.02, 500
    bound = 2.4865 * math.sqrt(rate / n)
    judged = replace(
        rule("max_drop 2pp", scope=Scope.BENCHMARK),
        bound=Bound(kind=BoundKind.MAX_DROP, value=bound, text="at the floor"),
    )
    terms = gate_wide(CONFIDENCE, 1, None)
    failed = 0
    for _ in range(runs):
        first = generator.random(n) < 0.5
        second = first ^ (generator.random(n) < rate)
        again = scored(BASELINE, first.astype(float).tolist()), scored(CANDIDATE, second.astype(float).tolist())
        failed += judge(judged, *again, terms).status is Status.REGRESSION
    assert failed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(
    ("bound", "metric", "expected"),
    [
        ("max_drop 3pp", "accuracy", True),
        ("min 0.9", "accuracy", False),
        ("max_increase 5%", "perplexity", True),
        ("max 12", "perplexity", False),
        ("max 0.05", "kl_mean_nats", True),
        ("min 0.9", "top1_agreement", True),
    ],
)
def test_only_rules_that_compare_are_judged(bound: str, metric: str, expected: bool) -> None:
    assert compares(rule(bound, metric)) is expected
