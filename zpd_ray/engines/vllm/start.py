"""Starting vLLM in this process with settings derived for the model and the device."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from zpd_ray.engines import model_files
from zpd_ray.engines.base import EngineError
from zpd_ray.engines.vllm.settings import Device, Shape, derive
from zpd_ray.errors import ZpdError, first_line
from zpd_ray.ray_folder import ray_logs

if TYPE_CHECKING:
    import psutil
    from vllm import LLM

    from zpd_ray.config import Config

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # room for the one token after a row that is as long as can be
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # actors on one machine would all bind to the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
TITLE = "VLLM::"  # of its processes
WATCH_SECONDS = 0.5
ITEMSIZE = {"float32": 4}  # of the cache; 2 for what is not float32


def start(config: Config, base: str, max_length: int) -> tuple[LLM, dict[str, Any]]:
    """A vLLM engine with the weights in ``base``, and the arguments it was started with.

    Raises ZpdError when vLLM was built for another device, or does not start, with what was asked for; on a
    GPU a failed start is an EngineError, since the memory may be free a moment later.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    threads = max(1, int(config.cluster.cpus_per_actor))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from vllm import LLM

    arguments = _arguments(config, base, max_length)
    gpus = config.cluster.gpus_per_actor
    try:
        with _alone_on_the_gpu():
            llm = LLM(model=base, **arguments)
    except Exception as error:  # memory, shapes, drivers: each of vLLM's layers raises its own
        # On a GPU it may be the memory of an actor that is about to end: another attempt is worth it.
        raise (EngineError if gpus else ZpdError)(
            f"vLLM does not start with {base}: {first_line(error)}; it was asked for {arguments} on "
            f"{gpus:g} GPUs; set model.max_length or engine.vllm to smaller values, or see {ray_logs()}"
        ) from error
    _die_with_the_engine()
    return llm, arguments


@contextmanager
def _alone_on_the_gpu() -> Iterator[None]:
    """One start at a time per GPU: vLLM takes for its own what an engine beside it allocates meanwhile."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(",", "-")
    if not gpus:
        yield
        return
    with (Path(tempfile.gettempdir()) / f"zpd-ray-gpu-{gpus}-{os.getuid()}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _die_with_the_engine() -> None:
    """End this process as soon as one of vLLM's own is gone: with several GPUs it has some.

    vLLM's synchronous client waits for ever for an engine process that was killed (seen with 0.32); a dead
    actor is restarted by Ray.
    """
    import psutil

    engine = [child for child in psutil.Process().children(recursive=True) if TITLE in _title(child)]

    def watch() -> None:
        while all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in engine):
            time.sleep(WATCH_SECONDS)
        print("a process of vLLM is gone; this actor ends, to be started anew", file=sys.stderr, flush=True)
        os._exit(1)

    if engine:
        Thread(target=watch, daemon=True).start()


def _title(process: psutil.Process) -> str:
    import psutil

    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _arguments(config: Config, base: str, max_length: int) -> dict[str, Any]:
    dtype: str = config.model.dtype
    if dtype == "auto":  # that of the base model, also where training has saved float32
        stored = str(getattr(model_files.text_config(config.model.path), "dtype", None)).rpartition(".")[2]
        halves = config.cluster.gpus_per_actor > 0 and stored in ("bfloat16", "float16")
        dtype = stored if halves else "float32"
    fixed: dict[str, Any] = {
        "dtype": dtype,
        "seed": config.seed % 2**31,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "skip_tokenizer_init": True,  # text is turned into ids here, once and for all engines
        "generation_config": "vllm",  # sampling is the run's, not the model's
        "disable_log_stats": False,  # the source of usage()
    }
    shape = Shape.of(model_files.text_config(base), ITEMSIZE.get(dtype, 2))
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
