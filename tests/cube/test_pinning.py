"""What tells that a file on a server changed, asked without reading it."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from rtsx.cube.pinning import _head


class Tagged(SimpleHTTPRequestHandler):
    """Also says an ETag, where the name asks for it."""

    def end_headers(self) -> None:
        if "tag" in self.path:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_header("ETag", f'"{hash(content)}"')
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Tagged, directory=str(tmp_path))) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{here.server_port}"
        here.shutdown()


@pytest.mark.parametrize("name", ["tag.tif", "dated.tif", "memory"])
def test_a_rewritten_file_has_another_state(server: str, tmp_path: Path, name: str) -> None:
    def write(content: bytes, time: int) -> str:
        if name == "memory":
            fsspec.filesystem("memory").pipe_file("/stamps/a.tif", content)
            return "memory://stamps/a.tif"
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (time, time))
        return f"{server}/{name}"

    before = _head(write(b"old", 1_600_000_000))
    assert before
    assert _head(write(b"old", 1_600_000_000)) == before or name == "memory"
    assert _head(write(b"new", 1_700_000_000)) != before


def test_a_server_that_says_nothing_is_no_change(server: str) -> None:
    assert _head(f"{server}/none.tif") == _head("http://127.0.0.1:1/a.tif") == _head("memory://none") == ""
