"""The canary: an engine that serves other weights than those that were trained measures nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from tests.engines.lora import make_adapter
from zpd_ray.config import Config
from zpd_ray.engines import ModelRef
from zpd_ray.engines.canary import FLOAT32, HALF, check_canary, tolerance
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError

MakeEngine = Callable[..., TransformersEngine]


@pytest.fixture
def trained(
    model_dir: Path, tmp_path: Path, make_engine: MakeEngine, make_items: Callable[..., pa.Table]
) -> tuple[TransformersEngine, pa.Table, Path]:
    """An engine, what its trainer would expect of it, and the adapter that it should load."""
    items, adapter = make_items(), make_adapter(model_dir, tmp_path / "adapter", seed=1)
    engine = make_engine(model_dir)
    before = engine.score(items).nll
    engine.follow(ModelRef(str(model_dir), str(adapter)))
    canary = items.append_column("nll_before", pa.array(before.astype(np.float64)))
    return engine, canary.append_column("nll_after", pa.array(engine.score(items).nll.astype(float))), adapter


Trained = tuple[TransformersEngine, pa.Table, Path]


def test_the_trained_weights_pass(trained: Trained) -> None:
    engine, canary, adapter = trained
    for most in (FLOAT32, HALF):
        check_canary(engine, canary, most, ModelRef(str(engine.config.model.path), str(adapter)))


@pytest.mark.parametrize("most", [FLOAT32, HALF])
def test_the_weights_of_the_stage_before_stop_the_run(trained: Trained, model_dir: Path, most: float) -> None:
    engine, canary, _ = trained
    base = ModelRef(str(model_dir))
    engine.follow(base)
    with pytest.raises(ZpdError, match=r"does not serve what was trained.*still serves the weights of the"):
        check_canary(engine, canary, most, base)


def test_half_an_adapter_stops_the_run(trained: Trained, model_dir: Path) -> None:
    engine, canary, adapter = trained
    file = adapter / "adapter_model.safetensors"
    halved = {name: w * ("layers.0" in name) for name, w in load_file(file).items()}
    save_file(halved, file)
    model = ModelRef(str(model_dir), str(adapter), stage=1)
    engine.follow(model)
    with pytest.raises(ZpdError, match=r"the trainer had .* before and .* after.*may be damaged"):
        check_canary(engine, canary, FLOAT32, model)


def test_weights_that_answer_nothing_stop_the_run(trained: Trained, model_dir: Path) -> None:
    engine, canary, adapter = trained
    broken = canary.set_column(
        canary.schema.get_field_index("response"),
        "response",
        pa.array(["", *canary["response"].to_pylist()[1:]]),
    )
    with pytest.raises(ZpdError, match="the response has no tokens"):
        check_canary(engine, broken, HALF, ModelRef(str(model_dir), str(adapter)))


def test_training_that_moved_nothing_says_nothing(trained: Trained, model_dir: Path) -> None:
    engine, canary, adapter = trained
    still = canary.set_column(canary.schema.get_field_index("nll_before"), "nll_before", canary["nll_after"])
    check_canary(engine, still, FLOAT32, ModelRef(str(model_dir), str(adapter)))


def test_tolerance_is_that_of_the_coarser_type(make_config: Callable[..., Config]) -> None:
    assert tolerance(make_config()) == FLOAT32
    assert tolerance(make_config(cluster={"gpus_per_train_worker": 1})) == HALF
    assert tolerance(make_config(model={"dtype": "bfloat16"})) == HALF
