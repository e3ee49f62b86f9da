"""The engine on a real vLLM, in a process of its own: the numbers of transformers, whatever is swapped.

With -m gpu the same assertions run on a GPU.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.engines.lora import TARGETS, make_adapter
from tests.engines.real_vllm import needs_vllm
from tests.engines.test_asked import PROMPTS, alone, plain_loop
from tests.engines.test_turns_nll import chat_model, conversations
from tests.pipeline.processes import call
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.engines.usage import rates
from zpd_ray.errors import ZpdError
from zpd_ray.measures import without_prompt

if TYPE_CHECKING:
    from zpd_ray.engines.vllm.engine import VllmEngine

pytestmark = needs_vllm

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
MakeItems = Callable[..., pa.Table]


class Engines:
    """vLLM patches the process it starts in, so it starts in one of its own: the first takes seconds."""

    def __init__(self) -> None:
        self.started: dict[str, VllmEngine] = {}

    def call(self, key: str, how: tuple[Any, ...], name: str, arguments: tuple[Any, ...]) -> Any:
        """A method of the engine that was started in this way, which it is where there is none."""
        if key not in self.started:
            from zpd_ray.engines.vllm.engine import VllmEngine

            config, model, forced = how
            engine = VllmEngine(config, model)
            for attribute, value in forced.items():
                setattr(engine.encoder, attribute, value)
            self.started[key] = engine
        return getattr(self.started[key], name)(*arguments)


class Remote:
    """An engine's methods, called in its process."""

    def __init__(self, engines: Any, key: str, how: tuple[Any, ...]) -> None:
        self.engines, self.key, self.how = engines, key, how

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return ray.get(self.engines.call.remote(self.key, self.how, name, arguments))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

        return call


