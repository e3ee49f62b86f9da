"""A model that was trained elsewhere closes a stage, and the run goes on with it as with its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tomli_w
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from tests import tiny
from tests.engines.lora import make_adapter
from tests.pipeline.conftest import questions, table_of, write_jsonl
from tests.pipeline.processes import SELECTED, TRAINED, Quickstart, flags, run_here
from tests.pipeline.train.test_train import STAGE, Make, make, model_dir  # noqa: F401 (fixtures)
from zpd_ray import engines
from zpd_ray.cli.app import app
from zpd_ray.config_file import load_config
from zpd_ray.engines import ModelRef
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.train.adopt import adopt
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.records import load_events

WEIGHTS = "adapter_model.safetensors"


def train_with(result: Path, config: Path, *overrides: str) -> Result:
    """``zpd-ray train config --result DIR`` in this process."""
    arguments = ["train", str(config), "--result", str(result), *flags(*overrides)]
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def refusal(result: Path, config: Path, *overrides: str) -> str:
    """The sentence with which it is refused."""
    done = train_with(result, config, *overrides)
    assert done.exit_code == 2, done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("zpd-ray: ")
    return sentence


# --- a run whose first stage was trained elsewhere ---


class Adopted:
    """A run that has taken what the quickstart's own trainer has made of the same selection."""

    again: str  # what the same command says once more

    def __init__(self, quickstart: Quickstart, directory: Path) -> None:
        self.trained = Store(str(quickstart.output))
        self.result = Path(shutil.copytree(quickstart.output / "stages/00/adapter", directory / "result"))
        (self.result / "training_args.bin").write_bytes(b"a pickle, as trainers leave it")
        (self.result / "checkpoint-3").mkdir()
        self.store = Store(str(quickstart.partly(directory / "run", {"00": SELECTED})))
        self.store.write_bytes("stages/00/trainer/trainer.safetensors", b"of a training that was broken off")
        self.overrides = (*quickstart.overrides, f"output={self.store.root}")
        self.config = quickstart.config

    def take(self) -> Result:
        return train_with(self.result, self.config, *self.overrides)

    def run(self, command: str) -> Result:
        return run_here(command, self.config, *self.overrides)


