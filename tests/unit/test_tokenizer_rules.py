"""One tokenizer in the spellings of several libraries: saved again it is the same, changed it is another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library

from gate.checkpoint import tokenizer
from gate.checkpoint.tokenizer import Tokenizer
from gate.errors import CheckpointError, Refused

SPACE = "\u2581"
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{n:02X}>" for n in range(256)]
Document = dict[str, Any]
START = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
PAIR = [*START, {"Sequence": {"id": "B", "type_id": 1}}]
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": START,
    "pair": PAIR,
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


def document(tokens: list[str], **changes: Any) -> Document:
    added = [
        {"id": n, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        | {"special": True}
        for n, t in enumerate(SPECIAL)
    ]
    found: Document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {t: n for n, t in enumerate(tokens)}, "merges": ["a b"]},
    }
    return found | changes


def byte_level() -> Document:
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps: Document = {name: dict(bytewise) for name in ("pre_tokenizer", "post_processor", "decoder")}
    return document([*SPECIAL, "a", "b", "ab"], **steps)


def sentencepiece() -> Document:
    """Llama 2, as its authors' export has it."""
    found = document(
        [*SPECIAL, *BYTES, SPACE, "a", "b", "ab"],
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        post_processor=TEMPLATE,
        decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
    )
    found["model"] |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    return found


def unigram() -> Document:
    metaspace = {"type": "Metaspace", "replacement": SPACE, "add_prefix_space": True}
    model: Document = {"type": "Unigram", "unk_id": 0, "vocab": [[t, -n] for n, t in enumerate([*SPECIAL, SPACE, "a"])]}
    return document([], model=model, pre_tokenizer=metaspace, decoder=metaspace)


def wordpiece() -> Document:
    model: Document = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##"}
    model |= {"max_input_chars_per_word": 100, "vocab": {t: n for n, t in enumerate([*SPECIAL, "a", "##b"])}}
    return document([], model=model, pre_tokenizer={"type": "BertPreTokenizer"}, post_processor=TEMPLATE)


MAKERS = [byte_level, sentencepiece, unigram, wordpiece]


def read(folder: Path, found: Document, config: Document | None = None) -> Tokenizer:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(found))
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {}))
    return tokenizer.read(folder)


def compared(tmp_path: Path, ours: Document, theirs: Document) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tokenizer.differences(read(tmp_path / "ours", ours), read(tmp_path / "theirs", theirs))


@pytest.mark.parametrize("make", MAKERS)
def test_saved_again_by_the_installed_library(tmp_path: Path, make: Callable[[], Document]) -> None:
    saved = json.loads(Library.from_str(json.dumps(make())).to_str())
    ours, theirs = read(tmp_path / "ours", make()), read(tmp_path / "theirs", saved)
    assert tokenizer.differences(ours, theirs) == ((), ())
    assert ours.digest == theirs.digest


@pytest.mark.parametrize(
    ("make", "path", "value", "words"),
    [
        (byte_level, ("pre_tokenizer", "use_regex"), False, "its pre_tokenizer differs"),
        (byte_level, ("pre_tokenizer", "add_prefix_space"), True, "its pre_tokenizer differs"),
        (byte_level, ("model", "ignore_merges"), True, "its model settings differs"),
        (byte_level, ("model", "dropout"), 0.1, "its model settings differs"),
        (sentencepiece, ("model", "byte_fallback"), False, "its model settings differs"),
        (sentencepiece, ("normalizer",), None, "its pre_tokenizer differs"),
        (sentencepiece, ("post_processor",), None, "its post_processor differs"),
        (unigram, ("pre_tokenizer", "add_prefix_space"), False, "its pre_tokenizer differs"),
        (unigram, ("model", "vocab", 3, 1), -7.5, "its model settings differs"),
        (wordpiece, ("model", "unk_token"), "</s>", "its model settings differs"),
    ],
)  # fmt: skip
def test_what_changes_token_ids_decides(
    tmp_path: Path, make: Callable[[], Document], path: tuple[Any, ...], value: Any, words: str
) -> None:
    changed = copy.deepcopy(make())
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert words in compared(tmp_path, make(), changed)[0]


def test_offsets_and_a_lone_sequence_change_nothing(tmp_path: Path) -> None:
    other = byte_level()
    other["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [other["pre_tokenizer"] | {"trim_offsets": False}]}
    other["decoder"] |= {"add_prefix_space": True, "use_regex": False}
    other["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel", "trim_offsets": False}]}
    assert compared(tmp_path, byte_level(), other) == ((), ())


def test_another_decoder_is_said(tmp_path: Path) -> None:
    assert compared(tmp_path, byte_level(), byte_level() | {"decoder": None}) == (
        (),
        ("the candidate's decoder differs from the baseline's",),
    )


@pytest.mark.parametrize(("scheme", "n_remarks"), [("always", 0), ("first", 1)])
def test_llama_2_as_transformers_5_writes_it(tmp_path: Path, scheme: str, n_remarks: int) -> None:
    new = sentencepiece() | {"normalizer": None}
    new["pre_tokenizer"] = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    new["model"] |= {"unk_token": None}  # every byte is a token
    deciding, remarks = compared(tmp_path, sentencepiece(), new)
    assert deciding == ()
    assert len(remarks) == n_remarks
    assert all("handling of spaces after special tokens" in r for r in remarks)


