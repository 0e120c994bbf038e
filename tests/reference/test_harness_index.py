"""The partial index of lm-eval's bundled tasks holds what its full index holds."""

from __future__ import annotations

from lm_eval.tasks import TaskManager

from gate.stages import harness_index, harness_tasks

NAMES = [
    "mmlu",
    "gsm8k",
    "leaderboard",
    "bbh",
    "super-glue-lm-eval-v1",
    "mmlu_flan_cot_fewshot",
    "ai2_arc",
    "humaneval",
]


def test_the_same_tasks_as_by_the_full_index() -> None:
    full = TaskManager().task_index
    for name in NAMES:
        expected = dict(harness_tasks._leaves(name, full, frozenset(), set()))
        assert harness_tasks.find(name, None).configs == expected
    assert len(harness_tasks.find("mmlu", None).configs) == 57
    assert set(harness_index.all_names()) >= set(NAMES)


def test_a_tag_is_complete_although_its_members_get_it_from_an_include() -> None:
    entry = harness_index.entries(["mmlu_stem_tasks"])["mmlu_stem_tasks"]
    assert "mmlu_anatomy" in entry.tags
    assert len(entry.tags) == 19


def test_a_file_that_only_mentions_part_of_a_name_is_left_alone() -> None:
    found = harness_index.entries(["gsm8k"])
    assert found["gsm8k"].kind.name == "TASK"
    assert "mgsm_direct_en" not in found
