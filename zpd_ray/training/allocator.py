"""What the C library is told of memory before a training process starts."""

from __future__ import annotations

import os

_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"

# glibc keeps what a training step frees, and then finds no place in it: a step of 135 million parameters on a
# CPU took 3.7 GB in place of 1.3 (docs/results.md). Blocks of a MiB or more are given back at once; what the
# user has set stands.
VARIABLES = {_THRESHOLD: os.environ.get(_THRESHOLD, str(1 << 20))}
