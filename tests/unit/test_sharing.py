"""What leaves the machine: no byte of a shared copy holds a text that the policy keeps, and its verdict is the same."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from gate import artifact, sharing
from gate.cli import main
from gate.errors import UsageError
from gate.records import Finding, ItemFailure, RunRecord, Status
from gate.reports import candidates, markdown, shared
from gate.reports.own_sentences import SENTENCES
from gate.reports.own_words import CUT, own_words
from tests import records_factory as factory
from tests.e2e.world import World, make_world

CANARIES = {
    "prompt": "zanzibar-prompt-7f3a",
    "target": "quetzal-target-91bc",
    "answer": "narwhal-answer-55de",
    "failure": "ocelot-failure-20aa",
    "log": "gannet-log-63ef",
    "reason": "bandicoot-reason-18cd",
    "note": "axolotl-note-40bb",
}
ITEM = "fraud/q7/"


def texts_of(folder: Path) -> dict[str, str]:
    """Everything that the files of a folder hold, Parquet unpacked, with what is said of columns and file."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        raw = path.read_bytes().decode("utf-8", errors="replace")
        if path.suffix == ".parquet":
            file = parquet.ParquetFile(path)
            raw += json.dumps(file.read().to_pylist(), ensure_ascii=False) + str(file.metadata) + str(file.schema_arrow)
            raw += str({**(file.schema_arrow.metadata or {}), **(file.metadata.metadata or {})})
        found[str(path.relative_to(folder))] = raw
    return found


def seen(folder: Path) -> set[str]:
    texts = "".join(texts_of(folder).values())
    return {name for name, canary in CANARIES.items() if canary in texts}


def spoilt(record: RunRecord) -> RunRecord:
    """The record with canaries wherever a foreign word can get: reasons, notes, the sentence."""

    def finding(one: Finding) -> Finding:
        if one.status in (Status.PASS, Status.REGRESSION):
            return one
        return replace(one, reason=f"3 of 96 items were lost (bad: ValueError: {CANARIES['reason']})")

    stages = tuple(
        replace(
            s,
            findings=tuple(map(finding, s.findings)),
            notes=(*s.notes, f"judge: no usable scores for 4 answers, first JudgeFailed: {CANARIES['note']}"),
        )
        for s in record.stages
    )
    broken = factory.finding(
        factory.rule(id="fraud.broken"), Status.ERROR, None, reason=f"in stage fraud: {CANARIES['reason']}\ntail"
    )
    stages = (*stages[:-1], replace(stages[-1], findings=(*stages[-1].findings, broken)))
    said = f"Could not measure: accuracy on fraud: in stage fraud: {CANARIES['reason']} [fraud.broken]."
    return replace(
        record,
        stages=stages,
        verdict=replace(record.verdict, status=Status.ERROR, deciding=("fraud.broken",), sentence=said),
        exit_code=4,
        notes=(*record.notes, f"candidate: it said: {CANARIES['note']}"),
    )


def canary_run(root: Path, share: str) -> World:
    """A real run on the fake backend whose every text is a canary; then messages and reasons spoilt in its files."""
    world = make_world(root)
    rows = [
        {
            "id": f"q{i}",
            "input": f"{CANARIES['prompt']} what is {i} plus {i} ?",
            "expected": f"{CANARIES['target']} {2 * i}",
            "category": "abc"[i % 3],
        }
        for i in range(64)
    ]
    for path, kept in ((root / "questions.jsonl", rows), (root / "tasks" / "sums.jsonl", rows[:32])):
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    world.checkpoint("baseline", seed=1, error_rate=0.0)
    world.checkpoint("candidate", seed=2, error_rate=0.4, mistake=CANARIES["answer"])
    policy = world.policy(["capability", "fraud"], share_examples=share)
    world.run(policy, "--keep-going")
    out = root / "out"
    for path in sorted((out / "observations").glob("*.parquet")):
        measured = artifact.read_observations(path)
        failed = ItemFailure(item_id="fraud/q900/0", kind="bad", message=CANARIES["failure"])
        spoilt_ = [replace(m, failures=(failed,), notes=(*m.notes, f"x: {CANARIES['note']}")) for m in measured]
        artifact.write_observations(path, spoilt_)
    (out / "log.txt").write_text(f"{CANARIES['log']}\n", encoding="utf-8")
    record = spoilt(world.record())
    (out / "run.json").write_text(artifact.dumps_record(record), encoding="utf-8")
    return world


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    return {share: canary_run(tmp_path_factory.mktemp(share), share) for share in ("none", "ids", "full")}


