"""Rules of our own for workflows: what a linter cannot know of the gate's trust boundaries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.workflows.expressions import condition, interpolate
from tests.workflows.files import ACTIONS, ALL, GITHUB, SCRIPTS, WORKFLOWS, jobs, load, steps

DANGEROUS = re.compile(r"\$\{\{.*?\}\}", re.S)
WRITES = {
    # who may write, and what: everything else reads
    ("gate.yml", "detect"): {"checks"},
    ("gate.yml", "collect"): {"checks", "pull-requests"},
    ("publish.yml", "publish"): {"checks", "pull-requests"},
    ("publish.yml", "publish-measured"): {"checks", "pull-requests"},
}
ALL_JOBS = [pytest.param(path, name, job, id=f"{path.stem}-{name}") for path in WORKFLOWS for name, job in jobs(path)]


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_no_expression_stands_in_a_script(path: Path) -> None:
    for job, step in steps(path):
        assert not DANGEROUS.search(step.get("run", "")), f"{job}: {step['name']}"


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_every_step_has_a_name_and_every_script_its_shell(path: Path) -> None:
    for job, step in steps(path):
        assert step.get("name"), f"{job}: {step}"
        if path in ACTIONS and "run" in step:
            assert step["shell"] == "bash"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_starts_without_permissions_and_never_runs_as_a_target(path: Path) -> None:
    document = load(path)

    assert document["permissions"] == {}
    triggers = set(document["on"])
    assert not triggers & {"pull_request_target", "issue_comment", "workflow_run"}


@pytest.mark.parametrize(("path", "name", "job"), ALL_JOBS)
def test_a_job_has_a_time_out_and_the_least_permissions(path: Path, name: str, job: dict[str, object]) -> None:
    assert job["timeout-minutes"]
    permissions = job["permissions"]
    assert isinstance(permissions, dict)
    writes = {what for what, may in permissions.items() if may == "write"}
    assert writes == WRITES.get((path.name, name), set())
    assert set(permissions.values()) <= {"read", "write"}


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_a_checkout_keeps_no_credentials(path: Path) -> None:
    for job, step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, job


def test_what_measures_has_no_token_that_writes() -> None:
    for path, name in (("gate.yml", "gate"), ("publish.yml", "measure")):
        job = dict(jobs(GITHUB / "workflows" / path))[name]
        assert set(job["permissions"].values()) == {"read"}
        (step,) = [s for s in job["steps"] if s.get("uses", "").startswith("./.quantgate")]
        assert step["with"]["publish"] == "false"
        assert "github-token" not in step["with"]


def test_what_is_uploaded_is_the_redacted_copy_alone() -> None:
    allowed = {
        "action.yml": "${{ steps.context.outputs.folder }}/shared",
        "publish.yml": "${{ runner.temp }}/quantgate-clean",
    }
    found = {
        path.name: step["with"]["path"]
        for path in ALL
        for _, step in steps(path)
        if step.get("uses", "").startswith("actions/upload-artifact@")
    }
    assert found == allowed


def test_caches_are_saved_in_one_place_and_only_where_they_may_be() -> None:
    saves = [(p.name, s) for p in ALL for _, s in steps(p) if s.get("uses", "").startswith("actions/cache")]
    (save,) = [s for _, s in saves if "/save@" in s["uses"]]

    assert "steps.context.outputs.writable == 'true'" in save["if"]
    assert all("/restore@" in s["uses"] or "/save@" in s["uses"] for _, s in saves), (
        "plain actions/cache saves for everybody"
    )


def test_the_last_step_always_ends_as_the_gate_did() -> None:
    (action,) = ACTIONS
    last = load(action)["runs"]["steps"][-1]

    assert last["if"] == "always()"
    assert last["run"] == 'bash "$GITHUB_ACTION_PATH/end.sh"'


def test_a_fork_never_reaches_the_machine_of_the_direct_stage() -> None:
    found = dict(jobs(GITHUB / "workflows" / "gate.yml"))

    for fork, runs in ((True, False), (False, True)):
        assert condition(found["detect"]["if"], {"github": of_a_pull("synchronize", fork=fork)}, failed=False) is runs
    assert "detect" in found["gate"]["needs"]
    assert "always()" not in found["gate"]["if"], "skipped with detect"
    assert found["collect"]["if"] == "always() && needs.detect.result != 'skipped'"


def test_only_a_pull_request_is_cancelled_by_a_newer_push() -> None:
    for name in ("gate.yml", "ci.yml"):
        assert load(GITHUB / "workflows" / name)["concurrency"]["cancel-in-progress"] == (
            "${{ github.event_name == 'pull_request' }}"
        )


def test_the_second_stage_publishes_one_after_the_other_and_waits_for_no_approval() -> None:
    """A group of the whole workflow would hold back a re-run for as long as nobody approves the first."""
    path = GITHUB / "workflows" / "publish.yml"

    assert "concurrency" not in load(path)
    for name, job in jobs(path):
        assert ("concurrency" in job) is name.startswith("publish")
        assert job.get("concurrency", {}).get("cancel-in-progress", False) is False


def test_the_second_stage_checks_out_the_default_branch_and_the_gate_and_nothing_else() -> None:
    refs = {
        (step["with"].get("repository"), step["with"].get("ref"))
        for _, step in steps(GITHUB / "workflows" / "publish.yml")
        if step.get("uses", "").startswith("actions/checkout@")
    }
    assert refs == {
        (None, "${{ github.event.repository.default_branch }}"),
        ("${{ inputs.gate-repository }}", "${{ inputs.gate-ref }}"),
    }


def test_the_second_stage_runs_only_the_gates_own_scripts() -> None:
    allowed = re.compile(r'bash \.quantgate/\.github/actions/gate/[a-z_]+\.sh|exit "\$CODE"')
    for job, step in steps(GITHUB / "workflows" / "publish.yml"):
        if "run" in step:
            assert allowed.fullmatch(step["run"]), f"{job}: {step['name']}"


def test_publishing_jobs_have_nothing_of_the_pull_request() -> None:
    found = dict(jobs(GITHUB / "workflows" / "publish.yml"))
    ours = "${{ needs.verify.outputs.artifacts }}"
    for name, artifact in (("publish", f"{ours}-clean"), ("publish-measured", f"{ours}-measured-*")):
        downloads = [
            s["with"] for s in found[name]["steps"] if s.get("uses", "").startswith("actions/download-artifact@")
        ]
        assert [d.get("name", d.get("pattern")) for d in downloads] == [artifact]
        assert all("run-id" not in d for d in downloads), "artifacts of this run only"


def of_a_pull(action: str, *, fork: bool = False, base: str = "") -> dict[str, object]:
    """The context of a pull request's event; `base` is the one that it had before, if that was edited."""
    changes = {"base": {"ref": {"from": base}, "sha": {"from": "x"}}} if base else {"title": {"from": "y"}}
    event = {
        "action": action,
        "pull_request": {"head": {"repo": {"full_name": "stranger/models" if fork else "owner/models"}}},
        **({"changes": changes} if action == "edited" else {}),
    }
    ref = "refs/pull/7/merge"
    return {"event_name": "pull_request", "repository": "owner/models", "ref": ref, "run_id": "11", "event": event}


