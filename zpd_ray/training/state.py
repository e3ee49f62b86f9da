"""Trainer state as flat tensors in safetensors: trainable weights, AdamW moments, counters. No pickle.

One file, or one of each worker with its share of every tensor. A share is the rows from some number on, which
stands in the file's metadata, so that the files of any number of workers can be read by any other, a slice at
a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from zpd_ray.errors import ZpdError

FILE = "trainer.safetensors"
FILES = "trainer*.safetensors"
HISTORY = "history."
COUNTER = "counter."
SHARES = "first rows"  # in the metadata: of each tensor that is a share
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that the optimiser moves, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def file_name(worker: int, workers: int) -> str:
    """Of a worker's share of a state that all of them hand in; of one that one hands in: (0, 1)."""
    return FILE if workers == 1 else f"trainer-{worker + 1:05d}-of-{workers:05d}.safetensors"


def save_state(
    directory: Path,
    model: nn.Module,
    optimizer: AdamW,
    counters: dict[str, float],
    history: Mapping[str, list[float]] | None = None,
    part: tuple[int, int] = (0, 1),
) -> None:
    """Write float32 weights and moments, and in the first part float64 counters and histories.

    part: of how many files this is which, from 0; every worker writes one where the model is shared out.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in trainable(model).items():
        tensors[f"weight.{name}"] = parameter.detach()
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value.detach()
    numbers: dict[str, float | list[float]] = {f"{COUNTER}{name}": value for name, value in counters.items()}
    numbers |= {f"{HISTORY}{name}": values for name, values in (history or {}).items()}
    begins = {name: _first_row(value) for name, value in tensors.items() if isinstance(value, DTensor)}
    ours = {name: value for name, value in tensors.items() if part[0] == 0 or isinstance(value, DTensor)}
    kept = {name: _local(value).cpu().contiguous() for name, value in ours.items()}
    if part[0] == 0:  # the same on all workers
        kept |= {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    # Under one key: safetensors writes several in another order each time.
    save_file(kept, directory / file_name(*part), {SHARES: json.dumps(begins)} if begins else None)


def load_state(directory: Path, model: nn.Module, optimizer: AdamW) -> dict[str, float]:
    """Put weights and moments back and return the counters. The names must be those of the model.

    Of a model that is shared out every worker reads its rows alone. Raises ZpdError when a file is missing.
    """
    with ExitStack() as stack:
        saved = _Saved(directory, stack)
        for name, parameter in trainable(model).items():
            saved.read_into(f"weight.{name}", parameter.detach())
            moments = [moment for moment in MOMENTS if f"{moment}.{name}" in saved.pieces]
            if moments:
                optimizer.state[parameter] = {m: saved.moment(f"{m}.{name}", m, parameter) for m in moments}
        return {name.removeprefix(COUNTER): float(saved.whole(name)) for name in saved.named(COUNTER)}


def load_history(directory: Path) -> dict[str, list[float]]:
    """The histories that were saved with a state, by name."""
    with ExitStack() as stack:
        saved = _Saved(directory, stack)
        return {name.removeprefix(HISTORY): saved.whole(name).tolist() for name in saved.named(HISTORY)}


class _Saved:
    """The files of a state, opened: nothing is read yet but where each tensor is."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.pieces: dict[str, list[tuple[int, Any]]] = {}  # name -> (first row, file)
        found = sorted(directory.glob(FILES))
        _check_all_there(directory, [file.name for file in found])
        for path in found:
            file: Any = stack.enter_context(safe_open(path, "pt"))
            begins = json.loads((file.metadata() or {}).get(SHARES, "{}"))
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                self.pieces.setdefault(name, []).append((begins.get(name, 0), file))

    def named(self, prefix: str) -> list[str]:
        """Names that begin so."""
        return [name for name in self.pieces if name.startswith(prefix)]

    def whole(self, name: str) -> Tensor:
        """A tensor that is in one file."""
        tensor: Tensor = self.pieces[name][0][1].get_tensor(name)
        return tensor

    def moment(self, name: str, kind: str, parameter: nn.Parameter) -> Tensor:
        """A moment of AdamW, which keeps its step counter whole and on the CPU wherever the weights are."""
        if kind == "step":
            return self.whole(name)
        value = torch.zeros_like(parameter.detach())
        self.read_into(name, value)
        return value

    @torch.no_grad()
    def read_into(self, name: str, tensor: Tensor) -> None:
        """Replace what a tensor, or this worker's share of one, holds."""
        local = _local(tensor)
        if local.ndim == 0:
            local.copy_(self.whole(name))
            return
        first, done = _first_row(tensor), 0
        for start, file in self.pieces[name]:
            piece = file.get_slice(name)
            begin, end = max(first, start), min(first + len(local), start + piece.get_shape()[0])
            if begin < end:
                local[begin - first : end - first] = piece[begin - start : end - start].to(local.device)
                done += end - begin
        if done != len(local):
            raise ZpdError(
                f"the trainer state in {self.directory} has {done} of {len(local)} rows of {name}; expected "
                "the state of a model of this shape; remove it, and the stage begins anew"
            )


def _check_all_there(directory: Path, names: list[str]) -> None:
    """A state of several parts is whole or none."""
    count = int(names[0].removesuffix(".safetensors").rpartition("-")[2]) if names and names != [FILE] else 1
    expected = [file_name(worker, count) for worker in range(count)]
    if names != expected:
        raise ZpdError(
            f"the trainer state in {directory} is not whole: it holds {', '.join(names) or 'nothing'}; "
            f"expected {', '.join(expected)}; remove it, and the stage begins anew"
        )


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _first_row(tensor: Tensor) -> int:
    """Of this worker's share: ``fully_shard`` deals rows as ``torch.chunk``."""
    if not isinstance(tensor, DTensor):
        return 0
    mesh, rows = tensor.device_mesh, tensor.shape[0]
    return min(mesh.get_local_rank() * -(-rows // mesh.size()), rows)
