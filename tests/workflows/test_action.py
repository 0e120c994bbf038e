"""The composite action, step by step in a fake runner: what it calls with what, and how it ends.

`gate` is a recorder here; test_action_measures.py runs the real one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.repository import Repository, make_repository
from tests.workflows.runner import Ended, Runner
from tests.workflows.stand_in import CANARY, StandIn, stand_in

INPUTS = {"baseline": "models/base", "candidate": "models/w4", "policy": "thresholds/policy.yaml", "name": "w4"}
POLICY = {"thresholds/policy.yaml": b"version: 1\n"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_repository(tmp_path_factory.mktemp("origin") / "r", POLICY, {"models/w4/config.json": b"{}"})


def machine(tmp_path: Path, repository: Repository, gate: StandIn, event: str = "pull_request", **more: Any) -> Runner:
    github, payload = repository.event(event, fork=more.pop("fork", False))
    github.update(more.pop("github", {}))
    workspace = repository.checkout(tmp_path / "workspace", github["sha"])
    temp = tmp_path / "temp"
    temp.mkdir()
    return Runner(workspace, temp, github, payload, path=[gate.folder], environ=gate.environ, **more)


def run(tmp_path: Path, repository: Repository, event: str = "pull_request", **more: Any) -> tuple[Ended, StandIn]:
    inputs = {**INPUTS, **more.pop("inputs", {})}
    settings = {k: more.pop(k) for k in ("fork", "cached", "github") if k in more}
    gate = stand_in(tmp_path / "bin", **more)
    return machine(tmp_path, repository, gate, event, **settings).run(inputs), gate


def uploaded(ended: Ended) -> str:
    files = [f for artifact in ended.artifacts.values() for f in sorted(artifact.rglob("*")) if f.is_file()]
    return "".join(f.read_text(encoding="utf-8") for f in files)


def test_a_pass_goes_through_every_step_in_order(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository)

    assert gate.commands() == [
        "ci policy", "publish github", "run", "ci outputs", "share", "publish github",
    ]  # fmt: skip
    assert not ended.failed
    assert ended.code == 0
    assert ended.outputs == {"status": "ANY", "exit-code": "0", "sentence": "A sentence.", "run-json": "run.json"}
    assert ended.summary == "summary\n"
    assert list(ended.artifacts) == ["quantgate-run-w4"]
    assert (ended.artifacts["quantgate-run-w4"] / "w4" / "run.json").is_file()


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 70, 130, 137])
def test_the_action_ends_as_the_gate_did_and_does_everything_else_before(
    tmp_path: Path, repository: Repository, code: int
) -> None:
    ended, gate = run(tmp_path, repository, codes={"run": code})

    assert ended.code == code
    assert ended.outputs["exit-code"] == str(code)
    assert gate.commands()[-3:] == ["ci outputs", "share", "publish github"]
    assert list(ended.artifacts) == ["quantgate-run-w4"]
    assert [s.name for s in ended.steps if s.outcome == "failure"] == ["End as the gate did"]


def test_a_run_without_a_record_shares_nothing_and_still_publishes(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, codes={"run": 2}, record=False)

    assert ended.code == 2
    assert ended.artifacts == {}
    assert "share" not in gate.commands()
    published = gate.call("publish github", last=True)["arguments"]
    assert published[published.index("--expect") + 1] == '["w4"]'


def test_only_the_redacted_copy_is_uploaded_and_published(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, codes={"run": 1})

    assert CANARY not in uploaded(ended)
    folder = Path(gate.call("publish github", last=True)["arguments"][-1])
    assert (folder / "w4" / "run.json").is_file()
    assert not [f for f in folder.rglob("*") if f.is_file() and CANARY in f.read_text(encoding="utf-8")]
    assert CANARY not in ended.log


def test_a_copy_that_cannot_be_made_is_not_replaced_by_the_original(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, codes={"share": 1})

    assert ended.artifacts == {}
    assert ended.code == 4, "green, and nobody can see why: not green"
    assert gate.commands()[-1] == "publish github"


@pytest.mark.parametrize(
    ("event", "base", "head"),
    [
        ("pull_request", "base", "head"),
        ("merge_group", "base", "merge"),
        ("push", "base", "base"),
        ("schedule", "base", "base"),
        ("workflow_dispatch", "base", "base"),
        ("workflow_run", "base", "base"),
    ],
)
def test_the_policy_is_taken_from_the_commit_that_the_event_makes_the_base(
    tmp_path: Path, repository: Repository, event: str, base: str, head: str
) -> None:
    _, gate = run(tmp_path, repository, event)

    arguments = gate.call("ci policy")["arguments"]
    assert arguments[:3] == ["ci", "policy", "thresholds/policy.yaml"]
    assert arguments[arguments.index("--base") + 1] == getattr(repository, base)
    assert arguments[arguments.index("--head") + 1] == getattr(repository, head)
    measured = gate.call("run")["arguments"]
    assert f"--policy={tmp_path}/temp/quantgate/w4/policy/policy.yaml" in measured


def test_a_base_without_the_policy_stops_before_anything_is_measured(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, inputs={"policy": "thresholds/other.yaml"}, codes={"ci policy": 2})

    assert "run" not in gate.commands()
    assert ended.code == 4
    assert ended.outputs["exit-code"] == "4"
    assert gate.commands()[-1] == "publish github", "the check is concluded all the same"


@pytest.mark.parametrize(
    "event", ["pull_request", "merge_group", "workflow_run", "push", "schedule", "workflow_dispatch"]
)
def test_only_the_default_branch_stores_baselines(tmp_path: Path, repository: Repository, event: str) -> None:
    ended, gate = run(tmp_path, repository, event, stores=True)

    trusted = event in ("push", "schedule", "workflow_dispatch")
    assert ("--store-read-only" in gate.call("run")["arguments"]) is not trusted
    assert bool(ended.saved) is trusted


@pytest.mark.parametrize("ref", ["refs/heads/feature", "refs/tags/v1", "refs/heads/mainline"])
def test_a_push_to_anything_else_stores_none(tmp_path: Path, repository: Repository, ref: str) -> None:
    ended, gate = run(tmp_path, repository, "push", stores=True, github={"ref": ref})

    assert "--store-read-only" in gate.call("run")["arguments"]
    assert ended.saved == {}


def test_the_cache_is_saved_only_where_something_was_measured(tmp_path: Path, repository: Repository) -> None:
    ended, _ = run(tmp_path, repository, "push", stores=False)

    assert ended.saved == {}


def test_the_key_of_the_cache_follows_policy_baseline_and_content(tmp_path: Path, repository: Repository) -> None:
    keys = set()
    for number, baseline in enumerate(["models/base", "models/base", "models/other"]):
        ended, _ = run(tmp_path / str(number), repository, "push", stores=True, inputs={"baseline": baseline})
        (key,) = ended.saved
        keys.add(key)

    assert len(keys) == 2
    assert all(key.startswith("quantgate-store-Linux-X64-") for key in keys)


def test_a_cache_of_unknown_origin_is_thrown_away(tmp_path: Path, repository: Repository) -> None:
    gate = stand_in(tmp_path / "bin")
    runner = machine(tmp_path, repository, gate, cached="quantgate-store-Linux-X64-a-b")
    store = tmp_path / "temp" / "quantgate-store"
    store.mkdir()
    (store / "poison").write_text("x", encoding="utf-8")

    ended = runner.run(INPUTS)

    assert ended.did("Keep only baselines that the base branch stored")
    assert not store.exists()
    assert ended.code == 0


def test_the_default_branch_trusts_its_own_cache(tmp_path: Path, repository: Repository) -> None:
    ended, _ = run(tmp_path, repository, "push", cached="quantgate-store-Linux-X64-a-b")

    assert not ended.did("Keep only baselines that the base branch stored")


@pytest.mark.parametrize("store", ["baselines", "./baselines", "../baselines", "s3://bucket/x\ny"])
def test_a_store_in_the_working_tree_is_refused(tmp_path: Path, repository: Repository, store: str) -> None:
    ended, gate = run(tmp_path, repository, inputs={"store": store})

    assert gate.commands() == []
    assert ended.code == 4
    assert "input store" in ended.log


@pytest.mark.parametrize("store", ["s3://bucket/baselines", "/mnt/baselines"])
def test_a_store_of_the_teams_own_needs_no_cache(tmp_path: Path, repository: Repository, store: str) -> None:
    ended, gate = run(tmp_path, repository, "push", inputs={"store": store})

    assert f"--store={store}" in gate.call("run")["arguments"]
    assert not ended.did("Restore measured baselines")
    assert ended.saved == {}


def test_a_fork_publishes_nothing_here(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, fork=True)

    assert "publish github" not in gate.commands()
    assert "publish.yml" in ended.log
    assert ended.code == 0


def test_publishing_can_be_left_to_a_later_job(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, inputs={"publish": "false"})

    assert "publish github" not in gate.commands()
    assert ended.code == 0
    assert ended.artifacts


@pytest.mark.parametrize(("verdict", "ends"), [(0, 4), (1, 1), (3, 3), (5, 5)])
def test_a_verdict_that_cannot_be_published_is_loud_and_stays_what_it_is(
    tmp_path: Path, repository: Repository, verdict: int, ends: int
) -> None:
    ended, _ = run(tmp_path, repository, codes={"run": verdict, "publish github": 4})

    assert ended.code == ends
    assert "could not be published" in ended.log
    assert ended.outputs["exit-code"] == str(verdict), "the verdict itself did not change"


def test_a_start_that_cannot_be_said_keeps_nobody_from_measuring(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, codes={"start": 4})

    assert "run" in gate.commands()
    assert ended.code == 0


def test_optional_publishing_says_so(tmp_path: Path, repository: Repository) -> None:
    _, gate = run(tmp_path, repository, inputs={"publish-required": "false"})

    assert "--optional" in gate.call("publish github", last=True)["arguments"]


def test_a_changed_policy_is_governed_and_its_failure_minded(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, changed="true", codes={"ci govern": 4}, inputs={"history": "/mnt/runs"})

    assert gate.call("ci govern")["arguments"][-2:] == ["--history", "/mnt/runs"]
    assert ended.code == 4
    assert ended.outputs["exit-code"] == "0"
    _no_record_leaves(ended, gate)


def test_a_changed_policy_is_governed_before_the_copy_is_made(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, changed="true")

    assert gate.commands().index("ci govern") < gate.commands().index("share")
    assert ended.code == 0
    assert list(ended.artifacts) == ["quantgate-run-w4"]


def _no_record_leaves(ended: Ended, gate: StandIn) -> None:
    """Neither as an artifact nor to GitHub, where the candidate is then "could not measure"."""
    assert ended.artifacts == {}
    assert "share" not in gate.commands()
    assert "the record is left out" in ended.log
    published = gate.call("publish github", last=True)["arguments"]
    assert published[published.index("--expect") + 1] == '["w4"]'
    assert not list(Path(published[-1]).rglob("run.json"))


@pytest.mark.parametrize(("code", "recorded"), [(70, 0), (137, 0), (1, 0), (0, 1), (4, 3)])
def test_a_record_that_does_not_say_how_the_run_ended_is_left_out(
    tmp_path: Path, repository: Repository, code: int, recorded: int
) -> None:
    ended, gate = run(tmp_path, repository, codes={"run": code}, recorded=recorded)

    _no_record_leaves(ended, gate)
    assert ended.code == (code or 4)
    assert f"gate run ended with exit code {code}, and its record says {recorded}" in ended.log


def test_half_a_copy_is_not_published(tmp_path: Path, repository: Repository) -> None:
    ended, gate = run(tmp_path, repository, codes={"half a share": 1})

    published = gate.call("publish github", last=True)["arguments"]
    assert not list(Path(published[-1]).rglob("run.json"))
    assert ended.artifacts == {}
    assert ended.code == 4


@pytest.mark.parametrize("fork", [False, True])
def test_a_pull_requests_target_is_not_measured_at_all(tmp_path: Path, repository: Repository, fork: bool) -> None:
    ended, gate = run(tmp_path, repository, "pull_request_target", fork=fork)

    assert gate.commands() == []
    assert ended.step("Check the inputs").code == 2
    assert "use pull_request, and publish.yml for forks" in ended.log
    assert ended.code == 4


@pytest.mark.parametrize("check", ["strict", "quantgate ", "a/b: c", "quantgate-run", "ü"])
def test_another_check_has_artifacts_of_its_own(tmp_path: Path, repository: Repository, check: str) -> None:
    ended, _ = run(tmp_path, repository, inputs={"check-name": check})

    (name,) = ended.artifacts
    assert re.fullmatch("quantgate-[0-9a-f]{12}-run-w4", name)
    assert not name.startswith("quantgate-run-")


def test_the_artifacts_name_can_be_chosen(tmp_path: Path, repository: Repository) -> None:
    ended, _ = run(tmp_path, repository, inputs={"check-name": "strict", "artifact-name": "mine"})

    assert list(ended.artifacts) == ["mine-w4"]


def test_waivers_and_other_inputs_reach_the_gate(tmp_path: Path, repository: Repository) -> None:
    inputs = {
        "device": "cuda",
        "backend": "vllm",
        "worker-python": "/opt/vllm/bin/python",
        "on-inconclusive": "warn",
        "arguments": "--keep-going\n\n--stage=sanity check\n",
        "code-paths": "scripts/**\nmodels/base/**\n",
        "base-branches": "release/2\n\nrelease/3",
        "comment": "always",
        "check-name": "models",
    }
    _, gate = run(tmp_path, repository, waivers="/base/waivers.yaml", inputs=inputs)

    arguments = gate.call("run")["arguments"]
    assert arguments == [
        "run",
        f"--policy={tmp_path}/temp/quantgate/w4/policy/policy.yaml",
        "--baseline=models/base",
        "--candidate=models/w4",
        "--backend=vllm",
        f"--store={tmp_path}/temp/quantgate-store",
        f"--out={tmp_path}/temp/quantgate/w4/out",
        "--policy-name=thresholds/policy.yaml",
        "--waivers=/base/waivers.yaml",
        "--device=cuda",
        "--python=/opt/vllm/bin/python",
        "--on-inconclusive=warn",
        "--store-read-only",
        "--keep-going",
        "--stage=sanity check",
    ]
    assert gate.call("publish github")["arguments"][2:] == [
        *("--name", "models", "--required", "--expect", '["w4"]', "--start"),
    ]
    assert gate.call("publish github", last=True)["arguments"][2:] == [
        *("--name", "models", "--required", "--expect", '["w4"]', "--policy-path", "thresholds/policy.yaml"),
        *("--comment", "always", "--no-summary", "--code-path", "scripts/**", "--code-path", "models/base/**"),
        *("--code-path", "models/base", "--base-branch", "release/2", "--base-branch", "release/3"),
        f"{tmp_path}/temp/quantgate/w4/shared",
    ]


def test_a_baseline_of_the_repository_is_a_code_path_without_being_asked(
    tmp_path: Path, repository: Repository
) -> None:
    _, gate = run(tmp_path, repository)

    arguments = gate.call("publish github", last=True)["arguments"]
    paths = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--code-path"]
    assert paths == ["models/base", "models/base/**"]


HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    '"; touch pwned; "',
    "-rf",
    "--policy=mine.yaml",
    "a\n::error::b",
    "a\n::set-output name=x::y",
    "*",
    "\x1b[31mred",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_path_is_one_argument_and_nothing_else(tmp_path: Path, repository: Repository, text: str) -> None:
    ended, gate = run(tmp_path, repository, inputs={"candidate": text})

    assert f"--candidate={text}" in gate.call("run")["arguments"]
    assert text not in ended.log
    assert not list(tmp_path.rglob("pwned"))


NO_NAMES = [*HOSTILE, "..", "a/b", "../x", "a" * 81, "ü"]


@pytest.mark.parametrize(
    ("field", "text"),
    [("name", ""), *(("name", text) for text in NO_NAMES), *(("artifact-name", text) for text in NO_NAMES)],
)
def test_a_hostile_name_is_refused_unseen(tmp_path: Path, repository: Repository, field: str, text: str) -> None:
    ended, gate = run(tmp_path, repository, inputs={field: text})

    assert gate.commands() == []
    assert ended.code == 4
    assert text not in HOSTILE or text not in ended.log
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("name", ["observations", "previous"])
def test_a_name_that_a_run_uses_itself_is_refused(tmp_path: Path, repository: Repository, name: str) -> None:
    ended, gate = run(tmp_path, repository, inputs={"name": name})

    assert gate.commands() == []
    assert ended.code == 4


def test_only_the_steps_that_need_it_see_the_token(tmp_path: Path, repository: Repository) -> None:
    _, gate = run(tmp_path, repository, changed="true", inputs={"github-token": "ghs_canary"})

    seen = {call["command"] for call in gate.calls if "ghs_canary" in json.dumps(call["environ"])}
    assert seen == {"publish github"}
    assert all("ghs_canary" not in json.dumps(call["arguments"]) for call in gate.calls)
    # the fetch of the base commit has it in a header, encoded, and for git's children alone
    headers = {c["command"] for c in gate.calls if "AUTHORIZATION" in json.dumps(c["environ"])}
    assert headers == {"ci policy"}
    assert "ghs_canary" not in (tmp_path / "workspace" / ".git" / "config").read_text(encoding="utf-8")


def test_nothing_of_the_working_tree_shadows_a_module(tmp_path: Path, repository: Repository) -> None:
    _, gate = run(tmp_path, repository, changed="true")

    assert {call["environ"].get("PYTHONSAFEPATH") for call in gate.calls} == {"1"}


def test_without_a_gate_the_action_says_what_to_do(tmp_path: Path, repository: Repository) -> None:
    gate = stand_in(tmp_path / "bin")
    runner = machine(tmp_path, repository, gate)
    runner.path.clear()

    ended = runner.run({**INPUTS, "install": "never"})

    assert ended.code == 4
    assert ended.outputs["exit-code"] == "4"
    assert "install is never" in ended.log
