"""The engine on vLLM: one engine in an actor, adapters and weights swapped without a restart.

The engine runs inside the actor's process (VLLM_ENABLE_V1_MULTIPROCESSING=0): vLLM's scheduling is then a
function of the requests alone, and the same part gives the same bytes (docs.vllm.ai, "Reproducibility").
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from zpd_ray import graders
from zpd_ray.engines.base import Completions, EngineError, ModelRef, Pulse, Scores
from zpd_ray.engines.batching import longest_first
from zpd_ray.engines.encoding import Encoder, to_scores
from zpd_ray.engines.tokens import Ids
from zpd_ray.engines.usage import Meter
from zpd_ray.engines.vllm.settings import check_config, check_served
from zpd_ray.engines.vllm.start import start
from zpd_ray.errors import ZpdError, first_line
from zpd_ray.hashing import item_keys, streams

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

    from zpd_ray.config import Config

    ParamsOf = Callable[[int], SamplingParams]
    Take = Callable[[np.ndarray, list[RequestOutput]], None]

HELD_TOKENS = 2**18  # whose outputs are in memory at a time
SEEDS = np.uint64(2**62)  # vLLM takes signed integers, and counts up from a request's seed


class VllmEngine:
    """vLLM with the model of a stage loaded: NLL and greedy matches from one prefill, and completions."""

    reads_text = True
    has_weights = True

    @staticmethod
    def check(config: Config) -> None:
        """Raises ZpdError when vLLM is not installed, or cannot do what the config asks."""
        check_config(config)

    def __init__(self, config: Config, model: ModelRef, longest: int | None = None) -> None:
        """``longest``: tokens of the longest row and of the longest prompt with its completion, where known.

        Raises ZpdError when tokenizer, weights or adapter are missing, or vLLM does not start; where there
        is a GPU, EngineError for the latter.
        """
        self.config, self.base = config, model.base
        self.encoder = Encoder(config, model.base)
        self.meter = Meter()
        self.computing = Lock()
        # On a CPU both want the same core, and two threads of Python slow each other down.
        self.encoding = Lock() if config.cluster.gpus_per_actor else self.computing
        # CUDA streams belong to threads: whatever thread calls, one alone talks to vLLM.
        self.thread = ThreadPoolExecutor(max_workers=1)
        length = min(self.encoder.max_length, longest or self.encoder.max_length)
        self.llm, self.arguments = self.thread.submit(start, config, model.base, length).result()
        v2 = self.llm.llm_engine.vllm_config.use_v2_model_runner
        # Version 2 of the runner can leave the prompt's logits out, but does not say which token comes first.
        grader = graders.load(config.measure.grader)
        self.response_only = v2 and not getattr(grader, "needs_first_choices", False)
        self.swaps, self.failed = 0, ""
        self.counted = self._counters()
        self.follow(model)

    def follow(self, model: ModelRef) -> None:
        """Other weights in place, or another adapter on top of them; the engine goes on.

        An adapter gets an id and a name that no other had: vLLM serves the old one when an id comes again.
        """
        self.thread.submit(self._follow, model).result()

    def _follow(self, model: ModelRef) -> None:
        if model.base != self.base:
            self._reload(model.base)
        self.adapter = None if model.adapter is None else self._load_adapter(Path(model.adapter))

    def score(self, items: pa.Table) -> Scores:
        """NLL and greedy matches of each reference from one prefill.

        First choices are not counted (n_greedy is -1) where the runner reads the response alone. Errors as in
        ``TransformersEngine.score``; what vLLM refuses is an error of its row.
        """
        from zpd_ray.engines.vllm.scores import scoring_params, token_scores

        with self.encoding:
            rows = self.encoder.rows(items)
        nll, n_greedy = np.full(len(rows.ids), np.nan, dtype=np.float32), np.zeros_like(rows.response)
        lengths = rows.prompt + rows.response
        params = scoring_params(rows, self.response_only)

        def take(done: np.ndarray, outputs: list[RequestOutput]) -> None:
            self.meter.count(prefill_tokens=int(lengths[done].sum()))
            responses = [rows.ids[i][rows.prompt[i] :] for i in done]
            scores = token_scores(outputs, responses, self.response_only)
            nll[done], n_greedy[done] = rows.means(scores, done)

        self._run("prefill", items, rows.ids, params, rows.error, take)
        if self.response_only:
            n_greedy[:] = -1
        return to_scores(rows, nll, n_greedy, self.arguments["dtype"])

    def generate(self, items: pa.Table, rollouts: int, stage: int) -> Completions:
        """``rollouts`` completions of each prompt, special tokens left out; greedy when one, else sampled.

        Samples are drawn by vLLM from a seed of (run seed, stage, item). A prompt that the template or vLLM
        refuses, or that leaves no room for a new token, gets none and the reason.
        """
        from vllm import SamplingParams

        with self.encoding:
            prompts = self.encoder.prompts(items)
        seeds = streams(item_keys(items["item_id"]), self.config.seed, stage) % SEEDS
        greedy, stops = rollouts == 1, self.encoder.stops

        def params(i: int) -> SamplingParams:
            return SamplingParams(
                n=rollouts,
                temperature=0.0 if greedy else self.config.measure.temperature,
                seed=None if greedy else int(seeds[i]),
                max_tokens=int(prompts.limits[i]),
                stop_token_ids=sorted(stops),
                ignore_eos=True,  # these are all there are, the same for every engine
                detokenize=False,
            )

        texts: list[list[str]] = [[] for _ in prompts.ids]

        def take(done: np.ndarray, outputs: list[RequestOutput]) -> None:
            for i, output in zip(done, outputs, strict=True):
                drawn = sorted(output.outputs, key=lambda completion: completion.index)
                self.meter.count(decode_tokens=sum(len(completion.token_ids) for completion in drawn))
                texts[i] = self.encoder.texts([_until(completion.token_ids, stops) for completion in drawn])

        self._run("decode", items, prompts.ids, params, prompts.error, take)
        return Completions(texts, prompts.error)

    def usage(self) -> dict[str, float]:
        """Amounts since the last call: of prefill and decode, and what vLLM counts of steps and requests."""
        now = self._counters()
        since = {name: now[name] - self.counted[name] for name in now}
        self.counted = now
        return self.meter.take() | {name: amount for name, amount in since.items() if amount}

    def pulse(self) -> Pulse:
        """A step is one of vLLM's."""
        pulse = self.meter.pulse
        return replace(pulse, steps=pulse.steps + int(self._counters()["step_tokens"]))

    def settings(self) -> dict[str, Any]:
        """The arguments of ``vllm.LLM``, what is read of a prompt, and vLLM's version."""
        import vllm

        reads = "response" if self.response_only else "prompt and response"
        return self.arguments | {"reads": reads, "vllm": vllm.__version__}

    def _run(
        self,
        kind: str,
        items: pa.Table,
        ids: list[Ids],
        params: ParamsOf,
        error: list[str | None],
        take: Take,
    ) -> None:
        """``take`` is given the rows that vLLM took, int64 (m,), and their outputs; others get an error.

        Some rows at a time: what vLLM tells of a token takes hundreds of bytes.
        """
        good = np.array([i for i, why in enumerate(error) if why is None], dtype=np.int64)
        lengths = np.array([len(ids[i]) for i in good], dtype=np.int64)
        # Long requests first: a short one then fills the last steps.
        order = longest_first(lengths, items["item_id"].to_numpy()[good])
        cuts = np.flatnonzero(np.diff(np.cumsum(lengths[order]) // HELD_TOKENS)) + 1

        def compute() -> None:
            with self.meter.timing(kind):
                # What an earlier part left in the cache would change the steps of this one.
                self.llm.reset_prefix_cache()
                for rows in np.split(good[order], cuts):
                    if len(rows):
                        self.meter.begin(items["item_id"][int(rows[0])].as_py())
                    done, outputs = self._outputs(rows, ids, params, error)
                    if len(done):
                        take(done, outputs)
                    self.meter.beat(items=len(rows))

        with self.computing:
            self.thread.submit(compute).result()

    def _outputs(
        self,
        rows: np.ndarray,
        ids: list[Ids],
        params: ParamsOf,
        error: list[str | None],
    ) -> tuple[np.ndarray, list[RequestOutput]]:
        from vllm.exceptions import VLLMValidationError

        if len(rows) == 0:
            return rows, []
        try:
            return rows, self._generate([ids[i] for i in rows], [params(i) for i in rows])
        except VLLMValidationError as refusal:  # of one request, and with it of the whole call
            if len(rows) == 1:
                error[rows[0]] = f"vLLM refuses it: {first_line(refusal)}"
                return rows[:0], []
        first, second = (self._outputs(half, ids, params, error) for half in np.array_split(rows, 2))
        return np.concatenate([first[0], second[0]]), first[1] + second[1]

    def _generate(self, ids: list[Ids], params: list[SamplingParams]) -> list[RequestOutput]:
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMValidationError

        if self.failed:  # what it had in hand would come out among these
            raise EngineError(self.failed)
        prompts = [TokensPrompt(prompt_token_ids=row) for row in ids]
        try:
            return self.llm.generate(prompts, params, lora_request=self.adapter, use_tqdm=False)
        except VLLMValidationError:
            raise
        except Exception as error:  # a dead engine process, a device in an undefined state
            self.failed = f"vLLM failed: {type(error).__name__}: {first_line(error)}"
            raise EngineError(self.failed) from error

    def _reload(self, base: str) -> None:
        try:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": base})
        except Exception as error:  # missing files and shapes that do not fit come as many types
            raise ZpdError(
                f"vLLM cannot load the weights in {base} ({first_line(error)}); expected safetensors "
                "of the model that the run began with"
            ) from error
        self.llm.reset_prefix_cache()
        self.base = base

    def _load_adapter(self, directory: Path) -> Any:
        from vllm.lora.request import LoRARequest

        check_served(self.config, directory)
        self.swaps += 1
        request = LoRARequest(f"adapter-{self.swaps}", self.swaps, str(directory))
        try:
            self.llm.llm_engine.add_lora(request)
        except Exception as error:  # another base's shapes, unknown modules, a truncated file
            raise ZpdError(
                f"adapter {directory} does not fit {self.base} ({first_line(error)}); expected one "
                "that was trained on this base model"
            ) from error
        return request

    def _counters(self) -> dict[str, float]:
        """vLLM's own, since its start."""
        found = {metric.name: metric for metric in self.llm.get_metrics()}
        step, queue = found.get("vllm:iteration_tokens_total"), found.get("vllm:request_queue_time_seconds")
        hits, queries = found.get("vllm:prefix_cache_hits"), found.get("vllm:prefix_cache_queries")
        steps = getattr(step, "count", 0)
        return {
            "step_tokens": getattr(step, "sum", 0.0),
            "step_capacity": steps * self.arguments["max_num_batched_tokens"],
            "requests": getattr(queue, "count", 0),
            "queue_seconds": getattr(queue, "sum", 0.0),
            "cached_tokens": getattr(hits, "value", 0),
            "looked_up_tokens": getattr(queries, "value", 0),
        }


def _until(ids: list[int], stops: set[int]) -> Ids:
    """The ids without the stop that ended them."""
    return list(ids[:-1] if ids and ids[-1] in stops else ids)
