"""False alarms and detections of timing rules on real pairs of blocks; another process keeps one of two cores busy.

    python -m benchmarks.timing_aa measure [--quick]
    python -m benchmarks.timing_aa analyse [--write docs/benchmarks.md]

`measure` times two copies of the demo's baseline side by side as a run of the gate does, then the same with a sleep of
5 % and of 10 % in the candidate's forward pass, and keeps every pair.  `analyse` resamples runs of consecutive pairs
and lets the gate's own rules, and simpler ones, judge each.  No second measurement is made for it: the run that
confirms another one is taken from other processes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import marked, timing_pairs, timing_report

PAIRS = Path("benchmark-out/timing_aa.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs-file", type=Path, default=PAIRS, help="JSON Lines of all pairs that were measured")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="time the pairs")
    measure.add_argument("--sessions", type=int, default=6, help="pairs of worker processes of each kind")
    measure.add_argument("--pairs", type=int, default=16, help="pairs of blocks that such a pair of processes times")
    measure.add_argument("--cpus", type=int, default=2, help="cores for everything together")
    measure.add_argument("--quiet-machine", action="store_true", help="no other process on one of them")
    measure.add_argument("--quick", action="store_true", help="for whether it runs")
    analyse = commands.add_parser("analyse", help="print what the gate says of them")
    analyse.add_argument("--write", type=Path, help="document whose `timing_aa` block is rewritten")
    chosen = parser.parse_args()
    if chosen.command == "measure":
        sessions, pairs = (2, 8) if chosen.quick else (chosen.sessions, chosen.pairs)
        chosen.pairs_file.parent.mkdir(parents=True, exist_ok=True)
        timing_pairs.measure(
            chosen.pairs_file,
            sessions=sessions,
            pairs_a_session=pairs,
            load=not chosen.quiet_machine,
            cpus=chosen.cpus,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        return
    about, found = timing_pairs.read(chosen.pairs_file)
    _, rules = timing_pairs.policy(timing_report.LENGTH)
    text = timing_report.report(about, found, rules)
    print(text)
    if chosen.write is not None:
        marked.rewrite(chosen.write, "timing_aa", text)


if __name__ == "__main__":
    main()
