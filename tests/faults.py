"""Faults on purpose: a proxy on loopback between a client and a server, and a disk that takes no larger files."""

import http.client
import random
import resource
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal["503", "507", "cut", "cut after"]
"""Answer 503 (busy) or 507 (full) without asking the server; close the connection without asking it; ask it, and close instead
of answering."""


class FaultyProxy:
    """Forwards HTTP to one server, and fails a share of the requests, drawn from a seed in the order in which they come.

    Parameters
    ----------
    upstream
        Address of the server, such as ``http://127.0.0.1:5000``.
    rate
        Share of requests that fail.
    faults
        How; one of them is drawn for each.
    methods
        Which requests may fail, such as ``{"PUT"}``; None for all.
    path
        Only requests whose path and query hold this.
    drop
        Names of headers that the server never sees.
    seed
        Of the draws.
    """

    def __init__(
        self,
        upstream: str,
        *,
        rate: float = 0.0,
        faults: Sequence[Fault] = ("503", "cut"),
        methods: Collection[str] | None = None,
        path: str = "",
        drop: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        parts = urlsplit(upstream)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self.rate = rate
        self.faults = faults
        self.methods = methods
        self.path = path
        self.dropped = {name.lower() for name in drop}
        self.asked = 0
        """Requests that could have failed."""
        self.failed = 0
        """Those that did."""
        self.answered: list[tuple[str, str]] = []
        """Method and path of each request that the server has done, in order."""
        self.plan: Callable[[str, str], Fault | None] | None = None
        """Called with method and path instead of drawing, where it is set."""
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # so that connections stay, as they do with a real server
            disable_nagle_algorithm = True  # or every answer waits for the acknowledgement of its headers

            def _forward(self) -> None:
                proxy._forward(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """Keep quiet: clients that give up are what this is for."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "FaultyProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _draw(self, method: str, path: str) -> Fault | None:
        if (self.methods is not None and method not in self.methods) or self.path not in path:
            return None
        with self._lock:
            self.asked += 1
            if self.plan is not None:
                fault = self.plan(method, path)
            else:
                fault = self._random.choice(self.faults) if self._random.random() < self.rate else None
            self.failed += fault is not None
        return fault

    def _forward(self, request: BaseHTTPRequestHandler) -> None:
        body = _body(request)
        fault = self._draw(request.command, request.path)
        if fault == "cut":
            _cut(request)
            return
        if fault in ("503", "507"):
            request.send_response(int(fault))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        headers = {name: value for name, value in request.headers.items() if name.lower() not in self.dropped | _HOP}
        server = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            server.request(request.command, request.path, body=body, headers=headers)
            answer = server.getresponse()
            content = answer.read()
        finally:
            server.close()
        if answer.status < 300:
            self.answered.append((request.command, request.path))
        if fault == "cut after":
            _cut(request)
            return
        request.send_response(answer.status)
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        if request.command != "HEAD":
            kept = [(name, value) for name, value in kept if name.lower() != "content-length"]
            kept.append(("Content-Length", str(len(content))))
        for name, value in kept:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)


_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "server", "date"}
"""Headers of one connection, and those that the handler writes by itself."""


def _body(request: BaseHTTPRequestHandler) -> bytes | None:
    if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
        parts = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        while request.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)
    length = request.headers.get("Content-Length")
    return None if length is None else request.rfile.read(int(length))


def _cut(request: BaseHTTPRequestHandler) -> None:
    """Close the connection under the client."""
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
