"""Training on a real Ray Train, with a tiny real model: order, workers, accumulation, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.pipeline.train.selections import STAGE, item, write_selection
from zpd_ray import engines, schema
from zpd_ray.config import Config
from zpd_ray.config_file import validate
from zpd_ray.engines import ModelRef
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.train.job import DIRECTORY
from zpd_ray.pipeline.train.train import prepare, train
from zpd_ray.rundir import Run, Store
from zpd_ray.training.schedule import learning_rate

pytestmark = pytest.mark.usefixtures("local_ray")


ITEMS = 24
STEPS = {"epochs": 12, "learning_rate": 1e-3}  # one step an epoch


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_model(tmp_path_factory.mktemp("llama"), layers=1, sharpness=1.0)


Make = Callable[..., tuple[Config, Store]]


@pytest.fixture(scope="module")
def make(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Config and store of a stage that is ready to train; keyword arguments are the train section."""

    def make(n: int = ITEMS, **section: Any) -> tuple[Config, Store]:
        values = {
            "output": str(tmp_path_factory.mktemp("run")),
            "stages": 1,
            "pool": {"path": "unused"},
            "model": {"path": str(model_dir)},
            "select": {"budget": {"items": n}},
            "train": {"batch_size": n, "micro_batch_size": n, "epochs": 4, "learning_rate": 1e-2} | section,
        }
        config = validate(values)
        store = Store(config.output)
        write_selection(store, n)
        return config, store

    return make


def fit(made: tuple[Config, Store]) -> Store:
    with Session(Run(*made)) as session:
        train(session, prepare(session, 0))
    return made[1]


def adapter_of(store: Store) -> dict[str, np.ndarray]:
    tensors = load_file(store.path(f"{STAGE}/adapter/adapter_model.safetensors"))
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def adapter_bytes(store: Store) -> bytes:
    return store.read_bytes(f"{STAGE}/adapter/adapter_model.safetensors")


def assert_close(one: Store, other: Store, most: float) -> None:
    ours, theirs = adapter_of(one), adapter_of(other)
    assert ours.keys() == theirs.keys()
    apart = {name: float(np.abs(ours[name] - theirs[name]).max()) for name in ours}
    assert max(apart.values()) < most, apart
    assert one.read_json(f"{STAGE}/train.json") == pytest.approx(
        other.read_json(f"{STAGE}/train.json"), rel=1e-5
    )


def test_a_part_that_is_gone_ends_training_with_a_sentence_and_one_attempt(
    make: Make,
) -> None:
    """Another attempt would not find it either."""
    config, store = make(function="tests.pipeline.loops:forgetful", workers=2)
    Path(store.path("pool/part-000001.parquet")).unlink()
    with pytest.raises(ZpdError) as raised:
        fit((config, store))
    (told,) = str(raised.value).splitlines()
    assert told.startswith(f"training of {STAGE} failed: {store.root}/pool/part-000001.parquet is missing")


# --- what training leaves ---


@pytest.fixture(scope="module")
def reference(local_ray: None, make: Make) -> tuple[Config, Store]:
    """Steps over the whole selection at once, packed: the same batches for any number of workers."""
    made = make(**STEPS, packing=True)
    fit(made)
    return made


def selected(store: Store) -> pa.Table:
    """The selection's items, as an engine takes them."""
    n = store.read_json(f"{STAGE}/selection.json")["selected"]
    return pa.Table.from_pylist([item(i) for i in range(n)], schema=schema.ITEM)


def mean_nll(config: Config, model: ModelRef, store: Store) -> float:
    items = selected(store)
    scores = engines.load(config, model).score(items)
    assert scores.error == [None] * items.num_rows
    return float(np.average(scores.nll, weights=scores.n_tokens))


def test_the_engine_sees_lower_nll_with_the_adapter(reference: tuple[Config, Store]) -> None:
    config, store = reference
    before = mean_nll(config, ModelRef(config.model.path), store)
    after = mean_nll(config, ModelRef(config.model.path, store.path(f"{STAGE}/adapter"), 1), store)
    result = store.read_json(f"{STAGE}/train.json")
    assert after < result["train_nll"] < before
    assert result["steps"] == 12
    items = selected(store)
    tokenizer = tiny.build_tokenizer()
    tokens = sum(len(tokenizer(text).input_ids) + 1 for text in items["response"].to_pylist())
    assert result["tokens"] == 12 * tokens
    assert not store.exists(DIRECTORY)
    steps = store.read_table(f"{STAGE}/steps.parquet")
    assert steps.schema == schema.STEP
    assert steps["step"].to_pylist() == list(range(12))
    assert steps["tokens"].to_pylist() == [tokens] * 12
    assert steps["loss"].to_numpy().mean() == pytest.approx(result["train_nll"])
    assert steps["loss"][0].as_py() == pytest.approx(before, rel=1e-3)
    rates = [learning_rate(config.train, 0, 1, step, 12) for step in range(12)]
    assert steps["learning_rate"].to_pylist() == rates


