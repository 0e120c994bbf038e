"""A small world for end-to-end runs on the fake backend: checkpoints, evaluation files and a policy.

Real worker processes, real files; only the model is a script (see `gate/backends/fake_settings.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gate import artifact
from gate.artifact import read_observations
from gate.cli import main
from gate.records import Finding, Role, RunRecord

N_QUESTIONS = 320
WORDS = "the cat sat on a mat and saw five birds over there near old river".split()


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


@dataclass(frozen=True)
class World:
    """A folder with everything a run needs."""

    root: Path

    def checkpoint(self, name: str, **settings: Any) -> Path:
        """A fake checkpoint folder; settings as in `fake.json`."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        known = {"kind": "fake", "answers": "../questions.jsonl", "nll_noise": 0.05, "error_rate": 0.02}
        (folder / "fake.json").write_text(json.dumps({**known, **settings}), encoding="utf-8")
        return folder

    def policy(
        self, stages: Sequence[str | Mapping[str, Any]] = ("sanity", "capability", "fraud", "serving"), **changes: Any
    ) -> Path:
        """A policy with these stages, by name or written out; `changes` are top-level keys."""
        document = {"version": 1, "stages": [STAGES[s] if isinstance(s, str) else s for s in stages], **changes}
        path = self.root / "policy.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        return path

    def run(self, policy: Path, *extra: str, candidate: Path | None = None, out: str = "out") -> int:
        """`gate run` in this process (its workers are children); returns the exit code."""
        return main(
            [
                "run",
                f"--policy={policy}",
                f"--baseline={self.root / 'baseline'}",
                f"--candidate={candidate or self.root / 'candidate'}",
                "--backend=fake",
                "--device=cpu",
                f"--out={self.root / out}",
                f"--store={self.root / 'store'}",
                *extra,
            ]
        )

    def record(self, out: str = "out") -> RunRecord:
        return artifact.loads_record((self.root / out / "run.json").read_text(encoding="utf-8"))

    def scores(self, out: str = "out") -> dict[tuple[str, str, str], float]:
        """(stage, metric, item) → what the candidate scored, of the stages that repeat exactly."""
        return {
            (name, o.metric, o.item_id): o.value
            for name in ("sanity", "capability", "fraud")
            for m in read_observations(self.root / out / "observations" / f"{name}.parquet")
            if m.role is Role.CANDIDATE
            for o in m.observations
        }

    def finding(self, rule: str, out: str = "out") -> Finding:
        return next(f for s in self.record(out).stages for f in s.findings if f.rule.id == rule)


STAGES: dict[str, dict[str, Any]] = {
    "sanity": {
        "kind": "perplexity",
        "name": "sanity",
        "corpora": [{"name": "prose", "path": "prose.txt", "window": 64, "stride": 32}],
        "rules": [{"metric": "perplexity", "max_increase": "5%"}],
    },
    "capability": {
        "kind": "lm_eval",
        "name": "capability",
        "include_path": "tasks",
        "tasks": [{"task": "sums", "rules": [{"metric": "exact_match", "max_drop": "10pp"}]}],
    },
    "fraud": {
        "kind": "domain",
        "name": "fraud",
        "data": "questions.jsonl",
        "match": "exact",
        "rules": [
            {"metric": "accuracy", "max_drop": "5pp"},
            {"metric": "accuracy", "by": "category", "max_drop": "15pp", "severity": "advisory"},
        ],
    },
    "serving": {
        "kind": "profile",
        "name": "serving",
        "blocks": 4,
        "batch_sizes": [1, 2],
        "prompt_tokens": 16,
        "new_tokens": 4,
        "rules": [
            {"metric": "rss_peak", "max": "24GiB"},
            {"metric": "decode_tokens_per_second", "min_retained": "50%"},
        ],
    },
}

TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{input}}"
doc_to_target: "{{expected}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 8}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""


def make_world(root: Path) -> World:
    """A baseline, a good candidate, prose, a domain set and a local lm-eval task."""
    questions = [
        {"id": f"q{i}", "input": f"what is {i} plus {i} ?", "expected": str(2 * i), "category": "abc"[i % 3]}
        for i in range(N_QUESTIONS)
    ]
    _lines(root / "questions.jsonl", questions)
    (root / "tasks").mkdir()
    _lines(root / "tasks" / "sums.jsonl", [{"input": q["input"], "expected": q["expected"]} for q in questions[:96]])
    (root / "tasks" / "sums.yaml").write_text(TASK, encoding="utf-8")
    documents = [" ".join(WORDS[(d * 7 + k * (d % 5 + 1)) % len(WORDS)] for k in range(70)) for d in range(40)]
    (root / "prose.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    world = World(root)
    world.checkpoint("baseline", seed=1)
    world.checkpoint("candidate", seed=2, nll_shift=0.002)
    return world
