"""Time zpd_ray.irt against its peers on the same seeded data.

    OMP_NUM_THREADS=1 python benchmarks/irt.py [--peers PYTHON] [--long] [--json FILE]

One core, warm, median (and least) of 5 runs; CPU time beside wall time, for a machine shared with others;
the increase of resident memory over the data is that of a fresh process. Peers run in the same invocation
where they are installed: girth 0.8.0, py-irt 0.7.1 and catsim under the interpreter given by --peers (a
virtual environment: `pip install girth==0.8.0 py-irt==0.7.1 catsim`), eRm and psychotools where Rscript
has them (Debian: r-cran-erm r-cran-psychotools). --long adds peer runs over a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASES = {
    "rasch 1000x100": (1000, 100, 0.010),
    "2pl 1000x100": (1000, 100, 0.040),
    "rasch 64x20000": (64, 20_000, 0.020),
    "rasch 16x1000000, posterior of b": (16, 1_000_000, 0.050),
    "explanatory, 3 covariates, 16x1000000": (16, 1_000_000, 1.0),
    "the same, 20 % missing": (16, 1_000_000, 4.0),
    "next probe of 1000000, Rasch": (1, 1_000_000, 10e-6),
    "next probe of 1000000, 3PL": (1, 1_000_000, 5e-3),
}
PEERS = {
    "rasch 1000x100": ["girth", "py-irt", "eRm", "psychotools"],
    "2pl 1000x100": ["girth"],
    "rasch 64x20000": ["girth"],
    "rasch 16x1000000, posterior of b": ["girth"],
    "next probe of 1000000, 3PL": ["catsim"],
}
LONG = {
    ("rasch 16x1000000, posterior of b", "girth"),
    ("rasch 1000x100", "py-irt"),
    ("rasch 1000x100", "eRm"),
}


def responses(case: str) -> np.ndarray:
    """(n_respondents, n_items) int8; theta and b standard normal, seeded."""
    n, m, _ = CASES[case]
    rng = np.random.default_rng(20261121)
    theta, b = rng.standard_normal(n), rng.standard_normal(m)
    right = np.empty((n, m), np.int8)
    for row in range(n):
        right[row] = rng.random(m) < 1.0 / (1.0 + np.exp(b - theta[row]))
    return right


def ours(case: str) -> Callable[[], Any]:
    """What is timed, its data ready."""
    from zpd_ray import irt

    if case.startswith("next probe"):
        return _probe(irt, three=case.endswith("3PL"))
    y = responses(case)
    if case.startswith(("rasch 1000", "rasch 64", "2pl")):
        return lambda: irt.fit(y, "2pl" if case.startswith("2pl") else "rasch")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((y.shape[1], 0 if case.startswith("rasch") else 3))
    tried = np.ones_like(y)
    if "missing" in case:
        tried = (rng.random(y.shape) > 0.2).astype(np.int8)
        y = y * tried
    return lambda: irt.fit_explanatory(y, tried, x)


def _probe(irt: Any, *, three: bool) -> Callable[[], Any]:
    rng = np.random.default_rng(2)
    b = rng.standard_normal(1_000_000)
    a, c = (np.exp(0.3 * rng.standard_normal(b.size)), rng.beta(5, 17, b.size)) if three else (1.0, None)
    bank = irt.ProbeBank(b, a, c)
    bank.next(0.0)
    return lambda: bank.next(float(rng.standard_normal()))


def time_ours(case: str) -> dict[str, float]:
    """Median and least of 5 warm runs, and the peak of memory over what the data take."""
    job = ours(case)
    repeats = 200 if "probe" in case else 1
    before = _resident()
    peak = _Peak()
    job()
    memory = peak.stop() - before
    seconds, processor = [], []
    for _ in range(5):
        start = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            job()
        seconds.append((time.perf_counter() - start[0]) / repeats)
        processor.append((time.process_time() - start[1]) / repeats)
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "cpu": statistics.median(processor),
        "memory_mb": memory / 1e6,
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Peak:
    """Highest resident memory, looked at every millisecond."""

    def __init__(self) -> None:
        self._highest, self._stop = _resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self._highest = max(self._highest, _resident())

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._highest


GIRTH = """
import sys, time, json, statistics, numpy as np, girth
y = np.load(sys.argv[1]).T.astype(int)
f = girth.twopl_mml if sys.argv[2].startswith("2pl") else girth.rasch_mml
n = 1 if y.size > 5e6 else 5
if n > 1: f(y)
t = []
for _ in range(n):
    s = time.perf_counter(); f(y); t.append(time.perf_counter() - s)
