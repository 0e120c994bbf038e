"""Items scored by the sequential gate and by the full run, on every demo candidate and over many seeds.

`python benchmarks/demo_items.py [--seeds 20]` runs each candidate once in full (`stop_early: false`, every stage), then
replays the seeded orders from the observations: what a run with that seed would have asked, and what it would have
said.  Prints the table that README shows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

from gate import artifact
from gate.decide import source
from gate.decide.terms import Terms, gate_wide
from gate.demo.bundle import candidates, policy_path, world
from gate.order import order_seed, sample_seed
from gate.policy_file import LoadedPolicy, load_policy
from gate.records import Finding, Measurement, Role, Severity, Status

KINDS = ("lm_eval", "domain")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    baseline: Measurement
    candidate: Measurement


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One candidate: verdict and items of the full run, and those of every seed."""

    name: str
    full: Status
    items_full: int
    verdicts: tuple[Status, ...]
    items: tuple[int, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many seeded orders to replay")
    seeds = parser.parse_args().seeds
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        policy = _in_full(Path(folder))
        loaded = load_policy(policy)
        for name in candidates():
            print(f"running {name} in full", file=sys.stderr)
            out = Path(folder) / name
            ended = _run(policy, name, out, Path(folder) / "store")
            if ended == 5:
                continue  # refused before anything was measured
            rows.append(_replayed(name, loaded, out, seeds))
    print(table(rows, seeds))
    return 0 if all(v is row.full for row in rows for v in row.verdicts) else 1


def _in_full(folder: Path) -> Path:
    """The demo policy without early stops, with paths that do not depend on where it lies, and without timing."""
    document = yaml.safe_load(policy_path().read_text(encoding="utf-8"))
    document["stop_early"] = False
    document["stages"] = [s for s in document["stages"] if s["kind"] != "profile"]
    for stage in document["stages"]:
        for place, key in [(stage, "data"), (stage, "include_path"), *((c, "path") for c in stage.get("corpora", ()))]:
            if key in place:
                place[key] = str((policy_path().parent / place[key]).resolve())
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _run(policy: Path, name: str, out: Path, store: Path) -> int:
    options = {
        "--policy": policy,
        "--baseline": world() / "baseline",
        "--candidate": world() / "candidates" / name,
        "--out": out,
        "--store": store,
        "--device": "cpu",
    }
    arguments = [f"{option}={value}" for option, value in options.items()]
    command = [sys.executable, "-m", "gate", "run", "--keep-going", "--offline", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode not in (0, 1, 3, 5):
        raise SystemExit(f"{name} could not be measured (exit code {ended.returncode}):\n{ended.stdout}{ended.stderr}")
    return ended.returncode


def _replayed(name: str, loaded: LoadedPolicy, out: Path, seeds: int) -> Row:
    record = artifact.loads_record((out / "run.json").read_bytes())
    assert record.baseline is not None
    assert record.candidate is not None
    pairs = {s.name: _pairs(out, s.name) for s in loaded.policy.stages}
    blocking = sum(r.severity is Severity.BLOCKING for r in loaded.rules)
    full, items_full = _verdict(loaded, pairs, gate_wide(loaded.policy.confidence, blocking, None))
    ended = [
        _verdict(
            loaded,
            pairs,
            gate_wide(
                loaded.policy.confidence,
                blocking,
                order_seed(sample_seed(seed, record.baseline.effective_digest), record.candidate.effective_digest),
            ),
        )
        for seed in range(seeds)
    ]
    return Row(
        name=name,
        full=full,
        items_full=items_full,
        verdicts=tuple(status for status, _ in ended),
        items=tuple(items for _, items in ended),
    )


def _pairs(out: Path, stage: str) -> dict[str, Pair]:
    found = artifact.read_observations(out / "observations" / f"{stage}.parquet")
    of = {(m.source, m.role): m for m in found}
    names = dict.fromkeys(m.source for m in found)
    return {n: Pair(baseline=of[n, Role.BASELINE], candidate=of[n, Role.CANDIDATE]) for n in names}


def _verdict(loaded: LoadedPolicy, pairs: dict[str, dict[str, Pair]], terms: Terms) -> tuple[Status, int]:
    """The status that the blocking rules lead to, stage by stage, and the items scored until then."""
    items = 0
    for stage in loaded.policy.stages:
        red = False
        for name, pair in pairs[stage.name].items():
            mine = [r for r in loaded.rules if (r.stage, r.source) == (stage.name, name)]
            found = source.findings(mine, pair.baseline, pair.candidate, terms, stop_early=True)
            if stage.kind in KINDS:
                items += _asked(found, terms, pair)
            statuses = {f.status for f in found if f.rule.severity is Severity.BLOCKING}
            red = red or Status.REGRESSION in statuses
            if statuses - {Status.PASS, Status.REGRESSION}:
                return Status.INCONCLUSIVE, items
        if red and terms.order_seed is not None:
            return Status.REGRESSION, items
    failed = False
    for stage in loaded.policy.stages:
        for name, pair in pairs[stage.name].items():
            mine = [r for r in loaded.rules if (r.stage, r.source) == (stage.name, name)]
            found = source.findings(mine, pair.baseline, pair.candidate, terms, stop_early=True)
            failed = failed or any(
                f.status is Status.REGRESSION and f.rule.severity is Severity.BLOCKING for f in found
            )
    return (Status.REGRESSION if failed else Status.PASS), items


def _asked(found: Sequence[Finding], terms: Terms, pair: Pair) -> int:
    if terms.order_seed is None:
        return pair.candidate.n_expected
    governing = {r.id for r in source.governing([f.rule for f in found])}
    return max(int(f.counts["n"]) for f in found if f.rule.id in governing)


def table(rows: Sequence[Row], seeds: int) -> str:
    lines = [
        f"| candidate | verdict of the full run | items, full | items, sequential: mean of {seeds} seeds (range) "
        "| saved | same verdict |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        mean = fmean(row.items)
        same = sum(v is row.full for v in row.verdicts)
        lines.append(
            f"| {row.name} | {row.full} | {row.items_full} | {mean:.0f} ({min(row.items)}–{max(row.items)}) "
            f"| {1 - mean / row.items_full:.0%} | {same} of {seeds} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
