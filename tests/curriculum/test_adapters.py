"""Curricula in other trainers: TRL for real, verl and prime-rl by the interfaces that they publish."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.docs.pages import blocks
from tests.pipeline.processes import ROOT
from zpd_ray.curriculum import Curriculum
from zpd_ray.curriculum.trl import ROW, observed, stream
from zpd_ray.errors import ZpdError


def right_if_even(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    """None where a completion is empty."""
    return [float(len(text) % 2 == 0) if text else None for text in completions]


def prompts(n: int) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [f"{i} =" for i in range(n)], "answer": [str(i) for i in range(n)]})


def test_the_stream_has_the_rows_that_the_curriculum_draws_as_it_learns() -> None:
    curriculum, dataset = Curriculum(40, seed=2), prompts(40)
    rows = iter(stream(curriculum, dataset, 8))
    first = [next(rows) for _ in range(8)]
    assert len({row[ROW] for row in first}) == 8
    assert all(row["prompt"] == f"{row[ROW]} =" and row["answer"] == str(row[ROW]) for row in first)
    same = Curriculum(40, seed=2)
    same.next(8)
    ids = [row[ROW] for row in first]
    for each in (curriculum, same):
        each.observe(ids, [4] * 8, 8)
    assert [next(rows)[ROW] for _ in range(8)] == same.next(8).tolist()


def test_a_reward_tells_the_curriculum_and_stays_what_it_was() -> None:
    one, two = Curriculum(4), Curriculum(4)
    texts = ["", "a", "bb", "cc", "d", "ee"]
    columns = {"prompts": ["x"] * 6, "completions": texts, ROW: [0, 0, 0, 3, 3, 3]}
    assert observed(one, right_if_even)(**columns) == [None, 0.0, 1.0, 1.0, 0.0, 1.0]
    two.observe([0, 3], [1, 2], [2, 3])
    np.testing.assert_array_equal(one.score(), two.score())
    observed(one, right_if_even)(prompts=["x"], completions=["a"])  # of an evaluation
    np.testing.assert_array_equal(one.score(), two.score())
    assert observed(one, right_if_even).__name__ == "right_if_even"


def test_a_column_of_the_same_name_is_refused() -> None:
    with pytest.raises(ZpdError, match=ROW):
        stream(Curriculum(3), prompts(3).add_column(ROW, [1, 2, 3]), 2)


def snippet(module: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """ZpdSampler of the block of the docs that imports from ``module``, in whose place ``names`` are."""
    text = next(b.text for b in blocks("python") if b.page == "howto/rl" and f"from {module} " in b.text)
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    vars(sys.modules[module]).update(names)
    space: dict[str, Any] = {}
    exec(compile(text, module, "exec"), space)
    return space["ZpdSampler"]


def test_the_sampler_for_verl_draws_rows_and_takes_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as verl's create_rl_sampler, StatefulDataLoader and fit do."""
    made = snippet("verl.experimental.dataset.sampler", {"AbstractCurriculumSampler": object}, monkeypatch)
    index = [7, 3, 9, 1, 4, 8, 2]  # after long prompts were left out
    data = SimpleNamespace(dataframe={"extra_info": [{"index": each} for each in index]})
    sampler = made(data_source=data, data_config={"train_batch_size": 3})
    rows = list(sampler)
    assert len(rows) == len(sampler) == 6
    assert set(rows) <= set(range(7))
    before = sampler.curriculum.score([7, 3])
    scores = np.zeros((4, 5))
    scores[:3, 4] = 1.0
    told = np.array([7, 7, 3, 3], dtype=object)
    sampler.update(
        batch=SimpleNamespace(batch={"token_level_scores": scores}, non_tensor_batch={"index": told})
    )
    same = Curriculum(index, seed=0)
    same.observe([7, 3], [2, 1], 2)
    np.testing.assert_array_equal(sampler.curriculum.score(), same.score())
    assert (sampler.curriculum.score([7, 3]) != before).all()


def test_the_sampler_for_prime_rl_draws_tasks_and_takes_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as prime-rl's Curriculum does."""
    made = snippet("prime_rl.orchestrator.curriculum.samplers", {"TaskSampler": object}, monkeypatch)
    tasks = [SimpleNamespace(key=f"task {i}") for i in range(5)]
    sampler = made(tasks, groups_per_step=4)
    assert {next(sampler).key for _ in range(5)} == {task.key for task in tasks}
    trace = [SimpleNamespace(reward=each) for each in (1.0, 0.0, 1.0)]
    group = [SimpleNamespace(task=tasks[2], ok=each is not trace[0], traces=[each]) for each in trace]
    sampler.observe(group)
    same = Curriculum([task.key for task in tasks], seed=0)
    same.observe(["task 2"], [1], [2], steps=0.25)
    np.testing.assert_array_equal(sampler.curriculum.score(), same.score())
    other = made(tasks, groups_per_step=4)
    other.load_state_dict(sampler.state_dict())
    assert next(other) in tasks
    assert other.metrics() == sampler.metrics()


@pytest.mark.nightly
def test_trl_trains_on_what_the_curriculum_draws(tmp_path: Path) -> None:
    """A few steps of the example, in a process of its own: both ways, from one base model."""
    command = [sys.executable, str(ROOT / "examples/rl/train.py"), "--steps", "4", "--base-steps", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["draw"] for row in rows] == ["curriculum", "uniform"]
    assert {row["rollouts"] for row in rows} == {4 * 16 * 8}
    assert rows[0]["asked"] >= 48  # of the last batch TRL may have drawn what it did not use
