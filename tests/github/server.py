"""A GitHub to publish to: it keeps state and GitHub's rules, and says no in GitHub's words.

Never leaves 127.0.0.1, and never repairs a request.

    with GitHubMock() as github:                 # the repository acme/models, default branch main
        github.url                               # for GITHUB_API_URL; `prefix="/api/v3"`: as GitHub Enterprise has it
        github.add_commit(sha)                   # check runs and statuses on other commits are 422
        github.add_pull(7, sha, files=("a.json",))   # push(7, sha) moves its head, close(7) closes it
        ...
        github.checks, github.comments, github.statuses    # full objects, oldest first
        github.annotations(check_id)             # all of them, in order
        github.calls, github.writes              # every request: method, path, query, body, login, status, fault

Tokens (`TOKENS`): GITHUB_TOKEN (an installation of github-actions), APP (of quantgate-bot), PERSONAL (octocat),
READ_ONLY (GITHUB_TOKEN of a pull request from a fork).  `add_token` registers others.

Faults: `GitHubMock(faults=plan)`, where `plan(call)` gives a `Fault` or None for each request, in order.
`public_url` is the base of the URLs in answers: set it where a proxy stands before this server.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlencode

from tests.github import objects, rules
from tests.github.exchange import Answer, Call, Fault, Refusal, Server
from tests.github.objects import Object

__all__ = ["APP", "GITHUB_TOKEN", "PERSONAL", "READ_ONLY", "TOKENS", "Answer", "Call", "Fault", "GitHubMock", "Refusal"]

REPOSITORY_ID = 4711
GITHUB_TOKEN = "ghs_" + "a" * 36
APP = "ghs_" + "b" * 36
PERSONAL = "ghp_" + "c" * 36
READ_ONLY = "ghs_" + "d" * 36
ALL = {"checks": "write", "pull_requests": "write", "statuses": "write", "contents": "read", "actions": "read"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """`app` is the slug of an installation, None for a person; `permissions`: name → read or write."""

    login: str
    app: str | None
    permissions: Mapping[str, str]


TOKENS: Mapping[str, Token] = {
    GITHUB_TOKEN: Token(login="github-actions[bot]", app="github-actions", permissions=ALL),
    APP: Token(login="quantgate-bot[bot]", app="quantgate-bot", permissions=ALL),
    PERSONAL: Token(login="octocat", app=None, permissions=ALL),
    READ_ONLY: Token(login="github-actions[bot]", app="github-actions", permissions=dict.fromkeys(ALL, "read")),
}


class GitHubMock:
    """A context manager; see the module's text for what it offers."""

    def __init__(
        self,
        repository: str = "acme/models",
        *,
        default_branch: str = "main",
        private: bool = True,
        renamed_from: Iterable[str] = (),
        prefix: str = "",
        port: int = 0,
        faults: Callable[[Call], Fault | None] | None = None,
        rate_limit: int = 100_000,
    ) -> None:
        self.repository, self.default_branch, self.private, self.prefix = repository, default_branch, private, prefix
        self.renamed_from = tuple(renamed_from)
        self.faults = faults or (lambda call: None)
        self.rate_limit, self.rate_reset = rate_limit, 0
        self.tokens = dict(TOKENS)
        self.calls: list[Call] = []
        self.lock = threading.RLock()
        self.released = threading.Event()
        self._seconds = 0
        self._next_id = 1000
        self.default_sha = "f" * 40
        self._commits: set[str] = {self.default_sha}
        self._pulls: dict[int, Object] = {}
        self._compared: dict[tuple[str, str], list[str | tuple[str, str]]] = {}
        self._checks: list[Object] = []
        self._comments: list[Object] = []
        self._events: list[Object] = []
        self._statuses: list[Object] = []
        self._runs: dict[int, Object] = {}
        self._server = Server(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{prefix}"
        self.public_url = self.url
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # what a test sets up

    def add_token(self, token: str, *, login: str, app: str | None, permissions: Mapping[str, str]) -> str:
        self.tokens[token] = Token(login=login, app=app, permissions=permissions)
        return token

    def add_commit(self, sha: str) -> None:
        self._commits.add(sha)

    def add_event(self, pull: int, event: str) -> None:
        """Of a pull request, such as `base_ref_changed`."""
        self._events.append({"id": self._id(), "pull": pull, "event": event})

    def add_pull(
        self,
        number: int,
        head_sha: str,
        *,
        head_repository: str | None = None,
        head_branch: str = "quantize",
        base: str = "main",
        base_sha: str = "0" * 40,
        state: str = "open",
        files: Iterable[str | tuple[str, str]] = ("candidate/config.json",),
    ) -> None:
        """`files`: paths, or (path, previous path) where one was renamed."""
        self.add_commit(head_sha)
        home = head_repository or self.repository
        self._pulls[number] = {
            "number": number,
            "head_sha": head_sha,
            "head_branch": head_branch,
            "head_owner": home.split("/")[0],
            "head_repository": home,
            "base": base,
            "base_sha": base_sha,
            "state": state,
            "author": home.split("/")[0],
            "files": list(files),
            "n_files": len(list(files)),
            "at": objects.EPOCH,
        }
        self.compare(base, head_sha, files)

    def push(self, number: int, sha: str, files: Iterable[str | tuple[str, str]] | None = None) -> None:
        """The pull request's head is another commit from now on."""
        self.add_commit(sha)
        found = self._pulls[number]
        found["head_sha"] = sha
        if files is not None:
            found["files"], found["n_files"] = list(files), len(list(files))
        self.compare(found["base"], sha, found["files"])

    def close(self, number: int) -> None:
        self._pulls[number]["state"] = "closed"

    def compare(self, base: str, head: str, files: Iterable[str | tuple[str, str]]) -> None:
        """What `base...head` changes; other comparisons are 404."""
        self._compared[base, head] = list(files)

    def add_run(self, number: int, *, status: str = "completed", conclusion: str | None = "success") -> None:
        self._runs[number] = {
            "id": number,
            "status": status,
            "conclusion": conclusion if status == "completed" else None,
            "event": "pull_request",
            "head_sha": "a" * 40,
            "head_branch": "quantize",
            "attempt": 1,
        }

    def add_comment(self, pull: int, author: str, body: str) -> int:
        with self.lock:
            at = self._now()
            found: Object = {"id": self._id(), "pull": pull, "author": author, "body": body}
            self._comments.append({**found, "created_at": at, "updated_at": at})
            return int(str(found["id"]))

    def add_check(self, sha: str, name: str, *, app: str, **sent: Any) -> int:
        with self.lock:
            return int(self._new_check({"name": name, "head_sha": sha, **sent}, app)["id"])

    # what a test looks at

    @property
    def checks(self) -> list[Object]:
        with self.lock:
            return [objects.check_run(self.public_url, self._repo(), c) for c in self._checks]

    @property
    def comments(self) -> list[Object]:
        with self.lock:
            return [objects.comment(self.public_url, self._repo(), c) for c in self._comments]

    @property
    def statuses(self) -> list[Object]:
        with self.lock:
            return [objects.status(self.public_url, self._repo(), s) for s in self._statuses]

    @property
    def writes(self) -> list[Call]:
        return [c for c in self.calls if c.method != "GET"]

    def annotations(self, check: int) -> list[Object]:
        with self.lock:
            found = next(c for c in self._checks if c["id"] == check)
            return [objects.annotation(self._repo(), found["head_sha"], a) for a in found["annotations"]]

    # the server

    def answer(self, call: Call) -> Answer:
        """Carry out a request.

        Raises:
            Refusal: GitHub would say no.
        """
        token = self._token(call)
        call.login = token.login if token else None
        if self.rate_limit <= 0:
            raise Refusal(403, "API rate limit exceeded for installation ID 1.")
        self.rate_limit -= 1
        path = call.path
        for old in self.renamed_from:
            if path == f"/repos/{old}" or path.startswith(f"/repos/{old}/"):
                there = f"{self.public_url}/repositories/{REPOSITORY_ID}{path[len('/repos/' + old) :]}"
                moved = {"message": "Moved Permanently", "url": there, "documentation_url": "https://docs.github.com"}
                return Answer(status=301, body=moved, headers={"Location": there})
        for start in (f"/repos/{self.repository}", f"/repositories/{REPOSITORY_ID}"):
            if path.casefold() == start.casefold() or path.casefold().startswith(start.casefold() + "/"):
                return self._in_repository(call, path[len(start) :], token)
        if (call.method, path) == ("GET", "/user"):
            if token is None or token.app is not None:
                raise _forbidden(token)
            return Answer(status=200, body=objects.me(self.public_url, token.login))
        raise Refusal(404, "Not Found")

    def _in_repository(self, call: Call, path: str, token: Token | None) -> Answer:
        for method, pattern, permission, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == call.method:
                self._permit(token, permission, write=method != "GET")
                return action(self, call, token, *match.groups())
        raise Refusal(404, "Not Found")

    def _permit(self, token: Token | None, permission: str, *, write: bool) -> None:
        if token is None:
            if write or self.private:
                raise Refusal(401, "Requires authentication") if write else Refusal(404, "Not Found")
            return
        if permission == "metadata" or (not write and not self.private):
            return
        if permission == "checks" and write and token.app is None:
            raise Refusal(403, "You must authenticate via a GitHub App.")
        held = token.permissions.get(permission)
        if held is None or (write and held != "write"):
            raise _forbidden(token)

    def _token(self, call: Call) -> Token | None:
        header = call.headers.get("authorization", "")
        if not header:
            return None
        found = self.tokens.get(header.split(" ", 1)[-1])
        if found is None:
            raise Refusal(401, "Bad credentials")
        return found

    # routes

    def get_repository(self, call: Call, token: Token | None) -> Answer:
        return Answer(status=200, body=self._repo())

    def create_check(self, call: Call, token: Token) -> Answer:
        body = _object(call)
        _refuse(rules.check_run(body, create=True))
        self._known(body["head_sha"])
        return Answer(status=201, body=self._shown(self._new_check(body, str(token.app))))

    def update_check(self, call: Call, token: Token, number: str) -> Answer:
        found = self._check(number)
        if found["app"] != token.app:
            app = objects.number_of(str(token.app))
            told = f"Invalid app_id `{app}` - check run can only be modified by the GitHub App that created it."
            raise Refusal(403, told)
        body = _object(call)
        _refuse(rules.check_run(body, create=False))
        self._apply(found, body)
        return Answer(status=200, body=self._shown(found))

    def get_check(self, call: Call, token: Token | None, number: str) -> Answer:
        return Answer(status=200, body=self._shown(self._check(number)))

    def get_annotations(self, call: Call, token: Token | None, number: str) -> Answer:
        found = self._check(number)
        return self._page(call, [objects.annotation(self._repo(), found["head_sha"], a) for a in found["annotations"]])

    def list_checks(self, call: Call, token: Token | None, ref: str) -> Answer:
        sha = self._resolve(unquote(ref))
        found = [c for c in reversed(self._checks) if c["head_sha"] == sha]
        if "check_name" in call.query:
            found = [c for c in found if c["name"] == call.query["check_name"]]
        if "status" in call.query:
            found = [c for c in found if c["status"] == call.query["status"]]
        if call.query.get("filter", "latest") == "latest":
            newest: dict[tuple[str, str], Object] = {}
            for check in found:
                newest.setdefault((check["app"], check["name"]), check)
            found = list(newest.values())
        return self._page(call, [self._shown(c) for c in found], key="check_runs")

    def create_status(self, call: Call, token: Token, sha: str) -> Answer:
        body = _object(call)
        self._known(sha)
        _refuse(rules.status(body))
        found = {
            "id": self._id(),
            "sha": sha,
            "state": body["state"],
            "context": body.get("context", "default"),
            "description": body.get("description"),
            "target_url": body.get("target_url"),
            "author": token.login,
            "created_at": self._now(),
        }
        self._statuses.append(found)
        return Answer(status=201, body=objects.status(self.public_url, self._repo(), found))

    def list_statuses(self, call: Call, token: Token | None, ref: str) -> Answer:
        sha = self._resolve(unquote(ref))
        found = [s for s in reversed(self._statuses) if s["sha"] == sha]
        return self._page(call, [objects.status(self.public_url, self._repo(), s) for s in found])

    def get_commit(self, call: Call, token: Token | None, ref: str) -> Answer:
        return Answer(status=200, body=objects.commit(self.public_url, self._repo(), self._resolve(unquote(ref))))

    def list_comments(self, call: Call, token: Token | None, number: str) -> Answer:
        self._pull(number)
        found = [c for c in self._comments if c["pull"] == int(number)]
        return self._page(call, [objects.comment(self.public_url, self._repo(), c) for c in found])

    def create_comment(self, call: Call, token: Token, number: str) -> Answer:
        self._pull(number)
        body = _object(call)
        _refuse(rules.comment(body))
        created = self.add_comment(int(number), token.login, body["body"])
        return Answer(status=201, body=objects.comment(self.public_url, self._repo(), self._comment(str(created))))

    def update_comment(self, call: Call, token: Token, number: str) -> Answer:
        found = self._comment(number)
        if found["author"] != token.login and token.app is None:
            raise Refusal(403, "Must have admin rights to Repository.")
        body = _object(call)
        _refuse(rules.comment(body))
        found.update(body=body["body"], updated_at=self._now())
        return Answer(status=200, body=objects.comment(self.public_url, self._repo(), found))

    def delete_comment(self, call: Call, token: Token, number: str) -> Answer:
        self._comments.remove(self._comment(number))
        return Answer(status=204, body=None)

    def get_pull(self, call: Call, token: Token | None, number: str) -> Answer:
        return Answer(status=200, body=self._shown_pull(self._pull(number)))

    def list_pulls(self, call: Call, token: Token | None) -> Answer:
        state, head, base = call.query.get("state", "open"), call.query.get("head"), call.query.get("base")
        found = [p for p in self._pulls.values() if state == "all" or p["state"] == state]
        if head is not None and ":" in head:  # GitHub ignores a filter that it cannot read
            found = [p for p in found if head == f"{p['head_owner']}:{p['head_branch']}"]
        if base is not None:
            found = [p for p in found if p["base"] == base]
        return self._page(call, [self._shown_pull(p) for p in reversed(found)])

    def pulls_of_commit(self, call: Call, token: Token | None, sha: str) -> Answer:
        found = [p for p in self._pulls.values() if p["head_sha"] == sha and p["head_repository"] == self.repository]
        return self._page(call, [self._shown_pull(p) for p in found])

    def list_files(self, call: Call, token: Token | None, number: str) -> Answer:
        found = self._pull(number)
        return self._page(call, self._files(found["files"][:3000], found["head_sha"]))

    def get_comparison(self, call: Call, token: Token | None, base_head: str) -> Answer:
        base, _, head = unquote(base_head).partition("...")
        if (base, head) not in self._compared:
            raise Refusal(404, "Not Found")
        files = self._files(self._compared[base, head][:300], head)
        body = objects.comparison(self.public_url, self._repo(), base, head, files)
        return Answer(status=200, body=body)

    def list_events(self, call: Call, token: Token | None, number: str) -> Answer:
        self._pull(number)
        found = [e for e in self._events if e["pull"] == int(number)]
        return self._page(call, [objects.issue_event(self.public_url, self._repo(), e) for e in found])

    def get_run(self, call: Call, token: Token | None, number: str) -> Answer:
        found = self._runs.get(int(number))
        if found is None:
            raise Refusal(404, "Not Found")
        return Answer(status=200, body=objects.workflow_run(self.public_url, self._repo(), found))

    # state

    def _repo(self, name: str | None = None) -> Object:
        fork = name is not None and name != self.repository
        return objects.repository(
            self.public_url,
            name or self.repository,
            number=objects.number_of(str(name)) if fork else REPOSITORY_ID,
            default_branch=self.default_branch,
            private=self.private,
            fork=fork,
        )

    def _new_check(self, body: Object, app: str) -> Object:
        empty = dict.fromkeys(("title", "summary", "text", "conclusion", "completed_at", "external_id"))
        check: Object = {
            "id": self._id(),
            "app": app,
            "annotations": [],
            **empty,
            "external_id": "",
            "status": "queued",
        }
        check |= {"name": body["name"], "head_sha": body["head_sha"], "started_at": self._now()}
        check["external_id"], check["details_url"] = "", f"https://github.com/{self.repository}"
        self._apply(check, body)
        self._checks.append(check)
        return check

    def _apply(self, check: Object, body: Object) -> None:
        for key in ("name", "details_url", "external_id", "started_at", "status", "conclusion", "completed_at"):
            if key in body:
                check[key] = body[key]
        if "conclusion" in body:
            check["status"] = "completed"
            check["completed_at"] = body.get("completed_at") or self._now()
        elif "status" in body:
            check["conclusion"] = check["completed_at"] = None
        output = body.get("output", {})
        check.update({key: output[key] for key in ("title", "summary", "text") if key in output})
        check["annotations"] = check["annotations"] + output.get("annotations", [])

    def _shown(self, check: Object) -> Object:
        return objects.check_run(self.public_url, self._repo(), check)

    def _shown_pull(self, found: Object) -> Object:
        head = self._repo(found["head_repository"]) if found["head_repository"] else None
        return objects.pull(self.public_url, self._repo(), found, head)

    def _files(self, found: list[str | tuple[str, str]], sha: str) -> list[Object]:
        pairs = [(f, None) if isinstance(f, str) else f for f in found]
        return [objects.file(self._repo(), path, sha, previous=previous) for path, previous in pairs]

    def _page(self, call: Call, found: list[Object], key: str | None = None) -> Answer:
        per_page = min(max(int(call.query.get("per_page", 30)), 1), 100)
        page = max(int(call.query.get("page", 1)), 1)
        shown = found[(page - 1) * per_page : page * per_page]
        last = max((len(found) + per_page - 1) // per_page, 1)
        links = []
        for name, there in (("prev", page - 1), ("next", page + 1), ("last", last), ("first", 1)):
            if 1 <= there <= last and not (name in ("last", "next") and page >= last) and (name != "first" or page > 1):
                query = urlencode({**call.query, "per_page": per_page, "page": there})
                links.append(f'<{self.public_url}{call.path}?{query}>; rel="{name}"')
        body = shown if key is None else {"total_count": len(found), key: shown}
        return Answer(status=200, body=body, headers={"Link": ", ".join(links)} if links else {})

    def _check(self, number: str) -> Object:
        return _one(c for c in self._checks if c["id"] == int(number))

    def _comment(self, number: str) -> Object:
        return _one(c for c in self._comments if c["id"] == int(number))

    def _pull(self, number: str) -> Object:
        return _one(p for p in self._pulls.values() if p["number"] == int(number))

    def _known(self, sha: str) -> None:
        if sha not in self._commits:
            raise Refusal(422, f"No commit found for SHA: {sha}")

    def _resolve(self, ref: str) -> str:
        if ref == self.default_branch:
            return self.default_sha
        if ref not in self._commits:
            raise Refusal(422, f"No commit found for SHA: {ref}")
        return ref

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _now(self) -> str:
        self._seconds += 1
        minutes, seconds = divmod(self._seconds, 60)
        return f"2026-01-01T{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}Z"


_ROUTES: tuple[tuple[str, str, str, Callable[..., Answer]], ...] = (
    ("GET", r"", "metadata", GitHubMock.get_repository),
    ("POST", r"/check-runs", "checks", GitHubMock.create_check),
    ("PATCH", r"/check-runs/(\d+)", "checks", GitHubMock.update_check),
    ("GET", r"/check-runs/(\d+)", "checks", GitHubMock.get_check),
    ("GET", r"/check-runs/(\d+)/annotations", "checks", GitHubMock.get_annotations),
    ("GET", r"/commits/([^/]+)/check-runs", "checks", GitHubMock.list_checks),
    ("GET", r"/commits/([^/]+)/statuses", "statuses", GitHubMock.list_statuses),
    ("GET", r"/commits/([^/]+)/pulls", "pull_requests", GitHubMock.pulls_of_commit),
    ("GET", r"/commits/([^/]+)", "contents", GitHubMock.get_commit),
    ("POST", r"/statuses/([^/]+)", "statuses", GitHubMock.create_status),
    ("GET", r"/issues/(\d+)/comments", "pull_requests", GitHubMock.list_comments),
    ("POST", r"/issues/(\d+)/comments", "pull_requests", GitHubMock.create_comment),
    ("PATCH", r"/issues/comments/(\d+)", "pull_requests", GitHubMock.update_comment),
    ("DELETE", r"/issues/comments/(\d+)", "pull_requests", GitHubMock.delete_comment),
    ("GET", r"/pulls", "pull_requests", GitHubMock.list_pulls),
    ("GET", r"/pulls/(\d+)", "pull_requests", GitHubMock.get_pull),
    ("GET", r"/pulls/(\d+)/files", "pull_requests", GitHubMock.list_files),
    ("GET", r"/compare/(.+)", "contents", GitHubMock.get_comparison),
    ("GET", r"/issues/(\d+)/events", "pull_requests", GitHubMock.list_events),
    ("GET", r"/actions/runs/(\d+)", "actions", GitHubMock.get_run),
)


def _forbidden(token: Token | None) -> Refusal:
    kind = "integration" if token and token.app else "personal access token"
    return Refusal(403, f"Resource not accessible by {kind}")


def _refuse(errors: list[Object]) -> None:
    if errors:
        raise Refusal(422, "Validation Failed", errors)


def _one(found: Iterable[Object]) -> Object:
    for one in found:
        return one
    raise Refusal(404, "Not Found")


def _object(call: Call) -> Object:
    if not isinstance(call.body, dict):
        raise Refusal(400, "Problems parsing JSON")
    return call.body