@pytest.mark.parametrize(
    ("action", "base", "gates"),
    [("opened", "", True), ("synchronize", "", True), ("edited", "main", True), ("edited", "", False)],
)
def test_another_base_is_gated_anew_and_another_title_disturbs_nobody(action: str, base: str, gates: bool) -> None:
    path = GITHUB / "workflows" / "gate.yml"
    github = {**of_a_pull(action, base=base), "workflow": "gate"}
    contexts = {"github": github, "inputs": {"check-name": "quantgate"}}

    assert condition(dict(jobs(path))["detect"]["if"], contexts, failed=False) is gates
    group = interpolate(load(path)["concurrency"]["group"], contexts)
    assert group.endswith("-refs/pull/7/merge" if gates else "-11"), "it would cancel what is being measured"


def test_other_events_are_gated_whatever_they_did() -> None:
    found = dict(jobs(GITHUB / "workflows" / "gate.yml"))
    for event in ("push", "merge_group", "schedule", "workflow_dispatch", "pull_request_target"):
        github: dict[str, object] = {"event_name": event, "repository": "owner/models", "event": {}}
        assert condition(found["detect"]["if"], {"github": github}, failed=False), event


def test_two_checks_of_one_workflow_share_no_artifact() -> None:
    """Every name and pattern begins with what detect.sh makes of the check's name."""
    allowed = {
        ("gate.yml", "collect"): {"${{ needs.detect.outputs.artifacts }}-run-*"},
        ("publish.yml", "verify"): {
            "${{ steps.detect.outputs.artifacts }}-run-*",
            "${{ steps.detect.outputs.artifacts }}-clean",
        },
        ("publish.yml", "publish"): {"${{ needs.verify.outputs.artifacts }}-clean"},
        ("publish.yml", "publish-measured"): {"${{ needs.verify.outputs.artifacts }}-measured-*"},
        ("action.yml", "action"): {"${{ steps.context.outputs.artifact }}"},
    }
    found: dict[tuple[str, str], set[str]] = {}
    for path in ALL:
        for job, step in steps(path):
            if "-artifact@" in step.get("uses", ""):
                asked = step["with"]
                found.setdefault((path.name, job), set()).add(asked.get("name") or asked["pattern"])
    assert found == allowed
    for name in ("gate.yml", "publish.yml"):
        (detect,) = [s for _, s in steps(GITHUB / "workflows" / name) if s.get("id") == "detect"]
        assert detect["env"]["CHECK_NAME"] == "${{ inputs.check-name }}"
    (measure,) = [s for _, s in steps(GITHUB / "workflows" / "gate.yml") if s.get("uses", "").startswith("./")]
    assert measure["with"]["check-name"] == "${{ inputs.check-name }}"


