"""Runs that differ in one setting, on the same worlds: accuracy, paired differences, what selecting read.

Every seed is a world of its own (items, base model) and the seed of its runs; in it the variants run one
after another through the command line, as a user's would. Finished runs are kept in the work directory: stop
it and start it again. The pronunciation pool needs `pip install 'zpd-ray[pronounce]'`.

    python benchmarks/scopes.py --seeds 5 --work /tmp/scopes
    python benchmarks/scopes.py --worlds quickstart --seeds 3 --work /tmp/graders \\
        --variants greedy:measure.grader=greedy_match likelihood:measure.grader=likelihood

A variant is NAME or NAME:KEY=VALUE,KEY=VALUE, and the first is what the others are compared with. For each
run a line of JSON is printed, then three tables. Graders that need no generation are all judged by greedy
match: whether decoding would give the reference. Differences have the interval of a paired bootstrap over
seeds, and within a seed over the items of its evaluation set (`zpd_ray/compare/statistics.py`). `zpd-ray
compare` has methods on one pool; here every seed is a world of its own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zpd_ray import graders
from zpd_ray.compare.statistics import Floats, nested
from zpd_ray.config_file import differences, load_config
from zpd_ray.graders.greedy_match import matches
from zpd_ray.report.cost import costs
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import recorded_run
from zpd_ray.rundir.layout import BASE, EVALUATE, StageFiles

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {"quickstart": ROOT / "examples" / "quickstart", "pronunciation": ROOT / "examples" / "pronounce"}
SCOPES = [f"{scope}:measure.scope={scope}" for scope in ("pool", "zone", "probe")]


@dataclass(frozen=True)
class Variant:
    """A name and the settings of it, as ``--set`` takes them."""

    name: str
    settings: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Variant:
        """``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``."""
        name, _, settings = text.partition(":")
        return cls(name, tuple(setting for setting in settings.split(",") if setting))


@dataclass(frozen=True)
class Outcome:
    """Of a finished run. accuracy: by model, the base first; tokens: read and generated to select, by stage.

    credit: of each item of the evaluation set with the last model, 0 to 1, by item_id.
    """

    accuracy: list[float]
    tokens: list[int]
    credit: dict[str, float]

    @property
    def later(self) -> int:
        """Tokens of the stages after the first, which is measured whole in every scope."""
        return sum(self.tokens[1:])


def make_world(world: str, seed: int, work: Path, sizes: Sequence[str]) -> Path:
    """Pool, evaluation set and base model of a seed."""
    directory = work / f"{world}-{seed}"
    if not (directory / "model" / "tokenizer.json").exists():  # what is written last
        generate = EXAMPLES[world] / "generate.py"
        command = [sys.executable, str(generate), str(directory), "--seed", str(seed), *sizes]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return directory


def run(
    world: str, seed: int, variant: Variant, common: Sequence[str], work: Path, sizes: Sequence[str]
) -> Run:
    """The finished run, made or gone on with if it is not there; its log lies beside it."""
    directory, output = make_world(world, seed, work, sizes), work / f"{world}-{seed}-{variant.name}"
    places = {
        "output": output,
        "pool.path": directory / "pool.jsonl",
        "evaluation.path": directory / "eval.jsonl",
        "model.path": directory / "model",
        "seed": seed,
    }
    settings = [*(f"{key}={value}" for key, value in places.items()), *common, *variant.settings]
    example = EXAMPLES[world] / "run.toml"
    if not finished(output, example, settings):
        flags = [word for setting in settings for word in ("--set", setting)]
        log = output.with_suffix(".log")
        with log.open("a") as lines:
            command = [sys.executable, "-m", "zpd_ray", "run", str(example), *flags]
            if subprocess.run(command, stdout=lines, stderr=subprocess.STDOUT).returncode:
                raise SystemExit(f"{output.name} did not end well; {log} says why")
    return recorded_run(str(output))


def finished(output: Path, example: Path, settings: list[str]) -> bool:
    """Whether the run is there and was made with these settings; another one's directory is refused."""
    config = load_config(str(example), settings)
    if not (output / StageFiles(config.stages - 1).closing(EVALUATE)).exists():
        return False
    if changed := differences(recorded_run(str(output)).config, config):
        raise SystemExit(f"{output} is a run with other settings ({'; '.join(changed)}); give another --work")
    return True


def outcome(run: Run) -> Outcome:
    """What a finished run has come to."""
    stages = [StageFiles(stage) for stage in range(run.config.stages)]
    credits = [
        credit(run, directory) for directory in (f"{BASE}/evaluation", *(s.evaluation for s in stages))
    ]
    accuracy = [float(np.mean(list(of_items.values()))) for of_items in credits]
    return Outcome(accuracy, [cost.prefilled + cost.generated for cost in costs(run)], credits[-1])


