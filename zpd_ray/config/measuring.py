"""Sections ``engine``, ``measure`` and ``ability``: how items are scored, and what is made of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from zpd_ray.config.section import Count, Positive, Section, Share


class SimulatedConfig(Section):
    """A model with known ability, for tests and scale runs."""

    theta: float = Field(0.0, description="ability at stage 0, logits")
    gain: float = Field(0.3, description="what the ability gains with each stage, logits")
    drift: dict[str, float] = Field(
        default_factory=dict,
        description="group = logits by which its items are harder from stage 1 on",
    )
    groups: dict[str, float] = Field(
        default_factory=dict,
        description="group = logits by which its items are answered better than their NLLs say",
    )


class VllmConfig(Section):
    """Settings of vLLM; what is left out is derived from the model, the lengths and the device."""

    batched_tokens: Count | None = Field(None, description="tokens of a step (max_num_batched_tokens)")
    sequences: Count = Field(256, description="requests in a step (max_num_seqs)")
    gpu_memory_share: float | None = Field(None, gt=0, le=1, description="gpu_memory_utilization")
    kv_cache_gib: Positive | None = Field(None, description="KV cache of a CPU engine, GiB")


class EngineConfig(Section):
    """What computes NLLs and responses."""

    name: str = Field("transformers", description="transformers, vllm, simulated, or package.module:Class")
    batch_tokens: Count = Field(8192, description="tokens (padding included) in one forward pass")
    vllm: VllmConfig = VllmConfig()
    simulated: SimulatedConfig = SimulatedConfig()


class MeasureConfig(Section):
    """How an item is measured: the grader turns responses into right or wrong."""

    grader: str = Field(
        "greedy_match",
        description="greedy_match, likelihood (both without generation), numeric, exact, choice, or "
        "package.module:function",
    )
    rollouts: Count = Field(
        1, description="k responses per item; one is greedy, several are sampled; of likelihood all are"
    )
    temperature: Positive = Field(1.0, description="of sampled rollouts")
    max_new_tokens: Count = Field(256, description="tokens of a response at most")
    patience: Positive = Field(
        600.0, description="seconds without a sign of life after which an engine or a grader is ended"
    )
    max_failed_share: Share = Field(0.05, description="stop when more than this share of items fails")
    max_unparsed_share: Share = Field(
        0.9, description="stop when the grader finds no answer in more than this share of the responses"
    )
    scope: Literal["pool", "probe", "zone"] = Field(
        "pool",
        description="what stages after the first measure: everything; probes, items that are never trained "
        "on, and of parts that have drifted as many as keep it to 5 % of the pool; or probes and the items "
        "whose predicted score is best (docs/method.md)",
    )
    probes: Count = Field(1000, description="the most there are; never more than 4 % of the pool")
    theta_se: Positive = Field(0.1, description="ask probes until theta is known so well, logits")
    candidates: float = Field(
        2.5,
        ge=1,
        description="in scope zone: items measured per item of the budget (per token, if of tokens)",
    )

    @model_validator(mode="after")
    def _likelihood_has_no_temperature(self) -> MeasureConfig:
        if self.grader == "likelihood" and self.temperature != 1.0:
            raise ValueError(
                f"grader = 'likelihood' tells how likely a response is at temperature 1, got temperature = "
                f"{self.temperature:g}; leave it out, or take grader = 'exact', which samples"
            )
        return self


class AbilityConfig(Section):
    """Calibration of difficulty and estimation of ability (docs/decisions.md, "The method")."""

    calibration: Literal["explanatory", "feedback"] = Field(
        "explanatory", description="how difficulty follows from NLL and responses (docs/method.md)"
    )
    feedback_strength: float = Field(1.0, ge=0, description="lambda of the feedback calibration, logits")
    sigma: Positive = Field(0.5, description="prior median of the residual sd of b, logits")
    theta_sd: Positive = Field(
        5.0, description="prior sd of theta, logits: finite when all is right or wrong"
    )
    allow_extreme: bool = Field(
        False, description="go on where every response is right, or every one wrong, which leaves no zone"
    )
    groups: bool = Field(
        False,
        description="an ability for each group of items (skill, domain; at most 100), shrunk to the common "
        "one: an item's p and score are by that of its group",
    )

    @model_validator(mode="after")
    def _groups_are_explanatory(self) -> AbilityConfig:
        if self.groups and self.calibration == "feedback":
            raise ValueError(
                "groups = true needs calibration = 'explanatory', got 'feedback', which has no spread of "
                "items that differences between groups could be told from; leave one of them out"
            )
        return self
