"""Law: what is read back from run.json and from Parquet is what was written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gate.artifact import dumps_record, loads_record, read_observations, write_observations
from gate.records import (
    Answer,
    Direction,
    Estimand,
    Finding,
    Flip,
    Interval,
    ItemFailure,
    Measurement,
    Metric,
    Move,
    Observation,
    PolicyChange,
    Role,
    RuleChange,
    RunRecord,
    StageResult,
    Status,
    Verdict,
    Waiver,
)
from tests import records_factory

TEXT = st.text(max_size=8)
FEW = st.sampled_from(["a", "b", "ä\x00"])
MAYBE = st.none() | FEW
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**40)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    observation = st.builds(
        Observation,
        metric=FEW,
        item_id=FEW,
        value=FINITE,
        weight=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        cluster=MAYBE,
        group=MAYBE,
    )
    return Measurement(
        stage=draw(TEXT),
        source=draw(TEXT),
        role=draw(st.sampled_from(Role)),
        settings_digest=draw(TEXT),
        n_expected=draw(COUNTS),
        n_available=draw(COUNTS),
        n_reached=draw(COUNTS),
        planned_tokens=draw(COUNTS),
        chance=draw(st.none() | FINITE),
        metrics=tuple(
            draw(
                st.lists(
                    st.builds(
                        Metric,
                        name=TEXT,
                        observed=TEXT,
                        unit=TEXT,
                        direction=st.sampled_from(Direction),
                        estimand=st.sampled_from(Estimand),
                    ),
                    max_size=2,
                )
            )
        ),
        observations=tuple(draw(st.lists(observation, max_size=8))),
        failures=tuple(draw(st.lists(st.builds(ItemFailure, item_id=FEW, kind=FEW, message=TEXT), max_size=3))),
        answers=tuple(
            draw(
                st.lists(st.builds(Answer, item_id=FEW, group=MAYBE, prompt=TEXT, output=TEXT, target=TEXT), max_size=4)
            )
        ),
        seconds=draw(FINITE),
        notes=tuple(draw(st.lists(TEXT, max_size=2))),
    )


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    low, high = sorted((draw(FINITE), draw(FINITE)))
    original = records_factory.finding(records_factory.rule(), Status.INCONCLUSIVE)
    assert original.interval is not None
    return Finding(
        rule=original.rule,
        status=draw(st.sampled_from(Status)),
        baseline=draw(st.none() | FINITE),
        candidate=draw(FINITE),
        estimate=draw(FINITE),
        interval=Interval(
            low=low,
            high=high,
            confidence=draw(st.floats(0.5, 1, exclude_min=True, exclude_max=True)),
            fail_confidence=draw(st.floats(0.5, 1, exclude_min=True, exclude_max=True)),
            method=draw(TEXT),
            scope=original.interval.scope,
            valid=draw(st.sampled_from(["fixed_n", "planned_looks", "anytime"])),
        ),
        p_value=draw(st.none() | FINITE),
        counts=draw(st.dictionaries(TEXT, FINITE, max_size=3)),
        n_paired=draw(st.integers(1, 2**40)),
        n_lost=draw(COUNTS),
        n_needed=draw(st.none() | COUNTS),
        detectable=draw(st.none() | FINITE),
        members=(),
        reason=draw(st.text(min_size=1, max_size=8)),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=6,
)


NAMES = TEXT.filter(str.strip)
WAIVERS = st.builds(
    Waiver, rule=NAMES, checkpoint=NAMES, owner=NAMES, reason=NAMES, expires=st.dates().map(lambda day: day.isoformat())
)
CHANGES = st.builds(
    PolicyChange,
    base_commit=TEXT,
    paths=st.lists(TEXT, max_size=2).map(tuple),
    rules=st.lists(
        st.builds(RuleChange, rule=TEXT, kind=TEXT, was=st.none() | TEXT, now=st.none() | TEXT), max_size=2
    ).map(tuple),
    moves=st.lists(
        st.builds(Move, run_id=TEXT, candidate=TEXT, was=st.sampled_from(Status), now=st.sampled_from(Status)),
        max_size=2,
    ).map(tuple),
    replayed=COUNTS,
    notes=st.lists(TEXT, max_size=2).map(tuple),
)


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    base = records_factory.regression()
    stage = StageResult(
        kind="domain",
        name=draw(TEXT),
        status=Status.ERROR,
        findings=tuple(draw(st.lists(findings(), max_size=2))),
        seconds=draw(FINITE),
        items_scored=draw(COUNTS),
        items_available=draw(COUNTS),
        baseline_from="store",
        skipped_because=None,
        notes=tuple(draw(st.lists(TEXT, max_size=2))),
    )
    return RunRecord(
        artifact_version=base.artifact_version,
        run_id=draw(TEXT),
        created_at=base.created_at,
        gate_version=base.gate_version,
        policy_source=draw(TEXT),
        policy_digest=base.policy_digest,
        policy=draw(st.dictionaries(TEXT, JSON, max_size=3)),
        baseline=draw(st.sampled_from([base.baseline, None])),
        candidate=base.candidate,
        environment=base.environment,
        stages=(stage,),
        quality=None,
        performance=(),
        output_lengths=(),
        flips=tuple(
            draw(
                st.lists(
                    st.builds(
                        Flip,
                        stage=TEXT,
                        source=TEXT,
                        metric=TEXT,
                        item_id=TEXT,
                        kind=st.sampled_from(["lost", "gained"]),
                        group=MAYBE,
                        prompt=TEXT,
                        target=TEXT,
                        baseline_output=TEXT,
                        candidate_output=TEXT,
                    ),
                    max_size=2,
                )
            )
        ),
        verdict=Verdict(status=draw(st.sampled_from(Status)), deciding=(), sentence=draw(TEXT)),
        waivers=tuple(draw(st.lists(WAIVERS, max_size=2))),
        policy_change=draw(st.none() | CHANGES),
        exit_code=draw(st.integers(0, 130)),
        seconds=draw(FINITE),
        notes=(),
    )


@given(st.lists(measurements(), max_size=3))
@settings(max_examples=100, deadline=None)
def test_parquet_loses_nothing(written: list[Measurement]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observations.parquet"
        write_observations(path, written)
        read = read_observations(path)
    assert read == written
    # equality takes -0.0 for 0.0
    assert [o.value.hex() for m in read for o in m.observations] == [
        o.value.hex() for m in written for o in m.observations
    ]


@given(records())
@settings(max_examples=100, deadline=None)
def test_run_json_loses_nothing(written: RunRecord) -> None:
    read = loads_record(dumps_record(written))
    assert read == written
    assert [s.seconds.hex() for s in read.stages] == [s.seconds.hex() for s in written.stages]
    assert dumps_record(loads_record(dumps_record(read))) == dumps_record(read)
