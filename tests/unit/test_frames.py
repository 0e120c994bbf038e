"""Frames and what travels in them, without a process."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate import frames, wire
from gate.errors import BudgetExceeded, CouldNotMeasure, DataError, PolicyError, WorkerError
from gate.frames import FrameError, Sender, Unpacker, pack
from gate.metrics import DOMAIN
from gate.records import Answer, ItemFailure, Measurement, Observation, Role, merge

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=8) | st.just("\ud800")


@given(st.lists(st.dictionaries(TEXT, FINITE | TEXT | st.none(), max_size=3), max_size=4), st.integers(1, 9))
def test_frames_survive_any_cut(bodies: list[dict[str, object]], step: int) -> None:
    sent = [{"op": "x", "body": body} for body in bodies]
    data = b"".join(pack(f) for f in sent)
    unpacker = Unpacker()
    assert [f for i in range(0, len(data), step) for f in unpacker.feed(data[i : i + step])] == sent


def test_a_frame_that_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    assert len(pack({"op": "part", "x": "y" * 60})) < 104
    with pytest.raises(FrameError, match=r"a 'part' frame of \d+ bytes, expected at most 100"):
        pack({"op": "part", "x": "y" * 100})


def test_nan_is_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"op": "part", "x": math.nan})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff\xff", "announces 4,294,967,295 bytes"),
        (b"\x00\x00\x00\x03{a}", "is not JSON"),
        (b"\x00\x00\x00\x02{}", "has no `op`"),
        (b'\x00\x00\x00\x08{"op":1}', "has no `op`"),
    ],
)
def test_rubbish_is_recognised(data: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        list(Unpacker().feed(data))


def test_a_sender_writes_whole_frames_through_a_full_pipe() -> None:
    read_fd, write_fd = os.pipe()
    frame = {"op": "part", "text": "x" * 200_000}  # more than a pipe holds
    sender = Sender(write_fd)
    threads = [threading.Thread(target=sender.send, args=(frame,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    unpacker = Unpacker()
    found: list[frames.Frame] = []
    while len(found) < 3:
        found += unpacker.feed(os.read(read_fd, 65536))
    for thread in threads:
        thread.join()
    os.close(read_fd)
    assert found == [frame] * 3
    with pytest.raises(BrokenPipeError):
        sender.send(frame)
    os.close(write_fd)


MEASUREMENT = Measurement(
    stage="fraud",
    source="fraud",
    role=Role.BASELINE,
    settings_digest="abc",
    n_expected=7,
    n_available=9,
    n_reached=7,
    planned_tokens=70,
    chance=0.5,
    metrics=tuple(DOMAIN.values()),
    observations=(),
    failures=(),
    answers=(),
    seconds=1.5,
    notes=("one", "two"),
)


@given(
    st.lists(
        st.builds(
            Observation,
            metric=st.sampled_from(["correct", "rouge_l"]),
            item_id=TEXT,
            value=FINITE,
            weight=st.floats(min_value=5e-324, max_value=1e300),
            cluster=TEXT | st.none(),
            group=TEXT | st.none(),
        ),
        max_size=20,
    ),
    st.lists(st.builds(ItemFailure, item_id=TEXT, kind=TEXT, message=TEXT), max_size=4),
    st.lists(st.builds(Answer, item_id=TEXT, group=st.none(), prompt=TEXT, output=TEXT, target=TEXT), max_size=4),
)
def test_measurements_travel_unchanged(
    observations: list[Observation], failures: list[ItemFailure], answers: list[Answer]
) -> None:
    sent = replace(MEASUREMENT, observations=tuple(observations), failures=tuple(failures), answers=tuple(answers))
    unpacker = Unpacker()
    slices = [f for data in wire.encoded(sent) for f in unpacker.feed(pack({"op": "part", "measurement": data}))]
    received = merge([wire.decoded(f["measurement"]) for f in slices])
    assert received == sent
    assert [math.copysign(1, o.value) for o in received.observations] == [
        math.copysign(1, o.value) for o in observations
    ]


def test_large_measurements_are_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "OBSERVATIONS_PER_SLICE", 4)
    monkeypatch.setattr(wire, "TEXTS_PER_SLICE", 2)
    observations = tuple(
        Observation(metric="correct", item_id=str(i), value=1.0, weight=1.0, cluster=None, group=None) for i in range(9)
    )
    failures = tuple(ItemFailure(item_id=str(i), kind="k", message="m") for i in range(7))
    sent = replace(MEASUREMENT, observations=observations, failures=failures)
    slices = list(wire.encoded(sent))
    assert len(slices) == 4
    assert [s["seconds"] for s in slices] == [1.5, 0.0, 0.0, 0.0]
    assert merge([wire.decoded(s) for s in slices]) == sent


def test_errors_cross_by_their_closest_class() -> None:
    assert wire.crossing_name(DataError("x")) == "DataError"
    assert wire.crossing_name(BudgetExceeded("x")) == "BudgetExceeded"
    assert wire.crossing_name(PolicyError("p.yaml", ("wrong",))) == "UsageError"
    assert wire.crossing_name(WorkerError("x", kind="failed", stderr_tail="")) == "CouldNotMeasure"
    assert wire.crossing_name(ValueError("x")) is None
    impostor = type("DataError", (Exception,), {})
    assert wire.crossing_name(impostor("x")) is None
    assert all(issubclass(c, Exception) and str(c("said")) == "said" for c in wire.CROSSING.values())
    assert wire.CROSSING["CouldNotMeasure"] is CouldNotMeasure
