"""The cost account: what events and closing files say, added up by stage."""

from __future__ import annotations

from pathlib import Path

from tests.pipeline.conftest import simulated_values
from zpd_ray.config_file import validate
from zpd_ray.report.cost import Cost, costs
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.records import add_event


def test_tokens_and_seconds_of_each_stage_resumptions_included(tmp_path: Path) -> None:
    values = simulated_values(tmp_path, n=1, train={"method": "lora"})
    config = validate(values)
    run = Run(config, Store(config.output))
    scorers = [{"prefill_tokens": 100.0, "decode_tokens": 7.0}, {"prefill_tokens": 50.0}]
    for stage, factor in ((0, 1), (1, 2)):
        into = f"stages/{stage:02d}/measurements/answers"
        for _ in range(factor):  # stage 1 was resumed once
            add_event(run.store, "scored", stage, into=into, scorers=scorers)
            add_event(run.store, "measure", stage, 2.0)
        add_event(run.store, "select", stage, 1.0)
        add_event(run.store, "train", stage, 4.0)
        run.store.write_json(f"stages/{stage:02d}/train.json", {"tokens": 30})
    add_event(run.store, "scored", 1, into="stages/00/evaluation", scorers=scorers)  # evaluating is neither
    add_event(run.store, "evaluate", 0, 9.0)
    first, second = costs(run)
    assert first == Cost(3.0, 4.0, prefilled=150, generated=7, trained=30)
    assert second == Cost(5.0, 4.0, prefilled=300, generated=14, trained=30)
    assert (first + second).ratio == 1.0
    assert Cost(1.0).ratio is None
