"""What selecting by a method costs, and how much random may train for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zpd_ray import selection
from zpd_ray.report.cost import Cost, costs
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import POOL
from zpd_ray.rundir.records import load_events


def needed(run: Run) -> Cost:
    """What a finished run has spent on training, and on what its method needs to select.

    A run measures its pool at every stage, since ability is told of every stage. A method that looks at
    nothing needs none of it, one that is static needs what stage 0 measured; but every method needs all of it
    where what is trained on are responses that the model gave in it (``train.target = "own"``). Starting the
    training job is not counted: it trains many runs.
    """
    name, spent = run.config.select.method, costs(run)
    own = run.config.train.target == "own"
    looked = spent[:1] if getattr(selection.load(name), "static", False) and not own else spent
    select = Cost() if selection.is_blind(name) and not own else sum(looked, Cost())
    train = sum(spent, Cost())
    starting = sum(event.details.get("starting", 0.0) for event in load_events(run.store))
    return replace(select, training_seconds=train.training_seconds - starting, trained=train.trained)


@dataclass(frozen=True)
class Training:
    """items: of a stage. epochs: times that it goes through them."""

    items: int
    epochs: int


def added_training(paid: Run) -> Training:
    """What a stage of random may train on where the tokens that ``paid`` has read to select are added.

    A token read counts as a token trained, which costs about three times as much: the row is better off than
    at equal cost. Tokens become items of the pool's mean length. They go into further items, up to the whole
    pool over all stages, and into whole further epochs where there are no further items.
    """
    pool = paid.store.read_json(f"{POOL}.json")
    config, spent = paid.config, needed(paid)
    budget = config.select.budget
    items = max(1, int((budget.fraction or 0.0) * pool["items"]))
    mean = (pool["prompt_tokens"] + pool["response_tokens"]) / pool["items"]
    read = (spent.prefilled + spent.generated) / mean / config.stages
    passes = items * config.train.epochs + int(read)
    most = max(items, (pool["items"] - 1) // config.stages)
    wanted = min(most, passes // config.train.epochs)
    return Training(wanted, max(config.train.epochs, passes // wanted))
