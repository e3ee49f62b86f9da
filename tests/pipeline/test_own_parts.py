"""The parts that CONTRIBUTING.md shows, in one run: method, measure, grader, engine and export format."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_cli import invoke
from tests.pipeline.conftest import selected_of, table_of
from tests.pipeline.processes import EXAMPLES, run_here
from zpd_ray.rundir.store import Store

PARTS = EXAMPLES / "own_parts"
MEASURED = "stages/00/measurements"


@pytest.fixture(scope="module")
def run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The example as it stands, with its pool made by its own script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PARTS)  # on the PYTHONPATH of the tests' Ray it is, too
        runpy.run_path(str(PARTS / "pool.py"), run_name="__main__")
        output = tmp_path_factory.mktemp("own") / "run"
        run_here("run", PARTS / "run.toml", f"output={output}", "report=false")
    return Store(str(output))


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PARTS)


def test_engine_and_grader_measure(run: Store, importable: None) -> None:
    """Row by row what the two files compute of an item; shares are counted as credit."""
    compressor, overlap = map(importlib.import_module, ("compressor", "overlap"))
    items, answers = table_of(run, "pool").to_pylist(), table_of(run, f"{MEASURED}/answers").to_pylist()
    assert len(items) == len(answers) == 400
    for item, answer in zip(items, answers, strict=True):
        prompt, words = item["messages"][0]["content"], len(item["response"].split())
        assert answer["nll"] == pytest.approx(compressor.nats(prompt, item["response"]) / words, rel=1e-6)
        best = min(item["choices"], key=lambda option: compressor.nats(prompt, option))
        assert answer["credit"] == pytest.approx(overlap.words(best, item["answer"]), rel=1e-6)
    credits = [answer["credit"] for answer in answers]
    assert any(0 < credit < 1 for credit in credits)
    assert 0.2 < np.mean(credits) < 0.9
    assert "zlib" in run.read_json("manifest.json")["engine"]


def test_method_and_measure_select(run: Store) -> None:
    """The best by p(1-p) times the share of different words, and not what zpd takes."""
    items, measured = table_of(run, "pool"), table_of(run, f"{MEASURED}/distinct.Distinct")
    texts = items["response"].to_pylist()
    ratios = [len(set(text.split())) / len(text.split()) for text in texts]
    np.testing.assert_allclose(measured["distinct"].to_numpy(), ratios, rtol=1e-6)
    ratio = dict(zip(items["item_id"].to_pylist(), ratios, strict=True))
    own = table_of(run, "stages/00/selected").sort_by("rank")
    zpd = table_of(run, "stages/00/beside/zpd/selected")
    assert own.num_rows == zpd.num_rows == 40
    score = own["score"].to_numpy()
    assert np.all(np.diff(score) <= 0)
    # p(1-p) is expected over the posterior of b, so it is near that of the mean of b, and under 1/4.
    assert np.all(score <= 0.25 * np.array([ratio[item] for item in own["item_id"].to_pylist()]) + 1e-12)
    chosen, others = (np.mean([ratio[i] for i in t["item_id"].to_pylist()]) for t in (own, zpd))
    assert chosen > others


def test_format_writes(run: Store, importable: None, tmp_path: Path) -> None:
    code, text = invoke("export", run.root, "--to", "lines:write", "--into", str(tmp_path / "out"))
    assert code == 0, text
    lines = [line.split("\t") for line in (tmp_path / "out/train.tsv").read_text().splitlines()]
    own = selected_of(run).to_pylist()
    assert lines == [[row["prompt"][0]["content"], row["completion"][0]["content"]] for row in own]
