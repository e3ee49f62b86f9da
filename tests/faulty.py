"""A server in front of an S3 server, which answers some requests as a store does that has too much to do.

Which requests, and how, follows from a seed and the order in which they come.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock, Thread

BUSY, MANY, ERROR, REFUSED, UNKNOWN = "503", "429", "500", "403", "501"
CUT, LOST, HALF, SLOW = "cut", "lost", "half", "slow"  # before it is passed on; the answer, or half of it
KINDS = (BUSY, CUT, HALF, LOST, BUSY, SLOW, ERROR)
_SAYS = {
    BUSY: (503, "SlowDown", "Please reduce your request rate."),
    MANY: (429, "TooManyRequests", "Please reduce your request rate."),
    UNKNOWN: (501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
    REFUSED: (403, "AccessDenied", "Access Denied"),
    ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
}
SLOW_SECONDS = 1.0  # before and in the middle of an answer
OUR_OWN = ("connection", "expect", "content-length", "transfer-encoding")  # headers of one hop


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on, with faults: ``with FaultyProxy(...).serving():``.

    share: of the requests that go wrong. at_most: so many do. kinds: in turn.
    """

    daemon_threads = True

    def __init__(self, server: str, share: float, at_most: int, kinds: Sequence[str] = KINDS) -> None:
        """server: its address, HOST:PORT."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server, self.share, self.at_most, self.kinds = server, share, at_most, kinds
        self.seen, self.faults, self._dice = 0, Counter[str](), Random(0)
        self._counting = Lock()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.server_port}"

    def fault(self, method: str, conditional: bool) -> str | None:
        """What goes wrong with a request; None: nothing. conditional: whether it writes only a new file."""
        with self._counting:
            self.seen += 1
            done = self.faults.total()
            if done >= self.at_most or self._dice.random() >= self.share:
                return None
            kind = self.kinds[done % len(self.kinds)]
            if kind == HALF and method != "GET":
                kind = CUT  # there is no answer to halve
            self.faults[kind] += 1
            return kind

    @contextmanager
    def serving(self) -> Iterator[FaultyProxy]:
        """While the context lasts."""
        thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass_on(self) -> None:
        body = self._body()
        kind = self.server.fault(self.command, "If-None-Match" in self.headers)
        if kind == CUT:
            self._hang_up()
        elif kind in _SAYS:
            self._say(kind)
        else:
            answer = self._asked(body)
            if kind == LOST:
                self._hang_up()
            else:
                self._answer(*answer, kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        link = http.client.HTTPConnection(self.server.server, timeout=120)
        link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in OUR_OWN:
                link.putheader(name, value)
        link.putheader("Content-Length", str(len(body)))
        link.endheaders(body)
        answer = link.getresponse()
        content = answer.read()
        link.close()
        return answer.status, answer.getheaders(), content

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, kind: str | None) -> None:
        if kind == SLOW:
            time.sleep(SLOW_SECONDS)
        self.send_response_only(status)
        told = str(len(content))
        for name, value in headers:
            if name.lower() not in OUR_OWN:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                told = value
        self.send_header("Content-Length", told)
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if kind == HALF:
            self._hang_up()
            return
        if kind == SLOW:
            self.wfile.flush()
            time.sleep(SLOW_SECONDS)
        self.wfile.write(content[half:])

    def _say(self, kind: str) -> None:
        status, code, message = _SAYS[kind]
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        content = f"<?xml version='1.0'?>{error}".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing."""
