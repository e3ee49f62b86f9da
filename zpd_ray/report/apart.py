"""The page of a run, written by a process of its own.

What draws the plots is native code of others: its faults, its memory and its time must not become the run's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from zpd_ray.errors import ZpdError
from zpd_ray.rundir.store import Store
from zpd_ray.user_code import environment

SECONDS = 600.0  # after which the process is ended


def write_apart(store: Store, seconds: float = SECONDS) -> str:
    """As ``zpd-ray report`` does, into the run directory; where the page is.

    Raises ZpdError whatever goes wrong.
    """
    command = [sys.executable, "-P", "-m", "zpd_ray", "report", store.uri, "--json"]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "errors": "replace"}
    try:
        done = subprocess.run(command, env=environment(), timeout=seconds, **pipes)
    except subprocess.TimeoutExpired:
        raise ZpdError(f"the report took longer than {seconds:g} s to write, and was given up") from None
    except OSError as problem:
        raise ZpdError(f"no process could be started to write the report: {problem}") from None
    told = _told(done.stdout)
    if done.returncode == 0 and "report" in told:
        return str(told["report"])
    last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
    raise ZpdError(f"the report could not be written: {told.get('error', last)}")


def _told(stdout: str) -> dict[str, Any]:
    """The line of JSON that a command ends with; empty where it came to none."""
    try:
        found = json.loads((stdout.splitlines() or [""])[-1])
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
