"""Do the intervals of theta, its gain and sigma hold what they promise? Simulated stages, known truth.

    python benchmarks/ability.py [--simulations 300] [--items 1000] [--twice 300] [--k 1] [--json FILE]

Each simulation: items with b = gamma z + N(0, sigma^2), a model of three stages (theta_0 from N(0, 1), gains
from N(0.3, 0.4^2)), k responses an item and stage, a guessing floor or none. A cell of the table is the share
of simulations in which the 95 % interval (estimate +- 1.96 standard errors) held the truth; two standard
errors of such a share are 2.5 points at 300 simulations. "alone": theta_0 from stage 0 by itself, where with
k = 1 sigma is known from its prior only. "twice", at k = 1: the same where some items (--twice) gave a second
response, which says what sigma is; its error beside that of "alone" is what the second responses buy.
Everything through zpd_ray.ability, as a run does it.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import expit

from zpd_ray.ability import Ability, count_history, estimate
from zpd_ray.config import AbilityConfig
from zpd_ray.difficulty import Scale

Z95 = 1.959963985
ROLLOUTS, SIGMAS, FLOORS = (1, 4, 16), (0.3, 0.5, 1.0, 2.0), (0.0, 0.1)
GAMMA = 1.2


def simulation(items: int, k: int, sigma: float, floor: float, twice: int, seed: int) -> dict[str, float]:
    """Whether each interval held the truth (1 or 0), and the standard errors of theta_0 by stage 0 alone."""
    rng = np.random.default_rng([seed, k, int(10 * sigma), int(10 * floor)])
    z = rng.normal(size=items)
    z = (z - z.mean()) / z.std()
    b = GAMMA * z + sigma * rng.normal(size=items)
    theta = np.cumsum([rng.normal(0.0, 1.0), *rng.normal(0.3, 0.4, 2)])
    options = np.full(items, round(1 / floor) if floor else 0)
    answers = {
        stage: (rng.binomial(k, floor + (1 - floor) * expit(theta[stage] - b)), np.full(items, k))
        for stage in range(3)
    }
    found = _ability(z, options, answers)
    alone = _ability(z, options, {0: answers[0]})
    held = {"alone": abs(alone.theta - theta[0]) <= Z95 * alone.se, "alone_se": alone.se}
    if k == 1 and twice:
        again = _ability(
            z, options, {0: _twice(rng, answers[0], floor + (1 - floor) * expit(theta[0] - b), twice)}
        )
        held |= {"twice": abs(again.theta - theta[0]) <= Z95 * again.se, "twice_se": again.se}
    for stage in found.stages:
        held[f"theta_{stage.stage}"] = abs(stage.theta - theta[stage.stage]) <= Z95 * stage.se
        if stage.stage:
            gain = theta[stage.stage] - theta[0]
            held[f"gain_{stage.stage}"] = abs(stage.gain - gain) <= Z95 * stage.gain_se
    held["log_sigma"] = abs(np.log(found.sigma / sigma)) <= Z95 * found.log_sigma_se
    return held


def _twice(
    rng: np.random.Generator, answer: tuple[np.ndarray, np.ndarray], p: np.ndarray, items: int
) -> tuple[np.ndarray, np.ndarray]:
    """The responses with a second one of some items, drawn at random."""
    asked = np.zeros(p.size, int)
    asked[rng.permutation(p.size)[:items]] = 1
    return answer[0] + rng.binomial(asked, p), answer[1] + asked


def _ability(
    z: np.ndarray, options: np.ndarray, answers: dict[int, tuple[np.ndarray, np.ndarray]]
) -> Ability:
    nll, never = np.exp(z), np.zeros(z.size, bool)
    return estimate(count_history(nll, options, never, answers), Scale(0.0, 1.0), AbilityConfig())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--twice", type=int, default=300, help="items that respond twice, at k = 1")
    parser.add_argument("--k", type=int, nargs="+", default=list(ROLLOUTS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(options.workers) as pool:
        for k, sigma, floor in product(options.k, SIGMAS, FLOORS):
            of_seed = partial(simulation, options.items, k, sigma, floor, options.twice)
            held = list(pool.map(of_seed, range(options.simulations), chunksize=10))
            row = {"k": k, "sigma": sigma, "floor": floor}
            row |= {name: round(float(np.mean([h[name] for h in held])), 3) for name in held[0]}
            print(json.dumps(row), flush=True)
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
