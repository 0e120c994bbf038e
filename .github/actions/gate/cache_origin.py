"""Says whether a restored cache is the base branch's: exit 0 if this pull request has none with that key of its own.

Standard library only, run with -I; deletes nothing, and whatever goes wrong means "not known", exit 1.

GitHub looks for a cache in the scope of the pull request first, and a workflow that an earlier commit of it changed
could have left one there; its baselines would lower the bar without a trace in the changed files.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


def own_caches(key: str) -> int:
    """How many caches of this pull request have exactly that key."""
    query = urllib.parse.urlencode({"key": key, "ref": os.environ["GITHUB_REF"], "per_page": 100})
    url = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/actions/caches?{query}"
    headers = {"Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}", "Accept": "application/vnd.github+json"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return int(json.load(answer)["total_count"])


def main(key: str) -> int:
    again = "the baselines are measured again"
    try:
        found = own_caches(key)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        code = f" ({problem.code})" if isinstance(problem, urllib.error.HTTPError) else ""
        print(f"::notice title=quantgate::whose cache it is cannot be asked{code}: {again}; needs actions: read")
        return 1
    if found:
        print(f"::warning title=quantgate::the cached baselines were stored by this pull request: {again}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