def test_what_begins_a_check_says_for_which_candidates() -> None:
    starts = [s for path in ALL for _, s in steps(path) if s.get("env", {}).get("MODE") == "start"]

    assert [s["env"]["NAMES"] for s in starts] == [
        "${{ steps.detect.outputs.names }}",
        "${{ steps.context.outputs.names }}",
    ]


@pytest.mark.parametrize(
    ("result", "count", "mode"),
    [("success", "0", "measured"), ("success", "2", "finish"), ("failure", "0", "finish"), ("failure", "", "finish")],
)
def test_that_nothing_changed_is_said_by_who_looked(result: str, count: str, mode: str) -> None:
    """A fork's pull request without a checkpoint would otherwise be blocked for ever."""
    assert (
        interpolate(second_stage_mode(), {"needs": {"verify": {"result": result, "outputs": {"count": count}}}}) == mode
    )


def second_stage_mode() -> str:
    (publish,) = [
        s for s in dict(jobs(GITHUB / "workflows" / "publish.yml"))["publish"]["steps"] if s.get("id") == "publish"
    ]
    mode = publish["env"]["MODE"]
    assert isinstance(mode, str)
    return mode


def test_branches_whose_policy_counts_reach_every_verdict() -> None:
    seen = []
    for path in ALL:
        for _, step in steps(path):
            if step.get("env", {}).get("MODE", "start") != "start":
                assert step["env"]["BASE_BRANCHES"] == "${{ inputs.base-branches }}"
                seen.append(path.name)
    assert sorted(seen) == ["action.yml", "gate.yml", "publish.yml", "publish.yml"]


def of_a_run(event: str, conclusion: str, *, fork: bool) -> dict[str, object]:
    """The contexts of a workflow_run for a run of this event that ended so."""
    head = {"full_name": "stranger/models" if fork else "owner/models"}
    run = {"event": event, "conclusion": conclusion, "head_repository": head}
    return {"event_name": "workflow_run", "repository": "owner/models", "event": {"workflow_run": run}}


