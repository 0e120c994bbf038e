"""How long the profile stage takes on two CPU cores, with the demo's checkpoints: at most three minutes.

    python benchmarks/profile_minutes.py [--write docs/benchmarks.md] [CANDIDATE …]

Runs the demo policy's stage, and the default one (128+32 tokens, 8 pairs of blocks), against each bundled candidate
that the gate does not refuse, and exits with 1 where one takes longer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import marked
from benchmarks.profile_run import NotMeasured, Ran, run, stage_of
from benchmarks.timing_pairs import limit_to
from gate.demo.bundle import candidates, policy_path, world
from gate.errors import ExitCode

LIMIT_SECONDS = 180.0
HEADER = (
    "| settings | candidate | pairs of blocks | of which again: disturbed | to confirm | stage, seconds "
    "| whole run, seconds |\n|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """`pairs` of the first measurement, `repeated` of them measured again, and those that confirmed a red rule."""

    settings: str
    candidate: str
    pairs: int
    repeated: int
    confirming: int
    stage_seconds: float
    run_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CANDIDATE", help=f"of {', '.join(candidates())}; default: all")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--write", type=Path, help="document whose `profile_minutes` block is rewritten")
    chosen = parser.parse_args()
    cpus = limit_to(chosen.cpus)
    os.environ["QUANTGATE_THREADS"] = "1"  # as `gate demo` has it
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for settings, stage in stages().items():
            for name in chosen.names or candidates():
                print(f"{settings}: {name}", file=sys.stderr, flush=True)
                try:
                    ran = run(
                        stage,
                        baseline=world() / "baseline",
                        candidate=world() / "candidates" / name,
                        out=Path(folder) / f"{settings}-{name}",
                        device="cpu",
                    )
                except NotMeasured as problem:
                    if problem.exit_code != ExitCode.REFUSED:
                        raise
                    print("refused", file=sys.stderr)
                else:
                    rows.append(row(settings, name, ran))
    text = report(rows, cpus)
    print(text)
    if chosen.write is not None:
        marked.rewrite(chosen.write, "profile_minutes", text)
    sys.exit(any(r.stage_seconds > LIMIT_SECONDS for r in rows))


def stages() -> Mapping[str, Mapping[str, Any]]:
    """Name → the stage; of the default policy without the rule on a GPU's memory."""
    default = stage_of(policy_path().parent / "default.yaml")
    rules = [rule for rule in default["rules"] if not rule["metric"].startswith("vram")]
    return {"demo policy": stage_of(policy_path()), "default policy": {**default, "rules": rules}}


def row(settings: str, candidate: str, ran: Ran) -> Row:
    repeated = {
        (o.item_id, o.value) for m in ran.measurements for o in m.observations if o.metric == "repeated"
    }  # both roles say so
    return Row(
        settings=settings,
        candidate=candidate,
        pairs=ran.pairs("block"),
        repeated=int(sum(times for _, times in repeated)),
        confirming=ran.pairs("again"),
        stage_seconds=sum(stage.seconds for stage in ran.record.stages),
        run_seconds=ran.seconds,
    )


def report(rows: Sequence[Row], cpus: int) -> str:
    lines = [
        f"| {r.settings} | {r.candidate} | {r.pairs} | {r.repeated} | {r.confirming} | {r.stage_seconds:.0f} "
        f"| {r.run_seconds:.0f} |"
        for r in rows
    ]
    longest = max(r.stage_seconds for r in rows)
    kept = "kept" if longest <= LIMIT_SECONDS else "broken"
    said = f"CPU figures, {cpus} cores. The longest stage took {longest:.0f} s; the limit of {LIMIT_SECONDS:.0f} s"
    return "\n".join([f"{said} is {kept}.", "", HEADER, *lines])


if __name__ == "__main__":
    main()
