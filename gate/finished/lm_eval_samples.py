"""The items of one lm-eval task, read from its sample log: one item per document, whatever filters scored it.

Reads; judges nothing.  Rows that do not fit together are an error: no row is dropped or merged in silence.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gate.errors import CouldNotMeasure, DataError

HASH_CHARACTERS = 16
PROMPT_TAIL_CHARACTERS = 2000
_IDENTITY = ("doc_hash", "prompt_hash", "target_hash")


@dataclass(kw_only=True, slots=True)
class Sample:
    """One document as it was asked and scored.

    Attributes:
        document: `task/document hash`, and `#k` for the k-th repetition of a document.
        prompt_hash, target_hash: lm-eval's, of the context of the first request and of the target.
        request_hash: of all that was sent: contexts, choices, generation settings.
        values: metric (`acc`, `exact_match,strict-match`) → what lm-eval wrote.
        n_requests: how many requests the document made.
        broken: why the model's answer is no answer, or None.
    """

    document: str
    prompt_hash: str
    target_hash: str
    request_hash: str
    values: dict[str, Any] = field(default_factory=dict)
    n_requests: int
    broken: str | None
    prompt: str
    output: str
    target: str

    @property
    def item_id(self) -> str:
        """`task/document hash/prompt hash`, with `#k` for a repetition: the same form as of items measured here."""
        document, mark, occurrence = self.document.partition("#")
        return f"{document}/{self.prompt_hash[:HASH_CHARACTERS]}{mark}{occurrence}"


def read_samples(path: Path, task: str, output_type: str) -> list[Sample]:
    """All documents of a sample log, in the order of their data set.

    Raises:
        DataError: a line is no row of a sample log.
        CouldNotMeasure: a row is there twice, or two rows disagree on what their document is.
    """
    rows: dict[int, list[Mapping[str, Any]]] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = _row(line, f"{path}:{number}")
                    rows.setdefault(row["doc_id"], []).append(row)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}), expected a sample log of lm-eval") from problem
    seen: Counter[str] = Counter()
    samples = []
    for doc_id in sorted(rows):
        sample = _sample(rows[doc_id], path, task, output_type, seen[rows[doc_id][0]["doc_hash"]])
        seen[rows[doc_id][0]["doc_hash"]] += 1
        samples.append(sample)
    return samples


def _row(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{place}: not JSON ({problem}): the log is damaged or incomplete, run lm-eval again") from None
    fits = (
        isinstance(row, dict)
        and type(row.get("doc_id")) is int
        and all(isinstance(row.get(key), str) and row[key] for key in (*_IDENTITY, "filter"))
        and isinstance(row.get("metrics"), list)
        and all(isinstance(name, str) and name in row for name in row["metrics"])
        and isinstance(row.get("arguments"), dict)
    )
    if not fits:
        raise DataError(
            f"{place}: found no row of a sample log (doc_id, {', '.join(_IDENTITY)}, filter, metrics, arguments), "
            "expected what lm-eval writes with --log_samples"
        )
    found: Mapping[str, Any] = row
    return found


def _sample(rows: Sequence[Mapping[str, Any]], path: Path, task: str, output_type: str, occurrence: int) -> Sample:
    first = rows[0]
    requests = _requests(first)
    sample = Sample(
        document=f"{task}/{first['doc_hash'][:HASH_CHARACTERS]}" + (f"#{occurrence}" if occurrence else ""),
        prompt_hash=first["prompt_hash"],
        target_hash=first["target_hash"],
        request_hash=hashlib.sha256(json.dumps(first["arguments"], sort_keys=True).encode()).hexdigest(),
        n_requests=len(requests),
        broken=_broken(first, output_type),
        prompt=str(requests[0][0])[-PROMPT_TAIL_CHARACTERS:] if requests and requests[0] else "",
        output=_output(first, requests, output_type),
        target=_target(first, requests, output_type),
    )
    for row in rows:
        if any(row[key] != first[key] for key in _IDENTITY):
            raise CouldNotMeasure(
                f"{path.name}: document {row['doc_id']} is there with different contents, expected one evaluation in "
                "one file: was the log written twice?"
            )
        for name in row["metrics"]:
            metric = name if row["filter"] == "none" else f"{name},{row['filter']}"
            if metric in sample.values:
                raise CouldNotMeasure(
                    f"{path.name}: document {row['doc_id']} is there twice with {metric!r}, expected each row once: "
                    "was the log written twice?"
                )
            sample.values[metric] = row[name]
    return sample


def _requests(row: Mapping[str, Any]) -> list[list[Any]]:
    """Arguments of every request of the document: context, and continuation or generation settings."""
    return [list(r.values()) if isinstance(r, dict) else [r] for r in row["arguments"].values()]


def _answers(row: Mapping[str, Any]) -> list[Any]:
    """The first response to every request, as text: a generation, a log-likelihood, or (log-likelihood, greedy)."""
    found = row.get("resps")
    return [r[0] for r in found if isinstance(r, list) and r] if isinstance(found, list) else []


def _loglikelihood(answer: Any) -> float:
    text = answer[0] if isinstance(answer, list) and answer else answer
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _broken(row: Mapping[str, Any], output_type: str) -> str | None:
    if output_type == "generate_until":
        return None
    return "the model's log-likelihood is NaN" if any(math.isnan(_loglikelihood(a)) for a in _answers(row)) else None


def _output(row: Mapping[str, Any], requests: Sequence[Sequence[Any]], output_type: str) -> str:
    answers = _answers(row)
    if not answers:
        return ""
    match output_type:
        case "multiple_choice" if len(answers) == len(requests):
            best = max(range(len(answers)), key=lambda i: _loglikelihood(answers[i]))
            return _choice(requests, best)
        case "loglikelihood":
            greedy = "" if str(answers[0][-1]) == "True" else "not "
            return f"log-likelihood {_loglikelihood(answers[0]):.4f}, {greedy}the most likely continuation"
        case "loglikelihood_rolling":
            return f"log-likelihood {_loglikelihood(answers[0]):.4f}"
        case _:
            return str(answers[0])


def _target(row: Mapping[str, Any], requests: Sequence[Sequence[Any]], output_type: str) -> str:
    target = str(row.get("target", ""))
    is_index = output_type == "multiple_choice" and target.isdecimal() and int(target) < len(requests)
    return _choice(requests, int(target)) if is_index else target


def _choice(requests: Sequence[Sequence[Any]], index: int) -> str:
    """A choice in words; tasks that put the choices into the context score one continuation after each."""
    chosen = requests[index]
    same = len({str(r[-1]) for r in requests}) == 1
    return str(chosen[0])[-PROMPT_TAIL_CHARACTERS:] if same else str(chosen[-1]).strip()
