"""Which prompts does a curriculum draw, by the truth? Ours against simple rules, while ability moves.

    python benchmarks/curriculum.py [--prompts 5000] [--steps 200] [--batch 64] [--rollouts 8] [--seeds 10]
    python benchmarks/curriculum.py --speed

A step draws a batch of prompts, rolls each out, and shows the rule how many were right. Ability starts at
-2.5 logits, rises by 4 over the run, and shakes (sd .05 a step). Told: the mean true p(1-p) of all prompts
drawn, up to a quarter of the rollouts, half and all, with 95 % intervals over the seeds; "over": ours less
the best other rule but "best possible" (by its mean), in pairs.

Worlds by their difficulties: normal (sd 2), bimodal (-3 or 3, sd .7), heavy-tailed (1.5 Student t, 2 degrees
of freedom), unanswerable (normal, but for 60 % that are 8: wrong gold answers). And those in which one
ability is not the truth (normal, sd 2): practised (each drawing makes the prompt itself easier by half a
logit), wandering (each prompt moves on its own, sd .08 a step), skills (five kinds of prompt, whose abilities
wander by .15 a step).

Rules: ours (``zpd_ray.curriculum``, defaults); uniform (epochs in random order; DAPO's dynamic sampling,
arXiv 2503.14476, draws the same and throws away what is all right or all wrong); filter (uniform among
prompts that were never drawn, or had 0 < s < k when they were drawn last; all of them where too few are
left); thompson (Beta(1, 1) for each prompt, largest p(1-p) of a draw from it; cf. arXiv 2507.04632); best
possible (true p).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtrit

from zpd_ray.curriculum import Curriculum

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Generator = np.random.Generator
START, RISE, SHAKE = -2.5, 4.0, 0.05
PRACTICE, WANDER, SKILLS, SKILL_WANDER = 0.5, 0.08, 5, 0.15
DIFFICULTIES: dict[str, Callable[[Generator, int], Array]] = {
    "normal": lambda rng, n: 2.0 * rng.normal(size=n),
    "bimodal": lambda rng, n: rng.choice([-3.0, 3.0], n) + 0.7 * rng.normal(size=n),
    "heavy-tailed": lambda rng, n: 1.5 * rng.standard_t(2, n),
    "unanswerable": lambda rng, n: np.where(rng.random(n) < 0.6, 8.0, 2.0 * rng.normal(size=n)),
}
WORLDS = (*DIFFICULTIES, "practised", "wandering", "skills")


class World:
    """Prompts and a model, of which all is known."""

    def __init__(self, kind: str, n: int, steps: int, seed: int) -> None:
        self.kind, self.rng, self.rise = kind, np.random.default_rng([seed, n]), RISE / steps
        self.b = DIFFICULTIES.get(kind, DIFFICULTIES["normal"])(self.rng, n)
        self.skill = self.rng.integers(0, SKILLS, n)
        self.theta = np.full(SKILLS, START)

    def p(self) -> Array:
        return np.asarray(expit(self.theta[self.skill] - self.b))

    def train(self, rows: Integers) -> None:
        """What a step on these prompts changes."""
        self.theta += self.rise + SHAKE * self.rng.normal()
        moves = self.rng.normal(size=len(self.b))
        if self.kind == "practised":
            self.b[rows] -= PRACTICE
        elif self.kind == "wandering":
            self.b += WANDER * moves
        elif self.kind == "skills":
            self.theta += SKILL_WANDER * moves[:SKILLS]


class Rule(Protocol):
    """What draws prompts 0 .. n - 1."""

    def next(self, n: int) -> Integers: ...

    def observe(self, rows: Integers, successes: Integers, rollouts: int) -> None: ...


class Uniform:
    def __init__(self, n: int, seed: int) -> None:
        self.n, self.rng, self.queue = n, np.random.default_rng(seed), np.zeros(0, np.int64)

    def next(self, n: int) -> Integers:
        if len(self.queue) < n:
            self.queue = self.rng.permutation(self.n)
        rows, self.queue = self.queue[:n], self.queue[n:]
        return rows

    def observe(self, rows: Integers, successes: Integers, rollouts: int) -> None:
        pass


class Filter:
    def __init__(self, n: int, seed: int) -> None:
        self.rng, self.open = np.random.default_rng(seed), np.ones(n, dtype=bool)

    def next(self, n: int) -> Integers:
        if self.open.sum() < n:
            self.open[:] = True
        return self.rng.choice(np.flatnonzero(self.open), n, replace=False)

    def observe(self, rows: Integers, successes: Integers, rollouts: int) -> None:
        self.open[rows] = (successes > 0) & (successes < rollouts)


class Thompson:
    def __init__(self, n: int, seed: int) -> None:
        self.rng, self.right, self.wrong = np.random.default_rng(seed), np.ones(n), np.ones(n)

    def next(self, n: int) -> Integers:
        p = self.rng.beta(self.right, self.wrong)
        return np.argpartition(-p * (1.0 - p), n)[:n]

    def observe(self, rows: Integers, successes: Integers, rollouts: int) -> None:
        self.right[rows] += successes
        self.wrong[rows] += rollouts - successes


RULES: dict[str, Callable[[int, int], Rule]] = {
    "ours": lambda n, seed: Curriculum(n, seed=seed),
    "uniform": Uniform,
    "filter": Filter,
    "thompson": Thompson,
}


def simulate(kind: str, rule: str, options: argparse.Namespace, seed: int) -> Array:
    """Mean true p(1-p) of each step's batch: (steps,)."""
    world = World(kind, options.prompts, options.steps, seed)
    draws = np.random.default_rng([seed, 1])
    drawer = RULES[rule](options.prompts, seed) if rule in RULES else None
    values = np.zeros(options.steps)
    for step in range(options.steps):
        p = world.p()
        rows = np.argsort(-p * (1.0 - p))[: options.batch] if drawer is None else drawer.next(options.batch)
        values[step] = (p * (1.0 - p))[rows].mean()
        if drawer is not None:
            drawer.observe(rows, draws.binomial(options.rollouts, p[rows]), options.rollouts)
        world.train(rows)
    return values


