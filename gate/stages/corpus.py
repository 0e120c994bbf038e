"""Corpora: text files and known hub data sets, read into documents.

Never downloads while measuring (`fetch` does beforehand), never tokenises.  A document is the unit that perplexity is
clustered by, so each format has one rule for where documents end:
  .txt      a line such as ` = Title = ` alone between blank lines starts a document (the WikiText layout;
            ` = = Section = = ` does not); a file without any such line is cut at blank lines;
  .jsonl    one object per line, the text in `text_field`;
  .parquet  one row per document, the text in the column `text_field`.
Documents without any text are dropped.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gate.errors import CouldNotMeasure, DataError, NotFetched
from gate.hub import download_errors, reason
from gate.policy import Corpus

_TITLE = re.compile(r"\s*= [^=]+ =\s*")

HUB = {"wikitext2": "Salesforce/wikitext", "c4": "allenai/c4"}
"""Corpus name → data set on the hub."""

_C4_FILE = "en/c4-validation.00000-of-00008.json.gz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """`digest` is the start of the text's SHA-256; `occurrence` counts identical texts from 1."""

    text: str
    digest: str
    occurrence: int

    @property
    def key(self) -> str:
        return self.digest if self.occurrence == 1 else f"{self.digest}#{self.occurrence}"


def read(corpus: Corpus, base: Path) -> list[Document]:
    """All documents of a corpus that hold any text, in the corpus's order.

    Raises:
        DataError: the corpus is missing, unreadable, of an unknown kind, or has a broken line.
        CouldNotMeasure: there is no text in it.
    """
    if corpus.path is None:
        where, texts = f"corpus {corpus.name!r}", _cached_texts(corpus.name)
    else:
        where, texts = f"corpus {corpus.name!r} ({corpus.path})", _file_texts(base / corpus.path, corpus.text_field)
    documents = _documents(texts)
    if not documents:
        raise CouldNotMeasure(f"{where} has no text: expected at least one document, nothing can be scored")
    return documents


def draw(documents: Sequence[Document], count: int, sample_seed: str) -> list[Document]:
    """The first `count` documents in an order that depends on the seed and the texts only."""

    def order(document: Document) -> str:
        return hashlib.sha256(f"{sample_seed}/{document.key}".encode()).hexdigest()

    return sorted(documents, key=order)[:count]


def split_text(text: str) -> list[str]:
    """Documents of a plain text, by the rule in the module's docstring."""
    lines = text.splitlines()
    blank = [
        True,
        *(not line.strip() for line in lines),
        True,
    ]  # blank[i + 1] is line i: before and after counts as blank
    starts = [i for i, line in enumerate(lines) if _TITLE.fullmatch(line) and blank[i] and blank[i + 2]]
    if not starts:
        starts = [i for i in range(len(lines)) if blank[i]]
    cuts = sorted({0, *starts, len(lines)})
    return ["\n".join(lines[begin:end]).rstrip() for begin, end in pairwise(cuts)]


def fetch(name: str) -> int:
    """Download a known corpus (only `gate fetch` calls this) and return its number of documents.

    Raises:
        DataError: no corpus of this name is known.
        CouldNotMeasure: it could not be downloaded.
    """
    try:
        return len(_documents(_hub_texts(name)))
    except download_errors(ValueError, RuntimeError) as error:
        raise CouldNotMeasure(f"corpus {name!r} ({HUB[name]}) could not be downloaded: {reason(error)}") from error


def _documents(texts: Iterable[str]) -> list[Document]:
    seen: Counter[str] = Counter()
    documents = []
    for text in (t for t in texts if t.strip()):
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        seen[digest] += 1
        documents.append(Document(text=text, digest=digest, occurrence=seen[digest]))
    return documents


def _file_texts(path: Path, text_field: str) -> list[str]:
    readers = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: found {path.suffix!r}, expected one of {', '.join(readers)}")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{path}: found {found}, expected a corpus file; paths are relative to the policy's folder")
    try:
        return readers[path.suffix](path, text_field)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: found bytes that are not UTF-8 at offset {error.start}, expected UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _txt(path: Path, text_field: str) -> list[str]:
    return split_text(path.read_text(encoding="utf-8-sig"))


def _jsonl(path: Path, text_field: str) -> list[str]:
    texts = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not JSON ({error}), expected one object per line") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: found {type(row).__name__}, expected an object")
            text = row.get(text_field)
            if not isinstance(text, str):
                found = f"{text!r:.60}" if text_field in row else f"the fields {sorted(row)}"
                raise DataError(f"{path}:{number}: found {found}, expected text in {text_field!r} (see text_field)")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise DataError(f"{path}:{number}: found half a surrogate pair ({error}), expected text") from error
            texts.append(text)
    return texts


def _parquet(path: Path, text_field: str) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if text_field not in names:
            raise DataError(f"{path}: found the columns {names}, expected {text_field!r} (see text_field)")
        kind = file.schema_arrow.field(text_field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{path}: column {text_field!r} holds {kind}, expected text")
        return [text for text in file.read([text_field]).column(0).to_pylist() if text is not None]
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error


def _cached_texts(name: str) -> list[str]:
    try:
        return _hub_texts(name)
    except (OSError, ValueError, RuntimeError) as error:
        # datasets and huggingface_hub report "not in the cache" as subclasses of these three
        raise NotFetched(f"corpus {name!r} is not on this machine: run `gate fetch` first ({error})") from error


def _hub_texts(name: str) -> list[str]:
    if name not in HUB:
        known = ", ".join(HUB)
        raise DataError(f"corpus {name!r} has no path and is not a known data set ({known}): give it a `path:`")
    return _c4() if name == "c4" else _wikitext2()


def _wikitext2() -> list[str]:
    from datasets import load_dataset

    texts: list[str] = load_dataset(path=HUB["wikitext2"], name="wikitext-2-raw-v1", split="test")["text"]
    # one row per line (blank ones emptied): the documents are found by their titles
    return split_text("\n".join(text.rstrip("\n") for text in texts))


def _c4() -> list[str]:
    # `load_dataset(data_files=…)` names its cache after the file's address, so it does not find it again offline
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(HUB["c4"], _C4_FILE, repo_type="dataset")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]
