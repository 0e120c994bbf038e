"""Which checkpoints a change touches: real commits, hostile names, and nothing that hides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from gate.checkpoint import weights
from gate.ci import globs
from gate.ci.candidates import Wanted, as_plain, check_reference, listed, named
from gate.ci.detect import Detected, changed_checkpoints, check_not_shadowed
from gate.ci.git import NOTHING, Repository
from gate.ci.links import followed, leaves
from gate.ci.weight_names import holds_weights
from gate.cli import main
from gate.errors import CheckpointError, Refused, UsageError
from gate.publish.candidates import NAME
from tests.ci_factory import LFS_POINTER, Repo, checkpoint, git


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.commit({"README.md": "hello", **checkpoint("models/old"), **checkpoint("models/gone")})
    return made


def detected(repo: Repo, base: str, head: str, *patterns: str) -> Detected:
    return changed_checkpoints(Repository(repo.root), base, head, patterns or ("**",))


def found(repo: Repo, base: str, head: str, *patterns: str) -> list[str]:
    return [one.candidate for one in detected(repo, base, head, *patterns).wanted]


def with_table(table: Mapping[str, object]) -> dict[str, str | bytes | None]:
    return {"thresholds/policy.yaml": yaml.safe_dump({"version": 1, "checkpoints": table})}


def under(repo: Repo, base: str, head: str, *patterns: str) -> list[str]:
    """Found with the policy of `with_table`."""
    answer = changed_checkpoints(Repository(repo.root), base, head, patterns or ("**",), "thresholds/policy.yaml")
    return [one.candidate for one in answer.wanted]


def base_of(repo: Repo) -> str:
    assert repo.head
    return repo.head


def test_new_changed_and_deleted(repo: Repo) -> None:
    base = base_of(repo)
    gone: dict[str, str | bytes | None] = dict.fromkeys(checkpoint("models/gone"))
    head = repo.commit({**checkpoint("models/new"), "models/old/tokenizer.json": "{}", **gone, "docs/a.md": "x"})
    answer = detected(repo, base, head)
    assert as_plain(answer.wanted) == [
        {"name": "models-new", "candidate": "models/new"},
        {"name": "models-old", "candidate": "models/old"},
    ]
    assert answer.notes == ("deleted, nothing to gate: 'models/gone'",)


def test_nothing_changed_is_an_empty_list(repo: Repo) -> None:
    base = base_of(repo)
    assert found(repo, base, repo.commit({"docs/a.md": "x"})) == []


def test_only_what_the_change_did_counts(repo: Repo) -> None:
    """Three dots: what came to the base branch meanwhile is not this change's."""
    parted = base_of(repo)
    head = repo.commit(checkpoint("models/mine"), onto=parted)
    base = repo.commit(checkpoint("models/theirs"), onto=parted)
    assert found(repo, base, head) == ["models/mine"]


def test_the_working_tree_is_never_looked_at(repo: Repo) -> None:
    base = base_of(repo)
    head = repo.commit({"docs/a.md": "x"})
    (repo.root / "models" / "stray").mkdir(parents=True)
    for name, text in checkpoint("models/stray").items():
        (repo.root / name).write_text(str(text))
    assert found(repo, base, head) == []


def test_a_renamed_checkpoint_is_gated_under_its_new_name(repo: Repo) -> None:
    base = base_of(repo)
    moved = {**dict.fromkeys(checkpoint("models/old")), **checkpoint("models/renamed")}
    answer = detected(repo, base, repo.commit(moved))
    assert [one.candidate for one in answer.wanted] == ["models/renamed"]
    assert answer.notes == ("deleted, nothing to gate: 'models/old'",)


