"""One conversation with GitHub: github3's session with a deadline, retries and a guard for the token.

Never sends the token to another host, never follows a redirect of a write, and never repeats a write that GitHub may
have carried out: that is for whoever can look first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
from github3.session import GitHubSession

from gate.errors import UsageError
from gate.publish.model import TokenKind
from gate.publish.problem import PublishError, limited, refused, unanswered

if TYPE_CHECKING:
    from gate.publish.patience import Patience

PUBLIC_API = "https://api.github.com"
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
_SECONDARY_SECONDS = 60.0
"""Pause after a secondary limit that names none, as GitHub's documentation asks for."""

_SECONDARY = (b"secondary rate limit", b"abuse detection")
_INSTALLATION = ("ghs_",)
_PERSONAL = ("ghp_", "github_pat_", "gho_", "ghu_")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_TRANSIENT = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)
# github3 refuses tokens by this day itself; when they really end is for GitHub to say
_NO_EXPIRY = "2999-01-01T00:00:00Z"


def token_kind(token: str) -> TokenKind:
    """By prefix.  An unknown one is tried as an installation's: GitHub says if it is not."""
    if not token:
        return TokenKind.NONE
    return TokenKind.PERSONAL if token.startswith(_PERSONAL) else TokenKind.INSTALLATION


def base_url(given: str) -> str:
    """The API to talk to: GITHUB_API_URL as it is (`https://ghe.example/api/v3`), or the public one.

    Raises:
        UsageError: it is no address, or the token would travel unencrypted.
    """
    url = (given or PUBLIC_API).rstrip("/")
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and parts.hostname in _LOCAL
        fine = bool(parts.hostname) and not parts.username and not parts.query and (parts.scheme == "https" or plain)
    except ValueError:
        fine = False
    if not fine:
        raise UsageError(f"GITHUB_API_URL is {url!r}, expected https://… such as {PUBLIC_API}")
    return url


class Session(GitHubSession):  # type: ignore[misc]
    """github3's session.  Reads are repeated; writes only where GitHub says that it did not even begin (limits).

    Args:
        token: may be empty; it stays in `auth`, and `scrub` takes it out of any text.
        now: seconds since the epoch, for the time at which a limit ends.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience: Patience,
        now: Callable[[], float],
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        super().__init__(default_connect_timeout=connect_seconds, default_read_timeout=read_seconds)
        self.base_url = base_url(url)
        self.headers.update({"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"})
        self.headers.pop("Accept-Charset", None)
        self._token, self._patience, self._now = token, patience, now
        match token_kind(token):
            case TokenKind.INSTALLATION:
                self.app_installation_token_auth({"token": token, "expires_at": _NO_EXPIRY})
            case TokenKind.PERSONAL:
                self.token_auth(token)
            case TokenKind.NONE:
                pass

    def __repr__(self) -> str:
        return f"<Session of {self.base_url}>"

    def scrub(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        """One call, as often as it is safe to send it.

        Returns:
            An answer below 500 that is no limit; for a read, one that is JSON.

        Raises:
            PublishError: GitHub cannot be reached, is broken, or its limits outlast our patience.
            Unanswered: the same for a write that may have been carried out.
        """
        call = f"{method.upper()} {self.shown(url)}"
        reads = method.upper() == "GET"
        tried = 0
        while True:
            tried += 1
            pause: float | None = None
            begun = True
            try:
                self._guard(url)
                self._patience.check(call)
                response: requests.Response = super().request(method, url, *args, **kwargs)
                status = response.status_code
                if (pause := self._limit_seconds(response)) is not None:
                    problem, begun = limited(call, status, response.content), False
                elif status >= 500:
                    problem, pause = refused(call, status, response.content), _after_seconds(response)
                elif reads and not _whole(response):
                    problem = PublishError(f"GitHub's answer to {call} is cut short")
                else:
                    return response
            except _TRANSIENT as cut:
                problem = PublishError(f"no answer to {call}: {self.scrub(_cause(cut))}")
            except requests.exceptions.RequestException as wrong:
                raise PublishError(f"{call} cannot be sent: {self.scrub(_cause(wrong))}") from None
            if begun and not reads:
                raise unanswered(call, str(problem)) from None
            self._patience.again(tried, problem, seconds=pause)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Only reads are led elsewhere (a renamed repository), and never to another host."""
        target: str | None = super().get_redirect_target(resp)
        if target is None or resp.request.method != "GET":
            return None
        return target if _origin(urljoin(resp.url, target)) == _origin(self.base_url) else None

    def _guard(self, url: str) -> None:
        """Links of further pages come from outside as well."""
        if _origin(url) != _origin(self.base_url):
            raise PublishError(f"an answer of GitHub leads to {_origin(url)!r}, expected {_origin(self.base_url)!r}")

    def _limit_seconds(self, response: requests.Response) -> float | None:
        """Seconds that a limit wants us to wait, None where the answer is about something else."""
        if response.status_code not in (403, 429):
            return None
        if (after := _after_seconds(response)) is not None:
            return after
        headers: Mapping[str, str] = response.headers
        if headers.get("X-RateLimit-Remaining") == "0" and headers.get("X-RateLimit-Reset", "").isdigit():
            return max(float(headers["X-RateLimit-Reset"]) - self._now(), 1.0)
        said = response.content[:10_000].lower()
        return _SECONDARY_SECONDS if response.status_code == 429 or any(word in said for word in _SECONDARY) else None

    def shown(self, url: str) -> str:
        """The path behind the API's address and the repository, which every call would repeat."""
        path = urlsplit(url).path.removeprefix(urlsplit(self.base_url).path)
        parts = path.strip("/").split("/")
        return "/".join(parts[3:] if parts[0] == "repos" and len(parts) > 3 else parts)


def _after_seconds(response: requests.Response) -> float | None:
    after = response.headers.get("Retry-After", "")
    return float(after) if after.isascii() and after.isdigit() else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].casefold()


def _whole(response: requests.Response) -> bool:
    if response.status_code != 200:
        return True
    try:
        response.json()
    except ValueError:
        return False
    return True


def _cause(problem: BaseException) -> str:
    """The innermost reason: what requests wraps around it is mostly object names."""
    found: BaseException = problem
    while found.args and isinstance(found.args[0], BaseException):
        found = found.args[0]
    reason = getattr(found, "reason", None)
    return f"{type(problem).__name__}: {reason or found}"
