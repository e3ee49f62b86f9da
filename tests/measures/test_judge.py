"""A judge: what counts as a number, a model that is asked, a server that is asked, and those that fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from zpd_ray import measures, schema
from zpd_ray.config import Config, JudgeConfig
from zpd_ray.config_file import validate
from zpd_ray.engines import ModelRef
from zpd_ray.engines.simulated import SimulatedEngine
from zpd_ray.engines.transformers import TransformersEngine
from zpd_ray.errors import ZpdError
from zpd_ray.measures import chat
from zpd_ray.measures.judge import rating_in, to_rate

NEW = 8  # tokens of an answer
QUESTION = "Rate {response} to {prompt}:"


def items(n: int = 6) -> pa.Table:
    rows = [
        {
            "item_id": f"{i}",
            "messages": [
                {"role": "system", "content": "Be {response}."},
                {"role": "user", "content": "x" * i},
            ],
            "response": f"{i} {{prompt}}",
            "response_tokens": 1,
        }
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, schema=schema.ITEM)


def config(base: str = "none", engine: str = "simulated", **judge: Any) -> Config:
    values = {
        "output": "unused",
        "pool": {"path": "unused"},
        "model": {"path": base},
        "engine": {"name": engine},
        "measure": {"max_new_tokens": NEW},
        "select": {"budget": {"items": 1}, "judge": {"prompt": QUESTION} | judge},
    }
    return validate(values)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("4", 4.0),
        ("\n \n 4.5\nThe response has two numbers, 1 and 2.", 4.5),
        ("**Score: 3**", 3.0),
        ("+2.", 2.0),
        ("4/5", 4.0),
        ("4 / 5.", 4.0),
        ("I rate it 3.5 out of 5", 3.5),
        ("0", 0.0),
        ("-1", None),  # not 1
        ("6", None),
        ("1,234", None),  # not 1
        ("between 3 and 4", None),
        ("4/50", None),
        ("8/10", None),
        ("good\n5", None),  # not where it was asked for
        ("v2", None),
        ("3rd", None),
        ("five", None),
        ("", None),
    ],
)
def test_a_rating_is_the_one_number_of_the_first_line(text: str, rating: float | None) -> None:
    assert rating_in(text, JudgeConfig()) == rating


def test_the_scale_is_that_of_the_config() -> None:
    how = JudgeConfig(lowest=-2000, highest=10)
    assert [rating_in(text, how) for text in ("8/10", "-1,234", "4/5", "11")] == [8.0, -1234.0, None, None]


def test_an_item_is_filled_in_once_whatever_it_says() -> None:
    (turn,) = to_rate(items(), JudgeConfig(prompt=QUESTION))["messages"][2].as_py()
    told = "Rate 2 {prompt} to Be {response}.\n\nxx:"
    assert turn == {"role": "user", "content": told, "more": None}


def test_the_judge_that_the_engine_loads_is_asked_greedily(tmp_path: Path) -> None:
    """As transformers answers, one item at a time, and as any number in what it says is one."""
    torch.set_num_threads(1)
    path = fond_of_digits(tiny.build_model(tmp_path, layers=1))
    how = config("elsewhere", "transformers", model=str(path), lowest=-1e9, highest=5e7)
    measure, table = measures.load("judge", how), items(40)
    model = measure.model(ModelRef("elsewhere"))
    assert model == ModelRef(str(path))
    found = measures.rows_of("judge", measure, TransformersEngine(how, model), table, 0)
    judge = PlainJudge(path)
    said = [judge.answer(f"Rate {i} {{prompt}} to Be {{response}}.\n\n{'x' * i}:\n") for i in range(40)]
    expected = [rating_in(text, how.select.judge) for text in said]
    assert found["rating"].to_pylist() == pytest.approx(expected)
    assert found["unparsed"].to_pylist() == [int(each is None) for each in expected]
    assert found["error"].null_count == 40
    assert 5 < found["rating"].null_count < 35, "too few of one kind"


def fond_of_digits(path: Path) -> Path:
    """Digits, a minus and a line break are the first choice more often than other tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    liked = tokenizer.convert_tokens_to_ids([*"0123456789-,.", tokenizer.tokenize("\n")[0]])
    with torch.no_grad():
        model.lm_head.weight[liked] *= 3
    model.save_pretrained(path)
    return path