@pytest.mark.nightly  # tests/training/test_step.py: micro-batches of any size
def test_gradient_accumulation_makes_no_difference(reference: tuple[Config, Store], make: Make) -> None:
    """Responses differ in length: a mean of micro-batch means would not pass."""
    assert_close(reference[1], fit(make(**STEPS, micro_batch_size=1)), 1e-5)


@pytest.mark.nightly  # tests/training: the loss falls, the model is saved and loads again
def test_full_fine_tuning_leaves_a_model_that_the_engine_loads(make: Make) -> None:
    config, store = make(method="full", learning_rate=2e-3)
    before = mean_nll(config, ModelRef(config.model.path), store)
    fit((config, store))
    assert mean_nll(config, ModelRef(store.path(f"{STAGE}/model"), None, 1), store) < before
    assert not store.exists(f"{STAGE}/adapter")


# --- interruption ---


def processes(title: str) -> list[psutil.Process]:
    """Of this test's own Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def checkpoints_in(store: Store) -> set[Path]:
    """Those that are there by now, stored to their end or not."""
    return {file.parent for file in Path(store.path(DIRECTORY)).glob("*/trainer*.safetensors")}


class Killer(threading.Thread):
    """Kills a process of each title when so many checkpoints of a stage have appeared, and watches on."""

    def __init__(self, store: Store, at: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.store, self.at = store, at
        self.seen: set[Path] = set()
        self.killed: dict[str, int] = {}
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.seen |= checkpoints_in(self.store)
            for title in self.at.keys() - self.killed.keys():
                if len(self.seen) >= self.at[title] and (found := processes(title)):
                    self.killed[title] = found[-1].pid
                    os.kill(found[-1].pid, signal.SIGKILL)


def fit_under_fire(made: tuple[Config, Store], at: dict[str, int], checkpoints: int) -> Store:
    # It went on from checkpoints: not all were made again.
    assert checkpoints_under_fire(made, at) <= checkpoints + 2 * len(at)
    return made[1]


def checkpoints_under_fire(made: tuple[Config, Store], at: dict[str, int]) -> int:
    """How many appeared, those included that were not stored to their end."""
    killer = Killer(made[1], at)
    killer.start()
    fit(made)
    killer.over.set()
    killer.join()
    assert killer.killed.keys() == at.keys(), "the stage ended before all could be killed"
    assert not any(map(psutil.pid_exists, killer.killed.values()))
    return len(killer.seen)


@pytest.mark.nightly  # test_train_job.py: what is left of a job whose controller was killed
def test_two_workers_whose_controller_is_killed_equal_one_that_is_left_alone(
    reference: tuple[Config, Store], make: Make
) -> None:
    """The job is started again. tests/training/test_step.py: resumption is exact to the bit."""
    made = make(**STEPS, workers=2, micro_batch_size=4, checkpoint_steps=2)
    assert_close(reference[1], fit_under_fire(made, {"TrainController": 2}, checkpoints=5), 1e-5)


@pytest.mark.nightly
def test_two_workers_of_which_one_is_killed_and_then_the_controller_equal_one_that_is_left_alone(
    reference: tuple[Config, Store], make: Make
) -> None:
    made = make(**STEPS, workers=2, micro_batch_size=4, checkpoint_steps=1)
    store = fit_under_fire(made, {"RayTrainWorker": 3, "TrainController": 6}, checkpoints=11)
    assert_close(reference[1], store, 1e-5)


@pytest.mark.nightly
def test_a_killed_train_worker_is_replaced_and_the_result_is_that_of_an_undisturbed_run(make: Make) -> None:
    """Two workers with uneven shares; the same bytes also prove that a run can be repeated."""
    section = {"workers": 2, "batch_size": 4, "micro_batch_size": 2, "epochs": 6, "checkpoint_steps": 3}
    steps = 6 * 13 // 2
    checkpoints = (steps - 1) // 3
    undisturbed = fit(make(n=25, **section))
    store = fit_under_fire(make(n=25, **section), {"RayTrainWorker": checkpoints // 2}, checkpoints)
    assert adapter_bytes(store) == adapter_bytes(undisturbed)
    name = f"{STAGE}/train.json"
    assert store.read_json(name) == undisturbed.read_json(name)
    assert store.read_json(name)["steps"] == steps
    table = f"{STAGE}/steps.parquet"
    assert store.read_bytes(table) == undisturbed.read_bytes(table)


@pytest.mark.nightly  # tests/training/test_sharded_files.py: resumed to the bit, without Ray
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_worker_of_a_model_that_is_shared_out_leaves_no_trace(make: Make, method: str) -> None:
    """Its stage goes on from the files of both workers, and ends with the bytes of an undisturbed run."""
    section = {"workers": 2, "batch_size": 4, "micro_batch_size": 1, "epochs": 6, "checkpoint_steps": 3}
    section |= {"method": method, "sharding": "fsdp"}
    checkpoints = (6 * 13 // 2 - 1) // 3
    undisturbed = fit(make(n=25, **section))
    store = fit_under_fire(make(n=25, **section), {"RayTrainWorker": checkpoints // 2}, checkpoints)
    parts = [f"trainer-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert store.names(f"{STAGE}/trainer") == parts
    result = "adapter/adapter_model.safetensors" if method == "lora" else "model/model.safetensors"
    names = (result, "train.json", "steps.parquet", "canary.parquet", *(f"trainer/{part}" for part in parts))
    for name in names:
        assert store.read_bytes(f"{STAGE}/{name}") == undisturbed.read_bytes(f"{STAGE}/{name}"), name
    whole = fit(make(n=25, **section | {"sharding": "none"}))
    ours, theirs = (load_file(each.path(f"{STAGE}/{result}")) for each in (store, whole))
    assert ours.keys() == theirs.keys()
    apart = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours}
    assert max(apart.values()) < 1e-4, apart  # AdamW moves weights of hardly a gradient, too


# --- checkpoints that are on their way, and a store that fails ---

CONDITIONS = "tests.pipeline.train.hard_conditions"
CODE = """
import sys
from zpd_ray.config import Config
from zpd_ray.pipeline.cluster.session import Session
from zpd_ray.pipeline.train.train import prepare, train
from zpd_ray.rundir import Run, Store

