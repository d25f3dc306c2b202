"""A web server with ranges on loopback that can be told to fail."""

import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FileServer:
    """Serves a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trouble: dict[str, list[object]] = {}
        """By path: a status, or `cut` for half the bytes; each happens once, in order."""
        self.asked: list[tuple[str, str | None, dict[str, str]]] = []
        """Path, range and headers of each request."""
        self.tagged = True
        """Whether answers have an ETag."""
        self.sized = True
        """Whether answers say how long they are; else they end with the connection."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with suppress(ConnectionError):  # whoever has enough hangs up
                    super().handle()

            def do_GET(self) -> None:
                server.answer(self)

            do_HEAD = do_GET

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        self.asked.append((path, request.headers.get("Range"), dict(request.headers)))
        trouble = self.trouble.get(path, [])
        what = trouble.pop(0) if trouble else None
        file = self.folder / path.lstrip("/")
        if isinstance(what, int) or not file.is_file():
            request.send_response(what if isinstance(what, int) else 404)
            if what == 503:
                request.send_header("Retry-After", "7")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        data = file.read_bytes()
        tag, start, stop = f'"{file.stat().st_mtime_ns}-{len(data)}"', 0, len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
        if wanted and request.headers.get("If-Range", tag) == tag:
            start, stop = int(wanted[1]), min(int(wanted[2] or stop) + bool(wanted[2]), stop)
        request.send_response(206 if (start, stop) != (0, len(data)) else 200)
        if self.tagged:
            request.send_header("ETag", tag)
        if self.sized:
            request.send_header("Content-Length", str(stop - start))
        else:
            request.send_header("Connection", "close")
        if (start, stop) != (0, len(data)):
            request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        request.end_headers()
        if what == "cut":
            request.wfile.write(data[start : (start + len(data)) // 2])
            request.wfile.flush()
            request.close_connection = True
            request.connection.close()
        elif request.command == "GET":
            request.wfile.write(data[start:stop])