class PlainJudge:
    """A model of transformers, asked one question at a time."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)

    def answer(self, prompt: str) -> str:
        ask = torch.tensor([self.tokenizer(prompt).input_ids])
        with torch.no_grad():
            out = self.model.generate(ask, max_new_tokens=NEW, do_sample=False)
        return self.tokenizer.decode(out[0, ask.shape[1] :], skip_special_tokens=True)


class Server(BaseHTTPRequestHandler):
    """Rates by the number of x in the prompt; a word for 3 of them, nothing readable for 4, 5 are refused."""

    asked: list[dict[str, Any]]
    busy: int

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = type(self)
        kind.asked.append(body | {"path": self.path, "key": self.headers["Authorization"]})
        n = body["messages"][0]["content"].count("x")
        message = {"content": "excellent" if n == 3 else f"{n}"}
        found: dict[str, Any] = {"error": "?"} if n == 4 else {"choices": [{"message": message}]}
        status = 400 if n == 5 else 200
        if kind.busy:
            kind.busy, status = kind.busy - 1, 503
        text = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *told: Any) -> None:
        """Nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(chat, "WAIT_SECONDS", 0.01)
    Server.asked, Server.busy = [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/"
    server.shutdown()
    server.server_close()


def measured(url: str) -> pa.Table:
    how = config(url=url, name="mine")
    measure = measures.load("judge", how)
    stage = ModelRef("none", stage=1)
    assert measure.model(stage) == stage, "nothing is loaded"
    found = measures.rows_of("judge", measure, SimulatedEngine(how, stage), items(), 1)
    assert measure.beats >= 1
    return found


def test_a_server_is_asked_and_what_it_does_not_say_is_counted(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(chat.KEY, "secret")
    Server.busy = 2  # two tries more
    found = measured(url)
    assert found["rating"].to_pylist() == [0.0, 1.0, 2.0, None, None, None]
    assert found["rollouts"].to_pylist() == [1, 1, 1, 1, 0, 0]
    assert found["unparsed"].to_pylist() == [0, 0, 0, 1, 0, 0]
    assert found["completion"].to_pylist() == [None, None, None, "excellent", None, None]
    *fine, odd, refused = found["error"].to_pylist()
    assert fine == [None] * 4
    assert "answers with no choices[0].message.content" in odd
    assert "answers 400" in refused
    assert len(Server.asked) == 6 + 2, "400 is not asked again"
    for body in Server.asked:
        assert (body["path"], body["key"], body["model"]) == ("/v1/chat/completions", "Bearer secret", "mine")
        assert (body["temperature"], body["max_tokens"]) == (0, NEW)
    counts = measures.count(found)
    assert (counts["failed"], counts["responses"], counts["unparsed"]) == (2, 4, 1)
    assert counts["unparsed_example"] == "excellent"


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "WAIT_SECONDS", 0.0)
    found = measured("http://127.0.0.1:9/v1")
    assert found["rating"].null_count == found.num_rows
    assert (
        found["error"][0].as_py().startswith("the judge at http://127.0.0.1:9/v1/chat/completions cannot be")
    )
    assert np.all(found["rollouts"].to_numpy() == 0)


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ({"model": "a", "url": "http://b"}, "select.judge: model = 'a' and url = 'http://b' are two judges"),
        ({"url": "b:8000"}, "select.judge: url = 'b:8000' is no address"),
        ({"prompt": "Rate {prompt}"}, "select.judge: prompt has no {response}, where"),
        ({"lowest": 5.0}, "select.judge: lowest = 5 is not below highest = 5"),
        ({"url": "https://me:secret@host/v1"}, "select.judge.url is a URI of https with credentials"),
    ],
)
def test_what_does_not_go_together_is_refused(judge: dict[str, Any], told: str) -> None:
    with pytest.raises(ZpdError) as caught:
        config(**judge)
    assert str(caught.value).startswith(told)


def test_without_a_judge_the_method_says_so() -> None:
    with pytest.raises(
        ZpdError, match=r"^select.judge.model and select.judge.url are missing, and the method"
    ):
        measures.load("judge", config()).model(ModelRef("x"))
