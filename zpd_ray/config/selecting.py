"""Section ``select``: the budget, the method and what methods have to know."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from zpd_ray.config.section import Count, NonEmpty, Positive, Section


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

    model: NonEmpty | None = Field(None, description="directory, URI or hub id, for the run's engine to load")
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
        description="zpd, zpd_static, zpd_sampled, random, full, ppl_high, ppl_middle, ppl_low, ifd, "
        "superfiltering, rho, data_whisperer, judge, delta_loss, difficulty_window, target_difficulty, or "
        "package.module:Class",
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
    temperature: Positive = Field(
        1.0,
        description="of zpd_sampled: items are drawn in proportion to their score to the power of 1 / "
        "temperature; near 0 the best are taken, far above 1 any",
    )
    diverse: DiverseConfig = DiverseConfig()
    allow_trained: bool = Field(False, description="let an item be selected again at a later stage")
    proxy: NonEmpty | None = Field(
        None, description="of superfiltering: a small model, directory, URI or hub id"
    )
    reference_model: NonEmpty | None = Field(
        None, description="of rho: a model trained on data like that to come, directory, URI or hub id"
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
