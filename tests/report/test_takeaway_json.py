"""show, why and export answer programs: one line of JSON on stdout, and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from zpd_ray.cli.app import app
from zpd_ray.rundir import Run


def asked(*arguments: str) -> tuple[int, Any, str]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    return done.exit_code, json.loads(done.stdout), done.stderr


def test_show_lists_the_rows_of_the_selection(taken: Run) -> None:
    code, listing, _ = asked("show", taken.store.root, "--stage", "0", "--limit", "3")
    assert code == 0
    assert [row["rank"] for row in listing["rows"]] == [0, 1, 2]
    assert listing["stage"] == 0
    assert listing["rows"][0]["prompt"][-1]["content"]


def test_why_explains_what_is_there_and_tells_what_is_not(taken: Run) -> None:
    shown = asked("show", taken.store.root, "--limit", "1")[1]["rows"][0]["item_id"]
    code, told, stderr = asked("why", taken.store.root, shown, "nobody")
    assert code == 2
    assert told["items"][0]["item"]["item_id"] == shown
    assert [at["stage"] for at in told["items"][0]["standings"] if at["method"] == "zpd"] == [0, 1]
    assert "nobody" in told["missing"][0]
    assert "nobody" in stderr
    code, told, _ = asked("why", taken.store.root, "nobody")
    assert code == 2
    assert "nobody" in told["error"]


def test_export_says_what_it_wrote(taken: Run, tmp_path: Path) -> None:
    into = str(tmp_path / "trl")
    code, told, _ = asked("export", taken.store.root, "--to", "trl", "--into", into, "--stage", "0")
    assert code == 0
    assert (told["to"], told["into"], told["stages"]) == ("trl", into, [0])
    assert told["items"] > 0