def shared_copy(world: World, to: Path) -> Path:
    assert main(["share", str(world.root / "out"), f"--out={to}"]) == 0
    return to


def test_the_run_holds_every_canary(runs: dict[str, World]) -> None:
    assert seen(runs["none"].root / "out") == set(CANARIES)


@pytest.mark.parametrize("share", ["none", "ids"])
def test_no_byte_of_the_copy_is_a_canary(runs: dict[str, World], tmp_path: Path, share: str) -> None:
    copy = shared_copy(runs[share], tmp_path / "copy")
    assert seen(copy) == set()
    assert sorted(texts_of(copy)) == [
        "junit.xml", "observations/capability.parquet", "observations/fraud.parquet", "report.html", "run.json",
        "summary.md",
    ]  # fmt: skip


def test_full_shares_everything(runs: dict[str, World], tmp_path: Path) -> None:
    source, copy = runs["full"].root / "out", shared_copy(runs["full"], tmp_path / "copy")
    assert seen(copy) == set(CANARIES)
    for name in ("run.json", "log.txt", "observations/fraud.parquet"):
        assert (copy / name).read_bytes() == (source / name).read_bytes()


def test_ids_of_items_are_in_the_copy_and_nowhere_that_is_published(runs: dict[str, World], tmp_path: Path) -> None:
    copies = {share: texts_of(shared_copy(runs[share], tmp_path / share)) for share in ("none", "ids")}
    assert ITEM in copies["none"]["observations/fraud.parquet"]
    flips = {share: json.loads(copy["run.json"])["flips"] for share, copy in copies.items()}
    assert flips["none"] == []
    assert {f["item_id"].split("/")[0] for f in flips["ids"]} >= {"fraud"}
    assert "share_examples none leaves out" in copies["none"]["run.json"]
    first = flips["ids"][0]["item_id"]
    for name in ("summary.md", "report.html", "junit.xml"):
        assert "fraud/q" not in copies["none"][name], name
    assert first in copies["ids"]["summary.md"]
    assert "Its texts are not shared" in copies["ids"]["report.html"]
    assert "<h4>Prompt</h4>" not in copies["ids"]["report.html"]


@pytest.mark.parametrize("share", ["none", "ids", "full", "everything", None])
def test_the_copy_has_the_same_verdict(tmp_path: Path, share: str | None) -> None:
    """Findings are equal to the last byte when both are judged again; what is unknown shares nothing."""
    world = make_world(tmp_path)
    world.checkpoint("candidate", seed=2, error_rate=0.12)
    assert world.run(world.policy(["sanity", "capability", "fraud"]), "--keep-going") == 1
    out = tmp_path / "out"
    if share is None or share == "everything":
        document = json.loads((out / "run.json").read_text(encoding="utf-8"))
        document["policy"] = {k: v for k, v in document["policy"].items() if k != "share_examples"}
        (out / "run.json").write_text(json.dumps(document), encoding="utf-8")
        share = "none"
    else:
        policy = world.policy(["sanity", "capability", "fraud"], share_examples=share)
        assert main(["decide", str(out), f"--policy={policy}", f"--out={tmp_path / 'again'}"]) == 1
        out = tmp_path / "again"
    assert main(["share", str(out), f"--out={tmp_path / 'copy'}"]) == 0
    judged = []
    for folder in (out, tmp_path / "copy"):
        to = tmp_path / f"decided-{folder.name}"
        assert main(["decide", str(folder), f"--policy={tmp_path / 'policy.yaml'}", f"--out={to}"]) == 1
        judged.append(json.loads((to / "run.json").read_text(encoding="utf-8")))
    findings = [json.dumps([s["findings"] for s in record["stages"]]) for record in judged]
    assert findings[0] == findings[1]
    assert judged[0]["verdict"] == judged[1]["verdict"]


