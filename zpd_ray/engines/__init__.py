"""Engines: what computes NLLs and responses. One small file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zpd_ray.engines.base import Completions, Engine, EngineError, ModelRef, Pulse, Scores
from zpd_ray.registry import Registry

if TYPE_CHECKING:
    from zpd_ray.config import Config

__all__ = ["ENGINES", "Completions", "Engine", "EngineError", "ModelRef", "Pulse", "Scores", "load"]

ENGINES = Registry(
    "engine",
    "a class with the methods of zpd_ray.engines.Engine",
    {
        "transformers": "zpd_ray.engines.transformers:TransformersEngine",
        "vllm": "zpd_ray.engines.vllm.engine:VllmEngine",
        "simulated": "zpd_ray.engines.simulated:SimulatedEngine",
    },
    ("reads_text", "has_weights", "check", "follow", "score", "generate", "usage", "pulse", "settings"),
)


def load(config: Config, model: ModelRef, longest: int | None = None) -> Engine:
    """The engine that the config names, with the model of a stage loaded: see ``Engine``."""
    engine: Engine = ENGINES.load(config.engine.name)(config, model, longest)
    return engine
