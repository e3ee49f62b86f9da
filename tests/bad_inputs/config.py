"""Mistakes in run.toml and on the command line."""

from __future__ import annotations

from tests.bad_inputs.cases import Desk, case

CONFIG, LINE = "The config", "The command line"


@case(CONFIG, "a file that is not there")
def absent(desk: Desk) -> None:
    desk.alone, desk.command = True, ("run", str(desk.directory / "absent.toml"))


@case(CONFIG, "a directory")
def directory(desk: Desk) -> None:
    desk.alone, desk.command = True, ("run", str(desk.directory))


@case(CONFIG, "text without quotes")
def no_quotes(desk: Desk) -> None:
    desk.text = "output = runs/mine\n"


@case(CONFIG, "YAML")
def yaml(desk: Desk) -> None:
    desk.text = "output: runs/mine\npool:\n  path: data.jsonl\n"


@case(CONFIG, "JSON")
def json(desk: Desk) -> None:
    desk.text = '{"output": "runs/mine", "pool": {"path": "data.jsonl"}}\n'


@case(CONFIG, "no UTF-8")
def latin(desk: Desk) -> None:
    desk.text = 'output = "runs/h\xf6he"\n'.encode("latin-1")


@case(CONFIG, "empty")
def empty(desk: Desk) -> None:
    desk.text = ""


def _without(section: str) -> None:
    @case(CONFIG, f"no `{section}`")
    def missing(desk: Desk) -> None:
        del desk.values[section]


for name in ("output", "pool", "model", "select"):
    _without(name)

VALUES = [
    ("a key that is misspelt", "train", {"learning_rat": 1e-3}),
    ("a key near to none", "train", {"xyzzy": 1}),
    ("`budget` without `select`", "budget", {"items": 5}),
    ("a section that is a value", "cluster", 3),
    ("`stages` as a word", "stages", "three"),
    ("`stages` = 0", "stages", 0),
    ("`stages` = 1.5", "stages", 1.5),
    ("a negative seed", "seed", -1),
    ("no budget", "select", {"budget": {}}),
    ("two budgets", "select", {"budget": {"items": 3, "tokens": 9}}),
    ("a budget of nothing", "select", {"budget": {"fraction": 0.0}}),
    ("a budget above one", "select", {"budget": {"fraction": 1.5}}),
    ("a negative budget", "select", {"budget": {"tokens": -1}}),
    ("all of the budget replayed", "select", {"replay": 1.0}),
    ("mastered at p = 0.4", "select", {"mastered_p": 0.4}),
    ("an unknown criterion", "select", {"criterion": "entropy"}),
    ("a method that is misspelt", "select", {"method": "zdp"}),
    ("a method of one's own that is not there", "select", {"method": "no_such:Method"}),
    ("a method without a score", "select", {"method": "json:JSONDecoder"}),
    ("a grader that is misspelt", "measure", {"grader": "numerc"}),
    ("a grader that cannot be imported", "measure", {"grader": "no_such:grade"}),
    ("a grader that its module lacks", "measure", {"grader": "json:grade"}),
    ("a grader that is no function", "measure", {"grader": "json:decoder"}),
    ("a grader with a space", "measure", {"grader": "my grader:f"}),
    ("a temperature of 0", "measure", {"temperature": 0.0}),
    ("no rollouts", "measure", {"rollouts": 0}),
    ("an engine that is misspelt", "engine", {"name": "vlm"}),
    ("an engine that is none", "engine", {"name": "json:JSONDecoder"}),
    ("a simulated model that is to be trained", "train", {"method": "lora"}),
    ("an unknown training method", "train", {"method": "qlora"}),
    ("a batch that does not divide among the workers", "train", {"batch_size": 10, "workers": 3}),
    ("a model shared out to one worker", "train", {"sharding": "fsdp"}),
    ("offload of a model that is not shared out", "train", {"offload": True}),
    ("a learning rate of 0", "train", {"learning_rate": 0.0}),
    ("a dropout of 1", "train", {"lora": {"dropout": 1.0}}),
    ("no LoRA targets", "train", {"lora": {"targets": []}}),
    ("all turns, of which the last is the model's own", "train", {"turns": "all", "target": "own"}),
    ("a training loop that is not there", "train", {"function": "no_such:loop"}),
    ("an unknown format", "pool", {"format": "xml"}),
    ("an unknown shape", "pool", {"shape": "dolly"}),
    ("a field that no item has", "pool", {"columns": {"solution": "x"}}),
    ("a share above one", "pool", {"max_bad_share": 2.0}),
    ("no actors", "cluster", {"actors": 0}),
    ("more than all of a GPU's memory", "engine", {"name": "vllm", "vllm": {"gpu_memory_share": 2.0}}),
    ("nothing to train on", "pool", {"reference": "none"}),
    ("a password in the pool's URI", "pool", {"path": "s3://me:secret@bucket/pool.jsonl"}),
    ("a key in the output's URI", "output", "s3://bucket/out?secret_key=abc"),
    ("a tracker that is misspelt", "track", {"tensorbord": "logs"}),
    ("event files on an object store", "track", {"tensorboard": "s3://bucket/logs"}),
    ("a password in a tracker's URI", "track", {"mlflow": "https://me:secret@example.org"}),
    ("a tracker of one's own that cannot be told anything", "track", {"own": {"json:JSONDecoder": ""}}),
]


