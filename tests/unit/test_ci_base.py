"""The policy and all it names come from the base branch; what a change does to them is written down and unused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate.ci import task_files
from gate.ci.base import Exported, export
from gate.ci.git import NOTHING, Repository
from gate.errors import PolicyError, UsageError
from gate.policy_file import load_policy
from tests.ci_factory import LFS_POINTER, Repo, checkpoint, git

TASK = """\
task: sums
include: ../shared/_base.yaml
dataset_path: json
dataset_kwargs: {data_files: {test: ../../data/sums.jsonl, other: "../../data/parts/*.jsonl"}}
process_results: !function metrics.score
"""
POLICY: dict[str, Any] = {
    "version": 1,
    "stages": [
        {
            "kind": "perplexity",
            "name": "sanity",
            "corpora": [{"name": "prose", "path": "../data/prose.txt"}, {"name": "wikitext2"}],
            "rules": [{"metric": "perplexity", "max_increase": "5%"}],
        },
        {
            "kind": "lm_eval",
            "name": "capability",
            "include_path": "tasks",
            "tasks": [{"task": "sums", "rules": [{"metric": "exact_match", "max_drop": "10pp"}]}],
        },
        {
            "kind": "domain",
            "name": "fraud",
            "data": "fraud.jsonl",
            "match": "exact",
            "rules": [{"metric": "accuracy", "max_drop": "3pp"}],
        },
    ],
}
FILES: dict[str, str | bytes | None] = {
    "thresholds/policy.yaml": yaml.safe_dump(POLICY),
    "thresholds/fraud.jsonl": '{"id": "base"}\n',
    "thresholds/tasks/sums.yaml": TASK,
    "thresholds/tasks/deep/readme.md": "x",
    "thresholds/shared/_base.yaml": "metric_list: []\n",
    "thresholds/shared/metrics.py": "score = None\n",
    "data/prose.txt": "prose",
    "data/sums.jsonl": "{}\n",
    "data/parts/a.jsonl": "{}\n",
    "data/not_named.txt": "x",
    "src/code.py": "x",
}
NAME = "thresholds/policy.yaml"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.commit(FILES)
    made.check_out()
    return made


def exported(repo: Repo, tmp_path: Path, base: str | None, head: str | None, name: str = NAME) -> Exported:
    assert base
    assert head
    return export(Repository(repo.root), name, base, head, tmp_path / "out")


def below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def policy(**changes: Any) -> str:
    return yaml.safe_dump({**POLICY, **changes})


def test_exactly_what_judging_needs(repo: Repo, tmp_path: Path) -> None:
    answer = exported(repo, tmp_path, repo.head, repo.head)
    needed = set(FILES) - {"data/not_named.txt", "src/code.py"}
    assert below(tmp_path / "out" / "base") == needed
    assert below(tmp_path / "out" / "pull-request") == {NAME}
    assert (answer.paths, answer.waivers, answer.notes) == ((), None, ())
    assert answer.policy == tmp_path / "out" / "base" / NAME
    assert load_policy(answer.policy).policy.stages[2].name == "fraud"
    change = json.loads((tmp_path / "out" / "policy-change.json").read_text())
    assert change == {"base_commit": repo.head, "policy": NAME, "paths": [], "notes": []}


def test_a_change_does_not_bring_its_own_bar(repo: Repo, tmp_path: Path) -> None:
    base = repo.commit({"thresholds/waivers.yaml": "version: 1\nwaivers: []\n"})
    changes = {
        NAME: policy(seed=9),
        "thresholds/fraud.jsonl": '{"id": "mine"}\n',
        "thresholds/tasks/new.yaml": "task: new\n",
        "data/sums.jsonl": "[]\n",
        "thresholds/shared/metrics.py": "score = 1\n",
        "thresholds/waivers.yaml": "version: 1\nwaivers: [all]\n",
        "src/code.py": "y",
    }
    head = repo.commit(changes)
    repo.check_out()  # the working tree is the change's
    answer = exported(repo, tmp_path, base, head)
    out = tmp_path / "out" / "base"
    assert (out / NAME).read_text() == FILES[NAME]
    assert (out / "thresholds/fraud.jsonl").read_text() == '{"id": "base"}\n'
    assert (out / "thresholds/shared/metrics.py").read_text() == "score = None\n"
    assert not (out / "thresholds/tasks/new.yaml").exists()
    assert answer.waivers == out / "thresholds/waivers.yaml"
    assert answer.waivers.read_text() == "version: 1\nwaivers: []\n"
    assert answer.paths == tuple(sorted(set(changes) - {"src/code.py"}))
    assert (tmp_path / "out" / "pull-request" / NAME).read_text() == changes[NAME]


def test_data_that_only_the_changed_policy_names_is_listed(repo: Repo, tmp_path: Path) -> None:
    stages = [*POLICY["stages"][:2], {**POLICY["stages"][2], "data": "easy.jsonl"}]
    base = repo.head
    head = repo.commit({NAME: policy(stages=stages), "thresholds/easy.jsonl": "{}\n"})
    assert exported(repo, tmp_path, base, head).paths == ("thresholds/easy.jsonl", NAME)


def test_what_happened_on_the_base_branch_is_not_the_changes_doing(repo: Repo, tmp_path: Path) -> None:
    parted = repo.head
    head = repo.commit({"src/code.py": "y"}, onto=parted)
    base = repo.commit({NAME: policy(seed=3)}, onto=parted)
    answer = exported(repo, tmp_path, base, head)
    assert answer.paths == ()
    assert yaml.safe_load(answer.policy.read_text())["seed"] == 3


def test_a_deleted_or_broken_policy_of_the_change(repo: Repo, tmp_path: Path) -> None:
    base = repo.head
    head = repo.commit({NAME: None})
    assert exported(repo, tmp_path, base, head).paths == (NAME,)
    assert below(tmp_path / "out" / "pull-request") == set()
    broken = repo.commit({NAME: "version: ["})
    assert export(Repository(repo.root), NAME, base or "", broken, tmp_path / "again").paths == (NAME,)


def test_the_first_policy_has_to_be_merged_first(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "new")
    base = repo.commit({"README.md": "x"})
    head = repo.commit(FILES)
    with pytest.raises(UsageError, match=r"no policy 'thresholds/policy\.yaml'.*merge the policy first"):
        exported(repo, tmp_path, base, head)


def test_a_policy_that_does_not_load_on_the_base_branch(repo: Repo, tmp_path: Path) -> None:
    base = repo.commit({NAME: policy(confidence=2)})
    with pytest.raises(PolicyError, match="confidence"):
        exported(repo, tmp_path, base, base)


@pytest.mark.parametrize(
    "name", ["../policy.yaml", "/etc/passwd", "--help", "thresholds/../../x", "a\nb", "thresholds", "${{ x }}"]
)
def test_policies_that_are_none(repo: Repo, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        exported(repo, tmp_path, repo.head, repo.head, name)


@pytest.mark.parametrize("data", ["/data/fraud.jsonl", "../../fraud.jsonl", "../../../etc/passwd"])
def test_data_outside_of_the_repository_is_refused(repo: Repo, tmp_path: Path, data: str) -> None:
    stages = [{**POLICY["stages"][2], "data": data}]
    base = repo.commit({NAME: policy(stages=stages)})
    with pytest.raises(UsageError, match="outside of the repository"):
        exported(repo, tmp_path, base, base)


def test_a_task_may_not_take_data_from_outside(repo: Repo, tmp_path: Path) -> None:
    task = "task: a\ndataset_path: json\ndataset_kwargs: {data_files: {test: ../../../x.jsonl}}\n"
    base = repo.commit({"thresholds/tasks/a.yaml": task})
    with pytest.raises(UsageError, match="outside of the repository"):
        exported(repo, tmp_path, base, base)


def test_data_that_is_not_committed(repo: Repo, tmp_path: Path) -> None:
    (repo.root / "thresholds" / "local.jsonl").write_text("{}\n")
    base = repo.commit({NAME: policy(stages=[{**POLICY["stages"][2], "data": "local.jsonl"}])})
    with pytest.raises(UsageError, match=r"'local\.jsonl' is not on the base branch"):
        exported(repo, tmp_path, base, base)


def test_links_stay_inside(repo: Repo, tmp_path: Path) -> None:
    base = repo.commit({"thresholds/fraud.jsonl": None}, links={"thresholds/fraud.jsonl": "../data/sums.jsonl"})
    head = repo.commit({"data/sums.jsonl": "changed\n"})
    answer = exported(repo, tmp_path, base, head)
    copy = tmp_path / "out" / "base" / "thresholds" / "fraud.jsonl"
    assert not copy.is_symlink()
    assert copy.read_text() == "{}\n"
    assert answer.paths == ("data/sums.jsonl",)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "loop"])
def test_links_that_leave(repo: Repo, tmp_path: Path, target: str) -> None:
    links = {"thresholds/fraud.jsonl": target, "thresholds/loop": "fraud.jsonl"}
    base = repo.commit({"thresholds/fraud.jsonl": None}, links=links)
    with pytest.raises(UsageError, match="leads out of the repository"):
        exported(repo, tmp_path, base, base)


def test_a_folder_that_holds_itself(repo: Repo, tmp_path: Path) -> None:
    base = repo.commit({}, links={"thresholds/tasks/again": "."})
    with pytest.raises(UsageError):
        exported(repo, tmp_path, base, base)


def test_submodules_are_not_read(repo: Repo, tmp_path: Path) -> None:
    base = repo.commit({}, submodules={"thresholds/tasks/vendor": "1" * 40})
    with pytest.raises(UsageError, match="submodule"):
        exported(repo, tmp_path, base, base)


def test_git_lfs(repo: Repo, tmp_path: Path) -> None:
    whole = b"prose" * 1000
    pointer = LFS_POINTER.format(digest=hashlib.sha256(whole).hexdigest(), size=len(whole))
    base = repo.commit({"data/prose.txt": pointer})
    repo.check_out()
    with pytest.raises(UsageError, match="Git LFS"):
        exported(repo, tmp_path, base, base)
    (repo.root / "data" / "prose.txt").write_bytes(b"x" * len(whole))  # as long, and something else
    with pytest.raises(UsageError, match="Git LFS"):
        export(Repository(repo.root), NAME, base, base, tmp_path / "again")
    (repo.root / "data" / "prose.txt").write_bytes(whole)
    export(Repository(repo.root), NAME, base, base, tmp_path / "third")
    assert (tmp_path / "third" / "base" / "data" / "prose.txt").read_bytes() == whole


def test_checkpoints_of_the_table_are_links(repo: Repo, tmp_path: Path) -> None:
    table = {"mine": {"path": "../models/q4"}, "hub": {"path": "org/model"}, "far": {"path": "/models/x"}}
    base = repo.commit({NAME: policy(checkpoints=table), **checkpoint("models/q4")})
    head = repo.commit(checkpoint("thresholds/org/model"))  # what would be taken for the one of the hub
    repo.check_out()
    answer = exported(repo, tmp_path, base, head)
    out = tmp_path / "out" / "base"
    assert (out / "models" / "q4").resolve() == (repo.root / "models" / "q4").resolve()
    assert not (out / "thresholds" / "org").exists()
    assert answer.notes == ("checkpoint 'mine' is the folder 'models/q4' of the working tree",)


def test_a_checkpoint_around_the_data_is_refused(repo: Repo, tmp_path: Path) -> None:
    base = repo.commit({NAME: policy(checkpoints={"all": {"path": "../data"}})})
    repo.check_out()
    with pytest.raises(UsageError, match="holds files that judge"):
        exported(repo, tmp_path, base, base)


def test_the_folder_must_be_new(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        exported(repo, tmp_path, repo.head, repo.head)
    with pytest.raises(UsageError, match="zeros"):
        exported(repo, tmp_path, NOTHING, repo.head)


def test_odd_names_are_listed_as_text(repo: Repo, tmp_path: Path) -> None:
    base = repo.head
    head = repo.commit({"thresholds/tasks/\udcff.yaml": "x", "thresholds/tasks/a\n::error::b.yaml": "x"})
    answer = exported(repo, tmp_path, base, head)
    assert answer.paths == ("thresholds/tasks/a\n::error::b.yaml", "thresholds/tasks/\\udcff.yaml")
    assert json.loads((tmp_path / "out" / "policy-change.json").read_bytes())["paths"] == list(answer.paths)


def test_a_repository_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "with space\nand line")
    base = repo.commit(FILES)
    assert Repository(repo.root).root == repo.root
    assert exported(repo, tmp_path, base, base).paths == ()
    assert git(repo.root, "status", "--porcelain")


@pytest.mark.parametrize(("text", "expected"), [
    (b"include: a.yaml", ("a.yaml",)),
    (b"include: [a.yaml, ../b.yaml]", ("a.yaml", "../b.yaml")),
    (b"dataset_path: org/hub\ndataset_kwargs: {data_files: x.json}", ()),
    (b"dataset_path: csv\ndataset_kwargs: {data_dir: d, data_files: [x.csv, 'https://h/x.csv', 'y/*/z.csv']}",
     ("x.csv", "y", "d")),
    (b"a: !function b.c\ntask: [{include: c.yaml}]", ("c.yaml",)),
    (b"a: [", ()), (b"just text", ()), (b"\xff\xfe", ()), (b"a: !!python/object/apply:os.system ['id']", ()),
])  # fmt: skip
def test_what_a_task_names(text: bytes, expected: tuple[str, ...]) -> None:
    assert task_files.named_in(text) == expected
