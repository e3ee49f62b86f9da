"""The page of a simulated run with groups, rollouts, an evaluation set, and texts that mean harm."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from tests.pipeline.conftest import perform_in, questions, table_of, write_jsonl
from tests.report.page.browser import CHROMIUM, tab
from tests.report.page.html_tables import Page
from tests.taken import reading
from tests.test_imports import modules_after
from zpd_ray.cli.app import app
from zpd_ray.config_file import to_toml
from zpd_ray.errors import ZpdError
from zpd_ray.report.page import page, tally
from zpd_ray.report.suspects import suspects
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.records import load_events, load_fit, load_metrics, load_selection

STAGES = 2
HARM = [
    "<script>document.title = 'taken'</script><img src=https://example.com/x onerror=alert(1)>",
    "‮مرحبا كيف حالك؟ 12 + 7 = ؟",
    "long " * 2000,
    "😀👩‍👩‍👧‍👦 {{ 7 * 7 }} ${x} </details></main></body>\x00\u2028",
]
GROUPS = ["algebra", "<b onclick='x'>geometry</b>", 'عربي & "quotes"']


class Made(NamedTuple):
    run: Run
    file: Path
    text: str
    seen: Page


@pytest.fixture(scope="module")
def made(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The page, written by the run after each stage."""
    directory = tmp_path_factory.mktemp("report")
    rows = [row for row in questions(1200) if isinstance(row, dict)]
    for i, row in enumerate(rows):
        row["group"] = GROUPS[i % 3]
        if i % 2:
            row["prompt"] = f"{HARM[i // 2 % 4]} {i}"
    write_jsonl(directory / "pool.jsonl", list(rows))
    held_out = write_jsonl(directory / "eval.jsonl", questions(200, 10**6))
    config, store = perform_in(
        directory, report=True, stages=STAGES, evaluation={"path": str(held_out)}, select={"replay": 0.1}
    )
    file = Path(store.path("report.html"))
    text = file.read_text(encoding="utf-8")
    return Made(Run(config, store), file, text, Page(text))


def test_it_is_one_file_that_parses_and_asks_for_nothing(made: Made) -> None:
    assert made.file.stat().st_size < 6_000_000
    assert made.seen.unclosed == []
    assert all(address.startswith("#") for address in made.seen.addresses)
    assert not re.search(r"url\((?!#)|@import", made.text)


def test_what_items_hold_is_text_and_no_markup(made: Made) -> None:
    assert made.seen.handlers == []
    assert made.seen.tags.count("script") == 1
    assert not {"img", "iframe", "b", "object", "embed"} & set(made.seen.tags)
    texts = [text for item in made.seen.items for text in item.texts]
    for harm in (HARM[0], HARM[1]):
        assert any(text.startswith(harm) for text in texts)
    assert any("{{ 7 * 7 }} ${x} </details></main></body>" in text for text in texts)
    assert any(re.search(r"\[\.\.\. 10,0\d\d characters\]$", text) for text in texts)


def test_ability_and_accuracy_are_those_of_the_run(made: Made) -> None:
    last = load_fit(made.run.store, STAGES - 1).ability
    (_, *rows) = made.seen.tables["Ability by model, logits, with its 95 % band"]
    assert [float(row[1]) for row in rows] == [round(at.theta, 2) for at in last.stages]
    for row, at in zip(rows, last.stages, strict=True):
        assert float(row[3]) == pytest.approx(at.theta - 1.96 * at.se, abs=0.006)
        assert float(row[4]) == pytest.approx(at.theta + 1.96 * at.se, abs=0.006)
        assert float(row[5]) == pytest.approx(at.right, abs=6e-4)
    (_, *rows) = made.seen.tables["Accuracy on the evaluation set, with its 95 % interval, and NLL"]
    for row, stage in zip(rows, [None, *range(STAGES)], strict=True):
        of = load_metrics(made.run.store, stage)
        assert (row[1], row[4], row[5]) == (f"{of.accuracy:.3f}", str(of.items), f"{of.nll:.3f}")


def test_suspects_are_listed_with_their_evidence(made: Made) -> None:
    (_, *rows) = made.seen.tables["Suspect references"]
    found = suspects(made.run, len(rows)).rows
    assert len(rows) == 20
    assert [row[:3] for row in rows] == [[e.item["item_id"], f"{e.score:.1f}", e.why] for e in found]


