"""Before anything imports numpy: its BLAS reads how many threads it has when it is loaded."""

import os

# pytest-xdist has a worker per core; threads of numpy and torch on top would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