SECOND_STAGE = [
    # a fork's run is skipped as a whole: gate.yml has no job for it
    ("pull_request", "skipped", True, {"only-forks": True}, True),
    ("pull_request", "skipped", True, {"only-forks": False}, True),
    ("pull_request", "success", True, {"only-forks": True}, True),
    ("pull_request", "failure", True, {"only-forks": True}, True),
    # it waits for somebody's click, and will complete again
    ("pull_request", "action_required", True, {"only-forks": True}, False),
    # somebody's `if:` skipped it here
    ("pull_request", "skipped", False, {"only-forks": False}, False),
    ("pull_request", "success", False, {"only-forks": True}, False),
    ("pull_request", "success", False, {"only-forks": False}, True),
    ("pull_request", "cancelled", False, {"only-forks": False}, True),
    ("merge_group", "failure", False, {"only-forks": False}, True),
    ("merge_group", "success", False, {"only-forks": True}, False),
    # nothing to compare with: `No checkpoint changed` would be said of a commit that nobody looked at
    ("push", "success", False, {"only-forks": False}, False),
    ("schedule", "success", False, {"only-forks": False}, False),
    ("schedule", "success", False, {"only-forks": False, "candidates": "models/w4"}, True),
]


@pytest.mark.parametrize(("event", "conclusion", "fork", "inputs", "runs"), SECOND_STAGE)
def test_which_runs_the_second_stage_answers(
    event: str, conclusion: str, fork: bool, inputs: dict[str, object], runs: bool
) -> None:
    verify = dict(jobs(GITHUB / "workflows" / "publish.yml"))["verify"]
    contexts = {"github": of_a_run(event, conclusion, fork=fork), "inputs": {"candidates": "", **inputs}}

    assert condition(verify["if"], contexts, failed=False) is runs


def test_a_forks_run_of_the_first_stage_has_no_job_at_all() -> None:
    """That is what makes its conclusion `skipped`, which the second stage counts on."""
    found = dict(jobs(GITHUB / "workflows" / "gate.yml"))
    pull = {"head": {"repo": {"full_name": "stranger/models"}}}
    github = {"event_name": "pull_request", "repository": "owner/models", "event": {"pull_request": pull}}
    needs = {"detect": {"result": "skipped", "outputs": {}}}

    assert not condition(found["detect"]["if"], {"github": github}, failed=False)
    assert not condition(found["collect"]["if"], {"github": github, "needs": needs}, failed=False)


