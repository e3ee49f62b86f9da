"""What people look at and take away, by the commands, of a made-up, a real and a large simulated run."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.pipeline.conftest import perform_in, questions, selected_of, table_of, write_jsonl
from tests.report.page.browser import CHROMIUM, tab
from tests.report.page.html_tables import Page
from zpd_ray.cli.app import app
from zpd_ray.export import FORMATS
from zpd_ray.rundir import Run
from zpd_ray.rundir.begin import recorded_run
from zpd_ray.rundir.layout import CONFIG, REPORT, StageFiles
from zpd_ray.rundir.records import Selection, load_events, load_selection

pytestmark = pytest.mark.nightly

LARGE = 100_000
WRITE_SECONDS, OPEN_SECONDS = 20.0, 2.0
REWARDED = ("verl",)  # formats that need a gold answer, which words have not


@pytest.fixture(scope="session")
def simulated_large(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two stages of 10,000 of 100,000 items, with an evaluation set."""
    directory = tmp_path_factory.mktemp("large")
    held_out = write_jsonl(directory / "eval.jsonl", questions(500, 10**6))
    config, _ = perform_in(
        directory,
        n=LARGE,
        report=True,
        pool={"items_per_part": 10_000},
        evaluation={"path": str(held_out)},
        select={"replay": 0.1},
    )
    return recorded_run(config.output)


@pytest.fixture(scope="session", params=["quickstart", "pronunciation", "simulated_large"])
def run(request: pytest.FixtureRequest) -> Run:
    """Each of the three, made once."""
    made = request.getfixturevalue(request.param)
    return made if isinstance(made, Run) else recorded_run(str(made.output))


