"""The central actor: collects the integer statistics of every part and fits the stage."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from zpd_ray import irt
from zpd_ray.calibration import Fit, Statistics, fit_stage
from zpd_ray.config import AbilityConfig, Config
from zpd_ray.difficulty import bin_of
from zpd_ray.pipeline.cluster import parts
from zpd_ray.pipeline.cluster.session import lasting_actor
from zpd_ray.rundir.store import Store

Integers = NDArray[np.int64]

# A restarted actor has lost its statistics; they are collected anew, so many times.
ATTEMPTS = 3
TOGETHER = 64
ARRIVAL_SECONDS = 60.0  # without a further task's arriving


class AbilityActor:
    """Statistics of one fit, keyed by a task's first part, so that a repeated task is no double count."""

    def __init__(self) -> None:
        self.begin("")

    def begin(self, fit: str) -> None:
        """Forget what belongs to other fits; what still arrives from them is not taken."""
        self._fit, self._seen, self._parts = fit, set[str](), list[Statistics]()

    def observe(self, fit: str, part: str, statistics: Statistics) -> None:
        """Take the statistics of a task, once."""
        if fit == self._fit and part not in self._seen:
            self._seen.add(part)
            self._parts.append(statistics)
            if len(self._parts) == TOGETHER:  # each sum takes time by its number of cells
                self._parts = [Statistics.merge(self._parts)]

    def observed(self) -> int:
        """How many tasks have reported."""
        return len(self._seen)

    def fit(self, config: AbilityConfig, stage: int, previous: Fit | None) -> Fit:
        """The fit of the stage from all observed parts."""
        return fit_stage(Statistics.merge(self._parts), config, stage, previous)


def fit_ability(config: Config, store: Store, stage: int, staleness: int = 0) -> Fit:
    """Fit ``stage`` from its measurements; the result is also in ``stages/NN/fit.json``.

    staleness: of the measured model, for the record (see ``Fit``).
    """
    previous = load_fit(store, stage - 1) if stage else None
    names = store.names("pool")
    actor = lasting_actor(AbilityActor)
    for attempt in range(ATTEMPTS):
        fit_name = f"{store.root}/{stage}/{attempt}"
        ray.get(actor.begin.remote(fit_name))
        send = partial(_send_statistics, config, store, stage, actor, fit_name)
        sent = sum(1 for _row in parts.sums(names, send))
        if _all_arrived(actor, sent):
            break
    else:
        raise RuntimeError(f"the ability actor lost its statistics {ATTEMPTS} times; see the Ray logs")
    fit: Fit = replace(ray.get(actor.fit.remote(config.ability, stage, previous)), staleness=staleness)
    store.write_json(f"stages/{stage:02d}/fit.json", fit.to_json())
    return fit


def _all_arrived(actor: Any, sent: int) -> bool:
    """Whether the statistics of all tasks have reached the actor, waiting for those under way."""
    arrived, deadline = -1, 0.0
    while (now := ray.get(actor.observed.remote())) < sent:
        if now > arrived:
            arrived, deadline = now, time.monotonic() + ARRIVAL_SECONDS
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def load_fit(store: Store, stage: int) -> Fit:
    """The finished fit of a stage."""
    return Fit(**store.read_json(f"stages/{stage:02d}/fit.json"))


def _send_statistics(
    config: Config, store: Store, stage: int, actor: Any, fit_name: str, names: list[str]
) -> dict[str, Any]:
    """Send the statistics of a task's parts to the actor, not to the driver.

    Without waiting for it: a task that waits gives up its CPU, and Ray starts more workers in its place.
    """
    statistics = Statistics.merge([part_statistics(config, store, stage, name) for name in names])
    actor.observe.remote(fit_name, names[0], statistics)
    return {"items": statistics.counts.n_items}


def part_statistics(config: Config, store: Store, stage: int, name: str) -> Statistics:
    """Counts over the anchors of a part: measured now and at the stage before, never trained on."""
    columns = ["nll", "successes", "rollouts"]
    now = store.read_table(f"stages/{stage:02d}/measurements/{name}", columns)
    anchors = pc.is_valid(now["nll"]).to_numpy() & ~trained_before(store, stage, name, now.num_rows)
    before = None
    if stage:
        before = store.read_table(f"stages/{stage - 1:02d}/measurements/{name}", ["nll"])["nll"]
        anchors &= pc.is_valid(before).to_numpy()
    bins = bin_of(now["nll"].to_numpy()[anchors])
    successes, rollouts = (now[column].to_numpy()[anchors] for column in columns[1:])
    options = option_counts(config, store, name, now.num_rows)[anchors]
    links = None if before is None else _links(bin_of(before.to_numpy()[anchors]), bins)
    return Statistics(irt.Counts.of(bins, options, successes, rollouts), links)


def _links(before: Integers, now: Integers) -> irt.Counts:
    """Anchors counted by NLL bin at the stage before and now."""
    none = np.zeros(len(now), dtype=np.int64)
    return irt.Counts.of(before, now, none, none)


def trained_before(store: Store, stage: int, name: str, n: int) -> NDArray[np.bool_]:
    """Which of the ``n`` items of a part were in the selection of an earlier stage: (n,)."""
    trained = np.zeros(n, dtype=bool)
    for earlier in range(stage):
        trained[store.read_table(f"stages/{earlier:02d}/chosen/{name}", ["row"])["row"].to_numpy()] = True
    return trained


def option_counts(config: Config, store: Store, name: str, n: int) -> Integers:
    """Number of options of each of a part's ``n`` items where guessing can satisfy the grader, else 0: (n,).

    A single option is 0 too: a guessing floor of 1 would leave the response nothing to say.
    """
    if config.measure.grader != "choice":
        return np.zeros(n, dtype=np.int64)
    choices = store.read_table(f"pool/{name}", ["choices"])["choices"]
    lengths = pc.fill_null(pc.list_value_length(choices), 0).to_numpy().astype(np.int64)
    return np.where(lengths > 1, lengths, 0)
