"""One profile stage alone, through `gate run` in a process of its own: the record and the measurements it leaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

from gate import artifact
from gate.errors import ExitCode
from gate.records import Measurement, RunRecord

_MEASURED = (ExitCode.PASS, ExitCode.REGRESSION, ExitCode.INCONCLUSIVE, ExitCode.ERROR)


class NotMeasured(Exception):
    """The gate said no; `exit_code` is its own, the text all that it printed."""

    def __init__(self, exit_code: int, said: str) -> None:
        self.exit_code = exit_code
        super().__init__(f"gate run ended with exit code {exit_code}:\n{said}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """`seconds` are those of the whole command."""

    record: RunRecord
    measurements: Sequence[Measurement]
    seconds: float

    def pairs(self, series: str) -> int:
        """Pairs of blocks of the first measurement (`block`) or of the one that confirms it (`again`)."""
        numbers = {o.item_id.split("/")[1] for m in self.measurements for o in m.observations if _is_of(series, o)}
        return len(numbers)


def _is_of(series: str, observation: Any) -> bool:
    return bool(observation.item_id.startswith(f"{series}/"))


def stage_of(policy: Path) -> Mapping[str, Any]:
    """The profile stage of a policy, as it is written there.  Raises ValueError where there is none, or several."""
    stages = yaml.safe_load(policy.read_text(encoding="utf-8"))["stages"]
    (found,) = (stage for stage in stages if stage["kind"] == "profile")
    return dict(found)


def run(
    stage: Mapping[str, Any],
    *,
    baseline: Path,
    candidate: Path,
    out: Path,
    device: str,
    backend: str = "hf",
    python: str | None = None,
) -> Ran:
    """Run the gate with a policy of this stage alone; its rules block, since a policy of advice alone is refused.

    Raises:
        NotMeasured: nothing could be measured.
    """
    out.mkdir(parents=True, exist_ok=True)
    policy = out.parent / f"{out.name}.yaml"
    rules = [{key: value for key, value in rule.items() if key != "severity"} for rule in stage["rules"]]
    policy.write_text(yaml.safe_dump({"version": 1, "stages": [{**stage, "rules": rules}]}), encoding="utf-8")
    options = {
        "--policy": policy,
        "--baseline": baseline,
        "--candidate": candidate,
        "--out": out,
        "--store": out.parent / "store",
        "--device": device,
        "--backend": backend,
        **({} if python is None else {"--python": python}),
    }
    arguments = [f"{option}={value}" for option, value in options.items()]
    begun = perf_counter()
    command = [sys.executable, "-m", "gate", "run", "--offline", "--allow-identical", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = perf_counter() - begun
    observations = out / "observations" / f"{stage['name']}.parquet"
    if ended.returncode not in _MEASURED or not observations.exists():  # one rule that is an error leaves the others
        raise NotMeasured(ended.returncode, f"{ended.stdout}{ended.stderr}")
    return Ran(
        record=artifact.loads_record((out / "run.json").read_bytes()),
        measurements=artifact.read_observations(observations),
        seconds=seconds,
    )
