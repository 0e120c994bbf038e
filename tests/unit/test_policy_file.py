"""Loading a policy: every mistake at once with line and column, hostile YAML, digest and line numbers."""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path

import pytest

from gate.errors import ExitCode, PolicyError, UsageError
from gate.policy_file import LoadedPolicy, load_policy, renamed, with_on_inconclusive

GOOD = """\
# yaml-language-server: $schema=./schema.json
version: 1
budget: 20min
stages:
  - kind: perplexity
    name: sanity
    corpora:
      - {name: wikitext2, window: 1024}
    rules:
      - {metric: perplexity, max_increase: 5%}
  - kind: domain
    name: fraud
    data: data/fraud.jsonl
    template: "{input}\\nAnswer:"
    match: contains
    rules:
      - metric: accuracy
        max_drop: 3pp
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str | bytes) -> LoadedPolicy:
    path = Path("policy.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_policy(path)


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert all("\n" not in problem for problem in caught.value.problems)
    return list(caught.value.problems)


def one(text: str | bytes) -> str:
    (only,) = mistakes(text)
    return only


def test_a_good_policy(folder: Path) -> None:
    loaded = load(GOOD)
    assert loaded.source == "policy.yaml"
    assert loaded.base == folder.resolve()
    assert loaded.text == GOOD
    assert [r.id for r in loaded.rules] == ["sanity.perplexity.max_increase", "fraud.accuracy.max_drop"]
    assert [r.line for r in loaded.rules] == [10, 17]
    assert loaded.lines[("stages", 0, "corpora", 0, "window")] == 8
    assert loaded.lines[("stages", 1, "rules", 0, "max_drop")] == 18
    assert loaded.lines[()] == 2


@pytest.mark.usefixtures("folder")
def test_six_mistakes_are_reported_at_once_with_line_and_column() -> None:
    text = """\
    version: 1
    confidense: 0.95
    stages:
      - kind: perplexity
        name: sanity
        corpora:
          - {name: wikitext2}
        rules:
          - {metric: perplexity, max_drop: 3pp}
      - kind: domain
        name: fraud
        data: fraud.jsonl
        data: other.jsonl
        match: contains
        rules:
          - metric: accuracy
            max_drop: 3%
          - {metric: accuracy}
          - {metric: acuracy, max_drop: 3pp}
    """
    assert mistakes(textwrap.dedent(text)) == [
        "policy.yaml:2:1: confidense: unknown key 'confidense': did you mean 'confidence'?",
        "policy.yaml:9:40: stages[0].rules[0].max_drop: max_drop does not fit perplexity, expected one of "
        "max_increase, max",
        "policy.yaml:13:5: stages[1].data: duplicate key, first given on line 12: remove one",
        "policy.yaml:17:19: stages[1].rules[0].max_drop: found '3%', expected percentage points such as 3pp",
        "policy.yaml:18:9: stages[1].rules[1]: found no bound, expected exactly one of max_increase, max_drop, "
        "min_retained, min_speedup, max, min",
        "policy.yaml:19:18: stages[1].rules[2].metric: unknown metric 'acuracy': did you mean 'accuracy'?",
    ]


@pytest.mark.usefixtures("folder")
def test_the_message_counts_the_mistakes_and_names_the_file() -> None:
    with pytest.raises(PolicyError, match=re.escape("policy.yaml: 2 mistakes in the policy\n  policy.yaml:1:1: ")):
        load("{}\n")
    with pytest.raises(PolicyError, match=re.escape("policy.yaml: 1 mistake in the policy\n")):
        load("version: 1\n")


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("version: 1", "version: 2", "2:10: version: found 2, expected 1: the version of the "
         "policy's format, not of the gate"),
        ("version: 1", "version: yes", "2:10: version: found True, expected 1: the version of the "
         "policy's format, not of the gate"),
        ("version: 1\n", "", "2:1: policy: missing key 'version'"),
        ("20min", "20", "3:9: budget: found '20', expected a duration such as 90s, 20min or 1h"),
        ("20min", "0s", "3:9: budget: found '0s', expected more than zero"),
        ("20min", "[20min]", "3:9: budget: found \"['20min']\", expected a duration such as 90s, 20min or 1h"),
        ("name: sanity", "name: no", "6:11: stages[0].name: found 'no', expected text: YAML reads this as bool, "
         "write it in quotes"),
        ("name: sanity", "name: a b", "6:11: stages[0].name: found 'a b', expected letters, digits, _ and -, "
         "not starting with - or _"),
        ("name: sanity\n", "\n", "5:5: stages[0]: missing key 'name'"),
        ("kind: perplexity", "kind: perplexty", "5:11: stages[0].kind: found 'perplexty', expected one of perplexity, "
         "lm_eval, domain, profile: did you mean 'perplexity'?"),
        ("kind: perplexity\n    name", "name", "5:5: stages[0]: missing key 'kind', expected one of perplexity, "
         "lm_eval, domain, profile"),
        ("window: 1024", "window: yes", "8:35: stages[0].corpora[0].window: found 'yes', expected a whole number"),
        ("window: 1024", "window: '1024'", "8:35: stages[0].corpora[0].window: found '1024', expected a whole number: "
         "remove the quotes"),
        ("window: 1024", "window: 1", "8:35: stages[0].corpora[0].window: found '1', expected at least 2"),
        ("window: 1024", "window: 256", "8:9: stages[0].corpora[0]: stride 512 is larger than window 256: tokens would "
         "go unscored"),
        ("window: 1024", "fewshot: 5", "8:27: stages[0].corpora[0].fewshot: unknown key 'fewshot': it belongs to a "
         "task"),
        ("window: 1024", "xyzzy: 5", "8:27: stages[0].corpora[0].xyzzy: unknown key 'xyzzy', expected one of name, "
         "path, text_field, window, stride, max_tokens, looks, documents, cluster, block_tokens"),
        ("- {name: wikitext2, window: 1024}", "wikitext2", "8:7: stages[0].corpora: found 'wikitext2', expected a "
         "list"),
        ("{name: wikitext2, window: 1024}", "wikitext2", "8:9: stages[0].corpora[0]: found 'wikitext2', expected a "
         "mapping"),
        ("match: contains", "match: containz", "15:12: stages[1].match: found 'containz', expected 'exact', "
         "'contains', 'regex', 'numeric', 'choice' or 'json': did you mean 'contains'?"),
        ('"{input}\\nAnswer:"', "{input}", "14:15: stages[1].template: found a mapping, expected text: text with "
         "braces or brackets needs quotes"),
        ('"{input}\\nAnswer:"', '"{input.__class__}"', "14:15: stages[1].template: found '{input.__class__}' in the "
         "template, expected only {input}, {id}, {category} ({{ and }} for braces)"),
        ("max_drop: 3pp", "max_drop: !!python/object/apply:os.system [id]", "18:19: stages[1].rules[0].max_drop: found "
         "\"['id']\", expected percentage points such as 3pp"),
        ("max_drop: 3pp", "max_drop: !percent 3", "18:19: stages[1].rules[0].max_drop: found the tag '!percent', "
         "expected plain values without tags"),
        ("max_drop: 3pp", "max_drop: 3pp\n        severity: blockin", "19:19: stages[1].rules[0].severity: found "
         "'blockin', expected 'blocking' or 'advisory': did you mean 'blocking'?"),
        ("max_drop: 3pp", "max_drop: 3pp\n        severity: advisory", None),
        ("budget: 20min", "checkpoints: {'a b': {path: x}}", "3:15: checkpoints.a b: found 'a b', expected letters, "
         "digits, _ and -, not starting with - or _"),
        ("budget: 20min", "checkpoints: {nf4: {path: x, dtipe: auto}}", "3:30: checkpoints.nf4.dtipe: unknown key "
         "'dtipe': did you mean 'dtype'?"),
        ("budget: 20min", "engines: {vlm: {}}", "3:11: engines.vlm: unknown key 'vlm': did you mean 'vllm'?"),
        ("budget: 20min", "engines: {vllm: {max_model_length: 9}}", "3:18: engines.vllm.max_model_length: unknown key "
         "'max_model_length': did you mean 'max_model_len'?"),
        ("budget: 20min", "engines: {hf: {prefix_cache: 2}}", "3:30: engines.hf.prefix_cache: found '2', expected a "
         "size such as 256MiB or 2GiB"),
        ("budget: 20min", "confidence: 1", "3:13: confidence: found '1', expected less than 1"),
        ("budget: 20min", "confidence: .nan", "3:13: confidence: found '.nan', expected a finite number"),
        ("budget: 20min", "seed: " + "9" * 5000, "3:7: seed: found '" + "9" * 40 + "', which is not a number"),
        ("budget: 20min", "<<: {seed: 1}", "3:1: policy: merge keys (<<) are not supported: write the settings out"),
        ("budget: 20min", "{a: b}: 1", "3:1: policy: found a key that is itself a list or a mapping: put braces in "
         "quotes"),
        ("budget: 20min", "seed:", None),
        ("budget: 20min", "stages: []", None),
    ],
)  # fmt: skip
def test_single_mistakes(old: str, new: str, mistake: str | None) -> None:
    text = changed(old, new)
    if mistake is not None:
        assert one(text) == f"policy.yaml:{mistake}"
    elif new == "seed:":
        assert one(text) == "policy.yaml:3:6: seed: found nothing, expected a whole number"
    elif new == "stages: []":
        assert mistakes(text) == [
            "policy.yaml:3:9: stages: found an empty list, expected at least one entry",
            "policy.yaml:4:1: stages: duplicate key, first given on line 3: remove one",
        ]
    else:
        assert [r.severity for r in load(text).rules] == ["blocking", "advisory"]


@pytest.mark.usefixtures("folder")
def test_contradictions_behind_a_rejected_value_keep_their_places() -> None:
    text = changed("        max_drop: 3pp\n", "        max_dorp: 3pp\n      - {metric: rouge, max_drop: 3pp}\n")
    text = text.replace("match: contains", "match: contains\n    tolerance: 1")
    assert [m.split(": ", 2)[0:2] for m in mistakes(text)] == [
        ["policy.yaml:16:16", "stages[1].tolerance"],
        ["policy.yaml:19:9", "stages[1].rules[0].max_dorp"],
        ["policy.yaml:20:18", "stages[1].rules[1].metric"],
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "policy.yaml:1:1: found an empty file, expected a mapping with `version` and `stages`"),
        ("# nothing\n", "policy.yaml:1:1: found an empty file, expected a mapping with `version` and `stages`"),
        ("- version: 1\n", "policy.yaml:1:1: found a list, expected a mapping with `version` and `stages`"),
        ("just text\n", "policy.yaml:1:1: found a str, expected a mapping with `version` and `stages`"),
        ("version: 1\nstages: [\n", "policy.yaml:3:1: not valid YAML: expected the node content, but found "
         "'<stream end>' while parsing a flow node"),
        ("version: 1\n\tstages: 2\n", "policy.yaml:2:1: not valid YAML: found character '\\t' that cannot start any "
         "token while scanning for the next token: indent with spaces"),
        ("version: 1\n---\nversion: 1\n", "policy.yaml:2:1: not valid YAML: but found another document expected a "
         "single document in the stream"),
        ("version: *nowhere\n", "policy.yaml:1:10: not valid YAML: found undefined alias 'nowhere'"),
        ("version: 1\nstages: '\x00'\n", "policy.yaml:2:10: found the character U+0000, expected printable text"),
        (b"version: 1\nname: \xff\xfe\n", "policy.yaml:2:1: found byte 0xff, expected UTF-8 text: save the file as "
         "UTF-8"),
        ("version: " + "[" * 60 + "]" * 60, "policy.yaml:1:59: nested deeper than 50 levels, expected a flat policy"),
        ("version: &a [*a]\n", "policy.yaml:1:10: aliases expand to more than 20,000 values, expected a plain "
         "document"),
        ("#" * 1_000_001, "policy.yaml: found more than 1,000,000 bytes, expected a policy of a few KB"),
    ],
)  # fmt: skip
def test_files_that_are_no_policy(text: str | bytes, mistake: str) -> None:
    assert one(text) == mistake


@pytest.mark.usefixtures("folder")
def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    begun = time.monotonic()
    assert "aliases expand to more than 20,000 values" in one("\n".join(lines))
    assert time.monotonic() - begun < 5


@pytest.mark.usefixtures("folder")
def test_a_megabyte_of_brackets_is_refused_without_exhausting_the_stack() -> None:
    assert "nested deeper than 50 levels" in one("[" * 999_000)


@pytest.mark.usefixtures("folder")
def test_anchors_are_fine_in_measure() -> None:
    text = GOOD.replace(
        "      - metric: accuracy\n        max_drop: 3pp\n", "      - &r {metric: accuracy, max_drop: 3pp}\n"
    )
    again = "  - kind: domain\n    name: other\n    data: o.jsonl\n    match: exact\n    rules: [*r]\n"
    assert [r.id for r in load(text + again).rules][-1] == "other.accuracy.max_drop"


def test_missing_file_folder_and_no_permission(folder: Path) -> None:
    with pytest.raises(PolicyError, match=re.escape("nowhere.yaml: found no such file, expected a policy")):
        load_policy(Path("nowhere.yaml"))
    with pytest.raises(PolicyError, match=re.escape("cannot be read (Is a directory), expected a file")):
        load_policy(folder)


@pytest.mark.usefixtures("folder")
def test_the_digest_follows_the_meaning_and_not_the_layout() -> None:
    digest = load(GOOD).digest
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    commented = GOOD.replace("version: 1", "version: 1   # a comment\nseed: 0\nconfidence: 0.95")
    flow = GOOD.replace(
        "      - metric: accuracy\n        max_drop: 3pp\n", "      - {max_drop: 3pp, metric: accuracy}\n"
    )
    assert load(commented).digest == digest
    assert load(flow).digest == digest
    assert load("\ufeff" + GOOD).digest == digest
    assert load(GOOD.replace("\n", "\r\n")).digest == digest
    assert load(changed("3pp", "4pp")).digest != digest
    assert load(changed("name: fraud", "name: frauds")).digest != digest


def test_a_relative_policy_keeps_its_name_and_finds_its_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "p.yaml").write_text(GOOD)
    loaded = load_policy(Path("sub") / "p.yaml")
    assert loaded.source == "sub/p.yaml"
    assert loaded.base == folder.resolve() / "sub"
    assert loaded.base.is_absolute()


def test_a_copy_is_named_by_its_path_in_the_repository_and_keeps_its_folder(folder: Path) -> None:
    loaded = load(GOOD)
    assert renamed(loaded, None) is loaded
    for name in ("thresholds/p.yaml", "./thresholds/p.yaml", "thresholds//p.yaml"):
        named = renamed(loaded, name)
        assert named.source == "thresholds/p.yaml"
        assert (named.base, named.digest, named.rules, named.text) == (
            folder.resolve(),
            loaded.digest,
            loaded.rules,
            loaded.text,
        )
    _, (note,) = with_on_inconclusive(renamed(loaded, "thresholds/é p.yaml"), "warn")
    assert "thresholds/é p.yaml says fail" in note


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name", ["", ".", "/etc/p.yaml", "../p.yaml", "a/../p.yaml", "a\n::error::b", "\x1b[31m", "a\\b", "x" * 1001]
)
def test_a_policy_is_named_by_nothing_else(name: str) -> None:
    loaded = load(GOOD)
    with pytest.raises(UsageError, match="--policy-name") as caught:
        renamed(loaded, name)
    assert str(caught.value).isprintable()
