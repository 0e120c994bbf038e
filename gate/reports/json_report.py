"""The run record itself as JSON, as `run.json` holds it.

Pure: no I/O; the format belongs to `gate.artifact`.
"""

from __future__ import annotations

from gate.records import RunRecord


def render(record: RunRecord) -> str:
    """`gate.artifact.dumps_record`, imported only when asked for."""
    from gate.artifact import dumps_record

    return dumps_record(record)