Start = Callable[..., Remote]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Sections of the config: where the engines run."""
    gpus = 1.0 if request.param == "gpu" else 0.0
    return {"cluster": {"gpus_per_actor": gpus}, "model": {"dtype": "float32"}}


@pytest.fixture(scope="module")
def start(local_ray: None, device: dict[str, Any], make_config: Callable[..., Config]) -> Iterator[Start]:
    """An engine, started when it is called first; one that was started the same way is taken again."""
    gpus = device["cluster"]["gpus_per_actor"]
    processes: dict[str, Any] = {}

    def begin(path: Path, forced: dict[str, int] | None = None, **sections: Any) -> Remote:
        key = repr((path, forced, sections))
        process = key if gpus else "all"  # on a GPU each has its memory for itself, so there is one at a time
        if process not in processes:
            end()
            processes[process] = ray.remote(num_cpus=0, num_gpus=gpus)(Engines).remote()
        model = device["model"] | sections.pop("model", {})
        train = {"method": "lora", "lora": {"targets": list(TARGETS)}}
        engine = {"name": "vllm"} | sections.pop("engine", {})
        fixed = {"train": train, "engine": engine} | device
        config = make_config(path, **(fixed | sections | {"model": model}))
        return Remote(processes[process], key, (config, ModelRef(str(path)), forced or {}))

    def end() -> None:
        while processes:
            ray.kill(processes.popitem()[1])

    yield begin
    end()


@pytest.fixture
def reference(
    make_config: Callable[..., Config], device: dict[str, Any]
) -> Callable[..., TransformersEngine]:
    """The transformers engine with the same model."""

    def make(path: Path, adapter: Path | None = None, **sections: Any) -> TransformersEngine:
        model = device["model"] | sections.pop("model", {})
        config = make_config(path, **(device | sections | {"model": model}))
        return TransformersEngine(config, ModelRef(str(path), str(adapter) if adapter else None))

    return make


def other_weights(model_dir: Path, directory: Path) -> Path:
    """The same model after something like full fine-tuning."""
    shutil.copytree(model_dir, directory)
    weights = load_file(model_dir / "model.safetensors")
    torch.manual_seed(7)
    moved = {name: w + 0.02 * torch.randn_like(w) * w.std() for name, w in weights.items()}
    save_file(moved, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def gsm8k_model(gsm8k: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [text for pair in gsm8k for text in pair]
    return tiny.build_model(tmp_path_factory.mktemp("gsm8k"), texts=texts, vocab=1000, max_length=1024)


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.nightly)])
def test_agrees_with_transformers_before_and_after_two_adapters_and_a_reload(
    count: int,
    gsm8k: list[tuple[str, str]],
    gsm8k_model: Path,
    tmp_path: Path,
    start: Start,
    reference: Callable[..., TransformersEngine],
    make_items: MakeItems,
) -> None:
    items = make_items(gsm8k[:count])
    assert items.num_rows == count
    first = make_adapter(gsm8k_model, tmp_path / "first", seed=1)
    second = make_adapter(gsm8k_model, tmp_path / "second", seed=2)
    moved = other_weights(gsm8k_model, tmp_path / "moved")
    engine = start(gsm8k_model)
    seen = []
    for base, adapter in ((gsm8k_model, None), (gsm8k_model, first), (gsm8k_model, second), (moved, None)):
        engine.follow(ModelRef(str(base), str(adapter) if adapter else None))
        ours, theirs = engine.score(items), reference(base, adapter).score(items)
        assert ours.error == theirs.error == [None] * count
        assert np.abs(ours.nll - theirs.nll).max() <= 1e-4
        np.testing.assert_array_equal(ours.n_tokens, theirs.n_tokens)
        np.testing.assert_array_equal(ours.n_greedy, theirs.n_greedy)
        seen.append(ours.nll)
    gaps = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 0.01, "the swaps change nothing: the test says nothing"


def test_nll_over_every_answer_of_a_conversation_is_that_of_transformers(
    tmp_path: Path, start: Start, reference: Callable[..., TransformersEngine]
) -> None:
    path, items = chat_model(tmp_path / "chat"), conversations()
    train = {"method": "lora", "lora": {"targets": list(TARGETS)}, "turns": "all"}
    ours, theirs = start(path, train=train).score(items), reference(path, train=train).score(items)
    assert ours.error == theirs.error
    np.testing.assert_allclose(ours.nll, theirs.nll, atol=1e-4)
    np.testing.assert_array_equal(ours.n_tokens, theirs.n_tokens)
    np.testing.assert_array_equal(ours.n_greedy, theirs.n_greedy)
    last = start(path).score(items)
    assert (ours.n_tokens >= last.n_tokens).all()
    assert ours.n_tokens.sum() > last.n_tokens.sum()


@pytest.mark.parametrize("chat", [False, True])
def test_the_nll_of_a_prompt_alone_is_that_of_transformers_and_of_a_plain_loop(
    chat: bool, tmp_path: Path, start: Start, reference: Callable[..., TransformersEngine]
) -> None:
    path, items = tiny.build_model(tmp_path / "model", chat=chat), alone(PROMPTS)
    ours, theirs = start(path).score(items), reference(path).score(items)
    nlls, counts = plain_loop(path, items)
    assert ours.error == theirs.error == [None] * items.num_rows
    np.testing.assert_allclose(ours.nll, theirs.nll, atol=1e-4)
    np.testing.assert_allclose(ours.nll, nlls, atol=1e-4)
    assert ours.n_tokens.tolist() == theirs.n_tokens.tolist() == counts


def test_greedy_completions_are_those_of_transformers_and_rows_may_come_in_any_order(
    model_dir: Path, start: Start, reference: Callable[..., TransformersEngine], make_items: MakeItems
) -> None:
    measure = {"max_new_tokens": 24}
    engine, items = start(model_dir, measure=measure), make_items()
    theirs = reference(model_dir, measure=measure)
    assert engine.generate(items, 1, 0).texts == theirs.generate(items, 1, 0).texts
    whole = engine.score(items)
    order = np.random.default_rng(0).permutation(items.num_rows)
    assert engine.score(items.take(order)).nll.tobytes() == whole.nll[order].tobytes()
    alone = without_prompt(items)
    np.testing.assert_allclose(engine.score(alone).nll, theirs.score(alone).nll, atol=1e-4)


def test_both_engines_stop_where_the_models_generation_config_stops(
    model_dir: Path,
    tmp_path: Path,
    start: Start,
    reference: Callable[..., TransformersEngine],
    make_items: MakeItems,
) -> None:
    measure = {"max_new_tokens": 24}
    plain, items = reference(model_dir, measure=measure), make_items()
    before = [texts[0] for texts in plain.generate(items, 1, 0).texts]
    tokenizer = plain.encoder.tokenizer
    said = tokenizer(before[0], add_special_tokens=False).input_ids
    word = next(i for i in said if len(tokenizer.decode([i])) > 2)  # no byte of a broken character
    stopping = shutil.copytree(model_dir, tmp_path / "stopping")
    told = json.loads((stopping / "generation_config.json").read_text())
    stops = [told["eos_token_id"], word]
    (stopping / "generation_config.json").write_text(json.dumps(told | {"eos_token_id": stops}))
    ours, theirs = start(stopping, measure=measure), reference(stopping, measure=measure)
    after = [texts[0] for texts in theirs.generate(items, 1, 0).texts]
    assert len(after[0]) < len(before[0])
    assert before[0].startswith(after[0])
    assert [texts[0] for texts in ours.generate(items, 1, 0).texts] == after


def test_samples_depend_on_seed_stage_and_item_alone(
    model_dir: Path, start: Start, make_items: MakeItems
) -> None:
    measure = {"max_new_tokens": 12, "rollouts": 3}
    engine, items = start(model_dir, measure=measure), make_items()
    first = engine.generate(items, 3, 0).texts
    assert [len(row) for row in first] == [3] * items.num_rows
    assert all(len(set(row)) > 1 for row in first)
    assert engine.generate(items.take([4, 1]), 3, 0).texts == [first[4], first[1]]
    assert engine.generate(items, 3, 1).texts != first
    assert start(model_dir, measure=measure, seed=1).generate(items, 3, 0).texts != first


def test_prompts_are_computed_once_for_all_rollouts_and_scores_do_not_come_from_the_cache(
    model_dir: Path, start: Start, reference: Callable[..., TransformersEngine], make_items: MakeItems
) -> None:
    long = "and then again " * 60  # several blocks of the cache
    items = make_items([(f"{long} {i}", "yes") for i in range(4)])
    engine = start(model_dir, measure={"max_new_tokens": 4, "rollouts": 8})
    engine.usage()
    engine.generate(items, 8, 0)
    ours = engine.score(items).nll
    np.testing.assert_allclose(ours, reference(model_dir).score(items).nll, atol=1e-4)
    assert engine.settings()["enable_prefix_caching"]
    assert rates(engine.usage())["cached_share"] > 0.3


def test_rows_that_do_not_fit_are_errors_and_what_vllm_refuses_too(
    model_dir: Path, start: Start, make_items: MakeItems
) -> None:
    pairs = [("q", "yes"), ("q " * 60, "no"), ("q", ""), ("r", "maybe")]
    items = make_items(pairs)
    for forced, reason in ((None, "the model takes 50"), ({"max_length": 10**6}, "vLLM refuses it")):
        scores = start(model_dir, forced=forced, model={"max_length": 50}).score(items)
        assert [error is None for error in scores.error] == [True, False, False, True]
        assert reason in str(scores.error[1])
        assert np.isnan(scores.nll[[1, 2]]).all()
        assert scores.n_tokens[[1, 2]].tolist() == scores.n_greedy[[1, 2]].tolist() == [0, 0]
        assert np.isfinite(scores.nll[[0, 3]]).all()


def test_a_row_as_long_as_the_model_takes(
    tmp_path: Path, start: Start, reference: Callable[..., TransformersEngine], make_items: MakeItems
) -> None:
    path = tiny.build_model(tmp_path, max_length=64)
    theirs = reference(path)
    filled = make_items([("q", "~")])  # a token that merges with none of its like
    space = 64 - len(theirs.encoder.rows(filled).ids[0])
    filled = make_items([("q", "~" * (1 + space))])
    assert len(theirs.encoder.rows(filled).ids[0]) == 64
    scores = start(path).score(filled)
    assert scores.error == [None]
    np.testing.assert_allclose(scores.nll, theirs.score(filled).nll, atol=1e-4)


def test_no_rows_and_usage(model_dir: Path, start: Start, make_items: MakeItems) -> None:
    engine = start(model_dir)
    assert engine.score(make_items([])).nll.shape == (0,)
    assert engine.generate(make_items([]), 1, 0).texts == []
    engine.usage()
    scores = engine.score(make_items())
    used = engine.usage()
    assert used["prefill_tokens"] > scores.n_tokens.sum()
    assert used["prefill_seconds"] > 0
    assert 0 < rates(used)["occupancy"] <= 1
    assert rates(used)["queue_wait"] > 0
    assert engine.usage().get("prefill_tokens", 0) == 0


def test_adapters_that_vllm_would_drop_or_that_do_not_fit_are_refused(
    model_dir: Path, tmp_path: Path, start: Start
) -> None:
    engine = start(model_dir)
    head = make_adapter(model_dir, tmp_path / "head", seed=1, targets=["q_proj", "lm_head"])
    with pytest.raises(ZpdError, match=r"changes lm_head, which vLLM would drop"):
        engine.follow(ModelRef(str(model_dir), str(head)))
    more = make_adapter(model_dir, tmp_path / "more", seed=1, targets=["q_proj", "k_proj", "o_proj"])
    with pytest.raises(
        ZpdError, match=r"changes k_proj, o_proj, which .* train.lora.targets = \['down_proj'"
    ):
        engine.follow(ModelRef(str(model_dir), str(more)))
    weights = more / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ZpdError, match="cannot be read"):
        engine.follow(ModelRef(str(model_dir), str(more)))
    wider = tiny.build_model(tmp_path / "wider", heads=3)
    foreign = make_adapter(wider, tmp_path / "foreign", seed=1)
    with pytest.raises(ZpdError, match="does not fit"):
        engine.follow(ModelRef(str(model_dir), str(foreign)))
    with pytest.raises(ZpdError, match="no LoRA adapter in"):
        engine.follow(ModelRef(str(model_dir), str(tmp_path)))


def test_of_two_tokens_that_tie_one_is_the_first_choice(
    model_dir: Path,
    tmp_path: Path,
    start: Start,
    reference: Callable[..., TransformersEngine],
    make_items: MakeItems,
) -> None:
    """As greedy decoding takes one: in bfloat16 ties are common."""
    twins = shutil.copytree(model_dir, tmp_path / "twins")
    weights = load_file(twins / "model.safetensors")
    head = weights["lm_head.weight"]
    token = reference(model_dir).encoder.tokenizer("~", add_special_tokens=False).input_ids[0]
    row = head[token].clone()
    head.zero_()
    head[token] = head[-1] = row  # where one of the two is the first choice, so is the other
    save_file(weights, twins / "model.safetensors", metadata={"format": "pt"})
    items = make_items([(f"{i}?", "~".join(str(i**7))) for i in range(20)])
    scores, expected = start(twins).score(items), reference(twins).score(items)
    assert expected.n_greedy.sum() > 20
    assert scores.n_greedy.tolist() == expected.n_greedy.tolist()


def test_a_start_that_fails_says_what_was_asked_for(
    model_dir: Path, start: Start, device: dict[str, Any]
) -> None:
    memory = "gpu_memory_utilization" if device["cluster"]["gpus_per_actor"] else "kv_cache_memory_bytes"
    engine = start(model_dir, engine={"vllm": {"kv_cache_gib": 1e-6, "gpu_memory_share": 0.001}})
    with pytest.raises(Exception, match=f"vLLM does not start with .*asked for .*{memory}"):
        engine.settings()


def test_weights_that_are_not_there_are_refused(model_dir: Path, tmp_path: Path, start: Start) -> None:
    """The last one: vLLM starts no other engine in a process in which it was left without weights."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZpdError, match="cannot load the weights"):
        start(model_dir).follow(ModelRef(str(tmp_path / "empty")))


@pytest.fixture(scope="module")
def version_2(model_dir: Path) -> dict[str, Any]:
    """What it told, by grader; the process takes half a minute to start."""
    graders = ("numeric", "greedy_match")
    done = call([sys.executable, "-m", "tests.engines.vllm_v2", str(model_dir), *graders], seconds=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("grader", "response_only"), [("numeric", True), ("greedy_match", False)])
def test_version_2_of_the_runner_reads_the_response_alone_where_it_may(
    grader: str,
    response_only: bool,
    model_dir: Path,
    version_2: dict[str, Any],
    reference: Callable[..., TransformersEngine],
    make_items: MakeItems,
) -> None:
    told = version_2[grader]
    theirs = reference(model_dir).score(make_items()[:4])
    assert told["response_only"] is response_only
    assert told["error"] == [None] * 4
    np.testing.assert_allclose(told["nll"], theirs.nll, atol=1e-4)
    assert told["n_greedy"] == ([-1] * 4 if response_only else theirs.n_greedy.tolist())
