"""Which files decide a result besides the workflow's: the baseline's folder counts as code without being asked.

A pull request that worsens its own baseline must not stay verified.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gate.publish.trust import matching
from tests.workflows.repository import git, make_repository
from tests.workflows.runner import ACTION, read_outputs
from tests.workflows.stand_in import stand_in
from tests.workflows.test_scripts import script

SOURCE = ACTION / "code_paths.py"


def code_paths(tmp_path: Path, baseline: str, policy: str = "", given: str = "", **environ: str) -> list[str]:
    """What the script makes of this baseline in `tmp_path`/repository."""
    root, output = tmp_path / "repository", tmp_path / "output"
    root.mkdir(exist_ok=True)
    output.unlink(missing_ok=True)
    known = {"BASELINE": baseline, "CODE_PATHS": given, "POLICY": "thresholds/policy.yaml"}
    done = subprocess.run(
        [sys.executable, "-I", str(SOURCE)],
        cwd=root,
        env={**known, **environ, "GITHUB_OUTPUT": str(output)},
        input=policy,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = read_outputs(output.read_text(encoding="utf-8"))["code-paths"]
    assert done.stdout == f"{found}\n"
    return found.splitlines()


NAMED = "checkpoints: {full: {path: ../models/base, tokenizer: ./words}, hub: {path: org/model}}\n"


@pytest.mark.parametrize(
    ("baseline", "found"),
    [
        ("models/base", ["models/base", "models/base/**"]),
        ("./models//base/", ["models/base", "models/base/**"]),
        ("models/x/../base", ["models/base", "models/base/**"]),
        # a folder of that name would be taken instead of the hub's
        ("org/model", ["org/model", "org/model/**"]),
        ("org/model@0123abc", ["org/model@0123abc", "org/model@0123abc/**", "org/model", "org/model/**"]),
        ("full", ["models/base", "models/base/**", "thresholds/words", "thresholds/words/**"]),
        ("hub", ["thresholds/org/model", "thresholds/org/model/**"]),
        ("we[i]rd*", ["we[[]i]rd[*]", "we[[]i]rd[*]/**"]),
        (".", ["**"]),
        ("a\\b", ["**"]),
        ("a\nb", ["**"]),
        ("/srv/base", []),
        ("~/base", []),
        ("../base", []),
        ("s3://bucket/base", []),
        ("", []),
    ],
)
def test_the_baselines_folder_is_code(tmp_path: Path, baseline: str, found: list[str]) -> None:
    assert code_paths(tmp_path, baseline, NAMED) == found


@pytest.mark.parametrize("policy", ["", "\n", "a: 1", "checkpoints: {}", "checkpoints: {models/base: 3}"])
def test_a_policy_that_says_nothing_of_the_baseline_leaves_its_name(tmp_path: Path, policy: str) -> None:
    assert code_paths(tmp_path, "models/base", policy, given="scripts/**\n\nmodels/base") == [
        *("scripts/**", "models/base", "models/base/**"),
    ]


@pytest.mark.parametrize("policy", ["a: [", "- 1", "real.yaml", "checkpoints: 3", "checkpoints:", "a: !!python/x 1"])
def test_a_policy_that_cannot_be_read_makes_every_file_code(tmp_path: Path, policy: str) -> None:
    assert code_paths(tmp_path, "models/base", policy, given="scripts/**") == ["**"]


def test_a_policy_behind_a_link_makes_every_file_code(tmp_path: Path) -> None:
    assert code_paths(tmp_path, "models/base", NAMED, LINKED="true") == ["**"]


def test_without_yaml_every_file_is_code(tmp_path: Path) -> None:
    script = f"import sys; sys.modules['yaml'] = None; sys.argv[0] = 'x'; exec(open({str(SOURCE)!r}).read())"
    output = tmp_path / "output"
    for policy, found in ((NAMED, "**"), ("", "models/base\nmodels/base/**")):
        output.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-I", "-c", script],
            cwd=tmp_path,
            env={"BASELINE": "models/base", "POLICY": "policy.yaml", "GITHUB_OUTPUT": str(output)},
            input=policy,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert read_outputs(output.read_text(encoding="utf-8"))["code-paths"] == found, done.stderr


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("path: ../models/w4, trust_remote_code: true", ["models/w4/**/*.py"]),
        ("path: ../models/w4, trust_remote_code: 'yes'", ["models/w4/**/*.py"]),
        ("path: org/model, trust_remote_code: true", ["thresholds/org/model/**/*.py"]),
        ("path: ../, trust_remote_code: true", ["**/*.py"]),
        ("trust_remote_code: true", ["**/*.py"]),
        ("path: [1], trust_remote_code: true", ["**/*.py"]),
        ("path: /srv/w4, trust_remote_code: true", []),
        ("path: ../models/w4, trust_remote_code: false", []),
        ("path: ../models/w4", []),
    ],
)
def test_a_checkpoints_own_code_is_code(tmp_path: Path, settings: str, found: list[str]) -> None:
    assert code_paths(tmp_path, "", f"checkpoints: {{w4: {{{settings}}}}}\n") == found


def test_what_own_code_links_to_is_code_and_the_candidates_weights_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "models" / "w4"
    folder.mkdir(parents=True)
    (folder / "real.txt").write_text("", encoding="utf-8")
    (folder / "modeling.py").symlink_to("real.txt")

    found = code_paths(tmp_path, "", "checkpoints: {w4: {path: ../models/w4, trust_remote_code: true}}\n")

    patterns = tuple(found)
    changed = ["models/w4/modeling.py", "models/w4/deep/er.PY", "models/w4/real.txt", "models/w4"]
    assert matching(changed, patterns) == tuple(changed)
    assert matching(["models/w4/model.safetensors", "models/w4/config.json", "tools/x.py"], patterns) == ()


def test_what_a_baseline_links_to_is_code_too(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    (root / "store" / "v1").mkdir(parents=True)
    (root / "shared").mkdir()
    (root / "shared" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (root / "store" / "v1" / "tokenizer.json").symlink_to("../../shared/tokenizer.json")
    (root / "store" / "v1" / "passwd").symlink_to("/etc/passwd")
    (root / "store" / "v1" / "loop").symlink_to("loop")
    (root / "current").symlink_to("store/v1")
    (root / "models").symlink_to("store")

    found = set(code_paths(tmp_path, "current"))
    assert {"current", "store/v1/**", "store/v1/tokenizer.json", "shared/tokenizer.json"} <= found
    assert not [one for one in found if "etc" in one]

    found = set(code_paths(tmp_path, "models/v1"))
    assert {"models", "models/v1/**", "store/v1/**", "shared/tokenizer.json"} <= found


def test_detection_takes_the_baseline_from_the_base_branchs_policy(tmp_path: Path) -> None:
    base = {"thresholds/policy.yaml": b"checkpoints: {full: {path: ../models/base}}\n", "models/base/w": b"1"}
    head = {"thresholds/policy.yaml": b"checkpoints: {full: {path: elsewhere}}\n", "models/base/w": b"worse"}
    worsened = make_repository(tmp_path / "r", base, head)
    gate = stand_in(tmp_path / "bin")
    folder = worsened.checkout(tmp_path / "workspace", worsened.merge)
    environ = {
        "BASE": worsened.base,
        "HEAD": worsened.head,
        "LIST": "",
        "POLICY": "./thresholds/policy.yaml",
        "CHECK_NAME": "x",
    }

    code, outputs, log = script("detect.sh", folder, {**environ, "BASELINE": "full", **gate.environ}, path=gate.folder)

    assert code == 0, log
    assert outputs["code-paths"].splitlines() == ["models/base", "models/base/**"]
    assert outputs["code-changed"] == "true"


@pytest.mark.parametrize("policy", ["thresholds/policy.yaml", "linked/policy.yaml"])
def test_a_policy_that_is_a_link_is_seen_in_gits_objects(tmp_path: Path, policy: str) -> None:
    repository = make_repository(tmp_path / "r", {"real/policy.yaml": b"version: 1\n"}, {"x": b"1"})
    git(repository.root, "checkout", "--quiet", repository.base)
    (repository.root / "thresholds").mkdir()
    (repository.root / "thresholds" / "policy.yaml").symlink_to("../real/policy.yaml")
    (repository.root / "linked").symlink_to("real")
    git(repository.root, "add", "--all")
    git(repository.root, "commit", "--quiet", "--message=links")
    base = git(repository.root, "rev-parse", "HEAD")
    gate = stand_in(tmp_path / "bin")
    folder = repository.checkout(tmp_path / "workspace", base)
    environ = {"BASE": base, "HEAD": repository.head, "LIST": "", "POLICY": policy, "CHECK_NAME": "x"}

    code, outputs, log = script(
        "detect.sh", folder, {**environ, "BASELINE": "org/model", **gate.environ}, path=gate.folder
    )

    assert code == 0, log
    assert outputs["code-paths"] == "**"
    assert outputs["code-changed"] == "true"
    assert "behind a link" in log