def test_every_group_has_its_ability_near_the_common_one(made: Made) -> None:
    (_, *rows) = made.seen.tables["Ability and accuracy by group"]
    assert {row[0] for row in rows} == set(GROUPS)
    assert len(rows) == STAGES * len(GROUPS)
    theta = dict(zip(("base", "1"), load_fit(made.run.store, STAGES - 1).ability.stages, strict=True))
    for row in rows:  # the simulated model knows no groups
        assert abs(float(row[2]) - theta[row[1]].theta) < 2 * (float(row[4]) - float(row[3]))


def test_the_pool_and_the_selection_are_counted_whole(made: Made) -> None:
    for stage in range(STAGES):
        (_, *rows) = made.seen.tables[f"The pool by difficulty at stage {stage}"]
        chosen = load_selection(made.run.store, f"stages/{stage:02d}")
        sums = [sum(int(row[column]) for row in rows) for column in (2, 3, 4)]
        assert 1200 - sums[0] <= 4  # beyond the axis
        assert sums[1] == chosen.zone
        assert chosen.replay - 2 <= sums[2] <= chosen.replay


def test_calibration_counts_the_responses_of_untrained_items(made: Made) -> None:
    for stage in range(STAGES):
        (_, *rows) = made.seen.tables[f"Calibration of p at stage {stage}, with 95 % intervals"]
        measured = table_of(made.run.store, f"stages/{stage:02d}/measurements/answers")
        earlier = [table_of(made.run.store, f"stages/{t:02d}/selected")["item_id"] for t in range(stage)]
        for ids in earlier:
            measured = measured.filter(
                pc.invert(pc.is_in(measured["item_id"], value_set=ids.combine_chunks()))
            )
        assert sum(int(row[4]) for row in rows) == pc.sum(measured["successes"]).as_py()
        assert sum(int(row[5]) for row in rows) == pc.sum(measured["rollouts"]).as_py()
        assert sum(int(row[6]) for row in rows) == measured.num_rows
        inside = [float(row[2]) - 0.02 < float(row[0]) < float(row[3]) + 0.02 for row in rows]
        assert np.mean(inside) >= 0.7  # the simulated model is what the fit takes it for


def test_items_carry_the_numbers_of_the_selection(made: Made) -> None:
    kinds = {item.kind for item in made.seen.items}
    assert {"selected", "just missed"} <= kinds
    for stage in range(STAGES):
        selected = {
            r["item_id"]: r for r in table_of(made.run.store, f"stages/{stage:02d}/selected").to_pylist()
        }
        own = [item for item in made.seen.items if item.stage == stage]
        for item in own:
            row = selected.get(item.known["item"])
            assert (row is not None) == item.kind.startswith("selected")
            if row is not None:
                assert item.known["p"] == f"{row['p']:.3f}"
                assert item.known["b"] == f"{row['b']:z.2f} +- {row['b_sd']:.2f}"
                assert item.known["score"] == f"{row['score']:.4g}"
        worst = min(row["score"] for row in selected.values() if row["reason"] == "zone")
        missed = [float(item.known["score"]) for item in own if item.kind == "just missed"]
        assert max(missed) <= worst + 1e-4
        assert missed == sorted(missed, reverse=True)


