"""What counts as the memory of a model that is served: its loading and its serving, not what scoring held."""

from __future__ import annotations

import sys

import pytest
import torch

from gate.backends.hf_memory import PeakMemory

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")
def test_what_scoring_held_is_not_the_models() -> None:
    memory = PeakMemory(torch.device("cpu"))
    loaded = memory.read()["rss_peak_bytes"]
    held = torch.ones(75 * MIB)  # 300 MiB in float32
    scoring = memory.read()["rss_peak_bytes"]
    del held
    memory.serve()
    assert memory.read()["rss_peak_bytes"] < max(loaded, scoring - 200 * MIB) + 50 * MIB
    held = torch.ones(75 * MIB)
    memory.serve()  # only the first call starts afresh
    assert memory.read()["rss_peak_bytes"] >= loaded
    assert memory.read()["rss_peak_bytes"] >= held.nbytes


def test_the_peak_of_loading_stays() -> None:
    memory = PeakMemory(torch.device("cpu"))
    loaded = memory.read()["rss_peak_bytes"]
    memory.serve()
    assert memory.read()["rss_peak_bytes"] >= loaded
