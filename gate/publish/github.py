"""A publication on GitHub: one check run (or commit status) and one sticky comment, however often it is published.

Decides nothing about verdicts.  GitHub makes no write idempotent, so every write whose fate is not known is looked for
before it is sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gate.publish import check, comment
from gate.publish.client import Body, Check, Client, Comment
from gate.publish.model import CheckConclusion, Publication, Target, TokenKind
from gate.publish.patience import Patience
from gate.publish.problem import AppNeeded, PublishError, Unanswered

_OF_A_RUN = 3  # parts of an id before the candidates': quantgate, run and attempt, name of the check
_MAX_ROUNDS = 12  # of looking at the comments and doing something about them


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """`done`: what was done, in sentences; `problems`: what was not, although it was wanted, and the check stands."""

    done: tuple[str, ...]
    problems: tuple[str, ...]


def publish(
    publication: Publication,
    client: Client,
    *,
    kind: TokenKind,
    author: str | None,
    required_name: str,
    patience: Patience,
) -> Published:
    """The check first, then the comment.  A comment that fails does not take back the check; it is in `problems`.

    Args:
        kind: whether the token may write check runs; if GitHub says otherwise, a commit status takes the check's place.
        author: login whose comments are ours; None: the bot of the App that the check belongs to, or the token's owner.
        required_name: of the check that --start has begun, where the result is unverified and has another name.

    Raises:
        PublishError: neither a check nor a status came to be.
    """
    done = []
    if kind is not TokenKind.PERSONAL and publication.name == required_name:
        publication = _alone(publication, client)
    written = None if kind is TokenKind.PERSONAL else _check_if_allowed(publication, client, patience)
    if written is None:
        done.append(_status(publication, client, patience))
    else:
        done.append(f"check {publication.name}: {written.conclusion} ({publication.conclusion.title})")
    if written is not None and publication.name != required_name:
        done += _blocked(publication, client, required_name, patience)
    try:
        done += _commented(publication, client, author or _author(written, client), patience)
    except PublishError as problem:
        return Published(done=tuple(done), problems=(f"the comment was not written: {problem}",))
    return Published(done=tuple(done), problems=())


def start(
    target: Target, client: Client, *, name: str, external_id: str, kind: TokenKind, patience: Patience
) -> Published:
    """The check as in progress, before there is anything to say: from now on a required check blocks."""
    personal = Published(done=("no check was begun: a personal token cannot write check runs",), problems=())
    if kind is TokenKind.PERSONAL:
        return personal
    try:
        begun = _begun(target, client, name=name, external_id=external_id, patience=patience)
    except AppNeeded:
        return personal
    word = "it is completed already" if begun.status == "completed" else "in progress"
    return Published(done=(f"check {name}: {word} ({begun.id})",), problems=())


def persist(write: Callable[[], None], look: Callable[[], bool], patience: Patience) -> None:
    """Do `write` until it is known to be done.  `look`: has it been done after all?

    Raises:
        PublishError: GitHub refuses it, or it was tried often enough.
    """
    tried = 0
    while True:
        tried += 1
        try:
            return write()
        except Unanswered as problem:
            patience.again(tried, problem)
            if look():
                return None


def _alone(publication: Publication, client: Client) -> Publication:
    """The publication, or a failure where another job of this run publishes other candidates under the same name.

    GitHub shows the newest check of a name: a pass of one candidate would stand before the regression of another.
    """
    run = publication.external_id.rpartition("/")[0] + "/"
    if run.count("/") < _OF_A_RUN:
        return publication
    found = client.checks(publication.target.head_sha, publication.name)
    if all(one.external_id == publication.external_id or not one.external_id.startswith(run) for one in found):
        return publication
    title = f"Could not measure: two jobs of this run publish as {publication.name}; publish once, or give each a name"
    failure = replace(publication.conclusion, check=CheckConclusion.FAILURE, state="error", title=title)
    return replace(publication, conclusion=failure)


def _check_if_allowed(publication: Publication, client: Client, patience: Patience) -> Check | None:
    """None: the token turns out to be a person's, whatever it looks like."""
    try:
        return _check(publication, client, patience)
    except AppNeeded:
        return None


def _author(written: Check | None, client: Client) -> str:
    """Who our comments are from.  The App of the check that was just written is that of the token."""
    return f"{written.app}[bot]" if written is not None and written.app else client.login()


def _check(publication: Publication, client: Client, patience: Patience) -> Check:
    target, name = publication.target, publication.name
    begun = _begun(target, client, name=name, external_id=publication.external_id, patience=patience)
    annotated, tried = begun.annotations, 0
    while True:
        body, *more = check.payload(publication, annotated=annotated)
        sent = len(body["output"]["annotations"])
        tried += 1
        try:
            now = client.update_check(begun.id, _update(body))
        except Unanswered as problem:
            patience.again(tried, problem)
            annotated = client.check(begun.id).annotations  # those of a lost answer are there already
            continue
        if now.conclusion != publication.conclusion.check:
            raise PublishError(
                f"check {name} says {now.conclusion!r} after it was set to {str(publication.conclusion.check)!r}: "
                "look at it on GitHub"
            )
        if not more:
            return now
        annotated, tried = max(now.annotations, annotated + sent), 0


def _blocked(publication: Publication, client: Client, name: str, patience: Patience) -> list[str]:
    """The required check that --start has begun does not stay in progress: it is answered, and not satisfied."""
    found = _ours(publication.target, client, name=name, external_id=publication.external_id)
    waiting = [one for one in found if one.status != "completed"]
    for one in waiting:
        _completed(client, one.id, check.blocked(publication, name=name), patience)
    return [f"check {name}: {CheckConclusion.ACTION_REQUIRED}, the result is unverified" for _ in waiting[:1]]