print(json.dumps({"median": statistics.median(t), "least": min(t)}))
"""
CATSIM = """
import sys, time, json, statistics, numpy as np
from catsim.selection import MaxInfoSelector
from catsim import irt
rng = np.random.default_rng(2); n = 1000000
a, b, c = np.exp(.3 * rng.standard_normal(n)), rng.standard_normal(n), rng.beta(5, 17, n)
bank = np.ascontiguousarray(np.stack([a, b, c, np.ones(n)], 1))
try:
    from catsim.item_bank import ItemBank
    bank = ItemBank(bank)
except ImportError: pass
t = []
for _ in range(5):
    s = time.perf_counter()
    MaxInfoSelector().select(item_bank=bank, items=bank, administered_items=[0], est_theta=0.3)
    t.append(time.perf_counter() - s)
print(json.dumps({"median": statistics.median(t), "least": min(t)}))
"""
PYIRT = """
import sys, time, json, numpy as np, tempfile, os
y = np.load(sys.argv[1])
path = os.path.join(tempfile.mkdtemp(), "d.jsonl")
with open(path, "w") as f:
    for i, row in enumerate(y.tolist()):
        f.write(json.dumps({"subject_id": f"s{i}", "responses": {f"i{j}": v for j, v in enumerate(row)}}) +
        chr(10))
from py_irt.config import IrtConfig
from py_irt.training import IrtModelTrainer
from py_irt.dataset import Dataset
d = Dataset.from_jsonlines(path)
s = time.perf_counter()
t = IrtModelTrainer(data_path=path, config=IrtConfig(model_type="1pl", epochs=2000, priors="hierarchical"))
t.train(device="cpu")
e = time.perf_counter() - s
print(json.dumps({"median": e, "least": e}))
"""
R = """
a <- commandArgs(TRUE); y <- as.matrix(read.csv(a[1], header=FALSE)); library(%s)
f <- function() %s
f(); t <- sapply(1:5, function(i) system.time(f())[["elapsed"]])
cat(sprintf('{"median": %%f, "least": %%f}', median(t), min(t)))
"""
R_CALLS = {"eRm": "RM(y)", "psychotools": "raschmodel(y)"}


def time_peer(case: str, peer: str, python: str | None, folder: Path) -> dict[str, float] | str:
    """Median and least seconds of a peer, or why there are none."""
    stem = folder / case.replace(" ", "_")
    data = stem.with_suffix(".npy")
    if peer != "catsim" and not data.exists():
        np.save(data, responses(case))
    if peer in R_CALLS:
        if not shutil.which("Rscript"):
            return "no Rscript"
        np.savetxt(stem.with_suffix(".csv"), responses(case), fmt="%d", delimiter=",")
        script = stem.with_suffix(f".{peer}.R")
        script.write_text(R % (peer, R_CALLS[peer]))
        return _run(["Rscript", str(script), str(stem.with_suffix(".csv"))])
    if python is None:
        return "no --peers"
    code = {"girth": GIRTH, "catsim": CATSIM, "py-irt": PYIRT}[peer]
    return _run([python, "-c", code, str(data), case])


def _run(command: list[str]) -> dict[str, float] | str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:90]
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def show(seconds: float) -> str:
    size, unit = (1.0, "s") if seconds >= 1.0 else (1e-3, "ms") if seconds >= 1e-3 else (1e-6, "us")
    return f"{seconds / size:.3g} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", help="python interpreter with girth, py-irt and catsim")
    parser.add_argument("--long", action="store_true", help="also peers that take over a minute")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(time_ours(options.case)))
        return
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(
        "| case | median | least | CPU median | memory over the data | aim | peers (median) "
        "|\n|---|---|---|---|---|---|"
    )
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for case in CASES:
            if options.only and options.only not in case:
                continue
            mine = _run([sys.executable, __file__, "--case", case])
            if isinstance(mine, str):
                raise SystemExit(f"{case}: {mine}")
            peers = {
                peer: time_peer(case, peer, options.peers, Path(name))
                for peer in PEERS.get(case, [])
                if options.long or (case, peer) not in LONG
            }
            results[case] = {"ours": mine, "peers": peers, "aim": CASES[case][2]}
            told = "; ".join(
                f"{p} {v if isinstance(v, str) else show(v['median'])}" for p, v in peers.items()
            )
            print(
                f"| {case} | {show(mine['median'])} | {show(mine['least'])} | {show(mine['cpu'])} | "
                f"{mine['memory_mb']:.0f} MB | "
                f"{show(CASES[case][2])} | {told or '-'} |",
                flush=True,
            )
    print(f"\nload after: {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