def stored(folder: Path, record: RunRecord) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(artifact.dumps_record(record), encoding="utf-8")
    return folder


def test_nothing_else_of_the_folder_is_copied_and_the_folder_stays(tmp_path: Path) -> None:
    policy = {**factory.POLICY, "share_examples": "full"}
    run = stored(tmp_path / "run", factory.regression(policy))
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (run / "previous").mkdir()
    (run / "previous" / "run.json").write_text("old", encoding="utf-8")
    (run / "stray.txt").write_text("stray", encoding="utf-8")
    (run / "report.html").symlink_to(secret)
    (run / "log.txt").symlink_to(secret)
    (run / "observations").mkdir()
    (run / "observations" / "fraud.parquet").symlink_to(secret)
    (run / "observations" / "other.parquet").write_text("of no stage", encoding="utf-8")
    os.mkfifo(run / "observations" / "sanity.parquet")
    before = sorted((p.name, p.lstat().st_mtime_ns) for p in run.rglob("*"))
    copy = sharing.share(run, tmp_path / "copy")
    assert sorted(texts_of(tmp_path / "copy")) == ["junit.xml", "report.html", "run.json", "summary.md"]
    assert not any(p.is_symlink() for p in (tmp_path / "copy").rglob("*"))
    assert set(copy.left_out) == {
        "previous", "stray.txt", "report.html (a link)", "log.txt (a link)", "observations/fraud.parquet",
        "observations/other.parquet", "observations/sanity.parquet",
    }  # fmt: skip
    assert sorted((p.name, p.lstat().st_mtime_ns) for p in run.rglob("*")) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "run", "secret.txt"]


def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", factory.regression())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    for name in ("full", "file", "link"):
        with pytest.raises(UsageError, match="holds something already"):
            sharing.share(run, tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text(encoding="utf-8") == "mine"
    assert main(["share", str(run), f"--out={run}"]) == 2
    assert main(["share", str(run), f"--out={run / 'inside'}"]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["share", str(run), f"--out={tmp_path / 'empty'}"]) == 0
    assert (tmp_path / "empty" / "run.json").is_file()


def test_what_cannot_be_read_leaves_no_half_copy(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", factory.regression())
    (run / "observations").mkdir()
    (run / "observations" / "fraud.parquet").write_text("damaged", encoding="utf-8")
    assert main(["share", str(run), f"--out={tmp_path / 'copy'}"]) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    (run / "run.json").unlink()
    (run / "run.json").symlink_to("/etc/hostname")
    assert main(["share", str(run), f"--out={tmp_path / 'copy'}"]) == 2


# records


@pytest.mark.parametrize("share", ["none", "ids", "full"])
@pytest.mark.parametrize("name", sorted(factory.everything()))
def test_a_record_that_was_redacted_is_not_redacted_again(name: str, share: str) -> None:
    record = factory.everything()[name]
    record = replace(record, policy={**record.policy, "share_examples": share})
    once = shared.redacted(record)
    assert shared.redacted(once) == once
    assert share != "full" or once == record
    assert [f.status for s in once.stages for f in s.findings] == [f.status for s in record.stages for f in s.findings]


@pytest.mark.parametrize("share", ["none", "ids", None, "FULL"])
def test_summaries_are_redacted_although_the_record_is_not(share: str | None) -> None:
    record = spoilt(factory.regression({**factory.POLICY, "share_examples": share}))
    for text in (markdown.render(record), candidates.render([("a", record), ("b", record)], 20_000)):
        assert not [c for c in CANARIES.values() if c in text]
        assert "Account A holds" not in text
        assert CUT.strip("[]") in text


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("the baseline worker failed in stage fraud: ValueError: SECRET",
         "the baseline worker failed in stage fraud: ValueError"),
        ("3 of 96 items were lost (bad: SECRET)", "3 of 96 items were lost"),
        ("stage 'fraud': none of the first 32 items could be measured; the first failure is bad on fraud/q1/ab: SECRET",
         "stage 'fraud': none of the first 32 items could be measured; the first failure is bad"),
        ("judge: no usable scores for 4 answers, first JudgeFailed: SECRET",
         "judge: no usable scores for 4 answers, first JudgeFailed"),
        ("SECRET", "SECRET"),  # a text without any sign of a quotation is the gate's own
        ("'SECRET' is not what the baseline was asked", ""),
        ("a streamed chunk is not JSON: b'SECRET'", "a streamed chunk is not JSON"),
        ("found `SECRET`", "found"),
        ("the worker was killed\nthe last lines of its log:\nSECRET", "the worker was killed"),
        ("(SECRET) is odd", ""),
        ("waited (12 SECRET)", "waited"),
    ],
)  # fmt: skip
def test_foreign_words_are_cut(said: str, kept: str) -> None:
    expected = kept if kept == said else f"{kept} {CUT}".strip()
    assert own_words(said, {"fraud"}) == expected
    assert own_words(expected, {"fraud"}) == expected


