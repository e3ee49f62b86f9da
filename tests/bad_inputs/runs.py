"""Models, run directories and budgets that do not fit, and what goes wrong while a run works."""

from __future__ import annotations

import json

import numpy as np

from tests.bad_inputs.cases import Desk, case, rows

MODEL, OUTPUT, BUDGET, WORK = "The model", "The run directory", "The budget", "While it works"


@case(MODEL, "a directory that is not there")
def no_model(desk: Desk) -> None:
    desk.set("model", path="./models/base")
    desk.set("engine", name="transformers")


@case(MODEL, "a directory beside those that are there")
def misspelt(desk: Desk) -> None:
    desk.file("models/base/config.json", "{}")
    desk.set("model", path="models/bse")
    desk.set("engine", name="transformers")


@case(MODEL, "a URI where there is nothing")
def no_model_there(desk: Desk) -> None:
    desk.set("model", path=f"file://{desk.directory}/models/base")
    desk.set("engine", name="transformers")


@case(MODEL, "credentials in its URI")
def model_with_credentials(desk: Desk) -> None:
    desk.set("model", path="s3://me:secret@bucket/model")


@case(MODEL, "no tokenizer")
def no_tokenizer(desk: Desk) -> None:
    for file in desk.model().glob("*tokenizer*"):
        file.unlink()


@case(MODEL, "pickled weights only")
def pickled(desk: Desk) -> None:
    weights = desk.model() / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))


@case(MODEL, "weights that are cut off")
def cut_off(desk: Desk) -> None:
    weights = desk.model() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])


@case(MODEL, "a shard that is missing")
def no_shard(desk: Desk) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (desk.model() / "model.safetensors.index.json").write_text(json.dumps(index))


@case(MODEL, "no config.json")
def no_config(desk: Desk) -> None:
    (desk.model() / "config.json").unlink()


@case(MODEL, "an architecture that nobody knows")
def unknown(desk: Desk) -> None:
    desk.model(model_type="future")


@case(MODEL, "a tokenizer of another model")
def other_tokenizer(desk: Desk) -> None:
    desk.model(vocab_size=50)


@case(MODEL, "more positions than it has")
def positions(desk: Desk) -> None:
    desk.model()
    desk.set("model", max_length=100_000)


@case(MODEL, "responses longer than its context")
def long_responses(desk: Desk) -> None:
    desk.model()
    desk.set("measure", max_new_tokens=100_000)


@case(MODEL, "LoRA on layers that it does not have")
def targets(desk: Desk) -> None:
    desk.model()
    desk.set("train", method="lora", lora={"targets": ["c_attn"]})


@case(MODEL, "LoRA on its head")
def head(desk: Desk) -> None:
    desk.model()
    desk.set("train", method="lora", lora={"targets": ["lm_head"]})


@case(MODEL, "a prompt longer than its context")
def too_long(desk: Desk) -> None:
    desk.row(prompt="word " * 2000)
    desk.model()


@case(MODEL, "a response with an end-of-text token in it")
def ends_early(desk: Desk) -> None:
    desk.row(response="first <eos> second")
    desk.model()


@case(MODEL, "roles, and no chat template")
def roles(desk: Desk) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 2?"}]
    desk.pool([{"messages": [*turns, {"role": "assistant", "content": "4"}], "answer": "4"}] * 2)
    desk.model()
    desk.command = ("check",)


@case(MODEL, "tools, and no chat template")
def tools(desk: Desk) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 2}}]}
    turns = [{"role": "user", "content": "2 + 2?"}, call, {"role": "tool", "content": "4"}]
    desk.pool([{"messages": [*turns, {"role": "assistant", "content": "4"}], "answer": "4"}] * 2)
    desk.model()
    desk.command = ("check",)


@case(MODEL, "all turns, and no chat template")
def no_template(desk: Desk) -> None:
    desk.set("train", turns="all")
    desk.model()


@case(MODEL, "weights that are no numbers", ray=True)
def nan(desk: Desk) -> None:
    from safetensors.numpy import load_file, save_file

    weights = desk.model() / "model.safetensors"
    tensors = load_file(weights)
    save_file(
        {name: np.full_like(value, np.nan) for name, value in tensors.items()}, weights, {"format": "pt"}
    )


@case(OUTPUT, "below a file")
def below(desk: Desk) -> None:
    desk.values["output"] = "pool.jsonl/out"


@case(OUTPUT, "a file")
def file(desk: Desk) -> None:
    desk.values["output"] = "pool.jsonl"


@case(OUTPUT, "other people's files")
def others(desk: Desk) -> None:
    desk.file("out/thesis.tex", "")


@case(OUTPUT, "a scheme that nothing opens")
def scheme(desk: Desk) -> None:
    desk.values["output"] = "gopher://bucket/out"


@case(OUTPUT, "a run of version 0.1")
def older(desk: Desk) -> None:
    desk.file("out/.zpd-ray.lock", "")
    desk.file("out/config.toml", "")
    desk.file("out/manifest.json", '{"seed": 0}')


@case(BUDGET, "more items than the pool has", ray=True)
def more_items(desk: Desk) -> None:
    desk.set("select", budget={"items": 1000})


@case(BUDGET, "more tokens than the pool has", ray=True)
def more_tokens(desk: Desk) -> None:
    desk.set("select", budget={"tokens": 10**9})


@case(BUDGET, "stages that use up the pool", ray=True)
def used_up(desk: Desk) -> None:
    desk.values["stages"] = 3
    desk.set("select", budget={"fraction": 0.5})


@case(BUDGET, "one token", ray=True)
def one_token(desk: Desk) -> None:
    desk.set("select", budget={"tokens": 1})


@case(WORK, "the evaluation set is the pool", ray=True)
def evaluation(desk: Desk) -> None:
    desk.set("evaluation", path="pool.jsonl")


@case(WORK, "more actors than a cluster has cores", ray=True)
def actors(desk: Desk) -> None:
    desk.set("cluster", actors=5000)


@case(WORK, "all responses are wrong", ray=True)
def all_wrong(desk: Desk) -> None:
    desk.set("engine", simulated={"theta": -50.0})


@case(WORK, "all responses are right", ray=True)
def all_right(desk: Desk) -> None:
    desk.set("engine", simulated={"theta": 50.0})


GRADERS = [
    ("a grader that raises", "raises", {}),
    ("a grader that returns text", "text", {}),
    ("a grader that returns 2", "two", {}),
    ("a grader that ends the process", "leaves", {}),
    ("a grader that hangs", "hangs", {"patience": 4.0}),
]


def _grader(did: str, function: str, how: dict[str, float]) -> None:
    @case(WORK, did, ray=True)
    def spoilt(desk: Desk) -> None:
        desk.set("measure", grader=f"tests.bad_inputs.graders:{function}", **how)
        desk.set("cluster", actors=1)


for grader in GRADERS:
    _grader(*grader)


@case(WORK, "responses in which no answer is found", ray=True)
def unparsed(desk: Desk) -> None:
    desk.pool([row | {"answer": "4"} for row in rows(40)])
    desk.model()
    desk.set("measure", grader="tests.bad_inputs.graders:Silent", max_new_tokens=4)
