"""ZPD against a random selection of the same budget on the quickstart's world: a table over seeds.

Each seed is a world of its own (language, items, base model) and the seed of its runs. Every run goes through
the command line, as a user's would. Finished runs are kept in the work directory, so it can be stopped and
started again.

    python benchmarks/quickstart.py --seeds 5 --work /tmp/zpd-quickstart
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "quickstart"
METHODS = {
    "zpd": [],
    "zpd, no replay": ["--set", "select.replay=0.0"],
    "zpd, scope zone": ["--set", "measure.scope=zone"],
    "zpd, scope probe": ["--set", "measure.scope=probe"],
    "random": ["--set", "select.method=random", "--set", "select.replay=0.0"],
}


def make_world(seed: int, work: Path) -> Path:
    """Pool, evaluation set and base model of a seed."""
    world = work / f"world-{seed}"
    if not (world / "model" / "config.json").exists():
        subprocess.run([sys.executable, EXAMPLE / "generate.py", world, "--seed", str(seed)], check=True)
    return world


def run(method: str, seed: int, world: Path, work: Path) -> Path:
    """One whole run; the run directory."""
    output = work / f"run-{seed}-{method.replace(', ', '-').replace(' ', '-')}"
    places = {
        "output": output,
        "pool.path": world / "pool.jsonl",
        "evaluation.path": world / "eval.jsonl",
        "model.path": world / "model",
        "seed": seed,
    }
    settings = [word for key, value in places.items() for word in ("--set", f"{key}={value}")]
    command = [str(Path(sys.executable).with_name("zpd-ray")), "run", str(EXAMPLE / "run.toml")]
    subprocess.run(
        [*command, *settings, *METHODS[method]],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return output


def row(output: Path) -> dict[str, list[float]]:
    """Accuracy by stage (the base model first); theta and mean b of the zone by stage."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((output / name).read_text())

    stages = sorted((output / "stages").iterdir())
    names = [f"stages/{stage.name}" for stage in stages]
    return {
        "accuracy": [read(f"{name}/metrics.json")["accuracy"] for name in ("base", *names)],
        "theta": [read(f"{name}/fit.json")["ability"]["theta"] for name in names],
        "b": [read(f"{name}/selection.json")["mean_b"] for name in names],
    }


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="worlds 0 .. SEEDS-1 (default: 5)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark-quickstart")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["zpd", "zpd, no replay", "random"])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print("| seed | method | accuracy: base, after each stage | theta by stage | mean b of the selection |")
    print("|---|---|---|---|---|")
    last: dict[str, list[float]] = {method: [] for method in options.methods}
    for seed in range(options.seeds):
        world = make_world(seed, options.work)
        for method in options.methods:
            found = row(run(method, seed, world, options.work))
            last[method].append(found["accuracy"][-1])
            cells = [
                " ".join(f"{value:.{digits}f}" for value in found[key]) for key, digits in DIGITS.items()
            ]
            print(f"| {seed} | {method} | " + " | ".join(cells) + " |", flush=True)
    for method, values in last.items():
        print(f"{method}: mean final accuracy {statistics.mean(values):.3f} over {len(values)} seeds")


DIGITS = {"accuracy": 3, "theta": 1, "b": 1}

if __name__ == "__main__":
    main()
