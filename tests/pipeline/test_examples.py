"""The examples, run by the command of their README: quickstart and words in small, GSM8K on real problems."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.engines.real_vllm import needs_vllm
from tests.pipeline.conftest import table_of
from tests.pipeline.processes import EXAMPLES, ROOT, Quickstart, run_here
from zpd_ray.rundir.records import load_events, load_fit
from zpd_ray.rundir.store import Store

GSM8K = ROOT.parent / "shared/data/gsm8k"
needs_gsm8k = pytest.mark.skipif(not GSM8K.is_dir(), reason=f"needs {GSM8K}")


# --- quickstart ---


def test_quickstart_ends_with_an_adapter_and_tells_each_stage(quickstart: Quickstart) -> None:
    store = Store(str(quickstart.output))
    for stage in (0, 1):
        name = f"stages/{stage:02d}"
        fit, selection = load_fit(store, stage), store.read_json(f"{name}/selection.json")
        assert store.exists(f"{name}/adapter/adapter_model.safetensors")
        assert selection["selected"] == 32  # 20 % of 160
        assert 0 < selection["replay"] <= 8  # a quarter, from what is mastered
        assert store.read_json(f"{name}/metrics.json")["items"] == 24
        assert f"stage {stage}: theta = {fit.ability.theta:.2f} +- {fit.ability.se:.2f}" in quickstart.stderr
        standing = load_fit(store, 1).ability.at(stage)  # the closing table has one scale
        assert f"{standing.theta:.2f} +- {standing.se:.2f}" in quickstart.stdout
    assert str(quickstart.output / "stages/01/adapter") in quickstart.stdout
    assert "Traceback" not in quickstart.stderr


def test_quickstart_trains_on_what_it_selects(quickstart: Quickstart) -> None:
    """What stage 0 was trained on has a lower NLL at stage 1 than the rest has by comparison."""
    store = Store(str(quickstart.output))
    before, after = (table_of(store, f"stages/{stage:02d}/measurements/answers") for stage in (0, 1))
    assert before["item_id"].equals(after["item_id"])
    fell = before["nll"].to_numpy() - after["nll"].to_numpy()
    chosen = set(table_of(store, "stages/00/selected")["item_id"].to_pylist())
    trained = np.array([item in chosen for item in before["item_id"].to_pylist()])
    assert fell[trained].mean() > max(0.0, fell[~trained].mean())


def jaccard(ours: Store, theirs: Store, stage: int) -> float:
    """Items that both runs selected / items that either did."""
    ids = [
        set(table_of(store, f"stages/{stage:02d}/selected")["item_id"].to_pylist())
        for store in (ours, theirs)
    ]
    return len(ids[0] & ids[1]) / len(ids[0] | ids[1])


@needs_vllm
@pytest.mark.nightly  # tests/engines/test_vllm.py compares the engines, with adapters
@pytest.mark.parametrize("runs", ["vllm_measured", "vllm_quickstart"])
def test_quickstart_with_vllm_selects_the_same(
    quickstart: Quickstart, runs: str, request: pytest.FixtureRequest
) -> None:
    """At both stages: the second is measured with the adapter that the first has trained."""
    ours, theirs = Store(str(request.getfixturevalue(runs).output)), Store(str(quickstart.output))
    for stage in (0, 1):
        assert jaccard(ours, theirs, stage) >= 0.98
        assert load_fit(ours, stage).ability.theta == pytest.approx(
            load_fit(theirs, stage).ability.theta, abs=0.05
        )
    settings = ours.read_json("manifest.json")["engine"]
    assert settings["max_num_batched_tokens"] > 0
    assert settings["vllm"].startswith("0.")


# --- words and how they are pronounced ---


@pytest.mark.nightly  # two epochs of the base model
def test_words_are_right_and_wrong_as_the_generator_says(pronunciation: Quickstart) -> None:
    """`corrupted` comes along, is read by nobody, and yet tells NLLs apart; no word is in two places."""
    store = Store(str(pronunciation.output))
    pool, measured = table_of(store, "pool"), table_of(store, "stages/00/measurements/answers")
    own = [json.loads(extra) for extra in pool["extra"].to_pylist()]
    corrupted = np.array([row["corrupted"] for row in own])
    assert len(own) == 600
    assert 80 <= corrupted.sum() <= 90  # of 90 some may sound like the word whose phones they were given
    nll = measured["nll"].to_numpy()
    assert np.median(nll[corrupted]) > 2 * np.median(nll[~corrupted])
    assert not measured["successes"].to_numpy()[corrupted].any()
    held_out = [
        json.loads(extra)["word"] for extra in table_of(store, "evaluation/pool")["extra"].to_pylist()
    ]
    assert len({row["word"] for row in own} | set(held_out)) == 700
    chosen = set(table_of(store, "stages/00/selected")["item_id"].to_pylist())
    picked = np.array([item in chosen for item in pool["item_id"].to_pylist()])
    assert picked.sum() == 45  # 7.5 % of 600
    assert corrupted[picked].mean() < corrupted.mean() / 2


# --- GSM8K ---


def problems(part: str, count: int) -> list[str]:
    with gzip.open(GSM8K / f"{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return list(itertools.islice(lines, count))


@pytest.fixture(scope="module")
def speechless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that cannot say a digit: all of its answers are wrong.

    The logits of tokens with a digit are 0, and of a thousand random ones some are above.
    """
    texts = ["{question} {answer}".format(**json.loads(line)) for line in problems("train", 300)]
    directory = tiny.build_model(
        tmp_path_factory.mktemp("speechless"), texts=texts, vocab=1024, layers=1, max_length=1024
    )
    vocabulary = tiny.build_tokenizer(texts, 1024).get_vocab()
    digits = [index for token, index in vocabulary.items() if any(c.isdigit() for c in token)]
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"][torch.tensor(digits)] = 0.0
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def run_gsm8k(directory: Path, pool: Path, model: Path, engine: str = "transformers") -> Store:
    """One stage of examples/gsm8k/run.toml on the CPU, with short answers."""
    directory.mkdir(exist_ok=True)
    evaluation = directory / "test.jsonl"
    evaluation.write_text("".join(problems("test", 8)), encoding="utf-8")
    overrides = [
        f"output={directory / 'run'}",
        f"pool.path={pool}",
        f"evaluation.path={evaluation}",
        f"model.path={model}",
        f"engine.name={engine}",
        "stages=1",
        "report=false",
        "measure.rollouts=1",
        "measure.max_new_tokens=4",
        "train.epochs=1",
        "train.learning_rate=2e-3",
        "cluster.gpus_per_actor=0",
        "cluster.gpus_per_train_worker=0",
        "measure.max_unparsed_share=1",
        "ability.allow_extreme=true",
    ]
    done = run_here("run", EXAMPLES / "gsm8k/run.toml", *overrides)
    assert "every response is wrong" in done.stderr
    assert "the grader found no answer in" in done.stderr
    return Store(str(directory / "run"))


