"""A block of a document between two marks, which a benchmark rewrites with what it measured.

    python -m benchmarks.marked docs/benchmarks.md NAME FILE

puts the text of FILE into the document's block NAME.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def rewritten(document: str, name: str, content: str) -> str:
    """The document with `content` between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    Raises:
        ValueError: the two marks are not there once each, in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"expected one {begin!r} and after it one {end!r} in the document: add the two lines")
    before, rest = document.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def rewrite(path: Path, name: str, content: str) -> None:
    """`rewritten`, in place."""
    path.write_text(rewritten(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args()
    rewrite(chosen.document, chosen.name, chosen.file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
