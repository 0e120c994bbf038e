"""What `gate fetch` gathers, in which order, and how it fails; no network, no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gate import checkpoint, launch, stages, worker
from gate.backends import Checkpoint
from gate.child import OFFLINE, environment
from gate.errors import (
    CheckpointError,
    CouldNotMeasure,
    DataError,
    ExitCode,
    GateError,
    NotFetched,
    UsageError,
    WorkerError,
)
from gate.fetching import CheckingWorker, Fetcher, command, fetch_all, fetch_missing, source_of_a_run
from gate.policy import CheckpointSettings, LmEvalStage, PerplexityStage
from gate.policy_file import LoadedPolicy, load_policy
from gate.records import Role
from gate.stages import lm_eval, perplexity
from tests.checkpoint_factory import write_checkpoint
from tests.hub_server import COMMIT, serve
from tests.unit import stub_stage

TWO_STAGES = """\
version: 1
checkpoints:
  nf4: {path: base, load: {method: bitsandbytes-nf4}}
stages:
  - kind: perplexity
    name: sanity
    corpora: [{name: wikitext2}, {name: c4}]
    rules: [{metric: perplexity, max_increase: 5%}]
  - kind: lm_eval
    name: capability
    tasks:
      - {task: arc_easy, rules: [{metric: acc, max_drop: 3pp}]}
