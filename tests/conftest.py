"""Settings of the whole test suite."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The same examples on every run, and no clock: a red build must mean a defect, also on a busy machine.
settings.register_profile("steady", derandomize=True, deadline=None)
# New examples on every run: `HYPOTHESIS_PROFILE=search make test` hunts.
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the caches of the person who runs it; tiny models run on one thread."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("QUANTGATE_THREADS", "1")
