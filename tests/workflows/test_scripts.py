"""The scripts that the workflows run outside of the action: detect, verify, extract, and whose cache it is.

In the second stage a stranger's commit and artifacts go through these; nothing of them may be executed or believed.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.workflows.repository import Repository, git, make_repository
from tests.workflows.runner import ACTION, read_outputs
from tests.workflows.stand_in import StandIn, stand_in

WEIGHTS = b"real weights"
POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(WEIGHTS).hexdigest()}\nsize 12\n".encode()
)
CANDIDATE: dict[str, bytes] = {
    "models/w4/config.json": b"{}\n",
    "models/w4/weights.safetensors": bytes(range(256)) * 8,
    "models/w4/deep/er/big.safetensors": POINTER,
    "models/w4/.gitattributes": b"weights.safetensors export-ignore\n*.json text eol=crlf\n* filter=evil\n",
    "models/other/config.json": b"{}\n",
    "models/na me*[x]/config.json": b"{}\n",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    base = {"thresholds/policy.yaml": b"version: 1\n", ".github/workflows/gate.yml": b"on: push\n"}
    return make_repository(tmp_path_factory.mktemp("origin") / "r", base, CANDIDATE)


def script(
    name: str, folder: Path, environ: Mapping[str, str], *, path: Path | None = None
) -> tuple[int, dict[str, str], str]:
    """(exit code, outputs, log) of one of the action's scripts in this folder."""
    temp = folder.parent / "temp"
    temp.mkdir(exist_ok=True)
    output = temp / "output"
    output.write_text("", encoding="utf-8")
    done = subprocess.run(
        ["bash", str(ACTION / name)],
        cwd=folder,
        env={
            "PATH": f"{path}:/usr/bin:/bin" if path else "/usr/bin:/bin",
            "HOME": str(temp),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_PATH": str(temp / "path"),
            "GITHUB_SERVER_URL": "https://github.invalid",
            "RUNNER_TEMP": str(temp),
            "PYTHON": sys.executable,
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return done.returncode, read_outputs(output.read_text(encoding="utf-8")), done.stdout.decode("utf-8", "replace")


def default_branch(tmp_path: Path, repository: Repository) -> Path:
    return repository.checkout(tmp_path / "workspace", repository.base)


# detect


def detect(tmp_path: Path, repository: Repository, gate: StandIn, **environ: str) -> tuple[int, dict[str, str], str]:
    known = {"BASE": repository.base, "HEAD": repository.head, "LIST": "", "POLICY": "thresholds/policy.yaml"}
    known["CHECK_NAME"] = "quantgate"
    known |= gate.environ
    folder = default_branch(tmp_path, repository)
    found = script("detect.sh", folder, {**known, **environ}, path=gate.folder)
    assert not (folder / "models").exists(), "the pull request's tree was checked out"
    return found


def test_detect_fetches_both_commits_and_where_they_part(tmp_path: Path, repository: Repository) -> None:
    found = [{"name": "w4", "candidate": "models/w4"}, {"name": "x", "candidate": "models/x"}]
    gate = stand_in(tmp_path / "bin", detected=found)

    code, outputs, _ = detect(tmp_path, repository, gate, PATHS="models/**\nmore/**\n", CODE_PATHS="scripts/**")

    assert code == 0
    assert json.loads(outputs["names"]) == ["w4", "x"]
    assert outputs["count"] == "2"
    assert outputs["code-changed"] == "false"
    arguments = gate.call("ci detect")["arguments"]
    assert arguments[2:] == [
        *("--base", repository.base, "--head", repository.head, "--policy", "thresholds/policy.yaml"),
        *("--paths", "models/**", "--paths", "more/**"),
    ]
    assert outputs["artifacts"] == "quantgate"
    workspace = tmp_path / "workspace"
    assert git(workspace, "merge-base", repository.base, repository.head)


def test_a_list_replaces_the_search(tmp_path: Path, repository: Repository) -> None:
    gate = stand_in(tmp_path / "bin")

    detect(tmp_path, repository, gate, LIST="a\nb")

    arguments = gate.call("ci detect")["arguments"]
    assert arguments[arguments.index("--list") + 1] == "a\nb"


def test_a_change_of_code_is_seen_from_git_alone(tmp_path: Path, repository: Repository) -> None:
    _, outputs, _ = detect(tmp_path, repository, stand_in(tmp_path / "bin"), CODE_PATHS="models/w4/**\n")

    assert outputs["code-changed"] == "true"


@pytest.mark.parametrize("event", ["schedule", "workflow_dispatch", "repository_dispatch"])
def test_an_event_that_compares_nothing_needs_a_list(tmp_path: Path, repository: Repository, event: str) -> None:
    gate = stand_in(tmp_path / "bin")

    code, outputs, log = detect(tmp_path, repository, gate, EVENT=event, HEAD=repository.base, LIST=" \n")

    assert (code, outputs, gate.calls) == (2, {}, [])
    assert "name what to gate with the input candidates" in log


def test_a_pull_requests_target_is_not_looked_at(tmp_path: Path, repository: Repository) -> None:
    gate = stand_in(tmp_path / "bin")

    code, outputs, log = detect(tmp_path, repository, gate, EVENT="pull_request_target", LIST="models/w4")

    assert (code, outputs, gate.calls) == (2, {}, [])
    assert "use pull_request, and publish.yml for forks" in log


@pytest.mark.parametrize("check", ["strict", "quantgate-run-x", " quantgate", "$(touch pwned)"])
def test_artifacts_of_another_check_have_another_name(tmp_path: Path, repository: Repository, check: str) -> None:
    gate = stand_in(tmp_path / "bin")

    _, outputs, _ = detect(tmp_path, repository, gate, CHECK_NAME=check)

    assert outputs["artifacts"] == f"quantgate-{hashlib.sha256(check.encode()).hexdigest()[:12]}"


def test_what_detection_refuses_ends_it(tmp_path: Path, repository: Repository) -> None:
    gate = stand_in(tmp_path / "bin", codes={"ci detect": 2})

    code, _, _ = detect(tmp_path, repository, gate)

    assert code == 2


@pytest.mark.parametrize(("event", "listed"), [("schedule", "models/w4"), ("push", ""), ("merge_group", "")])
def test_other_events_and_lists_are_looked_at(tmp_path: Path, repository: Repository, event: str, listed: str) -> None:
    gate = stand_in(tmp_path / "bin")

    code, _, log = detect(tmp_path, repository, gate, EVENT=event, LIST=listed)

    assert code == 0, log
    assert gate.commands() == ["ci detect"]


@pytest.mark.parametrize("sha", ["--upload-pack=touch pwned", "HEAD", "main", "", "abc", "0" * 39 + "g"])
def test_what_is_no_hash_never_reaches_git(tmp_path: Path, repository: Repository, sha: str) -> None:
    gate = stand_in(tmp_path / "bin")

    code, _, log = detect(tmp_path, repository, gate, HEAD=sha)

    assert code == 2
    assert "expected the hash of a commit" in log
    assert gate.calls == []
    assert not list(tmp_path.rglob("pwned"))


def test_the_first_push_of_a_branch_has_no_base_to_fetch(tmp_path: Path, repository: Repository) -> None:
    gate = stand_in(tmp_path / "bin")

    code, outputs, _ = detect(tmp_path, repository, gate, BASE="0" * 40)

    assert code == 0
    assert outputs["code-changed"] == "true", "not known is not unchanged"


# extract


def extract(
    tmp_path: Path, repository: Repository, candidate: str, head: str = "", lfs: str = "exit 1"
) -> tuple[int, str]:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "git-lfs").write_text(f"#!/bin/sh\n{lfs}\n", encoding="utf-8")
    (bin_folder / "git-lfs").chmod(0o755)
    folder = default_branch(tmp_path, repository)
    hooks = folder / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-checkout", "reference-transaction"):
        (hooks / hook).write_text("#!/bin/sh\ntouch pwned\n", encoding="utf-8")
        (hooks / hook).chmod(0o755)
    environ = {"HEAD": head or repository.head, "CANDIDATE": candidate, "DESTINATION": str(tmp_path / "data")}
    code, _, log = script("extract.sh", folder, environ, path=bin_folder)
    assert not (folder / "models").exists(), "the pull request's tree was checked out"
    assert not list(tmp_path.rglob("pwned"))
    return code, log


SMUDGE = """\
test "$1" = smudge || exit 2
if [ -n "$GIT_LFS_SKIP_SMUDGE" ]; then exec cat; fi
cat >/dev/null
printf "real weights"
"""
"""As git-lfs does, which hands the pointer back where nothing is to be downloaded."""


def test_extract_copies_the_bytes_whatever_the_commits_attributes_say(tmp_path: Path, repository: Repository) -> None:
    code, log = extract(tmp_path, repository, "models/w4", lfs=SMUDGE)

    assert code == 0, log
    files = {
        str(f.relative_to(tmp_path / "data")): f.read_bytes() for f in (tmp_path / "data").rglob("*") if f.is_file()
    }
    expected = {n.removeprefix("models/w4/"): data for n, data in CANDIDATE.items() if n.startswith("models/w4/")}
    assert files == {**expected, "deep/er/big.safetensors": b"real weights"}


def test_a_name_with_magic_is_a_name(tmp_path: Path, repository: Repository) -> None:
    code, log = extract(tmp_path, repository, "models/na me*[x]")

    assert code == 0, log
    assert [f.name for f in (tmp_path / "data").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "candidate",
    [
        "../outside",
        "models/../..",
        "/etc",
        "models//w4",
        ".git",
        "models/w4/config.json",
        "nowhere",
        "--help",
        "",
        "a\nb",
    ],
)
def test_a_path_that_is_no_folder_of_the_commit_is_refused(
    tmp_path: Path, repository: Repository, candidate: str
) -> None:
    code, log = extract(tmp_path, repository, candidate)

    assert code == 2
    assert "::error" in log


def test_links_and_submodules_are_refused(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r", {"a": b"x"}, CANDIDATE)
    link = repository.root / "models" / "w4" / "tokenizer.json"
    git(repository.root, "checkout", "--quiet", repository.head)
    link.symlink_to("/etc/passwd")
    git(repository.root, "add", "--all")
    git(repository.root, "commit", "--quiet", "--message=link")
    head = git(repository.root, "rev-parse", "HEAD")

    code, log = extract(tmp_path, repository, "models/w4", head=head)

    assert code == 2
    assert "a link or a submodule" in log
    assert not (tmp_path / "data" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    "given", ["cat", "cat >/dev/null; printf other-weights", "cat >/dev/null; printf 'real weightt'"]
)
def test_what_lfs_gives_is_what_the_pointer_names(tmp_path: Path, repository: Repository, given: str) -> None:
    code, log = extract(tmp_path, repository, "models/w4", lfs=given)

    assert code == 2
    assert "LFS gave something else" in log


@pytest.mark.parametrize(
    "pointer",
    [
        POINTER.replace(b"sha256:", b"sha1:"),
        POINTER.replace(b"size 12", b"size many"),
        POINTER + b"size 13\n",
        POINTER + b"oid sha256:" + b"a" * 64 + b"\n",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_pointer_that_names_no_object_is_refused(tmp_path: Path, pointer: bytes) -> None:
    repository = make_repository(tmp_path / "r", {"a": b"x"}, {"models/w4/big.safetensors": pointer})

    code, log = extract(tmp_path, repository, "models/w4", lfs=SMUDGE)

    assert code == 2
    assert "names no object" in log


def test_a_pointer_whose_object_is_missing_stops_everything(tmp_path: Path, repository: Repository) -> None:
    code, _ = extract(tmp_path, repository, "models/w4", lfs="exit 2")

    assert code != 0


# verify


def verify(tmp_path: Path, gate: StandIn, names: object) -> tuple[int, Path, str]:
    (tmp_path / "workspace").mkdir()
    clean = tmp_path / "clean"
    environ = {
        "ARTIFACTS": str(tmp_path / "artifacts"),
        "CLEAN": str(clean),
        "NAMES": json.dumps(names),
        "POLICY": "policy.yaml",
        "WAIVERS": "waivers.yaml",
        **gate.environ,
    }
    code, _, log = script("verify.sh", tmp_path / "workspace", environ, path=gate.folder)
    return code, clean, log


def test_only_expected_folders_that_verify_are_handed_on(tmp_path: Path) -> None:
    for name in ("good", "forged", "uninvited"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
    (tmp_path / "artifacts" / "linked").symlink_to("/etc")
    gate = stand_in(tmp_path / "bin", codes={"verify forged": 4})

    code, clean, log = verify(tmp_path, gate, ["good", "forged", "missing", "linked", "../up", "a b"])

    assert code == 0
    assert sorted(f.name for f in clean.iterdir()) == ["good"]
    assert [c["arguments"][2] for c in gate.calls] == [str(tmp_path / "artifacts" / n) for n in ("good", "forged")]
    assert "forged: the artifact could not be verified" in log
    assert "missing: no artifact came back" in log
    assert "../up" not in log


# share


def share(tmp_path: Path, run: str = '{"exit_code": 0}', **environ: str) -> tuple[int, dict[str, str], StandIn]:
    """The step after a run that ended with 0."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(run, encoding="utf-8")
    gate = stand_in(tmp_path / "bin")
    known = {"OUT": str(tmp_path / "out"), "SHARED": str(tmp_path / "shared"), "CODE": "0", "GOVERN": ""}
    known |= {"GOVERNED": "skipped", **gate.environ, **environ}
    code, outputs, _ = script("share.sh", tmp_path, known, path=gate.folder)
    return code, outputs, gate


@pytest.mark.parametrize(("governed", "code"), [("skipped", ""), ("success", "0")])
def test_a_record_that_agrees_with_its_run_is_shared(tmp_path: Path, governed: str, code: str) -> None:
    ended, outputs, gate = share(tmp_path, GOVERNED=governed, GOVERN=code)

    assert (ended, outputs) == (0, {"ready": "true"})
    assert gate.commands() == ["share"]


@pytest.mark.parametrize(
    "environ",
    [
        {"CODE": "70"},
        {"CODE": "4"},
        {"GOVERNED": "success", "GOVERN": "4"},
        {"GOVERNED": "success", "GOVERN": ""},  # it never came to say
        {"GOVERNED": "failure", "GOVERN": ""},
        {"GOVERNED": "cancelled", "GOVERN": ""},
        {"GOVERNED": ""},
        {"run": "{}"},
        {"run": "half a rec"},
        {"run": '{"exit_code": null}'},
    ],
)
def test_a_record_of_which_something_is_missing_stays(tmp_path: Path, environ: dict[str, str]) -> None:
    ended, outputs, gate = share(tmp_path, **environ)

    assert (ended, outputs) == (1, {"ready": "false"})
    assert gate.calls == []


# whose cache


class _Caches(http.server.BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, b"{}")
    asked: str = ""

    def do_GET(self) -> None:
        type(self).asked = f"{self.path} {self.headers['Authorization']}"
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def caches() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Caches) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ((200, b'{"total_count": 0, "actions_caches": []}'), 0, ""),
        ((200, b'{"total_count": 1, "actions_caches": [{}]}'), 1, "stored by this pull request"),
        ((403, b"{}"), 1, "(403): the baselines are measured again; needs actions: read"),
        ((200, b"<html>"), 1, "cannot be asked"),
        ((200, b"{}"), 1, "cannot be asked"),
        ((200, b"[]"), 1, "cannot be asked"),
        ((200, b'{"total_count": null}'), 1, "cannot be asked"),
    ],
)
def test_a_restored_cache_counts_only_if_this_pull_request_has_none_of_its_own(
    caches: str, answer: tuple[int, bytes], code: int, says: str
) -> None:
    _Caches.answer = answer
    environ = {
        "GITHUB_API_URL": caches,
        "GITHUB_REPOSITORY": "owner/models",
        "GITHUB_REF": "refs/pull/7/merge",
        "GITHUB_TOKEN": "ghs_x",
    }

    done = subprocess.run(
        [sys.executable, "-I", str(ACTION / "cache_origin.py"), "quantgate-store-a&b"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == code
    assert says in done.stdout
    assert _Caches.asked.startswith(
        "/repos/owner/models/actions/caches?key=quantgate-store-a%26b&ref=refs%2Fpull%2F7%2Fmerge"
    )
    assert _Caches.asked.endswith("Bearer ghs_x")


# git


def test_the_token_is_sent_to_the_server_alone_and_replaces_what_the_checkout_left(tmp_path: Path) -> None:
    probe = tmp_path / "probe.sh"
    probe.write_text(
        f'source "{ACTION}/git.sh"\nquantgate_git\ngit config --get-urlmatch http.extraheader https://github.invalid/x\n'
        "git config --get-urlmatch http.extraheader https://elsewhere.invalid/x || echo none\n"
        'echo "left: ${FETCH_TOKEN:-}"\n',
        encoding="utf-8",
    )
    environ = {"PATH": "/usr/bin:/bin", "GITHUB_SERVER_URL": "https://github.invalid", "FETCH_TOKEN": "ghs_" + "x" * 90}

    done = subprocess.run(["bash", str(probe)], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)

    header, elsewhere, left = done.stdout.splitlines()
    assert header == "AUTHORIZATION: basic " + base64.b64encode(b"x-access-token:ghs_" + b"x" * 90).decode()
    assert elsewhere == "none"
    assert left == "left: "