def interval(values: Array) -> float:
    """Half of the 95 % interval of the mean (Student)."""
    n = len(values)
    return float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def compared(kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per rule."""
    parts = [max(1, options.steps // 4), max(1, options.steps // 2), options.steps]
    whole, rows = dict[str, Array](), []
    for rule in (*RULES, "best possible"):
        runs = np.array([simulate(kind, rule, options, seed) for seed in range(options.seeds)])
        means = np.stack([runs[:, :part].mean(axis=1) for part in parts], axis=1)
        whole[rule] = means[:, -1]
        rows.append({"rule": rule} | {f"at {part}": _told(means[:, i]) for i, part in enumerate(parts)})
    others = [rule for rule in RULES if rule != "ours"]
    best = max(others, key=lambda rule: float(whole[rule].mean()))
    rows[0] |= {"best other": best, "over": _told(whole["ours"] - whole[best])}
    return [{"world": kind} | row for row in rows]


def _told(values: Array) -> str:
    return f"{values.mean():.4f} +- {interval(values):.4f}"


def speed(prompts: int, batch: int = 1000) -> dict[str, Any]:
    """Milliseconds of the fastest and the middle of 20 steps, in a pool of this size."""
    curriculum, rng = Curriculum(prompts), np.random.default_rng(0)
    took = np.zeros((20, 2))
    for step in took:
        started = time.perf_counter()
        rows = curriculum.next(batch)
        step[0] = time.perf_counter() - started
        successes = rng.binomial(8, expit(2.0 * rng.normal(size=batch)))
        started = time.perf_counter()
        curriculum.observe(rows, successes, 8)
        step[1] = time.perf_counter() - started
    best, middle = 1e3 * took.min(axis=0), 1e3 * np.median(took, axis=0)
    return {"prompts": prompts, "batch": batch} | {
        f"{name}, ms": f"{best[i]:.2f}, {middle[i]:.2f}" for i, name in enumerate(("next", "observe"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--speed", action="store_true", help="time pools of several sizes instead")
    options = parser.parse_args()
    if options.speed:
        for prompts in (1_000, 10_000, 100_000, 1_000_000, 4_000_000):
            print(json.dumps(speed(prompts)), flush=True)
        return
    for kind in options.worlds:
        for row in compared(kind, options):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
