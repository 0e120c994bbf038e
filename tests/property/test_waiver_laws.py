"""Whatever stages found and whatever is waived: a waiver lets through its own red rule and nothing else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gate.decide import combine, waiver
from gate.decide.combine import REACHED, stage_status
from gate.decide.waiver import Ruling
from gate.records import Finding, Rule, Severity, StageResult, Status, Waiver
from tests.decide_factory import finding, rule, stage

FOUND = (Status.PASS, Status.REGRESSION, Status.INCONCLUSIVE, Status.ERROR, Status.REFUSED, Status.SKIPPED)


@st.composite
def stages_of(draw: st.DrawFn) -> tuple[tuple[Rule, ...], tuple[StageResult, ...]]:
    """One to four stages of up to three rules each, some advisory, some guard rails; stages skipped or missing."""
    planned: list[Rule] = []
    stages: list[StageResult] = []
    for s in range(draw(st.integers(1, 4))):
        rules = [
            rule(
                "max_drop 3pp",
                id=f"{s}.{r}",
                stage=f"stage {s}",
                severity=draw(st.sampled_from([Severity.BLOCKING, Severity.BLOCKING, Severity.ADVISORY])),
                by=draw(st.sampled_from([None, None, "category"])),
            )
            for r in range(draw(st.integers(1, 3)))
        ]
        planned += rules
        match draw(st.sampled_from(["found", "found", "found", "found", "skipped", "missing"])):
            case "found":
                found = [_found(draw, one) for one in rules if draw(st.integers(0, 9))]
                stages.append(stage(f"stage {s}", stage_status(found), found))
            case "skipped":
                stages.append(stage(f"stage {s}", Status.SKIPPED, because="an earlier stage stopped the run"))
    return tuple(planned), tuple(stages)


def _found(draw: st.DrawFn, of: Rule) -> Finding:
    weights = (Status.PASS,) * 6 + (Status.REGRESSION,) * 6
    made = finding(of, draw(st.sampled_from((*weights, *FOUND))))
    return replace(made, counts={REACHED: 4}) if draw(st.integers(0, 9)) == 0 else made


WORLDS = stages_of()
WHICH = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2)).map(lambda at: f"{at[0]}.{at[1]}"))
ON_INCONCLUSIVE = st.sampled_from(["fail", "warn"])


def ruled(
    world: tuple[tuple[Rule, ...], tuple[StageResult, ...]], rules: set[str], restricted: bool, on_inconclusive: str
) -> Ruling:
    in_force = [
        Waiver(rule=r, checkpoint="a" * 64, owner="ada", reason="known", expires="2026-12-31") for r in sorted(rules)
    ]
    return waiver.ruling(*world, in_force, restricted=restricted, on_inconclusive=on_inconclusive)


def accepted(one: Finding, rules: set[str], on_inconclusive: str) -> bool:
    """May this blocking finding be in a run that exits 0?  Written down again, without the gate's own words."""
    if one.status is Status.PASS:
        return True
    if one.status is Status.REGRESSION:
        return one.rule.id in rules
    without_evidence = one.rule.by is not None and REACHED not in one.counts
    return one.status is Status.INCONCLUSIVE and (
        without_evidence or (on_inconclusive == "warn" and REACHED not in one.counts)
    )


@settings(max_examples=300, deadline=None)
@given(world=WORLDS, rules=WHICH, restricted=st.booleans(), on_inconclusive=ON_INCONCLUSIVE)
def test_green_is_what_passes_or_is_waived_and_nothing_else(
    world: tuple[tuple[Rule, ...], tuple[StageResult, ...]], rules: set[str], restricted: bool, on_inconclusive: str
) -> None:
    planned, stages = world
    found = ruled(world, rules, restricted, on_inconclusive)
    if found.exit_code != 0:
        return
    assert not restricted
    blocking = {r.id for r in planned if r.severity is Severity.BLOCKING}
    seen = [f for s in stages for f in s.findings if f.rule.severity is Severity.BLOCKING]
    assert {f.rule.id for f in seen} == blocking
    assert blocking
    assert all(accepted(f, rules, on_inconclusive) for f in seen)
    red = {f.rule.id for f in seen if f.status is Status.REGRESSION}
    assert {w.rule for w in found.applied} == red  # every red rule has its waiver on record
    assert (found.decision.status is Status.REGRESSION) == bool(red)


@settings(max_examples=300, deadline=None)
@given(world=WORLDS, rules=WHICH, restricted=st.booleans(), on_inconclusive=ON_INCONCLUSIVE)
def test_a_waiver_turns_no_red_run_into_another_colour(
    world: tuple[tuple[Rule, ...], tuple[StageResult, ...]], rules: set[str], restricted: bool, on_inconclusive: str
) -> None:
    plain = ruled(world, set(), restricted, on_inconclusive)
    found = ruled(world, rules, restricted, on_inconclusive)
    assert plain.applied == ()
    assert plain.decision == combine.combine(*world, restricted)
    if not found.applied:
        assert found == plain
    if plain.exit_code == 0:
        assert found == plain
    if found.exit_code == 0 and plain.exit_code != 0:
        assert plain.decision.status is found.decision.status is Status.REGRESSION
    # the record's status is the plain one, but where a waived rule would have outranked an error
    outranked = (Status.REGRESSION, Status.ERROR)
    assert found.decision.status is plain.decision.status or (plain.decision.status, found.decision.status) == outranked


@settings(max_examples=200, deadline=None)
@given(world=WORLDS, rules=WHICH, more=WHICH, restricted=st.booleans(), on_inconclusive=ON_INCONCLUSIVE)
def test_more_waivers_never_make_a_green_run_red(
    world: tuple[tuple[Rule, ...], tuple[StageResult, ...]],
    rules: set[str],
    more: set[str],
    restricted: bool,
    on_inconclusive: str,
) -> None:
    if ruled(world, rules, restricted, on_inconclusive).exit_code == 0:
        assert ruled(world, rules | more, restricted, on_inconclusive).exit_code == 0


@settings(max_examples=200, deadline=None)
@given(world=WORLDS, rules=WHICH)
def test_a_stage_that_stops_the_run_for_something_else_still_does(
    world: tuple[tuple[Rule, ...], tuple[StageResult, ...]], rules: set[str]
) -> None:
    for one in world[1]:
        others = {Status.REGRESSION, Status.ERROR, Status.REFUSED}
        blocking = [f for f in one.findings if f.rule.severity is Severity.BLOCKING]
        stops = any(f.status in others and not (f.status is Status.REGRESSION and f.rule.id in rules) for f in blocking)
        if blocking:
            assert waiver.stops(one, rules) == stops
        else:
            assert waiver.stops(one, rules) == combine.stops(one)
