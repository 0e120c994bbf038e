"""For tests of `gate ci`: git repositories made commit by commit, with any name; finished runs that can be replayed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from gate import artifact
from gate.policy_file import LoadedPolicy, load_policy
from gate.records import Measurement, RunRecord, Status
from tests import records_factory
from tests.decide_factory import finding, pair_of, rule, stage

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"
DOMAIN: dict[str, Any] = {"kind": "domain", "name": "fraud", "data": "fraud.jsonl", "match": "exact"}
CHECKPOINT = {"config.json": "{}", "model.safetensors": "weights"}


def git(root: Path, *arguments: str, stdin: bytes | None = None) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *arguments], cwd=root, env=environment, input=stdin, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape").strip()


class Repo:
    """A repository whose commits are built in the index: any name, links and submodules included."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        git(root, "init", "--quiet", "--initial-branch=main", ".")
        git(root, "config", "commit.gpgsign", "false")

    def commit(
        self,
        files: Mapping[str, str | bytes | None],
        *,
        links: Mapping[str, str] | None = None,
        submodules: Mapping[str, str] | None = None,
        onto: str | None = None,
    ) -> str:
        """A commit on `onto` (default: HEAD) that changes these files; None deletes one."""
        parent = onto or self.head
        git(self.root, "read-tree", parent) if parent else git(self.root, "read-tree", "--empty")
        lines = []
        for path, content in files.items():
            if content is None:
                lines.append(f"0 {'0' * 40}\t{path}")
            else:
                lines.append(f"100644 {self._blob(content)}\t{path}")
        lines += [f"120000 {self._blob(target)}\t{path}" for path, target in (links or {}).items()]
        lines += [f"160000 {commit}\t{path}" for path, commit in (submodules or {}).items()]
        text = "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")
        git(self.root, "update-index", "-z", "--index-info", stdin=text)
        tree = git(self.root, "write-tree")
        commit = git(self.root, "commit-tree", tree, *(("-p", parent) if parent else ()), "-m", "a change")
        git(self.root, "update-ref", "HEAD", commit)
        return commit

    def check_out(self) -> None:
        git(self.root, "reset", "--hard", "--quiet")

    @property
    def head(self) -> str | None:
        try:
            return git(self.root, "rev-parse", "--verify", "--quiet", "HEAD")
        except subprocess.CalledProcessError:
            return None

    def _blob(self, content: str | bytes) -> str:
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        return git(self.root, "hash-object", "-w", "--stdin", stdin=data)


def checkpoint(folder: str, **changes: str | None) -> dict[str, str | bytes | None]:
    """The files of a checkpoint; keyword `weights` is the content of its weights."""
    files = {**CHECKPOINT, "model.safetensors": changes.get("weights") or "weights"}
    return {(f"{folder}/{name}" if folder != "." else name): content for name, content in files.items()}


def fraud(bound: str = "3pp", **settings: Any) -> dict[str, Any]:
    return {"metric": "accuracy", "max_drop": bound, "scope": "population", **settings}


def policy(path: Path, *rules: Mapping[str, Any], domain: Mapping[str, Any] = DOMAIN, **changes: Any) -> LoadedPolicy:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"version": 1, "stages": [{**domain, "rules": list(rules or [fraud()])}], **changes}
    path.write_text(yaml.safe_dump(document))
    return load_policy(path)


def ran(folder: Path, run_id: str = "run-1", created: str = "2026-11-20T10:00:00+00:00") -> Path:
    """A stored run: 400 items, of which 40 were lost and 4 gained: a drop of 9 pp, a regression under 3 pp."""
    loaded = policy(folder.parent / f"{folder.name}.yaml")
    red = stage("fraud", Status.REGRESSION, [finding(rule("max_drop 3pp"), Status.REGRESSION, estimate=0.09)])
    record: RunRecord = replace(
        records_factory.record(Status.REGRESSION, [red], sentence="As it was.", exit_code=1),
        run_id=run_id,
        created_at=created,
        policy=loaded.policy.model_dump(mode="json", exclude_none=True),
        policy_digest=loaded.digest,
    )
    (folder / "observations").mkdir(parents=True)
    (folder / "run.json").write_text(artifact.dumps_record(record))
    artifact.write_observations(folder / "observations" / "fraud.parquet", rows())
    return folder


def rows() -> list[Measurement]:
    return [
        replace(m, observations=tuple(replace(o, item_id=f"fraud/{o.item_id}/0") for o in m.observations))
        for m in pair_of(300, 40, 4, 56)
    ]
