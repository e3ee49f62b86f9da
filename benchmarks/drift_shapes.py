"""What knowing of a drift is worth, by what it does to the items of a part: plain numpy, no Ray.

    python benchmarks/drift_shapes.py [--seeds 20] [--rollouts 4] [--probes 400]

20,000 items of which the hardest fifth changes after it was measured: not at all; all by -2 logits; each by
N(-2.5, 2.5); half of them, or 15 %, by -6 and the others not (training has taught some). Probes are asked and
looked at (`zpd_ray.drift.look_at`). Chosen are 300 items by prediction (as scope probe does), and the best
300 of 750 candidates that are measured (scope zone), where the drift is not predicted, where its mean is, and
where its error and its spread are, too. A JSON line for each shape: mean true p(1-p) over the best that could
be chosen, and how many parts were told to have drifted (the truth is one, or none).
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from scipy.special import expit

from zpd_ray.drift import look_at
from zpd_ray.matching import zpd_score
from zpd_ray.movement import Asked, Floats

N, THETA, SD, CHOSEN, CANDIDATES = 20_000, 1.0, 0.6, 300, 750
SHAPES = ("none", "all", "spread", "half", "few")
WAYS = ("not predicted", "its mean", "its mean and spread")


def moved(shape: str, hard: np.ndarray, rng: np.random.Generator) -> Floats:
    """Logits by which each item has become harder: (n,)."""
    if shape == "none":
        return np.zeros(len(hard))
    if shape == "all":
        return np.where(hard, -2.0, 0.0)
    if shape == "spread":
        return np.asarray(hard * rng.normal(-2.5, 2.5, len(hard)), dtype=np.float64)
    taught = rng.random(len(hard)) < (0.5 if shape == "half" else 0.15)
    return np.where(hard & taught, -6.0, 0.0)


def one(shape: str, seed: int, probes: int, rollouts: int) -> tuple[list[list[float]], int]:
    """By way of predicting: what is chosen by prediction, and from candidates; and the parts told."""
    rng = np.random.default_rng(seed)
    b, sd, nobody = rng.normal(0.0, 3.0, N), np.full(N, SD), np.zeros(N)
    truth = rng.normal(b, sd) + moved(shape, b > np.quantile(b, 0.8), rng)
    p = expit(THETA - truth)
    ask, k = rng.choice(N, probes, replace=False), np.full(probes, rollouts)
    group = np.full(N, "g")
    asked = Asked(rng.binomial(k, p[ask]), k, nobody[ask], b[ask], sd[ask], group[ask])
    found = look_at(asked, THETA, 0.1, probes)
    shift, variance = found.drift(b, group)
    gain = p * (1.0 - p)
    best = np.sort(gain)[-CHOSEN:].mean()
    worth = []
    for mean, of_all in ((0.0, found.moved**2), (shift, found.moved**2), (shift, variance)):
        order = np.argsort(-zpd_score(THETA, b + mean, np.sqrt(sd**2 + of_all), nobody), kind="stable")
        measured = np.sort(gain[order[:CANDIDATES]])[-CHOSEN:]
        worth.append([float(gain[order[:CHOSEN]].mean() / best), float(measured.mean() / best)])
    return worth, len(found.drifted)


def main() -> None:
    """A line of JSON for each shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("seeds", 20), ("rollouts", 4), ("probes", 400)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    for shape in SHAPES:
        done = [one(shape, seed, args.probes, args.rollouts) for seed in range(args.seeds)]
        means = np.mean([worth for worth, _ in done], axis=0).round(3).tolist()
        told = {
            way: dict(zip(("probe", "zone"), row, strict=True)) for way, row in zip(WAYS, means, strict=True)
        }
        parts = float(np.mean([parts for _, parts in done]))
        print(json.dumps({"shape": shape, "parts told": round(parts, 2), **told}), flush=True)


if __name__ == "__main__":
    main()
