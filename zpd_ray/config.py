"""The run's configuration: pydantic models, TOML in, resolved TOML out.

Every section refuses unknown keys and names the nearest known one. Relative paths in a file are taken from
the directory of that file, so that a config can be run from anywhere.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Config", "SelectConfig"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NonEmpty = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Unknown keys are errors and values cannot be reassigned."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class SourceConfig(Section):
    """Where samples come from and how their columns are read."""

    path: str | list[str] = Field(
        description="file, glob, directory or URI, or a list of them; of a dataset of the hub "
        "hf://datasets/ORG/NAME@REVISION?config=CONFIG&split=SPLIT, all but ORG/NAME optional"
    )
    format: Literal["auto", "jsonl", "parquet", "csv", "arrow", "hf"] = Field(
        "auto", description="of the files; auto goes by the extension"
    )
    shape: Literal["auto", "prompt_response", "question_answer", "messages", "alpaca", "sharegpt"] = Field(
        "auto", description="of the rows; auto goes by the names of their columns"
    )
    columns: dict[Literal["item_id", "prompt", "messages", "response", "answer", "choices", "group"], str] = (
        Field(default_factory=dict, description="item field = column of the source; overrides the shape")
    )
    max_bad_share: Share = Field(0.05, description="stop when more than this share of the rows is bad")
    allow_damaged: bool = Field(False, description="take what comes before the damage of a damaged file")

    @model_validator(mode="after")
    def _paths_are_there(self) -> SourceConfig:
        if not self.paths or not all(self.paths):  # "" would be the directory of the config
            raise ValueError(f"path = {self.path!r} names no place; give a file, glob, directory or URI")
        return self

    @property
    def paths(self) -> list[str]:
        """One or several, as a list."""
        return [self.path] if isinstance(self.path, str) else self.path


class PoolConfig(SourceConfig):
    """The pool that samples are selected from."""

    items_per_part: Count = Field(2000, description="items in one unit of work: a parquet file of the pool")
    reference: Literal["answer", "none"] | None = Field(
        None,
        description="where rows hold no solution beside the gold answer: 'answer' trains on the answers "
        "alone, 'none' never trains on them; their NLL says in both cases how hard an item is",
    )


class ModelConfig(Section):
    """The base model."""

    path: NonEmpty = Field(description="local directory or hub id")
    max_length: Count | None = Field(
        None, description="tokens of prompt + response; left out: as many as the model takes"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of the weights while they score; auto: as stored, by transformers on a CPU float32",
    )
    separator: str = Field("\n", description="between prompt and response when there is no chat template")


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


class Budget(Section):
    """Budget of one stage: exactly one of the three."""

    fraction: float | None = Field(None, gt=0, le=1, description="of the pool")
    items: int | None = Field(None, ge=1, description="a number of items")
    tokens: int | None = Field(None, ge=1, description="response tokens to train on")

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                f"a budget is one of fraction, items, tokens; got {given or 'none of them'}; give one, as "
                "budget = { fraction = 0.05 }"
            )
        return self


class DiverseConfig(Section):
    """What keeps a selection from being all of a kind, whatever the method; the replayed part aside."""

    quota: Literal["none", "proportional", "equal"] = Field(
        "none",
        description="of the budget for each group of items (skill, domain; the 100 largest, all others share "
        "one): in proportion to the group's share of the pool, or the same for each; what a group does not "
        "have goes to the others",
    )
    near_duplicates: Count | None = Field(
        None,
        description="an item is passed over where so many better ones nearly repeat its text; 1: the best of "
        "them alone is taken; left out: all may be (needs the extra diverse)",
    )


class InContextConfig(Section):
    """Of data_whisperer: items as demonstrations, and others asked after them."""

    demonstrations: Count = Field(5, description="items in a prompt before its question")
    queries: Count = Field(3, description="questions asked after the same demonstrations, a prompt for each")
    layer: int | None = Field(
        None, ge=0, description="whose attention counts, from 0; left out: two fifths of the way up"
    )


QUESTION = """\
How accurate and helpful is the response to the prompt below? Rate it from 0 to 5, 5 being best. \
Answer with the number alone on the first line.

### Prompt
{prompt}