def test_the_command_writes_the_page_that_the_run_has_written(made: Made, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", made.run.store.root, "--into", str(tmp_path / "own.html")])
    assert done.exit_code == 0, done.output
    assert Path(done.output.strip()).read_text(encoding="utf-8") == made.text
    told = [event.stage for event in load_events(made.run.store) if event.step == "report"]
    assert told == [*range(STAGES)]


def test_of_a_larger_pool_a_sample_is_looked_at(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,200 items in 3 parts: those of one part, at every stage."""
    monkeypatch.setattr(tally, "LOOKED_AT", 400)
    with reading(made.run, monkeypatch) as names:
        seen = Page(text := page(made.run))
    read = {name.rpartition("/")[2] for name in names if "part-" in name}
    assert read == {made.run.store.names("pool")[0]}
    n = made.run.store.count_rows(f"pool/{read.pop()}")
    ability = "Ability by model, logits, with its 95 % band"
    assert seen.tables[ability] == made.seen.tables[ability]
    for stage in range(STAGES):
        (_, *rows) = seen.tables[f"The pool by difficulty at stage {stage}"]
        assert n - 4 <= sum(int(row[2]) for row in rows) <= n
    assert text.count("items of a sample of the pool&#39;s 1,200") == STAGES
    assert {item.kind for item in seen.items} == {item.kind for item in made.seen.items}


def test_warnings_say_what_the_records_say(made: Made) -> None:
    told = [
        warning
        for t in range(STAGES)
        for warning in load_selection(made.run.store, f"stages/{t:02d}").warnings
    ]
    assert all(any(sentence in warning for warning in made.seen.warnings) for sentence in told)
    more = replace(made.run, config=made.run.config.model_copy(update={"stages": STAGES + 1}))
    assert any("not finished" in warning for warning in Page(page(more)).warnings)
    assert not any("not finished" in warning for warning in made.seen.warnings)


def test_a_fall_and_an_empty_zone_are_told(made: Made, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(made.run.store.path(), tmp_path / "run")
    store = Store(str(tmp_path / "run"))
    for name, changed in (
        ("stages/01/metrics.json", {"accuracy": 0.01, "unparsed": 190}),
        ("stages/01/selection.json", {"outside_zone": load_selection(store, "stages/01").zone}),
        ("stages/01/fit.json", {"flags": ["not_converged"]}),
    ):
        store.write_json(name, store.read_json(name) | changed)
    told = " ".join(Page(page(Run(made.run.config, store))).warnings)
    for words in ("accuracy fell", "nothing that was selected is in the zone", "did not reach its maximum"):
        assert f"{words}" in told
    assert "no answer in 190 of 200 responses of the evaluation set" in told


def test_nothing_to_report_is_a_sentence(made: Made, tmp_path: Path) -> None:
    empty = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert empty.exit_code == 2
    assert "holds no run" in empty.stderr
    store = Store(str(tmp_path / "begun"))
    for name in ("manifest.json", "pool.json"):
        store.write_bytes(name, made.run.store.read_bytes(name))
    store.write_bytes("config.toml", to_toml(made.run.config).encode())
    with pytest.raises(ZpdError, match="no finished fit yet"):
        page(Run(made.run.config, store))
    nowhere = CliRunner().invoke(app, ["report", made.run.store.root, "--into", str(tmp_path / "no/x.html")])
    assert nowhere.exit_code == 2
    assert "give another place" in nowhere.stderr


def test_a_grader_and_a_method_of_the_users_are_not_imported(made: Made) -> None:
    config = made.run.config
    own = config.model_copy(
        update={
            "measure": config.measure.model_copy(update={"grader": "nowhere_to_be_found:grade"}),
            "select": config.select.model_copy(update={"method": "nowhere_to_be_found:Own"}),
        }
    )
    kinds = {item.kind for item in Page(page(Run(own, made.run.store))).items}
    assert "selected" in kinds
    assert "just missed" not in kinds  # only the method itself could tell


def test_no_ray_and_no_torch() -> None:
    assert not {"ray", "torch", "vllm"} & modules_after("import zpd_ray.report.page, zpd_ray.rundir.begin")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser_it_draws_searches_and_is_silent(made: Made, tmp_path: Path) -> None:
    asyncio.run(_look(made, tmp_path))


async def _look(made: Made, tmp_path: Path) -> None:
    async with tab(tmp_path) as seen:
        await seen.looks(1280, 900, "light")
        await seen.open(made.file)
        light = await seen.value("getComputedStyle(document.body).backgroundColor")
        assert await seen.value("document.title") != "taken"
        drawn = "[...document.querySelectorAll('.wide svg')].map(s => s.getBoundingClientRect().height)"
        assert min(await seen.value(drawn)) > 50
        shown = "[...document.querySelectorAll('.item')].filter(i => i.offsetParent).length"
        assert await seen.value(shown) == len(made.seen.items)
        await seen.value("document.getElementById('words').focus()")
        await seen.send("Input.insertText", text=["MARHABA", "مرحبا"][1])
        wanted = sum("مرحبا" in " ".join(item.texts) for item in made.seen.items)
        assert 0 < await seen.value(shown) == wanted
        assert (await seen.value("document.getElementById('count').textContent")).startswith(f"{wanted} of ")
        first = "[...document.querySelectorAll('.item')].find(i => i.offsetParent)"
        await seen.value(f"{first}.querySelector('summary').focus()")
        await seen.press("Enter", 13)
        assert await seen.value(f"{first}.open")
        await seen.looks(390, 800, "dark")
        assert await seen.value("getComputedStyle(document.body).backgroundColor") != light
        assert await seen.value("document.documentElement.scrollWidth") <= 390
        narrow = "[...document.querySelectorAll('.narrow svg')].map(s => s.getBoundingClientRect().height)"
        assert min(await seen.value(narrow)) > 50
        assert seen.said == []
        assert seen.asked == [made.file.as_uri()]