@pytest.mark.parametrize(
    "said",
    [
        "at look 2 of 4 (4,000 tokens): the increase keeps the bound 5% over its whole interval (98.75% sure)",
        "the drop is beyond the bound 3pp, settled by the first 160 of 1,319 items (98.33% sure)",
        "greedy decoding (temperature 0): differences in the distribution of answers stay unseen",
        "stage sanity ended in REGRESSION (--keep-going runs the rest)",
        "metric 'exact_match' is not reported: the candidate's metrics are others",
        "fraud: the candidate was not measured",
        "accuracy: 5 of 200 items could not be measured (candidate timeout: 5), and max_lost allows 0; an item without "
        "a value is neither right nor wrong: mend the measurement and run again",
        "the candidate worker was ended in stage fraud: the time budget left was 5 s: the interval of the drop holds "
        "values on both sides of the bound 3pp",
    ],
)
def test_the_gates_own_words_stay(said: str) -> None:
    assert own_words(said, {"fraud", "accuracy", "exact_match"}) == said


@pytest.mark.parametrize(
    "said",
    [
        "the noise floor of bank_cloze, fraud was not measured: even the same model changes some answers when batch "
        "size or kernels change; gate calibrate measures it",
        "candidate: compressed-tensors: transformers unpacks the weights to float32 when they are first run; scores "
        "include their rounding, memory and speed are those of float32 weights",
        "the corpus is too short for look 16000: 10322 tokens can be scored",
        "batch=1 did not become steady in 20 warm-up runs: its times may drift",
        "pair 2 was measured again: the timed threads waited 31% of the time for a CPU (other processes used 80% of "
        "the CPUs)",
        "guard rail: no evidence, after Holm's correction, that the drop is beyond 10pp in any of 3 groups; worst: "
        "fraud, accuracy",
        "the baseline worker failed in stage fraud: OutOfMemory: out of memory at batch size 8: 4 fit",
        "stopped after 3 s: the time budget left was 2 s; raise `budget` or measure fewer items: the interval of the "
        "drop holds values on both sides of the bound 3pp",
    ],
)
def test_the_gates_sentences_stay_whole(said: str) -> None:
    assert own_words(said, {"fraud", "accuracy"}) == said
    assert own_words(f"fraud: {said}", {"fraud", "accuracy"}) == f"fraud: {said}"


SECRET = "he said 'open' (sesame): now"


