"""A run as gauges among Ray's metrics, which Prometheus reads and cluster/grafana draws.

Ray puts its own ``ray_`` before the names, and forgets a gauge that was not set for two of its reports (of
10 s each): all are set again and again, also those of stages that are long done.
"""

from __future__ import annotations

from collections.abc import Iterator

from ray.util.metrics import Gauge

from zpd_ray.report.live import Live

TAGS = ("run", "stage")
BASE = "base"  # in place of a stage: the model before training
GAUGES = {
    "zpd_ray_theta": "ability of the model that the stage has measured, logits",
    "zpd_ray_theta_se": "standard error of theta, logits",
    "zpd_ray_accuracy": "accuracy on the evaluation set of the model that the stage has left",
    "zpd_ray_p_mean": "mean probability of a right answer of the items selected from the zone",
    "zpd_ray_selecting_tokens": "tokens read and generated to select",
    "zpd_ray_training_tokens": "response tokens trained on, epochs included",
    "zpd_ray_selecting_seconds": "seconds spent on selecting",
    "zpd_ray_training_seconds": "seconds spent on training",
    "zpd_ray_items_per_second": "items that the step under way measures or trains on",
    "zpd_ray_tokens_per_second": "tokens that the step under way measures or trains on",
    "zpd_ray_run_left_seconds": "what is left of the run, by what its steps took so far",
}

Told = tuple[str, str, float]  # a gauge, the stage or "", its value


class Metrics:
    """Gauges of this process, which has joined a Ray."""

    def __init__(self) -> None:
        """None is set yet."""
        self._gauges = {name: Gauge(name, what, tag_keys=TAGS) for name, what in GAUGES.items()}

    def tell(self, live: Live) -> None:
        """Set all gauges to what a run is now."""
        for name, stage, value in values(live):
            self._gauges[name].set(value, tags={"run": live.run, "stage": stage})


def values(live: Live) -> Iterator[Told]:
    """What is known of a run, by gauge and stage."""
    if live.base_accuracy is not None:
        yield "zpd_ray_accuracy", BASE, live.base_accuracy
    for each in live.stages:
        cost = each.cost
        known = {
            "theta": each.theta,
            "theta_se": each.se,
            "accuracy": each.accuracy,
            "p_mean": each.p_mean,
            "selecting_tokens": cost.prefilled + cost.generated,
            "training_tokens": cost.trained,
            "selecting_seconds": cost.selecting_seconds,
            "training_seconds": cost.training_seconds,
        }
        yield from (
            (f"zpd_ray_{key}", str(each.stage), value) for key, value in known.items() if value is not None
        )
    for at in live.doing:
        stage = "" if at.stage is None else str(at.stage)
        if at.rate is not None:
            yield "zpd_ray_items_per_second", stage, at.rate
        if at.tokens_per_second is not None:
            yield "zpd_ray_tokens_per_second", stage, at.tokens_per_second
    if live.run_left is not None:
        yield "zpd_ray_run_left_seconds", "", live.run_left