config = Config.model_validate_json(sys.argv[1])
with Session(Run(config, Store(config.output))) as session:
    train(session, prepare(session, 0))
"""
PLAIN = {"batch_size": 8, "epochs": 8, "checkpoint_steps": 3}  # 24 steps, 7 checkpoints


@pytest.fixture(scope="module")
def plain(local_ray: None, make: Make) -> Store:
    """A worker that is left alone, on a store that takes everything at once."""
    return fit(make(**PLAIN))


@pytest.mark.nightly  # test_checkpoints.py: what is waited for
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_while_a_checkpoint_is_on_its_way_goes_on_from_the_one_before(
    make: Make, workers: int
) -> None:
    """Each is on its way for a second after its files have appeared; so the third is handed in twice."""
    section = PLAIN | {"workers": workers}
    made = make(function=f"{CONDITIONS}:slow_store", **section)
    seen = checkpoints_under_fire(made, {"RayTrainWorker": 3})
    # Where one of two was killed that had nothing to store, the other may just have come to an end.
    assert seen == 8 if workers == 1 else seen in (7, 8)
    assert adapter_bytes(made[1]) == adapter_bytes(fit(make(**section)))


@pytest.mark.nightly
def test_a_run_that_is_killed_while_a_checkpoint_is_on_its_way_goes_on_from_the_one_before(
    make: Make, plain: Store
) -> None:
    config, store = make(function=f"{CONDITIONS}:slow_store", **PLAIN)
    process = subprocess.Popen([sys.executable, "-c", CODE, config.model_dump_json()])
    seen: set[Path] = set()
    while len(seen) < 3:
        assert process.poll() is None
        seen |= checkpoints_in(store)
        time.sleep(0.02)
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    # The second, the third that was on its way, and the third to the seventh.
    assert checkpoints_under_fire((config, store), {}) == 7
    assert adapter_bytes(store) == adapter_bytes(plain)
    assert not store.exists(DIRECTORY)


@pytest.mark.nightly
def test_a_checkpoint_that_the_store_does_not_take_is_made_again(make: Make, plain: Store) -> None:
    store = fit(make(function=f"{CONDITIONS}:flaky_store", **PLAIN))
    assert Path(store.path("handed-in.txt")).read_text() == "x" * 8  # the second one twice
    for name in ("adapter/adapter_model.safetensors", "train.json", "steps.parquet"):
        assert store.read_bytes(f"{STAGE}/{name}") == plain.read_bytes(f"{STAGE}/{name}"), name


@pytest.mark.nightly
def test_a_store_that_takes_no_checkpoint_ends_the_stage_with_its_reason(make: Make) -> None:
    made = make(function=f"{CONDITIONS}:lost_store", **PLAIN)
    with pytest.raises(ZpdError, match="workers died 4 times; one said: a checkpoint of stage 0 could"):
        fit(made)
    assert not made[1].exists(f"{STAGE}/train.json")
