"""GitHub's response objects with every field that its OpenAPI description requires.

Pure: values → dictionaries.  The rules are in `server.py`; nothing here decides.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

Object = dict[str, Any]

WEB = "https://github.com"
EPOCH = "2026-01-01T00:00:00Z"

_REPOSITORY_URLS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}
_USER_URLS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}


def number_of(text: str) -> int:
    """A stable id for a name."""
    return sum((i + 1) * ord(c) for i, c in enumerate(text)) + 1000


def user(api: str, login: str) -> Object:
    url = f"{api}/users/{quote(login)}"  # github-actions%5Bbot%5D
    return {
        "login": login,
        "id": number_of(login),
        "node_id": f"U_{number_of(login)}",
        "avatar_url": f"{WEB}/avatars/{number_of(login)}",
        "gravatar_id": "",
        "url": url,
        "html_url": f"{WEB}/{quote(login)}",
        **{key: url + rest for key, rest in _USER_URLS.items()},
        "type": "Bot" if login.endswith("[bot]") else "User",
        "site_admin": False,
    }


def me(api: str, login: str) -> Object:
    """The answer of GET /user."""
    return {
        **user(api, login),
        "name": None,
        "company": None,
        "blog": None,
        "location": None,
        "email": None,
        "hireable": None,
        "bio": None,
        "twitter_username": None,
        "public_repos": 1,
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "created_at": EPOCH,
        "updated_at": EPOCH,
    }


def repository(api: str, full_name: str, *, number: int, default_branch: str, private: bool, fork: bool) -> Object:
    owner, name = full_name.split("/")
    url = f"{api}/repos/{full_name}"
    return {
        "id": number,
        "node_id": f"R_{number}",
        "name": name,
        "full_name": full_name,
        "owner": user(api, owner),
        "private": private,
        "html_url": f"{WEB}/{full_name}",
        "description": None,
        "fork": fork,
        "url": url,
        **{key: url + rest for key, rest in _REPOSITORY_URLS.items()},
        "clone_url": f"{WEB}/{full_name}.git",
        "git_url": f"git://github.com/{full_name}.git",
        "ssh_url": f"git@github.com:{full_name}.git",
        "svn_url": f"{WEB}/{full_name}",
        "mirror_url": None,
        "homepage": None,
        "language": "Python",
        "license": None,
        "default_branch": default_branch,
        "visibility": "private" if private else "public",
        **dict.fromkeys(("archived", "disabled", "has_pages", "has_discussions", "has_wiki", "has_projects"), False),
        **dict.fromkeys(("has_issues", "has_downloads"), True),
        **dict.fromkeys(("forks", "forks_count", "open_issues", "open_issues_count", "stargazers_count"), 0),
        **dict.fromkeys(("watchers", "watchers_count", "network_count", "subscribers_count", "size"), 0),
        **dict.fromkeys(("pushed_at", "created_at", "updated_at"), EPOCH),
    }


def app(api: str, slug: str) -> Object:
    return {
        "id": number_of(slug),
        "slug": slug,
        "node_id": f"A_{number_of(slug)}",
        "owner": user(api, "acme"),
        "name": slug,
        "description": None,
        "external_url": f"{WEB}/{slug}",
        "html_url": f"{WEB}/apps/{slug}",
        "created_at": EPOCH,
        "updated_at": EPOCH,
        "permissions": {"checks": "write", "metadata": "read"},
        "events": [],
    }


def pull(api: str, repo: Object, found: Object, head_repo: Object | None) -> Object:
    """`found`: number, head_sha, head_branch, head_owner, base, base_sha, state, author, n_files, at."""
    number = found["number"]
    url = f"{repo['url']}/pulls/{number}"
    issue = f"{repo['url']}/issues/{number}"
    web = f"{repo['html_url']}/pull/{number}"
    open_ = found["state"] == "open"
    links = {
        "self": url,
        "html": web,
        "issue": issue,
        "comments": f"{issue}/comments",
        "review_comments": f"{url}/comments",
        "review_comment": f"{repo['url']}/pulls/comments{{/number}}",
        "commits": f"{url}/commits",
        "statuses": f"{repo['url']}/statuses/{found['head_sha']}",
    }
    return {
        "url": url,
        "id": 10_000 + number,
        "node_id": f"PR_{number}",
        "html_url": web,
        "diff_url": f"{web}.diff",
        "patch_url": f"{web}.patch",
        "issue_url": issue,
        "commits_url": links["commits"],
        "review_comments_url": links["review_comments"],
        "review_comment_url": links["review_comment"],
        "comments_url": links["comments"],
        "statuses_url": links["statuses"],
        "number": number,
        "state": found["state"],
        "locked": False,
        "active_lock_reason": None,
        "title": "Quantize",
        "user": user(api, found["author"]),
        **dict.fromkeys(("body", "body_text", "body_html"), ""),
        **{key: [] for key in ("labels", "assignees", "requested_reviewers", "requested_teams")},
        **dict.fromkeys(("milestone", "assignee", "auto_merge", "merged_at", "merged_by", "merge_commit_sha")),
        "created_at": EPOCH,
        "updated_at": found["at"],
        "closed_at": None if open_ else found["at"],
        "head": {
            "label": f"{found['head_owner']}:{found['head_branch']}",
            "ref": found["head_branch"],
            "sha": found["head_sha"],
            "user": user(api, found["head_owner"]),
            "repo": head_repo,
        },
        "base": {
            "label": f"{repo['owner']['login']}:{found['base']}",
            "ref": found["base"],
            "sha": found["base_sha"],
            "user": repo["owner"],
            "repo": repo,
        },
        "_links": {key: {"href": href} for key, href in links.items()},
        "author_association": "CONTRIBUTOR",
        "draft": False,
        "merged": False,
        "mergeable": None,
        "rebaseable": None,
        "mergeable_state": "unknown",
        "maintainer_can_modify": False,
        "comments": 0,
        "review_comments": 0,
        "commits": 1,
        "additions": 1,
        "deletions": 0,
        "changed_files": found["n_files"],
    }


def file(repo: Object, path: str, sha: str, *, previous: str | None) -> Object:
    entry = {
        "sha": "b" * 40,
        "filename": path,
        "status": "renamed" if previous else "modified",
        "additions": 1,
        "deletions": 1,
        "changes": 2,
        "blob_url": f"{repo['html_url']}/blob/{sha}/{path}",
        "raw_url": f"{repo['html_url']}/raw/{sha}/{path}",
        "contents_url": f"{repo['url']}/contents/{path}?ref={sha}",
        "patch": "@@ -1 +1 @@",
    }
    return {**entry, "previous_filename": previous} if previous else entry


def commit(api: str, repo: Object, sha: str) -> Object:
    url = f"{repo['url']}/commits/{sha}"
    who = {"name": "A", "email": "a@example.org", "date": EPOCH}
    return {
        "url": url,
        "sha": sha,
        "node_id": f"C_{sha[:8]}",
        "html_url": f"{repo['html_url']}/commit/{sha}",
        "comments_url": f"{url}/comments",
        "commit": {
            "url": f"{repo['url']}/git/commits/{sha}",
            "author": who,
            "committer": who,
            "message": "Quantize",
            "comment_count": 0,
            "tree": {"sha": sha, "url": f"{repo['url']}/git/trees/{sha}"},
            "verification": {
                "verified": False,
                "reason": "unsigned",
                "payload": None,
                "signature": None,
                "verified_at": None,
            },
        },
        "author": user(api, repo["owner"]["login"]),
        "committer": user(api, repo["owner"]["login"]),
        "parents": [],
    }


def comparison(api: str, repo: Object, base: str, head: str, files: list[Object]) -> Object:
    url = f"{repo['url']}/compare/{base}...{head}"
    web = f"{repo['html_url']}/compare/{base}...{head}"
    start = commit(api, repo, base)
    return {
        "url": url,
        "html_url": web,
        "permalink_url": web,
        "diff_url": f"{web}.diff",
        "patch_url": f"{web}.patch",
        "base_commit": start,
        "merge_base_commit": start,
        "status": "ahead",
        "ahead_by": 1,
        "behind_by": 0,
        "total_commits": 1,
        "commits": [commit(api, repo, head)],
        "files": files,
    }


def check_run(api: str, repo: Object, found: Object) -> Object:
    """`found`: id, name, head_sha, app (a slug), and what was sent."""
    url = f"{repo['url']}/check-runs/{found['id']}"
    return {
        "id": found["id"],
        "head_sha": found["head_sha"],
        "node_id": f"CR_{found['id']}",
        "external_id": found["external_id"],
        "url": url,
        "html_url": f"{repo['html_url']}/runs/{found['id']}",
        "details_url": found["details_url"],
        "status": found["status"],
        "conclusion": found["conclusion"],
        "started_at": found["started_at"],
        "completed_at": found["completed_at"],
        "output": {
            "title": found["title"],
            "summary": found["summary"],
            "text": found["text"],
            "annotations_count": len(found["annotations"]),
            "annotations_url": f"{url}/annotations",
        },
        "name": found["name"],
        "check_suite": {"id": number_of(found["head_sha"] + found["app"])},
        "app": app(api, found["app"]),
        "pull_requests": [],
    }


def annotation(repo: Object, sha: str, sent: Object) -> Object:
    return {
        "path": sent["path"],
        "blob_href": f"{repo['html_url']}/blob/{sha}/{sent['path']}",
        "start_line": sent["start_line"],
        "end_line": sent["end_line"],
        "start_column": sent.get("start_column"),
        "end_column": sent.get("end_column"),
        "annotation_level": sent["annotation_level"],
        "title": sent.get("title"),
        "message": sent["message"],
        "raw_details": sent.get("raw_details"),
    }


def comment(api: str, repo: Object, found: Object) -> Object:
    """`found`: id, pull, author, body, created_at, updated_at."""
    return {
        "id": found["id"],
        "node_id": f"IC_{found['id']}",
        "url": f"{repo['url']}/issues/comments/{found['id']}",
        "html_url": f"{repo['html_url']}/pull/{found['pull']}#issuecomment-{found['id']}",
        "issue_url": f"{repo['url']}/issues/{found['pull']}",
        "body": found["body"],
        "body_text": found["body"],
        "body_html": "<p></p>",
        "user": user(api, found["author"]),
        "created_at": found["created_at"],
        "updated_at": found["updated_at"],
        "author_association": "NONE",
        "performed_via_github_app": None,
    }


def issue_event(api: str, repo: Object, found: Object) -> Object:
    """`found`: id, pull, event."""
    return {
        "id": found["id"],
        "node_id": f"IE_{found['id']}",
        "url": f"{repo['url']}/issues/events/{found['id']}",
        "actor": user(api, "octocat"),
        "event": found["event"],
        "commit_id": None,
        "commit_url": None,
        "created_at": "2026-11-01T08:00:00Z",
        "performed_via_github_app": None,
        "lock_reason": None,
    }


def status(api: str, repo: Object, found: Object) -> Object:
    """`found`: id, sha, state, context, description, target_url, author, created_at."""
    return {
        "url": f"{repo['url']}/statuses/{found['sha']}",
        "avatar_url": None,
        "id": found["id"],
        "node_id": f"S_{found['id']}",
        "state": found["state"],
        "description": found["description"],
        "target_url": found["target_url"],
        "context": found["context"],
        "created_at": found["created_at"],
        "updated_at": found["created_at"],
        "creator": user(api, found["author"]),
    }


def workflow_run(api: str, repo: Object, found: Object) -> Object:
    """`found`: id, status, conclusion, event, head_sha, head_branch, attempt."""
    url = f"{repo['url']}/actions/runs/{found['id']}"
    who = {"name": "A", "email": "a@example.org"}
    return {
        "id": found["id"],
        "name": "gate",
        "node_id": f"WFR_{found['id']}",
        "check_suite_id": 1,
        "check_suite_node_id": "CS_1",
        "head_branch": found["head_branch"],
        "head_sha": found["head_sha"],
        "path": ".github/workflows/gate.yml",
        "run_number": 1,
        "run_attempt": found["attempt"],
        "event": found["event"],
        "status": found["status"],
        "conclusion": found["conclusion"],
        "workflow_id": 1,
        "url": url,
        "html_url": f"{repo['html_url']}/actions/runs/{found['id']}",
        "pull_requests": [],
        "created_at": EPOCH,
        "updated_at": EPOCH,
        "run_started_at": EPOCH,
        "jobs_url": f"{url}/jobs",
        "logs_url": f"{url}/logs",
        "check_suite_url": f"{repo['url']}/check-suites/1",
        "artifacts_url": f"{url}/artifacts",
        "cancel_url": f"{url}/cancel",
        "rerun_url": f"{url}/rerun",
        "previous_attempt_url": None,
        "workflow_url": f"{repo['url']}/actions/workflows/1",
        "head_commit": {
            "id": found["head_sha"],
            "tree_id": found["head_sha"],
            "message": "Quantize",
            "timestamp": EPOCH,
            "author": who,
            "committer": who,
        },
        "repository": repo,
        "head_repository": repo,
        "display_title": "Quantize",
    }