def assert_all_wrong_is_handled(store: Store, rows: int) -> None:
    pool, measured = store.read_json("pool.json"), store.read_json("stages/00/measured.json")["answers"]
    bad = sum(pool["quarantined"].values())
    assert pool["rows"] == rows == pool["items"] + pool["duplicates"] + pool["overlap"] + bad
    table = table_of(store, "stages/00/measurements/answers")
    assert table.num_rows == measured["items"] == pool["items"]
    assert (measured["right"], measured["failed"]) == (0, 0)
    assert measured["tokens"] == pool["response_tokens"]
    fit = load_fit(store, 0)
    assert np.isfinite([fit.ability.theta, fit.ability.se]).all()
    assert "all_wrong" in fit.flags
    selected = table_of(store, "stages/00/selected").sort_by("rank")
    assert fit.ability.theta < selected["b"][0].as_py()
    assert np.all(np.diff(selected["b"].to_numpy()) >= 0)  # the nearest to theta first
    nll = dict(zip(table["item_id"].to_pylist(), table["nll"].to_pylist(), strict=True))
    chosen = [nll[item] for item in selected["item_id"].to_pylist()]
    assert len(chosen) == round(0.05 * pool["items"])
    assert chosen == sorted(nll.values())[: len(chosen)]


def assert_trained_and_evaluated(store: Store) -> None:
    result, before = store.read_json("stages/00/train.json"), store.read_json("base/metrics.json")
    assert result["tokens"] == store.read_json("stages/00/selection.json")["tokens"]
    after = store.read_json("stages/00/metrics.json")
    assert after["items"] == before["items"] == 8
    assert after["nll"] < before["nll"]


@pytest.fixture(scope="module")
def gsm8k_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pool = tmp_path_factory.mktemp("gsm8k") / "train.jsonl"
    pool.write_text("".join(problems("train", 600)), encoding="utf-8")
    return pool


@pytest.fixture(scope="module")
def gsm8k_run(local_ray: None, gsm8k_pool: Path, speechless: Path) -> Store:
    return run_gsm8k(gsm8k_pool.parent / "transformers", gsm8k_pool, speechless)


@needs_gsm8k
def test_gsm8k_with_a_model_that_solves_nothing(gsm8k_run: Store) -> None:
    assert_all_wrong_is_handled(gsm8k_run, 600)
    assert_trained_and_evaluated(gsm8k_run)


@needs_vllm
@needs_gsm8k
@pytest.mark.slow
def test_gsm8k_with_vllm_selects_the_same(gsm8k_run: Store, gsm8k_pool: Path, speechless: Path) -> None:
    store = run_gsm8k(gsm8k_pool.parent / "vllm", gsm8k_pool, speechless, "vllm")
    assert_all_wrong_is_handled(store, 600)
    assert_trained_and_evaluated(store)
    assert jaccard(store, gsm8k_run, 0) >= 0.98


@needs_gsm8k
@pytest.mark.slow
def test_all_of_gsm8k_with_a_model_that_solves_nothing(
    local_ray: None, tmp_path: Path, speechless: Path
) -> None:
    store = run_gsm8k(tmp_path, GSM8K / "train.jsonl.gz", speechless)
    assert_all_wrong_is_handled(store, 6000)
    assert_trained_and_evaluated(store)
    for event in load_events(store):
        print(event)
