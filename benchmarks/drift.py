"""A pool of which one group becomes a logit harder: is it found, and what is the selection worth?

    python benchmarks/drift.py [--items 1e6] [--shift 1.0] [--rollouts 1] [--scopes probe zone] [--dir DIR]

Simulated items in ten groups; after stage 0 group g3 is harder by --shift, which none of the others is. Stage
1 selects 5 % in each scope, with the test for drift and without (level 0). A JSON line each: what was found,
items measured at stage 1, and the mean true p(1-p) of the selection over that of the best that could be
chosen. "pool" measures everything again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scale import write_pool  # beside this file
from scipy.special import expit

from zpd_ray import drift
from zpd_ray.config import ClusterConfig, Config
from zpd_ray.config_file import to_toml, validate
from zpd_ray.engines.simulated import DIFFICULTY, normals
from zpd_ray.hashing import item_keys
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.records import load_fit

GROUPS, HARDER, GAIN, BUDGET = 10, "g3", 0.3, 0.05


def config_of(output: Path, options: argparse.Namespace, scope: str) -> Config:
    """Two stages with the simulated engine and no training."""
    return validate(
        {
            "output": str(output),
            "stages": 2,
            "pool": {"path": str(output.parent / "nowhere"), "items_per_part": options.parts_of},
            "model": {"path": "none"},
            "engine": {"name": "simulated", "simulated": {"gain": GAIN, "drift": {HARDER: options.shift}}},
            "measure": {
                "scope": scope,
                "rollouts": options.rollouts,
                "grader": "exact" if options.rollouts > 1 else "greedy_match",
            },
            "cluster": {"actors": 2},
            "select": {"budget": {"fraction": BUDGET}},
            "train": {"method": "none"},
        }
    )


def stages(config: Config, last: int, written: int = 0) -> float:
    """Take the steps up to the selection of stage ``last``; seconds. written: items of a pool to write."""
    from zpd_ray.pipeline.cluster.session import Session
    from zpd_ray.pipeline.run import take
    from zpd_ray.rundir.layout import FIT, MEASURE, SELECT

    run, start = Run(config, Store(config.output)), time.perf_counter()
    with Session(run) as session:
        if written:
            write_pool(config, run.store, written, config.pool.items_per_part, GROUPS)
        for stage in range(last + 1):
            for step in (MEASURE, FIT, SELECT):
                take(session, step, stage)
    return time.perf_counter() - start


def worth(table: Any, shift: float) -> np.ndarray:
    """True p(1-p) of items at stage 1: (n,)."""
    harder = pc.equal(table["group"], HARDER).to_numpy()
    p = expit(GAIN - normals(item_keys(table["item_id"]), DIFFICULTY) - shift * harder)
    return np.asarray(p * (1.0 - p))


def told(config: Config, shift: float, tested: bool, seconds: float) -> dict[str, Any]:
    """What a finished run comes to."""
    store = Store(config.output)
    pool = pq.read_table(store.path("pool"), columns=["item_id", "group"])
    before = pq.read_table(store.path("stages/00/selected"), columns=["item_id"])["item_id"]
    chosen = pq.read_table(store.path("stages/01/selected"), columns=["item_id", "group"])
    free = pool.filter(pc.invert(pc.is_in(pool["item_id"], before.combine_chunks())))
    best = np.sort(worth(free, shift))[-chosen.num_rows :].mean()
    fit = load_fit(store, 1)
    return {
        "scope": config.measure.scope,
        "test": tested,
        "drifted": [part.told for part in fit.probed.drifted] if fit.probed else None,
        "probes": fit.probed.asked if fit.probed else None,
        "moved": round(fit.probed.moved, 3) if fit.probed else None,
        "theta": round(fit.ability.theta, 3),
        "theta_se": round(fit.ability.se, 3),
        "measured": store.read_json("stages/01/measured.json")["answers"]["items"],
        "p(1-p) over the best": round(float(worth(chosen, shift).mean() / best), 4),
        "of the harder group": round(float(pc.mean(pc.equal(chosen["group"], HARDER)).as_py()), 4),
        "seconds of stage 1": round(seconds, 1),
    }


def again(first: Config, output: Path, options: argparse.Namespace, scope: str, tested: bool) -> None:
    """Stage 1 in another scope, from the same pool and the same stage 0."""
    shutil.copytree(first.output, output, copy_function=link)
    config = config_of(output, options, scope)
    (output / "config.toml").unlink()
    (output / "config.toml").write_text(to_toml(config))
    if scope == "pool":
        (output / "probes.parquet").unlink()
    level = drift.LEVEL
    drift.LEVEL = level if tested else 0.0
    try:
        seconds = stages(config, 1)
    finally:
        drift.LEVEL = level
    print(json.dumps(told(config, options.shift, tested, seconds)), flush=True)
    shutil.rmtree(output)


def link(source: str, target: str) -> str:
    """Files are never changed in place, so that a name is as good as a copy."""
    Path(target).hardlink_to(source)
    return target


def main() -> None:
    """A line of JSON per run."""
    from zpd_ray.pipeline.cluster.session import start, stop

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=float, default=1e6)
    parser.add_argument("--shift", type=float, default=1.0, help="logits")
    parser.add_argument("--rollouts", type=int, default=1)
    parser.add_argument("--scopes", nargs="+", default=["probe", "zone"], choices=["probe", "zone", "pool"])
    parser.add_argument("--parts-of", type=int, default=20_000)
    parser.add_argument("--dir", type=Path)
    options = parser.parse_args()
    start(ClusterConfig(), cpus=2)  # one Ray for all
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        first = config_of(Path(directory) / "first", options, "probe")
        seconds = stages(first, 0, int(options.items))
        print(json.dumps({"items": int(options.items), "seconds of stage 0": round(seconds, 1)}), flush=True)
        for scope in options.scopes:
            for tested in (True, False) if scope != "pool" else (False,):
                again(first, Path(directory) / f"{scope}-{tested}", options, scope, tested)
    stop()


if __name__ == "__main__":
    main()