def _begun(target: Target, client: Client, *, name: str, external_id: str, patience: Patience) -> Check:
    """Our check run, made where there is none yet."""
    tried = 0
    while True:
        found = _ours(target, client, name=name, external_id=external_id)
        if found:
            return _only(found, client, patience)
        tried += 1
        body = check.started(
            name=name, head_sha=target.head_sha, external_id=external_id, details_url=target.details_url
        )
        try:
            made = client.create_check(body)
        except Unanswered as problem:
            patience.again(tried, problem)
            continue
        # somebody else may have made one between our look and our write, and may have set ours aside already; a list
        # that does not show ours at all is late
        others = _ours(target, client, name=name, external_id=external_id)
        both = {one.id: one for one in (made, *others)}
        return _only([both[number] for number in sorted(both)], client, patience)


def _ours(target: Target, client: Client, *, name: str, external_id: str) -> list[Check]:
    return [one for one in client.checks(target.head_sha, name) if one.external_id == external_id]


def _only(found: list[Check], client: Client, patience: Patience) -> Check:
    """The oldest.  GitHub deletes no check run: what two publishers made at once is renamed, and says nothing."""
    first, *others = found
    for other in others:
        aside = {
            "name": f"{other.name[:200]} (duplicate)",
            "external_id": f"{other.external_id[:200]}/duplicate",
            "conclusion": str(CheckConclusion.NEUTRAL),
            "output": {"title": "Published twice at once: see the other check", "summary": f"See check {first.id}."},
        }
        _completed(client, other.id, aside, patience)
    return first


def _completed(client: Client, number: int, body: Body, patience: Patience) -> None:
    """An update without annotations says the same however often it is sent."""

    def write() -> None:
        client.update_check(number, {**body, "status": "completed"})

    persist(write, lambda: False, patience)


def _update(body: Body) -> Body:
    return {key: value for key, value in body.items() if key != "head_sha"}


def _status(publication: Publication, client: Client, patience: Patience) -> str:
    """GitHub keeps every status and shows the newest of a context."""
    body = check.status(publication)
    wanted = (body["state"], body["description"], body.get("target_url", ""))
    sha, context = publication.target.head_sha, publication.context

    def there() -> bool:
        found = client.find_status(sha, context)
        return found is not None and (found.state, found.description, found.target_url) == wanted

    if not there():
        persist(lambda: client.create_status(sha, body), there, patience)
    return f"status {context}: {publication.conclusion.state} ({publication.conclusion.title})"


def _commented(publication: Publication, client: Client, author: str, patience: Patience) -> list[str]:
    """Looks again after everything that it does, until there is nothing left to do: others may write meanwhile."""
    pull = publication.target.pull
    if publication.comment is None or pull is None:
        return []
    written = ""
    tried = 0
    for _ in range(_MAX_ROUNDS):
        found = client.pull(pull)
        if not found.open:
            return [f"no comment: pull request {pull} is closed"]
        if found.head_sha != publication.target.head_sha:
            return [f"no comment: pull request {pull} has moved on to {found.head_sha[:7]}"]
        sticky = _sticky(client, pull, author)
        mine = sticky.get(comment.own_name(publication), [])
        needless = sticky.get(comment.superseded_name(publication), [])
        try:
            if needless:
                client.delete_comment(needless[0].id)
            elif len(mine) > 1:
                _one_of(mine, client)
            elif not mine:
                if written:
                    return [written]  # a list that is late, or somebody deleted it: neither asks for another one
                if not publication.create_comment:
                    return ["no comment: none is needed"]
                client.create_comment(pull, comment.body(publication, None))
                written = f"comment on pull request {pull}: created"
            else:
                if not (body := _next(publication, mine[0])):
                    return [written or f"comment on pull request {pull}: it is up to date"]
                client.update_comment(mine[0].id, body)
                return [f"comment on pull request {pull}: updated"]
        except Unanswered as problem:
            tried += 1
            patience.again(tried, problem)
        except PublishError as problem:
            if problem.status != 404 or not (mine or needless):
                raise
            tried += 1
            patience.again(tried, problem)  # somebody deleted it just now
    raise PublishError(f"the comments of pull request {pull} change faster than they are read")


def _sticky(client: Client, pull: int, author: str) -> dict[str, list[Comment]]:
    """Ours by name, known by author and marker: either alone could be anybody's."""
    found: dict[str, list[Comment]] = {}
    for one in client.comments(pull):
        marked = comment.parse(one.body)
        if marked is not None and one.author.casefold() == author.casefold():
            found.setdefault(marked.name, []).append(one)
    return found


def _one_of(mine: list[Comment], client: Client) -> None:
    """Two runs that ended together have both created one: the first stays, with the newest of their texts."""
    first, *others = mine
    newest = max(mine, key=_at)
    if newest is not first and _at(newest) > _at(first):
        client.update_comment(first.id, newest.body)
    for other in others:
        try:
            client.delete_comment(other.id)
        except PublishError as problem:
            if problem.status != 404:
                raise


def _at(one: Comment) -> str:
    found = comment.parse(one.body)
    return "" if found is None else found.at


def _next(publication: Publication, there: Comment) -> str:
    """What the comment is to say; empty where it says so already, or something newer about this commit."""
    previous = comment.parse(there.body)
    of_this = previous is not None and previous.sha == publication.target.head_sha
    if previous is not None and of_this and comment.outdated(publication, previous):
        return ""
    body = comment.body(publication, previous)
    return "" if body.strip() == there.body.replace("\r\n", "\n").strip() else body
