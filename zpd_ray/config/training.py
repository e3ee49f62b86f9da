"""Sections ``train`` and ``cluster``: what trains, and where everything runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from zpd_ray.config.section import Count, Positive, Section, Share


class LoraConfig(Section):
    """Adapter of the trained model."""

    rank: Count = Field(16, description="rank of the two matrices that are learned in each module")
    alpha: Count = Field(32, description="their product counts alpha / rank times")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a module's inputs that is dropped")
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
        description="names of the modules that are adapted",
    )


class TrainConfig(Section):
    """The Ray Train job."""

    method: Literal["lora", "full", "none"] = Field(
        "lora", description="an adapter, all weights, or nothing: stages then only measure and select"
    )
    target: Literal["reference", "own"] = Field(
        "reference",
        description="what is trained on: the references; or (own) a right response of the model's own, where "
        "it has given one, else the reference (with pool.reference = 'none' or 'prompt' such an item is "
        "not selected)",
    )
    turns: Literal["last", "all"] = Field(
        "last",
        description="the assistant's turns that are trained on: the last one, those before it being part of "
        "the prompt; or every one, by the chat template; NLLs are over their tokens",
    )
    epochs: Count = Field(1, description="times that a stage goes through its selection")
    batch_size: Count = Field(32, description="items in one optimiser step, over all workers")
    micro_batch_size: Count = Field(8, description="items in one forward pass of a worker")
    packing: bool = Field(
        False,
        description="several items in one row, each kept apart from the others, so that short ones are not "
        "padded to the longest; the same gradients (of zpd-ray's own loop)",
    )
    learning_rate: Positive = Field(1e-4, description="the largest of the schedule")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the learning rate falls after warming up"
    )
    schedule_over: Literal["run", "stage"] = Field(
        "run", description="whether it falls once over all stages, or anew in each"
    )
    warmup: Share = Field(0.03, description="share of the schedule that warms up")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    max_grad_norm: Positive = Field(1.0, description="a longer gradient is scaled down to this norm")
    bf16: bool = Field(
        True,
        description="autocast to bfloat16 where the GPU supports it; on a CPU where model.dtype is bfloat16",
    )
    gradient_checkpointing: bool | None = Field(
        None,
        description="compute activations twice rather than keep them: less memory, more time; left out: "
        "where the model has 100 million parameters or more",
    )
    checkpoint_steps: Count = Field(100, description="optimiser steps between checkpoints inside a stage")
    workers: Count = Field(1, description="processes that train together, each on its share of a batch")
    sharding: Literal["none", "fsdp"] = Field(
        "none",
        description="each worker holds the whole model; or (fsdp, torch's fully_shard) its share of every "
        "block's weights, gradients and moments, for models that do not fit one GPU",
    )
    offload: bool = Field(
        False, description="with fsdp: that share waits in main memory, where the optimiser works, too"
    )
    rehearse: bool = Field(True, description="one training step before anything is measured, to see it works")
    function: str | None = Field(
        None, description="a training loop of your own, package.module:function (zpd_ray.stages)"
    )
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="after")
    def _packs_its_own_rows(self) -> TrainConfig:
        if self.packing and self.function is not None:
            raise ValueError(
                "train.packing = true packs the rows of the built-in loop, and train.function = "
                f"{self.function!r} makes its own; leave train.packing out, and pack there"
            )
        return self

    @model_validator(mode="after")
    def _shares_are_of_something(self) -> TrainConfig:
        if self.offload and self.sharding != "fsdp":
            raise ValueError(
                "train.offload = true moves a worker's share of the model to main memory, and train.sharding "
                "= 'none' makes no shares; expected train.sharding = 'fsdp', or train.offload = false"
            )
        if self.sharding == "fsdp" and self.function is not None:
            raise ValueError(
                "train.sharding = 'fsdp' shards the model of the built-in loop, and train.function = "
                f"{self.function!r} loads its own; leave train.sharding out, and call fully_shard there"
            )
        if self.sharding == "fsdp" and self.workers == 1:
            raise ValueError(
                "train.sharding = 'fsdp' shares the model out among train.workers, which is 1; expected 2 or "
                "more workers, or train.sharding = 'none'"
            )
        return self

    @property
    def result(self) -> str:
        """Directory of a stage that holds what training leaves: an adapter or a whole model."""
        return "adapter" if self.method == "lora" else "model"


class ClusterConfig(Section):
    """Resources. ``address`` and ``actors`` change no result and may differ when a run is resumed.

    CPUs and GPUs per worker do: threads sum in another order, and a GPU may compute in another type. On a Ray
    of our own, ``actors`` and these four follow from the machine where they are left out (machine.py), and
    from the run directory when the run is resumed; the defaults here are those on a cluster that is joined.
    """

    address: str = Field(
        "local", description="'local' starts a Ray of its own; 'auto' or an address joins one"
    )
    actors: Count = Field(1, description="scoring actors; here one per core, or per GPU")
    cpus_per_actor: Positive = Field(1.0, description="here more than one where memory is short")
    gpus_per_actor: float = Field(0.0, ge=0, description="here 1 where there are GPUs")
    cpus_per_train_worker: Positive = Field(1.0, description="here the cores shared among train.workers")
    gpus_per_train_worker: float = Field(0.0, ge=0, description="here 1 where every worker can have one")
    autoscaling: bool = Field(False, description="nodes may come later: wait for room, do not refuse at once")
    placement: Literal["shared", "split"] = Field(
        "shared",
        description="shared: scoring and training side by side where there is room, else in turns; "
        "split: on nodes of their own, where a stage is measured while the one before trains",
    )
    score_nodes: dict[str, str] = Field({"zpd-ray": "score"}, description="node labels of split placement")
    train_nodes: dict[str, str] = Field({"zpd-ray": "train"}, description="node labels of split placement")
