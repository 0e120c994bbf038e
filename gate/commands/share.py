"""`gate share`: a redacted copy of a run's folder.

Parses arguments and prints what was left out; strips nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gate.commands.folders import check_apart
from gate.errors import ArtifactError


def share(
    folder: Annotated[Path, typer.Argument(help="A run's output folder; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="Folder for the copy: empty, or not there yet.")],
) -> None:
    """Copy a run's folder as the policy's share_examples says: by default without any prompt, answer or log.

    gate share gate-out --out gate-shared
    """
    from gate import sharing
    from gate.reports import escape

    check_apart(out, (folder,))
    copy = sharing.share(folder, out)
    typer.echo(f"{out}: share_examples {copy.level}")
    for name in copy.left_out:
        typer.echo(f"left out: {escape.line(name, 200)}")
    if copy.problems:
        raise ArtifactError("; ".join(copy.problems))
