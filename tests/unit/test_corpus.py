"""Corpora: where documents end, what is dropped, and what a broken file is told."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gate.errors import CouldNotMeasure, DataError
from gate.policy import Corpus
from gate.stages import corpus

WIKI = (
    " preface \n \n = First = \n \n text one \n \n = = Section = = \n \n more = 3 = \n = not alone = \n"
    " \n = Second = \n \n two"
)


def _read(tmp_path: Path, name: str, content: str | bytes, **settings: Any) -> list[str]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [d.text for d in corpus.read(Corpus(name="notes", path=name, **settings), tmp_path)]


def test_text_without_titles_is_cut_at_blank_lines(tmp_path: Path) -> None:
    assert _read(tmp_path, "a.txt", "one\nstill one\n\n  \n\ntwo  \n\nthree = 3") == [
        "one\nstill one",
        "two",
        "three = 3",
    ]


def test_windows_line_ends_make_the_same_documents(tmp_path: Path) -> None:
    assert _read(tmp_path, "a.txt", "one\r\nstill one\r\n\r\ntwo\r\n") == ["one\nstill one", "two"]


@pytest.mark.parametrize(("name", "content"), [("a.txt", "one"), ("a.jsonl", '{"text": "one"}')])
def test_a_byte_order_mark_is_not_text(tmp_path: Path, name: str, content: str) -> None:
    assert _read(tmp_path, name, b"\xef\xbb\xbf" + content.encode()) == ["one"]


def test_title_lines_start_documents_and_sections_do_not(tmp_path: Path) -> None:
    assert _read(tmp_path, "wiki.txt", WIKI) == [
        " preface",
        " = First = \n \n text one \n \n = = Section = = \n \n more = 3 = \n = not alone =",
        " = Second = \n \n two",
    ]


def test_json_lines_take_the_text_field_and_drop_empty_documents(tmp_path: Path) -> None:
    rows = [{"body": "one\n\nstill one"}, {"body": "  \n"}, {"body": "zwei ü"}]
    content = "\n".join(json.dumps(r) for r in rows) + "\n\n"
    assert _read(tmp_path, "a.jsonl", content, text_field="body") == ["one\n\nstill one", "zwei ü"]


def test_parquet_takes_one_document_per_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", None, "", "two"], "n": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    assert [d.text for d in corpus.read(Corpus(name="notes", path="a.parquet"), tmp_path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a\.jsonl:2: not JSON .*expected one object per line"),
        ("a.jsonl", '["a"]', r"a\.jsonl:1: found list, expected an object"),
        ("a.jsonl", '{"body": "a"}', r"a\.jsonl:1: found the fields \['body'\], expected text in 'text'"),
        ("a.jsonl", '{"text": 3}', r"a\.jsonl:1: found 3, expected text in 'text'"),
        ("a.jsonl", '{"text": "a\\ud800"}', r"a\.jsonl:1: found half a surrogate pair"),
        ("a.txt", b"caf\xe9", r"a\.txt: found bytes that are not UTF-8 at offset 3, expected UTF-8"),
        ("a.jsonl", b'{"text": "caf\xe9"}', r"a\.jsonl: found bytes that are not UTF-8"),
        ("a.csv", "a", r"a\.csv: found '\.csv', expected one of \.txt, \.jsonl, \.parquet"),
        ("a.parquet", "not parquet at all", r"a\.parquet: not a Parquet file"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, name, content)


def test_parquet_without_the_column_or_with_numbers_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"found the columns \['n'\], expected 'text'"):
        corpus.read(Corpus(name="notes", path="a.parquet"), tmp_path)
    with pytest.raises(DataError, match="column 'n' holds int64, expected text"):
        corpus.read(Corpus(name="notes", path="a.parquet", text_field="n"), tmp_path)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing, expected a corpus file"):
        corpus.read(Corpus(name="notes", path="absent.txt"), tmp_path)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match="found a folder, expected a corpus file"):
        corpus.read(Corpus(name="notes", path="folder.txt"), tmp_path)


@pytest.mark.parametrize(("name", "content"), [("a.txt", ""), ("a.txt", " \n\n \n"), ("a.jsonl", '{"text": ""}\n')])
def test_an_empty_corpus_could_not_be_measured(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(CouldNotMeasure, match=rf"corpus 'notes' \({name}\) has no text"):
        _read(tmp_path, name, content)


def test_an_unknown_corpus_without_path_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus 'pile' has no path and is not a known data set \(wikitext2, c4\)"):
        corpus.read(Corpus(name="pile"), tmp_path)


def test_wikitext_rows_are_joined_into_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[dict[str, str]] = []

    def load_dataset(**arguments: str) -> dict[str, list[str]]:
        asked.append(arguments)
        return {"text": [line + "\n" if line.strip() else "" for line in WIKI.split("\n")]}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    texts = [d.text.split("\n")[0] for d in corpus.read(Corpus(name="wikitext2"), tmp_path)]
    assert texts == [" preface", " = First = ", " = Second = "]
    assert asked == [{"path": "Salesforce/wikitext", "name": "wikitext-2-raw-v1", "split": "test"}]
    assert corpus.fetch("wikitext2") == 3


def test_c4_is_one_file_of_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(*where: str, repo_type: str) -> str:
        assert (where, repo_type) == (("allenai/c4", "en/c4-validation.00000-of-00008.json.gz"), "dataset")
        return str(tmp_path / "c4.json.gz")

    with gzip.open(tmp_path / "c4.json.gz", "wt", encoding="utf-8") as file:
        file.write('{"text": "one\\n\\nstill one", "url": "u"}\n{"text": "zwölf"}\n')
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert [d.text for d in corpus.read(Corpus(name="c4"), tmp_path)] == ["one\n\nstill one", "zwölf"]


def test_a_data_set_that_was_not_fetched_says_what_to_run(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from gate.policy import Corpus; from gate.stages import corpus; "
        "corpus.read(Corpus(name='wikitext2'), Path('.'))"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "NotFetched: corpus 'wikitext2' is not on this machine: run `gate fetch` first" in child.stderr


def test_identical_documents_share_a_digest_and_have_keys_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("same\n\nother\n\nsame")
    documents = corpus.read(Corpus(name="notes", path="a.txt"), tmp_path)
    digest = hashlib.sha256(b"same").hexdigest()[:16]
    assert [d.key for d in documents if d.text == "same"] == [digest, f"{digest}#2"]
    assert len({d.digest for d in documents}) == 2


def test_the_draw_depends_on_seed_and_texts_and_not_on_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"document {i}" for i in range(100)))
    documents = corpus.read(Corpus(name="notes", path="a.txt"), tmp_path)
    drawn = corpus.draw(documents, 10, "seed")
    assert len(drawn) == 10
    assert corpus.draw(documents[::-1], 10, "seed") == drawn
    assert corpus.draw(documents, 20, "seed")[:10] == drawn
    assert corpus.draw(documents, 10, "other seed") != drawn
    assert drawn != documents[:10], "not the first ones of the file"