@pytest.mark.parametrize("name", [
    "model.safetensors", "model.gguf", "model.safetensors.index.json", "x.SAFETENSORS", "pytorch_model.bin", "x.bin",
    "consolidated.00.pth", "a.pt", "a.ckpt", "a.onnx", "weights.npz", "tf_model.h5", "flax_model.msgpack", "a.pkl",
    "model.safetensors.zst", "model.gguf.part-aa", "model.safetensors.index.fp16.json",
])  # fmt: skip
@pytest.mark.parametrize("config", ["config.json", "CONFIG.json", "adapter_config.json", "tokenizer_config.json"])
def test_kinds_of_weights(repo: Repo, name: str, config: str) -> None:
    base = base_of(repo)
    head = repo.commit({f"q/{config}": "{}", f"q/{name}": LFS_POINTER.format(digest="0" * 64, size=3)})
    assert found(repo, base, head) == ["q"]


@pytest.mark.parametrize("name", [
    "model.safetensors", "llama.Q4_K_M.gguf", "adapter_model.safetensors", "adapter_model.bin", "PYTORCH_MODEL.BIN",
    "pytorch_model-00001-of-00002.bin", "q4_0.bin", "weights.npz", "x.onnx", "x.pt", "x.PTH", "x.ckpt", "model.h5",
])  # fmt: skip
def test_weights_alone_are_a_checkpoint(repo: Repo, name: str) -> None:
    """Whatever is missing beside them is the gate's to say: a folder that is not seen would be a green check."""
    base = base_of(repo)
    head = repo.commit({f"q/{name}": "x"})
    assert found(repo, base, head) == ["q"]
    again = repo.commit({"q/notes.txt": "x"})
    assert found(repo, head, again) == ["q"]


@pytest.mark.parametrize("name", ["logo.bin", "fixture.npz", "cache.pkl", "README.pt.md", "docs.index.json", "a.json"])
def test_files_that_no_model_has(name: str) -> None:
    assert not holds_weights([name, "notes.md"])


def test_other_formats_of_a_checkpoint_are_a_part_of_it(repo: Repo) -> None:
    base = base_of(repo)
    head = repo.commit({**checkpoint("m"), "m/onnx/model.onnx": "x", "m/original/consolidated.00.pth": "x"})
    assert found(repo, base, head) == ["m"]
    assert found(repo, head, repo.commit({"m/onnx/model.onnx": "y"})) == ["m"]
    own = repo.commit({"onnx/model.onnx": "x", **checkpoint("m/original")})
    assert found(repo, head, own) == ["m", "m/original", "onnx"]


def test_a_stray_file_makes_no_checkpoint_of_the_repository(repo: Repo) -> None:
    base = base_of(repo)
    head = repo.commit({"yolo.pt": "x"})
    assert found(repo, base, head) == ["."]
    answer = detected(repo, head, repo.commit({"docs/a.md": "x"}))
    assert (answer.wanted, answer.notes) == ((), ())


@pytest.mark.parametrize("files", [{"q/config.json": "{}"}, {"q/tokenizer.json": "x"}, {"q/package.json": ""}])
def test_no_checkpoint(repo: Repo, files: dict[str, str | bytes | None]) -> None:
    base = base_of(repo)
    assert found(repo, base, repo.commit(files)) == []


@pytest.mark.parametrize("files", [{"models/old/config.json": None}, {"models/old/model.safetensors": None}, {
    "models/old/model.safetensors": None, "models/old/pytorch_model.bin": "pickle"}])  # fmt: skip
def test_a_checkpoint_cannot_stop_being_one(repo: Repo, files: dict[str, str | bytes | None]) -> None:
    base = base_of(repo)
    assert found(repo, base, repo.commit(files)) == ["models/old"]


def test_a_change_counts_for_every_checkpoint_above_it(repo: Repo) -> None:
    """A checkpoint inside another one does not take its parent's files away."""
    base = base_of(repo)
    head = repo.commit(checkpoint("models/old/tokenizer"))
    assert found(repo, base, head) == ["models/old", "models/old/tokenizer"]


def test_the_repository_itself_may_be_one(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "r")
    base = repo.commit(checkpoint("."))
    answer = detected(repo, base, repo.commit({"model.safetensors": "other"}))
    assert [one.candidate for one in answer.wanted] == ["."]
    assert NAME.match(answer.wanted[0].name)