def said(*arguments: str, code: int = 0) -> str:
    """stdout of a command that ends with that code."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.stdout


def told(*arguments: str, code: int = 0) -> Any:
    """The one line of JSON that a command prints."""
    return json.loads(said(*arguments, "--json", code=code))


def selections(run: Run) -> list[Selection]:
    return [load_selection(run.store, StageFiles(stage).selection()) for stage in range(run.config.stages)]


def test_show_lists_all_that_was_selected(run: Run) -> None:
    for stage, selection in enumerate(selections(run)):
        of = ("show", run.store.root, "--stage", str(stage))
        rows = told(*of, "--limit", str(selection.selected + 1))["rows"]
        assert [row["rank"] for row in rows] == list(range(selection.selected))
        assert Counter(row["reason"] == "replay" for row in rows)[True] == selection.replay
        assert Counter(row["group"] for row in rows if row["group"]) == Counter(selection.groups)
        text = said(*of, "--limit", "3")
        assert f"{selection.selected} items selected" in text
        assert "3 shown" in text


def test_why_tells_of_the_selected_and_of_the_rest_at_every_stage(run: Run) -> None:
    stages = range(run.config.stages)
    chosen = {row["item_id"]: row["rank"] for row in table_of(run.store, stage_selected(0)).to_pylist()}
    pool = table_of(run.store, "pool")["item_id"].to_pylist()
    left_out = next(item for item in reversed(pool) if item not in chosen)
    best = min(chosen, key=chosen.__getitem__)
    items = told("why", run.store.root, best, left_out)["items"]
    for item, ranks in zip(items, (chosen, {}), strict=True):
        assert [at["stage"] for at in item["standings"]] == list(stages)
        first = item["standings"][0]
        assert first["rank"] == ranks.get(item["asked"])
        assert first["measured"]["nll"] > 0
        assert 0 < first["judged"]["p"] < 1
    text = said("why", run.store.root, best, left_out)
    assert best in text
    assert left_out in text


def stage_selected(stage: int) -> str:
    return StageFiles(stage).selected


@pytest.mark.parametrize("to", list(FORMATS))
def test_export_holds_every_selected_item(run: Run, to: str, tmp_path: Path) -> None:
    answered = selected_of(run.store)["answer"].null_count == 0
    wanted = sum(selection.selected for selection in selections(run))
    of = ("export", run.store.root, "--to", to, "--scores", "--extra", "--into")
    if to in REWARDED and not answered:
        assert "needs rows with a gold answer" in told(*of, str(tmp_path / "none"), code=2)["error"]
        return
    done = told(*of, str(tmp_path / "told"))
    assert done["items"] == wanted
    assert rows_in(tmp_path / "told", to) == wanted
    assert f"{wanted} items of stage" in said(*of, str(tmp_path / "said"))
    assert rows_in(tmp_path / "said", to) == wanted


def rows_in(directory: Path, to: str) -> int:
    """Rows of what was written, counted by a library that others would read it with."""
    import datasets
    import pyarrow.dataset

    if to == "hf":
        return int(datasets.load_from_disk(str(directory)).num_rows)
    parquet = [str(file) for file in directory.rglob("*.parquet")]
    if parquet:
        return int(pyarrow.dataset.dataset(parquet).count_rows())
    return sum(file.read_bytes().count(b"\n") for file in directory.rglob("*.jsonl"))


def test_plan_knows_the_pool_of_the_run(run: Run) -> None:
    """By the config that the run directory holds; the pool is there, and is not read again."""
    planned = told("plan", run.store.path(CONFIG), "--seconds", "0.2")
    pool = run.store.read_json("pool.json")
    assert planned["pool"]["items"] == pool["items"]
    assert planned["before"]["reading the pool"]["seconds"] == 0
    whole, *_ = planned["scopes"]
    assert len(whole["stages"]) == run.config.stages
    assert whole["total"]["measured"] == run.config.stages * pool["items"]
    assert (whole["total"]["trained"] > 0) == run.trains
    assert whole["whole"]["seconds"] > whole["total"]["selecting"]["seconds"] > 0


def test_watch_tells_what_came_of_it(run: Run) -> None:
    live = told("watch", run.store.root, "--once")
    assert (live["state"], live["run_left"], live["count"]) == ("finished", 0.0, run.config.stages)
    assert [stage["selected"] for stage in live["stages"]] == [each.selected for each in selections(run)]
    assert all(stage["band"][0] < stage["theta"] < stage["band"][1] for stage in live["stages"])
    assert "all stages are done" in said("watch", run.store.root)  # it ends with the run


def test_a_large_run_has_written_its_page_after_each_stage(simulated_large: Run) -> None:
    events = [event for event in load_events(simulated_large.store) if event.step == "report"]
    assert [event.stage for event in events] == [*range(simulated_large.config.stages)]
    print("seconds that the run has spent on its page:", [event.seconds for event in events])
    assert simulated_large.store.exists(REPORT)


def test_report_counts_the_pool_and_the_selection_in_time(run: Run, tmp_path: Path) -> None:
    started = time.process_time()  # the machine may be shared; the plots are drawn by this process
    file = Path(told("report", run.store.root, "--into", str(tmp_path / "told.html"))["report"])
    took = time.process_time() - started
    print(f"written in {took:.1f} s of this process")
    assert took < WRITE_SECONDS
    assert file.stat().st_size < 6_000_000
    page = Page(file.read_text(encoding="utf-8"))
    assert page.unclosed == []
    pool = run.store.read_json("pool.json")["items"]
    for stage, selection in enumerate(selections(run)):
        (_, *rows) = page.tables[f"The pool by difficulty at stage {stage}"]
        items, zone, replay = (sum(int(row[column]) for row in rows) for column in (2, 3, 4))
        assert 0.99 * pool <= items <= pool  # few are beyond the axis
        assert 0.99 * selection.zone <= zone <= selection.zone
        assert 0.8 * selection.replay - 2 <= replay <= selection.replay  # the easiest are
    assert said("report", run.store.root, "--into", str(tmp_path / "said.html")).strip().endswith("said.html")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_report_opens_in_time_draws_searches_and_is_silent(run: Run, tmp_path: Path) -> None:
    file = Path(told("report", run.store.root, "--into", str(tmp_path / "page.html"))["report"])
    asyncio.run(look(file, Page(file.read_text(encoding="utf-8")), tmp_path / "profile"))


async def look(file: Path, page: Page, profile: Path) -> None:
    """What a reader does first. The least of three times counts: the machine may be shared."""
    loaded = "performance.timing.loadEventEnd - performance.timing.navigationStart"
    async with tab(profile) as seen:
        await seen.looks(1280, 900, "light")
        times = []
        for _ in range(3):
            await seen.open(file)
            times.append(await seen.value(loaded) / 1000)
        print("opened in", times, "s")
        assert min(times) < OPEN_SECONDS
        drawn = "[...document.querySelectorAll('.wide svg')].map(s => s.getBoundingClientRect().height)"
        assert min(await seen.value(drawn)) > 50
        await seen.value("document.getElementById('words').focus()")
        await seen.send("Input.insertText", text=page.items[0].known["item"])
        shown = await seen.value("[...document.querySelectorAll('.item')].filter(i => i.offsetParent).length")
        assert 0 < shown < len(page.items)
        assert seen.said == []
        assert set(seen.asked) == {file.as_uri()}
