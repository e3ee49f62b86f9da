"""What a run takes of the machine it runs on, where the config leaves it open.

On a Ray of our own, keys of ``cluster`` that are left out follow from the machine; on a cluster that is
joined they keep the defaults of ``config/``. CPUs and GPUs per actor and per train worker change results
(threads sum in another order), so a run that is resumed takes them from its run directory, on whatever
machine; the number of actors changes nothing and follows from the machine at hand. So it is with the type
that weights score in: where the CPU computes in bfloat16, and they are stored in it, they are left in it.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

import psutil

from zpd_ray.config import ClusterConfig, Config, ModelConfig
from zpd_ray.config_file import validate
from zpd_ray.engines import ENGINES
from zpd_ray.engines.model_files import stored_dtype
from zpd_ray.engines.weights import weight_bytes
from zpd_ray.rundir.store import Store

# Keys of ``cluster`` that follow from the machine: those that change results, and the one that does not.
BINDING = ("cpus_per_actor", "gpus_per_actor", "cpus_per_train_worker", "gpus_per_train_worker")
DERIVED = ("actors", *BINDING)
MEMORY_SHARE = 0.5  # of main memory, for the weights of all scoring actors together
CGROUP, CPUINFO = Path("/sys/fs/cgroup"), Path("/proc/cpuinfo")
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True)
class Machine:
    """Cores, NVIDIA GPUs and bytes of main memory that this process may use.

    bf16: its CPU has instructions that multiply bfloat16.
    """

    cores: int
    gpus: int
    memory: int
    bf16: bool = False


def resolve(config: Config, own_ray: bool) -> tuple[Config, str]:
    """The config with every resource as a number; a line about what follows from this machine, or nothing.

    own_ray: a Ray is started for the run; it has none yet. Raises ZpdError when the output cannot be opened.
    """
    missing = left_out(config.cluster)
    before = _recorded(config.output)
    known = {} if before is None else {key: getattr(before.cluster, key) for key in BINDING if key in missing}
    dtype = _dtype(config, before)
    missing -= known.keys()
    told = []
    if own_ray and config.cluster.address == "local":
        machine = this_machine()
        if missing:
            given = {key: getattr(config.cluster, key) for key in DERIVED if key not in missing}
            known = derive(config, machine, given | known)
            told.append(_told(config, machine, known))
        gpus = known.get("gpus_per_actor", config.cluster.gpus_per_actor)
        if before is None and not gpus and computes_as_stored(config.model, machine):
            dtype = "bfloat16"
            told.append("weights in bfloat16, as they are stored (model.dtype)")
    return taken(config, known, dtype), "; ".join(told)


def taken(config: Config, cluster: dict[str, float], dtype: str) -> Config:
    """A config with keys of ``cluster``, and with ``model.dtype`` where it leaves that open."""
    cluster_section = config.cluster.model_copy(update=cluster)
    known = {"dtype": dtype} if config.model.dtype == "auto" else {}
    return config.model_copy(
        update={"cluster": cluster_section, "model": config.model.model_copy(update=known)}
    )


def _dtype(config: Config, before: Config | None) -> str:
    """``model.dtype``, as an earlier attempt of the run took it where it is left open."""
    return before.model.dtype if before and config.model.dtype == "auto" else config.model.dtype


def computes_as_stored(model: ModelConfig, machine: Machine) -> bool:
    """Whether the weights are stored in bfloat16, and the CPU is faster in it than in float32."""
    return machine.bf16 and model.dtype == "auto" and stored_dtype(model.path) == "bfloat16"


def left_out(cluster: ClusterConfig) -> set[str]:
    """Keys that the user did not give and that may follow from the machine."""
    return set(DERIVED) - cluster.model_fields_set


def derive(config: Config, machine: Machine, given: dict[str, float]) -> dict[str, float]:
    """A value for every key of DERIVED, those in ``given`` kept.

    One actor per GPU; without GPUs one per core, fewer with more cores each where their weights would take
    more than half the memory. CPUs per actor do not depend on how many actors are given.
    """
    gpus = machine.gpus if ENGINES.load(config.engine.name).has_weights else 0
    workers = 0 if config.train.method == "none" else config.train.workers
    taken = {
        "gpus_per_actor": 1.0 if gpus else 0.0,
        "gpus_per_train_worker": 1.0 if 0 < workers <= gpus else 0.0,
        "cpus_per_train_worker": float(max(1, machine.cores // max(1, workers))),
    } | given
    if taken["gpus_per_actor"]:
        return {"cpus_per_actor": 1.0, "actors": max(1, int(gpus / taken["gpus_per_actor"]))} | taken
    copies = _copies(config, machine)
    cpus = taken.get("cpus_per_actor", float(machine.cores // copies))
    return {"cpus_per_actor": cpus, "actors": max(1, min(copies, int(machine.cores / cpus)))} | taken


def this_machine() -> Machine:
    """What this process may use: the machine, or the part of it that its container was given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    memory, limit = psutil.virtual_memory().total, _limit("memory.max")
    memory = min(memory, int(limit)) if limit.isdigit() else memory
    return Machine(cores, _gpus(), memory, not BF16_FLAGS.isdisjoint(_cpu_flags()))


def _limit(name: str) -> str:
    """A limit of the container's control group (version 2); empty where there is none."""
    file = CGROUP / name
    return file.read_text(encoding="ascii").strip() if file.is_file() else ""


def _cpu_flags() -> list[str]:
    """Of the first core; none where the system does not list them."""
    listed = CPUINFO.read_text(encoding="ascii", errors="replace") if CPUINFO.is_file() else ""
    return next((line.split() for line in listed.splitlines() if line.startswith("flags")), [])


def _gpus() -> int:
    """GPUs that torch can use; torch is imported only where there is an NVIDIA driver."""
    if shutil.which("nvidia-smi") is None:
        return 0
    import torch

    return torch.cuda.device_count()


def _copies(config: Config, machine: Machine) -> int:
    """How many scoring actors the machine has room for, each with a core and the weights of its own."""
    if not ENGINES.load(config.engine.name).has_weights:
        return machine.cores
    weights = weight_bytes(config.model.path)
    if not weights:  # of the hub: its size is not known before it is here
        return 1
    return min(machine.cores, max(1, int(MEMORY_SHARE * machine.memory / weights)))


def _recorded(output: str) -> Config | None:
    """The config of an earlier attempt of the run; None: there was none."""
    store = Store(output)
    if not store.exists("config.toml"):
        return None
    return validate(tomllib.loads(store.read_bytes("config.toml").decode()))


def _told(config: Config, machine: Machine, taken: dict[str, float]) -> str:
    def each(cpus: float, gpus: float) -> str:
        return f"{cpus:g} CPU{'s' * (cpus != 1)}" + (f" and {gpus:g} GPU{'s' * (gpus != 1)}" if gpus else "")

    actors, workers = int(taken["actors"]), config.train.workers
    gpus = f", {machine.gpus} GPU{'s' * (machine.gpus != 1)}" if machine.gpus else ""
    scoring = each(taken["cpus_per_actor"], taken["gpus_per_actor"])
    training = each(taken["cpus_per_train_worker"], taken["gpus_per_train_worker"])
    told = f"of {machine.cores} core{'s' * (machine.cores != 1)}{gpus}: "
    told += f"{actors} scoring actor{'s' * (actors != 1)} with {scoring} each"
    if config.train.method != "none":
        told += f", {workers} train worker{'s' * (workers != 1)} with {training} each"
    return told