def test_a_first_push_gates_everything(repo: Repo) -> None:
    assert found(repo, NOTHING, base_of(repo)) == ["models/gone", "models/old"]


HOSTILE = [
    "m/evil\nname",
    "m/${{ github.token }}",
    "m/$(id)",
    "m/`id`",
    "m/a\";id;\"",
    "m/it's",
    "m/--allow-identical",
    "m/-x",
    "m/a --out b",
    "-models/x",
    "m/\x1b[31mred",
    "m/\u202eflip",
    "m/zero\u200bwidth",
    "m/back\\slash",
    "m/bytes\udcff",
    "m/::error::x",
    "m/ lead",
    "m/" + "x" * 600,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_an_error_and_shown_escaped(repo: Repo, name: str) -> None:
    base = base_of(repo)
    head = repo.commit({**checkpoint(name), **checkpoint("models/good")})
    with pytest.raises(UsageError) as raised:
        found(repo, base, head)
    told = str(raised.value)
    assert "cannot be gated under this name" in told
    assert told.isascii()
    assert told.isprintable()


def test_a_hostile_name_that_did_not_change_is_nobodys_problem(repo: Repo) -> None:
    base = repo.commit(checkpoint("m/it's"))
    assert found(repo, base, repo.commit(checkpoint("models/good"))) == ["models/good"]


@pytest.mark.parametrize(
    "name", ["Llama-3.1-8B_w4a16", "modèle/été", "模型/四位", "with space/v1", "a=b", "org@2", "a+b,c"]
)
def test_honest_names_are_taken(repo: Repo, name: str) -> None:
    base = base_of(repo)
    answer = detected(repo, base, repo.commit(checkpoint(name)))
    assert [one.candidate for one in answer.wanted] == [name]
    assert NAME.match(answer.wanted[0].name)


def test_links_count_for_what_they_lead_to(repo: Repo) -> None:
    base = repo.commit(
        {"shared/tokenizer.json": "{}", "blobs/w": "w", "m/config.json": "{}", "m/a.gguf": "x"},
        links={"m/tokenizer": "../shared", "m/model.safetensors": "../blobs/w"},
    )
    assert found(repo, base, repo.commit({"shared/tokenizer.json": "[]"}, onto=base)) == ["m"]
    assert found(repo, base, repo.commit({"blobs/w": "other"}, onto=base)) == ["m"]
    assert found(repo, base, repo.commit({"README.md": "x"}, onto=base)) == []


def test_a_link_that_turns_to_another_checkpoint_has_it_gated(repo: Repo) -> None:
    base = repo.commit(checkpoint("drafts/new"), links={"models/production": "old"})
    head = repo.commit({}, links={"models/production": "../drafts/new"})
    assert found(repo, base, head, "models/**") == ["drafts/new"]


@pytest.mark.parametrize("target", ["/data/models/x", "../../elsewhere", "../vendor/it/q4"])
def test_a_changed_link_to_what_cannot_be_seen(repo: Repo, target: str) -> None:
    base = repo.commit({}, links={"models/production": "old"}, submodules={"vendor/it": "1" * 40})
    head = repo.commit({"docs/a.md": "x"}, links={"models/production": target})
    for patterns in (("**",), ("models/**",), ("models/production",)):
        with pytest.raises(UsageError, match="link 'models/production' changed and leads"):
            found(repo, base, head, *patterns)
    assert found(repo, base, head, "docs/**") == []
    assert found(repo, head, repo.commit({"docs/a.md": "y"})) == []


def test_a_changed_submodule_behind_a_link(repo: Repo) -> None:
    base = repo.commit({}, links={"models/production": "../vendor/it/q4"}, submodules={"vendor/it": "1" * 40})
    head = repo.commit({}, submodules={"vendor/it": "2" * 40})
    with pytest.raises(UsageError, match="link 'models/production' changed and leads into a submodule"):
        found(repo, base, head, "models/**")


@pytest.mark.parametrize("target", ["../../blobs/b", "/data/b", "nowhere"])
def test_a_weights_link_that_turns_elsewhere(repo: Repo, target: str) -> None:
    """Whether the gate may follow it is the gate's to say."""
    files = {"blobs/a": "a", "blobs/b": "b", "models/q/config.json": "{}"}
    base = repo.commit(files, links={"models/q/model.safetensors": "../../blobs/a"})
    head = repo.commit({}, links={"models/q/model.safetensors": target})
    assert found(repo, base, head) == ["models/q"]


def test_a_pointer_of_lfs_that_turns_elsewhere(repo: Repo) -> None:
    base = repo.commit(checkpoint("models/q", weights=LFS_POINTER.format(digest="0" * 64, size=3)))
    head = repo.commit(checkpoint("models/q", weights=LFS_POINTER.format(digest="1" * 64, size=3)))
    assert found(repo, base, head) == ["models/q"]


def test_folders_and_files_that_differ_in_their_letters_alone(repo: Repo) -> None:
    base = repo.commit(checkpoint("models/Q4"))
    head = repo.commit({**checkpoint("models/q4"), "models/Q4/MODEL.safetensors": "other"})
    answer = detected(repo, base, head)
    assert [one.candidate for one in answer.wanted] == ["models/Q4", "models/q4"]
    assert len({one.name.casefold() for one in answer.wanted}) == 2


def test_a_renamed_folder_around_checkpoints(repo: Repo) -> None:
    base = base_of(repo)
    away = dict.fromkeys([*checkpoint("models/old"), *checkpoint("models/gone")])
    head = repo.commit({**away, **checkpoint("Models/old"), **checkpoint("Models/gone")})
    assert found(repo, base, head) == ["Models/gone", "Models/old"]


def test_what_the_policy_names_is_gated_under_its_name(repo: Repo) -> None:
    table = {"q4": {"path": "../models/old", "tokenizer": "../tok"}, "hub": {"path": "org/model"}}
    base = repo.commit({**with_table(table), "tok/tokenizer.json": "{}"})
    head = repo.commit({"tok/tokenizer.json": "[]"})
    assert found(repo, base, head) == []
    answer = changed_checkpoints(Repository(repo.root), base, head, ("models/**",), "./thresholds/policy.yaml")
    assert as_plain(answer.wanted) == [{"name": "q4", "candidate": "q4", "folder": "models/old"}]
    assert under(repo, base, repo.commit({"models/old/config.json": "[]"}, onto=base)) == ["q4"]
    assert under(repo, base, repo.commit({"README.md": "x"}, onto=base)) == []
    assert under(repo, base, head, "**", "!models/old/**") == []


def test_every_name_of_a_folder_is_gated(repo: Repo) -> None:
    base = repo.commit(with_table({"q": {"path": "../models/old"}, "nf4": {"path": "../models/old", "load": {"x": 1}}}))
    assert under(repo, base, repo.commit({"models/old/model.safetensors": "x"})) == ["nf4", "q"]


def test_a_named_folder_needs_no_name_of_weights(repo: Repo) -> None:
    base = repo.commit({**with_table({"odd": {"path": "../odd"}, "gone": {"path": "../bye"}}), "bye/a.odd": "x"})
    assert under(repo, base, repo.commit({"odd/weights.odd": "x", "bye/a.odd": None})) == ["odd"]


def test_the_repository_may_have_a_name(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "r")
    base = repo.commit(with_table({"all": {"path": ".."}}))
    assert under(repo, base, repo.commit({"deep/odd.weights": "x"})) == ["all"]


def test_a_link_on_the_way_to_what_the_policy_names(repo: Repo) -> None:
    table = {"live": {"path": "../models/live", "tokenizer": "../models/tok"}}
    files = {**checkpoint("drafts/a"), "drafts/t1/x": "1", "drafts/t2/x": "2"}
    base = repo.commit(
        {**with_table(table), **files}, links={"models/live": "../drafts/a", "models/tok": "../drafts/t1"}
    )
    for links in ({"models/tok": "../drafts/t2"}, {"models/live": "../models/old"}):
        assert under(repo, base, repo.commit({}, links=links, onto=base), "models/**") == ["live"]
    assert under(repo, base, repo.commit({"drafts/t1/x": "3"}, onto=base), "models/**") == ["live"]
    assert under(repo, base, repo.commit({"drafts/t2/x": "3"}, onto=base), "models/**") == []


def test_a_gguf_file_that_no_name_covers(repo: Repo) -> None:
    table = {"q4": {"path": "../models/g", "load": {"gguf_file": "q4.gguf"}}}
    base = repo.commit({**with_table(table), "models/g/q4.gguf": "x"})
    assert under(repo, base, repo.commit({"models/g/q4.gguf": "y"}, onto=base)) == ["q4"]
    assert under(repo, base, repo.commit({"models/g/q5.gguf": "y"}, onto=base)) == ["q4", "models/g"]


def test_a_name_does_not_hide_a_folder(repo: Repo) -> None:
    base = repo.commit(with_table({"nf4": {"path": "../models/old"}}))
    head = repo.commit(checkpoint("nf4"))
    answer = changed_checkpoints(Repository(repo.root), base, head, ("**",), "thresholds/policy.yaml")
    assert [(one.candidate, one.folder) for one in answer.wanted] == [("./nf4", "nf4")]


def test_the_table_is_the_base_branchs(repo: Repo) -> None:
    base = repo.commit(with_table({"q": {"path": "../models/old"}}))
    head = repo.commit({**with_table({"mine": {"path": "../models/old"}}), "models/old/config.json": "[]"})
    assert under(repo, base, head) == ["q"]
    (repo.root / "thresholds").mkdir()
    (repo.root / "thresholds" / "policy.yaml").write_text("checkpoints: {tree: {path: ../models/old}}")
    assert under(repo, base, head) == ["q"]
    assert under(repo, NOTHING, head) == ["models/gone", "mine"]


@pytest.mark.parametrize("text", ["checkpoints: [", "checkpoints: [a]", "a", "\udcff", "checkpoints: {a: {path: 1}}"])
def test_a_table_that_is_none_leaves_the_folders(repo: Repo, text: str) -> None:
    base = repo.commit({"thresholds/policy.yaml": text})
    assert under(repo, base, repo.commit({"models/old/config.json": "[]"})) == ["models/old"]


def test_a_policy_that_is_not_there(repo: Repo) -> None:
    base = base_of(repo)
    with pytest.raises(UsageError, match=r"no policy 'thresholds/policy\.yaml'.*correct --policy"):
        under(repo, base, base)
    head = repo.commit({**with_table({}), "models/old/config.json": "[]"})
    answer = changed_checkpoints(Repository(repo.root), base, head, ("**",), "thresholds/policy.yaml")
    assert [one.candidate for one in answer.wanted] == ["models/old"]
    assert answer.notes == ("the base branch has no policy 'thresholds/policy.yaml': no checkpoint has a name yet",)


def shadowed(repo: Repo, base: str, head: str, text: str, policy: str | None = None) -> tuple[str, ...]:
    return check_not_shadowed(Repository(repo.root), base, head, listed(text), policy)


@pytest.mark.parametrize(
    "ref", ["org/model-w4", "org/model-w4@main", "org/model-w4@refs/pr/1", "gpt2", "q=org/model-w4"]
)
def test_a_change_does_not_put_a_folder_in_the_place_of_the_hub(repo: Repo, ref: str) -> None:
    base = base_of(repo)
    folder = ref.removeprefix("q=")
    head = repo.commit({f"{folder}/anything": "x"})
    with pytest.raises(UsageError, match=rf"no folder on the base branch.*write '\./{folder}' if the folder is meant"):
        shadowed(repo, base, head, f"models/old\n{ref}")
    assert shadowed(repo, head, head, ref) == ()
    assert shadowed(repo, base, head, f"./{folder}") == ()
    assert shadowed(repo, base, base, ref) == ()
    assert shadowed(repo, NOTHING, head, ref) == ()


def test_a_link_or_submodule_in_the_place_of_the_hub(repo: Repo) -> None:
    base = base_of(repo)
    heads = [
        repo.commit({}, links={"org": "models"}, onto=base),
        repo.commit({}, links={"org": "/data"}, onto=base),
        repo.commit({}, submodules={"org": "1" * 40}, onto=base),
    ]
    for head in heads:
        with pytest.raises(UsageError, match=r"write '\./org/old'"):
            shadowed(repo, base, head, "org/old")


def test_what_is_a_folder_or_a_name_is_not_of_the_hub(repo: Repo) -> None:
    base = repo.commit(with_table({"q4": {"path": "../models/old"}}))
    head = repo.commit({**checkpoint("models/deep/new"), **checkpoint("q4")})
    assert shadowed(repo, base, head, "models/deep/new\nmodels/old\nq4", "thresholds/policy.yaml") == ()
    with pytest.raises(UsageError, match=r"write '\./q4'"):
        shadowed(repo, base, head, "q4")


def test_links_in_a_circle_end(repo: Repo) -> None:
    base = base_of(repo)
    head = repo.commit(checkpoint("models/new"), links={"a": "b", "b": "a", "models/loop": "."})
    assert "models/new" in found(repo, base, head)


def test_a_changed_submodule_is_an_error_where_it_could_hide_one(repo: Repo) -> None:
    base = base_of(repo)
    head = repo.commit({}, submodules={"vendor/it": "1" * 40})
    for patterns in (("**",), ("vendor/**",), ("vendor/it/models/**",), ("*/it",)):
        with pytest.raises(UsageError, match="submodule 'vendor/it' changed"):
            found(repo, base, head, *patterns)
    assert found(repo, base, head, "models/**") == []
    assert found(repo, base, head, "**", "!vendor/**") == []


def test_patterns(repo: Repo) -> None:
    base = base_of(repo)
    files = {**checkpoint("models/a"), **checkpoint("models/base/b"), **checkpoint("other/c")}
    head = repo.commit(files)
    assert found(repo, base, head, "models/*") == ["models/a", "models/base/b"]
    assert found(repo, base, head, "models/**", "!models/base/**") == ["models/a"]
    assert found(repo, base, head, "models") == ["models/a", "models/base/b"]
    assert found(repo, base, head, "**/c/*.safetensors") == ["other/c"]
    assert found(repo, base, head, "models/gone/nothing*") == []


@pytest.mark.parametrize("pattern", ["modles/**", "models/odl", "models/odl/*.gguf", "./modles/", "README.md/x/**"])
def test_a_pattern_of_a_folder_that_is_nowhere(repo: Repo, pattern: str) -> None:
    """It would be a green check for ever."""
    base = base_of(repo)
    with pytest.raises(UsageError, match=r"there is no '.*neither in the change nor on the base branch.*commit '"):
        found(repo, base, base, "**", pattern)
    assert found(repo, base, base, "**", f"!{pattern}") == []


def test_a_pattern_in_other_letters(repo: Repo) -> None:
    with pytest.raises(UsageError, match=r"'Models/\*\*'.*did you mean 'models'"):
        found(repo, base_of(repo), base_of(repo), "Models/**")


def test_a_pattern_of_a_folder_that_holds_no_checkpoint_yet(repo: Repo) -> None:
    """Or no longer, or since the change began, or where nobody can look."""
    base = repo.commit({"drafts/README.md": "x"}, links={"mirror": "models"}, submodules={"vendor/it": "1" * 40})
    head = repo.commit({"drafts/README.md": None})
    later = repo.commit({"candidates/README.md": "x"}, onto=base)
    for pattern in ("drafts/**", "candidates/*", "mirror/old", "vendor/it/models/**", "*/none"):
        assert found(repo, later, head, pattern) == []


@pytest.mark.parametrize(("pattern", "path", "fits"), [
    ("**", "a/b", True), ("*.md", "a/b.md", False), ("*.md", "b.md", True), ("**/*.md", "b.md", True),
    ("a/**", "a", False), ("a/**", "a/b/c", True), ("a?c", "abc", True), ("a?c", "a/c", False), ("a.c", "abc", False),
])  # fmt: skip
def test_globs(pattern: str, path: str, fits: bool) -> None:
    assert globs.matches(path, [pattern]) is fits


@pytest.mark.parametrize("patterns", [["!a"], [], ["/etc/**"], ["../x"]])
def test_patterns_that_take_nothing_in(patterns: list[str]) -> None:
    with pytest.raises(UsageError):
        globs.checked(patterns)


@pytest.mark.parametrize("sha", ["main", "HEAD", "--upload-pack=x", "a" * 39, "g" * 40, "", "a" * 40 + "\n", "v1..v2"])
def test_a_commit_is_a_full_sha(repo: Repo, sha: str) -> None:
    with pytest.raises(UsageError, match="expected its full SHA"):
        found(repo, sha, base_of(repo))


def test_missing_history_says_what_to_do(repo: Repo, tmp_path: Path) -> None:
    head = repo.commit(checkpoint("models/new"))
    with pytest.raises(UsageError, match="fetch-depth: 0"):
        found(repo, "1" * 40, head)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repo.root}", "shallow")
    with pytest.raises(UsageError, match="fetch-depth: 0"):
        changed_checkpoints(Repository(tmp_path / "shallow"), git(repo.root, "rev-parse", "HEAD~1"), head, ["**"])
    with pytest.raises(UsageError, match="found no git repository"):
        Repository(tmp_path)


