"""A run whose model is better at some groups of items than at others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.pipeline.conftest import Simulate, selected_of, table_of
from zpd_ray.drift import Drifted
from zpd_ray.pipeline.select.scoring import Scoring
from zpd_ray.report.find import find_items
from zpd_ray.report.summary import summary
from zpd_ray.report.why import standing
from zpd_ray.rundir import Run
from zpd_ray.rundir.judging import group_ahead, last_measured
from zpd_ray.rundir.records import load_fit

AHEAD = {"g0": -1.5, "g2": 1.5}  # and g1 as the common theta has it
GROUPED: dict[str, Any] = {
    "engine": {"simulated": {"groups": AHEAD}},
    "ability": {"groups": True},
    "n": 1500,
}


def test_group_thetas_are_told_and_used_and_hang_on_no_part_or_actor(simulate: Simulate) -> None:
    config, store = simulate(**GROUPED)
    run = Run(config, store)
    for stage in range(2):
        fit = load_fit(store, stage)
        assert fit.groups is not None
        assert fit.groups.names == ["g0", "g1", "g2"]
        thetas = [at.theta for at in fit.groups.standings[:3]]
        np.testing.assert_allclose(np.diff(thetas), [1.5, 1.5], atol=0.5)
        chosen = table_of(store, f"stages/0{stage}/selected")
        own = np.array(thetas)[[int(group[1]) for group in chosen["group"].to_pylist()]]
        p = 1 / (1 + np.exp(chosen["b"].to_numpy() - own))
        np.testing.assert_allclose(chosen["p"].to_numpy(), p, atol=1e-9)
    assert np.abs(p - 0.5).max() < 0.4

    some = chosen.slice(0, 1).to_pylist()[0]
    at = standing(run, find_items(run, [some["item_id"]])[some["item_id"]], 1, "zpd")
    assert at.judged is not None
    assert at.judged["p"] == some["p"]
    rows = summary(run).stages
    assert list(rows[1].group_thetas) == ["g0", "g1", "g2"]
    assert rows[1].group_thetas["g0"] == pytest.approx(thetas[0])

    parts = simulate(output="parts", pool={"items_per_part": 150}, cluster={"actors": 2}, **GROUPED)[1]
    for name in ("stages/00/fit.json", "stages/01/fit.json"):
        assert parts.read_bytes(name) == store.read_bytes(name)
    assert selected_of(parts, 1).equals(selected_of(store, 1))


@pytest.mark.nightly
@pytest.mark.parametrize("scope", ["zone", "probe"])
def test_items_that_a_stage_has_not_measured_are_judged_by_the_theta_of_their_group(
    simulate: Simulate, scope: str
) -> None:
    """p of a predicted item is that of its group's ability now; groups that keep their lead do not drift."""
    config, store = simulate(measure={"scope": scope}, **GROUPED | {"n": 3000})
    run, fit = Run(config, store), load_fit(store, 1)
    assert fit.groups is not None
    assert fit.probed is not None
    assert [part for part in fit.probed.drifted if part.kind == "group"] == []
    thetas = {at.group: at.theta for at in fit.groups.standings}
    chosen = table_of(store, "stages/01/selected")
    own = np.array([thetas[group] for group in chosen["group"].to_pylist()])
    p = 1 / (1 + np.exp(chosen["b"].to_numpy() - own))
    np.testing.assert_allclose(chosen["p"].to_numpy(), p, atol=1e-9)

    stages = [last_measured(run, 1, "answers", part).stage for part in store.names("pool")]
    assert 0 < sum((at == 1).sum() for at in stages) < 3000
    # Measured in scope zone are items near each group's own ability: that must not move the common theta.
    told = [thetas[group] for group in ("g0", "g1", "g2")]
    gain = fit.ability.theta
    np.testing.assert_allclose(told, [gain - 1.5, gain, gain + 1.5], atol=0.35)
    # A band of difficulty that has drifted is one of what is left of b, once the group's lead is taken out.
    band = Drifted("band", "", None, 0.0, 1.0, 0.1, 0.0, 99)
    fit = replace(fit, probed=replace(fit.probed, drifted=[band]))
    scoring = Scoring(run, fit, "zpd", "scratch", "items", False, among="not measured", within=0)
    part = store.names("pool")[0]
    rows = scoring.ranked(part, "zone").rows
    ahead = group_ahead(run, fit, part)
    assert ahead is not None
    assert len(rows) > 0
    predicted = scoring.judged(part, rows)["b"].to_numpy() - ahead[rows]
    assert 0.0 < predicted.max() < band.shift  # those just below the band's end are harder by its shift
