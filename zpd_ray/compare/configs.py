"""Configs of a comparison's runs, and of the runs that measure stage 0 for them."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from zpd_ray import selection
from zpd_ray.compare.cells import Cell, in_path
from zpd_ray.compare.cost import Training
from zpd_ray.compare.file import ALL, REFERENCE, Comparison, Contender
from zpd_ray.config import Config
from zpd_ray.config_file import SELECT_MEASURES, placed, read_values, set_value, validate
from zpd_ray.errors import ZpdError
from zpd_ray.machine import DERIVED, left_out, resolve, taken

STAGE0 = "stage0"  # directory of the runs that measure stage 0
# Keys of ``measure`` that stage 0 does not depend on.
LATER = ("scope", "probes", "theta_se", "candidates", "patience", "max_failed_share", "max_unparsed_share")


@dataclass(frozen=True)
class Configs:
    """comparison: as in its file. values: of the runs' file, with what is set for all. cluster, dtype: what
    follows from the machine."""

    comparison: Comparison
    values: dict[str, Any]
    cluster: dict[str, Any]
    dtype: str

    def of(self, cell: Cell, contender: Contender, training: Training | None = None) -> Config:
        """Of a cell's run. training: in place of its budget and epochs."""
        values = copy.deepcopy(self.values)
        for key, value in {**contender.set, **dict(cell.values)}.items():
            set_value(values, key, value, f"the method {contender.name!r} sets {key}")
        values["seed"], values["output"] = cell.seed, f"{self.comparison.output}/{cell.place}"
        values["select"] = values.get("select", {}) | {"method": contender.selects_by, "beside": []}
        values["train"] = values.get("train", {}) | {"rehearse": False}  # the runs of stage 0 do that
        values.setdefault("report", False)  # a page takes seconds, of each stage: `zpd-ray report` makes it
        if contender.selects_by == ALL:
            values["stages"] = 1
        if training is not None:
            values["train"]["epochs"] = training.epochs
        stages = validate(values).stages
        items: dict[str, Any] | None = None if training is None else {"items": training.items}
        fraction = round(cell.budget / stages, 12)  # .05 of 4,000 items are 200, and .15 / 3 is less than .05
        values["select"]["budget"] = items or {"fraction": fraction}
        return self._with_cluster(values)

    def stage0(self, config: Config, whole: bool) -> Config:
        """Of the run that measures stage 0 for the run of ``config``.

        whole: with the measures that its method needs beside the answers; else the answers alone, which runs
        of all methods share. What selects and trains is that of the runs' file, since stage 0 depends on
        neither.
        """
        values = copy.deepcopy(self.values) | {"seed": config.seed}
        method = config.select.method if whole else REFERENCE
        values["select"] = values.get("select", {}) | {"method": method, "beside": [], "budget": {"items": 1}}
        plain = self._with_cluster(values)
        later = {key: getattr(plain.measure, key) for key in LATER}
        models = {key: getattr(config.select, key) for key in SELECT_MEASURES} if whole else {}
        own = plain.model_copy(
            update={
                "engine": config.engine,
                "ability": config.ability,
                "measure": config.measure.model_copy(update=later),
                "select": plain.select.model_copy(update=models),
            }
        )
        return own.model_copy(update={"output": f"{self.comparison.output}/{STAGE0}/{_name(own, plain)}"})

    def _with_cluster(self, values: dict[str, Any]) -> Config:
        config = placed(validate(values), self.comparison.run)
        known = {key: self.cluster[key] for key in left_out(config.cluster) & self.cluster.keys()}
        return taken(config, known, self.dtype)


def _name(own: Config, plain: Config) -> str:
    """Of the directory: the seed, what is measured beside the answers, what else differs from the file."""
    needs = [in_path(need) for need in selection.load(own.select.method).needs]
    differs = [_digest(own)] if _digest(own) != _digest(plain) else []
    return "-".join([f"seed-{own.seed}", *needs, *differs])


def _digest(config: Config) -> str:
    told = {name: getattr(config, name).model_dump(mode="json") for name in ("engine", "ability", "measure")}
    told["select"] = config.select.model_dump(mode="json", include=set(SELECT_MEASURES))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]


def read_configs(comparison: Comparison) -> Configs:
    """What a comparison's runs have in common. Raises ZpdError for what does not fit a comparison."""
    values = read_values(comparison.run)
    values.setdefault("output", comparison.output)
    set_value(values, "select.budget", {"fraction": comparison.budgets[0]}, comparison.run)
    for key, value in comparison.set.items():
        set_value(values, key, value, f"`set` of the comparison sets {key}")
    config = placed(validate(values), comparison.run)
    _check(config, comparison)
    here = config.model_copy(update={"output": f"{comparison.output}/{STAGE0}/seed-{comparison.seeds[0]}"})
    resolved, _ = resolve(here, own_ray=True)
    cluster = {key: getattr(resolved.cluster, key) for key in DERIVED}
    return Configs(comparison, values, cluster, resolved.model.dtype)


def _check(config: Config, comparison: Comparison) -> None:
    if config.evaluation is None:
        raise ZpdError(
            f"{comparison.run} has no evaluation set, which methods are compared by; add [evaluation] with a "
            "path of items that no run trains on"
        )
    if config.train.method == "none":
        raise ZpdError(
            f"{comparison.run} has train.method = 'none', and methods are compared by what training on their "
            "selections does; give 'lora' or 'full'"
        )
    if config.cluster.placement == "split":
        raise ZpdError(
            f"{comparison.run} has cluster.placement = 'split', whose stages measure a model that is a stage "
            "behind; compare with 'shared'"
        )
