"""What it takes to keep many scorers busy: processes by title, seconds, and CPU of the driver.

    python benchmarks/dispatch.py --scorers 200 --parts 1000 --seconds 4

Measures a pool with the simulated engine on a Ray of its own; each scorer takes 0.01 CPU and is a process of
some 80 MB. A grader of this file sleeps, so that a part takes --seconds, as with an engine. Prints the number
of Ray's processes at work by title, when they were most, and the memory that they do not share. Then, from
the moment at which all scorers are up: seconds until the last part is written, seconds that it would take if
no scorer ever waited, and CPU seconds of the driver and of all processes but the scorers.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import psutil

HERE = Path(__file__).resolve().parent
ITEMS = 4  # of a part
LOOK_SECONDS = 1.0
IDLE, SCORER = "ray::IDLE", "ray::Scorer"  # titles: waits to be used by anything, measures


def sleep(completion: str, answer: str) -> bool:
    """A grader that takes its time; named in the config."""
    time.sleep(float(os.environ["ZPD_SECONDS"]) / ITEMS)
    return completion == answer


class Looker(Thread):
    """Counts Ray's processes until told to stop."""

    def __init__(self, scorers: int) -> None:
        super().__init__(daemon=True)
        self.done, self.scorers = Event(), scorers
        self.most: Counter[str] = Counter()
        self.began = self.driver = 0.0  # when all scorers were up: the time, and CPU seconds of the driver
        self.cpu = dict[int, float]()  # CPU seconds of each process but the scorers
        self.memory = 0  # bytes that the processes of the peak have for themselves

    def run(self) -> None:
        """Every second."""
        while not self.done.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """At all processes once."""
        now, memory = Counter[str](), 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess, IndexError):  # it ended since it was listed
                title = process.cmdline()[0]
                title = title.partition(".")[0]
                if not title.startswith("ray::") or title == IDLE:
                    continue
                now[title] += 1
                times, used = process.cpu_times(), process.memory_info()
                memory += used.rss - used.shared
                if title != SCORER:
                    self.cpu[process.pid] = times.user + times.system
        if now.total() > self.most.total():
            self.most, self.memory = now, memory
        if not self.began and now[SCORER] >= self.scorers:
            self.began, self.driver = time.time(), time.process_time()


def main() -> None:
    """One pool, one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scorers", type=int, default=200)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    os.environ |= {"PYTHONPATH": f"{HERE.parent}:{HERE}", "ZPD_SECONDS": str(options.seconds)}
    with tempfile.TemporaryDirectory() as directory:
        measure_pool(Path(directory), options.scorers, options.parts, options.seconds)


def measure_pool(directory: Path, scorers: int, parts: int, seconds: float) -> None:
    """Print what it took."""
    from zpd_ray.config_file import validate
    from zpd_ray.pipeline.commands import perform

    rows = [{"prompt": f"question {i}", "response": str(i), "answer": str(i)} for i in range(ITEMS * parts)]
    (directory / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = validate(
        {
            "output": str(directory / "out"),
            "pool": {"path": str(directory / "pool.jsonl"), "items_per_part": ITEMS},
            "model": {"path": "none"},
            "engine": {"name": "simulated"},
            "measure": {"grader": "dispatch:sleep", "rollouts": 1},
            "select": {"budget": {"items": 1}},
            "train": {"method": "none"},
            "cluster": {"actors": scorers, "cpus_per_actor": 0.01},
        }
    )
    looker = Looker(scorers)
    looker.start()
    perform("measure", config)
    driver = time.process_time() - looker.driver
    looker.done.set()
    written = [
        os.stat(file).st_mtime for file in Path(config.output).glob("stages/00/measurements/answers/*")
    ]
    for title, count in looker.most.most_common():
        print(f"{count:6d}  {title}")
    print(f"{looker.most.total():6d}  in all, {looker.memory / 2**30:.1f} GiB that they do not share")
    least = len(written) * seconds / scorers / 2  # a scorer has two parts in hand
    print(
        f"{len(written)} parts in {max(written) - looker.began:.1f} s ({least:.1f} s if no scorer waited); "
        f"CPU: driver {driver:.1f} s, others {sum(looker.cpu.values()):.1f} s"
    )


if __name__ == "__main__":
    main()
