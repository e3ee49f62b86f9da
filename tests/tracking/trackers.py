"""Trackers of one's own, as a user names them: ``tests.tracking.trackers:Lines``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from zpd_ray.tracking import Point

GO_ON = Event()  # what Stuck waits for


class Lines:
    """A line of JSON for each step, in the file that is its target; down while FILE.down is there."""

    def __init__(self, target: str, run: str, config: Mapping[str, Any]) -> None:
        if Path(f"{target}.down").exists():
            raise ConnectionError(f"nobody answers at {target}\nas often before")
        self.file, self.run = Path(target), run
        self.tell({"opened": run, "method": config["select.method"]})

    def tell(self, value: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            print(json.dumps(value), file=file)

    def log(self, name: str, points: Sequence[Point]) -> None:
        self.tell({"name": name, "values": {key: v for point in points for key, v in point.values.items()}})

    def close(self) -> None:
        self.tell({"closed": self.run})


class Stuck(Lines):
    """One whose server takes everything and answers nothing."""

    def log(self, name: str, points: Sequence[Point]) -> None:
        GO_ON.wait()


class Broken(Lines):
    """One that has a fault of its own, and no words for it."""

    def log(self, name: str, points: Sequence[Point]) -> None:
        raise KeyError


class Mute:
    """It cannot be told anything."""
