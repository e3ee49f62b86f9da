"""Weights & Biases: a run of a project. Its key, its server and its mode come from its own environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from zpd_ray.errors import ZpdError
from zpd_ray.tracking.base import Point


class WandB:
    """A run goes on under its id, also after a resume (WANDB_API_KEY, WANDB_MODE, WANDB_DIR, ...).

    Its library writes and sends some time after it was told, and has nothing that waits for it but the end.
    """

    needs: ClassVar[str] = "wandb"
    keeps_back: ClassVar[bool] = True

    def __init__(self, target: str, run: str, config: Mapping[str, Any]) -> None:
        """target: PROJECT or ENTITY/PROJECT."""
        import wandb

        entity, _, project = target.rpartition("/")
        # Figures alone: what the process prints, its code and its repository are not sent.
        settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            # On a terminal it would ask for one, and wait.
            raise ZpdError("there is no API key; set WANDB_API_KEY, or WANDB_MODE=offline")
        self._run = wandb.init(
            project=project,
            entity=entity or None,
            id=run,
            name=run,
            resume="allow",
            reinit="create_new",
            config=dict(config),
            settings=settings,
        )
        for axis in ("stage", "optimizer_step"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="stage")
        self._run.define_metric("train/*", step_metric="optimizer_step")

    def log(self, name: str, points: Sequence[Point]) -> None:
        """A row for each point."""
        for point in points:
            self._run.log({point.axis: point.step, **point.values})

    def close(self) -> None:
        """Wait until all is sent, or on disk."""
        self._run.finish()
