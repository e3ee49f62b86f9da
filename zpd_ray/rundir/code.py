"""Whether the parts that a config names can be loaded, and go together: nothing is computed for it."""

from __future__ import annotations

from typing import Any

from zpd_ray import graders, measures, selection
from zpd_ray.engines import ENGINES
from zpd_ray.errors import ZpdError
from zpd_ray.rundir.run import Run
from zpd_ray.selection.near import check_library
from zpd_ray.user_code import load_function


def check_code(run: Run) -> Any:
    """Everything that the config names can be loaded, and goes together; the engine's class.

    Raises ZpdError for what cannot, or does not.
    """
    config = run.config
    graders.load(config.measure.grader)
    if config.reads_prompts:
        _check_prompts_alone(run)
    for name in run.measures:  # which asks the methods in use
        measures.load(name, config).model(run.model(0))
    if config.train.function is not None:
        load_function("the training loop", config.train.function, "function()")
    _check_comparing(run)
    if config.train.target == "own" and not graders.load(config.measure.grader).needs_completion:
        raise ZpdError(
            f"train.target = 'own' trains on responses of the model's own, and measure.grader = "
            f"{config.measure.grader!r} asks for none; take a grader that reads responses (numeric, exact, "
            "choice, or yours), or train.target = 'reference'"
        )
    if config.select.diverse.near_duplicates is not None:
        check_library()
    engine = ENGINES.load(config.engine.name)
    engine.check(config)
    if run.trains and not engine.has_weights:
        raise ZpdError(
            f"the {config.engine.name} engine has no weights to train; got train.method = "
            f"{config.train.method!r}, expected 'none'"
        )
    return engine


def _check_comparing(run: Run) -> None:
    """Raises ZpdError for a method that compares stages where stages do not measure the same items."""
    comparing = [name for name in run.methods if getattr(selection.load(name), "compares", False)]
    if comparing and run.config.measure.scope != "pool":
        raise ZpdError(
            f"{comparing[0]} compares what two stages have measured of an item, and measure.scope = "
            f"{run.config.measure.scope!r} measures few items twice; take measure.scope = 'pool', or another "
            "method"
        )


def _check_prompts_alone(run: Run) -> None:
    """Raises ZpdError for a grader, or a method, that goes by references where items have none."""
    name = run.config.measure.grader
    if not graders.load(name).needs_completion:
        raise ZpdError(
            f"measure.grader = {name!r} compares with a reference, and with reference = 'prompt' there is "
            "none; take a function of yours that judges completions alone (docs/howto/own-grader.md), or, "
            "where rows have gold answers, numeric, exact or choice"
        )
    needing = [each for each in run.methods if getattr(selection.load(each), "needs_reference", False)]
    if needing and run.config.prompts_alone:
        raise ZpdError(
            f"{needing[0]} goes by the NLL of a reference, and with pool.reference = 'prompt' there is none; "
            f"{measures.OF_PROMPTS}"
        )