def test_no_history_in_common(repo: Repo, tmp_path: Path) -> None:
    head = base_of(repo)
    tree = git(repo.root, "write-tree")
    alone = git(repo.root, "commit-tree", tree, "-m", "another root")
    with pytest.raises(UsageError, match="no common commit"):
        found(repo, alone, head)


def test_no_program_of_the_repository_runs(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes with text conversion, an external diff and hooks: none of it is asked."""
    base = base_of(repo)
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\n")
    trap.chmod(0o755)
    git(repo.root, "config", "diff.trap.textconv", str(trap))
    git(repo.root, "config", "diff.external", str(trap))
    git(repo.root, "config", "core.fsmonitor", str(trap))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(trap))
    head = repo.commit({".gitattributes": "* diff=trap filter=trap\n", **checkpoint("models/new")})
    (tmp_path / "sprung").unlink(missing_ok=True)
    assert "models/new" in found(repo, base, head)
    assert not (tmp_path / "sprung").exists()


def test_more_than_a_matrix_holds() -> None:
    with pytest.raises(UsageError, match="at most 256"):
        named(f"models/{i}" for i in range(257))
    assert len(named(f"models/{i}" for i in range(256))) == 256


def test_names_are_stable_unique_and_plain() -> None:
    references = ["a/b", "a-b", "A/B", "modèle", ".hidden", "observations", "x" * 300, "x" * 299 + "/y", "."]
    first = named(references)
    assert len({one.name.casefold() for one in first}) == len(references)
    assert all(NAME.match(one.name) and not one.name.startswith((".", "-")) for one in first)
    assert named(references) == first
    assert {one.candidate: one.name for one in named(reversed(references))} == {o.candidate: o.name for o in first}
    assert named(["a/b"])[0].name == "a-b"


@pytest.mark.parametrize(("text", "expected"), [
    ("org/model\n# no\n\n q = models/q4 ", [("org-model", "org/model"), ("q", "models/q4")]),
    ("org/model@abc123", [("org-model-abc123-baee3296", "org/model@abc123")]),
    ('["a/b", {"name": "n", "candidate": "c"}]', [("a-b", "a/b"), ("n", "c")]),
    ('{"n": "a/b"}', [("n", "a/b")]),
])  # fmt: skip
def test_lists(text: str, expected: list[tuple[str, str]]) -> None:
    wanted = listed(text)
    assert [(one.name, one.candidate) for one in wanted] == expected


@pytest.mark.parametrize("text", [
    "../x", "/etc/passwd", "a/../../b", "-rf", "a b --out c", "a\tb", "x=${{ secrets.T }}", "bad name!=a", "a=b\na=c",
    "a\na", "[1]", '[["a"]]', "{", '[{"name": "a", "candidate": "b", "more": 1}]', "# nothing", "[]", "a//b",
    "=a", ".x=a", '["a\\nb"]', '[{"name": "a\\n", "candidate": "b"}]', "previous=a",
])  # fmt: skip
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        listed(text)
    assert "${{ secrets" not in str(raised.value) or "cannot be gated" in str(raised.value)


def test_references_that_are_taken() -> None:
    for text in ("org/model@refs/pr/1", "model", "./models/a", "nf4"):
        assert check_reference(text, "it") == text


def test_json_of_the_answer_is_plain() -> None:
    text = json.dumps(as_plain([Wanted(name="a", candidate="modèle")]))
    assert json.loads(text) == [{"name": "a", "candidate": "modèle"}]


@pytest.mark.parametrize(("path", "place"), [
    ("a/b", "a/b"), ("l/x", "t/x"), ("l/../x", "x"), ("../x", None), ("c1", None), ("abs/x", None), ("a/./b", "a/b"),
    ("", "."),
])  # fmt: skip
def test_followed(path: str, place: str | None) -> None:
    assert followed(path, {"l": "./t", "c1": "c2", "c2": "c1", "abs": "/etc"}) == place


@pytest.mark.parametrize(("path", "out"), [("../x", True), ("abs/x", True), ("up", True), ("c", False), ("a/b", False)])
def test_leaves(path: str, out: bool) -> None:
    assert leaves(path, {"abs": "/etc", "up": "../x", "c": "c"}) is out


@pytest.mark.parametrize(("pattern", "place"), [
    ("**", ""), ("a/**", "a"), ("a/b*/c", "a"), ("a/b", "a/b"), ("a?/b", ""), ("./a/*", "a"),
])  # fmt: skip
def test_before_wildcards(pattern: str, place: str) -> None:
    assert globs.before_wildcards(pattern) == place


@pytest.mark.parametrize(("files", "kind"), [
    ({"config.json": "{}", "pytorch_model.bin": "x"}, Refused),
    ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, CheckpointError),
    ({"model.gguf": "x"}, CheckpointError),
])  # fmt: skip
def test_what_is_found_is_not_passed_over_by_the_gate(
    tmp_path: Path, repo: Repo, files: dict[str, str], kind: type[Exception]
) -> None:
    base = base_of(repo)
    assert found(repo, base, repo.commit({f"q/{name}": text for name, text in files.items()})) == ["q"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(kind):
        weights.files(tmp_path)


def test_a_configuration_in_other_letters_is_left_of_a_checkpoint(repo: Repo) -> None:
    base = repo.commit({"q/CONFIG.json": "{}", "q/model.safetensors": "x"})
    assert found(repo, base, repo.commit({"q/model.safetensors": None})) == ["q"]


def test_the_command(repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    base = repo.commit({**with_table({"q4": {"path": "../models/old", "tokenizer": "../tok"}}), "tok/a": "1"})
    head = repo.commit({"tok/a": "2", **checkpoint("org/model-w4")})
    monkeypatch.chdir(repo.root)
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    arguments = ["ci", "detect", "--base", base, "--head", head, "--policy", "thresholds/policy.yaml"]
    assert main([*arguments, "--paths", "models/**"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "q4", "candidate": "q4", "folder": "models/old"}]
    assert main([*arguments, "--list", "org/model-w4"]) == 2
    assert "write './org/model-w4' if the folder is meant" in " ".join(capsys.readouterr().err.split())
    assert main([*arguments, "--list", "./org/model-w4\nq4"]) == 0
