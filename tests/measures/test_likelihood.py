"""Responses drawn from the likelihood of the reference are those that sampling would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.pipeline.conftest import simulated_values
from zpd_ray import schema
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.engines import Engine, ModelRef, Scores
from zpd_ray.engines.simulated import SimulatedEngine
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.measures.answers import Answers

N = 3000


def config_of(directory: Path, **sections: object) -> Config:
    return validate(simulated_values(directory, n=1, **sections))


def items(n: int = N, tokens: int = 3) -> pa.Table:
    rows: dict[str, list[Any]] = {"item_id": [f"item-{i}" for i in range(n)], "response": ["words"] * n}
    rows["response_tokens"] = [tokens] * n
    return pa.table([rows.get(f.name, [None] * n) for f in schema.ITEM], schema=schema.ITEM)


def measured(config: Config, table: pa.Table, stage: int = 0) -> pa.Table:
    engine: Engine = SimulatedEngine(config, ModelRef("unused", stage=stage))
    return Answers(config).measure(engine, table, stage)


def test_k_responses_are_drawn_and_the_expected_share_right_is_the_probability(tmp_path: Path) -> None:
    config, k = config_of(tmp_path, measure={"grader": "likelihood", "rollouts": 8}), 8
    found = measured(config, items())
    p = np.exp(-3 * found["nll"].to_numpy().astype(np.float64))
    s = found["successes"].to_numpy()
    assert set(found["rollouts"].to_pylist()) == {k}
    np.testing.assert_allclose(found["credit"].to_numpy(), k * p, rtol=1e-6)
    assert abs((s - k * p).sum()) < 4 * np.sqrt((k * p * (1 - p)).sum())
    z = (s - k * p) / np.sqrt(k * p * (1 - p))  # binomial, not all alike as one share would be
    assert z[p > 0.05].var() == pytest.approx(1, abs=0.1)
    again = measured(config, items(), stage=1)
    assert (again["successes"].to_numpy() != s).mean() > 0.3


def test_an_item_has_the_same_draws_in_whatever_part_it_comes(tmp_path: Path) -> None:
    config = config_of(tmp_path, measure={"grader": "likelihood", "rollouts": 4})
    whole = measured(config, items(50))
    rows = np.random.default_rng(0).permutation(50)
    parts = [measured(config, items(50).take(part)) for part in np.split(rows, [7, 30])]
    assert pa.concat_tables(parts).equals(whole.take(rows).combine_chunks())
    one = measured(config_of(tmp_path, measure={"grader": "likelihood"}), items(50))
    assert (one["successes"].to_numpy() <= whole["successes"].to_numpy()).all()  # more rollouts add draws


def test_an_item_that_failed_has_no_response(tmp_path: Path) -> None:
    config = config_of(tmp_path, measure={"grader": "likelihood", "rollouts": 4})
    row = measured(config, items(1, tokens=0)).to_pylist()[0]
    assert [row[name] for name in ("nll", "successes", "credit", "rollouts")] == [None, 0, 0, 0]


class Broken(SimulatedEngine):
    """Tells a negative NLL, which is no logarithm of a probability."""

    def score(self, items: pa.Table) -> Scores:
        scores = super().score(items)
        return Scores(-scores.nll, scores.n_tokens, scores.n_greedy, scores.error)


def test_a_share_above_one_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, measure={"grader": "likelihood"})
    with pytest.raises(ZpdError, match=r"Likelihood gave .* share from 0 to 1"):
        Answers(config).measure(Broken(config, ModelRef("unused")), items(5), 0)


def test_another_temperature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZpdError, match=r"temperature 1, got temperature = 0\.7"):
        config_of(tmp_path, measure={"grader": "likelihood", "temperature": 0.7})


def taught(directory: Path, pairs: list[tuple[str, str]], steps: int = 60) -> Path:
    """A tiny model that answers each prompt with one of its references, more or less often."""
    path = tiny.build_model(directory, sharpness=1.0)
    tokenizer, model = tiny.build_tokenizer(), AutoModelForCausalLM.from_pretrained(path)
    asked = [tokenizer(f"{prompt}\n")["input_ids"] for prompt, _ in pairs]
    told = [tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id] for _, answer in pairs]
    longest = max(len(a) + len(t) for a, t in zip(asked, told, strict=True))
    ids, labels = torch.zeros(2, len(pairs), longest, dtype=torch.long)
    labels[:] = -100
    for row, (prompt, answer) in enumerate(zip(asked, told, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    return path


def test_sampling_and_comparing_exactly_agrees_with_it(tmp_path: Path) -> None:
    """Many rollouts of a real model, against exp(-sum of NLL)."""
    answers = ("4", "17", "a b", "fox")
    pairs = [(f"What is {i}?", answers[(i + j) % 4]) for i in range(4) for j in range(2)]
    path, rollouts = taught(tmp_path / "model", pairs), 500
    table = pa.Table.from_pylist(
        [
            {"item_id": f"i{i}", "messages": [{"role": "user", "content": p}], "response": r, "answer": r}
            for i, (p, r) in enumerate(pairs)
        ],
        schema=schema.ITEM,
    )
    shares = {}
    for grader in ("exact", "likelihood"):
        config = config_of(
            tmp_path,
            engine={"name": "transformers"},
            model={"path": str(path)},
            measure={"grader": grader, "rollouts": rollouts, "max_new_tokens": 6},
        )
        found = Answers(config).measure(TransformersEngine(config, ModelRef(str(path))), table, 0)
        shares[grader] = found["successes"].to_numpy() / rollouts
        p = np.exp(-found["nll"].to_numpy().astype(np.float64) * found["n_tokens"].to_numpy())
        assert ((p > 0.1) & (p < 0.9)).sum() >= 4  # the model answers now this, now that
        error = np.sqrt(p * (1 - p) / rollouts)
        assert (np.abs(shares[grader] - p) < 4 * error + 0.01).all()
    assert not np.array_equal(shares["exact"], shares["likelihood"])