@pytest.fixture(scope="module")
def adopted(quickstart: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    run = Adopted(quickstart, tmp_path_factory.mktemp("adopted"))
    done = run.take()
    assert done.exit_code == 0, done.stderr
    assert f"taking the adapter in {run.result}" in done.stderr
    closed = run.store.read_bytes(f"{STAGE}/train.json")
    run.again = refusal(run.result, run.config, *run.overrides)
    assert run.store.read_bytes(f"{STAGE}/train.json") == closed
    return run


def test_the_stage_is_closed_with_the_very_files_and_a_canary(adopted: Adopted) -> None:
    ours, theirs = adopted.store, adopted.trained
    names = theirs.names(f"{STAGE}/adapter")
    assert ours.entries(f"{STAGE}/adapter") == names  # no pickle, no checkpoint
    for name in names:
        assert ours.read_bytes(f"{STAGE}/adapter/{name}") == theirs.read_bytes(f"{STAGE}/adapter/{name}")
    mine, canary = (store.read_table(f"{STAGE}/canary.parquet") for store in (ours, theirs))
    assert mine.schema == canary.schema
    assert mine.drop(["nll_before", "nll_after"]).equals(canary.drop(["nll_before", "nll_after"]))
    for name in ("nll_before", "nll_after"):
        np.testing.assert_allclose(mine[name].to_numpy(), canary[name].to_numpy(), atol=1e-4)
    assert np.abs(mine["nll_before"].to_numpy() - mine["nll_after"].to_numpy()).max() > 0.01
    closing = ours.read_json(f"{STAGE}/train.json")
    assert closing["items"] == 32
    assert closing["adopted"]["path"] == str(adopted.result)
    assert not ours.exists(f"{STAGE}/trainer")


def test_the_same_command_again_says_that_the_stage_is_trained(adopted: Adopted) -> None:
    assert f"stage 0 is trained already, with {adopted.result}" in adopted.again
    assert "go on with `zpd-ray evaluate`" in adopted.again


@pytest.fixture(scope="module")
def next_stage(adopted: Adopted) -> Adopted:
    """Evaluated, and measured with the adapter; then offered the same adapter once more."""
    adopted.run("evaluate")
    sentence = refusal(adopted.result, adopted.config, *adopted.overrides)
    assert "has closed stage 0 already and has not changed since" in sentence
    assert adopted.store.entries("stages/01") == []
    adopted.run("measure")
    return adopted


def test_evaluation_and_the_next_stage_go_on_with_it(next_stage: Adopted) -> None:
    ours, theirs = next_stage.store, next_stage.trained
    assert ours.read_json(f"{STAGE}/metrics.json") == theirs.read_json(f"{STAGE}/metrics.json")
    answers = "stages/01/measurements/answers"
    assert table_of(ours, answers).equals(table_of(theirs, answers))


def steps_taken(store: Store, stage: int) -> set[float]:
    state = load_file(store.path(f"stages/{stage:02d}/trainer/trainer.safetensors"))
    return {float(value) for name, value in state.items() if name.startswith("step.")}


@pytest.mark.nightly  # trains a whole stage more
def test_a_built_in_stage_after_it_starts_with_fresh_moments_and_the_table_tells(next_stage: Adopted) -> None:
    done = next_stage.run("run")
    assert "note: stage 0 was trained elsewhere, so the optimiser's moments start afresh" in done.stderr
    (steps,) = steps_taken(next_stage.store, 1)
    assert steps == next_stage.store.read_json("stages/01/train.json")["steps"]
    assert {2 * steps} == steps_taken(next_stage.trained, 1)  # where the moments carry on
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert rows["0"][-1] == "elsewhere"
    assert rows["1"][-1] == "s"
    assert "adopt" in [event.step for event in load_events(next_stage.store)]


def test_it_follows_a_stage_that_was_trained_here_and_is_measured_where_the_run_trains(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    """The stage begins with an adapter then. With split placement the steps are taken in turn, too."""
    kept = {"00": (*SELECTED, *TRAINED, "metrics.json"), "01": SELECTED}
    store, trained = Store(str(quickstart.partly(tmp_path / "run", kept))), Store(str(quickstart.output))
    (node,) = ray.nodes()
    label = f"{{'ray.io/node-id' = '{node['NodeID']}'}}"
    places = ("cluster.placement=split", f"cluster.score_nodes={label}", f"cluster.train_nodes={label}")
    overrides = (*quickstart.overrides, f"output={store.root}", *places)
    done = train_with(quickstart.output / "stages/01/adapter", quickstart.config, *overrides)
    assert done.exit_code == 0, done.stderr
    mine, canary = (one.read_table("stages/01/canary.parquet") for one in (store, trained))
    for name in ("nll_before", "nll_after"):
        np.testing.assert_allclose(mine[name].to_numpy(), canary[name].to_numpy(), atol=1e-4)


# --- by itself ---


def adopt_into(make: Make, result: Path, **section: Any) -> Store:  # noqa: F811
    """A selected stage, closed with the result."""
    config, store = make(**section)
    with Session(Run(config, store)) as session:
        adopt(session, 0, result)
    return store


def tuned_model(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    """All weights of the model, moved a little."""
    net = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    net.save_pretrained(directory)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(directory)
    return directory


def test_a_whole_model_is_taken_where_all_weights_are_trained(
    local_ray: None,
    make: Make,  # noqa: F811
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = adopt_into(make, tuned_model(model_dir, tmp_path), method="full")
    weights = "model.safetensors"
    assert store.read_bytes(f"{STAGE}/model/{weights}") == (tmp_path / weights).read_bytes()
    config, canary = make(method="full")[0], store.read_table(f"{STAGE}/canary.parquet")
    assert canary.num_rows == 12  # of the selection's first file
    for name, path in (("nll_before", config.model.path), ("nll_after", str(tmp_path))):
        scores = engines.load(config, ModelRef(path)).score(canary)
        np.testing.assert_allclose(canary[name].to_numpy(), scores.nll, atol=1e-4)


def test_a_result_of_which_nothing_moved_leaves_nothing(
    local_ray: None,
    make: Make,  # noqa: F811
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    adapter = make_adapter(model_dir, tmp_path, seed=1)
    weights = load_file(adapter / WEIGHTS)
    save_file({name: w * ("lora_A" in name) for name, w in weights.items()}, adapter / WEIGHTS)
    config, store = make()
    with Session(Run(config, store)) as session, pytest.raises(Exception, match="the very NLL that it had"):
        adopt(session, 0, adapter)
    save_file({name: w * float("nan") for name, w in weights.items()}, adapter / WEIGHTS)
    with Session(Run(config, store)) as session, pytest.raises(Exception, match="with the result is nan"):
        adopt(session, 0, adapter)
    assert store.entries(STAGE) == ["selected", "selection.json"]


def test_only_what_was_adopted_has_a_canary_where_the_loop_is_the_users(make: Make) -> None:  # noqa: F811
    config, store = make(function="tests.pipeline.loops:hasty")
    store.write_json(f"{STAGE}/train.json", {"items": 1})
    assert Run(config, store).model(1).canary is None
    store.write_json(f"{STAGE}/train.json", {"items": 1, "adopted": {"path": "x"}})
    assert Run(config, store).model(1).canary == f"{STAGE}/canary.parquet"


# --- what is refused before Ray starts ---


@pytest.fixture
def run_toml(model_dir: Path, tmp_path: Path) -> Path:  # noqa: F811
    write_jsonl(tmp_path / "pool.jsonl", questions(40))
    values = {
        "output": "out",
        "stages": 1,
        "pool": {"path": "pool.jsonl"},
        "model": {"path": str(model_dir)},
        "select": {"budget": {"fraction": 0.1}},
    }
    (tmp_path / "run.toml").write_text(tomli_w.dumps(values))
    return tmp_path / "run.toml"


def good(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    return make_adapter(model_dir, directory / "result", seed=1)


def of_wider_base(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    return make_adapter(tiny.build_model(directory / "wider", layers=1, heads=3), directory / "result", 1)


def for_unknown_modules(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    file = good(model_dir, directory) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": ["c_attn"]}))
    return file.parent


def of_no_bytes(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    (good(model_dir, directory) / WEIGHTS).write_bytes(b"")
    return directory / "result"


def pickled(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    result = good(model_dir, directory)
    torch.save(load_file(result / WEIGHTS), result / "adapter_model.bin")
    (result / WEIGHTS).unlink()
    return result


def without_a_config(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    (good(model_dir, directory) / "adapter_config.json").write_text("{")
    return directory / "result"


def not_there(model_dir: Path, directory: Path) -> Path:  # noqa: F811
    return directory / "absent"


REFUSED = [
    (of_wider_base, (), "down_proj.lora_A.weight is 4 x 288, the base model takes 4 x 192"),
    (for_unknown_modules, (), "c_attn"),
    (of_no_bytes, (), "cannot be read"),
    (
        pickled,
        (),
        "adapter_model.safetensors missing, found README.md",
    ),
    (without_a_config, (), "adapter_config.json in"),
    (not_there, (), "is no directory"),
    (good, ("train.method=none",), "takes no --result: train.method = 'none'"),
    (good, ("train.method=full",), "no model in"),
    (good, ("pool.reference=none", "train.function=tests.pipeline.loops:hasty"), "pool.reference = 'none'"),
]


@pytest.mark.parametrize(("build", "overrides", "told"), REFUSED)
def test_what_cannot_be_a_result_is_refused_and_nothing_is_written(
    build: Callable[[Path, Path], Path],
    overrides: tuple[str, ...],
    told: str,
    run_toml: Path,
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    sentence = refusal(build(model_dir, tmp_path), run_toml, *overrides)
    assert told in sentence
    assert "expected" in sentence
    assert not (tmp_path / "out").exists()


def test_a_result_inside_the_run_directory_is_refused_and_kept(
    run_toml: Path,
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = load_config(str(run_toml), ())
    inside = make_adapter(model_dir, tmp_path / "out/stages/00/adapter", seed=1)
    Store(config.output).write_bytes(".zpd-ray.lock", b"")
    assert "lies inside the run directory" in refusal(inside, run_toml)
    assert (inside / WEIGHTS).exists()


def test_what_vllm_would_drop_is_refused_before_it_starts(
    run_toml: Path,
    model_dir: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zpd_ray.engines.vllm.settings.find_spec", lambda name: name)
    overrides = ("engine.name=vllm", "train.lora.targets=['q_proj']")
    sentence = refusal(good(model_dir, tmp_path), run_toml, *overrides)
    assert "changes down_proj, v_proj, which vLLM would drop" in sentence
    assert not (tmp_path / "out").exists()