class TestSpecialTokens:
    def differences(self, tmp_path: Path, ours: Document, theirs: Document) -> tuple[tuple[str, ...], tuple[str, ...]]:
        one, two = (read(tmp_path / n, byte_level(), c) for n, c in (("ours", ours), ("theirs", theirs)))
        return tokenizer.differences(one, two)

    def test_an_end_that_only_one_names(self, tmp_path: Path) -> None:
        found = self.differences(tmp_path, {}, {"eos_token": "</s>"})
        assert found == ((), ("only the candidate's files name its eos_token ('</s>')",))

    def test_an_end_that_the_other_has_not(self, tmp_path: Path) -> None:
        assert self.differences(tmp_path, {"eos_token": "<eos>"}, {})[0] == ("eos_token is None instead of '<eos>'",)

    def test_a_beginning_that_follows_from_the_class(self, tmp_path: Path) -> None:
        found = self.differences(tmp_path, {"tokenizer_class": "LlamaTokenizerFast"}, {"bos_token": "<s>"})
        assert found == ((), ("only the candidate's files name its bos_token ('<s>')",))

    def test_a_beginning_that_does_not(self, tmp_path: Path) -> None:
        assert self.differences(tmp_path, {}, {"bos_token": "<s>"})[0] == ("bos_token is '<s>' instead of None",)

    def test_none_is_none(self, tmp_path: Path) -> None:
        assert self.differences(tmp_path, {"bos_token": None}, {}) == ((), ())


class TestFiles:
    @pytest.mark.parametrize("number", ["x", [1], 1.0, None, True])
    def test_ids_are_whole_numbers(self, tmp_path: Path, number: Any) -> None:
        found = byte_level()
        found["model"]["vocab"]["b"] = number
        with pytest.raises(CheckpointError, match=r"gives token 'b' the id .*, expected a whole number"):
            read(tmp_path / "ours", found)
        (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": number}))
        with pytest.raises(CheckpointError, match=r"vocab\.json gives token 'b' the id"):
            tokenizer.read(tmp_path)

    def test_ids_under_added_tokens_too(self, tmp_path: Path) -> None:
        found = byte_level()
        found["model"]["vocab"]["<s>"] = [1]
        with pytest.raises(CheckpointError, match="gives token '<s>' the id"):
            read(tmp_path / "ours", found)

    @pytest.mark.parametrize("score", ["x", None, 10**400])
    def test_scores_are_numbers(self, tmp_path: Path, score: Any) -> None:
        found = unigram()
        found["model"]["vocab"][1][1] = score
        with pytest.raises(CheckpointError, match="is no tokenizer"):
            read(tmp_path / "ours", found)

    @pytest.mark.parametrize("name", ["tokenizer.model", "chat_template.jinja", "merges.txt"])
    def test_no_more_is_read_than_makes_sense(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "vocab.json").write_text('{"a": 0}')
        with (tmp_path / name).open("wb") as file:
            file.truncate(20 * 2**30)  # sparse
        with pytest.raises(Refused, match=f"{name} is larger than"):
            tokenizer.read(tmp_path)

    @pytest.mark.parametrize("name", ["tekken.json", "tiktoken.model", "qwen.tiktoken", "sentencepiece.bpe.model"])
    def test_files_of_other_libraries_are_compared_as_they_are(self, tmp_path: Path, name: str) -> None:
        for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / name).write_bytes(content)
        one, same, other = (tokenizer.read(tmp_path / folder) for folder in "abc")
        assert tokenizer.differences(one, same) == ((), ())
        assert tokenizer.differences(one, other)[0] == (f"{name} differs",)


class TestTemplates:
    def test_named_ones_lie_in_the_configuration_or_in_files(self, tmp_path: Path) -> None:
        named = [{"name": "default", "template": "{{ a }}"}, {"name": "tool_use", "template": "{{ b }}"}]
        ours = read(tmp_path / "ours", byte_level(), {"chat_template": named})
        read(tmp_path / "theirs", byte_level())
        (tmp_path / "theirs" / "chat_template.jinja").write_text("{{ a }}")
        (tmp_path / "theirs" / "additional_chat_templates").mkdir()
        more = tmp_path / "theirs" / "additional_chat_templates" / "tool_use.jinja"
        more.write_text("{{ b }}")
        assert tokenizer.differences(ours, tokenizer.read(tmp_path / "theirs")) == ((), ())
        more.write_text("{{ c }}")
        assert tokenizer.differences(ours, tokenizer.read(tmp_path / "theirs")) == (
            (),
            ("the candidate's chat template 'tool_use' differs from the baseline's: - {{ b }}; + {{ c }}",),
        )

    def test_that_of_a_processor(self, tmp_path: Path) -> None:
        ours = read(tmp_path / "ours", byte_level(), {"chat_template": "{{ a }}"})
        read(tmp_path / "theirs", byte_level(), {"chat_template": "{{ a }}"})
        file = tmp_path / "theirs" / "chat_template.json"
        file.write_text('{"chat_template": "{{ a }}"}')
        assert tokenizer.differences(ours, tokenizer.read(tmp_path / "theirs")) == ((), ())
        file.write_text('{"chat_template": "{{ z }}"}')
        (remark,) = tokenizer.differences(ours, tokenizer.read(tmp_path / "theirs"))[1]
        assert remark.startswith("the candidate's chat template 'chat_template.json' differs")
