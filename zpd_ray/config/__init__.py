"""The run's configuration: pydantic models, TOML in, resolved TOML out.

Every section refuses unknown keys and names the nearest known one. Relative paths in a file are taken from
the directory of that file, so that a config can be run from anywhere.

A file for each kind of section; ``whole.py`` puts them together.
"""

# ruff: noqa: F401 (what other rooms take from here; ``__all__`` is what a user may)
from zpd_ray.config.measuring import AbilityConfig, EngineConfig, MeasureConfig
from zpd_ray.config.section import NonEmpty, Section
from zpd_ray.config.selecting import Budget, JudgeConfig, SelectConfig
from zpd_ray.config.sources import ModelConfig, SourceConfig
from zpd_ray.config.tracking import TrackConfig
from zpd_ray.config.training import ClusterConfig, LoraConfig, TrainConfig
from zpd_ray.config.whole import Config

__all__ = ["Config", "SelectConfig"]
