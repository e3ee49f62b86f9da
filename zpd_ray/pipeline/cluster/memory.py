"""Memory of this process, for the actors that are asked for it."""

from __future__ import annotations

import resource
import sys

import psutil


def peak_here(gpus: float) -> dict[str, float]:
    """Bytes: ``main`` at the peak of this process, with what its children have now; ``gpu``, ``gpu_has``.

    Of the GPU what is taken of the whole device: an engine may compute in a child. Nothing of it where the
    process has no GPU (``gpus`` is 0).
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    below = sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))
    told = {"main": float(own + below), "gpu": 0.0, "gpu_has": 0.0}
    if gpus and "torch" in sys.modules:
        import torch

        free, total = torch.cuda.mem_get_info()
        told |= {"gpu": float(max(total - free, torch.cuda.max_memory_reserved())), "gpu_has": float(total)}
    return told
