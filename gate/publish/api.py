"""The client that talks to GitHub, through github3's session, iterator and errors.

Not through github3's models: they follow addresses that stand in answers, and fail on accounts that are gone
(`"user": null`).  Every address here is built from GITHUB_API_URL; whatever an answer holds is checked for its type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from github3.exceptions import GitHubError, GitHubException
from github3.structs import GitHubIterator

from gate.publish.client import Body, Check, Comment, CommitStatus, Pull
from gate.publish.problem import PublishError, Unanswered, refused

if TYPE_CHECKING:
    import requests

    from gate.publish.session import Session

MAX_COMPARED = 300
"""Files that GitHub lists in a comparison: with as many, there may be more."""

MAX_PULL_FILES = 3000
_RETARGETED = ("base_ref_changed", "automatic_base_change_succeeded")

Json = Mapping[str, Any]


class GitHubClient:
    """One repository of one GitHub."""

    def __init__(self, session: Session, repository: str) -> None:
        self._session, self._given = session, repository
        self._repository: Json | None = None

    def __repr__(self) -> str:
        return f"<GitHubClient of {self._given}>"

    def close(self) -> None:
        self._session.close()

    def default_branch(self) -> str:
        return _text(self._home(), "default_branch")

    def checks(self, ref: str, name: str) -> Sequence[Check]:
        # the default filter shows the newest of a name only, which hides what has to be found
        query = {"check_name": name, "filter": "all", "per_page": "100"}
        found = self._all(("commits", ref, "check-runs"), query, list_key="check_runs")
        return sorted((_check(one) for one in found if one.get("name") == name), key=lambda check: check.id)

    def check(self, number: int) -> Check:
        return _check(self._get("check-runs", str(number)))

    def create_check(self, body: Body) -> Check:
        return _check(self._send("POST", ("check-runs",), body, 201))

    def update_check(self, number: int, body: Body) -> Check:
        return _check(self._send("PATCH", ("check-runs", str(number)), body, 200))

    def find_status(self, sha: str, context: str) -> CommitStatus | None:
        for one in self._all(("commits", sha, "statuses"), {"per_page": "100"}):  # newest first
            if one.get("context") == context:
                texts = {key: one.get(key) or "" for key in ("state", "description", "target_url")}
                return CommitStatus(**texts)
        return None

    def create_status(self, sha: str, body: Body) -> None:
        self._send("POST", ("statuses", sha), body, 201)

    def comments(self, pull: int) -> Sequence[Comment]:
        found = self._all(("issues", str(pull), "comments"), {"per_page": "100"})
        return sorted((_comment(one) for one in found), key=lambda comment: comment.id)

    def create_comment(self, pull: int, body: str) -> None:
        self._send("POST", ("issues", str(pull), "comments"), {"body": body}, 201)

    def update_comment(self, number: int, body: str) -> None:
        self._send("PATCH", ("issues", "comments", str(number)), {"body": body}, 200)

    def delete_comment(self, number: int) -> None:
        self._send("DELETE", ("issues", "comments", str(number)), None, 204)

    def pull(self, number: int) -> Pull:
        return _pull(self._get("pulls", str(number)))

    def pulls_of(self, head_repository: str, head_branch: str) -> Sequence[Pull]:
        head = f"{head_repository.split('/')[0]}:{head_branch}"
        found = self._all(("pulls",), {"head": head, "state": "all", "per_page": "100"})
        pulls = [_pull(one) for one in found]
        # GitHub leaves out a filter that it does not understand, and an owner may have two forks
        return [p for p in pulls if p.head_repository.casefold() == head_repository.casefold()]

    def open_pulls(self) -> Sequence[Pull]:
        return [_pull(one) for one in self._all(("pulls",), {"state": "open", "per_page": "100"})]

    def retargeted(self, pull: int) -> bool:
        events = self._all(("issues", str(pull), "events"), {"per_page": "100"})
        return any(one.get("event") in _RETARGETED for one in events)

    def compared(self, base: str, head: str) -> Sequence[str] | None:
        found = self._get("compare", f"{base}...{head}", query={"per_page": "1"}).get("files")
        if not isinstance(found, list) or len(found) >= MAX_COMPARED:
            return None
        return _paths(found)

    def pull_files(self, pull: int, head_sha: str) -> Sequence[str] | None:
        stated = self._get("pulls", str(pull)).get("changed_files")
        found = self._all(("pulls", str(pull), "files"), {"per_page": "100"})
        # the list is that of the head of this moment, which a push moves: each file says which commit it is of
        if any(head_sha not in _text(f, "contents_url") for f in found if f.get("status") != "removed"):
            return None
        return _paths(found) if stated == len(found) < MAX_PULL_FILES else None

    def run_status(self, run: int) -> str | None:
        try:
            return _text(self._get("actions", "runs", str(run)), "status")
        except PublishError as problem:
            if problem.status == 404:
                return None
            raise

    def login(self) -> str:
        return _text(self._read(f"{self._session.base_url}/user", None), "login")

    # calls

    def _home(self) -> Json:
        """The repository under its present name: GitHub leads a read there, but turns a write into a read."""
        if self._repository is None:
            self._repository = self._read(f"{self._session.base_url}/repos/{self._given}", None)
        return self._repository

    def _url(self, parts: Sequence[str]) -> str:
        name = _text(self._home(), "full_name")
        return "/".join((self._session.base_url, "repos", name, *(quote(part, safe="") for part in parts)))

    def _get(self, *parts: str, query: Mapping[str, str] | None = None) -> Json:
        return self._read(self._url(parts), query)

    def _read(self, url: str, query: Mapping[str, str] | None) -> Json:
        call = f"GET {self._session.shown(url)}"
        return self._object(call, self._session.get(url, params=query), 200)

    def _all(self, parts: Sequence[str], query: Mapping[str, str], list_key: str | None = None) -> list[Json]:
        """Every page of a list."""
        url = self._url(parts)
        call = f"GET {self._session.shown(url)}"
        try:
            found = list(GitHubIterator(-1, url, dict, self._session, dict(query), list_key=list_key))
        except GitHubError as problem:
            if getattr(problem, "response", None) is None:
                raise PublishError(f"GitHub's answer to {call} is not understood") from None
            raise self._refused(call, problem.response) from None
        except (GitHubException, TypeError, ValueError) as problem:
            raise PublishError(f"GitHub's answer to {call} is not understood ({type(problem).__name__})") from None
        return found

    def _send(self, method: str, parts: Sequence[str], body: Body | None, expected: int) -> Json:
        url = self._url(parts)
        data = None if body is None else json.dumps(body)
        response = self._session.request(method, url, data=data)
        call = f"{method} {self._session.shown(url)}"
        return {} if response.status_code == expected == 204 else self._object(call, response, expected)

    def _object(self, call: str, response: requests.Response, expected: int) -> Json:
        if response.status_code != expected:
            raise self._refused(call, response)
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            kind = PublishError if call.startswith("GET ") else Unanswered
            raise kind(f"GitHub's answer to {call} is not understood, expected a JSON object")
        return found

    def _refused(self, call: str, response: requests.Response) -> PublishError:
        problem = refused(call, response.status_code, response.content)
        return type(problem)(self._session.scrub(str(problem)), status=problem.status)


def _check(found: Json) -> Check:
    output, app = found.get("output"), found.get("app")
    annotations = output.get("annotations_count") if isinstance(output, dict) else 0
    return Check(
        id=_number(found, "id"),
        name=_text(found, "name"),
        external_id=found.get("external_id") or "",
        status=_text(found, "status"),
        conclusion=found.get("conclusion"),
        started_at=found.get("started_at") or "",
        annotations=annotations if isinstance(annotations, int) else 0,
        app=app.get("slug") or "" if isinstance(app, dict) else "",
    )


def _comment(found: Json) -> Comment:
    user = found.get("user")
    author = user.get("login") if isinstance(user, dict) else ""
    return Comment(id=_number(found, "id"), author=author or "", body=found.get("body") or "")


def _pull(found: Json) -> Pull:
    head, base = found.get("head"), found.get("base")
    if not isinstance(head, dict) or not isinstance(base, dict):
        raise PublishError("GitHub's answer about a pull request has no head or no base")
    repository = head.get("repo")
    return Pull(
        number=_number(found, "number"),
        open=found.get("state") == "open",
        head_sha=_text(head, "sha"),
        head_repository=_text(repository, "full_name") if isinstance(repository, dict) else "",
        base_ref=_text(base, "ref"),
        base_sha=_text(base, "sha"),
    )


def _paths(found: Sequence[Json]) -> list[str]:
    renamed = [one["previous_filename"] for one in found if isinstance(one.get("previous_filename"), str)]
    return [*(_text(one, "filename") for one in found), *renamed]


def _text(found: Json, key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        raise PublishError(f"GitHub's answer has {key}: {value!r:.80}, expected a text")
    return value


def _number(found: Json, key: str) -> int:
    value = found.get(key)
    if type(value) is not int:
        raise PublishError(f"GitHub's answer has {key}: {value!r:.80}, expected a number")
    return value
