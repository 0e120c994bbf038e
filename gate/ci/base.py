"""`gate ci policy`: the policy, the tasks, the data and the waivers of the base branch, in a folder of their own.

A pull request never brings its own bar: what it changes of these is written down, and judges nothing.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gate.ci.candidates import check_reference
from gate.ci.export import Export, inside
from gate.ci.git import NOTHING, Repository
from gate.errors import PolicyError, UsageError
from gate.policy import DomainStage, LmEvalStage, PerplexityStage, Policy
from gate.policy_file import MAX_BYTES, load_policy

BASE, PULL_REQUEST, CHANGE = "base", "pull-request", "policy-change.json"
WAIVERS = "waivers.yaml"
MAX_PATHS = 500
"""Changed files that are listed; a pull request that changes more is said to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What judges, and what the change does to it.  `waivers` is None where the base branch has none."""

    policy: Path
    waivers: Path | None
    paths: tuple[str, ...]
    notes: tuple[str, ...]


def export(repository: Repository, policy: str, base: str, head: str, out: Path) -> Exported:
    """Write `out`/base (what judges), `out`/pull-request (the change's policy) and `out`/policy-change.json.

    Raises:
        UsageError: a commit is missing, the base branch has no such policy, or it names what is not in the repository.
        PolicyError: the base branch's policy does not load.
    """
    name = posixpath.normpath(check_reference(policy.removeprefix("./"), "the policy"))
    if set(base) == {NOTHING[0]}:
        raise UsageError("--base is zeros, as for a branch's first push: give a commit of the default branch")
    at_base, at_head = repository.commit(base, "--base"), repository.commit(head, "--head")
    _fresh(out)
    judging = Export(repository, at_base, out / BASE)
    if not judging.add(name, "the policy") or judging.kind(name) != "file":
        raise UsageError(
            f"the base branch has no policy {name!r} at {at_base}: merge the policy first, by itself. A pull request "
            "is judged by the base branch's policy, since it must not bring its own bar"
        )
    loaded = load_policy(out / BASE / name)
    folder = posixpath.dirname(name)
    for what, text in _named(loaded.policy):
        place = inside(folder, text, f"the policy's {what} is")
        if not judging.add(place, f"the policy's {what}"):
            raise UsageError(f"the policy's {what} {text!r} is not on the base branch ({at_base}): commit it there")
    waivers = posixpath.join(folder, WAIVERS)
    has_waivers = judging.add(waivers, "the waivers")
    notes = _link_checkpoints(repository, judging, loaded.policy, folder, out / BASE)
    judged_by = judging.read | _of_the_change(repository, at_head, name, out / PULL_REQUEST)
    parted = repository.merge_base(at_base, at_head)
    changed = sorted(p for p in repository.changed(parted, at_head) if _judges(p, judged_by))
    paths = [path.encode("utf-8", "backslashreplace").decode() for path in changed]
    if len(paths) > MAX_PATHS:
        notes.append(f"{len(paths) - MAX_PATHS} further files that judge are changed, and not listed")
        paths = paths[:MAX_PATHS]
    change = {"base_commit": at_base, "policy": name, "paths": paths, "notes": notes}
    (out / CHANGE).write_text(json.dumps(change, indent=1) + "\n", encoding="utf-8")
    return Exported(
        policy=out / BASE / name,
        waivers=out / BASE / waivers if has_waivers else None,
        paths=tuple(paths),
        notes=tuple(notes),
    )


def _fresh(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UsageError(f"--out {str(out)!r} is not empty: choose a folder of its own")
    except OSError as problem:
        raise UsageError(f"--out {str(out)!r} cannot be written: {problem.strerror}") from problem


def _named(policy: Policy) -> Iterator[tuple[str, str]]:
    """(what it is, path as written) of every file and folder that scores depend on."""
    for stage in policy.stages:
        match stage:
            case PerplexityStage():
                for corpus in stage.corpora:
                    if corpus.path is not None:
                        yield f"corpus {corpus.name!r}", corpus.path
            case DomainStage():
                yield f"data of stage {stage.name!r}", stage.data
            case LmEvalStage() if stage.include_path is not None:
                yield f"include_path of stage {stage.name!r}", stage.include_path
            case _:
                pass


def _link_checkpoints(repository: Repository, judging: Export, policy: Policy, folder: str, base: Path) -> list[str]:
    """Links to the folders of the `checkpoints:` table, which are measured and judge nothing; a remark for each.

    They are the working tree's.  One that could be a hub id is linked only if the base branch has such a folder: a
    change must not put itself in the place of a checkpoint of the hub.
    """
    notes = []
    for name, settings in policy.checkpoints.items():
        for text in filter(None, (settings.path, settings.tokenizer)):
            if text.startswith(("/", "~")):
                continue
            place = posixpath.normpath(posixpath.join(folder, text))
            local = text.startswith(".") or judging.kind(place) == "folder"
            if not local:
                continue
            place = inside(folder, text, f"the policy's checkpoint {name!r} is")
            link, target = base / place, repository.root / place
            if link.is_symlink() or not target.is_dir():
                continue
            if link.exists():
                raise UsageError(
                    f"the policy's checkpoint {name!r} ({text!r}) holds files that judge: keep the policy and its data "
                    "outside of the checkpoint's folder"
                )
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(target), target_is_directory=True)  # noqa: PTH100  its links stay
            notes.append(f"checkpoint {name!r} is the folder {place!r} of the working tree")
    return notes


def _of_the_change(repository: Repository, head: str, name: str, out: Path) -> set[str]:
    """Write the change's own policy, which judges nothing; the paths that it names, besides itself."""
    folder = posixpath.dirname(name)
    known = {name, posixpath.join(folder, WAIVERS)}
    entry = next((e for e in repository.entries(head) if e.path == name and e.kind == "file"), None)
    if entry is None:
        return known
    try:
        data = repository.blob(entry.blob, limit_bytes=MAX_BYTES)
    except UsageError:
        return known  # too large: `govern` says that there is no policy to compare with
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(data)
    try:
        policy = load_policy(out / name).policy
    except PolicyError:
        return known
    return known | {posixpath.normpath(posixpath.join(folder, text)) for _, text in _named(policy)}


def _judges(path: str, judged_by: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:i]) in judged_by for i in range(1, len(parts) + 1))