def credit(run: Run, directory: str) -> dict[str, float]:
    """How far each item of a measured evaluation set was right, by item_id; failed ones are left out."""
    items = pa.concat_tables(
        [run.store.read_table(f"{directory}/{name}") for name in run.store.names(directory)]
    )
    items = items.filter(pc.is_null(items["error"]))
    if graders.load(run.config.measure.grader).needs_completion:
        right = items["credit"].to_numpy() / items["rollouts"].to_numpy()
    else:
        right = matches(items["n_greedy"].to_numpy(), items["n_tokens"].to_numpy()).astype(np.float64)
    return dict(zip(items["item_id"].to_pylist(), right.tolist(), strict=True))


def paired(ours: Outcome, reference: Outcome) -> Floats:
    """Differences in credit, of the items that both have measured."""
    both = sorted(ours.credit.keys() & reference.credit.keys())
    return np.array([ours.credit[item] - reference.credit[item] for item in both])


Outcomes = dict[str, list[Outcome]]  # by variant, one for each seed


def accuracy_table(by_variant: Outcomes) -> list[str]:
    """Final accuracy by seed, with the base model's."""
    seeds = range(len(next(iter(by_variant.values()))))
    base = [outcome.accuracy[0] for outcome in next(iter(by_variant.values()))]
    final = {name: [of.accuracy[-1] for of in outcomes] for name, outcomes in by_variant.items()}
    lines = [
        f"| final accuracy | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |",
        "|---|" + "---|" * (len(seeds) + 1),
    ]
    for name, values in {"base model": base, **final}.items():
        numbers = np.array(values, dtype=float)
        lines.append(f"| {name} | {' | '.join(f'{x:.3f}' for x in [*numbers, numbers.mean()])} |")
    return lines


def difference_table(by_variant: Outcomes) -> list[str]:
    """Final accuracy less that of the first variant."""
    (first, reference), *others = by_variant.items()
    lines = [f"| final accuracy less that of {first} | by seed | mean | 95 % interval |", "|---|---|---|---|"]
    for name, outcomes in others:
        of_seeds = [paired(ours, theirs) for ours, theirs in zip(outcomes, reference, strict=True)]
        all_seeds = nested(of_seeds)
        by_seed = " ".join(f"{items.mean():+.3f}" for items in of_seeds)
        lines.append(
            f"| {name} | {by_seed} | {all_seeds.mean:+.4f} | {all_seeds.low:+.4f} to {all_seeds.high:+.4f} |"
        )
    return lines


def token_table(by_variant: Outcomes) -> list[str]:
    """Tokens read and generated to select, summed over seeds, and their share of the first variant's."""
    (first, reference), *_ = by_variant.items()
    stages = range(len(reference[0].tokens))
    lines = [
        f"| selecting tokens, all seeds | stages from 1 on | share of {first}'s | "
        + " | ".join(f"stage {stage}" for stage in stages)
        + " |",
        "|---|---|---|" + "---|" * len(stages),
    ]
    for name, outcomes in by_variant.items():
        later = sum(outcome.later for outcome in outcomes)
        shares = [
            share(sum(o.tokens[t] for o in outcomes), sum(o.tokens[t] for o in reference)) for t in stages
        ]
        whole = share(later, sum(outcome.later for outcome in reference))
        lines.append(f"| {name} | {later:,} | {whole} | {' | '.join(shares)} |")
    return lines


def share(part: int, whole: int) -> str:
    """In percent; a dash where there is nothing to be a share of."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", nargs="+", choices=EXAMPLES, default=list(EXAMPLES))
    parser.add_argument("--seeds", type=int, default=5, help="0 .. SEEDS-1 (default: 5)")
    parser.add_argument(
        "--variants", nargs="+", type=Variant.of, default=[Variant.of(text) for text in SCOPES]
    )
    parser.add_argument("--set", dest="common", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sizes", default="", help="further arguments of generate.py, as '--words 3000'")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark-scopes")
    args = parser.parse_args()
    if len({variant.name for variant in args.variants}) < len(args.variants):
        parser.error("two variants have the same name, and so the same run directory; name them apart")
    return args


def main() -> None:
    """Run what is missing and print what came of it."""
    args = options()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for world in args.worlds:
        by_variant: Outcomes = {variant.name: [] for variant in args.variants}
        for seed in range(args.seeds):
            for variant in args.variants:
                found = outcome(run(world, seed, variant, args.common, work, shlex.split(args.sizes)))
                by_variant[variant.name].append(found)
                line = {"world": world, "seed": seed, "variant": variant.name, "accuracy": found.accuracy}
                print(json.dumps(line | {"selecting_tokens": found.tokens}), flush=True)
        for table in (accuracy_table, difference_table, token_table):
            print("\n" + "\n".join([f"{world}:", "", *table(by_variant)]), flush=True)


if __name__ == "__main__":
    main()