### Response
{response}
"""


class JudgeConfig(Section):
    """Of the method judge: which language model rates items, and how it is asked."""

    model: NonEmpty | None = Field(None, description="directory or hub id, for the run's engine to load")
    url: NonEmpty | None = Field(
        None,
        description="or an OpenAI-compatible server, as http://127.0.0.1:8000/v1 (OPENAI_API_KEY in the "
        "environment, where it wants one)",
    )
    name: str | None = Field(None, description="of the server's model")
    prompt: NonEmpty = Field(QUESTION, description="with {prompt} and {response} where those of an item go")
    lowest: float = Field(0.0, allow_inf_nan=False, description="a rating below is none")
    highest: float = Field(5.0, allow_inf_nan=False, description="a rating above is none")
    parallel: Count = Field(8, description="requests that each scoring actor has under way at a server")

    @model_validator(mode="after")
    def _one_judge_with_a_question(self) -> JudgeConfig:
        if self.model is not None and self.url is not None:
            raise ValueError(f"model = {self.model!r} and url = {self.url!r} are two judges; leave one out")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url = {self.url!r} is no address; give it as http://127.0.0.1:8000/v1")
        missing = [place for place in ("{prompt}", "{response}") if place not in self.prompt]
        if missing:
            raise ValueError(f"prompt has no {' and no '.join(missing)}, where the item's would go; add it")
        if self.lowest >= self.highest:
            raise ValueError(
                f"lowest = {self.lowest:g} is not below highest = {self.highest:g}; exchange them"
            )
        return self


class SelectConfig(Section):
    """Which items are trained on at each stage."""

    method: str = Field(
        "zpd",
        description="zpd, zpd_static, random, full, ppl_high, ppl_middle, ppl_low, ifd, superfiltering, rho, "
        "data_whisperer, judge, delta_loss, difficulty_window, target_difficulty, or package.module:Class",
    )
    beside: list[str] = Field(
        default_factory=list,
        description="further methods: their selections lie beside the one that is trained on, for comparison",
    )
    budget: Budget
    replay: float = Field(0.0, ge=0, lt=1, description="share of the budget drawn from mastered items")
    mastered_p: float = Field(0.9, gt=0.5, lt=1, description="an item is mastered from this p on")
    target_p: float = Field(0.5, gt=0, lt=1, description="probability of success at the centre of the zone")
    criterion: Literal["p(1-p)", "information"] = Field(
        "p(1-p)",
        description="of zpd; they differ where answers can be guessed: an item that is only guessed "
        "has no information, yet p(1-p) of 1/4 with two options",
    )
    diverse: DiverseConfig = DiverseConfig()
    allow_trained: bool = Field(False, description="let an item be selected again at a later stage")
    proxy: NonEmpty | None = Field(None, description="of superfiltering: a small model, directory or hub id")
    reference_model: NonEmpty | None = Field(
        None, description="of rho: a model trained on data like that to come, directory or hub id"
    )
    in_context: InContextConfig = InContextConfig()
    judge: JudgeConfig = JudgeConfig()
    delta_since: Literal["previous", "base"] = Field(
        "previous",
        description="of delta_loss: NLLs are compared with those of the stage before, or stage 0",
    )
    delta_by: Literal["item", "group"] = Field(
        "item",
        description="of delta_loss: the fall of the item's own NLL, or the mean fall in its group of items "
        "(skill, domain; the 100 largest, all others together)",
    )
    window_low: float | None = Field(
        None, allow_inf_nan=False, description="of difficulty_window: b >= theta + window_low; None: any b"
    )
    window_high: float = Field(
        0.0, allow_inf_nan=False, description="of difficulty_window: b <= theta + window_high, logits"
    )

    @model_validator(mode="after")
    def _window_is_open(self) -> SelectConfig:
        if self.window_low is not None and self.window_low > self.window_high:
            raise ValueError(
                f"window_low = {self.window_low:g} is above window_high = {self.window_high:g}, so that no "
                "item lies between; exchange them"
            )
        return self


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
    epochs: Count = Field(1, description="times that a stage goes through its selection")
    batch_size: Count = Field(32, description="items in one optimiser step, over all workers")
    micro_batch_size: Count = Field(8, description="items in one forward pass of a worker")
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
    bf16: bool = Field(True, description="autocast to bfloat16 where the GPU supports it")
    gradient_checkpointing: bool | None = Field(
        None,
        description="compute activations twice rather than keep them: less memory, more time; left out: "
        "where the model has 100 million parameters or more",
    )
    checkpoint_steps: Count = Field(100, description="optimiser steps between checkpoints inside a stage")
    workers: Count = Field(1, description="processes that train together, each on its share of a batch")
    rehearse: bool = Field(True, description="one training step before anything is measured, to see it works")
    function: str | None = Field(
        None, description="a training loop of your own, package.module:function (zpd_ray.stages)"
    )
    lora: LoraConfig = LoraConfig()

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


class Config(Section):
    """A run, whole."""

    output: NonEmpty = Field(description="run directory: a local path or a URI that pyarrow.fs opens")
    seed: int = Field(0, ge=0, description="of everything that is drawn; the same seed gives the same bytes")
    stages: Count = Field(3, description="times that the loop measures, selects and trains")
    report: bool = Field(True, description="write report.html after each stage, as `zpd-ray report` does")
    pool: PoolConfig
    evaluation: SourceConfig | None = Field(
        None, description="Items that are never trained on: accuracy before and after each stage."
    )
    model: ModelConfig
    engine: EngineConfig = EngineConfig()
    measure: MeasureConfig = MeasureConfig()
    ability: AbilityConfig = AbilityConfig()
    select: SelectConfig
    train: TrainConfig = TrainConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Config:
        if self.pool.reference == "none" and self.train.method != "none" and self.train.function is None:
            raise ValueError(
                f"pool.reference = 'none' leaves train.method = {self.train.method!r} nothing to train on; "
                "expected train.method = 'none', or a train.function that needs no references"
            )
        return self

    @model_validator(mode="after")
    def _rounds_measure_the_model_that_trained(self) -> Config:
        if self.measure.scope != "pool" and self.cluster.placement == "split":
            raise ValueError(
                f"measure.scope = {self.measure.scope!r} follows ability by probes from stage to stage, and "
                "cluster.placement = 'split' measures a model that is a stage behind, which was not tried "
                "together; take measure.scope = 'pool', or cluster.placement = 'shared'"
            )
        return self

    @model_validator(mode="after")
    def _batches_divide_among_workers(self) -> Config:
        if self.train.batch_size % self.train.workers:
            raise ValueError(
                f"train.batch_size = {self.train.batch_size} does not divide among "
                f"train.workers = {self.train.workers}; make it a multiple"
            )
        return self