def test_the_apps_key_is_for_publishing_jobs_in_their_environment_alone() -> None:
    text = (GITHUB / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert text.count("secrets.QUANTGATE_APP_KEY") == 2
    assert "APP_KEY" not in (GITHUB / "workflows" / "gate.yml").read_text(encoding="utf-8"), "pull requests run that"
    for name, job in jobs(GITHUB / "workflows" / "publish.yml"):
        mints = [s for s in job["steps"] if s.get("uses", "").startswith("actions/create-github-app-token@")]
        if not name.startswith("publish"):
            assert mints == []
            continue
        (mint,) = mints
        assert job["environment"] == "${{ inputs.publish-environment }}"
        assert mint["if"] == "inputs.app-id != ''"
        assert not mint.get("continue-on-error"), "without the App's token nothing is said in its place"
        asked = {key: value for key, value in mint["with"].items() if key.startswith("permission-")}
        assert {key.removeprefix("permission-"): value for key, value in asked.items()} == job["permissions"]
        (publish,) = [s for s in job["steps"] if s.get("id") == "publish"]
        assert "if" not in publish
        token = publish["env"]["GITHUB_TOKEN"]
        context = {"secrets": {"github-token": ""}, "github": {"token": "job"}}
        for minted, used in (("app", "app"), ("", "job")):
            steps_ = {"app": {"outputs": {"token": minted}}}
            assert interpolate(token, {**context, "steps": steps_}) == used


def test_who_judges_trust_knows_the_baselines_folder() -> None:
    found = {
        "gate.yml": "${{ needs.detect.outputs.code-paths || inputs.code-paths }}",
        "publish.yml": "${{ needs.verify.outputs.code-paths || inputs.code-paths }}",
        "action.yml": "${{ steps.policy.outputs.code-paths || inputs.code-paths }}",
    }
    seen = set()
    for path in ALL:
        for _, step in steps(path):
            if step.get("env", {}).get("MODE") in ("finish", "measured"):
                assert step["env"]["CODE_PATHS"] == found[path.name]
                seen.add(path.name)
    assert seen == found.keys()


def test_the_interpreter_of_the_workers_can_be_chosen_everywhere() -> None:
    for name in ("gate.yml", "publish.yml"):
        path = GITHUB / "workflows" / name
        (step,) = [s for _, s in steps(path) if s.get("uses", "").startswith("./.quantgate")]
        assert step["with"]["worker-python"] == "${{ inputs.worker-python }}"
        assert load(path)["on"]["workflow_call"]["inputs"]["worker-python"]["default"] == ""


@pytest.mark.parametrize("folder", [{}, {"folder": "models/w4"}])
def test_a_strangers_checkpoint_is_its_folder_whatever_the_policy_calls_it(folder: dict[str, str]) -> None:
    """Settings of the policy's entry, such as trust_remote_code, are not applied to files of a fork."""
    job = dict(jobs(GITHUB / "workflows" / "publish.yml"))["measure"]
    matrix = {"name": "w4", "candidate": "full" if folder else "models/w4", **folder}
    (extract,) = [s for s in job["steps"] if "extract.sh" in s.get("run", "")]
    (measure,) = [s for s in job["steps"] if s.get("uses", "").startswith("./")]

    assert interpolate(extract["env"]["CANDIDATE"], {"matrix": matrix}) == "models/w4"
    assert measure["with"]["candidate"] == extract["env"]["DESTINATION"] == "${{ runner.temp }}/quantgate-candidate"


def test_measuring_a_stranger_needs_an_environment() -> None:
    job = dict(jobs(GITHUB / "workflows" / "publish.yml"))["measure"]

    assert job["if"].startswith("inputs.environment != ''")
    assert job["environment"] == "${{ inputs.environment }}"


def test_scripts_stop_at_the_first_error() -> None:
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        sourced = script.name in ("git.sh", "code_paths.sh", "artifacts.sh")
        assert sourced or "\nset -euo pipefail\n" in text, script.name
        assert "eval " not in text, script.name


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_a_script_that_is_called_is_there(path: Path) -> None:
    for _, step in steps(path):
        for name in re.findall(r"(?:GITHUB_ACTION_PATH|actions/gate)/(\w+\.(?:sh|py))", step.get("run", "")):
            assert (GITHUB / "actions" / "gate" / name).is_file(), name


def test_every_variable_of_a_script_comes_from_its_step() -> None:
    """A step that forgets one would fail under `set -u`, but only when it runs."""
    given = {"GITHUB_OUTPUT", "GITHUB_ACTION_PATH", "GITHUB_REPOSITORY", "GITHUB_SHA", "GITHUB_PATH", "RUNNER_TEMP"}
    for path in ALL:
        for _, step in steps(path):
            for name in re.findall(r"/(\w+\.sh)", step.get("run", "")):
                text = (GITHUB / "actions" / "gate" / name).read_text(encoding="utf-8")
                if "source=code_paths.sh" in text:
                    text += '"$POLICY" "$BASELINE" "$CODE_PATHS" "$PYTHON"'
                needed = set(re.findall(r"\$\{?([A-Z][A-Z_]+)(?![A-Z_]*:-)\b", text)) - given
                if step.get("env", {}).get("MODE") == "start":
                    needed -= {"RUNS"}  # there is nothing to publish yet
                optional = set(re.findall(r"\$\{([A-Z_]+):-", text))
                assert needed - optional <= set(step.get("env", {})) | {"BASH_SOURCE"}, f"{path.name}: {step['name']}"
