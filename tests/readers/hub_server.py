"""A small HTTP server that answers as the Hugging Face hub does, for one dataset in a local directory."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = sha1(b"the only commit").hexdigest()


class _Answers(BaseHTTPRequestHandler):
    directory: Path
    dataset: str
    commit: str
    asked: list[str]

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path).strip("/")
        self.asked.append(f"{self.command} {path}")
        for name in ("main", "v1"):  # a branch and a tag
            path = re.sub(rf"(/(?:tree|resolve|revision))/{name}\b", rf"\1/{self.commit}", path, count=1)
        api, files = f"api/datasets/{self.dataset}", f"datasets/{self.dataset}/resolve/{self.commit}/"
        if path in (api, f"{api}/revision/{self.commit}"):
            self._json({"id": self.dataset, "sha": self.commit, "siblings": [], "private": False})
        elif path.startswith(f"{api}/tree/{self.commit}"):
            self._json(self._tree(path.removeprefix(f"{api}/tree/{self.commit}").strip("/")))
        elif path.startswith(files) and (self.directory / path.removeprefix(files)).is_file():
            self._file((self.directory / path.removeprefix(files)).read_bytes())
        else:
            there = path.startswith((api, f"datasets/{self.dataset}/"))
            revision = there and "/revision/" in path
            code = "RevisionNotFound" if revision else "EntryNotFound" if there else "RepoNotFound"
            self._send(404 if there else 401, b"", {"X-Error-Code": code})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(f"POST {self.path} {body}")
        wanted = json.loads(body)["paths"]
        self._json(
            [self._entry(self.directory / path) for path in wanted if (self.directory / path).exists()]
        )

    def _tree(self, inside: str) -> list[dict]:
        recursive = "recursive=true" in self.path.lower()
        paths = (self.directory / inside).rglob("*") if recursive else (self.directory / inside).glob("*")
        return [self._entry(path) for path in sorted(paths)]

    def _entry(self, path: Path) -> dict:
        name, size = str(path.relative_to(self.directory)), path.stat().st_size
        oid = sha1(name.encode()).hexdigest()
        kind = "directory" if path.is_dir() else "file"
        return {"type": kind, "path": name, "oid": oid, "size": 0 if path.is_dir() else size}

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, content: bytes) -> None:
        headers = {
            "X-Repo-Commit": self.commit,
            "ETag": f'"{sha1(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        asked = self.headers.get("Range")
        if asked is None:
            return self._send(200, content, headers)
        start, _, end = asked.removeprefix("bytes=").partition("-")
        part = content[int(start) : int(end) + 1 if end else None]
        headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
        self._send(206, part, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def serving(directory: Path, dataset: str, commit: str = COMMIT) -> Iterator[tuple[str, list[str]]]:
    """The server's address, for HF_ENDPOINT, and what it was asked, which grows."""
    asked: list[str] = []
    answers = type(
        "Answers", (_Answers,), {"directory": directory, "dataset": dataset, "commit": commit, "asked": asked}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