@pytest.mark.parametrize("sentence", SENTENCES)
def test_no_sentence_lets_a_foreign_text_through(sentence: str) -> None:
    """Whatever hole it comes through, and behind the sentence."""
    begin, *rest = re.split(r"(\{[^{}]*\})", sentence)
    filled = {"n": "3", "role": "baseline", "word": "x", "words": "x", "value": "'x'", "changes": "x is 1 instead of 2",
              "given": "", "time": "2026-11-21T00:00:00", "group": "batch=1", "url": "http://x", "names": "fraud",
              "reason": "the baseline was not measured", "own": "no message"}  # fmt: skip
    holes = [h[1:-1] for h in rest[::2]]
    said = [h.split("|")[0] if "|" in h else filled[h] for h in holes]

    def written(texts: list[str]) -> str:
        return begin + "".join(text + literal for text, literal in zip(texts, rest[1::2], strict=True))

    assert own_words(written(said), {"fraud"}) == written(said)
    for i in range(len(said)):
        spoilt_ = written([*said[:i], SECRET, *said[i + 1 :]])
        assert "sesame" not in own_words(spoilt_, {"fraud"}), holes[i]
    for behind in (f": {SECRET}", f" ({SECRET})", f"; {SECRET}", f" {SECRET}"):
        assert "sesame" not in own_words(written(said) + behind, {"fraud"})


def test_a_line_that_never_ends_is_cut_soon() -> None:
    for part in ("; ", "a ", "a, ", "at look 1 of 2 (3 tokens): ", "the baseline ", "a is 'b' instead of 'c'; ", "({["):
        own_words(part * 200_000, {"fraud"})
        own_words(part * (3_900 // len(part)), {"fraud"})


@pytest.mark.parametrize(
    ("error_rate", "code", "stages"),
    [(0.02, 0, ["sanity", "capability", "fraud"]), (0.4, 1, ["sanity", "capability", "fraud", "serving"])],
)
def test_an_ordinary_run_hides_nothing(tmp_path: Path, error_rate: float, code: int, stages: list[str]) -> None:
    """Green or red, and nothing in it looks as if it were concealed: all of it is the gate's own."""
    world = make_world(tmp_path)
    world.checkpoint("candidate", seed=2, error_rate=error_rate)
    assert world.run(world.policy(stages, share_examples="none")) == code
    copy = shared_copy(world, tmp_path / "copy")
    for name, text in texts_of(copy).items():
        assert CUT.strip("[]") not in text, name


@pytest.mark.parametrize(
    "name", sorted(set(factory.everything()) - {"hostile", "error"})
)  # the error's reason quotes a log
def test_records_of_ordinary_runs_hide_nothing(name: str) -> None:
    assert CUT.strip("[]") not in markdown.render(factory.everything()[name])


def test_the_log_of_a_worker_is_missing_in_its_reason_and_not_in_the_sentence() -> None:
    reason = f"the candidate worker was killed by SIGSEGV in stage fraud\nthe last lines of its log:\n{SECRET}"
    broken = factory.finding(factory.rule(), Status.ERROR, None, reason=reason)
    record = factory.record(Status.ERROR, [factory.stage("domain", "fraud", Status.ERROR, [broken])])
    found = shared.redacted(record)
    assert found.stages[0].findings[0].reason == f"{reason.partition(chr(10))[0]} {CUT}"
    assert CUT not in found.verdict.sentence
    assert "sesame" not in found.verdict.sentence


def test_items_that_a_reason_names_are_cut_whatever_the_status() -> None:
    lost = "guard rail: every group keeps the bound 3pp; 2 of 200 items lost, for instance 'fraud/q7/ab', \"it's/q\""
    passed = factory.finding(factory.rule(), Status.PASS, (0.0, -0.01, 0.01), reason=lost)
    record = factory.record(Status.PASS, [factory.stage("domain", "fraud", Status.PASS, [passed])])
    [found] = [f for s in shared.redacted(record).stages for f in s.findings]
    assert found.reason == "guard rail: every group keeps the bound 3pp; 2 of 200 items lost"


def test_a_refusal_and_a_waiver_are_told_in_full() -> None:
    assert shared.redacted(factory.refused()).verdict.sentence == factory.refused().verdict.sentence
    noted = replace(factory.waived(), notes=("waiver: that of x by Ada (until 2026): was applied: it's 'known'",))
    assert shared.redacted(noted).notes[0] == noted.notes[0]
