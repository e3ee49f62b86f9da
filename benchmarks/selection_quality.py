"""How good are the items that are selected, by the truth? Ours against simple rules, on pools of known p.

    python benchmarks/selection_quality.py [--items 2000] [--seeds 20] [--k 1 2 4 8 16] [--pools normal t3]

Quality: mean true p (1-p) of the top 5 % over that of the best possible 5 %. "over": ours less the best of
the simple rules (by its mean), "se" its standard error over the seeds. The model has theta = 0; log NLL
is linear in the part of b that it shows, b = 1.2 z + residual. Pools by their residual: normal (sd 0.8), t3
(Student, 3 degrees), bimodal (-2 or +2), zero-inflated (none for four of five items, else sd 3),
heteroscedastic (sd from 0.2 to 1.6 with z), saturating (NLL stops rising at z = 1). Further
shapes, which neither base nor concentration were chosen on: skewed (exponential), three-modal (-3, 0, 3),
wrong references (5 logits harder for 15 %), uniform (-3 to 3). Three-modal and uniform showed that EM had
stopped early, so that the solver was changed after them. k responses an item.
Rules: ours (fit_stage, expected p(1-p)); s/k nearest to one half, ties at random; the same, ties by NLL
nearest to its median; NLL nearest to its median; random.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from zpd_ray.ability import count_history
from zpd_ray.calibration import Statistics, fit_stage
from zpd_ray.config import AbilityConfig

Array = NDArray[np.float64]
Generator = np.random.Generator
SHARE = 0.05
RESIDUALS: dict[str, Callable[[Generator, Array], Array]] = {
    "normal": lambda rng, z: 0.8 * rng.normal(size=z.size),
    "t3": lambda rng, z: 0.8 * rng.standard_t(3, size=z.size),
    "bimodal": lambda rng, z: rng.choice([-2.0, 2.0], z.size),
    "zero-inflated": lambda rng, z: 3.0 * rng.normal(size=z.size) * (rng.random(z.size) < 0.2),
    "heteroscedastic": lambda rng, z: (0.9 + 0.7 * np.tanh(z)) * rng.normal(size=z.size),
    "saturating": lambda rng, z: 0.8 * rng.normal(size=z.size),
    "skewed": lambda rng, z: 1.5 * (rng.exponential(size=z.size) - 1.0),
    "three-modal": lambda rng, z: (
        rng.choice([-3.0, 0.0, 3.0], z.size, p=[0.3, 0.4, 0.3]) + 0.3 * rng.normal(size=z.size)
    ),
    "wrong references": lambda rng, z: 0.5 * rng.normal(size=z.size) + 5.0 * (rng.random(z.size) < 0.15),
    "uniform": lambda rng, z: rng.uniform(-3.0, 3.0, z.size),
}
SIMPLE = ("s/k", "s/k, ties by NLL", "middle NLL", "random")


def ours(nll: Array, s: NDArray[np.int64], k: int) -> Array:
    """Expected p(1-p) by the fit of a stage."""
    none, rollouts = np.zeros(s.size, np.int64), np.full(s.size, k)
    history = count_history(nll, none, none.astype(bool), {0: (s, rollouts)})
    fit = fit_stage(Statistics.of(nll, none, s, rollouts, history), AbilityConfig(), 0, None)
    return fit.judge(nll, s, rollouts, np.zeros(s.size)).zpd


def qualities(kind: str, items: int, k: int, seed: int) -> dict[str, float]:
    """Of each rule."""
    rng = np.random.default_rng([seed, k, items])
    z = rng.normal(size=items)
    b = 1.2 * z + RESIDUALS[kind](rng, z)
    p = expit(-b)
    nll = np.exp(np.minimum(z, 1.0) if kind == "saturating" else z)
    s = rng.binomial(k, p)
    middle, luck = -np.abs(np.log(nll) - np.median(np.log(nll))), rng.random(items)
    nearest = -np.abs(s / k - 0.5)
    rules = {
        "ours": (luck, ours(nll, s, k)),
        "s/k": (luck, nearest),
        "s/k, ties by NLL": (luck, middle, nearest),
        "middle NLL": (luck, middle),
        "random": (luck,),
    }
    count, variance = int(SHARE * items), p * (1.0 - p)
    best = np.sort(variance)[-count:].mean()
    return {name: float(variance[np.lexsort(keys)[-count:]].mean() / best) for name, keys in rules.items()}


def compared(found: list[dict[str, float]]) -> dict[str, Any]:
    """Mean of each rule over the seeds, and ours against the best of the simple ones."""
    means = {rule: float(np.mean([one[rule] for one in found])) for rule in found[0]}
    best = max(SIMPLE, key=lambda rule: means[rule])
    over = np.array([one["ours"] - one[best] for one in found])
    se = float(over.std(ddof=1) / np.sqrt(over.size)) if over.size > 1 else float("nan")
    return means | {"best": best, "over": float(over.mean()), "se": se}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[2000])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--pools", nargs="+", default=list(RESIDUALS), choices=list(RESIDUALS))
    options = parser.parse_args()
    for items in options.items:
        for kind in options.pools:
            for k in options.k:
                row = compared([qualities(kind, items, k, seed) for seed in range(options.seeds)])
                rounded = {name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}
                print(json.dumps({"pool": kind, "items": items, "k": k} | rounded), flush=True)


if __name__ == "__main__":
    main()
