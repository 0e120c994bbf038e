"""Bodies of the requests that write a check run or a commit status.

Pure: dicts that JSON can hold, within GitHub's limits; sends nothing.
"""

from __future__ import annotations

from typing import Any

from gate.publish import limits
from gate.publish.conclusion import UNVERIFIED
from gate.publish.model import Annotation, CheckConclusion, Publication

Body = dict[str, Any]


def started(*, name: str, head_sha: str, external_id: str, details_url: str | None) -> Body:
    """A check that is being measured: a required one blocks until it is completed."""
    return {
        "name": limits.title(name),
        "head_sha": head_sha,
        "status": "in_progress",
        "external_id": limits.title(external_id),
        **_details(details_url),
        "output": {
            "title": "Measuring",
            "summary": "The gate is running. This check is completed when it ends, or reaped when it does not.",
        },
    }


def payload(publication: Publication, *, annotated: int = 0) -> list[Body]:
    """The completed check: every body has the whole verdict, the first one the commit, each further annotations.

    GitHub appends the annotations of every update to those that are there.  `annotated`: how many there are already
    (the check's `output.annotations_count`), so that what is published twice is not remarked twice.
    """
    remarks = [_annotation(a) for a in publication.annotations[annotated:]]
    batch = limits.ANNOTATIONS_PER_REQUEST
    batches = [remarks[k : k + batch] for k in range(0, len(remarks), batch)] or [[]]
    whole: Body = {
        "name": publication.name,
        "external_id": publication.external_id,
        **_details(publication.target.details_url),
        "status": "completed",
        "conclusion": str(publication.conclusion.check),
    }
    output = {
        "title": publication.conclusion.title,
        "summary": publication.summary,
        "text": publication.text,
    }
    first, *more = [{**whole, "output": {**output, "annotations": some}} for some in batches]
    return [{"head_sha": publication.target.head_sha, **first}, *more]


def blocked(publication: Publication, *, name: str) -> Body:
    """Completes the required check `name`, begun by --start, where the result is unverified: it is not satisfied."""
    if not publication.conclusion.title.startswith(UNVERIFIED):
        raise ValueError(f"found {publication.conclusion.title!r}, expected the conclusion of an unverified result")
    return {
        "name": limits.title(name),
        "status": "completed",
        "conclusion": str(CheckConclusion.ACTION_REQUIRED),
        **_details(publication.target.details_url),
        "output": {
            "title": publication.conclusion.title,
            "summary": limits.bmp(limits.markdown(publication.text, limits.OUTPUT_BYTES)),
        },
    }


def status(publication: Publication) -> Body:
    """The commit status for a token that may not write checks."""
    url = publication.target.details_url
    return {
        "state": publication.conclusion.state,
        "context": publication.context,
        "description": limits.description(publication.conclusion.title),
        **({} if url is None else {"target_url": url}),
    }


def _details(url: str | None) -> Body:
    return {} if url is None else {"details_url": url}


def _annotation(one: Annotation) -> Body:
    return {
        "path": one.path,
        "start_line": one.line,
        "end_line": one.line,
        "annotation_level": one.level,
        "title": one.title,
        "message": one.message,
    }
