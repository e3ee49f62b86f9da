"""Section ``track``: trackers that are told how a run does."""

from __future__ import annotations

from pydantic import Field, model_validator

from zpd_ray.config.section import NonEmpty, Section


class TrackConfig(Section):
    """Trackers that are told how the run does, each by the extra of its name (docs/howto/track.md).

    Keys and passwords stand in the environment alone.
    """

    tensorboard: NonEmpty | None = Field(None, description="directory, in which each run has one of its own")
    mlflow: NonEmpty | None = Field(
        None, description="tracking URI, as http://127.0.0.1:5000 or sqlite:////home/me/mlflow.db"
    )
    wandb: NonEmpty | None = Field(None, description="project of Weights & Biases, or entity/project")
    own: dict[str, str] = Field(
        default_factory=dict, description="trackers of your own: package.module:Class = what it is given"
    )

    @model_validator(mode="after")
    def _directory_is_local(self) -> TrackConfig:
        if self.tensorboard is not None and "://" in self.tensorboard:
            raise ValueError(
                f"tensorboard = {self.tensorboard!r} is a URI; give a directory of the machine where the "
                "command runs"
            )
        return self

    @property
    def targets(self) -> dict[str, str]:
        """What each tracker is given, by its name or import path."""
        return {key: value for key, value in self if isinstance(value, str)} | self.own