"""


class StandInWorker:
    """Answers as told, by source; an error is raised, and a WorkerError is its end."""

    def __init__(self, answers: Mapping[str, list[str] | GateError], asked: list[str]) -> None:
        self.answers = answers
        self.asked = asked
        self.alive = True
        self.closed = False

    def fetch(self, stage: Mapping[str, Any], base: Path) -> list[str]:
        assert base.is_dir()
        (source,) = [c["name"] for c in stage.get("corpora", [])] + [t["task"] for t in stage.get("tasks", [])]
        self.asked.append(source)
        answer = self.answers.get(source, [])
        if isinstance(answer, GateError):
            self.alive = not isinstance(answer, WorkerError)
            raise answer
        return answer

    def fetch_checkpoint(self, reference: str, checkpoints: Mapping[str, Any], base: Path) -> str:
        self.asked.append(reference)
        answer = self.answers.get(reference)
        if isinstance(answer, GateError):
            raise answer
        return worker._fetched({"reference": reference, "checkpoints": checkpoints, "base": str(base)})

    def close(self) -> None:
        self.alive = False
        self.closed = True


class Workers:
    """Starts stand-ins and remembers them."""

    def __init__(self, answers: Mapping[str, GateError] | None = None, **more: list[str] | GateError) -> None:
        self.answers = {**(answers or {}), **more}
        self.asked: list[str] = []
        self.started: list[StandInWorker] = []

    def __call__(self) -> StandInWorker:
        self.started.append(StandInWorker(self.answers, self.asked))
        return self.started[-1]


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedPolicy:
    (tmp_path / "policy.yaml").write_text(TWO_STAGES)
    write_checkpoint(tmp_path / "base")
    return load_policy(tmp_path / "policy.yaml")


def test_a_line_for_each_checkpoint_and_source(loaded: LoadedPolicy, tmp_path: Path) -> None:
    workers = Workers(wikitext2=["corpus wikitext2: 62 documents"], arc_easy=["task arc_easy: 2376 documents"])
    lines = list(fetch_all(loaded, ["nf4", str(tmp_path / "base")], workers))
    assert lines == [
        f"checkpoint nf4: {tmp_path / 'base'}",
        f"checkpoint {tmp_path / 'base'}: {tmp_path / 'base'}",
        "sanity: corpus wikitext2: 62 documents",
        "capability: task arc_easy: 2376 documents",
    ]
    assert workers.asked == ["wikitext2", "c4", "arc_easy"]
    assert [w.closed for w in workers.started] == [True]


def test_everything_is_attempted_before_the_failures_are_told(loaded: LoadedPolicy) -> None:
    dead = WorkerError("the worker was killed", kind="killed", stderr_tail="loading\nno space left")
    workers = Workers(wikitext2=dead, c4=CouldNotMeasure("c4: no route"), arc_easy=["task arc_easy: 9 documents"])
    lines: list[str] = []
    with pytest.raises(CouldNotMeasure) as caught:
        lines.extend(fetch_all(loaded, ["./gone"], workers))
    first, *failures, advice = str(caught.value).splitlines()
    assert first == "3 things could not be fetched:"
    assert failures[0].startswith("  there is no folder './gone'")
    assert failures[1:] == ["  the worker was killed (its log ends with 'no space left')", "  c4: no route"]
    assert "Is there a network" in advice
    assert "HF_TOKEN" in advice
    assert caught.value.exit_code is ExitCode.ERROR
    assert workers.asked == ["wikitext2", "c4", "arc_easy"]
    assert len(workers.started) == 2, "a dead worker is replaced"
    assert workers.started[-1].closed


def test_lines_come_before_the_error(loaded: LoadedPolicy) -> None:
    lines = fetch_all(loaded, [], Workers(wikitext2=["one"], c4=CouldNotMeasure("no"), arc_easy=["two"]))
    assert [next(lines), next(lines)] == ["sanity: one", "capability: two"]
    with pytest.raises(CouldNotMeasure, match="1 thing could not"):
        next(lines)


def test_a_wrong_name_decides_the_exit_code(loaded: LoadedPolicy) -> None:
    workers = Workers(c4=CouldNotMeasure("c4: no route"), arc_easy=DataError("found the task 'arc_esay'"))
    with pytest.raises(UsageError, match=r"(?s)c4: no route.*arc_esay.*Is there a network"):
        list(fetch_all(loaded, [], workers))
    with pytest.raises(UsageError, match="found 'nf5'") as caught:
        list(fetch_all(loaded, ["nf5"], Workers()))
    assert "network" not in str(caught.value)


def test_the_worker_is_closed_when_nobody_listens_any_more(loaded: LoadedPolicy) -> None:
    workers = Workers(wikitext2=["one"])
    lines = fetch_all(loaded, [], workers)
    next(lines)
    lines.close()  # type: ignore[attr-defined]  # an iterator to its callers, a generator in truth
    assert workers.started[0].closed


def test_a_fetched_checkpoint_is_found_offline(
    loaded: LoadedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import snapshot_download

    write_checkpoint(tmp_path / "hub" / "models" / "org" / "model")
    (tmp_path / "hub" / "models" / "org" / "model" / "pytorch_model.bin").write_bytes(b"a pickle")

    with serve(tmp_path / "hub") as address:

        def download(repository: str, **options: Any) -> str:
            return str(snapshot_download(repository, cache_dir=tmp_path / "cache", endpoint=address, **options))

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        with pytest.raises(CheckpointError, match="no such checkpoint in the local Hugging Face cache"):
            checkpoint.resolve("org/model", policy_checkpoints={}, base=tmp_path, offline=True)
        (line,) = fetch_all(loaded, ["org/model"], Workers())
        with pytest.raises(CouldNotMeasure, match=r"could not download 'org/other' \(RepositoryNotFoundError: 404"):
            list(fetch_all(loaded, ["org/other"], Workers()))
    found = checkpoint.resolve("org/model", policy_checkpoints={}, base=tmp_path, offline=True)
    assert (found.uri, found.revision) == ("org/model", COMMIT)
    assert line == f"checkpoint org/model: {found.path}"
    assert checkpoint.describe(found, Role.BASELINE).n_parameters == 176
    assert not (found.path / "pytorch_model.bin").exists()


def test_the_gguf_file_that_is_asked_for_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import snapshot_download

    repository = tmp_path / "hub" / "models" / "org" / "model"
    write_checkpoint(repository)
    for name in ("model-q4.gguf", "model-q8.gguf"):
        (repository / name).write_bytes(b"GGUF")
    named = {
        "q4": CheckpointSettings(path="org/model", load={"gguf_file": "model-q4.gguf"}, tokenizer="org/model"),
        "plain": CheckpointSettings(path="org/model"),
    }

    with serve(tmp_path / "hub") as address:

        def download(repository: str, **options: Any) -> str:
            return str(snapshot_download(repository, cache_dir=tmp_path / "cache", endpoint=address, **options))

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        found = checkpoint.fetch("q4", policy_checkpoints=named, base=tmp_path)
        weights = {p.name for p in found.path.iterdir() if p.suffix in (".gguf", ".safetensors")}
        assert weights == {"model-q4.gguf"}, "nor the tokenizer's weights"
        assert found.tokenizer == str(found.path)
        assert checkpoint.resolve("q4", policy_checkpoints=named, base=tmp_path, offline=True).path == found.path
        with pytest.raises(CheckpointError, match=r"was downloaded in part|no such checkpoint"):
            checkpoint.describe(
                checkpoint.resolve("plain", policy_checkpoints=named, base=tmp_path, offline=True), Role.BASELINE
            )
        checkpoint.fetch("plain", policy_checkpoints=named, base=tmp_path)
    plain = checkpoint.resolve("plain", policy_checkpoints=named, base=tmp_path, offline=True)
    assert checkpoint.describe(plain, Role.BASELINE).n_parameters == 176
    assert not (plain.path / "model-q8.gguf").exists()


class TestBeforeARun:
    """Only what is not here is downloaded; what could not be is left for the run to stop at."""

    def test_local_checkpoints_start_no_child(self, loaded: LoadedPolicy, tmp_path: Path) -> None:
        workers = Workers()
        with Fetcher(loaded, workers) as fetcher:
            assert list(fetch_missing(fetcher, ["nf4", str(tmp_path / "base"), "./gone", "nf5"])) == []
        assert workers.started == []

    def test_a_checkpoint_of_the_hub_is_tried_once(self, loaded: LoadedPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(loaded.base / "cache"))
        workers = Workers({"org/model": CheckpointError("could not download 'org/model' (no route)")})
        with Fetcher(loaded, workers) as fetcher:
            assert list(fetch_missing(fetcher, ["org/model", "org/model"])) == [
                "checkpoint org/model is not on this machine: downloading it",
                "could not download 'org/model' (no route)",
            ]
        assert workers.asked == ["org/model"]
        assert [w.closed for w in workers.started] == [True]

    def test_the_command_that_fetches_everything(self, loaded: LoadedPolicy) -> None:
        line = command(loaded, {"baseline": "org/model", "candidate": "my model"})
        assert line == f"gate fetch --policy {loaded.source} --baseline org/model --candidate 'my model'"

    def checking(self, missing: list[NotFetched], fetcher: Fetcher | None, said: list[str]) -> CheckingWorker:
        class Measuring:
            running = True

            def check(self, stage: Mapping[str, Any], base: Path) -> tuple[Path, ...]:
                if missing:
                    raise missing.pop()
                return (base / "file",)

        return CheckingWorker(Measuring(), source_of_a_run(fetcher, "gate fetch ...", said.append))  # type: ignore[arg-type]

    STAGE: ClassVar = {"name": "sanity", "corpora": [{"name": "wikitext2"}]}

    def test_a_source_that_is_here_is_not_fetched(self, loaded: LoadedPolicy) -> None:
        workers = Workers()
        with Fetcher(loaded, workers) as fetcher:
            assert self.checking([], fetcher, []).check(self.STAGE, loaded.base) == (loaded.base / "file",)
        assert workers.started == []

    def test_a_source_that_is_missing_is_fetched_and_checked_again(self, loaded: LoadedPolicy) -> None:
        workers, said = Workers(wikitext2=["corpus wikitext2: 62 documents"]), list[str]()
        with Fetcher(loaded, workers) as fetcher:
            checking = self.checking([NotFetched("not here")], fetcher, said)
            assert checking.check(self.STAGE, loaded.base) == (loaded.base / "file",)
            assert [w.closed for w in workers.started] == [True], "nothing stays online while the run measures"
        assert said == ["sanity: downloading what is not on this machine", "sanity: corpus wikitext2: 62 documents"]

    def test_what_cannot_be_had_is_told_with_the_command(self, loaded: LoadedPolicy) -> None:
        with Fetcher(loaded, Workers(wikitext2=CouldNotMeasure("no route"))) as fetcher:
            checking = self.checking([NotFetched("not here")], fetcher, [])
            with pytest.raises(NotFetched, match=r"^not here\nno route\nTo try again: `gate fetch \.\.\.`$"):
                checking.check(self.STAGE, loaded.base)
        with pytest.raises(NotFetched, match=r"^not here\nThis run is offline\. .* `gate fetch \.\.\.`$") as caught:
            self.checking([NotFetched("not here")], None, []).check(self.STAGE, loaded.base)
        assert caught.value.exit_code is ExitCode.USAGE


class TestOnlineWorker:
    MINE: ClassVar = {
        "HF_TOKEN": "t",
        "HUGGING_FACE_HUB_TOKEN": "t",
        "https_proxy": "http://u:p@proxy:1",
        "GITHUB_TOKEN": "t",
    }

    def test_it_alone_may_download_as_this_user(self) -> None:
        online = environment(self.MINE, keep=(), device="cpu", online=True)
        assert not online.keys() & OFFLINE.keys()
        assert online.keys() & self.MINE.keys() == {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "https_proxy"}
        measuring = environment(self.MINE, keep=(), device="cpu")
        assert {measuring[name] for name in OFFLINE} == {"1"}
        assert not measuring.keys() & self.MINE.keys()

    def test_a_user_who_wants_to_stay_offline_does(self) -> None:
        assert environment({"HF_HUB_OFFLINE": "1"}, keep=(), device="cpu", online=True)["HF_HUB_OFFLINE"] == "1"

    @pytest.fixture
    def start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], launch.Worker]:
        monkeypatch.setitem(stages.STAGES, "perplexity", stub_stage.__name__)
        monkeypatch.setenv("PYTHONPATH", str(Path(stub_stage.__file__).parents[2]))
        monkeypatch.setenv("HF_TOKEN", "hush")

        def start_worker(online: bool) -> launch.Worker:
            return launch.start(
                backend="fake",
                checkpoint=Checkpoint(path="", load={}, dtype="auto", tokenizer=None),
                role=Role.BASELINE,
                device="cpu",
                python=None,
                log=tmp_path / "log.txt",
                silence_seconds=20.0,
                start_seconds=30.0,
                online=online,
            )

        return start_worker

    def test_the_request_reaches_the_stage(self, start: Callable[[bool], launch.Worker], tmp_path: Path) -> None:
        stage = perplexity_stage({"name": "c", "path": "c.txt"}).model_dump(mode="json")
        with start(True) as online:
            base, *names = online.fetch(stage, tmp_path)
        assert base == str(tmp_path)
        assert "HF_TOKEN" in names
        assert not {*names} & OFFLINE.keys()
        with start(False) as offline:
            _, *names = offline.fetch(stage, tmp_path)
        assert "HF_TOKEN" not in names
        assert OFFLINE.keys() <= {*names}


def perplexity_stage(*corpora: dict[str, str]) -> PerplexityStage:
    rules = [{"metric": "perplexity", "max_increase": "5%"}]
    return PerplexityStage.model_validate(
        {"kind": "perplexity", "name": "sanity", "corpora": [*corpora], "rules": rules}
    )


class TestPerplexity:
    def test_local_corpora_are_left_alone(self, tmp_path: Path) -> None:
        assert perplexity.fetch(perplexity_stage({"name": "notes", "path": "absent.txt"}), tmp_path) == []

    def test_an_unknown_corpus_is_a_mistake_in_the_policy(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"corpus 'pile' has no path and is not a known data set"):
            perplexity.fetch(perplexity_stage({"name": "pile"}), tmp_path)

    def test_any_failure_of_the_download_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError

        from_the_http_library = HfHubHTTPError.__bases__[0]
        for error in (ConnectionError("no\nroute"), ValueError("no\nroute"), from_the_http_library("no\nroute")):

            def load_dataset(error: Exception = error, **_: Any) -> None:
                raise error

            monkeypatch.setattr(datasets, "load_dataset", load_dataset)
            expected = (
                rf"'wikitext2' \(Salesforce/wikitext\) could not be downloaded: {type(error).__name__}: no route$"
            )
            with pytest.raises(CouldNotMeasure, match=expected):
                perplexity.fetch(perplexity_stage({"name": "wikitext2"}), tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
class TestLmEval:
    def stage(self, folder: Path, task: str = "quiz", **config: Any) -> LmEvalStage:
        """A stage with one local task of two documents; `config` changes its YAML."""
        tasks = folder / "tasks"
        tasks.mkdir()
        (tasks / "quiz.jsonl").write_text('{"q": "one", "a": "1"}\n{"q": "two", "a": "2"}\n')
        whole = {
            "task": "quiz",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "quiz.jsonl"}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{q}}",
            "doc_to_target": "{{a}}",
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            **config,
        }
        (tasks / "quiz.yaml").write_text(json.dumps(whole))
        rules = [{"metric": "exact_match", "max_drop": "3pp"}]
        return LmEvalStage.model_validate(
            {"kind": "lm_eval", "name": "s", "include_path": "tasks", "tasks": [{"task": task, "rules": rules}]}
        )

    def test_a_local_task_needs_nothing(self, tmp_path: Path) -> None:
        assert lm_eval.fetch(self.stage(tmp_path), tmp_path) == []

    def test_an_unknown_task(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="found the task 'quizz'"):
            lm_eval.fetch(self.stage(tmp_path, "quizz"), tmp_path)

    @pytest.mark.parametrize(
        ("kwargs", "line"),
        [
            ({}, "task quiz: 2 documents"),
            (
                {"data_files": {"test": "a.jsonl"}},
                "task quiz: 2 documents, but `datasets` may not find them without a network",
            ),
        ],
    )
    def test_a_hub_task_is_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kwargs: dict[str, Any], line: str
    ) -> None:
        import datasets

        rows = datasets.Dataset.from_list([{"q": "one", "a": "1"}, {"q": "two", "a": "2"}])
        asked: list[str] = []

        def load_dataset(path: str, **_: Any) -> datasets.DatasetDict:
            asked.append(path)
            return datasets.DatasetDict({"test": rows})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        stage = self.stage(tmp_path, dataset_path="org/quiz", dataset_kwargs=kwargs)
        assert lm_eval.fetch(stage, tmp_path) == [line]
        assert asked == ["org/quiz"]

    def test_an_unreachable_data_set_or_metric_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        def load_dataset(*_: Any, **__: Any) -> None:
            raise ConnectionError("no route")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        expected = r"^the data set or metric of task 'quiz' could not be downloaded: ConnectionError: no route$"
        with pytest.raises(CouldNotMeasure, match=expected):
            lm_eval.fetch(self.stage(tmp_path, dataset_path="org/quiz", dataset_kwargs={}), tmp_path)
        monkeypatch.undo()

        monkeypatch.setattr("evaluate.load", load_dataset)
        metric = {"metric": "nowhere", "aggregation": "mean", "higher_is_better": True}
        (tmp_path / "two").mkdir()
        with pytest.raises(CouldNotMeasure, match=r"^the metric 'nowhere' of task 'quiz' could not be downloaded"):
            lm_eval.fetch(self.stage(tmp_path / "two", metric_list=[metric]), tmp_path / "two")
