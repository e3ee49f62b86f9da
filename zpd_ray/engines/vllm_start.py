"""Starting vLLM in this process with settings derived for the model and the device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from zpd_ray.engines import tokens
from zpd_ray.engines.vllm_settings import Device, Shape, derive
from zpd_ray.errors import ZpdError

if TYPE_CHECKING:
    from vllm import LLM

    from zpd_ray.config import Config

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # room for the one token after a row that is as long as can be
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # actors on one machine would all bind to the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
ITEMSIZE = {"float32": 4}  # of the cache; 2 for what is not float32


def start(config: Config, base: str, max_length: int) -> tuple[LLM, dict[str, Any]]:
    """A vLLM engine with the weights in ``base``, and the arguments it was started with.

    Raises ZpdError when vLLM was built for another device, or does not start, with what was asked for.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    threads = max(1, int(config.cluster.cpus_per_actor))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from vllm import LLM

    arguments = _arguments(config, base, max_length)
    try:
        return LLM(model=base, **arguments), arguments
    except Exception as error:  # memory, shapes, drivers: each of vLLM's layers raises its own
        raise ZpdError(
            f"vLLM does not start with {base}: {tokens.first_line(error)}; it was asked for {arguments} on "
            f"{config.cluster.gpus_per_actor:g} GPUs; set engine.vllm to other values, or see the Ray logs"
        ) from error


def _arguments(config: Config, base: str, max_length: int) -> dict[str, Any]:
    dtype = config.model.dtype
    if dtype == "auto" and config.cluster.gpus_per_actor == 0:
        dtype = "float32"
    fixed: dict[str, Any] = {
        "dtype": dtype,
        "seed": config.seed % 2**31,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "skip_tokenizer_init": True,  # text is turned into ids here, once and for all engines
        "generation_config": "vllm",  # sampling is the run's, not the model's
        "disable_log_stats": False,  # the source of usage()
    }
    shape = Shape.of(tokens.text_config(base), ITEMSIZE.get(dtype, 2))
    return fixed | derive(config, shape, _device(config, base, fixed), max_length)


def _device(config: Config, base: str, fixed: dict[str, Any]) -> Device:
    """Where the engine will run, and with which of vLLM's runners."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    asked = config.cluster.gpus_per_actor
    if current_platform.is_cpu() != (asked == 0):
        there = "the CPU" if current_platform.is_cpu() else current_platform.device_type
        raise ZpdError(
            f"cluster.gpus_per_actor = {asked:g}, and the vLLM that is installed runs on {there}; expected "
            "a vLLM built for the device: change cluster.gpus_per_actor, or install the other vLLM"
        )
    v2 = EngineArgs(model=base, **fixed).create_engine_config().use_v2_model_runner
    return Device(0 if asked == 0 else current_platform.get_device_total_memory(), v2)