def _value(did: str, section: str, value: object) -> None:
    @case(CONFIG, did)
    def spoilt(desk: Desk) -> None:
        if isinstance(value, dict):
            desk.set(section, **value)
        else:
            desk.values[section] = value
        if did == "nothing to train on":
            desk.set("train", method="lora")


for entry in VALUES:
    _value(*entry)


@case(CONFIG, "all turns, and a method that knows the last one alone")
def last_turn_only(desk: Desk) -> None:
    desk.set("train", turns="all")
    desk.set("select", method="ifd")


FLAGS = [
    ("`--set` without a value", ("--set", "train.epochs")),
    ("`--set` of a whole budget", ("--set", "select.budget=5")),
    ("`--set` below a value", ("--set", "output.path=x")),
    ("`--set` of a key that is misspelt", ("--set", "cluster.actor=2")),
    ("`--set` of a wrong type", ("--set", "train.epochs=soon")),
    ("an unknown option", ("--dry-run",)),
]


def _flag(did: str, flags: tuple[str, ...]) -> None:
    @case(LINE, did)
    def spoilt(desk: Desk) -> None:
        desk.flags = flags


for flag in FLAGS:
    _flag(*flag)


@case(LINE, "a command that is mistyped")
def mistyped(desk: Desk) -> None:
    desk.command = ("rnu",)


@case(LINE, "`train` of a run that trains nothing")
def nothing_to_train(desk: Desk) -> None:
    desk.command = ("train",)


@case(LINE, "`init` of data that is not there")
def init_nothing(desk: Desk) -> None:
    desk.alone, desk.command = (
        True,
        ("init", str(desk.directory / "pol.jsonl"), str(desk.directory / "new.toml")),
    )


@case(LINE, "`init` over a config that is there")
def init_over(desk: Desk) -> None:
    there = desk.file("run.toml", "")
    desk.alone, desk.command = True, ("init", str(desk.directory / "pool.jsonl"), str(there))


@case(LINE, "`init` of columns that nobody knows")
def init_columns(desk: Desk) -> None:
    data = desk.pool([{"alpha": "x", "beta": "y"}])
    desk.alone, desk.command = True, ("init", str(data), str(desk.directory / "new.toml"))


@case(LINE, "`submit` to a cluster that does not answer")
def submit_nowhere(desk: Desk) -> None:
    desk.command, desk.flags = ("submit",), ("--address", "http://127.0.0.1:9")
