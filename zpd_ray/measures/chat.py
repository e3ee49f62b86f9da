"""Completions from an OpenAI-compatible server: POST URL/chat/completions, one request for each prompt."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import requests

from zpd_ray.config import JudgeConfig
from zpd_ray.engines.base import Completions

KEY = "OPENAI_API_KEY"  # in the environment of every node, where the server wants one
TRIES, WAIT_SECONDS = 3, 1.0  # the wait doubles
BUSY = (408, 409, 429)  # and from 500 on: another try may help
ANSWER_SECONDS = 300.0
KEYS = ("role", "content")  # of a message, that a server is sent


def complete_at(
    how: JudgeConfig, prompts: pa.Table, max_new_tokens: int, beat: Callable[[], None]
) -> Completions:
    """One greedy completion of each prompt; none, and why, where the server did not give one.

    beat: is called at each answer.
    """
    headers = {"Authorization": f"Bearer {os.environ[KEY]}"} if os.environ.get(KEY) else {}
    with requests.Session() as session, ThreadPoolExecutor(how.parallel) as threads:
        session.headers.update(headers)

        def ask(messages: list[dict[str, str]]) -> tuple[str | None, str | None]:
            body = {"messages": messages, "temperature": 0, "max_tokens": max_new_tokens}
            found = _answer(session, f"{str(how.url).rstrip('/')}/chat/completions", body | _named(how))
            beat()
            return found

        rows = prompts["messages"].to_pylist()
        answers = list(threads.map(ask, [[{key: turn[key] for key in KEYS} for turn in row] for row in rows]))
    return Completions([[] if text is None else [text] for text, _ in answers], [why for _, why in answers])


def _named(how: JudgeConfig) -> dict[str, str]:
    return {} if how.name is None else {"model": how.name}


def _answer(session: requests.Session, url: str, body: dict[str, Any]) -> tuple[str | None, str | None]:
    """What the server says, or why it says nothing."""
    why = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
        try:
            answer = session.post(url, json=body, timeout=ANSWER_SECONDS)
        except requests.RequestException as problem:
            why = f"the judge at {url} cannot be reached: {type(problem).__name__}"
            continue
        if answer.ok:
            return _text(answer, url)
        why = f"the judge at {url} answers {answer.status_code}: {answer.text[:200]}"
        if answer.status_code not in BUSY and answer.status_code < 500:
            break
    return None, why


def _text(answer: requests.Response, url: str) -> tuple[str | None, str | None]:
    try:
        return str(answer.json()["choices"][0]["message"]["content"] or ""), None
    except (ValueError, LookupError, TypeError):
        return None, f"the judge at {url} answers with no choices[0].message.content: {answer.text[:200]}"
