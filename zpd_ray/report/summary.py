"""The closing table of a run: per stage its ability, what was selected from where, accuracy and cost."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from zpd_ray.config import Config
from zpd_ray.pipeline.fit.ability import load_fit
from zpd_ray.rundir.store import Store
from zpd_ray.terminal import results

COLUMNS = ("stage", "theta", "selected", "mean b", "mean p", "from", "accuracy", "selecting", "training")
GROUPS = 3  # named in the table


def print_summary(config: Config, store: Store) -> None:
    """Per stage: ability, what was selected from where, accuracy afterwards, time and tokens spent."""
    table = Table(title=f"{config.select.method}, {config.stages} stages", box=SIMPLE)
    for column in COLUMNS:
        table.add_column(column)
    base = store.read_json("base/metrics.json")
    table.add_row("base", "", "", "", "", "", _accuracy(base), "", "")
    for stage in range(config.stages):
        table.add_row(*_row(store, stage))
    results.print(table)
    idle = idle_share(store)
    if config.cluster.placement == "split" and idle is not None:
        results.print(
            f"train workers idled for {idle:.0%} of the time after their first stage", highlight=False
        )
    if config.train.method != "none":
        result = f"stages/{config.stages - 1:02d}/{config.train.result}"
        results.print(f"tuned {config.train.result}: {store.path(result)}", highlight=False, soft_wrap=True)


def _row(store: Store, stage: int) -> list[str]:
    name = f"stages/{stage:02d}"
    fit, chosen = load_fit(store, stage), store.read_json(f"{name}/selection.json")
    spent = _spent(store, stage)
    return [
        str(stage),
        f"{fit.theta:.2f} +- {fit.theta_se:.2f}",
        f"{chosen['zone']} + {chosen['replay']}",
        f"{chosen['mean_b']:.2f}",
        f"{chosen['mean_p']:.2f}",
        _largest(chosen["groups"]),
        _accuracy(store.read_json(f"{name}/metrics.json")),
        f"{spent['selecting']:.0f} s, {store.read_json(f'{name}/measured.json')['tokens']:,} tok",
        f"{spent['training']:.0f} s, {_train_tokens(store, name):,} tok",
    ]


def _largest(groups: dict[str, int]) -> str:
    """The groups that most of the selection comes from."""
    order = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{group or 'no group'} {count}" for group, count in order[:GROUPS])
    return told + (f" and {len(order) - GROUPS} more" if len(order) > GROUPS else "")


def _accuracy(metrics: dict[str, Any]) -> str:
    accuracy = metrics.get("accuracy")
    return "-" if accuracy is None else f"{accuracy:.3f}"


def _train_tokens(store: Store, name: str) -> int:
    """0 where a training loop of the user's has not told."""
    return (
        int(store.read_json(f"{name}/train.json").get("tokens", 0))
        if store.exists(f"{name}/train.json")
        else 0
    )


def _spent(store: Store, stage: int) -> dict[str, float]:
    """Seconds of a stage by purpose, over all attempts that finished their step."""
    spent = {"selecting": 0.0, "training": 0.0}
    purpose = {"measure": "selecting", "fit": "selecting", "select": "selecting", "train": "training"}
    for event in store.events():
        if event["stage"] == stage and event["step"] in purpose:
            spent[purpose[event["step"]]] += event["seconds"]
    return spent


def idle_share(store: Store) -> float | None:
    """Share of the time from the end of their first stage in which train workers had nothing to train.

    None when no stage was trained by workers that were up since the stage before.
    """
    later = [event for event in store.events() if "waited" in event]
    waited = sum(event["waited"] for event in later)
    return waited / (waited + sum(event["seconds"] for event in later)) if later else None
